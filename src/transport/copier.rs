//! Moving host memory by calls that copy: small requests at once, larger ones on a few threads that share each
//! request piece by piece. How a piece is copied is a [`Mover`]'s business.
//!
//! A request is seen as one string of bytes, its extents one behind another; threads take the next piece of it until
//! none is left, and who finishes the last piece finishes the request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::plan::Direction;
use crate::transport::Request;

/// What is copied on the caller's thread.
const INLINE_LIMIT_BYTES: u64 = 256 << 10;

/// What a thread takes at once.
pub(crate) const PIECE_BYTES: u64 = 512 << 10;

/// Most copying threads of an engine; memory bandwidth is used up by few.
const THREAD_LIMIT: usize = 4;

/// Most blocks of one call of a mover.
pub(crate) const MAX_BLOCKS: usize = 128;

/// A part of an extent, at both ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Block {
    /// Address here.
    pub(crate) local: u64,
    /// Address at the other end.
    pub(crate) remote: u64,
    /// Number of bytes.
    pub(crate) length_bytes: u64,
}

/// Copies blocks: at most [`MAX_BLOCKS`] and as many bytes as a piece has, so that a stop is prompt.
pub(crate) trait Mover: Send + Sync {
    /// Copies all of them, or fails and touches nothing any more.
    fn copy(&self, direction: Direction, blocks: &[Block]) -> Result<()>;
}

/// A request on its way.
struct Copy {
    request: Arc<Request>,
    mover: Arc<dyn Mover>,
    /// Where each extent begins in the string of bytes; one more entry for its end.
    starts: Vec<u64>,
    /// The next byte nobody has taken.
    taken_bytes: AtomicU64,
    /// Bytes that are over, copied or not.
    done_bytes: AtomicU64,
    failure: Mutex<Option<Error>>,
    failed: AtomicBool,
}

#[derive(Default)]
struct Queue {
    copies: VecDeque<Arc<Copy>>,
    threads: usize,
    idle: usize,
    stopped: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    stopping: AtomicBool,
}

/// Copies host memory.
pub(crate) struct HostCopier {
    shared: Arc<Shared>,
    /// Name of its threads, to which a number is added.
    name: &'static str,
    /// Up to so many bytes are copied on the caller's thread.
    inline_bytes: u64,
}

impl HostCopier {
    /// Without threads yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { shared: Arc::default(), name, inline_bytes: INLINE_LIMIT_BYTES }
    }

    /// The same for movers that wait for somebody: nothing is done on the caller's thread.
    pub(crate) fn that_waits(name: &'static str) -> Self {
        Self { shared: Arc::default(), name, inline_bytes: 0 }
    }

    /// Copies now, or queues the request.
    ///
    /// # Errors
    /// [`Code::StaleHandle`] after [`stop`](Self::stop), [`Code::Internal`] when no thread can be had.
    pub(crate) fn submit(&self, request: &Arc<Request>, mover: &Arc<dyn Mover>) -> Result<()> {
        let copy = Copy::new(request, mover);
        if copy.length_bytes() <= self.inline_bytes {
            copy.work(&self.shared.stopping);
            return Ok(());
        }
        let mut queue = self.shared.queue.lock();
        if queue.stopped {
            return Err(Error::new(Code::StaleHandle, Stage::Submit, "the engine was shut down"));
        }
        let wanted = std::thread::available_parallelism().map_or(1, usize::from).min(THREAD_LIMIT);
        while queue.threads < wanted {
            let shared = Arc::clone(&self.shared);
            let started = std::thread::Builder::new()
                .name(format!("{}-{}", self.name, queue.threads))
                .spawn(move || shared.run());
            match started {
                Ok(_) => queue.threads += 1,
                Err(_) if queue.threads > 0 => break,
                Err(error) => {
                    return Err(Error::new(
                        Code::Internal,
                        Stage::Submit,
                        format!("no copying thread: {error}"),
                    ));
                }
            }
        }
        queue.copies.push_back(Arc::new(copy));
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Ends the threads; what is queued fails.
    pub(crate) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.queue.lock().stopped = true;
        self.shared.changed.notify_all();
    }

    /// Waits for the threads' end.
    ///
    /// # Errors
    /// [`Code::StillRunning`] at the deadline.
    pub(crate) fn wait_stopped(&self, deadline: Deadline) -> Result<()> {
        let mut queue = self.shared.queue.lock();
        while queue.threads > 0 {
            if self.shared.changed.wait_until(&mut queue, deadline.at()).timed_out() {
                return Err(Error::new(
                    Code::StillRunning,
                    Stage::Drain,
                    "a copy between host memory is still running",
                ));
            }
        }
        Ok(())
    }
}

