//! What two processes of a host share about the ranges of one of them: a table of words in a sealed file.
//!
//! The owner of the memory makes one file for each peer. It tells which ranges may be used, and counts the peer's
//! accesses under way on each, so that the owner knows for certain when nobody touches a range any more, even when
//! the peer was stopped in between and says nothing. An access adds one to the range's word, looks whether the range
//! is open and still the one that was looked up, moves the bytes, and takes the one away. The owner closes the word,
//! and waits until it counts nothing.
//!
//! All words are native integers: both processes run on one machine.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::memory::mapping::Mapping;

/// Most ranges that a board tells of; those registered beyond go by TCP.
pub const MAX_RANGES: usize = 1 << 16;

/// Tells this layout from others.
const MAGIC: u64 = 0x6d6f_6f6e_6361_6b01;
/// Words before the first range: one page of the smallest kind.
const HEADER_WORDS: usize = 512;
const WORDS_PER_RANGE: usize = 4;

/// Bytes of a board.
pub(super) const BOARD_BYTES: u64 = ((HEADER_WORDS + MAX_RANGES * WORDS_PER_RANGE) * size_of::<u64>()) as u64;

/// Words of the header.
mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const CHALLENGE: [usize; 2] = [1, 2];
    pub(super) const STATE: usize = 3;
    pub(super) const EPOCH: usize = 4;
    pub(super) const USED: usize = 5;
}

/// Accesses under way are the low bits of a range's word.
pub(super) const COUNT: u64 = (1 << 32) - 1;
/// No new accesses.
pub(super) const CLOSED: u64 = 1 << 32;
/// Grows when the place is given to another range.
pub(super) const GENERATION: u64 = 1 << 33;

/// The generation of a word.
pub(super) const fn generation(word: u64) -> u64 {
    word / GENERATION
}

/// Whether the peer has begun to use the board.
pub(super) mod state {
    /// Not yet.
    pub(crate) const FREE: u64 = 0;
    /// It has, and its lock on the file tells whether it still does.
    pub(crate) const TAKEN: u64 = 1;
    /// It must not any more: the owner has given the board up.
    pub(crate) const REVOKED: u64 = 2;
}

/// The words of one range.
pub(super) struct Entry<'a> {
    pub(super) start: &'a AtomicU64,
    pub(super) length_bytes: &'a AtomicU64,
    /// Generation, [`CLOSED`], and the count.
    pub(super) word: &'a AtomicU64,
}

/// The words of a board, by name.
#[derive(Debug)]
pub(super) struct Words(pub(super) Mapping);

impl Words {
    /// Marks a new board as one.
    pub(super) fn begin(&self, challenge: [u64; 2]) {
        for (index, value) in at::CHALLENGE.into_iter().zip(challenge) {
            self.store(index, value);
        }
        self.store(at::MAGIC, MAGIC);
    }

    /// Whether it is a board, and the one that was asked for.
    pub(super) fn is_answer_to(&self, challenge: [u64; 2]) -> bool {
        let [high, low] = at::CHALLENGE.map(|index| self.load(index));
        self.load(at::MAGIC) == MAGIC && [high, low] == challenge
    }

    /// Address of the challenge in this process.
    pub(super) fn challenge_address(&self) -> u64 {
        let offset = at::CHALLENGE.first().copied().unwrap_or_default() * size_of::<u64>();
        self.0.range().start().saturating_add(u64::try_from(offset).unwrap_or_default())
    }

    /// Goes from [`state::FREE`] to `state`, if it is free.
    pub(super) fn settle(&self, state: u64) -> bool {
        self.0.word(at::STATE).is_some_and(|word| {
            word.compare_exchange(state::FREE, state, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        })
    }

    pub(super) fn state(&self) -> u64 {
        self.load(at::STATE)
    }

    /// Counts the changes of ranges.
    pub(super) fn epoch(&self) -> u64 {
        self.load(at::EPOCH)
    }

    pub(super) fn advance(&self) {
        if let Some(word) = self.0.word(at::EPOCH) {
            word.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How many places were ever used.
    pub(super) fn used(&self) -> usize {
        usize::try_from(self.load(at::USED)).unwrap_or(MAX_RANGES).min(MAX_RANGES)
    }

    pub(super) fn use_up_to(&self, place: usize) {
        if let Some(word) = self.0.word(at::USED) {
            word.fetch_max(u64::try_from(place.saturating_add(1)).unwrap_or_default(), Ordering::SeqCst);
        }
    }

    /// The words of a place; `None` beyond [`MAX_RANGES`].
    pub(super) fn entry(&self, place: usize) -> Option<Entry<'_>> {
        if place >= MAX_RANGES {
            return None;
        }
        let first = HEADER_WORDS + place * WORDS_PER_RANGE;
        Some(Entry {
            start: self.0.word(first)?,
            length_bytes: self.0.word(first + 1)?,
            word: self.0.word(first + 2)?,
        })
    }

    fn load(&self, index: usize) -> u64 {
        self.0.word(index).map_or(0, |word| word.load(Ordering::SeqCst))
    }

    fn store(&self, index: usize, value: u64) {
        if let Some(word) = self.0.word(index) {
            word.store(value, Ordering::SeqCst);
        }
    }
}
