//! Copies between a slot and memory: the gather and the scatter, on a stream of the thread's own.
//!
//! Invariants: when a call returns, nothing of it runs; a stream that failed or was stopped is not used again.

use std::sync::Arc;

use super::super::device::Device;
use super::super::raw::{CopyKind, Wait};
use super::super::session::Lane;
use super::gate::Gate;
use crate::error::{Error, Result};

/// Longest uninterrupted wait for the vendor.
const SLICE_MS: i32 = 50;

/// Copies between two looks whether to stop.
const COPIES_A_LOOK: usize = 64;

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
}

impl Copier {
    /// Without a stream yet.
    #[must_use]
    pub fn new(device: &Arc<Device>, gate: &Arc<Gate>) -> Self {
        Self { device: Arc::clone(device), gate: Arc::clone(gate), lane: None }
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
        let outcome = run(&lane, &self.gate, way, slot, blocks, host, watch);
        if outcome.is_ok() {
            self.lane = Some(lane);
        } else {
            lane.abort();
            while !lane.quiet_within(SLICE_MS) {
                watch.stuck();
            }
        }
        outcome.map_err(|error| error.device(self.device.id()))
    }
}

fn run(
    lane: &Lane,
    gate: &Gate,
    way: Way,
    slot: u64,
    blocks: impl Iterator<Item = (u64, u64)>,
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
    for (index, (address, length_bytes)) in blocks.enumerate() {
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
