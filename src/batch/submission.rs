//! One call of submit: what transports report to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::record::{Batch, Stop};
use crate::batch::task::{Fate, Settled, Task, TaskStatus};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::plan::{Direction, Extent};
use crate::sync::{AtomicU32, Ordering};

/// Who is told what becomes of submissions: metrics and the log. Called on transports' threads: must not block.
pub trait Observer: Send + Sync {
    /// Something of a submission failed; once per call of a transport, not per task.
    fn failed(&self, error: &Error);

    /// Bytes have arrived.
    fn moved(&self, direction: Direction, bytes: u64);

    /// All tasks of the submission are terminal; `failed` of them have failed.
    fn finished(&self, submission: &Submission, failed: u32);
}

/// The tasks of one call of submit. Task numbers of [`Extent`]s count from the first of them.
///
/// Transports hold it in an [`Arc`] as long as they may still touch memory for it. Dropping the last one fails
/// what is not finished.
pub struct Submission {
    batch: Arc<Batch>,
    first_task: u32,
    task_count: u32,
    unfinished: AtomicU32,
    failed: AtomicU32,
    deadline: Deadline,
    started: Instant,
    observer: Option<Arc<dyn Observer>>,
}

impl Submission {
    /// Reserves one task of `batch` for each length and makes them ready to be settled.
    /// A request of no bytes is completed at once, as upstream does.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`] when the batch has no room left, [`Code::StaleHandle`] when it was freed,
    /// [`Code::Cancelled`] or [`Code::Timeout`] when it was stopped. Nothing is reserved then.
    pub fn start<I>(batch: &Arc<Batch>, lengths_bytes: I, deadline: Deadline) -> Result<Arc<Self>>
    where
        I: IntoIterator<Item = u64>,
        I::IntoIter: ExactSizeIterator,
    {
        Self::start_observed(batch, lengths_bytes, deadline, None)
    }

    /// As [`Submission::start`], with somebody who is told what becomes of it.
    ///
    /// # Errors
    /// As [`Submission::start`].
    pub fn start_observed<I>(
        batch: &Arc<Batch>,
        lengths_bytes: I,
        deadline: Deadline,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<Arc<Self>>
    where
        I: IntoIterator<Item = u64>,
        I::IntoIter: ExactSizeIterator,
    {
        if let Some(stop) = batch.stopping() {
            return Err(Error::new(stop.code(), Stage::Submit, "the batch was stopped"));
        }
        let lengths_bytes = lengths_bytes.into_iter();
        let task_count = u32::try_from(lengths_bytes.len())
            .map_err(|_| Error::new(Code::TooManyRequests, Stage::Submit, "more than 2^32 requests"))?;
        batch.submission_started();
        let first_task = batch.reserve(task_count).inspect_err(|_| batch.submission_finished())?;
        let mut unfinished = task_count;
        for (task, length_bytes) in (first_task..first_task.saturating_add(task_count)).zip(lengths_bytes) {
            if batch.task(task).is_some_and(|task| task.start(length_bytes)) {
                unfinished -= 1;
            }
        }
        if unfinished == 0 {
            batch.submission_finished();
        }
        let submission = Arc::new(Self {
            batch: Arc::clone(batch),
            first_task,
            task_count,
            unfinished: AtomicU32::new(unfinished),
            failed: AtomicU32::new(0),
            deadline,
            started: Instant::now(),
            observer,
        });
        if unfinished == 0 {
            submission.tell_finished();
        }
        Ok(submission)
    }

    /// The batch it belongs to.
    #[must_use]
    pub fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }

    /// Number in the batch of its first task.
    #[must_use]
    pub fn first_task(&self) -> u32 {
        self.first_task
    }

    /// Number of its tasks.
    #[must_use]
    pub fn task_count(&self) -> u32 {
        self.task_count
    }

