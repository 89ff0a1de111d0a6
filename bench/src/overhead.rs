//! What the engine adds to the vendor's calls, for each request.
//!
//! Blocks of 64 bytes, so that moving them costs next to nothing, scattered so that none can be merged. Three
//! loops over the same blocks in one run: the engine (make a batch, submit, wait, free; a peer process on
//! another NPU), the bare `HcclBatchPut` with 256 descriptors a call, and a memory copy in the host. The
//! overhead is the difference of the medians of the first two, divided by the requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mooncake::config::Config;
use mooncake::engine::{Direction, Engine, EngineOptions, Note, Request};

use crate::allocations;
use crate::bare::{Pair, Shape};
use crate::device::{Memory, Npu};
use crate::exchange::{Carrier, Client};
use crate::placement::Placement;
use crate::session::processor_time;
use crate::software_npu;
use crate::statistics::Sample;

/// The size of a block.
pub const BLOCK_BYTES: u64 = 64;
/// From one block to the next.
const STRIDE_BYTES: u64 = 256;
/// Requests of a batch.
pub const BATCHES: [u64; 5] = [1, 16, 256, 1024, 4096];
/// Regions that the active side has registered: one, and as many as a model has tensors.
pub const REGIONS: [u64; 2] = [1, 56];
/// The buffer on each side; every region is an equal part of it.
pub const BUFFER_BYTES: u64 = 56 * (2 << 20);
const ROUNDS: usize = 1000;
const WARM_UP_ROUNDS: usize = 20;
const LIMIT: Duration = Duration::from_secs(30);

/// One line of the record.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Registered regions of the active side.
    pub regions: u64,
    /// Requests of a batch.
    pub batch: u64,
    /// The engine's whole round, for each request.
    pub engine_ns: f64,
    /// A tenth of the rounds was faster.
    pub engine_p10_ns: f64,
    /// A tenth of the rounds was slower.
    pub engine_p90_ns: f64,
    /// The part of it that the caller spends in submit.
    pub submit_ns: f64,
    /// The vendor's loop, for each request.
    pub bare_ns: f64,
    /// A tenth of the rounds was faster.
    pub bare_p10_ns: f64,
    /// A tenth of the rounds was slower.
    pub bare_p90_ns: f64,
    /// The memory copy, for each request.
    pub memcpy_ns: f64,
    /// Processor time of the engine's round, all threads, for each request.
    pub engine_cpu_ns: f64,
    /// Processor time of the vendor's loop, for each request.
    pub bare_cpu_ns: f64,
    /// Allocations of a round, all threads of the engine.
    pub allocations_per_batch: f64,
}

impl Line {
    /// What the engine adds to the vendor's loop, for each request.
    #[must_use]
    pub fn overhead_ns(&self) -> f64 {
        self.engine_ns - self.bare_ns
    }

    /// The names of the columns of [`Line::csv`].
    pub const COLUMNS: &'static str = "regions,batch,block_bytes,rounds,engine_ns,engine_p10_ns,engine_p90_ns,\
        submit_ns,bare_ns,bare_p10_ns,bare_p90_ns,memcpy_ns,overhead_ns,engine_cpu_ns,bare_cpu_ns,\
        allocations_per_batch";

    /// The line, nanoseconds for each request.
    #[must_use]
    pub fn csv(&self) -> String {
        let Self { regions, batch, engine_ns, engine_p10_ns, engine_p90_ns, submit_ns, bare_ns, .. } = *self;
        let Self { bare_p10_ns, bare_p90_ns, memcpy_ns, engine_cpu_ns, bare_cpu_ns, .. } = *self;
        let allocations_per_batch = self.allocations_per_batch;
        let overhead = self.overhead_ns();
        format!(
            "{regions},{batch},{BLOCK_BYTES},{ROUNDS},{engine_ns:.1},{engine_p10_ns:.1},{engine_p90_ns:.1},\
             {submit_ns:.1},{bare_ns:.1},{bare_p10_ns:.1},{bare_p90_ns:.1},{memcpy_ns:.1},{overhead:.1},\
             {engine_cpu_ns:.1},{bare_cpu_ns:.1},{allocations_per_batch:.1}"
        )
    }
}

