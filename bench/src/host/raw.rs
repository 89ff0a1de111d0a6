//! The limit of the TCP route: plain sockets with the same exchanges, a thread for each connection at both ends.
//!
//! A calling thread deals the blocks of its batch to its streams; a stream sends all of its requests and then
//! reads the answers. One stream is the caller's own thread; more have a thread each.

use std::io::{IoSlice, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use anyhow::bail;

use super::contender::Contender;
use super::ours::thread_time;
use super::{BUFFER_BYTES, Cell, Measured, drive, processor_time_of};

const HEADER_BYTES: usize = 24;
const STATUS_BYTES: usize = 8;
/// Requests that a reading stream has under way: their answers must fit what sockets hold.
const READS_AT_ONCE: usize = 16;

fn header(write: bool, offset: u64, length_bytes: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    for (byte, value) in bytes
        .iter_mut()
        .zip(offset.to_le_bytes().into_iter().chain(length_bytes.to_le_bytes()).chain([u8::from(write)]))
    {
        *byte = value;
    }
    bytes
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Serves every connection on a thread of its own; gives the port.
///
/// # Errors
/// When no socket can be had.
pub fn serve() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || session(stream));
        }
    });
    Ok(port)
}

fn session(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    // Each has memory of its own, the part of the buffer its requests name.
    let mut buffer = vec![1_u8; usize::try_from(BUFFER_BYTES / 4).ok()?];
    let room = u64::try_from(buffer.len()).ok()?;
    let mut head = [0; HEADER_BYTES];
    loop {
        stream.read_exact(&mut head).ok()?;
        let (offset, length) = (word(&head), usize::try_from(word(head.get(8..)?)).ok()?);
        let start = usize::try_from(offset % room).ok()?.min(buffer.len().checked_sub(length)?);
        let part = buffer.get_mut(start..start + length)?;
        if head.get(16) == Some(&1) {
            stream.read_exact(part).ok()?;
            stream.write_all(&[0; STATUS_BYTES]).ok()?;
        } else {
            write_both(&mut stream, &[0; STATUS_BYTES], part).ok()?;
        }
    }
}

fn write_both(stream: &mut TcpStream, head: &[u8], body: &[u8]) -> std::io::Result<()> {
    let count = stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)])?;
    match count.checked_sub(head.len()) {
        Some(sent) => stream.write_all(body.get(sent..).unwrap_or_default()),
        None => {
            stream.write_all(head.get(count..).unwrap_or_default())?;
            stream.write_all(body)
        }
    }
}

struct Lane {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Lane {
    /// Moves the blocks with these offsets there.
    fn run(&mut self, cell: &Cell, offsets: &[u64]) -> std::io::Result<()> {
        let length = usize::try_from(cell.block_bytes).unwrap_or(usize::MAX);
        let part = self.buffer.get_mut(..length).unwrap_or_default();
        let mut status = [0; STATUS_BYTES];
        if cell.write {
            for offset in offsets {
                write_both(&mut self.stream, &header(true, *offset, cell.block_bytes), part)?;
            }
            for _ in offsets {
                self.stream.read_exact(&mut status)?;
            }
            return Ok(());
        }
        for some in offsets.chunks(READS_AT_ONCE) {
            let heads: Vec<u8> =
                some.iter().flat_map(|offset| header(false, *offset, cell.block_bytes)).collect();
            self.stream.write_all(&heads)?;
            for _ in some {
                self.stream.read_exact(&mut status)?;
                self.stream.read_exact(part)?;
            }
        }
        Ok(())
    }
}

/// Plain sockets.
pub struct Raw {
    name: &'static str,
    /// By calling thread.
    lanes: Vec<Mutex<Vec<Lane>>>,
    target: u32,
}

impl Raw {
    /// `streams` connections for each of `threads` calling threads.
    ///
    /// # Errors
    /// When the target does not answer.
    pub fn new(name: &'static str, port: u16, target: u32, threads: u64, streams: usize) -> Result<Self> {
        let lane = || -> Result<Lane> {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_nodelay(true)?;
            Ok(Lane { stream, buffer: vec![1; 16 << 20] })
        };
        let lanes = (0..threads)
            .map(|_| Ok(Mutex::new((0..streams).map(|_| lane()).collect::<Result<_>>()?)))
            .collect::<Result<_>>()?;
        Ok(Self { name, lanes, target })
    }
}

impl Contender for Raw {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&mut self, cell: &Cell, limit: Duration) -> Result<Measured> {
        let failed = AtomicBool::new(false);
        let spent = std::sync::atomic::AtomicU64::new(0);
        let before = processor_time_of(self.target);
        let (calls, elapsed) = drive(cell, limit, |thread, number| {
            let lanes = usize::try_from(thread).ok().and_then(|thread| self.lanes.get(thread));
            let Some(mut lanes) = lanes.and_then(|lanes| lanes.lock().ok()) else { return };
            let offsets: Vec<u64> = cell.blocks(thread, number).map(|(_, there)| there).collect();
            let share = offsets.len().div_ceil(lanes.len().max(1)).max(1);
            let work = |lane: &mut Lane, offsets: &[u64]| {
                let time = thread_time();
                if lane.run(cell, offsets).is_err() {
                    failed.store(true, Ordering::Relaxed);
                }
                let time = thread_time().saturating_sub(time);
                spent.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(0), Ordering::Relaxed);
            };
            if let [lane] = lanes.as_mut_slice() {
                work(lane, &offsets);
                return;
            }
            std::thread::scope(|scope| {
                for (lane, offsets) in lanes.iter_mut().zip(offsets.chunks(share)) {
                    scope.spawn(move || work(lane, offsets));
                }
            });
        });
        if failed.into_inner() {
            bail!("a plain socket broke");
        }
        let processor =
            processor_time_of(self.target).saturating_sub(before) + Duration::from_nanos(spent.into_inner());
        Ok(Measured { calls, elapsed, processor })
    }
}