    /// When it has to be over.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Time since it was submitted.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether all of its tasks are terminal.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.unfinished.load(Ordering::Acquire) == 0
    }

    /// Whether the batch was asked to stop. One atomic load.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.batch.stopping().is_some()
    }

    /// Why a transport has to stop now: asked to, or past the deadline. Reads the clock.
    #[must_use]
    pub fn must_stop(&self) -> Option<Stop> {
        self.batch.stopping().or_else(|| self.deadline.expired().then_some(Stop::Timeout))
    }

    /// Counts bytes that have arrived; beside [`Submission::extents_done`], which knows no direction.
    pub fn note_moved(&self, direction: Direction, bytes: u64) {
        if let Some(observer) = &self.observer {
            observer.moved(direction, bytes);
        }
    }

    /// The bytes of one extent have arrived.
    pub fn extent_done(&self, extent: &Extent) {
        self.extents_done(std::slice::from_ref(extent));
    }

    /// The bytes of several extents have arrived.
    pub fn extents_done(&self, extents: &[Extent]) {
        let finished = extents.iter().map(|extent| self.settle(extent, Fate::Moved)).sum();
        self.tasks_finished(finished);
    }

    /// An extent has failed and is quiet: nothing of it touches memory any more.
    pub fn extent_failed(&self, extent: &Extent, error: &Error) {
        self.extents_failed(std::slice::from_ref(extent), error);
    }

    /// Several extents have failed and are quiet.
    pub fn extents_failed(&self, extents: &[Extent], error: &Error) {
        self.note_failure(error);
        let error = Arc::new(error.clone());
        let mut finished = 0;
        for extent in extents {
            for task in extent.first_task..extent.first_task.saturating_add(extent.task_count) {
                self.note_error(task, &error);
            }
            finished += self.settle(extent, Fate::Failed);
        }
        self.tasks_finished(finished);
    }

    /// A task fails as a whole, because no extent was ever made of it. Number as in [`Extent`].
    pub fn task_failed(&self, task: u32, error: &Error) {
        self.note_failure(error);
        self.note_error(task, &Arc::new(error.clone()));
        let finished = self.abandon(task);
        self.tasks_finished(finished);
    }

    /// Fails every task that is not terminal; only when nothing of the submission runs.
    pub fn fail_rest(&self, error: &Error) {
        if self.is_finished() {
            return;
        }
        self.note_failure(error);
        let error = Arc::new(error.clone());
        let mut finished = 0;
        for task in 0..self.task_count {
            if self.task(task).is_some_and(|task| task.peek().0 == TaskStatus::Waiting) {
                self.note_error(task, &error);
                finished += self.abandon(task);
            }
        }
        self.tasks_finished(finished);
    }

    /// Says that what runs cannot be made quiet. The tasks stay waiting, and a wait is told `error`.
    pub fn report_stuck(&self, error: Error) {
        self.batch.report_stuck(error);
    }

    /// Settles an extent's share of each task it covers, and returns how many tasks that made terminal.
    fn settle(&self, extent: &Extent, fate: Fate) -> u32 {
        let mut finished = 0;
        let mut left_bytes = extent.length_bytes;
        let mut skip_bytes = extent.skip_bytes;
        for number in extent.first_task..extent.first_task.saturating_add(extent.task_count) {
            let Some(task) = self.task(number) else {
                log::error!("an extent names task {number} of a submission of {}", self.task_count);
                break;
            };
            let share_bytes = task.length_bytes().saturating_sub(skip_bytes).min(left_bytes);
            skip_bytes = 0;
            left_bytes -= share_bytes;
            match task.settle(share_bytes, fate) {
                Settled::No => {}
                Settled::Completed => finished += 1,
                Settled::Failed => {
                    self.failed.fetch_add(1, Ordering::AcqRel);
                    self.batch.task_failed();
                    finished += 1;
                }
            }
        }
        finished
    }

    /// The extent task by task, as [`Submission::extents_done`] divides it.
    #[must_use]
    pub fn shares(&self, extent: &Extent) -> Vec<Extent> {
        let mut shares = Vec::new();
        let (mut done_bytes, mut skip_bytes) = (0_u64, extent.skip_bytes);
        for first_task in extent.first_task..extent.first_task.saturating_add(extent.task_count) {
            let Some(task) = self.task(first_task) else { break };
            let left_bytes = extent.length_bytes.saturating_sub(done_bytes);
            let length_bytes = task.length_bytes().saturating_sub(skip_bytes).min(left_bytes);
            if length_bytes > 0 {
                shares.push(Extent {
                    local: extent.local.wrapping_add(done_bytes),
                    remote: extent.remote.wrapping_add(done_bytes),
                    length_bytes,
                    first_task,
                    task_count: 1,
                    skip_bytes,
                });
            }
            done_bytes = done_bytes.saturating_add(length_bytes);
            skip_bytes = 0;
        }
        shares
    }

    fn abandon(&self, task: u32) -> u32 {
        let failed = self.task(task).is_some_and(Task::abandon);
        if failed {
            self.failed.fetch_add(1, Ordering::AcqRel);
            self.batch.task_failed();
        }
        u32::from(failed)
    }

    fn task(&self, task: u32) -> Option<&Task> {
        if task >= self.task_count {
            return None;
        }
        self.batch.task(self.first_task.checked_add(task)?)
    }

    fn note_error(&self, task: u32, error: &Arc<Error>) {
        if let Some(number) = self.first_task.checked_add(task).filter(|_| task < self.task_count) {
            self.batch.note_error(number, error);
        }
    }

    fn tell_finished(&self) {
        if let Some(observer) = &self.observer {
            observer.finished(self, self.failed.load(Ordering::Acquire));
        }
    }

    fn note_failure(&self, error: &Error) {
        if let Some(observer) = &self.observer {
            observer.failed(error);
        }
    }

    fn tasks_finished(&self, count: u32) {
        if count > 0 && self.unfinished.fetch_sub(count, Ordering::AcqRel) == count {
            // Before the wake, so that whoever waited sees what was counted.
            self.tell_finished();
            self.batch.submission_finished();
        }
    }
}

impl std::fmt::Debug for Submission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submission")
            .field("first_task", &self.first_task)
            .field("task_count", &self.task_count)
            .field("unfinished", &self.unfinished)
            .finish_non_exhaustive()
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        if !self.is_finished() {
            self.fail_rest(&Error::new(Code::Internal, Stage::Execute, "the request was dropped unfinished"));
        }
    }
}
