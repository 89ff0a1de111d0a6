//! Models of completion, run by loom over every interleaving; see `sync` for the command.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use super::*;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Stage};
use crate::plan::Extent;
use crate::sync::{AtomicU32, Ordering, explore};

fn never() -> Deadline {
    Deadline::after(Duration::from_secs(1_000_000))
}

fn extent(first_task: u32, skip_bytes: u64, length_bytes: u64) -> Extent {
    Extent { local: 0, remote: 0, length_bytes, first_task, task_count: 1, skip_bytes }
}

fn broken() -> Error {
    Error::new(Code::Vendor, Stage::Execute, "x")
}

/// Two transports finish two tasks, one waiter sleeps: it always wakes, and sees both. A lost wake would be a
/// deadlock, which loom reports.
#[test]
fn loom_no_wake_is_lost() {
    explore(|| {
        let batch = Arc::new(Batch::new(2).unwrap());
        let submission = Submission::start(&batch, [4, 4], never()).unwrap();
        let worker = thread::spawn({
            let submission = Arc::clone(&submission);
            move || submission.extent_done(&extent(1, 0, 4))
        });
        let waiter = thread::spawn({
            let batch = Arc::clone(&batch);
            move || {
                let waited = batch.wait(never());
                for task in 0..2 {
                    assert_eq!(batch.poll(task).unwrap(), (TaskStatus::Completed, 4));
                }
                waited
            }
        });
        submission.extent_done(&extent(0, 0, 4));
        assert_eq!(waiter.join().unwrap(), Waited::Finished(Outcome { tasks: 2, failed: 0 }));
        worker.join().unwrap();
        assert!(batch.close().is_ok());
    });
}

/// Two submissions of one batch end on two threads: the batch is finished exactly when both are.
#[test]
fn loom_two_submissions_wake_once_both_are_over() {
    explore(|| {
        let batch = Arc::new(Batch::new(2).unwrap());
        let first = Submission::start(&batch, [4], never()).unwrap();
        let second = Submission::start(&batch, [4], never()).unwrap();
        let worker = thread::spawn(move || first.extent_done(&extent(0, 0, 4)));
        let other = thread::spawn(move || second.extent_failed(&extent(0, 0, 4), &broken()));
        assert_eq!(batch.wait(never()), Waited::Finished(Outcome { tasks: 2, failed: 1 }));
        assert_eq!(batch.poll(1).unwrap().0, TaskStatus::Failed);
        assert!(batch.error(1).is_some());
        worker.join().unwrap();
        other.join().unwrap();
    });
}

/// Two halves of one task end on two threads, one of them failed: the last one decides, whichever it is, and
/// who polls a terminal state sees the bytes and the reason.
#[test]
fn loom_the_last_share_decides() {
    explore(|| {
        let batch = Arc::new(Batch::new(1).unwrap());
        let submission = Submission::start(&batch, [10], never()).unwrap();
        let worker = thread::spawn({
            let submission = Arc::clone(&submission);
            move || submission.extent_done(&extent(0, 0, 6))
        });
        let other = thread::spawn(move || submission.extent_failed(&extent(0, 6, 4), &broken()));
        match batch.poll(0).unwrap() {
            (TaskStatus::Completed, _) => panic!("a failed task was seen completed"),
            (TaskStatus::Failed, moved_bytes) => {
                assert_eq!(moved_bytes, 6);
                assert!(batch.error(0).is_some());
            }
            (TaskStatus::Waiting, moved_bytes) => assert!(moved_bytes == 0 || moved_bytes == 6),
        }
        worker.join().unwrap();
        other.join().unwrap();
        assert_eq!(batch.poll(0).unwrap(), (TaskStatus::Failed, 6));
        assert!(batch.is_finished());
    });
}

/// A free that races with the end of a task and its poll is busy or right, never early.
#[test]
fn loom_free_is_never_early() {
    explore(|| {
        let batch = Arc::new(Batch::new(1).unwrap());
        let submission = Submission::start(&batch, [4], never()).unwrap();
        let worker = thread::spawn(move || submission.extent_done(&extent(0, 0, 4)));
        let poller = thread::spawn({
            let batch = Arc::clone(&batch);
            move || batch.poll(0).unwrap().0
        });
        if batch.close().is_ok() {
            assert_eq!(batch.poll(0).unwrap(), (TaskStatus::Completed, 4));
        }
        worker.join().unwrap();
        let seen = poller.join().unwrap();
        if seen == TaskStatus::Completed {
            assert_ne!(batch.close().map_err(|error| error.code()), Err(Code::Busy));
        }
    });
}

