//! The handle of a batch: a number that is never valid twice.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bits that say where in the table the batch stands.
pub(super) const INDEX_BITS: u32 = 20;
const GENERATION_BITS: u32 = 32;
const TAGS: u32 = (1 << 11) - 1;

/// Handle of a batch, in `[1, 2^63)`: clients keep it in signed integers and take 0 for a failure.
///
/// From the lowest bit: place in the table (20 bits), how often the place was used (32), and the table it
/// belongs to (11, never 0). So a freed id, and an id of another engine of the process, is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(u64);

impl BatchId {
    /// From a number that a caller gave; any number is accepted here and judged by the table.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The number that the caller gets.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    pub(super) fn compose(tag: u32, generation: u32, index: u32) -> Self {
        Self(
            (u64::from(tag) << (INDEX_BITS + GENERATION_BITS))
                | (u64::from(generation) << INDEX_BITS)
                | u64::from(index),
        )
    }

    pub(super) const fn index(self) -> u32 {
        low(self.0, INDEX_BITS)
    }

    pub(super) const fn generation(self) -> u32 {
        low(self.0 >> INDEX_BITS, GENERATION_BITS)
    }

    pub(super) const fn tag(self) -> u32 {
        low(self.0 >> (INDEX_BITS + GENERATION_BITS), 12) // one bit more than a tag has: a set top bit is foreign
    }
}

const fn low(value: u64, bits: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "masked to at most 32 bits")]
    {
        (value & ((1 << bits) - 1)) as u32
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The mark of the next table of this process; repeats after 2047 tables.
pub(super) fn next_tag() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed) % TAGS + 1
}
