//! The active side: an open target, requests against its buffers, timing, and verification.
//!
//! A target of this program knows the contents of its memory and verifies writes where they arrive. Any other
//! one, upstream's for example, is known by its descriptor alone: what is read from it was written to it before,
//! and what is written is read back, over local memory that was filled with something else meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::arena::{Gap, Run, Verdict};
use crate::console::tell;
use crate::exchange::{Client, RemoteBuffer};
use crate::library::{Engine, Operation, Request};
use crate::placement::Placement;
use crate::side::Side;
use crate::statistics::{Sample, gigabytes};

/// How long a target may take to say where its buffers are.
const BUFFERS_LIMIT: Duration = Duration::from_secs(3);

/// How often a cell is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// At least so many rounds.
    pub min_rounds: usize,
    /// At most so many.
    pub max_rounds: usize,
    /// Between them, until so much time went by in transfers.
    pub time: Duration,
    /// Whether a round that is not timed goes before them.
    pub warms_up: bool,
}

/// What a cell gave.
pub struct Measurement {
    /// The duration of each round.
    pub sample: Sample,
    /// Processor seconds of this process for 1e9 bytes, while transfers ran.
    pub cpu_seconds_per_gigabyte: f64,
    /// What was compared.
    pub verdict: Verdict,
}

/// An open target.
pub struct Session<'side> {
    side: &'side Side<'side>,
    /// None when the target is not one of this program.
    client: Option<Client<'side, Engine<'side>>>,
    segment: i32,
    remote: Vec<RemoteBuffer>,
}

impl<'side> Session<'side> {
    /// Opens the target and asks it for its buffers; if it does not answer, looks into its descriptor.
    ///
    /// # Errors
    /// If it is not there.
    pub fn open(side: &'side Side<'side>, metadata: &str, name: &str) -> Result<Self> {
        ensure!(!name.is_empty(), "--segment_id is missing: the HOST:PORT that the target printed");
        let segment = side.engine.open(name)?;
        let mut client = Client::new(&side.engine, segment)?;
        match client.buffers(BUFFERS_LIMIT) {
            Ok(remote) => Ok(Self { side, client: Some(client), segment, remote }),
            Err(error) => {
                tell(format!("{error:#}; its bytes are verified by reading back what is written"));
                Ok(Self { side, client: None, segment, remote: published(metadata, name)? })
            }
        }
    }

    /// This side.
    #[must_use]
    pub fn side(&self) -> &'side Side<'side> {
        self.side
    }

    /// The target's buffer of this number.
    ///
    /// # Errors
    /// If the target was started with other flags.
    pub fn remote(&self, buffer: usize) -> Result<RemoteBuffer> {
        let remote = self.remote.get(buffer).copied();
        remote.context("the target has fewer buffers: start both sides with the same flags")
    }

    /// The requests of one slot.
    ///
    /// # Errors
    /// If the slot does not fit both sides' buffers.
    pub fn requests(&self, operation: Operation, placement: &Placement, slot: u64) -> Result<Vec<Request>> {
        let blocks = placement.blocks(slot).map(|block| (block.local, block.remote));
        self.requests_at(operation, placement.buffer, placement.block_bytes, blocks)
    }

    /// Requests for blocks of one size, by their distances from the start of the local and the remote buffer.
    ///
    /// # Errors
    /// If one does not fit both sides' buffers.
    pub fn requests_at(
        &self,
        operation: Operation,
        buffer: usize,
        block_bytes: u64,
        blocks: impl Iterator<Item = (u64, u64)>,
    ) -> Result<Vec<Request>> {
        let own = self.side.arenas.get(buffer).context("there is no such buffer")?;
        let peer = self.remote(buffer)?;
        let request = |(local, remote): (u64, u64)| {
            let fits = local + block_bytes <= own.length_bytes() && remote + block_bytes <= peer.length_bytes;
            ensure!(fits, "the buffers are too small: start both sides with the same flags");
            let (local, remote) = (own.address() + local, peer.address + remote);
            Ok(Request::new(operation, local, self.segment, remote, block_bytes))
        };
        blocks.map(request).collect()
    }

    /// Prepares the first `slots` slots for rounds: nothing to do for a target of this program. Another one
    /// is given the contents that are to be read, and the place they are to arrive at is poisoned.
    ///
    /// # Errors
    /// If the target cannot be written, or the local memory.
    pub fn prepare(&self, operation: Operation, placement: &Placement, slots: u64) -> Result<()> {
        if self.client.is_some() || operation == Operation::Write {
            return Ok(());
        }
        for slot in 0..slots {
            let mut requests = self.requests(Operation::Write, placement, slot)?;
            self.side.engine.run(&mut requests, self.side.limit)?;
        }
        let local = self.side.arenas.get(placement.buffer).context("there is no such buffer")?;
        local.poison(placement.window(0..slots))
    }

