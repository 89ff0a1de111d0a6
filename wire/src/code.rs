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
    /// Success.
    OK = 0;
    /// An error inside the master or the client.
    INTERNAL_ERROR = -1;
    /// The value does not fit in the buffer.
    BUFFER_OVERFLOW = -10;
    /// The master was asked for a shard that it does not have.
    SHARD_INDEX_OUT_OF_RANGE = -100;
    /// No such segment is mounted.
    SEGMENT_NOT_FOUND = -101;
    /// The segment is mounted already.
    SEGMENT_ALREADY_EXISTS = -102;
    /// The client is not known.
    CLIENT_NOT_FOUND = -103;
    /// The pool has no space.
    NO_AVAILABLE_HANDLE = -200;
    /// The peer has another version.
    INVALID_VERSION = -300;
    /// The key is not acceptable.
    INVALID_KEY = -400;
    /// Writing the object failed.
    WRITE_FAIL = -500;
    /// An argument is not acceptable.
    INVALID_PARAMS = -600;
    /// The object belongs to another client.
    ILLEGAL_CLIENT = -601;
    /// The object is not in a state that can be written.
    INVALID_WRITE = -700;
    /// The object cannot be read that way.
    INVALID_READ = -701;
    /// The replica is not of a kind that can serve the call.
    INVALID_REPLICA = -702;
    /// The object is being written.
    REPLICA_IS_NOT_READY = -703;
    /// The object does not exist.
    OBJECT_NOT_FOUND = -704;
    /// The object exists.
    OBJECT_ALREADY_EXISTS = -705;
    /// A reader holds a lease on the object.
    OBJECT_HAS_LEASE = -706;
    /// The lease ended before the read did.
    LEASE_EXPIRED = -707;
    /// The object is being copied or moved.
    OBJECT_HAS_REPLICATION_TASK = -708;
    /// The object is not being copied or moved.
    OBJECT_NO_REPLICATION_TASK = -709;
    /// The object has no such replica.
    REPLICA_NOT_FOUND = -710;
    /// The object has such a replica already.
    REPLICA_ALREADY_EXISTS = -711;
    /// The replica went away meanwhile.
    REPLICA_IS_GONE = -712;
    /// The replica is not in the memory of this client.
    REPLICA_NOT_IN_LOCAL_MEMORY = -713;
    /// The replica is in use.
    OBJECT_REPLICA_BUSY = -714;
    /// Moving the data failed.
    TRANSFER_FAIL = -800;
    /// The bytes that arrived are not those that were put.
    CHECKSUM_MISMATCH = -801;
    /// The master could not be called.
    RPC_FAIL = -900;
    /// The master did not answer in time.
    RPC_TIMEOUT = -901;
    /// Etcd operation error.
    ETCD_OPERATION_ERROR = -1000;
    /// Etcd key not exist.
    ETCD_KEY_NOT_EXIST = -1001;
    /// Etcd transaction fail.
    ETCD_TRANSACTION_FAIL = -1002;
    /// Etcd ctx cancelled.
    ETCD_CTX_CANCELLED = -1003;
    /// Oplog entry not found.
    OPLOG_ENTRY_NOT_FOUND = -1004;
    /// K8s lease operation error.
    K8S_LEASE_OPERATION_ERROR = -1005;
    /// K8s lease not found.
    K8S_LEASE_NOT_FOUND = -1006;
    /// Incomplete oplog catch up.
    INCOMPLETE_OPLOG_CATCH_UP = -1007;
    /// The service cannot do that in its present state.
    UNAVAILABLE_IN_CURRENT_STATUS = -1010;
    /// The service was not started with this feature.
    UNAVAILABLE_IN_CURRENT_MODE = -1011;
    /// The feature is not offered.
    NOT_SUPPORTED = -1012;
    /// File not found.
    FILE_NOT_FOUND = -1100;
    /// File open fail.
    FILE_OPEN_FAIL = -1101;
    /// File read fail.
    FILE_READ_FAIL = -1102;
    /// File write fail.
    FILE_WRITE_FAIL = -1103;
    /// File invalid buffer.
    FILE_INVALID_BUFFER = -1104;
    /// File lock fail.
    FILE_LOCK_FAIL = -1105;
    /// File invalid handle.
    FILE_INVALID_HANDLE = -1106;
    /// Bucket not found.
    BUCKET_NOT_FOUND = -1200;
    /// Bucket already exists.
    BUCKET_ALREADY_EXISTS = -1201;
    /// Keys exceed bucket limit.
    KEYS_EXCEED_BUCKET_LIMIT = -1202;
    /// Keys ultra limit.
    KEYS_ULTRA_LIMIT = -1203;
    /// Unable offload.
    UNABLE_OFFLOAD = -1300;
    /// Unable offloading.
    UNABLE_OFFLOADING = -1301;
    /// Task not found.
    TASK_NOT_FOUND = -1400;
    /// Task pending limit exceeded.
    TASK_PENDING_LIMIT_EXCEEDED = -1401;
    /// Job not found.
    JOB_NOT_FOUND = -1402;
    /// Serialize unsupported.
    SERIALIZE_UNSUPPORTED = -1500;
    /// Serialize fail.
    SERIALIZE_FAIL = -1501;
    /// Deserialize fail.
    DESERIALIZE_FAIL = -1502;
    /// Persistent fail.
    PERSISTENT_FAIL = -1503;
    /// Dfs network timeout.
    DFS_NETWORK_TIMEOUT = -1600;
    /// Dfs service unavailable.
    DFS_SERVICE_UNAVAILABLE = -1601;
    /// Dfs quota exceeded.
    DFS_QUOTA_EXCEEDED = -1602;
    /// Dfs permission denied.
    DFS_PERMISSION_DENIED = -1603;
    /// Dfs stale handle.
    DFS_STALE_HANDLE = -1604;
    /// Dfs partial write.
    DFS_PARTIAL_WRITE = -1605;
    /// Tenant quota exceeded.
    TENANT_QUOTA_EXCEEDED = -1700;
    /// Tenant not registered.
    TENANT_NOT_REGISTERED = -1701;
    /// Tenant not empty.
    TENANT_NOT_EMPTY = -1702;
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} ({})", self.name(), self.0)
    }
}

impl std::error::Error for ErrorCode {}
