//! The internal model: one set of types for all releases. What a release lacks keeps its default.
//!
//! Master and client work with these types only; the layouts of each release stand in `profile`.

use std::sync::Arc;

/// A 128-bit id of a client, a segment or a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid {
    /// First half.
    pub first: u64,
    /// Second half.
    pub second: u64,
}

impl std::fmt::Display for Uuid {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}-{}", self.first, self.second)
    }
}

/// A stretch of memory that a client lends to the pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Segment {
    /// Made by the client; stays the same when the segment is mounted again.
    pub id: Uuid,
    /// The client's `local_hostname`; several segments may share it.
    pub name: String,
    /// First address in the owner's memory; not 0.
    pub base: u64,
    /// Length in bytes; not 0.
    pub size: u64,
    /// Where the owner's transfer engine listens.
    pub te_endpoint: String,
    /// Protocol of the owner's transfer engine.
    pub protocol: String,
    /// Host part of the owner's name; empty for loopback, and in releases before 0.3.12.
    pub host_id: String,
}

/// One contiguous buffer in a segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Buffer {
    /// Length in bytes.
    pub size: u64,
    /// Address in the owner's memory.
    pub address: u64,
    /// Protocol of the owner's transfer engine.
    pub protocol: Arc<str>,
    /// Where the owner's transfer engine listens.
    pub endpoint: Arc<str>,
}

/// A file that holds a whole object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disk {
    /// Path of the file.
    pub path: String,
    /// Length of the object in bytes.
    pub size: u64,
}

/// An object on the disk of one client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalDisk {
    /// The client.
    pub client: Uuid,
    /// Length of the object in bytes.
    pub size: u64,
    /// Where the client answers.
    pub endpoint: String,
}

/// A range of a file in a distributed file system.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DistributedFile {
    /// Path of the file.
    pub path: String,
    /// Offset of the object in the file, in bytes.
    pub offset: u64,
    /// Length of the object in bytes.
    pub size: u64,
    /// Length it takes in the file in bytes.
    pub aligned: u64,
    /// Which shard of the file.
    pub shard: i32,
}

/// Where a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// In the memory of a segment.
    Memory(Buffer),
    /// On an NVMe-over-fabrics device.
    NvmeOverFabrics(Buffer),
    /// In a file of a shared file system.
    Disk(Disk),
    /// On the disk of one client.
    LocalDisk(LocalDisk),
    /// In a distributed file system; since 0.3.13.
    DistributedFile(DistributedFile),
}

impl Default for Placement {
    fn default() -> Self {
        Self::Memory(Buffer::default())
    }
}

/// State of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplicaStatus {
    /// Not known, and every number that has no name.
    #[default]
    Undefined,
    /// Made.
    Initialized,
    /// Space is allocated, data is on its way.
    Processing,
    /// Readable.
    Complete,
    /// Taken away.
    Removed,
    /// The write failed.
    Failed,
}

impl ReplicaStatus {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Undefined => 0,
            Self::Initialized => 1,
            Self::Processing => 2,
            Self::Complete => 3,
            Self::Removed => 4,
            Self::Failed => 5,
        }
    }

    /// The state with this number.
    #[must_use]
    pub const fn from_code(code: i32) -> Self {
        match code {
            1 => Self::Initialized,
            2 => Self::Processing,
            3 => Self::Complete,
            4 => Self::Removed,
            5 => Self::Failed,
            _ => Self::Undefined,
        }
    }
}

/// One copy of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replica {
    /// Made by the master, unique in its life.
    pub id: u64,
    /// Where it is.
    pub placement: Placement,
    /// Its state.
    pub status: ReplicaStatus,
}

/// Which replicas a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaType(pub i32);

impl ReplicaType {
    /// In memory.
    pub const MEMORY: Self = Self(0);
    /// In a file of a shared file system.
    pub const DISK: Self = Self(1);
    /// On the disk of one client.
    pub const LOCAL_DISK: Self = Self(2);
    /// On an NVMe-over-fabrics device.
    pub const NVME_OVER_FABRICS: Self = Self(3);
    /// All of them.
    pub const ALL: Self = Self(4);
}

