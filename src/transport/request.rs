//! A job on its way through a transport, and how its extents become finished exactly once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Job;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Stage};
use crate::memory::ByteRange;
use crate::plan::{Direction, Extent};
use crate::registry::Pin;

/// A [`Job`] a transport has taken. Its extents finish in order: `finished` of them are over.
///
/// One owner at a time moves it on (a queue, then a worker); others may look at what it touches.
pub struct Request {
    job: Job,
    pins: Mutex<Vec<Pin>>,
    finished: AtomicUsize,
    accepted: Instant,
    /// When somebody first saw that it has to stop.
    overdue_since: OnceLock<Instant>,
    told_stuck: AtomicBool,
}

impl Request {
    /// Takes a job.
    #[must_use]
    pub fn new(mut job: Job) -> Arc<Self> {
        let pins = Mutex::new(std::mem::take(&mut job.pins));
        Arc::new(Self {
            job,
            pins,
            finished: AtomicUsize::new(0),
            accepted: Instant::now(),
            overdue_since: OnceLock::new(),
            told_stuck: AtomicBool::new(false),
        })
    }

    /// What to move.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.job.extents
    }

    /// Which way.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.job.direction
    }

    /// When it has to be over.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.job.deadline
    }

    /// The rest of the job, for transports and messages.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// When it was taken.
    #[must_use]
    pub fn accepted(&self) -> Instant {
        self.accepted
    }

    /// How many leading extents are over.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.finished.load(Ordering::Acquire)
    }

    /// Whether all extents are over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished() >= self.job.extents.len()
    }

    /// All bytes.
    #[must_use]
    pub fn length_bytes(&self) -> u64 {
        self.job.extents.iter().fold(0, |sum: u64, extent| sum.saturating_add(extent.length_bytes))
    }

    /// Why the request must not go on, if so: it was cancelled, or its deadline is past.
    #[must_use]
    pub fn must_stop(&self, stage: Stage, what: &str) -> Option<Error> {
        let code = match self.job.submission.must_stop() {
            Some(stop) => stop.code(),
            None if self.job.deadline.expired() => Code::Timeout,
            None => return None,
        };
        let waited_ms = self.accepted.elapsed().as_millis();
        Some(self.described(&Error::new(code, stage, format!("{what} after {waited_ms} ms"))))
    }

    /// The extents before `end` have arrived.
    pub fn arrived(&self, end: usize) {
        let start = self.finished();
        let Some(extents) = self.job.extents.get(start..end) else { return };
        if extents.is_empty() {
            return;
        }
        self.finished.store(end, Ordering::Release);
        if end == self.job.extents.len() {
            self.release_pins();
        }
        let bytes = extents.iter().fold(0, |sum: u64, extent| sum.saturating_add(extent.length_bytes));
        self.job.submission.note_moved(self.job.direction, bytes);
        self.job.submission.extents_done(extents);
    }

    /// Everything that has not arrived has failed and is quiet.
    pub fn fail(&self, error: &Error) {
        let start = self.finished();
        let Some(extents) = self.job.extents.get(start..) else { return };
        if extents.is_empty() {
            return;
        }
        self.finished.store(self.job.extents.len(), Ordering::Release);
        self.release_pins();
        self.job.submission.extents_failed(extents, &self.described(error));
    }

    /// All is over: `moved` has arrived, and each of `failed` has failed by itself. Together they are the extents,
    /// whole or by [`Submission::shares`](crate::batch::Submission::shares).
    pub fn settle(&self, moved: &[Extent], failed: &[(Extent, Error)]) {
        if self.is_finished() {
            return;
        }
        self.finished.store(self.job.extents.len(), Ordering::Release);
        self.release_pins();
        let bytes = moved.iter().fold(0, |sum: u64, extent| sum.saturating_add(extent.length_bytes));
        self.job.submission.note_moved(self.job.direction, bytes);
        self.job.submission.extents_done(moved);
        for (extent, error) in failed {
            self.job.submission.extent_failed(extent, &self.described(error));
        }
    }

    /// Whether it has to stop. One clock read at most.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.job.submission.must_stop().is_some() || self.job.deadline.expired()
    }

    /// Tells the waiter, once, when the request has had to stop for longer than `grace` and still runs.
    pub fn report_if_stuck(&self, grace: Duration) {
        if !self.is_overdue() || self.is_finished() {
            return;
        }
        let since = self.overdue_since.get_or_init(Instant::now);
        if since.elapsed() < grace || self.told_stuck.swap(true, Ordering::AcqRel) {
            return;
        }
        let error = Error::new(
            Code::StillRunning,
            Stage::Drain,
            format!(
                "the NPU still runs the transfer {} ms after it had to stop",
                since.elapsed().as_millis()
            ),
        )
        .advice("the memory stays locked until the device is quiet; see the vendor's log");
        log::error!("{error}");
        self.job.submission.report_stuck(self.described(&error));
    }

    /// The error with the peer and the device that it concerns, where it does not name them itself.
    fn described(&self, error: &Error) -> Error {
        let error = error.clone().peer(&*self.job.peer);
        match self.job.local_device {
            Some(device) => error.device(device),
            None => error,
        }
    }

    /// Lets go of the local regions; before the last task becomes terminal, so that whoever waited can
    /// unregister at once.
    pub(super) fn release_pins(&self) {
        let pins = std::mem::take(&mut *self.pins.lock());
        drop(pins);
    }

    /// Whether an extent that is not over touches one of the remote `ranges`.
    #[must_use]
    pub fn touches_remote(&self, ranges: &[ByteRange]) -> bool {
        self.touches(ranges, Extent::remote_range)
    }

    /// Whether an extent that is not over touches one of the local `ranges`.
    #[must_use]
    pub fn touches_local(&self, ranges: &[ByteRange]) -> bool {
        self.touches(ranges, Extent::local_range)
    }

    fn touches(&self, ranges: &[ByteRange], side: impl Fn(&Extent) -> Option<ByteRange>) -> bool {
        let left = self.job.extents.get(self.finished()..).unwrap_or_default();
        left.iter()
            .any(|extent| side(extent).is_some_and(|own| ranges.iter().any(|range| range.overlaps(own))))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // A transport that loses a request is defective, but nobody must wait for it for ever.
        if !self.is_finished() {
            self.fail(&Error::new(Code::Internal, Stage::Execute, "the transport dropped the request"));
        }
    }
}
