//! Allocation, registration with the runtime, and questions about addresses.

use std::ffi::c_void;

use super::{acl_out, acl_require, export};
use crate::abi::{MemoryLocation, PointerAttributes};
use crate::block::{self, Owner, Place};
use crate::handle::to_pointer;
use crate::settings::settings;
use crate::status::{Fail, Outcome, acl};
use crate::{context, device, heap, host_registration};

/// Flags of `aclrtHostRegisterV2`: mapped, I/O memory, read-only, pinned (facts 1.4).
const HOST_REGISTER_FLAGS: u32 = HOST_REGISTER_MAPPED | 4 | 8 | 0x1000_0000;
/// The device gets an address for it.
const HOST_REGISTER_MAPPED: u32 = 2;

fn allocate(address: *mut *mut c_void, size: usize, policy: i32, pad: bool) -> Outcome {
    // SAFETY: one output.
    let out = unsafe { acl_out(address)? };
    acl_require(size > 0, "the size is 0")?;
    let device = context::current()?.device;
    out.set(to_pointer(device.heap.allocate(device.user_id, size, policy, pad)?));
    Ok(())
}

fn free(address: *mut c_void) -> Outcome {
    acl_require(!address.is_null(), "the address is NULL")?;
    context::current()?;
    let block = block::remove(address as usize, |block| {
        matches!(block.place, Place::Device(_)) && block.owner == Owner::Heap
    })
    .ok_or_else(|| not_allocated(address))?;
    if let Place::Device(user_id) = block.place {
        device::by_user_id(i32::try_from(user_id).unwrap_or(-1))?.heap.release(&block);
    }
    Ok(())
}

fn allocate_host(address: *mut *mut c_void, size: usize) -> Outcome {
    // SAFETY: one output.
    let out = unsafe { acl_out(address)? };
    acl_require(size > 0, "the size is 0")?;
    context::current()?;
    out.set(to_pointer(heap::allocate_host(size)?));
    Ok(())
}

fn not_allocated(address: *mut c_void) -> Fail {
    Fail::new(acl::PARAM_INVALID, format!("{address:p} was not answered by the matching allocation call"))
}

