//! Another process's memory, through the kernel.
//!
//! The kernel checks both sides: an address that is not mapped at either end is an error here, never a fault. It
//! also decides whether this process may touch that one at all (same user, same container, Yama's rules).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;

/// Most blocks of one call; the kernel takes 1024.
pub(crate) const MAX_BLOCKS: usize = 128;

/// How long a number cannot be given to another process after its owner was seen alive: the kernel gives numbers
/// out in turn, and to make all the others in between takes many times as long.
const NUMBER_IS_KEPT: Duration = Duration::from_millis(2);

/// A process on this host. Holds its pidfd, which tells for certain when it has ended, so that a process that
/// takes over its number is never mistaken for it.
#[derive(Debug)]
pub(crate) struct Process {
    pid: libc::pid_t,
    pidfd: OwnedFd,
    opened: Instant,
    /// When it was last seen alive, in microseconds since it was opened.
    seen_us: AtomicU64,
}

/// Blocks to be moved in one call.
struct Vectors {
    local: [libc::iovec; MAX_BLOCKS],
    remote: [libc::iovec; MAX_BLOCKS],
    count: usize,
}

const EMPTY: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

impl Vectors {
    /// The first blocks: addresses here and there, and the length. Gives also their sum.
    fn of(blocks: impl Iterator<Item = (u64, u64, u64)>) -> Result<(Self, usize)> {
        let mut vectors = Self { local: [EMPTY; MAX_BLOCKS], remote: [EMPTY; MAX_BLOCKS], count: 0 };
        let mut total_bytes = 0_usize;
        for ((local, remote, length_bytes), (here, there)) in
            blocks.zip(vectors.local.iter_mut().zip(vectors.remote.iter_mut()))
        {
            let (local, remote) =
                (ByteRange::new(local, length_bytes)?, ByteRange::new(remote, length_bytes)?);
            let native = |value: u64| {
                usize::try_from(value).map_err(|_| {
                    Error::new(Code::InvalidArgument, Stage::Execute, "the address does not fit this machine")
                })
            };
            let length = native(length_bytes)?;
            let vector = |address: usize| libc::iovec {
                iov_base: std::ptr::with_exposed_provenance_mut(address),
                iov_len: length,
            };
            *here = vector(native(local.start())?);
            *there = vector(native(remote.start())?);
            vectors.count += 1;
            total_bytes = total_bytes.saturating_add(length);
        }
        Ok((vectors, total_bytes))
    }
}

