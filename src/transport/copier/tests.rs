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

/// A copier on a machine with so many cores.
fn with_cores(name: &'static str, cores: usize) -> HostCopier {
    let seats: &'static Seats = Box::leak(Box::new(Seats::new(cores)));
    HostCopier { shared: Arc::new(Shared::new(Some(seats))), name, inline_bytes: INLINE_LIMIT_BYTES }
}

/// Ends though nobody waits, who would help.
fn ends_unwaited(batch: &Batch) {
    let until = Deadline::after(SOON);
    while !batch.is_finished() {
        assert!(!until.expired(), "no thread works on it");
        std::thread::yield_now();
    }
}

#[test]
fn the_only_thread_is_woken_though_it_was_awake_when_it_was_counted_on_before() {
    let copier = with_cores("test-awake", 1);
    // It has come to the end of something, and takes the lock next: for now this test is that thread.
    {
        let mut queue = copier.shared.queue.lock();
        (queue.threads, queue.idle) = (1, 1);
    }
    let (one, first) = request(INLINE_LIMIT_BYTES + 1);
    copier.submit(&one, &mover(|| ())).unwrap();
    assert!(copier.shared.serve(&mut false));
    ends_unwaited(&first);
    let shared = Arc::clone(&copier.shared);
    let thread = std::thread::spawn(move || shared.run());
    for _ in 0..3 {
        let until = Deadline::after(SOON);
        while copier.shared.queue.lock().asleep == 0 {
            assert!(!until.expired(), "it does not go to sleep");
            std::thread::yield_now();
        }
        let (another, batch) = request(INLINE_LIMIT_BYTES + 1);
        copier.submit(&another, &mover(|| ())).unwrap();
        ends_unwaited(&batch);
    }
    copier.stop();
    copier.wait_stopped(Deadline::after(SOON)).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_defect_costs_its_request_and_neither_thread_nor_place() {
    for copier in [with_cores("test-defect", 2), HostCopier::that_waits("test-defect-2")] {
        // More often than there may be threads.
        for round in 0..WAITING_THREAD_LIMIT + 4 {
            let bad = mover(|| panic!("scripted"));
            // On the caller's thread where there is such a length, and on others.
            for length_bytes in [1000, 8 * PIECE_BYTES] {
                let (request, batch) = request(length_bytes);
                copier.submit(&request, &bad).unwrap();
                if round % 2 == 0 {
                    ends_unwaited(&batch);
                }
                let waited = batch.wait(Deadline::after(SOON));
                assert!(matches!(waited, Waited::Finished(outcome) if outcome.failed == 1), "{waited:?}");
                assert_eq!(batch.first_error().map(|error| error.code()), Some(Code::Internal));
            }
        }
        let (request, batch) = request(8 * PIECE_BYTES);
        copier.submit(&request, &mover(|| ())).unwrap();
        ends_unwaited(&batch);
        copier.stop();
        copier.wait_stopped(Deadline::after(SOON)).unwrap();
        let queue = copier.shared.queue.lock();
        assert_eq!((queue.threads, queue.idle, queue.copies.len()), (0, 0, 0));
    }
}

/// Whoever comes to the queue gets what a look at all of it would find.
#[test]
fn a_thread_gets_the_first_request_of_a_peer_without_one_and_then_the_first_that_may_have_one() {
    let mut queue = Queue::new(true);
    let assisted = |peer: &str, limit| {
        let copy = Copy::new(&request_of(peer, 1000, limit).0, &mover(|| ()));
        Arc::new(Assisted { copy, shared: Weak::new() })
    };
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % limit as u64).unwrap()
    };
    let (mut running, mut seen): (Vec<Arc<Assisted>>, [usize; 4]) = (Vec::new(), [0; 4]);
    for _ in 0..20_000 {
        let held = |peer: &Arc<str>| running.iter().filter(|copy| copy.peer() == peer).count();
        let room = |peer: &Arc<str>| queue.shares.as_ref().unwrap().room_for(peer) > 0;
        let without = queue.copies.iter().find(|queued| held(queued.copy.peer()) == 0);
        let now = Instant::now();
        let may = || queue.copies.iter().find(|one| room(one.copy.peer()) || one.copy.is_overdue(now));
        let wanted = without.or_else(may).map(|queued| Arc::clone(&queued.copy));
        let found = queue.first_alone().map(|queued| Arc::clone(&queued.copy));
        assert_eq!(found.as_ref().map(Arc::as_ptr), wanted.as_ref().map(Arc::as_ptr));
        seen[match &found {
            None => 0,
            Some(copy) if held(copy.peer()) == 0 => 1,
            Some(copy) if room(copy.peer()) => 2,
            Some(_) => 3,
        }] += usize::from(!queue.copies.is_empty());
        match (below(4), found) {
            (0, Some(copy)) if running.len() < WAITING_THREAD_LIMIT => {
                queue.begins(&copy);
                if below(2) == 0 {
                    queue.remove(&copy);
                }
                running.push(copy);
            }
            (1, _) if !running.is_empty() => {
                let copy = running.swap_remove(below(running.len()));
                queue.ends(&copy);
                queue.remove(&copy);
            }
            (2, _) if queue.copies.len() < 40 => {
                let limit = if below(8) == 0 { Duration::ZERO } else { SOON * 60 };
                let copy = assisted(&format!("peer {}", below(7).min(below(7))), limit);
                queue.push(Queued { copy, helped: false });
            }
            _ => {}
        }
    }
    assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
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
