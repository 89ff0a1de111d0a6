//! IPC memory keys, reserved addresses and physical memory.

use std::ffi::{CStr, c_char, c_void};

use super::{Out, acl_out, acl_require, array, export};
use crate::abi::{MemoryAccess, PhysicalMemoryProperties, ServerProcesses};
use crate::device::by_user_id;
use crate::handle::to_pointer;
use crate::ipc_memory::{self, KEY_BYTES};
use crate::status::{Fail, Outcome, acl};
use crate::{context, virtual_memory};

/// Bytes of a fabric handle.
const FABRIC_HANDLE_BYTES: usize = 128;
/// What a fabric handle made here begins with.
const FABRIC_MAGIC: u64 = 0x6361_6e6e_6661_6272;

/// A key of the caller.
///
/// # Safety
///
/// `key` is NULL or a C string.
unsafe fn read_key(key: *const c_char) -> Outcome<String> {
    acl_require(!key.is_null(), "the key is NULL")?;
    // SAFETY: the caller's promise.
    Ok(unsafe { CStr::from_ptr(key) }.to_string_lossy().into_owned())
}

/// The number in a shareable handle of the newer calls.
///
/// # Safety
///
/// `handle` is NULL or as large as its kind says.
unsafe fn read_shareable(handle: *const c_void, kind: i32) -> Outcome<u64> {
    acl_require(!handle.is_null(), "the shareable handle is NULL")?;
    let words = handle.cast::<u64>();
    match kind {
        // SAFETY: a default handle is one number.
        1 => Ok(unsafe { words.read_unaligned() }),
        // SAFETY: a fabric handle has 128 bytes.
        2 => match unsafe { (words.read_unaligned(), words.add(1).read_unaligned()) } {
            (FABRIC_MAGIC, id) => Ok(id),
            _ => Err(Fail::new(acl::PARAM_INVALID, "this is no fabric handle")),
        },
        other => Err(Fail::new(acl::PARAM_INVALID, format!("{other} is no kind of shareable handle"))),
    }
}

