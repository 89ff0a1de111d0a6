use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Stage};
use crate::plan::{Block, Extent, NoBorder, Regions, coalesce};

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn batch(capacity: u32) -> Arc<Batch> {
    Arc::new(Batch::new(capacity).unwrap())
}

fn start(batch: &Arc<Batch>, lengths_bytes: &[u64]) -> Arc<Submission> {
    Submission::start(batch, lengths_bytes.iter().copied(), soon()).unwrap()
}

fn extent(first_task: u32, task_count: u32, skip_bytes: u64, length_bytes: u64) -> Extent {
    Extent { local: 0, remote: 0, length_bytes, first_task, task_count, skip_bytes }
}

fn broken() -> Error {
    Error::new(Code::Vendor, Stage::Execute, "the link is down")
}

#[test]
fn a_task_completes_with_its_last_byte() {
    let batch = batch(1);
    let submission = start(&batch, &[100]);
    submission.extent_done(&extent(0, 1, 0, 60));
    assert_eq!(batch.poll(0).unwrap(), (TaskStatus::Waiting, 60));
    assert!(!batch.is_finished() && !submission.is_finished());
    submission.extent_done(&extent(0, 1, 60, 40));
    assert_eq!(batch.poll(0).unwrap(), (TaskStatus::Completed, 100));
    assert!(batch.is_finished() && submission.is_finished());
}

#[test]
fn a_failed_task_waits_for_what_still_runs() {
    let batch = batch(1);
    let submission = start(&batch, &[100]);
    submission.extent_failed(&extent(0, 1, 0, 60), &broken());
    assert_eq!(batch.poll(0).unwrap(), (TaskStatus::Waiting, 0));
    assert_eq!(batch.error(0), Some(broken()));
    submission.extent_done(&extent(0, 1, 60, 40));
    assert_eq!(batch.poll(0).unwrap(), (TaskStatus::Failed, 40));
    assert_eq!(batch.wait(soon()), Waited::Finished(Outcome { tasks: 1, failed: 1 }));
}

#[test]
fn what_a_defect_left_running_is_stopped_and_quiet_before_the_defect_goes_on() {
    let batch = batch(1);
    let submission = start(&batch, &[100]);
    let quiet = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let until = soon();
            while !submission.cancelled() && !until.expired() {
                std::thread::yield_now();
            }
            // Not needed to pass.
            std::thread::sleep(Duration::from_millis(20));
            quiet.store(1, Ordering::Release);
            submission.extent_failed(&extent(0, 1, 0, 100), &broken());
        });
        let work = || batch.quiet_after(|| panic!("scripted"));
        let defect = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_err();
        assert_eq!(defect.downcast_ref(), Some(&"scripted"));
        assert_eq!(quiet.load(Ordering::Acquire), 1, "it still runs");
    });
    assert_eq!(batch.stopping(), Some(Stop::Cancelled));
    assert_eq!(batch.quiet_after(|| 7), 7);
}

#[test]
fn one_extent_settles_the_tasks_that_it_covers() {
    let batch = batch(8);
    let first = start(&batch, &[5]);
    let submission = start(&batch, &[10, 20, 30]);
    submission.extent_done(&extent(0, 3, 4, 40)); // 6 of the first, 20, 14 of the last
    let seen: Vec<_> = (1..4).map(|task| batch.poll(task).unwrap()).collect();
    assert_eq!(seen, [(TaskStatus::Waiting, 6), (TaskStatus::Completed, 20), (TaskStatus::Waiting, 14)]);
    submission.extent_failed(&extent(0, 1, 0, 4), &broken());
    submission.extent_done(&extent(2, 1, 14, 16));
    assert_eq!(batch.poll(1).unwrap(), (TaskStatus::Failed, 6));
    assert_eq!(batch.poll(3).unwrap(), (TaskStatus::Completed, 30));
    assert_eq!(batch.first_error(), Some(broken()));
    assert_eq!((batch.error(0), batch.error(2)), (None, None));
    assert!(!batch.is_finished());
    first.extent_done(&extent(0, 1, 0, 5));
    assert_eq!(
        batch.progress(),
        Progress { submitted: 4, completed: 3, failed: 1, moved_bytes: 5 + 6 + 20 + 30 }
    );
}

#[test]
fn a_request_of_no_bytes_is_complete_at_once() {
    let batch = batch(2);
    let submission = start(&batch, &[0, 0]);
    assert!(submission.is_finished());
    assert_eq!(batch.poll(1).unwrap(), (TaskStatus::Completed, 0));
    assert_eq!(
        batch.wait(Deadline::after(Duration::ZERO)),
        Waited::Finished(Outcome { tasks: 2, failed: 0 })
    );
}

