//! Memory of other engines of this process that this engine moves.
//!
//! vLLM-Ascend's pool connector hands its engine tensors that only the connector's other engine has registered.
//! Vendor registrations are counted per process and device, so taking the same range again costs bookkeeping only.
//! The owner's registration decides: a transfer pins the owner's region, and when the owner unregisters, every
//! engine that has borrowed the range gives it back first.
//!
//! Invariant: at most [`MAX_BORROWED`] ranges; the one borrowed longest ago goes first.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::{Shared, process};
use crate::deadline::Deadline;
use crate::error::Result;
use crate::memory::{ByteRange, MemoryKind};
use crate::registry::Pin;

/// Most ranges that one engine has borrowed at a time.
pub const MAX_BORROWED: usize = 1024;

/// The ranges of one engine, the one borrowed longest ago first.
#[derive(Default)]
pub(super) struct Borrowed(Mutex<VecDeque<(ByteRange, i32)>>);

impl Shared {
    /// Pins memory that another engine of this process has registered, and makes it this engine's to move;
    /// `None` when nobody has registered the range.
    pub(super) fn borrow(&self, range: ByteRange) -> Result<Option<Pin>> {
        let Some(pin) = process::pin(range) else { return Ok(None) };
        let region = pin.region();
        if let MemoryKind::Device(device) = region.kind() {
            self.take_loan(region.range(), region.kind(), device)?;
        }
        Ok(Some(pin))
    }

    /// The caller holds a pin of the owner's region, so the loan cannot be called in meanwhile.
    fn take_loan(&self, range: ByteRange, kind: MemoryKind, device: i32) -> Result<()> {
        let returned = {
            let mut loans = self.borrowed.0.lock();
            if loans.contains(&(range, device)) {
                return Ok(());
            }
            loans.push_back((range, device));
            if loans.len() > MAX_BORROWED { loans.pop_front() } else { None }
        };
        if let Some((range, device)) = returned {
            self.give_back(range, device, self.metadata_deadline());
        }
        let registered = self.npu().and_then(|ascend| ascend.register(range, kind, device));
        registered.map(drop).inspect_err(|_| self.borrowed.0.lock().retain(|loan| *loan != (range, device)))
    }

    /// The owner unregisters: what overlaps goes back. Nothing of ours is in flight on it, since the owner's
    /// region has no pins.
    pub(super) fn call_in(&self, range: ByteRange, deadline: Deadline) {
        let mut called = Vec::new();
        self.borrowed.0.lock().retain(|loan| {
            let overlaps = loan.0.overlaps(range);
            if overlaps {
                called.push(*loan);
            }
            !overlaps
        });
        for (range, device) in called {
            self.give_back(range, device, deadline);
        }
    }

    fn give_back(&self, range: ByteRange, device: i32, deadline: Deadline) {
        let outcome = self.npu.opened().map_or(Ok(()), |ascend| ascend.unregister(range, device, deadline));
        if let Err(error) = outcome {
            log::warn!("{}: giving back borrowed memory: {error}", self.name);
        }
    }
}
