//! A request on its way: one string of bytes, its extents one behind another, of which threads take piece by piece.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Block, MAX_BLOCKS, Mover, PIECE_BYTES, shut_down};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::copy::Caching;
use crate::plan::Extent;
use crate::transport::Request;

/// A request on its way.
pub(super) struct Copy {
    request: Arc<Request>,
    mover: Arc<dyn Mover>,
    /// Where each extent begins in the string of bytes; one more entry for its end.
    starts: Vec<u64>,
    /// What a thread takes at once.
    piece_bytes: u64,
    caching: Caching,
    /// The next byte nobody has taken.
    taken_bytes: AtomicU64,
    /// Bytes that are over, copied or not.
    done_bytes: AtomicU64,
    failure: Mutex<Option<Error>>,
    failed: AtomicBool,
    /// What failed by itself, by task and place in it.
    bad: Mutex<BTreeMap<(u32, u64), (Extent, Error)>>,
}

impl Copy {
    /// A request that is copied in pieces of [`PIECE_BYTES`].
    pub(super) fn new(request: &Arc<Request>, mover: &Arc<dyn Mover>) -> Self {
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
            piece_bytes: PIECE_BYTES,
            caching: Caching::of(end),
            taken_bytes: AtomicU64::new(0),
            done_bytes: AtomicU64::new(0),
            failure: Mutex::new(None),
            failed: AtomicBool::new(false),
            bad: Mutex::default(),
        }
    }

    /// The same in other pieces.
    pub(super) fn in_pieces_of(self, piece_bytes: u64) -> Self {
        Self { piece_bytes, ..self }
    }

    pub(super) fn length_bytes(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    pub(super) fn request(&self) -> &Request {
        &self.request
    }

    /// Takes pieces until none is left, or until `until`. Whether none is left.
    pub(super) fn work(&self, stopping: &AtomicBool, until: Option<Deadline>) -> bool {
        let length_bytes = self.length_bytes();
        loop {
            if until.is_some_and(|until| until.expired()) {
                return self.taken_bytes.load(Ordering::Relaxed) >= length_bytes;
            }
            let from = self.taken_bytes.fetch_add(self.piece_bytes, Ordering::Relaxed);
            if from >= length_bytes {
                return true;
            }
            let to = from.saturating_add(self.piece_bytes).min(length_bytes);
            if !self.failed.load(Ordering::Relaxed) {
                let stop = if stopping.load(Ordering::Acquire) {
                    Some(shut_down())
                } else {
                    self.request.must_stop(Stage::Execute, "the copy was stopped")
                };
                let result = match stop {
                    Some(error) => Err(error),
                    // A defect costs the request, and not the thread, which may be the caller's.
                    None => catch_unwind(AssertUnwindSafe(|| self.copy(from, to))).unwrap_or_else(|_| {
                        log::error!("a copy for {} met a defect", self.request.job().peer);
                        Err(Error::new(Code::Internal, Stage::Execute, "the copy met a defect"))
                    }),
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
        match self.mover.copy(self.request.direction(), blocks, self.caching) {
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
                match self.mover.copy(self.request.direction(), &[block], self.caching) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Submission, TaskStatus};
    use crate::plan::Direction;
    use crate::transport::Job;
    use std::time::Duration;

    /// Cannot copy what holds the address.
    struct Refuses(u64);

    impl Mover for Refuses {
        fn copy(&self, _: Direction, blocks: &[Block], _: Caching) -> Result<()> {
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
            assert!(Copy::new(&request, &mover).work(&AtomicBool::new(false), None));
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