#[test]
fn capacity_counts_over_all_submissions() {
    let batch = batch(3);
    let _first = start(&batch, &[1, 1]);
    let error = Submission::start(&batch, [1, 1], soon()).unwrap_err();
    assert_eq!((error.code(), error.code().status()), (Code::TooManyRequests, 2));
    assert_eq!(batch.submitted(), 2);
    let _second = start(&batch, &[1]);
    assert_eq!(Submission::start(&batch, [1], soon()).unwrap_err().code(), Code::TooManyRequests);
    assert_eq!(Batch::new(MAX_TASKS_PER_BATCH + 1).unwrap_err().code(), Code::TooManyRequests);
}

#[test]
fn an_unknown_task_is_an_invalid_argument() {
    let batch = batch(3);
    let _submission = start(&batch, &[1]);
    assert_eq!(batch.poll(1).unwrap_err().code().status(), 1);
    assert_eq!(batch.poll(u32::MAX).unwrap_err().code().status(), 1);
}

#[test]
fn the_first_reason_stays() {
    let batch = batch(1);
    let submission = start(&batch, &[10]);
    submission.extent_failed(&extent(0, 1, 0, 5), &broken());
    submission.extent_failed(&extent(0, 1, 5, 5), &Error::new(Code::Timeout, Stage::Drain, "later"));
    assert_eq!(batch.error(0), Some(broken()));
}

#[test]
fn bytes_settled_twice_change_nothing() {
    let batch = batch(2);
    let submission = start(&batch, &[10, 10]);
    submission.extent_done(&extent(0, 1, 0, 10));
    submission.extent_failed(&extent(0, 1, 0, 10), &broken());
    submission.extent_done(&extent(0, 1, 0, 10));
    assert_eq!(batch.poll(0).unwrap(), (TaskStatus::Completed, 10));
    assert!(!batch.is_finished());
    submission.extent_done(&extent(7, 1, 0, 10)); // no such task
    submission.extent_done(&extent(1, 1, 0, 10));
    assert!(batch.is_finished());
    assert_eq!(batch.progress().failed, 0);
}

#[test]
fn a_dropped_submission_fails_what_is_left() {
    let batch = batch(2);
    let submission = start(&batch, &[10, 10]);
    submission.extent_done(&extent(0, 1, 0, 10));
    drop(submission);
    assert_eq!(batch.wait(soon()), Waited::Finished(Outcome { tasks: 2, failed: 1 }));
    assert_eq!(batch.poll(0).unwrap().0, TaskStatus::Completed);
    assert_eq!(batch.error(1).unwrap().code(), Code::Internal);
}

#[test]
fn tasks_fail_alone_or_together() {
    let batch = batch(3);
    let submission = start(&batch, &[10, 10, 10]);
    submission.task_failed(1, &Error::new(Code::AddressNotRegistered, Stage::Submit, "nowhere"));
    assert_eq!(batch.poll(1).unwrap(), (TaskStatus::Failed, 0));
    submission.fail_rest(&broken());
    submission.fail_rest(&broken());
    assert_eq!(batch.error(1).unwrap().code(), Code::AddressNotRegistered);
    assert_eq!(batch.error(2), Some(broken()));
    assert_eq!(batch.wait(soon()), Waited::Finished(Outcome { tasks: 3, failed: 3 }));
}

#[test]
fn a_wait_ends_with_the_last_task_or_the_deadline() {
    let batch = batch(2);
    let submission = start(&batch, &[1, 1]);
    assert_eq!(batch.wait(Deadline::after(Duration::from_millis(5))), Waited::Late);
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            let batch = Arc::clone(&batch);
            std::thread::spawn(move || batch.wait(soon()))
        })
        .collect();
    submission.extents_done(&[extent(0, 1, 0, 1), extent(1, 1, 0, 1)]);
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), Waited::Finished(Outcome { tasks: 2, failed: 0 }));
    }
}

#[test]
fn one_wait_is_told_that_it_is_stuck() {
    let batch = batch(1);
    let submission = start(&batch, &[1]);
    let waiter = std::thread::spawn({
        let batch = Arc::clone(&batch);
        move || batch.wait(soon())
    });
    let stuck = Error::new(Code::StillRunning, Stage::Drain, "the device does not stop");
    submission.report_stuck(stuck.clone());
    assert_eq!(waiter.join().unwrap(), Waited::Stuck(stuck));
    assert_eq!(batch.poll(0).unwrap().0, TaskStatus::Waiting);
    assert_eq!(batch.wait(Deadline::after(Duration::from_millis(1))), Waited::Late);
    submission.extent_done(&extent(0, 1, 0, 1));
    assert!(matches!(batch.wait(soon()), Waited::Finished(_)));
}

