//! How many threads make or run channels, and for whom.

use std::collections::{BTreeSet, HashMap};

/// Threads that make or run channels.
pub const WORKER_LIMIT: usize = 1024;

/// Of these, how many one peer may cause, so that a peer which only offers does not use up all of them.
pub const WORKERS_PER_PEER: usize = 128;

/// Threads that make or run channels now; kept behind a lock.
#[derive(Default)]
pub struct Workers {
    total: usize,
    /// Their numbers, which grow.
    by_peer: HashMap<u128, BTreeSet<u64>>,
    last: u64,
}

impl Workers {
    /// Counts one more, if there is room; its number.
    #[must_use]
    pub fn add(&mut self, peer: u128) -> Option<u64> {
        let own = self.by_peer.entry(peer).or_default();
        if self.total >= WORKER_LIMIT || own.len() >= WORKERS_PER_PEER {
            return None;
        }
        self.total = self.total.saturating_add(1);
        self.last = self.last.saturating_add(1);
        own.insert(self.last);
        Some(self.last)
    }

    /// One of a peer's has ended.
    pub fn remove(&mut self, peer: u128, number: u64) {
        if let Some(own) = self.by_peer.get_mut(&peer) {
            if own.remove(&number) {
                self.total = self.total.saturating_sub(1);
            }
            if own.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
    }

    /// The number of the one that was added last.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Whether one of a peer's up to number `number` is there.
    #[must_use]
    pub fn has(&self, peer: u128, number: u64) -> bool {
        self.by_peer.get(&peer).and_then(|own| own.first()).is_some_and(|first| *first <= number)
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_does_not_take_all() {
        let mut workers = Workers::default();
        let taken: Vec<u64> = (0..WORKER_LIMIT).filter_map(|_| workers.add(1)).collect();
        assert_eq!(taken.len(), WORKERS_PER_PEER);
        assert!(workers.add(2).is_some());
        workers.remove(1, taken[0]);
        assert!(workers.add(1).is_some());
        assert_eq!(workers.total(), WORKERS_PER_PEER + 1);
    }

    #[test]
    fn all_together_have_a_limit() {
        let mut workers = Workers::default();
        let taken =
            (0..2 * WORKER_LIMIT).filter_map(|index| workers.add(u128::try_from(index).unwrap())).count();
        assert_eq!((taken, workers.total()), (WORKER_LIMIT, WORKER_LIMIT));
    }

    #[test]
    fn those_that_came_later_do_not_count_as_earlier_ones() {
        let mut workers = Workers::default();
        let first = workers.add(1).unwrap();
        let last = workers.last();
        let second = workers.add(1).unwrap();
        assert!(workers.has(1, last) && !workers.has(2, last));
        workers.remove(1, first);
        assert!(!workers.has(1, last) && workers.has(1, second));
        workers.remove(1, first);
        assert_eq!(workers.total(), 1);
    }
}
