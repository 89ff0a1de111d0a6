//! How many threads copy at the moment: more than there are cores only take each other's time.
//!
//! Callers copy in any case; the threads of a pool help where there is room. A caller that has just ended one request
//! is about to come with the next, so that for some milliseconds its core is not taken for free.
//!
//! A child after `fork` has none of the threads that its parent counts, and begins with a count of its own.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use crate::memory::process_id;

/// Cores that this process may use. The kernel and the container are asked once: it takes tens of microseconds.
static CORES: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// Those of the first process that asked, whichever engine's memory its threads copy; behind them those of its
/// children.
static SEATS: LazyLock<Seats> = LazyLock::new(|| Seats::new(*CORES));

/// Callers of this and of the last such time are expected again.
const WINDOW: Duration = Duration::from_millis(5);

/// Bits of a number of callers in [`Seats::recent`].
const BITS: u32 = 8;
const MASK: u64 = (1 << BITS) - 1;

/// A count of threads that copy, and how many may.
#[derive(Debug)]
pub(super) struct Seats {
    /// Whose threads are counted.
    process: u32,
    /// For a child of that process. Written by children alone, each in its own memory.
    child: OnceLock<Box<Self>>,
    limit: usize,
    callers: AtomicUsize,
    helpers: AtomicUsize,
    began: Instant,
    /// The number of a window, the most callers at a time in the one before, and in this one.
    recent: AtomicU64,
}

/// A thread that copies; it stops when this is dropped.
#[derive(Debug)]
pub(super) struct Seat<'a>(&'a AtomicUsize);

impl Seats {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            process: process_id(),
            child: OnceLock::new(),
            limit,
            callers: AtomicUsize::new(0),
            helpers: AtomicUsize::new(0),
            began: Instant::now(),
            recent: AtomicU64::new(0),
        }
    }

    /// Those of this process: one for each core. To be asked when an engine is made, since a child makes its own.
    pub(super) fn of_process() -> &'static Self {
        let mut seats: &'static Self = &SEATS;
        while seats.process != process_id() {
            seats = seats.child.get_or_init(|| Box::new(Self::new(*CORES)));
        }
        seats
    }

    /// For a caller.
    pub(super) fn call(&self) -> Seat<'_> {
        let callers = self.callers.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let window = self.window();
        let note = |recent: u64| {
            let (before, now) = most_callers(recent, window);
            let now = now.max(u64::try_from(callers).unwrap_or(MASK).min(MASK));
            let noted = window << (2 * BITS) | before << BITS | now;
            (noted != recent).then_some(noted)
        };
        // An error means that nothing was to be changed.
        let _noted = self.recent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, note);
        Seat(&self.callers)
    }

    /// For a helper that must come.
    pub(super) fn help(&self) -> Seat<'_> {
        self.helpers.fetch_add(1, Ordering::Relaxed);
        Seat(&self.helpers)
    }

    /// For a helper, if there is room.
    pub(super) fn help_if_room(&self) -> Option<Seat<'_>> {
        let most = self.limit.saturating_sub(self.expected());
        let more = |helpers: usize| (helpers < most).then_some(helpers.saturating_add(1));
        self.helpers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()
            .map(|_| Seat(&self.helpers))
    }

    /// How many helpers have room, beside `more` callers that have not come yet.
    pub(super) fn room(&self, more: usize) -> usize {
        let coming = self.callers.load(Ordering::Relaxed).saturating_add(more);
        let taken = coming.max(self.expected()).saturating_add(self.helpers.load(Ordering::Relaxed));
        self.limit.saturating_sub(taken)
    }

    /// How many seats there are.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Callers that copy, or did a moment ago.
    fn expected(&self) -> usize {
        let (before, now) = most_callers(self.recent.load(Ordering::Relaxed), self.window());
        let recent = usize::try_from(before.max(now)).unwrap_or(0);
        recent.max(self.callers.load(Ordering::Relaxed))
    }

    fn window(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros() / WINDOW.as_micros()).unwrap_or(0)
    }
}

/// The most callers at a time in the window before `window` and in it, by what was noted last.
fn most_callers(recent: u64, window: u64) -> (u64, u64) {
    let (noted, before, now) = (recent >> (2 * BITS), recent >> BITS & MASK, recent & MASK);
    match window.saturating_sub(noted) {
        0 => (before, now),
        1 => (now, 0),
        _ => (0, 0),
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::owner::tests::in_a_child;

    #[test]
    fn helpers_get_what_callers_leave() {
        let seats = Seats::new(3);
        assert_eq!((seats.room(0), seats.room(1)), (3, 2));
        let caller = seats.call();
        let (first, second) = (seats.help_if_room().unwrap(), seats.help_if_room().unwrap());
        assert!(seats.help_if_room().is_none() && seats.room(0) == 0);
        let must = seats.help();
        drop((first, second));
        assert_eq!((seats.room(0), seats.room(1)), (1, 0));
        drop((caller, must));
    }

    #[test]
    fn who_called_a_moment_ago_is_expected_again_and_then_forgotten() {
        let seats = Seats::new(4);
        drop((seats.call(), seats.call()));
        let until = Instant::now() + Duration::from_secs(60);
        while seats.room(0) < 4 {
            assert!(Instant::now() < until, "they are never forgotten");
            std::thread::yield_now();
        }
        let recent = |window: u64, before: u64, now: u64| window << (2 * BITS) | before << BITS | now;
        assert_eq!(most_callers(recent(7, 2, 3), 7), (2, 3));
        assert_eq!(most_callers(recent(7, 2, 3), 8), (3, 0));
        assert_eq!(most_callers(recent(7, 2, 3), 9), (0, 0));
    }

    #[test]
    fn a_child_has_all_its_seats() {
        let seats = Seats::of_process();
        let taken: Vec<_> = (0..seats.limit()).map(|_| (seats.call(), seats.help())).collect();
        assert_eq!((seats.room(0), seats.help_if_room().is_some()), (0, false));
        let all_are_free = || {
            let own = Seats::of_process();
            let all = own.room(0) == own.limit() && own.help_if_room().is_some();
            // What was taken before the fork may be given back in the child, too.
            let given_back = seats.help();
            drop(given_back);
            all && own.room(0) == own.limit() && std::ptr::eq(own, Seats::of_process())
        };
        assert!(in_a_child(all_are_free));
        assert!(in_a_child(|| {
            let own = Seats::of_process();
            let _taken = own.call();
            in_a_child(all_are_free) && own.room(0) + 1 == own.limit()
        }));
        assert_eq!(seats.room(0), 0, "a child's seats are not its parent's");
        drop(taken);
    }

    #[test]
    fn a_machine_has_a_core() {
        assert!(Seats::of_process().limit() > 0);
    }
}
