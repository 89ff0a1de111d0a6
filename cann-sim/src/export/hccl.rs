//! Communicators and one-sided operations.

use std::ffi::{CStr, c_char, c_void};

use super::{array, export, hccl_out};
use crate::abi::{CommMemory, CommunicatorConfig, OneSideDescriptor, PrepareConfig};
use crate::communicator::{self, Communicator};
use crate::copy::Direction;
use crate::handle::to_pointer;
use crate::status::{Fail, Outcome, hccl};
use crate::{one_sided, region};
use std::sync::Arc;

/// What a config must begin with.
const CONFIG_MAGIC: u32 = 0xF0F0_F0F0;
/// Bytes of the config that the simulator reads; every later version begins with them (facts 2.2).
const CONFIG_BYTES: usize = 300;
/// The shortest config that has a name.
const CONFIG_WITH_NAME_BYTES: usize = 160;

/// Refuses NULL as HCCL does.
pub fn require(condition: bool, what: &str) -> Outcome {
    if condition { Ok(()) } else { Err(Fail::new(hccl::E_PTR, what)) }
}

/// The communicator of a handle.
pub fn resolve(handle: *mut c_void) -> Outcome<Arc<Communicator>> {
    require(!handle.is_null(), "the communicator is NULL")?;
    communicator::resolve(handle as usize)
}

/// The name in a config, and whether its traffic class and service level are valid; newer and older configs
/// than our own are accepted, fields count from their version on.
///
/// # Safety
///
/// `config` is good for reading as many bytes as its first field says.
unsafe fn read_config(config: *const CommunicatorConfig) -> Outcome<(String, bool)> {
    // SAFETY: every config begins with its size; alignment is not relied on.
    let size = unsafe { config.cast::<u64>().read_unaligned() };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size < CONFIG_WITH_NAME_BYTES {
        return Err(Fail::new(hccl::E_PARA, format!("a config of {size} bytes has no name")));
    }
    // SAFETY: all bytes zero is a valid value of this plain struct.
    let mut copy: CommunicatorConfig = unsafe { std::mem::zeroed() };
    // SAFETY: at most the caller's size is read and at most our struct's 300 bytes are written.
    unsafe {
        std::ptr::copy_nonoverlapping(
            config.cast::<u8>(),
            (&raw mut copy).cast::<u8>(),
            size.min(CONFIG_BYTES),
        );
    }
    if copy.magic != CONFIG_MAGIC {
        return Err(Fail::new(
            hccl::E_PARA,
            format!("the config's magic is {:#x}; initialise it first", copy.magic),
        ));
    }
    if copy.version < 2 {
        return Ok((String::new(), true));
    }
    let is_valid = |value: u32, most: u32| value <= most || value == u32::MAX;
    let has_quality = copy.version >= 5 && size >= CONFIG_BYTES;
    let quality_is_valid =
        !has_quality || (is_valid(copy.traffic_class, 255) && is_valid(copy.service_level, 7));
    let end = copy.name.iter().position(|byte| *byte == 0).unwrap_or(copy.name.len());
    let name = String::from_utf8_lossy(copy.name.get(..end).unwrap_or_default()).into_owned();
    Ok((name, quality_is_valid))
}

fn batch(
    handle: *mut c_void,
    remote_rank: u32,
    descriptors: *mut OneSideDescriptor,
    count: u32,
    stream: *mut c_void,
    direction: Direction,
) -> Outcome {
    let communicator = resolve(handle)?;
    require(!stream.is_null() && !descriptors.is_null(), "the stream or the descriptor array is NULL")?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > one_sided::DESCRIPTOR_LIMIT {
        return Err(Fail::new(
            hccl::E_PARA,
            format!("{count} descriptors are more than {}", one_sided::DESCRIPTOR_LIMIT),
        ));
    }
    // SAFETY: the array has `count` descriptors by the prototype.
    let descriptors = unsafe { array(descriptors.cast_const(), count, hccl::E_PTR)? };
    one_sided::submit(&communicator, remote_rank, descriptors, stream as usize, direction)
}

