//! Layouts of the vendor's structs that cross the C boundary (facts 1.3 and 2.2), declared here once more and on
//! purpose not shared with `cann-sys`: two independent readings of the facts check each other.

use std::ffi::c_void;

/// `aclrtMemLocation`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryLocation {
    /// Device id for device memory.
    pub id: u32,
    /// 0 host, 1 device, 2 unregistered, 4 host memory of a NUMA node.
    pub kind: i32,
}

/// `aclrtPtrAttributes`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct PointerAttributes {
    /// Where the memory is.
    pub location: MemoryLocation,
    /// Page size in bytes.
    pub page_size: u32,
    /// Reserved.
    pub reserved: [u32; 4],
}

/// `aclrtMemcpyBatchAttr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct MemcpyBatchAttribute {
    /// Where the target is.
    pub target: MemoryLocation,
    /// Where the source is.
    pub source: MemoryLocation,
    /// Must be zero.
    pub reserved: [u8; 16],
}

/// `aclrtPhysicalMemProp`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct PhysicalMemoryProperties {
    /// 0 none, 2 POSIX.
    pub handle_kind: i32,
    /// 0 is pinned.
    pub allocation_kind: i32,
    /// `aclrtMemAttr`.
    pub attribute: i32,
    /// Where.
    pub location: MemoryLocation,
    /// Reserved.
    pub reserved: u64,
}

/// `aclrtMemAccessDesc`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryAccess {
    /// 0 none, 1 read, 3 read and write.
    pub flags: i32,
    /// Who.
    pub location: MemoryLocation,
    /// Reserved.
    pub reserved: [u8; 12],
}

/// `aclrtServerPid`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ServerProcesses {
    /// Super pod device id.
    pub super_device_id: u32,
    /// Process ids on that server.
    pub process_ids: *mut i32,
    /// Their number.
    pub count: usize,
}

/// `HcclMemDesc`: opaque but for the two ranks in front.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MemoryDescription {
    /// The rank that registered the memory.
    pub local_rank: u32,
    /// The rank it is registered for.
    pub remote_rank: u32,
    /// What is there: see [`crate::description`].
    pub words: [u64; 4],
    /// Unused.
    pub rest: [u8; 472],
}

/// `HcclMemDescs`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct MemoryDescriptions {
    /// First.
    pub array: *mut MemoryDescription,
    /// Room, or number.
    pub length: u32,
}

/// `CommMem`, earlier `HcclMem`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CommMemory {
    /// 0 device, 1 host.
    pub kind: i32,
    /// First byte.
    pub address: *mut c_void,
    /// Length in bytes.
    pub size: u64,
}

/// `HcclOneSideOpDesc`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct OneSideDescriptor {
    /// Address in the caller's own memory.
    pub local: *mut c_void,
    /// Address in the owner's memory.
    pub remote: *mut c_void,
    /// Number of elements.
    pub count: u64,
    /// `HcclDataType`.
    pub data_type: i32,
}

/// `HcclPrepareConfig`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct PrepareConfig {
    /// 0 is full mesh.
    pub topology: i32,
    /// Reserved.
    pub reserved: [u64; 3],
}

/// The part of `HcclCommConfig` that the simulator reads: the first 300 bytes, which never changed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CommunicatorConfig {
    /// Size of the struct the caller passes.
    pub size: u64,
    /// 0xF0F0F0F0.
    pub magic: u32,
    /// Version of the layout.
    pub version: u32,
    /// Reserved, zero.
    pub reserved: u64,
    /// Megabytes.
    pub buffer_size: u32,
    /// Deterministic reductions.
    pub deterministic: u32,
    /// Name of the communicator, NUL-terminated.
    pub name: [u8; 128],
    /// User-defined identity.
    pub identity: [u8; 128],
    /// Where collectives unfold.
    pub expansion_mode: u32,
    /// RDMA traffic class.
    pub traffic_class: u32,
    /// RDMA service level.
    pub service_level: u32,
}

const _: () = assert!(size_of::<MemoryLocation>() == 8);
const _: () = assert!(size_of::<PointerAttributes>() == 28);
const _: () = assert!(size_of::<MemcpyBatchAttribute>() == 32);
const _: () = assert!(size_of::<PhysicalMemoryProperties>() == 32);
const _: () = assert!(std::mem::offset_of!(PhysicalMemoryProperties, reserved) == 24);
const _: () = assert!(size_of::<MemoryAccess>() == 24);
const _: () = assert!(size_of::<ServerProcesses>() == 24);
const _: () = assert!(size_of::<MemoryDescription>() == 512);
const _: () = assert!(size_of::<MemoryDescriptions>() == 16);
const _: () = assert!(size_of::<CommMemory>() == 24);
const _: () = assert!(size_of::<OneSideDescriptor>() == 32);
const _: () = assert!(size_of::<PrepareConfig>() == 32);
const _: () = assert!(std::mem::offset_of!(CommunicatorConfig, name) == 32);
const _: () = assert!(std::mem::offset_of!(CommunicatorConfig, identity) == 160);
const _: () = assert!(std::mem::offset_of!(CommunicatorConfig, service_level) == 296);
