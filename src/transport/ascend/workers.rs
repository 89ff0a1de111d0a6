//! How many threads make or run channels, and for whom.

use std::collections::HashMap;

/// Threads that make or run channels.
pub const WORKER_LIMIT: usize = 1024;

/// Of these, how many one peer may cause, so that a peer which only offers does not use up all of them.
pub const WORKERS_PER_PEER: usize = 128;

/// Threads that make or run channels now; kept behind a lock.
#[derive(Default)]
pub struct Workers {
    total: usize,
    by_peer: HashMap<u128, usize>,
}

impl Workers {
    /// Counts one more, if there is room.
    #[must_use]
    pub fn add(&mut self, peer: u128) -> bool {
        let own = self.by_peer.entry(peer).or_default();
        if self.total >= WORKER_LIMIT || *own >= WORKERS_PER_PEER {
            return false;
        }
        self.total = self.total.saturating_add(1);
        *own = own.saturating_add(1);
        true
    }

    /// One of a peer's has ended.
    pub fn remove(&mut self, peer: u128) {
        self.total = self.total.saturating_sub(1);
        if let Some(own) = self.by_peer.get_mut(&peer) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.by_peer.remove(&peer);
            }
        }
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
        let taken = (0..WORKER_LIMIT).filter(|_| workers.add(1)).count();
        assert_eq!(taken, WORKERS_PER_PEER);
        assert!(workers.add(2));
        workers.remove(1);
        assert!(workers.add(1));
        assert_eq!(workers.total(), WORKERS_PER_PEER + 1);
    }

    #[test]
    fn all_together_have_a_limit() {
        let mut workers = Workers::default();
        let taken =
            (0..2 * WORKER_LIMIT).filter(|index| workers.add(u128::try_from(*index).unwrap())).count();
        assert_eq!((taken, workers.total()), (WORKER_LIMIT, WORKER_LIMIT));
    }
}
