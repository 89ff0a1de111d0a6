//! How many threads copy at the moment: more than there are cores only take each other's time.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Cores that this process may use. The kernel and the container are asked once: it takes tens of microseconds.
static CORES: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// Those of the process, whichever engine's memory they copy.
static SEATS: LazyLock<Seats> = LazyLock::new(|| Seats::new(*CORES));

/// A count of threads that copy, and how many may.
#[derive(Debug)]
pub(super) struct Seats {
    taken: AtomicUsize,
    limit: usize,
}

/// A thread that copies; it stops when this is dropped.
#[derive(Debug)]
pub(super) struct Seat<'a>(&'a Seats);

impl Seats {
    pub(super) const fn new(limit: usize) -> Self {
        Self { taken: AtomicUsize::new(0), limit }
    }

    /// Those of this process: one for each core.
    pub(super) fn of_process() -> &'static Self {
        &SEATS
    }

    /// For who copies in any case.
    pub(super) fn take(&self) -> Seat<'_> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Seat(self)
    }

    /// For who may leave it to others.
    pub(super) fn take_free(&self) -> Option<Seat<'_>> {
        let more = |taken: usize| (taken < self.limit).then_some(taken.saturating_add(1));
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Seat(self))
    }

    /// How many are free.
    pub(super) fn free(&self) -> usize {
        self.limit.saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    /// How many there are.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_leave_it_gets_a_free_seat_only() {
        let seats = Seats::new(2);
        let caller = seats.take();
        let helper = seats.take_free().unwrap();
        assert!(seats.take_free().is_none() && seats.free() == 0);
        let second = seats.take();
        drop(helper);
        assert!(seats.take_free().is_none(), "the second caller sits there");
        drop((caller, second));
        assert_eq!(seats.free(), 2);
    }

    #[test]
    fn a_machine_has_a_core() {
        assert!(Seats::of_process().limit() > 0);
    }
}
