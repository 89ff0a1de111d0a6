//! Blocks that the peer's device launches: what this engine asks of a peer, and what it does for one.
//!
//! Where starting descriptors is what takes long, one device starts one in the time two devices start two. Both ends
//! of a channel can put and get, so this side launches a part of the blocks itself and orders the rest from the peer's
//! agent, which gets where this side puts and puts where it gets: the same bytes over the same wire. Who is done first
//! takes the next [piece](super::work), so a peer that is slow, or busy with its own, costs no more than its piece.
//!
//! Nothing is staged: the link has to take the memory at both ends, and the order names a channel that both have ready.
//! An order that the peer refuses, for whatever reason, is launched by this side.
//!
//! Reads are shared with the peer over RoCE only. Then it puts into memory of this side, and when it is lost that must
//! end before the read is told as failed: over RoCE it does with this side's queue pair, while over HCCS a peer that
//! stood still and comes back could go on.
//!
//! Invariants: an order is answered when nothing of it runs; memory of this engine that a peer names is pinned as long
//! as the order runs, and reached only as far as the channel reaches it; where the peer is lost, what it puts is over
//! when the channels with it have ended.
//!
//! Not known from hardware: how far the one-sided calls of two ranks of one communicator overlap. The vendor's manual
//! allows both directions after prepare; each end has its own queue pair or copy engine. On the software NPU launches of
//! a device are in one row, and those of two devices are in two.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::copier::Watch;
use super::station::Station;
use super::work::Block;
use super::{Held, Staged};
use crate::batch::{Batch, Stop, Submission, Waited};
use crate::control::{Connection, DirectMove};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::{ByteRange, MemoryKind};
use crate::plan::{Direction, Extent, MAX_EXTENTS_PER_CALL};
use crate::transport::{Job, Request, Route};

/// How often who waits looks whether to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Pause between two looks at what has to be over and is not.
const STUCK_PAUSE: Duration = Duration::from_millis(2);

/// A number for an order that no other one of this process has.
pub fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn refused(code: Code, why: &str) -> Error {
    Error::new(code, Stage::Execute, format!("the agent refuses: {why}"))
}

/// Blocks as extents of a batch with a task for each.
pub fn extents(blocks: &[Block]) -> Vec<Extent> {
    let extent = |(task, block): (u32, &Block)| Extent {
        local: block.local,
        remote: block.remote,
        length_bytes: block.length_bytes,
        first_task: task,
        task_count: 1,
        skip_bytes: 0,
    };
    (0..).zip(blocks).map(extent).collect()
}

/// Waits until `batch` is over, which it is told to be when `watch` says that it has to.
///
/// # Errors
/// Why it failed.
pub fn wait(batch: &Batch, watch: &dyn Watch) -> Result<()> {
    loop {
        match batch.wait(Deadline::after(LOOK)) {
            Waited::Finished(outcome) if outcome.is_success() => return Ok(()),
            Waited::Finished(_) => {
                return Err(batch.first_error().unwrap_or_else(|| {
                    Error::new(Code::Internal, Stage::Execute, "the wire failed without a reason")
                }));
            }
            Waited::Stuck(_) => std::thread::sleep(STUCK_PAUSE),
            Waited::Late => {}
        }
        if let Some(error) = watch.stop() {
            batch.stop(if error.code() == Code::Timeout { Stop::Timeout } else { Stop::Cancelled });
            watch.stuck();
        }
    }
}

impl DirectMove {
    /// Checks every address of this side, and does what is ordered. What the peer names of its own memory is as far
    /// as the channel reaches it.
    pub(super) fn run(
        &self,
        station: &Arc<Station>,
        from: &Arc<Connection>,
        deadline: Deadline,
        watch: &dyn Watch,
    ) -> Result<()> {
        if let Some(error) = watch.stop() {
            return Err(error);
        }
        let staged = station
            .staged()
            .upgrade()
            .ok_or_else(|| refused(Code::StaleHandle, "the engine is being closed"))?;
        if self.blocks.is_empty() || self.blocks.len() > MAX_EXTENTS_PER_CALL {
            let why = format!("an order names 1 block at least and {MAX_EXTENTS_PER_CALL} at most");
            return Err(refused(Code::InvalidArgument, &why));
        }
        let held = pin(&staged, station, &self.blocks)?;
        let blocks: Vec<Block> = self
            .blocks
            .iter()
            .map(|&(local, remote, length_bytes)| Block { local, remote, length_bytes })
            .collect();
        let batch = Arc::new(Batch::new(u32::try_from(blocks.len()).unwrap_or(u32::MAX))?);
        let lengths = blocks.iter().map(|block| block.length_bytes);
        let submission = Submission::start(&batch, lengths, deadline)?;
        let request = Request::new(Job {
            direction: if self.put { Direction::Write } else { Direction::Read },
            extents: extents(&blocks),
            submission,
            pins: Vec::new(),
            deadline,
            local_device: Some(station.device().id()),
            remote_device: None,
            route: Route::Wire,
            peer: Arc::from(from.peer().segment.as_str()),
        });
        let outcome = batch.quiet_after(|| {
            staged.push_to(from.peer().incarnation.id, &self.channel, request)?;
            wait(&batch, watch)
        });
        drop(held);
        outcome
    }
}

/// Pins the memory of this side that an order names.
fn pin(staged: &Staged, station: &Station, blocks: &[(u64, u64, u64)]) -> Result<Vec<Held>> {
    let mut held: Vec<Held> = Vec::new();
    for &(address, remote, length_bytes) in blocks {
        let range = ByteRange::checked(address, length_bytes)
            .filter(|range| !range.is_empty() && ByteRange::checked(remote, length_bytes).is_some())
            .ok_or_else(|| refused(Code::InvalidArgument, "a block is empty or passes the end of memory"))?;
        if held.iter().rev().any(|held| held.range.contains(range)) {
            continue;
        }
        let pinned = staged.pin(range).ok_or_else(|| {
            refused(Code::AddressNotRegistered, "a block lies in no region that is registered")
                .range(address, length_bytes)
        })?;
        if let MemoryKind::Device(device) = pinned.kind
            && device != station.device().id()
        {
            return Err(refused(Code::InvalidArgument, "a block lies on another device than the channel")
                .range(address, length_bytes));
        }
        held.push(pinned);
    }
    Ok(held)
}
