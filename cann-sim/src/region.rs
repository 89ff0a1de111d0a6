//! Registered memory: the ranges a process offers to communicators (facts 2.4, points 2 and 3).
//!
//! Registration is bookkeeping per device; whether a link can take the memory is found out when the communicator is
//! prepared. A duplicate answers the same handle and is not counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::handle::Handles;
use crate::status::{Fail, Outcome, hccl};

/// Kind of a region as C names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionKind {
    /// NPU memory.
    Device,
    /// Host memory.
    Host,
}

/// One registered range.
#[derive(Debug)]
pub struct Region {
    /// The handle C holds.
    pub handle: usize,
    /// What the caller says it is.
    pub kind: RegionKind,
    /// First address.
    pub start: usize,
    /// Bytes.
    pub length: usize,
    /// The device it was registered on, by user id.
    pub user_id: u32,
    /// Communicators it is bound to.
    pub bound: AtomicUsize,
}

static REGIONS: Handles<Region> = Handles::new(0x54);
/// Serialises the duplicate and overlap checks with the changes they guard.
static CHANGES: Mutex<()> = Mutex::new(());

/// Registers a range on a device.
pub fn register(user_id: u32, kind: i32, start: usize, length: u64) -> Outcome<usize> {
    let kind = match kind {
        0 => RegionKind::Device,
        1 => RegionKind::Host,
        other => {
            return Err(Fail::new(hccl::E_PARA, format!("memory type {other} is neither device nor host")));
        }
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let end = start
        .checked_add(length)
        .ok_or_else(|| Fail::new(hccl::E_PARA, "the range passes the end of memory"))?;
    let _changes = CHANGES.lock();
    for region in REGIONS.all().iter().filter(|region| region.user_id == user_id && region.kind == kind) {
        if region.start == start && region.length == length {
            return Ok(region.handle);
        }
        if start < region.start + region.length && region.start < end {
            return Err(Fail::new(
                hccl::E_PARA,
                format!(
                    "{start:#x}..{end:#x} overlaps the registered range {:#x}..{:#x}",
                    region.start,
                    region.start + region.length
                ),
            ));
        }
    }
    let handle = REGIONS.reserve();
    let region = Region { handle, kind, start, length, user_id, bound: AtomicUsize::new(0) };
    REGIONS.insert(handle, Arc::new(region));
    Ok(handle)
}

/// Removes a registration of the current device.
pub fn deregister(user_id: u32, handle: usize) -> Outcome {
    let _changes = CHANGES.lock();
    let removed = REGIONS.remove_if(handle, |region| {
        if region.user_id != user_id {
            return Err(Fail::new(
                hccl::E_NOT_FOUND,
                format!(
                    "the memory was registered on device {}, the current one is {user_id}",
                    region.user_id
                ),
            ));
        }
        match region.bound.load(Ordering::Acquire) {
            0 => Ok(()),
            count => {
                Err(Fail::new(hccl::E_PARA, format!("the memory is still bound to {count} communicators")))
            }
        }
    });
    match removed {
        None => Err(unknown(handle)),
        Some(result) => result.map(|_| ()),
    }
}

/// Binds a registration: answers it with its count raised, under the lock that deregistration takes.
pub fn bind(handle: usize) -> Outcome<Arc<Region>> {
    let _changes = CHANGES.lock();
    let region = REGIONS.get(handle).ok_or_else(|| unknown(handle))?;
    region.bound.fetch_add(1, Ordering::AcqRel);
    Ok(region)
}

/// Undoes `bind`.
pub fn unbind(region: &Region) {
    region.bound.fetch_sub(1, Ordering::AcqRel);
}

fn unknown(handle: usize) -> Fail {
    Fail::new(hccl::E_PARA, format!("{handle:#x} is no registered memory"))
}
