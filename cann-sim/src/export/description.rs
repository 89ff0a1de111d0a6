//! The older family of one-sided HCCL: descriptions of memory.

use std::ffi::c_void;

use super::hccl::{require, resolve};
use super::{Out, array, export, hccl_out};
use crate::abi::{CommMemory, MemoryDescription, MemoryDescriptions};
use crate::communicator;
use crate::handle::to_pointer;
use crate::region::RegionKind;
use crate::status::{Outcome, hccl};

/// One description of the caller.
///
/// # Safety
///
/// `description` is NULL or good for reading one.
unsafe fn read(description: *const MemoryDescription) -> Outcome<MemoryDescription> {
    require(!description.is_null(), "the description is NULL")?;
    // SAFETY: the caller's promise; alignment is not relied on.
    Ok(unsafe { description.read_unaligned() })
}

export! {
    /// `HcclRegisterMem`.
    fn cann_sim_HcclRegisterMem(
        handle: *mut c_void,
        remote_rank: u32,
        kind: i32,
        address: *mut c_void,
        size: u64,
        description: *mut MemoryDescription,
    ) {
        let communicator = resolve(handle)?;
        // SAFETY: one output.
        let out = unsafe { hccl_out(description)? };
        communicator::current_device()?;
        if let Some(description) = communicator.describe(remote_rank, kind, address as usize, size)? {
            out.set(description);
        }
        Ok(())
    }

    /// `HcclDeregisterMem`.
    fn cann_sim_HcclDeregisterMem(handle: *mut c_void, description: *mut MemoryDescription) {
        // SAFETY: one readable struct by the prototype.
        resolve(handle)?.forget(&unsafe { read(description)? })
    }

    /// `HcclExchangeMemDesc`: the second list says how much room it has.
    fn cann_sim_HcclExchangeMemDesc(
        handle: *mut c_void,
        remote_rank: u32,
        local: *mut MemoryDescriptions,
        timeout_seconds: i32,
        remote: *mut MemoryDescriptions,
        count: *mut u32,
    ) {
        let communicator = resolve(handle)?;
        require(!local.is_null() && !remote.is_null(), "a list of descriptions is NULL")?;
        // SAFETY: one output and two readable structs by the prototype.
        let (out, local, remote) = unsafe { (hccl_out(count)?, local.read_unaligned(), remote.read_unaligned()) };
        let length = |length: u32| usize::try_from(length).unwrap_or(usize::MAX);
        let known = if local.length == 0 {
            &[]
        } else {
            // SAFETY: the list has as many descriptions as it says.
            unsafe { array(local.array.cast_const(), length(local.length), hccl::E_PTR)? }
        };
        require(!remote.array.is_null() || remote.length == 0, "the list for the peer's descriptions is NULL")?;
        let theirs = communicator.exchange(remote_rank, known, timeout_seconds, length(remote.length))?;
        for (index, description) in theirs.iter().enumerate() {
            // SAFETY: there is room for `remote.length`, which `exchange` does not pass.
            unsafe { Out::new(remote.array.add(index), hccl::E_PTR)? }.set(*description);
        }
        out.set(u32::try_from(theirs.len()).unwrap_or(u32::MAX));
        Ok(())
    }

    /// `HcclEnableMemAccess`: answers the peer's type, address and size.
    fn cann_sim_HcclEnableMemAccess(handle: *mut c_void, description: *mut MemoryDescription, memory: *mut CommMemory) {
        let communicator = resolve(handle)?;
        // SAFETY: one output and one readable struct by the prototype.
        let (out, description) = unsafe { (hccl_out(memory)?, read(description)?) };
        let (kind, start, length) = communicator.enable(&description, true)?;
        out.set(CommMemory {
            kind: i32::from(kind == RegionKind::Host),
            address: to_pointer(start),
            size: u64::try_from(length).unwrap_or(u64::MAX),
        });
        Ok(())
    }

    /// `HcclDisableMemAccess`.
    fn cann_sim_HcclDisableMemAccess(handle: *mut c_void, description: *mut MemoryDescription) {
        // SAFETY: one readable struct by the prototype.
        resolve(handle)?.enable(&unsafe { read(description)? }, false).map(|_| ())
    }
}
