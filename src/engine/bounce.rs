//! Memory of a device to and from a peer that only host memory reaches: through pinned host memory of ours.
//!
//! A job is cut into pieces. A few threads take one piece each: the piece goes into a slot by a copy of the device,
//! and from the slot to the peer by the route of host memory (or the other way round), so that the copy of one piece
//! and the journey of another overlap. A slot has one piece at a time. One whose copy could not be made quiet is
//! never used again.
//!
//! # Why a peer of this host is not reached by the relay
//!
//! A peer that has an NPU could scatter from a slot of its own into its host memory. Where its process is on this host
//! the bounce goes first: blocks leave the device in batched copies, about 1 us each, and arrive by one copy on the
//! processor, whereas the relay gathers with copies inside the device, 11.8 us each on A2 by the profiles, which limits
//! blocks of 128 KiB to 11 GB/s before anything is sent. The relay also needs a communicator, slots on two devices, and
//! the peer's launches. It would save processor time for long blocks: one copy less in host memory. A peer on another
//! host, where the bounce would go by TCP, is relayed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::drain::{Interrupt, wait_or_drain};
use super::remote::Remote;
use super::{CLOSE_GRACE, Shared};
use crate::batch::{Batch, Submission};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::copy::Caching;
use crate::plan::{Direction, Extent};
use crate::transport::ascend::Runtime;
use crate::transport::ascend::device::Device;
use crate::transport::copier::{Block, HostCopier, Mover, PIECE_BYTES};
use crate::transport::{Job, Request, Route};

/// How often a wait looks whether the caller has cancelled.
const SLICE: Duration = Duration::from_millis(20);
/// Time for the vendor to give pinned memory.
const PINNING_LIMIT: Duration = Duration::from_secs(10);

/// A piece of pinned host memory, and the device whose context it was made in.
#[derive(Clone, Copy, Debug)]
struct Slot {
    device: i32,
    address: u64,
}

/// The slots and threads of one engine.
pub(super) struct Bouncer {
    copier: HostCopier,
    slots: Slots,
}

/// Slots nobody uses; as many are made as pieces were under way at once. `None` after the end.
struct Slots(Mutex<Option<Vec<Slot>>>);

impl Default for Slots {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl Slots {
    fn take(&self, device: i32) -> Option<Slot> {
        let mut free = self.0.lock();
        let free = free.as_mut()?;
        let index = free.iter().position(|slot| slot.device == device)?;
        Some(free.swap_remove(index))
    }

    /// Keeps a slot for the next piece. After the end it comes back: the caller has to free it.
    fn give_back(&self, slot: Slot) -> Option<Slot> {
        match self.0.lock().as_mut() {
            Some(free) => {
                free.push(slot);
                None
            }
            None => Some(slot),
        }
    }

    /// The end: the caller has to free what it gets.
    fn close(&self) -> Vec<Slot> {
        self.0.lock().take().unwrap_or_default()
    }
}

impl Default for Bouncer {
    fn default() -> Self {
        Self { copier: HostCopier::that_waits("mct-bounce"), slots: Slots::default() }
    }
}

impl Bouncer {
    /// Ends the threads and gives the slots back.
    pub(super) fn shutdown(&self, deadline: Deadline) -> Result<()> {
        self.copier.stop();
        let stopped = self.copier.wait_stopped(deadline);
        // One limit for all of them: a device that hangs must not hold up the end once a slot.
        let until = Deadline::after(CLOSE_GRACE);
        for slot in self.slots.close() {
            free(slot, until);
        }
        stopped
    }

    fn take(&self, device: i32) -> Result<Slot> {
        if let Some(slot) = self.slots.take(device) {
            return Ok(slot);
        }
        let limit = Deadline::after(PINNING_LIMIT);
        let address = with_device(device, limit, |runtime| runtime.allocate_host(PIECE_BYTES))?;
        Ok(Slot { device, address })
    }

    /// On the thread that used the slot, which may come back after the end.
    fn give_back(&self, slot: Slot) {
        if let Some(slot) = self.slots.give_back(slot) {
            free(slot, Deadline::after(CLOSE_GRACE));
        }
    }
}

fn free(slot: Slot, until: Deadline) {
    let freed = with_device(slot.device, until, move |runtime| runtime.free_host(slot.address));
    if let Err(error) = freed {
        log::debug!("pinned memory is left to the end of the process: {error}");
    }
}

/// Runs something with the device's context bound.
fn with_device<T: Send + 'static>(
    device: i32,
    deadline: Deadline,
    work: impl FnOnce(&Runtime) -> Result<T> + Send + 'static,
) -> Result<T> {
    let runtime = Runtime::loaded().ok_or_else(|| {
        Error::new(Code::LibraryUnavailable, Stage::Load, "NPU memory, and no CANN in this process")
    })?;
    let opened = Device::open(&runtime, device)?;
    opened.run(deadline, move || work(&runtime))
}

