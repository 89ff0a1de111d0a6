//! Copies between a slot and memory: the gather and the scatter, on a stream of the thread's own.
//!
//! Device memory is copied block by block on the stream; for host memory there are batched copies, which cost a tenth
//! for each block, where this CANN and its driver have them.
//!
//! Invariants: when a call returns, or passes on a defect, nothing of it runs; a stream that failed or was stopped is not used again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use super::super::device::Device;
use super::super::raw::{BatchCopy, CopyKind, MAX_BATCH_COPIES, Wait};
use super::super::session::Lane;
use super::gate::Gate;
use crate::error::{Error, Result};

/// Longest uninterrupted wait for the vendor.
const SLICE_MS: i32 = 50;

/// Copies between two looks whether to stop.
const COPIES_A_LOOK: usize = 64;

/// Bytes of one batched call: a millisecond or so.
const BATCH_BYTES: u64 = 16 << 20;

/// Which way between slot and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Memory into the slot.
    Gather,
    /// The slot into memory.
    Scatter,
}

/// What a copy is told from outside while it runs.
pub trait Watch {
    /// Why it has to stop, if it has.
    fn stop(&self) -> Option<Error>;

    /// It was stopped and is not quiet yet; said again and again.
    fn stuck(&self);
}

/// Copies on one thread.
pub struct Copier {
    device: Arc<Device>,
    gate: Arc<Gate>,
    lane: Option<Lane>,
    /// Whether copies with the host go by batches; not any more when that was refused once.
    batches: bool,
}

impl Copier {
    /// Without a stream yet.
    #[must_use]
    pub fn new(device: &Arc<Device>, gate: &Arc<Gate>) -> Self {
        Self {
            device: Arc::clone(device),
            gate: Arc::clone(gate),
            lane: None,
            batches: device.runtime().has_batched_copies(),
        }
    }

    /// Copies blocks (address and length) to or from a slot, in which they stand one behind another. `host` says
    /// whether they are host memory; else they are on the slot's device.
    ///
    /// # Errors
    /// What the vendor says, or what `watch` says.
    pub fn copy(
        &mut self,
        way: Way,
        slot: u64,
        blocks: impl Iterator<Item = (u64, u64)>,
        host: bool,
        watch: &dyn Watch,
    ) -> Result<()> {
        let lane = match self.lane.take() {
            Some(lane) => lane,
            None => Lane::new(&self.device)?,
        };
        let blocks: Vec<(u64, u64)> = blocks.collect();
        let device = self.device.id();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let done = if host && self.batches {
                batched(&lane, device, way, slot, &blocks, watch).inspect(|done| self.batches = *done)
            } else {
                Ok(false)
            };
            // What a batch did not take goes copy by copy.
            if done? { Ok(()) } else { run(&lane, &self.gate, way, slot, &blocks, host, watch) }
        }));
        match outcome {
            Ok(Ok(())) => self.lane = Some(lane),
            Ok(Err(error)) => {
                lane.abort();
                while !lane.quiet_within(SLICE_MS) {
                    watch.stuck();
                }
                return Err(error.device(device));
            }
            // A defect goes on when the memory may be let go of.
            Err(defect) => {
                lane.abort();
                while !lane.quiet_within(SLICE_MS) {}
                resume_unwind(defect);
            }
        }
        Ok(())
    }
}

fn run(
    lane: &Lane,
    gate: &Gate,
    way: Way,
    slot: u64,
    blocks: &[(u64, u64)],
    host: bool,
    watch: &dyn Watch,
) -> Result<()> {
    let (runtime, stream) = (lane.runtime(), lane.stream()?);
    let kind = match (host, way) {
        (false, _) => CopyKind::DeviceToDevice,
        (true, Way::Gather) => CopyKind::HostToDevice,
        (true, Way::Scatter) => CopyKind::DeviceToHost,
    };
    let mut place = slot;
    let turn = gate.pass(watch)?;
    for (index, (address, length_bytes)) in blocks.iter().copied().enumerate() {
        if index % COPIES_A_LOOK == 0
            && let Some(error) = watch.stop()
        {
            return Err(error);
        }
        let (target, source) = match way {
            Way::Gather => (place, address),
            Way::Scatter => (address, place),
        };
        runtime.copy_async(target, source, length_bytes, kind, stream)?;
        place = place.saturating_add(length_bytes);
    }
    drop(turn);
    while runtime.synchronize_stream(stream, SLICE_MS)? == Wait::Pending {
        if let Some(error) = watch.stop() {
            return Err(error);
        }
    }
    Ok(())
}

/// Copies between a slot and host memory in batches, each short enough that a stop is prompt. False when this CANN,
/// driver or machine has no such copies, or does not take one of these: then nothing is lost but time.
fn batched(
    lane: &Lane,
    device: i32,
    way: Way,
    slot: u64,
    blocks: &[(u64, u64)],
    watch: &dyn Watch,
) -> Result<bool> {
    let kind = match way {
        Way::Gather => CopyKind::HostToDevice,
        Way::Scatter => CopyKind::DeviceToHost,
    };
    let (mut place, mut next) = (slot, blocks.iter().copied().peekable());
    while next.peek().is_some() {
        if let Some(error) = watch.stop() {
            return Err(error);
        }
        let (mut copies, mut bytes): (Vec<BatchCopy>, u64) = (Vec::new(), 0);
        while copies.len() < MAX_BATCH_COPIES && bytes < BATCH_BYTES {
            let Some((address, length_bytes)) = next.next() else { break };
            copies.push(match way {
                Way::Gather => (place, address, length_bytes),
                Way::Scatter => (address, place, length_bytes),
            });
            place = place.saturating_add(length_bytes);
            bytes = bytes.saturating_add(length_bytes);
        }
        if let Err(error) = lane.runtime().copy_batch(&copies, kind, device) {
            log::debug!("{error}; copies with the host go one by one");
            return Ok(false);
        }
    }
    Ok(true)
}
