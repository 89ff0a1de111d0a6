//! What an engine counts and logs of its submissions.

use crate::batch::{Observer, Stop, Submission};
use crate::error::{Code, Error};
use crate::metrics::Metrics;
use crate::plan::Direction;
use crate::report::Reporter;

/// Metrics and log of one engine; outlives the engine as long as a submission runs.
#[derive(Default)]
pub(super) struct Observed {
    /// The numbers.
    pub(super) metrics: std::sync::Arc<Metrics>,
    /// The log.
    pub(super) reporter: Reporter,
}

impl Observer for Observed {
    fn failed(&self, error: &Error) {
        self.metrics.failures.count(error);
        match error.code() {
            Code::Timeout => self.metrics.timeouts.increment(),
            Code::Cancelled => self.metrics.cancellations.increment(),
            Code::StillRunning => self.metrics.stuck.increment(),
            _ => {}
        }
        // The caller asked for it and knows.
        if error.code() != Stop::Cancelled.code() {
            self.reporter.report(error);
        }
    }

    fn moved(&self, direction: Direction, bytes: u64) {
        match direction {
            Direction::Read => self.metrics.read_bytes.add(bytes),
            Direction::Write => self.metrics.written_bytes.add(bytes),
        }
    }

    fn finished(&self, submission: &Submission, failed: u32) {
        let metrics = &self.metrics;
        metrics.requests_failed.add(u64::from(failed));
        metrics.requests_completed.add(u64::from(submission.task_count().saturating_sub(failed)));
        metrics.submissions_running.decrement();
        metrics.transfer_seconds.observe(submission.elapsed());
    }
}