impl Default for ReplicaType {
    fn default() -> Self {
        Self::ALL
    }
}

/// What a put says about an object's soft pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SoftPinAction {
    /// Leave it as it is.
    #[default]
    Preserve,
    /// Pin it.
    Enable,
    /// Unpin it.
    Disable,
}

/// How an object is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicateConfig {
    /// Copies in memory.
    pub replica_num: u64,
    /// Copies on NVMe-over-fabrics devices.
    pub nof_replica_num: u64,
    /// Copies in a distributed file system; since 0.3.13.
    pub dfs_replica_num: u64,
    /// Before 0.3.13 a boolean: true is `Enable`, false is `Preserve`.
    pub soft_pin_action: SoftPinAction,
    /// How long the soft pin holds, in milliseconds; the master's default if absent. Since 0.3.13.
    pub soft_pin_ttl_ms: Option<u64>,
    /// Never evicted.
    pub with_hard_pin: bool,
    /// Segments by preference.
    pub preferred_segments: Vec<String>,
    /// The one preferred segment; wins over the list.
    pub preferred_segment: String,
    /// NVMe-over-fabrics segments by preference.
    pub preferred_nof_segments: Vec<String>,
    /// Prefer the node that already holds the first key of the batch.
    pub prefer_alloc_in_same_node: bool,
    /// What the bytes are; the master only stores it.
    pub data_type: u8,
    /// Host of the writer; since 0.3.12.
    pub host_id: String,
    /// Eviction group of each key; since 0.3.12.
    pub group_ids: Option<Vec<String>>,
}

impl Default for ReplicateConfig {
    fn default() -> Self {
        Self {
            replica_num: 1,
            nof_replica_num: 0,
            dfs_replica_num: 0,
            soft_pin_action: SoftPinAction::Preserve,
            soft_pin_ttl_ms: None,
            with_hard_pin: false,
            preferred_segments: Vec::new(),
            preferred_segment: String::new(),
            preferred_nof_segments: Vec::new(),
            prefer_alloc_in_same_node: false,
            data_type: 0,
            host_id: String::new(),
            group_ids: None,
        }
    }
}

/// A key at the end of its put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ObjectMeta<'a> {
    /// The key.
    pub key: &'a [u8],
    /// CRC-64 of the object; since 0.3.13.
    pub checksum: Option<u64>,
}

/// The readable replicas of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicaList {
    /// The replicas.
    pub replicas: Vec<Replica>,
    /// How long from the call on the object is not evicted, in milliseconds.
    pub lease_ttl_ms: u64,
    /// CRC-64 of the object, if its writer gave one; since 0.3.13.
    pub checksum: Option<u64>,
}

/// What the master thinks of the client that pinged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PingAnswer {
    /// Generation of the master's view; some releases send it uninitialised, so it means nothing.
    pub view_version: i64,
    /// 1: known, 2: mount everything again. Others: not known.
    pub client_status: i32,
}

impl PingAnswer {
    /// The client is known.
    pub const OK: i32 = 1;
    /// The client is to mount its segments again.
    pub const NEED_REMOUNT: i32 = 2;
}

/// The master's shared file system.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StorageConfig {
    /// Root directory; empty is none.
    pub fsdir: String,
    /// Whether files are evicted.
    pub enable_disk_eviction: bool,
    /// Bytes the files may take; 0 is unlimited.
    pub quota_bytes: u64,
}

/// A task for a client; no master of ours makes any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskAssignment {
    /// The task.
    pub id: Uuid,
    /// What to do.
    pub kind: i32,
    /// Its arguments, in a form of its own.
    pub payload: String,
    /// When it was made, in milliseconds.
    pub created_at_ms: i64,
    /// How often it may be tried.
    pub max_retry_attempts: u32,
}

/// The tenant a call is for; releases before 0.3.12 have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenant<'a>(pub &'a [u8]);

impl Tenant<'_> {
    /// The tenant of everybody who names none.
    pub const DEFAULT: &'static [u8] = b"default";
}

impl Default for Tenant<'_> {
    fn default() -> Self {
        Self(Self::DEFAULT)
    }
}
