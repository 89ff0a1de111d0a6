//! One profile's cells, measured in a process that runs on it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::Cell;
use crate::bare::{Pair, Shape};
use crate::device::Npu;
use crate::model_clock::ModelClock;

/// Of the pattern that a put has to carry over.
const PATTERN_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// The rates of one cell, 1e9 bytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Median over the rounds, in model time.
    pub model_gb_s: f64,
    /// Slowest round.
    pub low_gb_s: f64,
    /// Fastest round.
    pub high_gb_s: f64,
    /// Median on the machine's clock, with the slow-down taken off.
    pub machine_gb_s: f64,
}

/// Measures cells of this process's profile, telling each as it comes.
///
/// # Errors
/// If the process runs on something else than the profile, the vendor's calls fail, or bytes are wrong.
pub fn replay(
    cells: &[Cell],
    run_bytes: u64,
    rounds: usize,
    mut each: impl FnMut(&Cell, &Measured),
) -> Result<()> {
    let options = crate::software_npu::load_options();
    let (active, passive) = (Npu::open(&options, 0)?, Npu::open(&options, 1)?);
    let clock = ModelClock::find()?;
    ensure!(clock.profile() != "null", "this process has no cost profile: set CANN_SIM_PROFILE");
    for shape in [(false, false), (false, true), (true, false)] {
        let shape = Shape { is_far: shape.0, local_is_host: shape.1, ..Shape::default() };
        let of_shape: Vec<_> = cells
            .iter()
            .filter(|cell| (cell.is_far, cell.local_is_host) == (shape.is_far, shape.local_is_host))
            .collect();
        if of_shape.is_empty() {
            continue;
        }
        let pair = Pair::connect(&active, &passive, shape, run_bytes)?;
        check_bytes(&active, &pair, run_bytes)?;
        for cell in of_shape {
            ensure!(cell.profile == clock.profile(), "{} is measured on {}", cell.profile, clock.profile());
            each(cell, &measure(&clock, &pair, cell, run_bytes, rounds)?);
        }
        pair.end()?;
    }
    Ok(())
}

/// What is measured also carries the bytes.
fn check_bytes(active: &Arc<Npu>, pair: &Pair, run_bytes: u64) -> Result<()> {
    let pattern: Vec<u8> =
        (0..run_bytes).map(|at| (at.wrapping_mul(PATTERN_FACTOR) >> 56).to_le_bytes()[0]).collect();
    pair.upload(&pattern)?;
    active.bind()?;
    pair.put(&[(0, 0)], run_bytes)?;
    ensure!(pair.download()? == pattern, "the bytes that arrived are not those that were put");
    Ok(())
}

fn measure(clock: &ModelClock, pair: &Pair, cell: &Cell, run_bytes: u64, rounds: usize) -> Result<Measured> {
    let block = cell.block_bytes;
    let blocks: Vec<_> = (0..run_bytes / block).map(|index| (index * block, index * block)).collect();
    ensure!(!blocks.is_empty(), "a run of {run_bytes} bytes has no block of {block}");
    let (mut model, mut machine) = (Vec::new(), Vec::new());
    for _ in 0..rounds.max(1) {
        let start = || (clock.now(), Instant::now());
        let took = pair.timed(cell.way, &blocks, block, start, |(model, machine)| {
            (clock.now().saturating_sub(model), machine.elapsed())
        })?;
        model.push(rate(run_bytes, took.0.as_secs_f64()));
        machine.push(rate(run_bytes, took.1.as_secs_f64() / slowdown(clock)));
    }
    model.sort_by(f64::total_cmp);
    machine.sort_by(f64::total_cmp);
    let median = |sorted: &[f64]| sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
    Ok(Measured {
        model_gb_s: median(&model),
        low_gb_s: model.first().copied().unwrap_or(f64::NAN),
        high_gb_s: model.last().copied().unwrap_or(f64::NAN),
        machine_gb_s: median(&machine),
    })
}

fn slowdown(clock: &ModelClock) -> f64 {
    u32::try_from(clock.slowdown()).map_or(f64::NAN, f64::from)
}

fn rate(bytes: u64, seconds: f64) -> f64 {
    u32::try_from(bytes >> 10).map_or(f64::NAN, |kib| f64::from(kib) * 1024.0 / seconds / 1e9)
}
