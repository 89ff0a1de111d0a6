//! Waiting for a batch and, when its time is over, making it quiet.

use std::time::Duration;

use crate::batch::{Batch, Stop, Waited};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};

/// Who may end a wait before its deadline, and how often that is looked at.
pub(super) struct Interrupt<'a> {
    /// Why the batch has to stop, if it has.
    pub(super) must_stop: &'a dyn Fn() -> Option<Stop>,
    /// How often it is asked.
    pub(super) every: Duration,
}

/// Why a batch failed.
pub(super) fn first_error(batch: &Batch) -> Error {
    batch
        .first_error()
        .unwrap_or_else(|| Error::new(Code::Internal, Stage::Execute, "a task failed without a reason"))
}

/// Sleeps until the batch is over. At the deadline, or when interrupted, stops it and gives it `grace` to become
/// quiet. Without an interrupt nothing wakes in between.
///
/// # Errors
/// The first task's error; [`Code::StillRunning`] when something of the batch is not quiet.
pub(super) fn wait_or_drain(
    batch: &Batch,
    deadline: Deadline,
    grace: Duration,
    interrupt: Option<&Interrupt<'_>>,
) -> Result<()> {
    let mut stopped = None;
    loop {
        let until = stopped.unwrap_or_else(|| {
            interrupt.map_or(deadline, |interrupt| deadline.sooner(Deadline::after(interrupt.every)))
        });
        match batch.wait(until) {
            Waited::Finished(outcome) if outcome.is_success() => return Ok(()),
            Waited::Finished(_) => return Err(first_error(batch)),
            Waited::Stuck(error) => return Err(error),
            Waited::Late if stopped.is_some() => {
                let text =
                    format!("what was started is not quiet {} ms after it had to stop", grace.as_millis());
                return Err(Error::new(Code::StillRunning, Stage::Drain, text)
                    .advice("keep the memory and the handle; wait for the batch again, then free it"));
            }
            Waited::Late => {
                let asked = interrupt.and_then(|interrupt| (interrupt.must_stop)());
                if let Some(stop) = asked.or_else(|| deadline.expired().then_some(Stop::Timeout)) {
                    batch.stop(stop);
                    stopped = Some(Deadline::after(grace));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::batch::Submission;
    use crate::plan::Extent;

    const SHORT: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(20);

    fn running() -> (Arc<Batch>, Arc<Submission>) {
        let batch = Arc::new(Batch::new(1).unwrap());
        let submission = Submission::start(&batch, [4], Deadline::after(LONG)).unwrap();
        (batch, submission)
    }

    fn extent() -> Extent {
        Extent { local: 0, remote: 0, length_bytes: 4, first_task: 0, task_count: 1, skip_bytes: 0 }
    }

    #[test]
    fn what_is_not_quiet_after_the_grace_is_still_running() {
        let (batch, submission) = running();
        let error = wait_or_drain(&batch, Deadline::after(SHORT), SHORT, None).unwrap_err();
        assert_eq!(error.code(), Code::StillRunning);
        assert_eq!(batch.stopping(), Some(Stop::Timeout));
        submission.extent_done(&extent());
        wait_or_drain(&batch, Deadline::after(LONG), LONG, None).unwrap();
    }

    #[test]
    fn what_becomes_quiet_in_the_grace_has_the_tasks_error() {
        let (batch, submission) = running();
        let transport = std::thread::spawn(move || {
            let until = Deadline::after(LONG);
            while !submission.cancelled() && !until.expired() {
                std::thread::yield_now();
            }
            submission.extent_failed(&extent(), &Error::new(Code::Timeout, Stage::Execute, "stopped"));
        });
        let error = wait_or_drain(&batch, Deadline::after(SHORT), LONG, None).unwrap_err();
        assert_eq!((error.code(), error.record().message.as_str()), (Code::Timeout, "stopped"));
        transport.join().unwrap();
    }

    #[test]
    fn an_interrupt_stops_it_before_the_deadline() {
        let (batch, submission) = running();
        let asked = AtomicU32::new(0);
        let interrupt = Interrupt {
            must_stop: &|| (asked.fetch_add(1, Ordering::Relaxed) > 2).then_some(Stop::Cancelled),
            every: SHORT,
        };
        let error = wait_or_drain(&batch, Deadline::after(LONG), SHORT, Some(&interrupt)).unwrap_err();
        assert_eq!(error.code(), Code::StillRunning);
        assert_eq!(batch.stopping(), Some(Stop::Cancelled));
        submission.extent_done(&extent());
    }
}