impl Shared {
    fn run(&self) {
        while let Some(copy) = self.next() {
            copy.work(&self.stopping);
            let mut queue = self.queue.lock();
            // Nothing of it is left to take; others may still be copying theirs.
            queue.copies.retain(|other| !Arc::ptr_eq(other, &copy));
        }
        let mut queue = self.queue.lock();
        queue.threads = queue.threads.saturating_sub(1);
        self.changed.notify_all();
    }

    fn next(&self) -> Option<Arc<Copy>> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(copy) = queue.copies.front() {
                return Some(Arc::clone(copy));
            }
            if queue.stopped {
                return None;
            }
            queue.idle += 1;
            self.changed.wait(&mut queue);
            queue.idle = queue.idle.saturating_sub(1);
        }
    }
}

impl Copy {
    fn new(request: &Arc<Request>, mover: &Arc<dyn Mover>) -> Self {
        let mut starts = Vec::with_capacity(request.extents().len().saturating_add(1));
        let mut end: u64 = 0;
        for extent in request.extents() {
            starts.push(end);
            end = end.saturating_add(extent.length_bytes);
        }
        starts.push(end);
        Self {
            request: Arc::clone(request),
            mover: Arc::clone(mover),
            starts,
            taken_bytes: AtomicU64::new(0),
            done_bytes: AtomicU64::new(0),
            failure: Mutex::new(None),
            failed: AtomicBool::new(false),
        }
    }

    fn length_bytes(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Takes pieces until none is left.
    fn work(&self, stopping: &AtomicBool) {
        let length_bytes = self.length_bytes();
        loop {
            let from = self.taken_bytes.fetch_add(PIECE_BYTES, Ordering::Relaxed);
            if from >= length_bytes {
                return;
            }
            let to = from.saturating_add(PIECE_BYTES).min(length_bytes);
            if !self.failed.load(Ordering::Relaxed) {
                let stop = if stopping.load(Ordering::Acquire) {
                    Some(shut_down())
                } else {
                    self.request.must_stop(Stage::Execute, "the copy was stopped")
                };
                let result = match stop {
                    Some(error) => Err(error),
                    None => self.copy(from, to),
                };
                if let Err(error) = result {
                    self.failure.lock().get_or_insert(error);
                    self.failed.store(true, Ordering::Release);
                }
            }
            if self.done_bytes.fetch_add(to - from, Ordering::AcqRel).saturating_add(to - from)
                == length_bytes
            {
                self.finish();
            }
        }
    }

    /// Copies bytes `from..to` of the string.
    fn copy(&self, mut from: u64, to: u64) -> Result<()> {
        let mut index = self.starts.partition_point(|start| *start <= from).saturating_sub(1);
        let mut blocks = [Block::default(); MAX_BLOCKS];
        let mut count = 0;
        let direction = self.request.direction();
        while from < to {
            let (Some(extent), Some(start)) = (self.request.extents().get(index), self.starts.get(index))
            else {
                return Err(Error::new(Code::Internal, Stage::Execute, "a piece outside of its request"));
            };
            let skip_bytes = from - start;
            let step_bytes = (extent.length_bytes - skip_bytes).min(to - from);
            if count == blocks.len() {
                self.mover.copy(direction, &blocks)?;
                count = 0;
            }
            if let Some(block) = blocks.get_mut(count) {
                *block = Block {
                    local: extent.local.wrapping_add(skip_bytes),
                    remote: extent.remote.wrapping_add(skip_bytes),
                    length_bytes: step_bytes,
                };
                count += 1;
            }
            from += step_bytes;
            if skip_bytes + step_bytes == extent.length_bytes {
                index += 1;
            }
        }
        self.mover.copy(direction, blocks.get(..count).unwrap_or_default())
    }

    fn finish(&self) {
        match self.failure.lock().take() {
            Some(error) => self.request.fail(&error),
            None => self.request.arrived(self.request.extents().len()),
        }
    }
}

/// The error of what a shutdown ended.
pub(crate) fn shut_down() -> Error {
    Error::new(Code::Cancelled, Stage::Drain, "the engine was shut down")
}
