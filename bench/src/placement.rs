//! Where the blocks of a batch lie on both sides, computed alike by both processes from a few numbers.

use serde::{Deserialize, Serialize};

/// One block: its distance from the start of the local and of the remote buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// In the local buffer.
    pub local: u64,
    /// In the remote buffer.
    pub remote: u64,
}

/// Blocks of one size at a fixed distance, a batch after the other.
///
/// The place of one batch is a slot; slots follow each other. With `scattered`, the order of the blocks of a
/// slot differs between the two sides, so that no two requests are neighbours on both: nothing can be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Which buffer, by its number on either side.
    pub buffer: usize,
    /// The size of a block.
    pub block_bytes: u64,
    /// How many blocks a batch has.
    pub batch: u64,
    /// From the start of a block to that of the next one.
    pub stride_bytes: u64,
    /// From the start of the buffer to the first block.
    pub start_bytes: u64,
    /// Whether the local order differs from the remote one.
    pub scattered: bool,
}

impl Placement {
    /// The size of a slot.
    #[must_use]
    pub fn slot_bytes(&self) -> u64 {
        self.stride_bytes.saturating_mul(self.batch)
    }

    /// What a batch moves.
    #[must_use]
    pub fn batch_bytes(&self) -> u64 {
        self.block_bytes.saturating_mul(self.batch)
    }

    /// How many slots fit into a buffer of this size.
    #[must_use]
    pub fn slots_in(&self, buffer_bytes: u64) -> u64 {
        buffer_bytes.saturating_sub(self.start_bytes).checked_div(self.slot_bytes()).unwrap_or(0)
    }

    /// The blocks of a slot, in the order of the remote side.
    pub fn blocks(&self, slot: u64) -> impl Iterator<Item = Block> + use<> {
        let Self { batch, stride_bytes, .. } = *self;
        let base = self.start_bytes + slot * self.slot_bytes();
        let step = if self.scattered { coprime_step(batch) } else { 1 };
        (0..batch).map(move |index| {
            let local = if step == 1 { index } else { (index * step + batch / 2) % batch };
            Block { local: base + local * stride_bytes, remote: base + index * stride_bytes }
        })
    }

    /// The bytes from the first to behind the last of these slots.
    #[must_use]
    pub fn window(&self, slots: std::ops::Range<u64>) -> std::ops::Range<u64> {
        let base = self.start_bytes;
        base + slots.start * self.slot_bytes()..base + slots.end * self.slot_bytes()
    }
}

/// A step that visits every number below `count` once and never goes to a neighbour: the golden section of
/// `count`, raised until it has no common divisor with it.
fn coprime_step(count: u64) -> u64 {
    let golden = count * 618 / 1000;
    (golden.max(2)..count).find(|step| greatest_common_divisor(*step, count) == 1).unwrap_or(1)
}

fn greatest_common_divisor(left: u64, right: u64) -> u64 {
    if right == 0 { left } else { greatest_common_divisor(right, left % right) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn placement(batch: u64) -> Placement {
        Placement { buffer: 0, block_bytes: 100, batch, stride_bytes: 256, start_bytes: 64, scattered: true }
    }

    #[test]
    fn every_block_of_a_slot_is_used_once_on_both_sides() {
        for batch in 1..200 {
            let blocks: Vec<_> = placement(batch).blocks(3).collect();
            let window = placement(batch).window(3..4);
            let local: BTreeSet<_> = blocks.iter().map(|block| block.local).collect();
            let remote: BTreeSet<_> = blocks.iter().map(|block| block.remote).collect();
            assert_eq!(local.len() as u64, batch);
            assert_eq!(local, remote);
            assert_eq!(local.first(), Some(&window.start));
            assert!(local.last().unwrap() + 256 <= window.end);
        }
    }

    #[test]
    fn scattered_blocks_have_other_neighbours_on_each_side() {
        for batch in [16, 128, 130] {
            let blocks: Vec<_> = placement(batch).blocks(0).collect();
            for pair in blocks.windows(2) {
                assert_ne!(pair[1].local, pair[0].local + 256, "batch {batch}");
            }
        }
    }

    #[test]
    fn slots_are_counted_in_what_remains_behind_the_start() {
        assert_eq!(placement(4).slots_in(64 + 3 * 1024 + 1023), 3);
        assert_eq!(placement(4).slots_in(10), 0);
    }
}
