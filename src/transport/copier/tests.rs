//! What requests can count on, whoever works on them.

use std::sync::Barrier;
use std::thread::ThreadId;

use super::*;
use crate::batch::{Batch, Submission, Waited};
use crate::plan::Extent;
use crate::transport::{Job, Route};

const SOON: Duration = Duration::from_secs(60);

/// Copies nothing, but does this for each piece.
struct Does<F>(F);

impl<F: Fn() + Send + Sync> Mover for Does<F> {
    fn copy(&self, _: Direction, _: &[Block], _: Caching) -> Result<()> {
        (self.0)();
        Ok(())
    }
}

fn mover(does: impl Fn() + Send + Sync + 'static) -> Arc<dyn Mover> {
    Arc::new(Does(does))
}

/// A request of one extent, and its batch.
fn request(length_bytes: u64) -> (Arc<Request>, Arc<Batch>) {
    request_of("peer", length_bytes, SOON)
}

/// The same of a peer, with a time limit.
fn request_of(peer: &str, length_bytes: u64, limit: Duration) -> (Arc<Request>, Arc<Batch>) {
    let batch = Arc::new(Batch::new(1).unwrap());
    let deadline = Deadline::after(limit);
    let submission = Submission::start(&batch, [length_bytes], deadline).unwrap();
    let extent =
        Extent { local: 1 << 40, remote: 1 << 41, length_bytes, first_task: 0, task_count: 1, skip_bytes: 0 };
    let request = Request::new(Job {
        direction: Direction::Read,
        extents: vec![extent],
        submission,
        pins: Vec::new(),
        deadline,
        local_device: None,
        remote_device: None,
        route: Route::Any,
        peer: Arc::from(peer),
    });
    (request, batch)
}

fn finishes(batch: &Batch) {
    let waited = batch.wait(Deadline::after(SOON));
    assert!(matches!(waited, Waited::Finished(outcome) if outcome.is_success()), "{waited:?}");
}

#[test]
fn a_mover_that_waits_holds_up_no_other_request() {
    let copier = HostCopier::that_waits("test-waits");
    // Each returns only when the other has begun.
    let both = Arc::new(Barrier::new(2));
    let mover = mover(move || {
        let _leader = both.wait();
    });
    let (one, first) = request(1000);
    copier.submit(&one, &mover).unwrap();
    let (other, second) = request(1000);
    copier.submit(&other, &mover).unwrap();
    finishes(&first);
    finishes(&second);
}

/// What waits for a peer that stands still, until it is dropped.
struct Stands {
    gate: Arc<(Mutex<bool>, Condvar)>,
    mover: Arc<dyn Mover>,
}

impl Stands {
    fn new() -> Self {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let shared = Arc::clone(&gate);
        let mover = mover(move || {
            let mut open = shared.0.lock();
            while !*open {
                assert!(!shared.1.wait_for(&mut open, SOON).timed_out(), "nobody has opened the gate");
            }
        });
        Self { gate, mover }
    }
}

impl Drop for Stands {
    fn drop(&mut self) {
        *self.gate.0.lock() = true;
        self.gate.1.notify_all();
    }
}

#[test]
fn peers_that_stand_still_hold_up_no_other() {
    let copier = HostCopier::that_waits("test-still");
    let stands = Stands::new();
    let mut held = Vec::new();
    for peer in 0..5 {
        for _ in 0..8 {
            let (request, batch) = request_of(&format!("still {peer}"), 8 * PIECE_BYTES, SOON);
            copier.submit(&request, &stands.mover).unwrap();
            held.push(batch);
        }
        // Long and short, one behind another.
        for length_bytes in [1000, 8 * PIECE_BYTES, 1000] {
            let (request, batch) = request_of("works", length_bytes, SOON);
            copier.submit(&request, &mover(|| ())).unwrap();
            finishes(&batch);
        }
    }
    assert!(copier.shared.queue.lock().threads <= WAITING_THREAD_LIMIT);
    assert!(held.iter().all(|batch| !batch.is_finished()));
    drop(stands);
    held.iter().for_each(|batch| finishes(batch));
    copier.stop();
    copier.wait_stopped(Deadline::after(SOON)).unwrap();
}

