//! The 64 functions of the master and their ids.

use crate::md5;

const PREFIX: &str = "mooncake::WrappedMasterService::";

/// The id of a function: the first word of the MD5 of its full name. Its signature is not part of it.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, where a wrong index is a build error"
)]
const fn id_of(name: &str) -> u32 {
    let mut full = [0u8; 96];
    let mut length = 0;
    while length < PREFIX.len() {
        full[length] = PREFIX.as_bytes()[length];
        length += 1;
    }
    let mut index = 0;
    while index < name.len() {
        full[length] = name.as_bytes()[index];
        length += 1;
        index += 1;
    }
    md5::first_word(&full, length)
}

macro_rules! functions {
    ($($name:ident,)*) => {
        /// A function of the master.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the names are upstream's; what each does stands at its request type")]
        pub enum Function {
            $($name,)*
        }

        impl Function {
            /// Every function, in the order of upstream's registration.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The method's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The id in the frame header.
            #[must_use]
            pub const fn id(self) -> u32 {
                match self {
                    $(Self::$name => const { id_of(stringify!($name)) },)*
                }
            }

            /// The function with this id.
            #[must_use]
            pub fn from_id(id: u32) -> Option<Self> {
                $(
                    if id == const { id_of(stringify!($name)) } {
                        return Some(Self::$name);
                    }
                )*
                None
            }
        }
    };
}

functions! {
    ServiceReady,
    Ping,
    GetFsdir,
    GetStorageConfig,
    MountSegment,
    ReMountSegment,
    UnmountSegment,
    ExistKey,
    BatchExistKey,
    GetReplicaList,
    BatchGetReplicaList,
    GetReplicaListByRegex,
    BatchQueryIp,
    BatchReplicaClear,
    PutStart,
    PutEnd,
    PutRevoke,
    BatchPutStart,
    BatchPutEnd,
    BatchPutRevoke,
    Remove,
    RemoveByRegex,
    RemoveAll,
    MountLocalDiskSegment,
    OffloadObjectHeartbeat,
    NotifyOffloadSuccess,
    CreateCopyTask,
    CreateMoveTask,
    QueryTask,
    FetchTasks,
    MarkTaskToComplete,
    CopyStart,
    CopyEnd,
    CopyRevoke,
    MoveStart,
    MoveEnd,
    MoveRevoke,
    EvictDiskReplica,
    UpsertStart,
    UpsertEnd,
    UpsertRevoke,
    BatchUpsertStart,
    BatchUpsertEnd,
    BatchUpsertRevoke,
    BatchRemove,
    BatchEvictDiskReplica,
    QuerySegmentStatus,
    MountNoFSegment,
    ReMountNoFSegment,
    GracefulUnmountSegment,
    UnmountNoFSegment,
    GetAllNoFSegments,
    GetNoFSegmentsByName,
    ReportSsdCapacity,
    PromotionObjectHeartbeat,
    PromotionAllocStart,
    NotifyPromotionSuccess,
    NotifyPromotionFailure,
    QuerySegmentStatusById,
    PollRemoveAll,
    UnmountLocalDiskSegment,
    DynamicReplicaCopyStart,
    DynamicReplicaCopyEnd,
    DynamicReplicaCopyRevoke,
}

impl std::fmt::Display for Function {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}