/// A free that races with a submit: one of them is refused.
#[test]
fn loom_submit_and_free_exclude_each_other() {
    explore(|| {
        let batch = Arc::new(Batch::new(1).unwrap());
        let submitter = thread::spawn({
            let batch = Arc::clone(&batch);
            move || Submission::start(&batch, [4], never()).map(|submission| submission.task_count())
        });
        let freed = batch.close();
        let submitted = submitter.join().unwrap();
        match (freed, submitted) {
            (Ok(()), Err(error)) => assert_eq!(error.code(), Code::StaleHandle),
            (Err(error), Ok(_)) => assert_eq!(error.code(), Code::Busy),
            // Submitted, failed by the drop, but never seen finished: a free between is still refused.
            other => panic!("{other:?}"),
        }
    });
}

/// The hook is called once, whether it is set before or after the end.
#[test]
fn loom_the_hook_is_called_once() {
    explore(|| {
        let calls = Arc::new(AtomicU32::new(0));
        let batch = Arc::new(Batch::new(1).unwrap());
        let submission = Submission::start(&batch, [4], never()).unwrap();
        let worker = thread::spawn(move || submission.extent_done(&extent(0, 0, 4)));
        batch.when_finished({
            let calls = Arc::clone(&calls);
            move |_| _ = calls.fetch_add(1, Ordering::Relaxed)
        });
        worker.join().unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    });
}

/// A waiter is told that the transport is stuck, or sees the end, whichever comes first; it never sleeps on.
#[test]
fn loom_stuck_or_finished_is_always_heard() {
    explore(|| {
        let batch = Arc::new(Batch::new(1).unwrap());
        let submission = Submission::start(&batch, [4], never()).unwrap();
        let waiter = thread::spawn({
            let batch = Arc::clone(&batch);
            move || batch.wait(never())
        });
        submission.report_stuck(Error::new(Code::StillRunning, Stage::Drain, "x"));
        let waited = waiter.join().unwrap();
        assert!(matches!(waited, Waited::Stuck(_)));
        submission.extent_done(&extent(0, 0, 4));
        assert!(matches!(batch.wait(never()), Waited::Finished(_)));
    });
}

/// A wait that runs beside a submit counts only tasks that are terminal.
#[test]
fn loom_a_wait_vouches_for_terminal_tasks_only() {
    explore(|| {
        let batch = Arc::new(Batch::new(1).unwrap());
        let submitter = thread::spawn({
            let batch = Arc::clone(&batch);
            move || Submission::start(&batch, [4], never()).unwrap().extent_done(&extent(0, 0, 4))
        });
        let Waited::Finished(outcome) = batch.wait(never()) else { panic!("it was not stuck") };
        if outcome.tasks == 1 {
            assert_eq!(batch.poll(0).unwrap(), (TaskStatus::Completed, 4));
        }
        submitter.join().unwrap();
    });
}

/// Who sees a terminal state sees all the bytes, also when one extent holds the whole task.
#[test]
fn loom_a_terminal_state_comes_after_its_bytes() {
    explore(|| {
        let batch = Arc::new(Batch::new(2).unwrap());
        let submission = Submission::start(&batch, [4, 4], never()).unwrap();
        let worker = thread::spawn(move || {
            submission.extent_done(&extent(0, 0, 4));
            submission.extent_done(&extent(1, 0, 3));
            submission.extent_done(&extent(1, 3, 1));
        });
        for task in 0..2 {
            let (status, moved_bytes) = batch.poll(task).unwrap();
            assert!(status == TaskStatus::Waiting || moved_bytes == 4);
        }
        worker.join().unwrap();
    });
}

/// The hook is told of terminal tasks only, also when a submission begins while another one ends.
#[test]
fn loom_the_hook_vouches_for_terminal_tasks_only() {
    explore(|| {
        let batch = Arc::new(Batch::new(2).unwrap());
        let first = Submission::start(&batch, [4], never()).unwrap();
        batch.when_finished({
            let batch = Arc::downgrade(&batch);
            move |outcome| {
                let batch = batch.upgrade().unwrap();
                for task in 0..outcome.tasks {
                    assert_eq!(batch.poll(task).unwrap().0, TaskStatus::Completed);
                }
            }
        });
        let worker = thread::spawn(move || first.extent_done(&extent(0, 0, 4)));
        let second = Submission::start(&batch, [4], never()).unwrap();
        worker.join().unwrap();
        second.extent_done(&extent(0, 0, 4));
    });
}