/// Measures these batches against a target that `transfer_engine_bench` runs, on devices 1 (here) and 0.
///
/// # Errors
/// If a transfer or a call fails.
pub fn measure(target: &str, batches: &[u64], mut show: impl FnMut(&Line)) -> Result<Vec<Line>> {
    let options = software_npu::load_options();
    let npu = Npu::open(&options, 1)?;
    let other = Npu::open(&options, 0)?;
    npu.bind()?;
    let mut lines = Vec::new();
    for regions in REGIONS {
        // The vendor's library looks a block's region up among all that are bound, so the bare loop has as many.
        let shape = Shape { local_regions: regions, ..Shape::default() };
        let pair = Pair::connect(&npu, &other, shape, BUFFER_BYTES)?;
        let setting = Setting::new(&npu, target, regions)?;
        for batch in batches.iter().copied() {
            let blocks = blocks(batch, regions);
            let mut line = setting.engine(&blocks)?;
            let (bare, bare_cpu) = repeat(|| pair.put(&blocks, BLOCK_BYTES))?;
            line.bare_cpu_ns = per_request(bare_cpu, batch);
            line.bare_ns = per_request(bare.percentile(50), batch);
            line.bare_p10_ns = per_request(bare.percentile(10), batch);
            line.bare_p90_ns = per_request(bare.percentile(90), batch);
            line.memcpy_ns = per_request(memcpy(&blocks)?.percentile(50), batch);
            show(&line);
            lines.push(line);
        }
        setting.end()?;
        pair.end()?;
    }
    Ok(lines)
}

/// An engine with its buffer registered and the target opened.
struct Setting {
    engine: Arc<Engine>,
    memory: Memory,
    regions: u64,
    segment: i32,
    remote: u64,
}

impl Setting {
    fn new(npu: &Arc<Npu>, target: &str, regions: u64) -> Result<Self> {
        let memory = Memory::device(npu, BUFFER_BYTES)?;
        let engine = Engine::new(EngineOptions {
            metadata: "P2PHANDSHAKE".to_owned(),
            local_name: "127.0.0.1".to_owned(),
            device: Some(npu.id()),
            auto_discover: false,
            config: Config::from_env(),
        })?;
        engine.install_transport("ascend", None)?;
        let length = BUFFER_BYTES / regions;
        for region in 0..regions {
            engine.register(memory.address() + region * length, length, &memory.location())?;
        }
        let segment = engine.open_segment(target, true)?;
        let buffers = Client::new(engine.as_ref(), segment)?.buffers(LIMIT)?;
        let remote = buffers.first().context("the target has no buffer")?;
        ensure!(remote.length_bytes >= BUFFER_BYTES, "the target's buffer is too small");
        Ok(Self { engine, memory, regions, segment, remote: remote.address })
    }

    /// The engine's columns of a line.
    fn engine(&self, blocks: &[(u64, u64)]) -> Result<Line> {
        let batch = blocks.len() as u64;
        let request = |(local, remote): &(u64, u64)| Request {
            direction: Direction::Write,
            local: self.memory.address() + local,
            segment: self.segment,
            remote: self.remote + remote,
            length_bytes: BLOCK_BYTES,
        };
        let requests: Vec<_> = blocks.iter().map(request).collect();
        let mut submits = Vec::with_capacity(ROUNDS + WARM_UP_ROUNDS);
        let mut allocations_before = allocations::count();
        let mut round = 0;
        let (whole, cpu) = repeat(|| {
            if round == WARM_UP_ROUNDS {
                allocations_before = allocations::count();
            }
            round += 1;
            let start = Instant::now();
            let batch = self.engine.allocate_batch(requests.len())?;
            let before = Instant::now();
            self.engine.submit(batch, &requests, None, Some(LIMIT))?;
            submits.push(before.elapsed());
            self.engine.wait(batch, LIMIT)?;
            self.engine.free_batch(batch)?;
            Ok(start.elapsed())
        })?;
        let allocations = allocations::count() - allocations_before;
        let submits = Sample::new(submits.split_off(WARM_UP_ROUNDS));
        Ok(Line {
            regions: self.regions,
            batch,
            engine_ns: per_request(whole.percentile(50), batch),
            engine_p10_ns: per_request(whole.percentile(10), batch),
            engine_p90_ns: per_request(whole.percentile(90), batch),
            submit_ns: per_request(submits.percentile(50), batch),
            bare_ns: 0.0,
            bare_p10_ns: 0.0,
            bare_p90_ns: 0.0,
            memcpy_ns: 0.0,
            engine_cpu_ns: per_request(cpu, batch),
            bare_cpu_ns: 0.0,
            allocations_per_batch: f64::from(u32::try_from(allocations)?) / f64::from(u32::try_from(ROUNDS)?),
        })
    }

