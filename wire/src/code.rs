//! The result codes of the store: they cross the wire, and Python and C return them as they are.

/// A result code of the store; 0 is success, all others are negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ErrorCode(pub i32);

/// What a call of the store answers.
pub type Outcome<T> = Result<T, ErrorCode>;

macro_rules! codes {
    ($($(#[doc = $sentence:literal])+ $name:ident = $value:literal;)*) => {
        impl ErrorCode {
            $($(#[doc = $sentence])+ pub const $name: Self = Self($value);)*

            /// Every code that has a name.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code's name as upstream prints it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($value => stringify!($name),)*
                    _ => "UNKNOWN_ERROR",
                }
            }

            /// What the code means, in one sentence.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self.0 {
                    $($value => concat!($($sentence),+).trim_ascii(),)*
                    _ => "A code that this release does not know.",
                }
            }
        }
    };
}

codes! {
    /// Done.
    OK = 0;
    /// The client or the master failed in a way that no other code names.
    INTERNAL_ERROR = -1;
    /// A buffer is too small for what it should hold.
    BUFFER_OVERFLOW = -10;
    /// The master asked for a part of its table that does not exist.
    SHARD_INDEX_OUT_OF_RANGE = -100;
    /// The pool has no segment of that name or id.
    SEGMENT_NOT_FOUND = -101;
    /// The pool has a segment of that id already.
    SEGMENT_ALREADY_EXISTS = -102;
    /// The master does not know this client.
    CLIENT_NOT_FOUND = -103;
    /// The pool is full: no segment has room for the object.
    NO_AVAILABLE_HANDLE = -200;
    /// Client and master speak different versions.
    INVALID_VERSION = -300;
    /// The key cannot be used.
    INVALID_KEY = -400;
    /// The master could not write.
    WRITE_FAIL = -500;
    /// An argument cannot be used, or the store is not set up.
    INVALID_PARAMS = -600;
    /// The object belongs to another client.
    ILLEGAL_CLIENT = -601;
    /// The object is in no state that can be written.
    INVALID_WRITE = -700;
    /// The object is in no state that can be read.
    INVALID_READ = -701;
    /// The copy is in no usable state.
    INVALID_REPLICA = -702;
    /// The object is still being written.
    REPLICA_IS_NOT_READY = -703;
    /// There is no object of that key.
    OBJECT_NOT_FOUND = -704;
    /// There is an object of that key already.
    OBJECT_ALREADY_EXISTS = -705;
    /// The object may be in use: its lease has not ended.
    OBJECT_HAS_LEASE = -706;
    /// The lease ended before the read did, so that the bytes cannot be trusted.
    LEASE_EXPIRED = -707;
    /// The object is being copied or moved.
    OBJECT_HAS_REPLICATION_TASK = -708;
    /// The object is not being copied or moved.
    OBJECT_NO_REPLICATION_TASK = -709;
    /// There is no such copy of the object.
    REPLICA_NOT_FOUND = -710;
    /// There is such a copy of the object already.
    REPLICA_ALREADY_EXISTS = -711;
    /// The copy went away meanwhile.
    REPLICA_IS_GONE = -712;
    /// The copy does not lie in this client's memory.
    REPLICA_NOT_IN_LOCAL_MEMORY = -713;
    /// A copy of the object is in use.
    OBJECT_REPLICA_BUSY = -714;
    /// The bytes could not be moved; the last error says between whom and why.
    TRANSFER_FAIL = -800;
    /// The bytes are not those that were stored.
    CHECKSUM_MISMATCH = -801;
    /// The master does not answer, or answered what cannot be understood.
    RPC_FAIL = -900;
    /// The master did not answer in time.
    RPC_TIMEOUT = -901;
    /// An operation of the metadata service failed.
    ETCD_OPERATION_ERROR = -1000;
    /// The metadata service has no such key.
    ETCD_KEY_NOT_EXIST = -1001;
    /// A transaction of the metadata service failed.
    ETCD_TRANSACTION_FAIL = -1002;
    /// An operation of the metadata service was cancelled.
    ETCD_CTX_CANCELLED = -1003;
    /// The master's operation log has no such entry.
    OPLOG_ENTRY_NOT_FOUND = -1004;
    /// An operation on the cluster's lease failed.
    K8S_LEASE_OPERATION_ERROR = -1005;
    /// The cluster has no such lease.
    K8S_LEASE_NOT_FOUND = -1006;
    /// The master has not read its operation log to the end.
    INCOMPLETE_OPLOG_CATCH_UP = -1007;
    /// The master cannot do this in its present state.
    UNAVAILABLE_IN_CURRENT_STATUS = -1010;
    /// The master does not do this in its mode of operation.
    UNAVAILABLE_IN_CURRENT_MODE = -1011;
    /// This is not offered.
    NOT_SUPPORTED = -1012;
    /// There is no such file.
    FILE_NOT_FOUND = -1100;
    /// The file cannot be opened.
    FILE_OPEN_FAIL = -1101;
    /// The file cannot be read.
    FILE_READ_FAIL = -1102;
    /// The file cannot be written.
    FILE_WRITE_FAIL = -1103;
    /// The file's buffer cannot be used.
    FILE_INVALID_BUFFER = -1104;
    /// The file cannot be locked.
    FILE_LOCK_FAIL = -1105;
    /// The file is not open.
    FILE_INVALID_HANDLE = -1106;
    /// There is no such bucket on the disk.
    BUCKET_NOT_FOUND = -1200;
    /// There is such a bucket on the disk already.
    BUCKET_ALREADY_EXISTS = -1201;
    /// A bucket on the disk has too many keys.
    KEYS_EXCEED_BUCKET_LIMIT = -1202;
    /// The disk has too many keys.
    KEYS_ULTRA_LIMIT = -1203;
    /// The object cannot be copied to a disk.
    UNABLE_OFFLOAD = -1300;
    /// The object cannot be copied to a disk now.
    UNABLE_OFFLOADING = -1301;
    /// There is no such task.
    TASK_NOT_FOUND = -1400;
    /// Too many tasks are waiting.
    TASK_PENDING_LIMIT_EXCEEDED = -1401;
    /// There is no such job.
    JOB_NOT_FOUND = -1402;
    /// This cannot be written down.
    SERIALIZE_UNSUPPORTED = -1500;
    /// Writing down failed.
    SERIALIZE_FAIL = -1501;
    /// What was written down cannot be read.
    DESERIALIZE_FAIL = -1502;
    /// The master's state cannot be kept.
    PERSISTENT_FAIL = -1503;
    /// The shared file system did not answer in time.
    DFS_NETWORK_TIMEOUT = -1600;
    /// The shared file system is not available.
    DFS_SERVICE_UNAVAILABLE = -1601;
    /// The shared file system's quota is used up.
    DFS_QUOTA_EXCEEDED = -1602;
    /// The shared file system does not permit this.
    DFS_PERMISSION_DENIED = -1603;
    /// The shared file system has forgotten the file.
    DFS_STALE_HANDLE = -1604;
    /// The shared file system wrote only a part.
    DFS_PARTIAL_WRITE = -1605;
    /// The tenant's quota is used up.
    TENANT_QUOTA_EXCEEDED = -1700;
    /// The tenant is not known.
    TENANT_NOT_REGISTERED = -1701;
    /// The tenant still has objects.
    TENANT_NOT_EMPTY = -1702;
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} ({})", self.name(), self.0)
    }
}

impl std::error::Error for ErrorCode {}