#[test]
fn the_hook_is_called_once_when_all_is_over() {
    let (told, hears) = mpsc::channel();
    let batch = batch(4);
    let (first, second) = (start(&batch, &[1]), start(&batch, &[1]));
    batch.when_finished({
        let told = told.clone();
        move |outcome| told.send(outcome).unwrap()
    });
    first.extent_done(&extent(0, 1, 0, 1));
    assert!(hears.try_recv().is_err());
    second.extent_failed(&extent(0, 1, 0, 1), &broken());
    assert_eq!(hears.try_recv().unwrap(), Outcome { tasks: 2, failed: 1 });
    start(&batch, &[1]).extent_done(&extent(0, 1, 0, 1));
    assert!(hears.try_recv().is_err());
    batch.when_finished(move |outcome| told.send(outcome).unwrap());
    assert_eq!(hears.try_recv().unwrap().tasks, 3);
}

#[test]
fn the_first_stop_stays_and_keeps_new_requests_out() {
    let batch = batch(2);
    let submission = start(&batch, &[1]);
    assert_eq!((submission.cancelled(), submission.must_stop()), (false, None));
    batch.stop(Stop::Cancelled);
    batch.stop(Stop::Timeout);
    assert_eq!((submission.cancelled(), submission.must_stop()), (true, Some(Stop::Cancelled)));
    assert_eq!(Submission::start(&batch, [1], soon()).unwrap_err().code(), Code::Cancelled);

    let late = Batch::new(1).map(Arc::new).unwrap();
    let submission = Submission::start(&late, [1], Deadline::after(Duration::ZERO)).unwrap();
    assert_eq!((submission.cancelled(), submission.must_stop()), (false, Some(Stop::Timeout)));
}

#[test]
fn freeing_is_busy_until_every_task_was_seen_finished() {
    let table = BatchTable::new(8);
    let id = table.allocate(4).unwrap();
    let batch = table.get(id).unwrap();
    let submission = start(&batch, &[1, 0]);
    assert_eq!(table.free(id).unwrap_err().code().status(), 4);
    submission.extent_done(&extent(0, 1, 0, 1));
    assert_eq!(table.free(id).unwrap_err().code(), Code::Busy); // finished, never polled
    batch.poll(0).unwrap();
    assert_eq!(table.free(id).unwrap_err().code(), Code::Busy);
    batch.poll(1).unwrap();
    table.free(id).unwrap();
    assert_eq!(table.free(id).unwrap_err().code(), Code::StaleHandle);
    assert_eq!(Submission::start(&batch, [1], soon()).unwrap_err().code(), Code::StaleHandle);
}

#[test]
fn a_wait_and_later_polls_count_together() {
    let table = BatchTable::new(8);
    let id = table.allocate(4).unwrap();
    let batch = table.get(id).unwrap();
    start(&batch, &[1, 1]).extents_done(&[extent(0, 2, 0, 2)]);
    assert!(matches!(batch.wait(soon()), Waited::Finished(_)));
    start(&batch, &[1]).extent_done(&extent(0, 1, 0, 1));
    assert_eq!(table.free(id).unwrap_err().code(), Code::Busy);
    batch.poll(2).unwrap();
    table.free(id).unwrap();
    assert!(table.is_empty());
}

#[test]
fn handles_are_never_valid_twice_nor_elsewhere() {
    let (table, other) = (BatchTable::new(8), BatchTable::new(8));
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        let id = table.allocate(0).unwrap();
        assert!((1..1 << 63).contains(&id.raw()));
        assert!(seen.insert(id));
        assert_eq!(other.get(id).unwrap_err().code(), Code::StaleHandle);
        assert_eq!(table.get(BatchId::from_raw(id.raw() | 1 << 63)).unwrap_err().code(), Code::StaleHandle);
        table.free(id).unwrap();
        assert_eq!(table.get(id).unwrap_err().code(), Code::StaleHandle);
        assert_eq!(table.abandon(id).unwrap_err().code(), Code::StaleHandle);
    }
    for raw in [0, 1, u64::MAX, 1 << 52, 0x7f12_3456_7890] {
        assert_eq!(table.get(BatchId::from_raw(raw)).unwrap_err().code(), Code::StaleHandle);
    }
}

#[test]
fn the_table_is_bounded_and_its_places_come_back() {
    let table = BatchTable::new(40);
    let ids: Vec<_> = (0..40).map(|_| table.allocate(1).unwrap()).collect();
    assert_eq!(table.allocate(1).unwrap_err().code(), Code::TooManyRequests);
    for id in ids {
        table.free(id).unwrap();
    }
    let id = table.allocate(1).unwrap();
    let submission = start(&table.get(id).unwrap(), &[1]);
    let abandoned = table.abandon(id).unwrap();
    assert_eq!(table.len(), 0);
    submission.extent_done(&extent(0, 1, 0, 1));
    assert!(abandoned.is_finished());
    let _second = table.allocate(1).unwrap();
    assert_eq!((table.clear().len(), table.len()), (1, 0));
}