    /// Compares what the first `slots` slots should have brought, where it arrived, and restores it.
    ///
    /// # Errors
    /// If a side's memory cannot be read.
    pub fn verify(&mut self, operation: Operation, placement: &Placement, slots: u64) -> Result<Verdict> {
        let local = self.side.arenas.get(placement.buffer).context("there is no such buffer")?;
        let window = placement.window(0..slots);
        let (seed, gap) = match (&mut self.client, operation) {
            (Some(client), Operation::Write) => return client.verify(*placement, slots, local.seed()),
            (Some(_), Operation::Read) => (self.remote(placement.buffer)?.seed, Gap::Own),
            (None, Operation::Read) => (local.seed(), Gap::Poison),
            (None, Operation::Write) => {
                local.poison(window.clone())?;
                for slot in 0..slots {
                    let mut requests = self.requests(Operation::Read, placement, slot)?;
                    self.side.engine.run(&mut requests, self.side.limit)?;
                }
                (local.seed(), Gap::Poison)
            }
        };
        let known = self.client.is_some();
        let blocks = (0..slots).flat_map(|slot| placement.blocks(slot));
        let runs = blocks.map(|block| Run {
            at: block.local,
            length_bytes: placement.block_bytes,
            seed,
            // What another target holds came from the local place that it goes back to.
            from: if known { block.remote } else { block.local },
        });
        local.check_and_restore(window, runs.collect(), gap)
    }

    /// Gives the local part of slots that were prepared but not used its contents again.
    fn restore(&self, placement: &Placement, slots: std::ops::Range<u64>) -> Result<()> {
        if self.client.is_some() || slots.is_empty() {
            return Ok(());
        }
        let local = self.side.arenas.get(placement.buffer).context("there is no such buffer")?;
        local.restore(placement.window(slots))
    }

    /// Runs rounds of one batch each, every round in a slot of its own, and verifies each slot before it is
    /// used again. The round that warms up is verified but not timed.
    ///
    /// # Errors
    /// If a transfer fails.
    pub fn measure(
        &mut self,
        operation: Operation,
        placement: &Placement,
        effort: Effort,
    ) -> Result<Measurement> {
        let local = self.side.arenas.get(placement.buffer).context("there is no such buffer")?;
        let room = placement.slots_in(local.length_bytes());
        ensure!(room > 0, "a batch does not fit the buffer");
        let slots = room.min(effort.max_rounds as u64);
        let mut batches = Vec::new();
        for slot in 0..slots {
            batches.push(self.requests(operation, placement, slot)?);
        }
        let engine = &self.side.engine;
        self.prepare(operation, placement, 1)?;
        let mut verdict = Verdict::default();
        if let Some(first) = batches.first_mut().filter(|_| effort.warms_up) {
            engine.run(first, self.side.limit)?;
            verdict = self.verify(operation, placement, 1)?;
        }
        let (mut times, mut total, mut cpu) = (Vec::new(), Duration::ZERO, Duration::ZERO);
        while times.len() < effort.min_rounds || (times.len() < effort.max_rounds && total < effort.time) {
            self.prepare(operation, placement, slots)?;
            let mut used = 0;
            for batch in &mut batches {
                let cpu_before = processor_time();
                let time = engine.run(batch, self.side.limit)?;
                cpu += processor_time().saturating_sub(cpu_before);
                times.push(time);
                total += time;
                used += 1;
                let enough = times.len() >= effort.min_rounds && total >= effort.time;
                if times.len() >= effort.max_rounds || enough {
                    break;
                }
            }
            verdict.add(self.verify(operation, placement, used)?);
            self.restore(placement, used..slots)?;
        }
        let moved = gigabytes(placement.batch_bytes()) * f64::from(u32::try_from(times.len())?);
        Ok(Measurement {
            sample: Sample::new(times),
            cpu_seconds_per_gigabyte: if moved > 0.0 { cpu.as_secs_f64() / moved } else { 0.0 },
            verdict,
        })
    }
}

/// The buffers that a target publishes.
fn published(metadata: &str, name: &str) -> Result<Vec<RemoteBuffer>> {
    let config = mooncake::config::Config::from_env();
    let metadata = mooncake::metadata::connect(metadata, &config)?;
    let deadline = mooncake::deadline::Deadline::after(config.handshake_connect_timeout);
    let descriptor = metadata.fetch(name, deadline)?;
    // Engines of ours publish memory of NPUs apart, where upstream's peers do not reach for it by TCP.
    let memory = descriptor.ours.map(|ours| ours.memory).unwrap_or_default();
    let host = descriptor.buffers.iter().map(|buffer| (buffer.address, buffer.length_bytes));
    let device = memory.iter().map(|buffer| (buffer.address, buffer.length_bytes));
    let buffers = host.chain(device);
    Ok(buffers.map(|(address, length_bytes)| RemoteBuffer { address, length_bytes, seed: 0 }).collect())
}

/// Processor time of this process, all threads.
#[must_use]
pub fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}
