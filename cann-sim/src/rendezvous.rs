//! The meeting of two ranks in `HcclCommPrepare`: who the peer is, which memory it offers, and the open files
//! behind that memory.
//!
//! Each rank listens on an abstract unix socket (no file, gone with the process) whose name is made from namespace,
//! communicator name, rank table, link kind and rank; so ranks that disagree on any of them never meet and time
//! out, as on hardware. Every pair is handled in the order (lower rank, higher rank), which all ranks share, so no
//! cycle of waiting can form. In a pair the lower rank is the server: it sends first, then receives.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use crate::clock::Deadline;
use crate::fd_channel;

/// "cann-sim", version 2 of the exchange.
const MAGIC: u64 = 0x6361_6e6e_7369_6d02;
/// Regions a peer may offer.
const REGION_LIMIT: u64 = 1 << 20;
/// Open files a peer may offer.
const FILE_LIMIT: u64 = 1 << 14;
/// First and longest pause between two attempts to reach a rank that does not listen yet.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// How the peer can reach an offered region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// By mapping the file with this index at this offset.
    File {
        /// Index in the offer's files.
        index: u64,
        /// First byte of the region in the file.
        offset: u64,
    },
    /// By asking the kernel for the owner's memory.
    Process,
}

/// One offered region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferedRegion {
    /// First address, in the owner's address space.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// How to reach it.
    pub medium: Medium,
}

/// What one rank tells another.
#[derive(Debug)]
pub struct Offer {
    /// The process.
    pub pid: u64,
    /// The network of the link: ranks that are not on the same one never meet.
    pub fabric: u64,
    /// It has no device memory for the link's buffers: it comes only to say so.
    pub is_exhausted: bool,
    /// Its regions.
    pub regions: Vec<OfferedRegion>,
    /// Files behind them.
    pub files: Vec<OwnedFd>,
}

/// A meeting place.
pub struct Meeting {
    key: String,
    rank: u32,
    listener: Option<UnixListener>,
}

/// A 128-bit FNV hash as text: the socket's name has 107 bytes, the rank table may have many.
pub fn key(parts: &[&[u8]]) -> String {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for part in parts {
        let length = part.len().to_le_bytes();
        for byte in length.iter().chain(part.iter()) {
            hash = (hash ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
        }
    }
    format!("{hash:032x}")
}

fn address(key: &str, rank: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("cann-sim/{key}/{rank}"))
}

fn pause_until(deadline: Deadline, pause: &mut Duration) -> io::Result<()> {
    let left = match deadline {
        None => *pause,
        Some(deadline) => deadline
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
            .ok_or(io::ErrorKind::TimedOut)?,
    };
    std::thread::sleep(left.min(*pause));
    *pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    Ok(())
}

/// Whether an error says that this attempt met nobody or a peer that gave up, so that another may succeed.
fn may_try_again(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::NotFound
            | io::ErrorKind::InvalidData
            | io::ErrorKind::Interrupted
    )
}

impl Meeting {
    /// Opens the place of `rank`; it listens when higher ranks will come.
    pub fn open(key: String, rank: u32, ranks: u32, deadline: Deadline) -> io::Result<Self> {
        let mut pause = FIRST_PAUSE;
        let listener = loop {
            if rank + 1 >= ranks {
                break None;
            }
            match UnixListener::bind_addr(&address(&key, rank)?) {
                Ok(listener) => break Some(listener),
                // Another communicator of the same name and table is preparing here: wait as for a busy port.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => pause_until(deadline, &mut pause)?,
                Err(error) => return Err(error),
            }
        };
        if let Some(listener) = &listener {
            listener.set_nonblocking(true)?;
        }
        Ok(Self { key, rank, listener })
    }