export! {
    /// `aclrtIpcMemGetExportKey`: the key has 65 bytes with its NUL.
    fn cann_sim_aclrtIpcMemGetExportKey(address: *mut c_void, size: usize, key: *mut c_char, length: usize, flags: u64) {
        acl_require(!address.is_null() && !key.is_null() && size > 0, "an address is NULL or the size 0")?;
        if length != KEY_BYTES {
            return Err(Fail::new(acl::PARAM_INVALID, format!("a key has {KEY_BYTES} bytes, not {length}")));
        }
        let text = ipc_memory::export(address as usize, size, flags)?;
        let count = text.len().min(KEY_BYTES - 1);
        // SAFETY: the caller gives 65 bytes, as the length says; 64 and a NUL are written at most.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), key.cast::<u8>(), count);
            key.add(count).write(0);
        }
        Ok(())
    }

    /// `aclrtIpcMemSetImportPid`.
    fn cann_sim_aclrtIpcMemSetImportPid(key: *const c_char, process_ids: *mut i32, count: usize) {
        acl_require(count > 0, "no process is named")?;
        // SAFETY: a C string and an array of that length by the prototype.
        let (key, process_ids) = unsafe { (read_key(key)?, array(process_ids.cast_const(), count, acl::INVALID_PARAM)?) };
        ipc_memory::allow(&key, process_ids, false)
    }

    /// `aclrtIpcMemImportPidInterServer`: A3 only.
    fn cann_sim_aclrtIpcMemImportPidInterServer(key: *const c_char, servers: *mut ServerProcesses, count: usize) {
        acl_require(count > 0, "no server is named")?;
        // SAFETY: a C string and an array of that length by the prototype.
        let (key, servers) = unsafe { (read_key(key)?, array(servers.cast_const(), count, acl::INVALID_PARAM)?) };
        for server in servers {
            // SAFETY: each entry has its own array and length.
            let process_ids = unsafe { array(server.process_ids.cast_const(), server.count, acl::INVALID_PARAM)? };
            ipc_memory::allow(&key, process_ids, true)?;
        }
        Ok(())
    }

    /// `aclrtIpcMemSetAttr`.
    fn cann_sim_aclrtIpcMemSetAttr(key: *const c_char, _attribute: i32, _value: u64) {
        // SAFETY: a C string by the prototype.
        ipc_memory::set_attribute(&unsafe { read_key(key)? })
    }

    /// `aclrtIpcMemImportByKey`.
    fn cann_sim_aclrtIpcMemImportByKey(address: *mut *mut c_void, key: *const c_char, flags: u64) {
        // SAFETY: one output and a C string by the prototype.
        let (out, key) = unsafe { (acl_out(address)?, read_key(key)?) };
        out.set(to_pointer(ipc_memory::import(&key, flags)?));
        Ok(())
    }

    /// `aclrtIpcMemClose`.
    fn cann_sim_aclrtIpcMemClose(key: *const c_char) {
        // SAFETY: a C string by the prototype.
        ipc_memory::close(&unsafe { read_key(key)? })
    }

    /// `aclrtReserveMemAddress`: flags other than 0 and 1 are refused by the ACL layer.
    fn cann_sim_aclrtReserveMemAddress(address: *mut *mut c_void, size: usize, alignment: usize, expected: *mut c_void, flags: u64) {
        // SAFETY: one output.
        let out = unsafe { acl_out(address)? };
        acl_require(size > 0 && flags <= 1, "the size is 0 or the flags neither 0 nor 1")?;
        out.set(to_pointer(virtual_memory::reserve(size, alignment, expected as usize, false)?));
        Ok(())
    }

    /// `aclrtReserveMemAddressNoUCMemory`: A3 only.
    fn cann_sim_aclrtReserveMemAddressNoUCMemory(address: *mut *mut c_void, size: usize, alignment: usize, expected: *mut c_void, flags: u64) {
        // SAFETY: one output.
        let out = unsafe { acl_out(address)? };
        acl_require(size > 0 && flags <= 1, "the size is 0 or the flags neither 0 nor 1")?;
        out.set(to_pointer(virtual_memory::reserve(size, alignment, expected as usize, true)?));
        Ok(())
    }

    /// `aclrtReleaseMemAddress`.
    fn cann_sim_aclrtReleaseMemAddress(address: *mut c_void) {
        acl_require(!address.is_null(), "the address is NULL")?;
        virtual_memory::release(address as usize)
    }

    /// `aclrtMallocPhysical`.
    fn cann_sim_aclrtMallocPhysical(
        handle: *mut *mut c_void,
        size: usize,
        properties: *const PhysicalMemoryProperties,
        flags: u64,
    ) {
        acl_require(!properties.is_null() && size > 0, "the properties are NULL or the size 0")?;
        // SAFETY: one output and one readable struct by the prototype.
        let (out, properties) = unsafe { (acl_out(handle)?, properties.read_unaligned()) };
        out.set(to_pointer(virtual_memory::allocate(size, &properties, flags)?));
        Ok(())
    }

    /// `aclrtFreePhysical`.
    fn cann_sim_aclrtFreePhysical(handle: *mut c_void) {
        acl_require(!handle.is_null(), "the handle is NULL")?;
        virtual_memory::free(handle as usize)
    }

    /// `aclrtMapMem`.
    fn cann_sim_aclrtMapMem(address: *mut c_void, size: usize, offset: usize, handle: *mut c_void, flags: u64) {
        acl_require(!address.is_null() && !handle.is_null() && size > 0, "a pointer is NULL or the size 0")?;
        virtual_memory::map(address as usize, size, offset, handle as usize, flags)
    }

    /// `aclrtUnmapMem`.
    fn cann_sim_aclrtUnmapMem(address: *mut c_void) {
        acl_require(!address.is_null(), "the address is NULL")?;
        virtual_memory::unmap(address as usize)
    }

    /// `aclrtMemSetAccess`.
    fn cann_sim_aclrtMemSetAccess(address: *mut c_void, size: usize, accesses: *mut MemoryAccess, count: usize) {
        acl_require(!address.is_null() && size > 0 && count > 0, "the address is NULL, or a number is 0")?;
        // SAFETY: an array of that length by the prototype.
        let accesses = unsafe { array(accesses.cast_const(), count, acl::INVALID_PARAM)? };
        virtual_memory::set_access(address as usize, size, accesses)
    }

    /// `aclrtMemGetAllocationGranularity`.
    fn cann_sim_aclrtMemGetAllocationGranularity(properties: *mut PhysicalMemoryProperties, option: i32, granularity: *mut usize) {
        acl_require(!properties.is_null(), "the properties are NULL")?;
        // SAFETY: one output and one readable struct by the prototype.
        let (out, properties) = unsafe { (acl_out(granularity)?, properties.read_unaligned()) };
        out.set(virtual_memory::granularity(&properties, option)?);
        Ok(())
    }

    /// `aclrtMemRetainAllocationHandle`.
    fn cann_sim_aclrtMemRetainAllocationHandle(address: *mut c_void, handle: *mut *mut c_void) {
        acl_require(!address.is_null(), "the address is NULL")?;
        // SAFETY: one output.
        let out = unsafe { acl_out(handle)? };
        out.set(to_pointer(virtual_memory::retain(address as usize)?));
        Ok(())
    }

    /// `aclrtMemExportToShareableHandle`.
    fn cann_sim_aclrtMemExportToShareableHandle(handle: *mut c_void, kind: i32, flags: u64, shareable: *mut u64) {
        acl_require(!handle.is_null(), "the handle is NULL")?;
        // SAFETY: one output.
        let out = unsafe { acl_out(shareable)? };
        if kind != 0 {
            return Err(Fail::new(acl::PARAM_INVALID, format!("{kind} is no handle type")));
        }
        out.set(virtual_memory::export(handle as usize, flags, false)?);
        Ok(())
    }

    /// `aclrtMemImportFromShareableHandle`.
    fn cann_sim_aclrtMemImportFromShareableHandle(shareable: u64, device: i32, handle: *mut *mut c_void) {
        // SAFETY: one output.
        let out = unsafe { acl_out(handle)? };
        context::current()?;
        out.set(to_pointer(virtual_memory::import(shareable, by_user_id(device)?)?));
        Ok(())
    }

    /// `aclrtMemSetPidToShareableHandle`.
    fn cann_sim_aclrtMemSetPidToShareableHandle(shareable: u64, process_ids: *mut i32, count: usize) {
        acl_require(count > 0, "no process is named")?;
        // SAFETY: an array of that length by the prototype.
        virtual_memory::allow(shareable, unsafe { array(process_ids.cast_const(), count, acl::INVALID_PARAM)? })
    }

    /// `aclrtMemExportToShareableHandleV2`: kind 1 is a number, kind 2 a fabric handle of 128 bytes.
    fn cann_sim_aclrtMemExportToShareableHandleV2(handle: *mut c_void, flags: u64, kind: i32, shareable: *mut c_void) {
        acl_require(!handle.is_null() && !shareable.is_null(), "a handle is NULL")?;
        if !matches!(kind, 1 | 2) {
            return Err(Fail::new(acl::PARAM_INVALID, format!("{kind} is no kind of shareable handle")));
        }
        let id = virtual_memory::export(handle as usize, flags, kind == 2)?;
        if kind == 1 {
            // SAFETY: a default handle is one number.
            unsafe { Out::new(shareable.cast::<u64>(), acl::INVALID_PARAM)? }.set(id);
        } else {
            let mut words = [0_u64; FABRIC_HANDLE_BYTES / 8];
            let [magic, number, ..] = &mut words;
            (*magic, *number) = (FABRIC_MAGIC, id);
            // SAFETY: a fabric handle has 128 bytes.
            unsafe { Out::new(shareable.cast::<[u64; FABRIC_HANDLE_BYTES / 8]>(), acl::INVALID_PARAM)? }.set(words);
        }
        Ok(())
    }

    /// `aclrtMemImportFromShareableHandleV2`: for the current device.
    fn cann_sim_aclrtMemImportFromShareableHandleV2(shareable: *mut c_void, kind: i32, flags: u64, handle: *mut *mut c_void) {
        // SAFETY: one output; the shareable handle is as large as its kind says.
        let (out, id) = unsafe { (acl_out(handle)?, read_shareable(shareable, kind)?) };
        if flags != 0 {
            return Err(Fail::new(acl::PARAM_INVALID, format!("flags must be 0, not {flags}")));
        }
        out.set(to_pointer(virtual_memory::import(id, context::current()?.device)?));
        Ok(())
    }

    /// `aclrtMemSetPidToShareableHandleV2`.
    fn cann_sim_aclrtMemSetPidToShareableHandleV2(shareable: *mut c_void, kind: i32, process_ids: *mut i32, count: usize) {
        acl_require(count > 0, "no process is named")?;
        // SAFETY: the shareable handle is as large as its kind says, the array as long as the count.
        let (id, process_ids) = unsafe {
            (read_shareable(shareable, kind)?, array(process_ids.cast_const(), count, acl::INVALID_PARAM)?)
        };
        virtual_memory::allow(id, process_ids)
    }
}
