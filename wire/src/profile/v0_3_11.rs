//! What release 0.3.11 spells in its own way, and the list of its functions.

use super::refused::{
    CopyAnswer, MoveAnswer, NofOwner, NofSegment, Promotion, StorageObject, TaskComplete, TaskState, Text,
    Texts,
};
use super::{Refused, Signature, V0_3_11, as_other, signatures};
use crate::codec::{Map, Pack, Reader, Shape, Unpack, Writer, layout};
use crate::error::DecodeError;
use crate::function::Function;
use crate::literal::Literal;
use crate::model::{ObjectMeta, Replica, ReplicaList, ReplicateConfig, Segment, SoftPinAction, Uuid};

layout!(
    V0_3_11,
    Segment { id: Uuid, name: String, base: u64, size: u64, te_endpoint: String, protocol: String }
);
layout!(V0_3_11, ReplicateConfig {
    replica_num: u64,
    nof_replica_num: u64,
    soft_pin_action: SoftPinAction,
    with_hard_pin: bool,
    preferred_segments: Vec<String>,
    preferred_segment: String,
    preferred_nof_segments: Vec<String>,
    prefer_alloc_in_same_node: bool,
    data_type: u8,
});
layout!(V0_3_11, ReplicaList { replicas: Vec<Replica>, lease_ttl_ms: u64 });

// A soft pin is a wish of the writer here: it is made or not, never taken back.
as_other!(
    [] V0_3_11, SoftPinAction, bool,
    |action| *action == SoftPinAction::Enable,
    |pinned| Ok(if pinned { SoftPinAction::Enable } else { SoftPinAction::Preserve })
);

// The end of a put names the key alone.
as_other!([] V0_3_11, ObjectMeta<'a>, &'a [u8], |object| object.key, |key| Ok(ObjectMeta { key, checksum: None }));

const fn spelled<A: Shape<V0_3_11>, R: Shape<V0_3_11>>() -> Option<Signature> {
    Some(Signature::spelled::<V0_3_11, A, R>())
}

pub(super) fn signature(function: Function) -> &'static Option<Signature> {
    signatures!(
        V0_3_11, function,
        [
            ServiceReady, Ping, GetFsdir, GetStorageConfig, MountSegment, ReMountSegment, UnmountSegment, ExistKey,
            BatchExistKey, GetReplicaList, BatchGetReplicaList, GetReplicaListByRegex, BatchQueryIp, BatchReplicaClear,
            PutStart, PutEnd, PutRevoke, BatchPutStart, BatchPutEnd, BatchPutRevoke, Remove, RemoveByRegex, RemoveAll,
            FetchTasks, UpsertStart, UpsertEnd, UpsertRevoke, BatchUpsertStart, BatchUpsertEnd, BatchUpsertRevoke,
            BatchRemove, BatchEvictDiskReplica, QuerySegmentStatus, QuerySegmentStatusById, GracefulUnmountSegment,
        ],
        {
            MountLocalDiskSegment => spelled::<(Uuid, bool), Refused<()>>(),
            OffloadObjectHeartbeat => spelled::<(Uuid, bool), Refused<Map<Text, i64>>>(),
            NotifyOffloadSuccess => spelled::<(Uuid, Texts, Vec<StorageObject>), Refused<()>>(),
            CreateCopyTask => spelled::<(Text, Texts), Refused<Uuid>>(),
            CreateMoveTask => spelled::<(Text, Text, Text), Refused<Uuid>>(),
            QueryTask => spelled::<Uuid, Refused<TaskState>>(),
            MarkTaskToComplete => spelled::<(Uuid, TaskComplete), Refused<()>>(),
            CopyStart => spelled::<(Uuid, Text, Text, Texts), Refused<CopyAnswer>>(),
            CopyEnd => spelled::<(Uuid, Text), Refused<()>>(),
            CopyRevoke => spelled::<(Uuid, Text), Refused<()>>(),
            MoveStart => spelled::<(Uuid, Text, Text, Text), Refused<MoveAnswer>>(),
            MoveEnd => spelled::<(Uuid, Text), Refused<()>>(),
            MoveRevoke => spelled::<(Uuid, Text), Refused<()>>(),
            EvictDiskReplica => spelled::<(Uuid, Text, i32), Refused<()>>(),
            MountNoFSegment => spelled::<(NofSegment, Uuid), Refused<()>>(),
            ReMountNoFSegment => spelled::<(Vec<NofSegment>, Uuid), Refused<()>>(),
            UnmountNoFSegment => spelled::<(Uuid, Uuid), Refused<()>>(),
            GetAllNoFSegments => Some(Signature::answer_only::<V0_3_11, Refused<Vec<NofSegment>>>()),
            GetNoFSegmentsByName => spelled::<Text, Refused<Vec<NofOwner>>>(),
            ReportSsdCapacity => spelled::<(Uuid, i64), Refused<()>>(),
            PromotionObjectHeartbeat => spelled::<Uuid, Refused<Map<Text, i64>>>(),
            PromotionAllocStart => spelled::<(Uuid, Text, u64, Texts), Refused<Promotion>>(),
            NotifyPromotionSuccess => spelled::<(Uuid, Text), Refused<()>>(),
            NotifyPromotionFailure => spelled::<(Uuid, Text), Refused<()>>(),
            PollRemoveAll => None,
            UnmountLocalDiskSegment => None,
            DynamicReplicaCopyStart => None,
            DynamicReplicaCopyEnd => None,
            DynamicReplicaCopyRevoke => None,
        }
    )
}