    fn end(&self) -> Result<()> {
        let length = BUFFER_BYTES / self.regions;
        for region in 0..self.regions {
            self.engine.unregister(self.memory.address() + region * length)?;
        }
        self.engine.close();
        Ok(())
    }
}

impl Carrier for Engine {
    fn own_name(&self) -> Result<String> {
        Ok(self.name().to_owned())
    }

    fn send(&self, segment: i32, name: &str, message: &str) -> Result<()> {
        let note = Note { name: name.to_owned(), message: message.to_owned() };
        Ok(self.send_note(segment, note)?)
    }

    fn take(&self) -> Result<Vec<(String, String)>> {
        Ok(self.take_notes().into_iter().map(|note| (note.name, note.message)).collect())
    }
}

/// The blocks of a batch: as scattered as the sweep's, and spread over the regions in turn.
fn blocks(batch: u64, regions: u64) -> Vec<(u64, u64)> {
    let placement = Placement {
        buffer: 0,
        block_bytes: BLOCK_BYTES,
        batch,
        stride_bytes: STRIDE_BYTES,
        start_bytes: 0,
        scattered: true,
    };
    let length = BUFFER_BYTES / regions;
    placement
        .blocks(0)
        .zip(0..)
        .map(|(block, index)| (index % regions * length + block.local % length, block.remote))
        .collect()
}

/// The durations of all rounds but the first ones, and the mean processor time of a round.
fn repeat(mut round: impl FnMut() -> Result<Duration>) -> Result<(Sample, Duration)> {
    for _ in 0..WARM_UP_ROUNDS {
        round()?;
    }
    let before = processor_time();
    let times = (0..ROUNDS).map(|_| round()).collect::<Result<Vec<_>>>()?;
    let processor = processor_time().saturating_sub(before);
    Ok((Sample::new(times), processor / u32::try_from(ROUNDS)?))
}

fn memcpy(blocks: &[(u64, u64)]) -> Result<Sample> {
    let source = vec![1_u8; usize::try_from(BUFFER_BYTES)?];
    let mut target = vec![2_u8; usize::try_from(BUFFER_BYTES)?];
    let range = |start: u64| -> Result<std::ops::Range<usize>> {
        Ok(usize::try_from(start)?..usize::try_from(start + BLOCK_BYTES)?)
    };
    let ranges = blocks
        .iter()
        .map(|(local, remote)| Ok((range(*local)?, range(*remote)?)))
        .collect::<Result<Vec<_>>>()?;
    let (sample, _) = repeat(|| {
        let start = Instant::now();
        for (local, remote) in &ranges {
            let (Some(from), Some(to)) = (source.get(local.clone()), target.get_mut(remote.clone())) else {
                anyhow::bail!("a block lies outside of the buffer");
            };
            to.copy_from_slice(from);
        }
        std::hint::black_box(&mut target);
        Ok(start.elapsed())
    })?;
    Ok(sample)
}

fn per_request(time: Duration, requests: u64) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(u32::try_from(requests).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn blocks_do_not_overlap_and_stay_in_their_region() {
        for regions in REGIONS {
            let length = BUFFER_BYTES / regions;
            let blocks = blocks(4096, regions);
            let local: BTreeSet<_> = blocks.iter().map(|(local, _)| *local).collect();
            assert_eq!(local.len(), 4096);
            assert!(blocks.iter().all(|(local, remote)| {
                local / length == (local + BLOCK_BYTES - 1) / length && remote + BLOCK_BYTES <= BUFFER_BYTES
            }));
            let used: BTreeSet<_> = local.iter().map(|local| local / length).collect();
            assert_eq!(used.len() as u64, regions);
        }
    }
}
