//! Moving host memory by calls that copy: small requests at once, larger ones on a few threads that share each
//! request piece by piece. How a piece is copied is a [`Mover`]'s business.
//!
//! A request is seen as one string of bytes, its extents one behind another; threads take the next piece of it until
//! none is left, and who finishes the last piece finishes the request.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};

use crate::batch::Help;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::plan::{Direction, Extent};
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
    /// What failed by itself, by task and place in it.
    bad: Mutex<BTreeMap<(u32, u64), (Extent, Error)>>,
}

/// A request that who waits for it may work on, too.
struct Assisted {
    copy: Copy,
    shared: Weak<Shared>,
}

impl Help for Assisted {
    fn help(&self, _over: &dyn Fn() -> bool, _deadline: Deadline) {
        // Deadlines are looked at piece by piece, as on any thread.
        if let Some(shared) = self.shared.upgrade() {
            shared.work(self);
        }
    }
}

#[derive(Default)]
struct Queue {
    copies: VecDeque<Arc<Assisted>>,
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
        let copy = Arc::new(Assisted { copy, shared: Arc::downgrade(&self.shared) });
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
        queue.copies.push_back(Arc::clone(&copy));
        drop(queue);
        // Who waits for it begins at once, which takes less time than to wake anybody; others come for the rest.
        let help: Weak<dyn Help> = Arc::downgrade(&copy) as Weak<dyn Help>;
        let helped = self.inline_bytes > 0 && request.job().submission.batch().offer(help);
        let pieces = usize::try_from(copy.copy.length_bytes().div_ceil(PIECE_BYTES)).unwrap_or(usize::MAX);
        for _ in 0..pieces.saturating_sub(usize::from(helped)).min(wanted) {
            self.shared.changed.notify_one();
        }
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
            self.work(&copy);
        }
        let mut queue = self.queue.lock();
        queue.threads = queue.threads.saturating_sub(1);
        self.changed.notify_all();
    }

    fn work(&self, copy: &Assisted) {
        copy.copy.work(&self.stopping);
        let mut queue = self.queue.lock();
        // Nothing of it is left to take; others may still be copying theirs.
        queue.copies.retain(|other| !std::ptr::eq(&raw const **other, copy));
    }

    fn next(&self) -> Option<Arc<Assisted>> {
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
            bad: Mutex::default(),
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
        let mut behind = from;
        while from < to {
            let (Some(extent), Some(start)) = (self.request.extents().get(index), self.starts.get(index))
            else {
                return Err(Error::new(Code::Internal, Stage::Execute, "a piece outside of its request"));
            };
            let skip_bytes = from - start;
            let step_bytes = (extent.length_bytes - skip_bytes).min(to - from);
            if count == blocks.len() {
                self.move_blocks(&blocks, behind, from)?;
                (count, behind) = (0, from);
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
        self.move_blocks(blocks.get(..count).unwrap_or_default(), behind, to)
    }

    /// Copies blocks, which are bytes `from..to` of the string.
    fn move_blocks(&self, blocks: &[Block], from: u64, to: u64) -> Result<()> {
        match self.mover.copy(self.request.direction(), blocks) {
            Err(error) if is_of_one_block(&error) => self.copy_singly(from, to),
            outcome => outcome,
        }
    }

    /// Copies bytes `from..to` of the string task by task: what fails for itself alone fails its task alone.
    fn copy_singly(&self, from: u64, to: u64) -> Result<()> {
        let first = self.starts.partition_point(|start| *start <= from).saturating_sub(1);
        let extents = self.request.extents().get(first..).unwrap_or_default();
        for (extent, start) in extents.iter().zip(self.starts.get(first..).unwrap_or_default()) {
            let mut start = *start;
            if start >= to {
                break;
            }
            for share in self.request.job().submission.shares(extent) {
                let end = start.saturating_add(share.length_bytes);
                let (begin, stop) = (start.max(from), end.min(to));
                let skip_bytes = begin.saturating_sub(start);
                start = end;
                if begin >= stop {
                    continue;
                }
                let block = Block {
                    local: share.local.wrapping_add(skip_bytes),
                    remote: share.remote.wrapping_add(skip_bytes),
                    length_bytes: stop - begin,
                };
                match self.mover.copy(self.request.direction(), &[block]) {
                    Err(error) if is_of_one_block(&error) => {
                        self.bad.lock().entry((share.first_task, share.skip_bytes)).or_insert((share, error));
                    }
                    outcome => outcome?,
                }
            }
        }
        Ok(())
    }

    fn finish(&self) {
        if let Some(error) = self.failure.lock().take() {
            return self.request.fail(&error);
        }
        let bad = std::mem::take(&mut *self.bad.lock());
        if bad.is_empty() {
            return self.request.arrived(self.request.extents().len());
        }
        let submission = &self.request.job().submission;
        let shares = self.request.extents().iter().flat_map(|extent| submission.shares(extent));
        let moved: Vec<_> =
            shares.filter(|share| !bad.contains_key(&(share.first_task, share.skip_bytes))).collect();
        self.request.settle(&moved, &bad.into_values().collect::<Vec<_>>());
    }
}

/// Whether the error says something of an address, so that other blocks may well be copied.
fn is_of_one_block(error: &Error) -> bool {
    matches!(error.code(), Code::InvalidArgument | Code::AddressNotRegistered)
}

/// The error of what a shutdown ended.
pub(crate) fn shut_down() -> Error {
    Error::new(Code::Cancelled, Stage::Drain, "the engine was shut down")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Submission, TaskStatus};
    use crate::transport::Job;
    use std::time::Duration;

    /// Cannot copy what holds the address.
    struct Refuses(u64);

    impl Mover for Refuses {
        fn copy(&self, _: Direction, blocks: &[Block]) -> Result<()> {
            let bad = |block: &&Block| (block.local..block.local + block.length_bytes).contains(&self.0);
            match blocks.iter().find(bad) {
                Some(_) => Err(Error::new(Code::InvalidArgument, Stage::Execute, "not mapped")),
                None => Ok(()),
            }
        }
    }

    #[test]
    fn of_tasks_copied_in_one_the_bad_one_fails_alone() {
        // Two extents: eight tasks of 100 KiB in one run, then one of 1 MiB, which is two pieces.
        let (small, large) = (100_u64 << 10, 1_u64 << 20);
        let lengths: Vec<u64> = std::iter::repeat_n(small, 8).chain([large]).collect();
        for (bad, expected) in [(1 + 3 * small, 3), ((1 << 40) + large - 1, 8)] {
            let batch = Arc::new(Batch::new(9).unwrap());
            let deadline = Deadline::after(Duration::from_secs(60));
            let submission = Submission::start(&batch, lengths.iter().copied(), deadline).unwrap();
            let extent = |local, length_bytes, first_task, task_count| Extent {
                local,
                remote: local,
                length_bytes,
                first_task,
                task_count,
                skip_bytes: 0,
            };
            let request = Request::new(Job {
                direction: Direction::Read,
                extents: vec![extent(0, 8 * small, 0, 8), extent(1 << 40, large, 8, 1)],
                submission,
                pins: Vec::new(),
                deadline,
                local_device: None,
                remote_device: None,
                route: crate::transport::Route::Any,
                peer: Arc::from("peer"),
            });
            let mover: Arc<dyn Mover> = Arc::new(Refuses(bad));
            Copy::new(&request, &mover).work(&AtomicBool::new(false));
            for (task, length_bytes) in (0..9).zip(&lengths) {
                let (status, moved) = batch.poll(task).unwrap();
                if task == expected {
                    assert_eq!(status, TaskStatus::Failed);
                } else {
                    assert_eq!((status, moved), (TaskStatus::Completed, *length_bytes), "task {task}");
                }
            }
        }
    }
}
