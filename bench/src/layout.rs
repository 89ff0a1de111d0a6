//! Real layouts: the KV cache of a model, read as a decode node reads it.
//!
//! A request of 4,096 tokens is 32 blocks of each tensor, scattered over the pool and other ones on each side, in one
//! batch. Each tensor is registered on its own, as a framework does.

use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::ProgressBar;

use crate::arena::{Gap, Run, Verdict};
use crate::library::{Operation, Request};
use crate::report::{self, LayoutReport};
use crate::session::{Session, processor_time};
use crate::statistics::{Sample, gigabytes};

/// Timed rounds of the suite.
pub const ROUNDS: u64 = 10;

/// The KV cache of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The model's name.
    pub name: &'static str,
    /// Tensors that are paged.
    pub tensors: u64,
    /// 128 tokens of one tensor.
    pub block_bytes: u64,
    /// Blocks that a tensor of this pool has.
    pub pool_blocks: u64,
    /// Tokens of a request.
    pub tokens: u64,
}

/// 28 layers, a K and a V tensor each, of 4 heads of 128 numbers of 2 bytes a token.
pub const QWEN: Layout =
    Layout { name: "Qwen2.5-7B", tensors: 28 * 2, block_bytes: 131_072, pool_blocks: 64, tokens: 4_096 };

/// 61 layers, one tensor each, of 576 numbers of 2 bytes a token: what multi-head latent attention keeps.
pub const DEEPSEEK: Layout =
    Layout { name: "DeepSeek-V3", tensors: 61, block_bytes: 147_456, pool_blocks: 40, tokens: 4_096 };

impl Layout {
    /// The lengths of the tensors.
    pub fn buffers(&self) -> impl Iterator<Item = u64> + use<> {
        let Self { tensors, block_bytes, pool_blocks, .. } = *self;
        (0..tensors).map(move |_| pool_blocks * block_bytes)
    }

    /// Blocks of each tensor that a request needs.
    #[must_use]
    pub fn request_blocks(&self) -> u64 {
        self.tokens / 128
    }

    /// Blocks of a request.
    #[must_use]
    pub fn batch(&self) -> u64 {
        self.tensors * self.request_blocks()
    }

    /// The blocks that a request has got in this round: the local and the remote number of each.
    ///
    /// Steps without a common divisor with the pool's size visit each block once; they differ between the
    /// sides, so that no two blocks are neighbours on both.
    pub fn block_table(&self, round: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let pool_blocks = self.pool_blocks;
        (0..self.request_blocks()).map(move |index| {
            let local = (index * 37 + 11 * round + 5) % pool_blocks;
            let remote = (index * 23 + 7 * round + 50) % pool_blocks;
            (local, remote)
        })
    }
}

/// Reads a request's blocks, some rounds, and verifies each round. The tensors are the buffers from `first` on.
///
/// # Errors
/// If a transfer fails.
pub fn run(
    session: &mut Session<'_>,
    layout: &Layout,
    first: usize,
    rounds: u64,
    bar: &ProgressBar,
    verdict: &mut Verdict,
) -> Result<LayoutReport> {
    bar.set_message(format!("{}: {} tokens", layout.name, layout.tokens));
    let side = session.side();
    let mut own = Verdict::default();
    let (mut times, mut cpu) = (Vec::new(), Duration::ZERO);
    // Round 0 warms up: it is verified but not timed.
    for round in 0..=rounds {
        let mut requests = requests(session, layout, first, round)?;
        let cpu_before = processor_time();
        let time = side.engine.run(&mut requests, side.limit)?;
        if round > 0 {
            times.push(time);
            cpu += processor_time().saturating_sub(cpu_before);
        }
        own.add(verify(session, layout, first, round)?);
        bar.inc(1);
    }
    let sample = Sample::new(times);
    let batch = layout.batch();
    let rate = sample.rate(batch * layout.block_bytes);
    let cpu_per_gigabyte = cpu.as_secs_f64() / gigabytes(batch * layout.block_bytes * rounds);
    let cell = report::cell(Operation::Read, layout.block_bytes, batch, rate, cpu_per_gigabyte, &own);
    verdict.add(own);
    Ok(LayoutReport {
        name: layout.name.to_owned(),
        tensors: layout.tensors,
        blocks_per_tensor: layout.request_blocks(),
        tokens: layout.tokens,
        cell,
    })
}

/// The numbers of the buffers.
fn numbers(layout: &Layout, first: usize) -> Result<std::ops::Range<usize>> {
    Ok(first..first + usize::try_from(layout.tensors)?)
}

fn requests(session: &Session<'_>, layout: &Layout, first: usize, round: u64) -> Result<Vec<Request>> {
    let bytes = layout.block_bytes;
    let mut requests = Vec::new();
    for number in numbers(layout, first)? {
        let blocks = layout.block_table(round).map(|(local, remote)| (local * bytes, remote * bytes));
        requests.extend(session.requests_at(Operation::Read, number, bytes, blocks)?);
    }
    Ok(requests)
}

fn verify(session: &Session<'_>, layout: &Layout, first: usize, round: u64) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    for number in numbers(layout, first)? {
        let arena = session.side().arenas.get(number).context("there is no such buffer")?;
        let remote = session.remote(number).context("the target has no tensors: start it with --suite")?;
        let runs = layout.block_table(round).map(|(local, peer)| Run {
            at: local * layout.block_bytes,
            length_bytes: layout.block_bytes,
            seed: remote.seed,
            from: peer * layout.block_bytes,
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
        for layout in [QWEN, DEEPSEEK] {
            for round in 0..=ROUNDS {
                let table: Vec<_> = layout.block_table(round).collect();
                let local: BTreeSet<_> = table.iter().map(|(local, _)| *local).collect();
                let remote: BTreeSet<_> = table.iter().map(|(_, remote)| *remote).collect();
                assert_eq!((local.len(), remote.len()), (32, 32));
                let apart = |pair: &[(u64, u64)]| pair[1].0 != pair[0].0 + 1 || pair[1].1 != pair[0].1 + 1;
                assert!(table.windows(2).all(apart));
            }
        }
    }

    #[test]
    fn a_request_is_as_large_as_the_model_says() {
        assert_eq!(QWEN.batch() * QWEN.block_bytes, 234_881_024);
        // 4096 tokens of 61 layers of 576 numbers of 2 bytes.
        assert_eq!(DEEPSEEK.batch() * DEEPSEEK.block_bytes, 4096 * 61 * 576 * 2);
    }
}
