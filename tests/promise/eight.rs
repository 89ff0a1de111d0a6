//! A process and eight peers of it: one that a test harms, and seven that must not notice.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

use crate::promise::{Peer, moving};

/// The nine processes, each with a buffer.
pub struct Eight {
    pub a: Peer,
    near: u64,
    /// The first one is harmed.
    pub others: Vec<(Peer, u64)>,
    length_bytes: u64,
    block_bytes: u64,
}

impl Eight {
    /// Of a process with its buffer, and its peers with theirs; transfers move `length_bytes` in blocks.
    pub fn new(
        (a, near): (Peer, u64),
        others: Vec<(Peer, u64)>,
        length_bytes: u64,
        block_bytes: u64,
    ) -> Self {
        assert_eq!(others.len(), 8);
        Self { a, near, others, length_bytes, block_bytes }
    }

    /// The words of a write to one of them.
    pub fn words(&self, place: usize) -> String {
        let (peer, far) = &self.others[place];
        moving("write", self.near, &peer.name(), *far, self.length_bytes, self.block_bytes, 0)
    }

    /// One transfer to each of the seven others, all at once.
    pub fn round(&mut self) {
        let pending: Vec<_> = (1..8)
            .map(|place| {
                let command = format!("& transfer {}", self.words(place));
                self.a.begin(&command)
            })
            .collect();
        for pending in pending {
            self.a.finish(pending).unwrap_or_else(|failure| panic!("a living peer: {failure:?}"));
        }
    }

    pub fn end(self) {
        self.a.quit();
        for (mut peer, _) in self.others {
            if peer.child.is_running() {
                peer.quit();
            }
        }
    }
}