#[test]
fn many_threads_settle_poll_wait_and_free() {
    // An interpreter takes a thousand times as long.
    const TASKS: u32 = if cfg!(miri) { 32 } else { 512 };
    const ROUNDS: u32 = if cfg!(miri) { 2 } else { 8 };
    const TURNS: u32 = if cfg!(miri) { 3 } else { 20 };
    let table = Arc::new(BatchTable::new(64));
    let failures = Arc::new(AtomicU32::new(0));
    std::thread::scope(|scope| {
        for round in 0..ROUNDS {
            let (table, failures) = (&table, &failures);
            scope.spawn(move || {
                for turn in 0..TURNS {
                    let id = table.allocate(TASKS).unwrap();
                    let batch = table.get(id).unwrap();
                    let submission = start(&batch, &[8; TASKS as usize]);
                    std::thread::scope(|workers| {
                        for worker in 0..3u32 {
                            let submission = &submission;
                            workers.spawn(move || {
                                for task in (0..TASKS).filter(|task| task % 3 == worker) {
                                    if (task + turn + round) % 100 == 0 {
                                        submission.extent_failed(&extent(task, 1, 0, 8), &broken());
                                    } else {
                                        submission.extent_done(&extent(task, 1, 0, 3));
                                        submission.extent_done(&extent(task, 1, 3, 5));
                                    }
                                }
                            });
                        }
                        let Waited::Finished(outcome) = batch.wait(soon()) else {
                            panic!("the batch did not finish")
                        };
                        let progress = batch.progress();
                        assert_eq!(outcome, Outcome { tasks: TASKS, failed: progress.failed });
                        assert_eq!(progress.moved_bytes, u64::from(progress.completed) * 8);
                        assert_eq!(progress.completed + progress.failed, TASKS);
                        failures.fetch_add(outcome.failed, Ordering::Relaxed);
                    });
                    table.free(id).unwrap();
                }
            });
        }
    });
    let expected: u32 = (0..ROUNDS)
        .flat_map(|round| {
            (0..TURNS).map(move |turn| (0..TASKS).filter(|t| (t + turn + round) % 100 == 0).count())
        })
        .map(|count| u32::try_from(count).unwrap())
        .sum();
    assert_eq!(failures.load(Ordering::Relaxed), expected);
}

proptest! {
    /// Whatever the plan made of the blocks, settling every extent finishes every task with every byte.
    #[test]
    fn settling_a_plan_finishes_every_task(
        blocks in prop::collection::vec((0u64..60, any::<bool>()), 1..40),
        border in 1u64..90,
        fail in any::<u64>(),
    ) {
        let mut address = 0u64;
        let mut planned = Vec::new();
        for (task, &(length_bytes, joined)) in (0u32..).zip(&blocks) {
            address += if joined { 0 } else { 7 };
            planned.push(Block { local: address, remote: address + 1000, length_bytes, task });
            address += length_bytes;
        }
        let regions: Vec<_> = (0..100)
            .map(|index| crate::memory::ByteRange::new(index * border, border).unwrap())
            .collect();
        let far = [crate::memory::ByteRange::new(0, 1 << 40).unwrap()];
        let mut extents = Vec::new();
        let covered = address <= border * 100;
        let result = if covered {
            coalesce(&planned, &mut Regions::new(&regions), &mut Regions::new(&far), &mut extents)
        } else {
            coalesce(&planned, &mut NoBorder, &mut NoBorder, &mut extents)
        };
        prop_assert!(result.is_ok());

        let batch = Arc::new(Batch::new(64).unwrap());
        let submission = Submission::start(&batch, blocks.iter().map(|block| block.0), soon()).unwrap();
        let mut failed_tasks = std::collections::HashSet::new();
        for (index, extent) in extents.iter().enumerate() {
            if fail >> (index % 64) & 1 == 1 && index % 3 == 0 {
                submission.extent_failed(extent, &broken());
                failed_tasks.extend(extent.first_task..extent.first_task + extent.task_count);
            } else {
                submission.extent_done(extent);
            }
        }
        prop_assert!(submission.is_finished() && batch.is_finished());
        for (task, &(length_bytes, _)) in (0u32..).zip(&blocks) {
            let (status, moved_bytes) = batch.poll(task).unwrap();
            if failed_tasks.contains(&task) {
                prop_assert_eq!(status, TaskStatus::Failed);
                prop_assert!(moved_bytes < length_bytes);
                prop_assert!(batch.error(task).is_some());
            } else {
                prop_assert_eq!((status, moved_bytes), (TaskStatus::Completed, length_bytes));
            }
        }
        prop_assert!(batch.close().is_ok());
    }
}
