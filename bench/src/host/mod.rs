//! Host memory between two processes of one host: this engine by its three routes, upstream's released engine, NIXL,
//! plain sockets, the kernel's copy and a plain copy into mapped memory, cell by cell and interleaved in one run.
//!
//! A cell is a direction, a block size, a batch and a number of calling threads. Every contender moves the same
//! blocks: those of a batch lie one behind another here and in reverse order there, so that none can be merged,
//! and batches walk through a buffer of [`BUFFER_BYTES`]. A call is one batch, from submit to its end.
//!
//! All buffers are private memory, touched from end to end before anything is measured, but for the one that is mapped.
//! This engine puts what is registered with it together into huge pages, unless it is told not to; the loop of bare
//! calls moves the memory of this engine's target, and gains by that, too.

pub mod contender;
pub mod kernel;
pub mod mapped;
pub mod ours;
pub mod python;
pub mod raw;
pub mod record;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::statistics::Sample;

/// The buffer on each side.
pub const BUFFER_BYTES: u64 = 256 << 20;

/// What is measured at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Write to the target, or read from it.
    pub write: bool,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Blocks of a call.
    pub batch: u64,
    /// Calling threads.
    pub threads: u64,
}

impl Cell {
    /// Bytes of a call.
    #[must_use]
    pub fn call_bytes(&self) -> u64 {
        self.block_bytes * self.batch
    }

    /// The cells of a run: as many as fit the buffer.
    #[must_use]
    pub fn all(sizes: &[u64], batches: &[u64], threads: &[u64]) -> Vec<Self> {
        let mut cells = Vec::new();
        for &threads in threads {
            for &batch in batches {
                for &block_bytes in sizes {
                    for write in [true, false] {
                        let cell = Self { write, block_bytes, batch, threads };
                        if cell.call_bytes() * threads <= BUFFER_BYTES {
                            cells.push(cell);
                        }
                    }
                }
            }
        }
        cells
    }

    /// Offsets here and there of the blocks of call number `call` of a thread.
    pub fn blocks(&self, thread: u64, call: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let (block_bytes, batch) = (self.block_bytes, self.batch);
        let slots = (BUFFER_BYTES / self.call_bytes()).max(1);
        let start = ((call * self.threads + thread) % slots) * self.call_bytes();
        (0..batch).map(move |index| (start + index * block_bytes, start + (batch - 1 - index) * block_bytes))
    }
}

/// What one contender did in one cell.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Time of each call.
    pub calls: Vec<Duration>,
    /// From the first call's start to the last one's end.
    pub elapsed: Duration,
    /// Processor time of both processes.
    pub processor: Duration,
}

impl Measured {
    /// 1e9 bytes per second.
    #[must_use]
    pub fn gigabytes_per_second(&self, cell: &Cell) -> f64 {
        let bytes = cell.call_bytes() as f64 * self.calls.len() as f64;
        bytes / self.elapsed.as_secs_f64() / 1e9
    }

    /// Processor seconds for 1e9 bytes.
    #[must_use]
    pub fn processor_per_gigabyte(&self, cell: &Cell) -> f64 {
        let bytes = cell.call_bytes() as f64 * self.calls.len() as f64;
        self.processor.as_secs_f64() / (bytes / 1e9)
    }

    /// The times of the calls, sorted.
    #[must_use]
    pub fn sample(&self) -> Sample {
        Sample::new(self.calls.clone())
    }
}

/// Calls `call` (thread, number) on the cell's threads until `limit` is over; at least once each.
pub fn drive(cell: &Cell, limit: Duration, call: impl Fn(u64, u64) + Sync) -> (Vec<Duration>, Duration) {
    let start = Instant::now();
    let per_thread: Vec<Vec<Duration>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cell.threads)
            .map(|thread| {
                let call = &call;
                scope.spawn(move || {
                    let mut times = Vec::new();
                    for number in 0.. {
                        let begun = Instant::now();
                        call(thread, number);
                        times.push(begun.elapsed());
                        if start.elapsed() >= limit {
                            break;
                        }
                    }
                    times
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    (per_thread.into_iter().flatten().collect(), start.elapsed())
}

/// [`drive`] with calls that run on the calling thread alone, whose processor time is all there is; none if one fails.
pub(crate) fn drive_here(
    cell: &Cell,
    limit: Duration,
    call: impl Fn(u64, u64) -> Option<()> + Sync,
) -> Option<Measured> {
    let failed = AtomicBool::new(false);
    let spent = AtomicU64::new(0);
    let (calls, elapsed) = drive(cell, limit, |thread, number| {
        let time = ours::thread_time();
        if call(thread, number).is_none() {
            failed.store(true, Ordering::Relaxed);
        }
        let time = ours::thread_time().saturating_sub(time);
        spent.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(0), Ordering::Relaxed);
    });
    (!failed.into_inner()).then(|| Measured {
        calls,
        elapsed,
        processor: Duration::from_nanos(spent.into_inner()),
    })
}

/// Processor time of a process, its ended threads included; zero when it is gone.
#[must_use]
pub fn processor_time_of(pid: u32) -> Duration {
    let Ok(pid) = i32::try_from(pid) else { return Duration::ZERO };
    nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(pid))
        .and_then(nix::time::ClockId::now)
        .map_or(Duration::ZERO, Duration::from)
}
