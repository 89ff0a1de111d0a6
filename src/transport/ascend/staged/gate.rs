//! Who may start copies on a device now.
//!
//! The copies of a slot are started one by one, and where the threads of a device start them in one row, threads that
//! begin together also end together: all gather, then all wait for the other side to scatter, and neither device works
//! all the time. With one turn after the other, one slot is gathered while the one before it is scattered.
//!
//! Invariants: at most as many hold a [`Turn`] as the gate has; nothing that holds one waits for the peer or for a slot.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::copier::Watch;
use crate::error::Result;

/// How often who waits looks whether to stop.
const LOOK: Duration = Duration::from_millis(50);

/// The turns of one device.
pub struct Gate {
    free: Mutex<usize>,
    changed: Condvar,
}

/// The right to start copies; given back when it is dropped.
pub struct Turn<'a>(&'a Gate);

impl Gate {
    /// For so many at a time, at least one.
    #[must_use]
    pub fn new(turns: usize) -> Self {
        Self { free: Mutex::new(turns.max(1)), changed: Condvar::new() }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// What `watch` says.
    pub fn pass(&self, watch: &dyn Watch) -> Result<Turn<'_>> {
        let mut free = self.free.lock();
        while *free == 0 {
            if self.changed.wait_for(&mut free, LOOK).timed_out() {
                drop(free);
                if let Some(error) = watch.stop() {
                    return Err(error);
                }
                free = self.free.lock();
            }
        }
        *free = free.saturating_sub(1);
        Ok(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut free = self.0.free.lock();
        *free = free.saturating_add(1);
        drop(free);
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::error::{Code, Error, Stage};

    #[derive(Default)]
    struct Stopper(AtomicBool);

    impl Watch for Stopper {
        fn stop(&self) -> Option<Error> {
            self.0.load(Ordering::Acquire).then(|| Error::new(Code::Cancelled, Stage::Execute, "stopped"))
        }

        fn stuck(&self) {}
    }

    #[test]
    fn no_more_pass_than_there_are_turns_and_all_do_in_the_end() {
        let (gate, watch) = (Gate::new(2), Stopper::default());
        let (inside, most, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let turn = gate.pass(&watch).unwrap();
                        let now = inside.fetch_add(1, Ordering::AcqRel) + 1;
                        most.fetch_max(now, Ordering::AcqRel);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::AcqRel);
                        drop(turn);
                        done.fetch_add(1, Ordering::AcqRel);
                    }
                });
            }
        });
        assert!(most.load(Ordering::Acquire) <= 2);
        assert_eq!(done.load(Ordering::Acquire), 1600);
    }

    #[test]
    fn who_has_to_stop_does_not_wait_for_its_turn() {
        let (gate, watch) = (Gate::new(0), Stopper::default());
        let turn = gate.pass(&watch).unwrap();
        watch.0.store(true, Ordering::Release);
        assert_eq!(gate.pass(&watch).err().map(|error| error.code()), Some(Code::Cancelled));
        drop(turn);
        assert!(gate.pass(&watch).is_ok());
    }
}
