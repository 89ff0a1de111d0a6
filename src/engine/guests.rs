//! Batches of other engines of this process that move this engine's memory.
//!
//! Such a transfer goes on without asking this engine, so that only its batch can stop it: the end of the engine
//! needs that before its owner may free the memory.
//!
//! Invariant: at most twice as many entries as batches that are under way, and [`FIRST_PRUNING`].

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::batch::{Batch, Stop};

/// Entries after which those that are over are looked for.
pub const FIRST_PRUNING: usize = 64;

/// The batches.
#[derive(Default)]
pub(super) struct Guests(Mutex<Known>);

#[derive(Default)]
struct Known {
    batches: Vec<Weak<Batch>>,
    /// Entries that the last pruning left.
    left: usize,
}

impl Guests {
    /// A batch is about to pin memory of this engine.
    pub(super) fn add(&self, batch: &Arc<Batch>) {
        let batch = Arc::downgrade(batch);
        let mut known = self.0.lock();
        if known.batches.last().is_some_and(|last| last.ptr_eq(&batch)) {
            return;
        }
        if known.batches.len() >= FIRST_PRUNING.max(known.left.saturating_mul(2)) {
            known.batches.sort_unstable_by_key(|guest| guest.as_ptr().addr());
            known.batches.dedup_by(|a, b| a.ptr_eq(b));
            known.batches.retain(|guest| guest.upgrade().is_some_and(|batch| !batch.is_finished()));
            known.left = known.batches.len();
        }
        known.batches.push(batch);
    }

    /// Asks all of them to stop; they end when what they started is quiet.
    pub(super) fn stop(&self) {
        let guests = std::mem::take(&mut self.0.lock().batches);
        for batch in guests.iter().filter_map(Weak::upgrade) {
            batch.stop(Stop::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Submission;
    use crate::deadline::Deadline;

    #[test]
    fn those_that_are_over_are_forgotten_and_the_others_are_stopped() {
        let guests = Guests::default();
        let running = Arc::new(Batch::new(1).unwrap());
        let until = Deadline::after(std::time::Duration::from_secs(5));
        let submission = Submission::start(&running, [1], until).unwrap();
        for _ in 0..10 * FIRST_PRUNING {
            guests.add(&running);
            guests.add(&Arc::new(Batch::new(1).unwrap()));
        }
        assert!(guests.0.lock().batches.len() <= FIRST_PRUNING);
        guests.stop();
        assert!(submission.cancelled());
    }
}