export! {
    /// `HcclCommInitClusterInfoMemConfig`: the first argument is the JSON text itself.
    fn cann_sim_HcclCommInitClusterInfoMemConfig(
        table: *const c_char,
        rank: u32,
        config: *mut CommunicatorConfig,
        handle: *mut *mut c_void,
    ) {
        require(!table.is_null() && !config.is_null(), "the rank table or the config is NULL")?;
        // SAFETY: one output, a NUL-terminated text and a config by the prototype.
        let (out, table, (name, quality_is_valid)) =
            unsafe { (hccl_out(handle)?, CStr::from_ptr(table), read_config(config)?) };
        let table = table.to_str().map_err(|_| Fail::new(hccl::E_PARA, "the rank table is not UTF-8"))?;
        out.set(to_pointer(communicator::create(table, rank, &name, quality_is_valid)?));
        Ok(())
    }

    /// `HcclCommDestroy`.
    fn cann_sim_HcclCommDestroy(handle: *mut c_void) {
        require(!handle.is_null(), "the communicator is NULL")?;
        communicator::destroy(handle as usize)
    }

    /// `HcclRegisterGlobalMem`.
    fn cann_sim_HcclRegisterGlobalMem(memory: *const CommMemory, handle: *mut *mut c_void) {
        require(!memory.is_null(), "the memory is NULL")?;
        // SAFETY: one output and one readable struct by the prototype.
        let (out, memory) = unsafe { (hccl_out(handle)?, memory.read_unaligned()) };
        if memory.address.is_null() || memory.size == 0 {
            return Err(Fail::new(hccl::E_PARA, "the address is NULL or the size 0"));
        }
        let user_id = communicator::current_device()?.user_id;
        out.set(to_pointer(region::register(user_id, memory.kind, memory.address as usize, memory.size)?));
        Ok(())
    }

    /// `HcclDeregisterGlobalMem`.
    fn cann_sim_HcclDeregisterGlobalMem(handle: *mut c_void) {
        require(!handle.is_null(), "the handle is NULL")?;
        region::deregister(communicator::current_device()?.user_id, handle as usize)
    }

    /// `HcclCommBindMem`.
    fn cann_sim_HcclCommBindMem(handle: *mut c_void, memory: *mut c_void) {
        let communicator = resolve(handle)?;
        require(!memory.is_null(), "the memory handle is NULL")?;
        communicator.bind(memory as usize)
    }

    /// `HcclCommUnbindMem`.
    fn cann_sim_HcclCommUnbindMem(handle: *mut c_void, memory: *mut c_void) {
        let communicator = resolve(handle)?;
        require(!memory.is_null(), "the memory handle is NULL")?;
        communicator.unbind(memory as usize)
    }

    /// `HcclCommPrepare`.
    fn cann_sim_HcclCommPrepare(handle: *mut c_void, config: *const PrepareConfig, timeout_seconds: i32) {
        let communicator = resolve(handle)?;
        require(!config.is_null(), "the config is NULL")?;
        // SAFETY: one readable struct by the prototype.
        let topology = unsafe { config.read_unaligned() }.topology;
        if topology != 0 {
            // The number is inferred: callers pass 0, the only topology that the facts name.
            return Err(Fail::new(hccl::E_NOT_SUPPORT, format!("topology {topology} is not full mesh")));
        }
        communicator.prepare(timeout_seconds)
    }

    /// `HcclBatchPut`.
    fn cann_sim_HcclBatchPut(
        handle: *mut c_void,
        remote_rank: u32,
        descriptors: *mut OneSideDescriptor,
        count: u32,
        stream: *mut c_void,
    ) {
        batch(handle, remote_rank, descriptors, count, stream, Direction::Write)
    }

    /// `HcclBatchGet`.
    fn cann_sim_HcclBatchGet(
        handle: *mut c_void,
        remote_rank: u32,
        descriptors: *mut OneSideDescriptor,
        count: u32,
        stream: *mut c_void,
    ) {
        batch(handle, remote_rank, descriptors, count, stream, Direction::Read)
    }

    /// `HcclRemapRegistedMemory`: nothing is ever unmapped here.
    fn cann_sim_HcclRemapRegistedMemory(
        handles: *mut *mut c_void,
        memory: *mut CommMemory,
        handle_count: u64,
        memory_count: u64,
    ) {
        let (handle_count, memory_count) = (usize::try_from(handle_count), usize::try_from(memory_count));
        // SAFETY: array lengths by the prototype.
        let handles = unsafe { array(handles.cast_const(), handle_count.unwrap_or(0), hccl::E_PTR)? };
        // SAFETY: array lengths by the prototype.
        unsafe { array(memory.cast_const(), memory_count.unwrap_or(0), hccl::E_PTR)? };
        for handle in handles {
            resolve(*handle)?;
        }
        Ok(())
    }

    /// `HcclGetCommName`: at most 128 bytes.
    fn cann_sim_HcclGetCommName(handle: *mut c_void, name: *mut c_char) {
        let communicator = resolve(handle)?;
        require(!name.is_null(), "the name is NULL")?;
        let bytes = communicator.name.as_bytes();
        let length = bytes.len().min(127);
        // SAFETY: the caller gives 128 bytes by the vendor's documentation; 127 and a NUL are written at most.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), name.cast::<u8>(), length);
            name.add(length).write(0);
        }
        Ok(())
    }

    /// `HcclGetRankId`.
    fn cann_sim_HcclGetRankId(handle: *mut c_void, rank: *mut u32) {
        // SAFETY: one output.
        let out = unsafe { hccl_out(rank)? };
        out.set(resolve(handle)?.rank);
        Ok(())
    }

    /// `HcclGetRankSize`.
    fn cann_sim_HcclGetRankSize(handle: *mut c_void, size: *mut u32) {
        // SAFETY: one output.
        let out = unsafe { hccl_out(size)? };
        out.set(resolve(handle)?.size);
        Ok(())
    }

    /// Functions of HCCL that exist and are out of scope.
    fn cann_sim_unsupported_hccl(_first: *mut c_void) {
        Err(Fail::new(hccl::E_NOT_SUPPORT, "the software NPU does not have this operation"))
    }
}

/// `HcclGetErrorString`.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the private name is the vendor's with a prefix")]
pub extern "C" fn cann_sim_HcclGetErrorString(code: i32) -> *const c_char {
    hccl::name(code).as_ptr()
}