#[test]
fn what_waits_behind_a_peer_that_stands_still_ends_in_time() {
    let copier = HostCopier::that_waits("test-behind");
    let stands = Stands::new();
    let (request, first) = request_of("still", 8 * PIECE_BYTES, SOON);
    copier.submit(&request, &stands.mover).unwrap();
    let until = Deadline::after(SOON);
    while copier.shared.queue.lock().shares.as_ref().unwrap().room_for(&Arc::from("still")) > 0 {
        assert!(!until.expired(), "the peer does not get the threads that it may have");
        std::thread::yield_now();
    }
    // Of the same peer, with less time, and given up.
    let (request, late) = request_of("still", 1000, Duration::from_millis(5));
    copier.submit(&request, &stands.mover).unwrap();
    let (request, cancelled) = request_of("still", 1000, SOON);
    copier.submit(&request, &stands.mover).unwrap();
    cancelled.stop(crate::batch::Stop::Cancelled);
    for (batch, code) in [(&late, Code::Timeout), (&cancelled, Code::Cancelled)] {
        let waited = batch.wait(Deadline::after(SOON));
        assert!(matches!(waited, Waited::Finished(outcome) if outcome.failed == 1), "{waited:?}");
        assert_eq!(batch.first_error().map(|error| error.code()), Some(code));
    }
    assert!(!first.is_finished());
    drop(stands);
    finishes(&first);
}

#[test]
fn who_helps_has_his_own_deadline() {
    let copier = HostCopier::new("test-deadline");
    let limit = Deadline::after(Duration::from_millis(20));
    let helper: ThreadId = std::thread::current().id();
    let late = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&late);
    let mover = mover(move || {
        if std::thread::current().id() == helper && limit.expired() {
            counts.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(1));
    });
    // Longer than all the threads together have by then.
    let (request, batch) = request(1000 * PIECE_BYTES);
    copier.submit(&request, &mover).unwrap();
    let waited = batch.wait(limit);
    // One piece may have been begun a moment before.
    assert!(late.load(Ordering::Relaxed) <= 1, "{late:?} pieces were begun after the helper's deadline");
    drop(waited);
    finishes(&batch);
}

/// Help that sleeps until the batch is over, or the deadline comes.
struct Sleeps;

impl Help for Sleeps {
    fn may_sleep(&self) -> bool {
        true
    }

    fn help(&self, batch: &Batch, deadline: Deadline) {
        while !batch.is_finished() && !deadline.expired() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn who_waits_copies_before_he_sleeps_for_others() {
    let copier = HostCopier::new("test-order");
    let (request, batch) = request(INLINE_LIMIT_BYTES + 1);
    batch.expect_wait();
    let sleeps: Arc<dyn Help> = Arc::new(Sleeps);
    assert!(batch.offer(Arc::downgrade(&sleeps)));
    // So short that no thread comes for it.
    copier.submit(&request, &mover(|| ())).unwrap();
    assert_eq!(copier.shared.queue.lock().threads, 0);
    finishes(&batch);
}

#[test]
fn what_is_submitted_while_somebody_begins_to_wait_is_worked_on_and_let_go() {
    let copier = Arc::new(HostCopier::new("test-race"));
    let mover = mover(|| ());
    for _ in 0..2000 {
        let (request, batch) = request(INLINE_LIMIT_BYTES + 1);
        batch.expect_wait();
        let begin = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                begin.wait();
                copier.submit(&request, &mover).unwrap();
            });
            begin.wait();
            finishes(&batch);
        });
    }
    let until = Deadline::after(SOON);
    while !copier.shared.queue.lock().copies.is_empty() {
        assert!(!until.expired(), "a request that is over is kept, with its pins");
        std::thread::yield_now();
    }
    assert_eq!(copier.shared.helped.load(Ordering::Relaxed), 0);
    assert_eq!(copier.shared.alone.load(Ordering::Relaxed), 0);
}