/// The two steps of a piece.
struct Steps {
    engine: Weak<Shared>,
    remote: Arc<Remote>,
    device: i32,
    deadline: Deadline,
    submission: Arc<Submission>,
    peer: Arc<str>,
}

impl Steps {
    /// Runs a job of ours to its end. An error of the code [`Code::StillRunning`] means that it may still touch
    /// the slot.
    fn run(
        &self,
        direction: Direction,
        blocks: impl Iterator<Item = (u64, u64, u64)>,
        remote_device: Option<i32>,
        submit: impl FnOnce(Job),
    ) -> Result<()> {
        let extents: Vec<Extent> = (0_u32..)
            .zip(blocks)
            .map(|(first_task, (local, remote, length_bytes))| Extent {
                local,
                remote,
                length_bytes,
                first_task,
                task_count: 1,
                skip_bytes: 0,
            })
            .collect();
        let capacity = u32::try_from(extents.len()).unwrap_or(u32::MAX);
        let batch = Arc::new(Batch::new(capacity)?);
        let lengths: Vec<u64> = extents.iter().map(|extent| extent.length_bytes).collect();
        let submission = Submission::start(&batch, lengths, self.deadline)?;
        let job = Job {
            direction,
            extents,
            submission,
            pins: Vec::new(),
            deadline: self.deadline,
            local_device: None,
            remote_device,
            route: Route::Any,
            peer: Arc::clone(&self.peer),
        };
        batch.quiet_after(|| {
            submit(job);
            self.wait(&batch)
        })
    }

    fn wait(&self, batch: &Batch) -> Result<()> {
        let grace = self.engine.upgrade().map_or(SLICE, |engine| engine.config.drain_grace);
        let interrupt = Interrupt { must_stop: &|| self.submission.must_stop(), every: SLICE };
        wait_or_drain(batch, self.deadline, grace, Some(&interrupt))
    }

    fn by_device(&self, engine: &Shared, direction: Direction, blocks: &[(u64, u64, u64)]) -> Result<()> {
        // The device's memory is the far end here, so a read brings it into the slot.
        self.run(direction, blocks.iter().copied(), Some(self.device), |job| drop(engine.local.submit(job)))
    }

    fn by_host(&self, engine: &Shared, direction: Direction, blocks: &[(u64, u64, u64)]) -> Result<()> {
        self.run(direction, blocks.iter().copied(), None, |job| engine.send_host(job, &self.remote))
    }
}

impl Mover for Steps {
    fn copy(&self, direction: Direction, blocks: &[Block], _: Caching) -> Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        let engine = self
            .engine
            .upgrade()
            .ok_or_else(|| Error::new(Code::StaleHandle, Stage::Execute, "the engine is being closed"))?;
        let slot = engine.bouncer.take(self.device)?;
        let mut next = slot.address;
        let mut places = Vec::with_capacity(blocks.len());
        for block in blocks {
            places.push((next, *block));
            next = next.saturating_add(block.length_bytes);
        }
        let device: Vec<_> =
            places.iter().map(|(place, block)| (*place, block.local, block.length_bytes)).collect();
        let host: Vec<_> =
            places.iter().map(|(place, block)| (*place, block.remote, block.length_bytes)).collect();
        let outcome = match direction {
            Direction::Write => self
                .by_device(&engine, Direction::Read, &device)
                .and_then(|()| self.by_host(&engine, Direction::Write, &host)),
            Direction::Read => self
                .by_host(&engine, Direction::Read, &host)
                .and_then(|()| self.by_device(&engine, Direction::Write, &device)),
        };
        match &outcome {
            Err(error) if error.code() == Code::StillRunning => {
                log::error!("a slot of pinned memory is given up: {error}");
            }
            _ => engine.bouncer.give_back(slot),
        }
        outcome
    }
}

impl Shared {
    /// Takes a job between memory of a device of ours and host memory of a peer; never blocks on the peer.
    pub(super) fn bounce(self: &Arc<Self>, job: Job, device: i32, remote: &Arc<Remote>) {
        let steps = Steps {
            engine: Arc::downgrade(self),
            remote: Arc::clone(remote),
            device,
            deadline: job.deadline,
            submission: Arc::clone(&job.submission),
            peer: Arc::clone(&job.peer),
        };
        let request = Request::new(job);
        let mover: Arc<dyn Mover> = Arc::new(steps);
        if let Err(error) = self.bouncer.copier.submit(&request, &mover) {
            request.fail(&error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_comes_back_after_the_end_is_to_be_freed() {
        let slots = Slots::default();
        let slot = |device, address| Slot { device, address };
        assert!(slots.give_back(slot(0, 1)).is_none() && slots.give_back(slot(1, 2)).is_none());
        assert!(slots.take(2).is_none(), "a slot is good for its device only");
        let used = slots.take(1).unwrap();
        assert_eq!(slots.close().len(), 1);
        assert_eq!(slots.give_back(used).map(|slot| slot.address), Some(2), "it would be lost");
        assert!(slots.take(1).is_none() && slots.close().is_empty());
    }
}
