//! What of a profile is measured: block sizes, how many bytes a batch of each moves, and the layouts.

use anyhow::{Result, ensure};

use crate::arguments::Arguments;
use crate::layout::{DEEPSEEK, Layout, QWEN};
use crate::placement::Placement;

/// Block sizes: those of the vendor's published sweep.
const BLOCKS_BYTES: [u64; 8] =
    [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20];
/// What a batch moves: more where the link is faster, so that each takes milliseconds of model time.
const BATCH_BYTES: [u64; 2] = [32 << 20, 64 << 20];
/// From this block size on it is the larger one.
const LONG_BLOCK_BYTES: u64 = 256 << 10;
/// A batch as users have it: vLLM-Ascend pulls all blocks of a request in one call, and 4,096 tokens of Qwen2.5-7B are
/// 1,792 blocks of 128 KiB. Smaller blocks of as many bytes are what a layout with fewer heads on an NPU has.
const REQUEST_BYTES: u64 = 224 << 20;
/// Timed rounds of a cell and of a layout.
pub const ROUNDS: u32 = 2;
/// Timed rounds of a long batch, which has its own mean inside.
const LONG_ROUNDS: u32 = 1;

/// The layouts, in the order of their buffers behind the sweep's.
static LAYOUTS: [Layout; 2] = [QWEN, DEEPSEEK];

/// Blocks of one size in batches of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Length of a block.
    pub block_bytes: u64,
    /// What a batch moves.
    pub batch_bytes: u64,
    /// Timed rounds.
    pub rounds: u32,
}

/// Whether a batch of so many bytes is a long one.
#[must_use]
pub const fn is_long(batch_bytes: u64) -> bool {
    batch_bytes > BATCH_BYTES[1]
}

impl Cell {
    /// Where the blocks lie: a gap as long as a block behind each block.
    #[must_use]
    pub fn placement(&self) -> Placement {
        Placement {
            buffer: 0,
            block_bytes: self.block_bytes,
            batch: self.batch_bytes / self.block_bytes.max(1),
            stride_bytes: 2 * self.block_bytes,
            start_bytes: 0,
            scattered: true,
        }
    }
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Each in both directions.
    pub cells: Vec<Cell>,
    /// Each read.
    pub layouts: &'static [Layout],
}

impl Scope {
    /// What the flags ask for.
    #[must_use]
    pub fn of(arguments: &Arguments) -> Self {
        let short = |block_bytes| {
            let [short, long] = BATCH_BYTES;
            if block_bytes < LONG_BLOCK_BYTES { short } else { long }
        };
        let cell = |block_bytes| {
            let batch_bytes = arguments.batch_bytes.unwrap_or_else(|| short(block_bytes));
            let rounds = if is_long(batch_bytes) { LONG_ROUNDS } else { ROUNDS };
            Cell { block_bytes, batch_bytes, rounds }
        };
        if let Some(block_bytes) = arguments.block_size {
            return Self { cells: vec![cell(block_bytes)], layouts: &[] };
        }
        let mut cells: Vec<Cell> = BLOCKS_BYTES.into_iter().map(cell).collect();
        if arguments.batch_bytes.is_none() && !arguments.short {
            let small = BLOCKS_BYTES.into_iter().filter(|block_bytes| *block_bytes < LONG_BLOCK_BYTES);
            cells.extend(small.map(|block_bytes| Cell {
                block_bytes,
                batch_bytes: REQUEST_BYTES,
                rounds: LONG_ROUNDS,
            }));
        }
        Self { cells, layouts: &LAYOUTS }
    }

    /// That batches are whole blocks.
    ///
    /// # Errors
    /// If the flags do not fit together.
    pub fn check(&self) -> Result<()> {
        for cell in &self.cells {
            ensure!(
                cell.block_bytes > 0
                    && cell.batch_bytes >= cell.block_bytes
                    && cell.batch_bytes.is_multiple_of(cell.block_bytes)
                    && cell.batch_bytes <= 1 << 30,
                "a batch of {} bytes is no number of blocks of {} bytes, or more than 1 GiB",
                cell.batch_bytes,
                cell.block_bytes
            );
        }
        Ok(())
    }

    /// Bytes of the buffer of the cells: two batches, where those are short.
    #[must_use]
    pub fn buffer_bytes(&self) -> u64 {
        let least = BATCH_BYTES.into_iter().max().unwrap_or(0).saturating_mul(2);
        let needed = |cell: &Cell| cell.batch_bytes.saturating_mul(2);
        self.cells.iter().map(needed).max().unwrap_or(0).max(least)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn scope(line: &[&str]) -> Scope {
        Scope::of(&Arguments::parse_from(std::iter::once(&"bench").chain(line)))
    }

    #[test]
    fn small_blocks_are_measured_in_short_and_in_long_batches() {
        let all = scope(&[]);
        assert_eq!((all.cells.len(), all.layouts.len()), (12, 2));
        let long: Vec<_> = all.cells.iter().filter(|cell| is_long(cell.batch_bytes)).collect();
        assert_eq!(long.len(), 4);
        // As many bytes as the request of the first layout.
        assert!(long.iter().all(|cell| cell.batch_bytes == QWEN.batch() * QWEN.block_bytes));
        assert_eq!(all.buffer_bytes(), 448 << 20);
        all.check().unwrap();
        for cell in &all.cells {
            let placement = cell.placement();
            assert_eq!(placement.batch_bytes(), cell.batch_bytes);
            assert!(placement.slots_in(all.buffer_bytes()) >= 1);
        }
    }

    #[test]
    fn flags_choose_one_of_them() {
        let one = scope(&["--block_size", "65536"]);
        assert_eq!(one.cells, [Cell { block_bytes: 65536, batch_bytes: 32 << 20, rounds: ROUNDS }]);
        assert!(one.layouts.is_empty());
        let long = scope(&["--block_size", "65536", "--batch_bytes", "134217728"]);
        assert_eq!(long.cells, [Cell { block_bytes: 65536, batch_bytes: 128 << 20, rounds: LONG_ROUNDS }]);
        assert_eq!(long.buffer_bytes(), 256 << 20);
        assert!(scope(&["--block_size", "65536", "--batch_bytes", "65537"]).check().is_err());
        assert!(scope(&["--block_size", "0"]).check().is_err());
    }
}