export! {
    /// `aclrtMalloc`.
    fn cann_sim_aclrtMalloc(address: *mut *mut c_void, size: usize, policy: i32) {
        allocate(address, size, policy, true)
    }

    /// `aclrtMallocAlign32`.
    fn cann_sim_aclrtMallocAlign32(address: *mut *mut c_void, size: usize, policy: i32) {
        allocate(address, size, policy, false)
    }

    /// `aclrtMallocCached`.
    fn cann_sim_aclrtMallocCached(address: *mut *mut c_void, size: usize, policy: i32) {
        allocate(address, size, policy, true)
    }

    /// `aclrtMallocWithCfg`: the configuration names a module for the vendor's statistics only.
    fn cann_sim_aclrtMallocWithCfg(address: *mut *mut c_void, size: usize, policy: i32, _config: *mut c_void) {
        allocate(address, size, policy, true)
    }

    /// `aclrtFree`: does not wait for streams.
    fn cann_sim_aclrtFree(address: *mut c_void) {
        free(address)
    }

    /// `aclrtFreeWithDevSync`: waits for the device's streams first.
    fn cann_sim_aclrtFreeWithDevSync(address: *mut c_void) {
        acl_require(!address.is_null(), "the address is NULL")?;
        context::synchronize_device(None)?;
        free(address)
    }

    /// `aclrtMallocHost`.
    fn cann_sim_aclrtMallocHost(address: *mut *mut c_void, size: usize) {
        allocate_host(address, size)
    }

    /// `aclrtMallocHostWithCfg`.
    fn cann_sim_aclrtMallocHostWithCfg(address: *mut *mut c_void, size: u64, _config: *mut c_void) {
        allocate_host(address, usize::try_from(size).unwrap_or(usize::MAX))
    }

    /// `aclrtFreeHost`.
    fn cann_sim_aclrtFreeHost(address: *mut c_void) {
        acl_require(!address.is_null(), "the address is NULL")?;
        context::current()?;
        let block = block::remove(address as usize, |block| block.place == Place::Host && block.owner == Owner::Heap)
            .ok_or_else(|| not_allocated(address))?;
        heap::release_host(&block);
        Ok(())
    }

    /// `aclrtHostRegister`: pins the program's memory; the device pointer is for device code only.
    fn cann_sim_aclrtHostRegister(address: *mut c_void, size: u64, kind: i32, device_address: *mut *mut c_void) {
        acl_require(!address.is_null() && size > 0, "the address is NULL or the size 0")?;
        // SAFETY: one output.
        let out = unsafe { acl_out(device_address)? };
        if !matches!(kind, 0 | 4 | 8) {
            return Err(Fail::new(acl::PARAM_INVALID, format!("{kind} is no registration type")));
        }
        out.set(to_pointer(host_registration::register(address as usize, size, true)?));
        Ok(())
    }

    /// `aclrtHostRegisterV2`: the device address, if it was asked for, is answered by `aclrtHostGetDevicePointer`.
    fn cann_sim_aclrtHostRegisterV2(address: *mut c_void, size: u64, flags: u32) {
        acl_require(!address.is_null() && size > 0, "the address is NULL or the size 0")?;
        if flags == 0 || flags & !HOST_REGISTER_FLAGS != 0 {
            return Err(Fail::new(acl::PARAM_INVALID, format!("{flags:#x} are no registration flags")));
        }
        host_registration::register(address as usize, size, flags & HOST_REGISTER_MAPPED != 0).map(|_| ())
    }

    /// `aclrtHostGetDevicePointer`.
    fn cann_sim_aclrtHostGetDevicePointer(address: *mut c_void, device_address: *mut *mut c_void, flags: u32) {
        acl_require(!address.is_null(), "the address is NULL")?;
        // SAFETY: one output.
        let out = unsafe { acl_out(device_address)? };
        if flags != 0 {
            return Err(Fail::new(acl::PARAM_INVALID, format!("flags must be 0, not {flags}")));
        }
        out.set(to_pointer(host_registration::device_address(address as usize)?));
        Ok(())
    }

    /// `aclrtHostUnregister`.
    fn cann_sim_aclrtHostUnregister(address: *mut c_void) {
        acl_require(!address.is_null(), "the address is NULL")?;
        host_registration::unregister(address as usize)
    }

    /// `aclrtPointerGetAttributes`: works without a context.
    fn cann_sim_aclrtPointerGetAttributes(address: *const c_void, attributes: *mut PointerAttributes) {
        acl_require(!address.is_null(), "the address is NULL")?;
        // SAFETY: one output.
        let out = unsafe { acl_out(attributes)? };
        let mut answer = PointerAttributes::default();
        match block::find(address as usize) {
            Some(block) => {
                answer.page_size = u32::try_from(block.page_size).unwrap_or(0);
                if let Place::Device(user_id) = block.place {
                    answer.location = MemoryLocation { id: user_id, kind: 1 };
                }
            }
            // The number of the refusal is inferred; that the call fails is not (facts 1.6 and 8.11).
            None if settings().has_old_driver => {
                return Err(Fail::new(
                    acl::DRV_INTERNAL_ERROR,
                    format!("the driver does not know the address {address:p}"),
                ));
            }
            None => {
                answer.location = MemoryLocation { id: 0, kind: 2 };
                answer.page_size = 4096;
            }
        }
        out.set(answer);
        Ok(())
    }

    /// `aclrtMemGetAddressRange`.
    fn cann_sim_aclrtMemGetAddressRange(address: *mut c_void, base: *mut *mut c_void, size: *mut usize) {
        acl_require(!address.is_null(), "the address is NULL")?;
        // SAFETY: two outputs.
        let (out_base, out_size) = unsafe { (acl_out(base)?, acl_out(size)?) };
        let block = block::find(address as usize)
            .filter(|block| matches!(block.place, Place::Device(_)))
            .ok_or_else(|| Fail::new(acl::PARAM_INVALID, format!("{address:p} is no device memory")))?;
        out_base.set(to_pointer(block.start));
        out_size.set(block.length);
        Ok(())
    }

    /// `aclrtGetMemInfo`: HBM of the current device; these chips have no DDR of their own.
    fn cann_sim_aclrtGetMemInfo(attribute: i32, free: *mut usize, total: *mut usize) {
        // SAFETY: two outputs.
        let (out_free, out_total) = unsafe { (acl_out(free)?, acl_out(total)?) };
        let (free, total) = match attribute {
            1 | 4 | 5 | 8..=17 => context::current()?.device.heap.memory_info(),
            0 | 2 | 3 | 6 | 7 => (0, 0),
            other => return Err(Fail::new(acl::PARAM_INVALID, format!("{other} is no memory attribute"))),
        };
        out_free.set(free);
        out_total.set(total);
        Ok(())
    }
}
