//! The C types of both headers, with their layouts asserted.
//!
//! Sizes and offsets are those of an LP64 machine (x86-64 and aarch64 Linux alike); the C side asserts the
//! same numbers in `tests/c/layout.c`.

use std::ffi::{c_char, c_int, c_void};
use std::mem::offset_of;

/// `transfer_engine_t`, `transport_t` and `mooncake_store_t`.
pub(crate) type Handle = *mut c_void;

/// `INVALID_BATCH`.
pub(crate) const INVALID_BATCH: u64 = u64::MAX;
/// `OPCODE_WRITE`; every other opcode reads.
pub(crate) const OPCODE_WRITE: c_int = 1;
/// `STATUS_WAITING`.
pub(crate) const STATUS_WAITING: c_int = 0;
/// `STATUS_COMPLETED`.
pub(crate) const STATUS_COMPLETED: c_int = 4;
/// `STATUS_FAILED`.
pub(crate) const STATUS_FAILED: c_int = 6;

/// `struct transfer_request`.
#[repr(C)]
pub(crate) struct TransferRequest {
    pub(crate) opcode: c_int,
    pub(crate) source: *mut c_void,
    pub(crate) target_id: i32,
    pub(crate) target_offset: u64,
    pub(crate) length: u64,
}

/// `struct transfer_status`.
#[repr(C)]
pub(crate) struct TransferStatus {
    pub(crate) status: c_int,
    pub(crate) transferred_bytes: u64,
}

/// `struct notify_msg`.
#[repr(C)]
pub(crate) struct NotifyMessage {
    pub(crate) name: *mut c_char,
    pub(crate) message: *mut c_char,
}

/// `struct buffer_entry`.
#[repr(C)]
pub(crate) struct BufferEntry {
    pub(crate) address: *mut c_void,
    pub(crate) length_bytes: usize,
}

/// `struct nic_load_stat`; never written, since no card is driven.
#[repr(C)]
pub(crate) struct NicLoadStat {
    device_name: [c_char; 64],
    inflight_bytes: u64,
    ewma_bandwidth_bps: f64,
}

/// `struct mooncake_transfer_options`.
#[repr(C)]
pub(crate) struct Options {
    pub(crate) struct_size: usize,
    pub(crate) metadata: *const c_char,
    pub(crate) local_name: *const c_char,
    pub(crate) device: i32,
    pub(crate) auto_discover: i32,
}

/// `struct mooncake_replicate_config`.
#[repr(C)]
pub(crate) struct ReplicateConfig {
    pub(crate) replica_num: usize,
    pub(crate) with_soft_pin: c_int,
    pub(crate) with_hard_pin: c_int,
    pub(crate) preferred_segments: *mut *const c_char,
    pub(crate) preferred_segments_count: usize,
}

/// `struct mooncake_transfer_store_options`.
#[repr(C)]
pub(crate) struct StoreOptions {
    pub(crate) struct_size: usize,
    pub(crate) local_hostname: *const c_char,
    pub(crate) metadata_server: *const c_char,
    pub(crate) protocol: *const c_char,
    pub(crate) device_names: *const c_char,
    pub(crate) master_address: *const c_char,
    pub(crate) tenant: *const c_char,
    pub(crate) global_segment_size_bytes: u64,
    pub(crate) local_buffer_size_bytes: u64,
    pub(crate) engine: Handle,
}

/// `struct mooncake_transfer_store_replication`.
#[repr(C)]
pub(crate) struct StoreReplication {
    pub(crate) struct_size: usize,
    pub(crate) replica_count: u64,
    pub(crate) soft_pin_ttl_ms: u64,
    pub(crate) soft_pin: i32,
    pub(crate) has_soft_pin_ttl: i32,
    pub(crate) hard_pin: i32,
    pub(crate) same_node: i32,
    pub(crate) data_type: i32,
    pub(crate) reserved: i32,
    pub(crate) preferred_segments: *const *const c_char,
    pub(crate) preferred_segment_count: usize,
    pub(crate) group_ids: *const *const c_char,
    pub(crate) group_id_count: usize,
}

/// `struct mooncake_transfer_error`.
#[repr(C)]
pub(crate) struct ErrorRecord {
    pub(crate) struct_size: usize,
    pub(crate) code: i32,
    pub(crate) stage: i32,
    pub(crate) negative: i32,
    pub(crate) status: i32,
    pub(crate) known: u32,
    pub(crate) device: i32,
    pub(crate) range_start: u64,
    pub(crate) range_length_bytes: u64,
    pub(crate) vendor_code: i32,
    pub(crate) reserved: i32,
    pub(crate) code_name: *const c_char,
    pub(crate) stage_name: *const c_char,
    pub(crate) message: *const c_char,
    pub(crate) peer: *const c_char,
    pub(crate) vendor_function: *const c_char,
    pub(crate) vendor_text: *const c_char,
    pub(crate) vendor_log: *const c_char,
    pub(crate) advice: *const c_char,
    pub(crate) text: *const c_char,
}

/// `mooncake_transfer_log_sink_t`, which may be NULL.
pub(crate) type LogSink = Option<
    unsafe extern "C" fn(user: *mut c_void, level: c_int, module: *const c_char, message: *const c_char),
>;

/// Asserts a size and any number of offsets.
macro_rules! layout {
    ($kind:ty, $size:literal, $($field:ident @ $offset:literal),* $(,)?) => {
        const _: () = {
            assert!(size_of::<$kind>() == $size);
            $(assert!(offset_of!($kind, $field) == $offset);)*
        };
    };
}

layout!(TransferRequest, 40, opcode @ 0, source @ 8, target_id @ 16, target_offset @ 24, length @ 32);
layout!(TransferStatus, 16, status @ 0, transferred_bytes @ 8);
layout!(NotifyMessage, 16, name @ 0, message @ 8);
layout!(BufferEntry, 16, address @ 0, length_bytes @ 8);
layout!(NicLoadStat, 80, device_name @ 0, inflight_bytes @ 64, ewma_bandwidth_bps @ 72);
layout!(Options, 32, struct_size @ 0, metadata @ 8, local_name @ 16, device @ 24, auto_discover @ 28);
layout!(
    ReplicateConfig, 32, replica_num @ 0, with_soft_pin @ 8, with_hard_pin @ 12, preferred_segments @ 16,
    preferred_segments_count @ 24,
);
layout!(
    StoreOptions, 80, struct_size @ 0, local_hostname @ 8, metadata_server @ 16, protocol @ 24, device_names @ 32,
    master_address @ 40, tenant @ 48, global_segment_size_bytes @ 56, local_buffer_size_bytes @ 64, engine @ 72,
);
layout!(
    StoreReplication, 80, struct_size @ 0, replica_count @ 8, soft_pin_ttl_ms @ 16, soft_pin @ 24,
    has_soft_pin_ttl @ 28, hard_pin @ 32, same_node @ 36, data_type @ 40, reserved @ 44, preferred_segments @ 48,
    preferred_segment_count @ 56, group_ids @ 64, group_id_count @ 72,
);
layout!(
    ErrorRecord, 128, struct_size @ 0, code @ 8, stage @ 12, negative @ 16, status @ 20, known @ 24,
    device @ 28, range_start @ 32, range_length_bytes @ 40, vendor_code @ 48, reserved @ 52, code_name @ 56,
    stage_name @ 64, message @ 72, peer @ 80, vendor_function @ 88, vendor_text @ 96, vendor_log @ 104,
    advice @ 112, text @ 120,
);
