//! The sweep: block sizes from 4 KiB to 4 MiB, batches of 1, 16 and 128, read and write.

use std::time::Duration;

use anyhow::Result;
use indicatif::ProgressBar;

use crate::arena::Verdict;
use crate::library::Operation;
use crate::placement::Placement;
use crate::report::{self, Cell};
use crate::session::{Effort, Session};

/// Block sizes.
pub const BLOCKS_BYTES: [u64; 6] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];
/// Batch sizes.
pub const BATCHES: [u64; 3] = [1, 16, 128];
/// The buffer: the largest batch, with a gap as long as a block behind each block.
pub const BUFFER_BYTES: u64 = 2 * 128 * (4 << 20);
/// How many cells there are.
pub const CELLS: u64 = 36;

const EFFORT: Effort =
    Effort { min_rounds: 5, max_rounds: 64, time: Duration::from_millis(100), warms_up: true };

/// Runs the sweep in buffer 0; hands each cell to `show`.
///
/// # Errors
/// If a transfer fails.
pub fn run(
    session: &mut Session<'_>,
    bar: &ProgressBar,
    verdict: &mut Verdict,
    mut show: impl FnMut(&Cell),
) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for operation in [Operation::Read, Operation::Write] {
        for block_bytes in BLOCKS_BYTES {
            for batch in BATCHES {
                bar.set_message(format!("{} {} x {batch}", operation.name(), report::size(block_bytes)));
                let placement = Placement {
                    buffer: 0,
                    block_bytes,
                    batch,
                    stride_bytes: 2 * block_bytes,
                    start_bytes: 0,
                    scattered: true,
                };
                let measured = session.measure(operation, &placement, EFFORT)?;
                let rate = measured.sample.rate(placement.batch_bytes());
                let cpu = measured.cpu_seconds_per_gigabyte;
                let cell = report::cell(operation, block_bytes, batch, rate, cpu, &measured.verdict);
                verdict.add(measured.verdict);
                show(&cell);
                cells.push(cell);
                bar.inc(1);
            }
        }
    }
    Ok(cells)
}