impl Process {
    /// The process with that number now.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: the call takes two integers and gives a descriptor or -1.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let descriptor = i32::try_from(result).ok().filter(|descriptor| *descriptor >= 0);
        let descriptor = descriptor.ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the descriptor was just made for us, and nobody else knows it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { pid, pidfd, opened: Instant::now(), seen_us: AtomicU64::new(0) })
    }

    /// Its number here.
    pub(crate) fn number(&self) -> libc::pid_t {
        self.pid
    }

    /// Whether it has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which lives until the call returns; it does not wait.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
        ready == 0
    }

    /// Whether its number is still its own. Looks at most once in [`NUMBER_IS_KEPT`].
    fn is_itself(&self) -> bool {
        let now_us = u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX);
        let seen_us = self.seen_us.load(Ordering::Relaxed);
        if now_us.saturating_sub(seen_us) < u64::try_from(NUMBER_IS_KEPT.as_micros()).unwrap_or(0) {
            return true;
        }
        let alive = self.is_alive();
        if alive {
            self.seen_us.fetch_max(now_us, Ordering::Relaxed);
        }
        alive
    }

    /// Refuses when it has ended, as it was seen within the last [`NUMBER_IS_KEPT`].
    pub(crate) fn check_alive(&self) -> Result<()> {
        if self.is_itself() { Ok(()) } else { Err(gone()) }
    }

    /// Opens the file behind a descriptor of it, by a description of our own.
    ///
    /// # Errors
    /// What the kernel says; `InvalidData` when the descriptor is not that file.
    pub(crate) fn open_file(&self, descriptor: i32, inode: u64) -> io::Result<File> {
        let path = format!("/proc/{}/fd/{descriptor}", self.pid);
        // To open a device or a pipe can have effects, so it is looked at first.
        let facts = std::fs::metadata(&path)?;
        if !facts.is_file() || facts.ino() != inode {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer has closed the file"));
        }
        let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
        // Was that its number all the time?
        if self.is_alive() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// A copy of a descriptor of it; the two share position and locks.
    pub(crate) fn copy_descriptor(&self, descriptor: i32) -> io::Result<OwnedFd> {
        // SAFETY: three integers; the call gives a descriptor or -1.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.pidfd.as_raw_fd(), descriptor, 0) };
        let copy = i32::try_from(result).ok().filter(|copy| *copy >= 0);
        let copy = copy.ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the descriptor was just made for us, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(copy) })
    }

    /// Reads a few bytes of it.
    pub(crate) fn peek(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        let here = u64::try_from(bytes.as_mut_ptr().expose_provenance()).unwrap_or(u64::MAX);
        let length_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.transfer(false, &[(here, address, length_bytes)])
    }

    /// Moves blocks (address here, address there, length): from here to there when `write`, else the other way.
    /// At most [`MAX_BLOCKS`]. Fails when not everything could be moved; part of it may have been.
    ///
    /// The memory of both sides was vouched for by who registered or submitted it.
    pub(crate) fn transfer(&self, write: bool, blocks: &[(u64, u64, u64)]) -> Result<()> {
        if !self.is_itself() {
            return Err(gone());
        }
        let mut done = 0_usize;
        let mut skip_bytes = 0_u64;
        while let Some(rest) = blocks.get(done..).filter(|rest| !rest.is_empty()) {
            // A call may stop early, for a signal or at the limit of the kernel; it goes on where it stopped.
            let mut skip = skip_bytes;
            let (vectors, total_bytes) = Vectors::of(rest.iter().map(|&(local, remote, length_bytes)| {
                let skipped = std::mem::take(&mut skip);
                (
                    local.wrapping_add(skipped),
                    remote.wrapping_add(skipped),
                    length_bytes.saturating_sub(skipped),
                )
            }))?;
            let moved = self.call(write, &vectors).and_then(|moved| {
                if moved == 0 && total_bytes > 0 {
                    Err(io::ErrorKind::UnexpectedEof.into())
                } else {
                    Ok(moved)
                }
            });
            let moved = match moved {
                Ok(moved) => moved,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failure(&error, rest)),
            };
            let mut left = u64::try_from(moved).unwrap_or(u64::MAX).saturating_add(skip_bytes);
            while let Some((_, _, length_bytes)) = blocks.get(done) {
                let Some(behind) = left.checked_sub(*length_bytes) else { break };
                left = behind;
                done += 1;
            }
            skip_bytes = left;
        }
        Ok(())
    }

    fn call(&self, write: bool, vectors: &Vectors) -> io::Result<usize> {
        let (local, remote) = (vectors.local.as_ptr(), vectors.remote.as_ptr());
        let count = libc::c_ulong::try_from(vectors.count).unwrap_or_default();
        // SAFETY: both lists have `count` filled entries and live until the call returns. The local memory was
        // vouched for by the caller of `Engine::register` or `Engine::submit` (or is a borrowed buffer, for a
        // peek); the kernel checks the addresses of both sides.
        let moved = unsafe {
            if write {
                libc::process_vm_writev(self.pid, local, count, remote, count, 0)
            } else {
                libc::process_vm_readv(self.pid, local, count, remote, count, 0)
            }
        };
        usize::try_from(moved).map_err(|_| io::Error::last_os_error())
    }

    fn failure(&self, error: &io::Error, rest: &[(u64, u64, u64)]) -> Error {
        let (start, length_bytes) =
            rest.first().map_or((0, 0), |(_, remote, length_bytes)| (*remote, *length_bytes));
        match error.raw_os_error() {
            Some(libc::ESRCH) => gone(),
            Some(libc::EFAULT) => {
                Error::new(Code::InvalidArgument, Stage::Execute, "the memory of one side is not mapped")
                    .advice("keep the buffers of a transfer mapped until it is over")
            }
            _ => Error::new(
                Code::Unsupported,
                Stage::Execute,
                format!("the kernel does not move memory between the processes: {error}"),
            ),
        }
        .range(start, length_bytes)
    }
}

fn gone() -> Error {
    Error::new(Code::Endpoint, Stage::Execute, "the peer's process has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(bytes: &[u8]) -> u64 {
        bytes.as_ptr().expose_provenance() as u64
    }

    #[test]
    fn blocks_are_moved_both_ways() {
        let myself = Process::open(std::process::id()).unwrap();
        assert!(myself.is_alive());
        let far = (0..=255).collect::<Vec<u8>>();
        let near = vec![0_u8; 256];
        let blocks = [(address(&near), address(&far) + 128, 128), (address(&near) + 128, address(&far), 128)];
        myself.transfer(false, &blocks).unwrap();
        assert_eq!((&near[..128], &near[128..]), (&far[128..], &far[..128]));
        let target = vec![0_u8; 256];
        myself.transfer(true, &[(address(&near), address(&target), 256)]).unwrap();
        assert_eq!(target, near);
        let mut some = [0; 4];
        myself.peek(address(&far) + 10, &mut some).unwrap();
        assert_eq!(some, [10, 11, 12, 13]);
    }

    #[test]
    fn what_is_not_mapped_is_an_error() {
        let myself = Process::open(std::process::id()).unwrap();
        let near = [0_u8; 64];
        let error = myself.transfer(false, &[(address(&near), 16, 32)]).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        let blocks = [(address(&near), address(&near) + 32, 16), (address(&near), 16, 32)];
        let error = myself.transfer(false, &blocks).unwrap_err();
        assert_eq!((error.code(), error.record().range), (Code::InvalidArgument, Some((16, 32))), "{error}");
    }

    #[test]
    fn an_ended_process_is_known() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        child.wait().unwrap();
        assert!(!process.is_alive());
        let near = [0_u8; 8];
        assert_eq!(process.transfer(false, &[(address(&near), 4096, 8)]).unwrap_err().code(), Code::Endpoint);
        assert!(Process::open(child.id()).is_err());
    }
}
