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
    let batch = Arc::new(Batch::new(1).unwrap());
    let deadline = Deadline::after(SOON);
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
        peer: Arc::from("peer"),
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

#[test]
fn two_requests_do_not_count_on_the_same_thread() {
    let mut queue = Queue { threads: 2, idle: 2, looking: 1, ..Queue::default() };
    assert_eq!(queue.claim(1, 0), 0, "one looks");
    assert_eq!(queue.claim(1, 0), 1, "the other has to be woken");
    assert_eq!((queue.free(), queue.claim(1, 0)), (0, 0), "nobody is left");
    queue.looked();
    assert_eq!((queue.looking, queue.claimed, queue.free()), (0, 0, 1));
    queue.came();
    assert_eq!(queue.free(), 2);
    queue.idle += 1;
    assert_eq!(queue.claim(2, 1), 1, "who has just been started is awake");
}
