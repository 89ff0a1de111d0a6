//! The device memory that staging goes through, cut into slots of one size.
//!
//! One half of the slots is for transfers of this engine ([`OwnSlot`]); the other half the agent lends to peers. A
//! side that waits for slots of the other can so never keep the other from getting its own, whoever comes first.
//!
//! Invariants: the ring is registered with the device before anybody gets a slot of it, so every channel made later
//! binds it; a slot has one owner at a time; the memory is given back only when no channel has it bound any more.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::super::device::Device;
use super::super::raw::Runtime;
use super::super::registration::{HCCS_ALIGNMENT_BYTES, Holding, Holdings, Links};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;

/// How long the vendor may take for the memory of a ring.
const MAKING_LIMIT: Duration = Duration::from_secs(60);

/// A registered piece of device memory in slots.
pub struct Ring {
    device: Arc<Device>,
    /// What the vendor gave; the slots begin at the first border of a page in it.
    allocation: u64,
    base: u64,
    slot_bytes: u64,
    /// Slots of either half.
    half: u32,
    free: Mutex<Vec<u32>>,
    changed: Condvar,
}

impl Ring {
    /// Takes memory for a ring and registers it, so that the engine's channels bind it from now on.
    ///
    /// # Errors
    /// [`Code::Memory`] when the device has no room, else what the vendor says.
    pub fn make(device: &Arc<Device>, config: &Config, holdings: &Holdings) -> Result<Arc<Self>> {
        let (slot_bytes, half) = (config.staged_slot_bytes, config.staged_slots);
        let wanted_bytes = slot_bytes.saturating_mul(u64::from(half)).saturating_mul(2);
        let length_bytes = wanted_bytes.div_ceil(HCCS_ALIGNMENT_BYTES).saturating_mul(HCCS_ALIGNMENT_BYTES);
        let deadline = Deadline::after(MAKING_LIMIT);
        let runtime = Arc::clone(device.runtime());
        let (allocation, base) = device
            .run(deadline, move || allocate(&runtime, length_bytes))
            .map_err(|error| no_room(&error, length_bytes, device))?;
        // From here on the memory goes back when the ring is dropped.
        let ring = Arc::new(Self {
            device: Arc::clone(device),
            allocation,
            base,
            slot_bytes,
            half,
            free: Mutex::new((0..half).rev().collect()),
            changed: Condvar::new(),
        });
        let range = ByteRange::new(base, length_bytes)?;
        let holding = Holding::acquire(device, range, Links::of(device, config), deadline)?;
        drop(holdings.insert(base, holding));
        log::info!(
            "device {}: {} MiB are set apart to stage transfers, in {} slots",
            device.id(),
            length_bytes >> 20,
            half.saturating_mul(2)
        );
        Ok(ring)
    }

    /// The device it lies on.
    #[must_use]
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Length of a slot.
    #[must_use]
    pub fn slot_bytes(&self) -> u64 {
        self.slot_bytes
    }

    /// Slots that may be lent to peers; numbered from 0.
    #[must_use]
    pub fn lent_slots(&self) -> u32 {
        self.half
    }

    /// Where a slot for peers begins.
    #[must_use]
    pub fn lent_address(&self, slot: u32) -> u64 {
        self.address(u64::from(self.half).saturating_add(u64::from(slot)))
    }

    fn address(&self, place: u64) -> u64 {
        self.base.saturating_add(self.slot_bytes.saturating_mul(place))
    }

    /// One of this engine's own slots, if one becomes free before `deadline`.
    #[must_use]
    pub fn take(self: &Arc<Self>, deadline: Deadline) -> Option<OwnSlot> {
        let mut free = self.free.lock();
        loop {
            if let Some(index) = free.pop() {
                let address = self.address(u64::from(index));
                return Some(OwnSlot { ring: Arc::clone(self), index, address });
            }
            if self.changed.wait_until(&mut free, deadline.at()).timed_out() {
                return None;
            }
        }
    }

    /// How many of this engine's own slots are in use.
    #[must_use]
    pub fn used(&self) -> u32 {
        let free = u32::try_from(self.free.lock().len()).unwrap_or(u32::MAX);
        self.half.saturating_sub(free)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let (runtime, allocation) = (Arc::clone(self.device.runtime()), self.allocation);
        let free = move || {
            if let Err(error) = runtime.free_device(allocation) {
                log::warn!("the memory of a ring is left to the end of the process: {error}");
            }
        };
        if self.device.on_service_thread() {
            free();
        } else {
            // Behind what gives its registration back.
            self.device.run_later(free);
        }
    }
}

/// A slot of the engine's own half; free again when this is dropped, which is when nothing touches it any more.
pub struct OwnSlot {
    ring: Arc<Ring>,
    index: u32,
    address: u64,
}

impl OwnSlot {
    /// Where it begins.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for OwnSlot {
    fn drop(&mut self) {
        self.ring.free.lock().push(self.index);
        self.ring.changed.notify_one();
    }
}

/// The allocation, and the first border of a page in it.
fn allocate(runtime: &Runtime, length_bytes: u64) -> Result<(u64, u64)> {
    let address = runtime.allocate_device(length_bytes)?;
    if address.is_multiple_of(HCCS_ALIGNMENT_BYTES) {
        return Ok((address, address));
    }
    // The device had no large pages left; what is aligned by chance of a longer allocation is no better for HCCS,
    // but serves RoCE.
    runtime.free_device(address)?;
    let address = runtime.allocate_device(length_bytes.saturating_add(HCCS_ALIGNMENT_BYTES))?;
    Ok((address, address.next_multiple_of(HCCS_ALIGNMENT_BYTES)))
}

fn no_room(error: &Error, length_bytes: u64, device: &Device) -> Error {
    let code = if error.code() == Code::StillRunning { Code::StillRunning } else { Code::Memory };
    Error::new(
        code,
        Stage::Submit,
        format!("no {} MiB of device memory to stage through: {error}", length_bytes >> 20),
    )
    .device(device.id())
    .advice("leave the device some memory, or lower MOONCAKE_TRANSFER_STAGED_SLOTS")
}
