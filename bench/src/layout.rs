//! The real layout: the KV cache of Qwen2.5-7B, read as a decode node reads it.
//!
//! 28 layers, a K and a V tensor each. A block of a tensor is 128 tokens of 4 heads of 128 numbers of 2 bytes:
//! 131,072 bytes. A request of 4,096 tokens is 32 blocks of each tensor, scattered over the pool and other
//! ones on each side: 1,792 blocks in one batch. Each tensor is registered on its own, as a framework does.

use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::ProgressBar;

use crate::arena::{Gap, Run, Verdict};
use crate::library::{Operation, Request};
use crate::report::{self, LayoutReport};
use crate::session::{Session, processor_time};
use crate::statistics::{Sample, gigabytes};

/// Its name.
pub const NAME: &str = "Qwen2.5-7B";
/// Layers times K and V.
pub const TENSORS: u64 = 28 * 2;
/// 128 tokens of one tensor.
pub const BLOCK_BYTES: u64 = 131_072;
/// Blocks that a tensor of this pool has.
pub const POOL_BLOCKS: u64 = 64;
/// Tokens of a request.
pub const TOKENS: u64 = 4_096;
/// Blocks of each tensor that a request needs.
pub const REQUEST_BLOCKS: u64 = TOKENS / 128;
/// Timed rounds.
pub const ROUNDS: u64 = 10;

/// The tensors come behind the sweep's buffer.
const FIRST_BUFFER: usize = 1;

/// The lengths of the tensors.
pub fn buffers() -> impl Iterator<Item = u64> {
    (0..TENSORS).map(|_| POOL_BLOCKS * BLOCK_BYTES)
}

/// The blocks that a request has got in this round: the local and the remote number of each.
///
/// Steps without a common divisor with the pool's size visit each block once; they differ between the
/// sides, so that no two blocks are neighbours on both.
fn block_table(round: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..REQUEST_BLOCKS).map(move |index| {
        let local = (index * 37 + 11 * round + 5) % POOL_BLOCKS;
        let remote = (index * 23 + 7 * round + 50) % POOL_BLOCKS;
        (local, remote)
    })
}

/// Reads a request's blocks, some rounds, and verifies each round.
///
/// # Errors
/// If a transfer fails.
pub fn run(session: &mut Session<'_>, bar: &ProgressBar, verdict: &mut Verdict) -> Result<LayoutReport> {
    bar.set_message(format!("{NAME}: {TOKENS} tokens"));
    let side = session.side();
    let mut own = Verdict::default();
    let (mut times, mut cpu) = (Vec::new(), Duration::ZERO);
    // Round 0 warms up: it is verified but not timed.
    for round in 0..=ROUNDS {
        let mut requests = requests(session, round)?;
        let cpu_before = processor_time();
        let time = side.engine.run(&mut requests, side.limit)?;
        if round > 0 {
            times.push(time);
            cpu += processor_time().saturating_sub(cpu_before);
        }
        own.add(verify(session, round)?);
        bar.inc(1);
    }
    let sample = Sample::new(times);
    let batch = TENSORS * REQUEST_BLOCKS;
    let rate = sample.rate(batch * BLOCK_BYTES);
    let cpu_per_gigabyte = cpu.as_secs_f64() / gigabytes(batch * BLOCK_BYTES * ROUNDS);
    let cell = report::cell(Operation::Read, BLOCK_BYTES, batch, rate, cpu_per_gigabyte, &own);
    verdict.add(own);
    Ok(LayoutReport {
        name: NAME.to_owned(),
        tensors: TENSORS,
        blocks_per_tensor: REQUEST_BLOCKS,
        tokens: TOKENS,
        cell,
    })
}

fn requests(session: &Session<'_>, round: u64) -> Result<Vec<Request>> {
    let mut requests = Vec::new();
    for number in FIRST_BUFFER..session.side().arenas.len() {
        let blocks = block_table(round).map(|(local, remote)| (local * BLOCK_BYTES, remote * BLOCK_BYTES));
        requests.extend(session.requests_at(Operation::Read, number, BLOCK_BYTES, blocks)?);
    }
    Ok(requests)
}

fn verify(session: &Session<'_>, round: u64) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    for (number, arena) in session.side().arenas.iter().enumerate().skip(FIRST_BUFFER) {
        let remote = session.remote(number).context("the target has no tensors: start it with --suite")?;
        let runs = block_table(round).map(|(local, peer)| Run {
            at: local * BLOCK_BYTES,
            length_bytes: BLOCK_BYTES,
            seed: remote.seed,
            from: peer * BLOCK_BYTES,
        });
        verdict.add(arena.check_and_restore(0..arena.length_bytes(), runs.collect(), Gap::Own)?);
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_request_has_32_different_blocks_on_each_side_and_no_neighbours() {
        for round in 0..=ROUNDS {
            let table: Vec<_> = block_table(round).collect();
            let local: BTreeSet<_> = table.iter().map(|(local, _)| *local).collect();
            let remote: BTreeSet<_> = table.iter().map(|(_, remote)| *remote).collect();
            assert_eq!((local.len(), remote.len()), (32, 32));
            assert!(table.windows(2).all(|pair| pair[1].0 != pair[0].0 + 1 || pair[1].1 != pair[0].1 + 1));
        }
    }

    #[test]
    fn a_request_is_as_large_as_the_model_says() {
        assert_eq!(TENSORS * REQUEST_BLOCKS * BLOCK_BYTES, 234_881_024);
    }
}