    /// Meets `peer`: exchanges offers and confirms. The socket stays open as the sign of life.
    pub fn meet(&self, peer: u32, offer: &Offer, deadline: Deadline) -> io::Result<(UnixStream, Offer)> {
        let mut pause = FIRST_PAUSE;
        loop {
            let attempt = if peer < self.rank {
                UnixStream::connect_addr(&address(&self.key, peer)?).and_then(|socket| {
                    self.exchange_as_client(&socket, peer, offer, deadline).map(|met| (socket, met))
                })
            } else {
                self.accept(deadline).and_then(|socket| {
                    self.exchange_as_server(&socket, peer, offer, deadline).map(|met| (socket, met))
                })
            };
            match attempt {
                Ok(met) => return Ok(met),
                Err(error) if may_try_again(&error) => pause_until(deadline, &mut pause)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn accept(&self, deadline: Deadline) -> io::Result<UnixStream> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        loop {
            match listener.accept() {
                Ok((socket, _)) => {
                    socket.set_nonblocking(false)?;
                    return Ok(socket);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            let wait_ms = match deadline {
                None => -1,
                Some(deadline) => {
                    let left = deadline
                        .checked_duration_since(Instant::now())
                        .filter(|left| !left.is_zero())
                        .ok_or(io::ErrorKind::TimedOut)?;
                    i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1)
                }
            };
            let mut poll = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd on the stack; the listener is open.
            unsafe { libc::poll(&raw mut poll, 1, wait_ms) };
        }
    }

    fn exchange_as_server(
        &self,
        socket: &UnixStream,
        peer: u32,
        offer: &Offer,
        deadline: Deadline,
    ) -> io::Result<Offer> {
        let greeted = receive_words::<3>(socket, deadline)?;
        if greeted != [MAGIC, u64::from(peer), offer.fabric] {
            // Ranks come in any order; a later one is turned away and tries again.
            return Err(io::ErrorKind::InvalidData.into());
        }
        send_words(socket, &[MAGIC, u64::from(self.rank), offer.fabric], deadline)?;
        send_offer(socket, offer, deadline)?;
        let theirs = receive_offer(socket, deadline)?;
        send_words(socket, &[MAGIC], deadline)?;
        Ok(theirs)
    }

    fn exchange_as_client(
        &self,
        socket: &UnixStream,
        peer: u32,
        offer: &Offer,
        deadline: Deadline,
    ) -> io::Result<Offer> {
        send_words(socket, &[MAGIC, u64::from(self.rank), offer.fabric], deadline)?;
        if receive_words::<3>(socket, deadline)? != [MAGIC, u64::from(peer), offer.fabric] {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let theirs = receive_offer(socket, deadline)?;
        send_offer(socket, offer, deadline)?;
        if receive_words::<1>(socket, deadline)? != [MAGIC] {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(theirs)
    }
}

fn send_words(socket: &UnixStream, words: &[u64], deadline: Deadline) -> io::Result<()> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    fd_channel::send(socket, &bytes, deadline)
}

fn receive_words<const COUNT: usize>(socket: &UnixStream, deadline: Deadline) -> io::Result<[u64; COUNT]> {
    let mut words = [0; COUNT];
    for word in &mut words {
        let mut bytes = [0; 8];
        fd_channel::receive(socket, &mut bytes, deadline)?;
        *word = u64::from_le_bytes(bytes);
    }
    Ok(words)
}

fn send_offer(socket: &UnixStream, offer: &Offer, deadline: Deadline) -> io::Result<()> {
    let count = |length: usize| u64::try_from(length).map_err(|_| io::ErrorKind::InvalidInput);
    send_words(
        socket,
        &[
            offer.pid,
            offer.fabric,
            u64::from(offer.is_exhausted),
            count(offer.files.len())?,
            count(offer.regions.len())?,
        ],
        deadline,
    )?;
    fd_channel::send_files(socket, &offer.files, deadline)?;
    let words: Vec<u64> = offer
        .regions
        .iter()
        .flat_map(|region| {
            let (kind, index, offset) = match region.medium {
                Medium::File { index, offset } => (0, index, offset),
                Medium::Process => (1, 0, 0),
            };
            [region.start, region.length, kind, index, offset]
        })
        .collect();
    send_words(socket, &words, deadline)
}

fn receive_offer(socket: &UnixStream, deadline: Deadline) -> io::Result<Offer> {
    let [pid, fabric, exhausted, files, regions] = receive_words::<5>(socket, deadline)?;
    if files > FILE_LIMIT || regions > REGION_LIMIT {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let files = usize::try_from(files).map_err(|_| io::ErrorKind::InvalidData)?;
    let files = fd_channel::receive_files(socket, files, deadline)?;
    let length = usize::try_from(regions * 40).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut bytes = vec![0; length];
    fd_channel::receive(socket, &mut bytes, deadline)?;
    let mut words = bytes.chunks_exact(8).map(|chunk| {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    let mut offered = Vec::new();
    while let (Some(start), Some(length), Some(kind), Some(index), Some(offset)) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    {
        let medium = if kind == 0 { Medium::File { index, offset } } else { Medium::Process };
        offered.push(OfferedRegion { start, length, medium });
    }
    Ok(Offer { pid, fabric, is_exhausted: exhausted != 0, regions: offered, files })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(start: u64) -> Offer {
        Offer {
            pid: 1,
            fabric: 0,
            is_exhausted: false,
            regions: vec![OfferedRegion { start, length: 2, medium: Medium::Process }],
            files: Vec::new(),
        }
    }

    #[test]
    fn four_ranks_meet_in_one_process() {
        let key = key(&[b"four ranks", &std::process::id().to_le_bytes()]);
        let deadline = Some(Instant::now() + Duration::from_secs(20));
        let threads: Vec<_> = (0..4_u32)
            .map(|rank| {
                let key = key.clone();
                std::thread::spawn(move || {
                    let meeting = Meeting::open(key, rank, 4, deadline).unwrap();
                    for peer in (0..4).filter(|peer| *peer != rank) {
                        let (_, met) = meeting.meet(peer, &offer(u64::from(rank)), deadline).unwrap();
                        assert_eq!(met.regions[0].start, u64::from(peer));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_missing_peer_times_out_on_both_sides() {
        for rank in [0, 1] {
            let key = key(&[b"alone", &std::process::id().to_le_bytes()]);
            let deadline = Some(Instant::now() + Duration::from_millis(50));
            let meeting = Meeting::open(key, rank, 2, deadline).unwrap();
            let error = meeting.meet(1 - rank, &offer(0), deadline).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }
}
