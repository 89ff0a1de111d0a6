//! What release 0.3.13 spells in its own way, and the list of its functions.

use super::refused::{
    CopyAnswer, MoveAnswer, NofOwner, NofSegment, Promotion, StorageObject, TaskComplete, TaskItem,
    TaskState, Text, Texts,
};
use super::{Refused, Signature, V0_3_13, as_other, signatures};
use crate::codec::{Pack, Reader, Shape, Unpack, Writer, layout};
use crate::error::DecodeError;
use crate::function::Function;
use crate::literal::Literal;
use crate::model::{
    DistributedFile, ObjectMeta, Replica, ReplicaList, ReplicateConfig, Segment, SoftPinAction, Uuid,
};

layout!(
    V0_3_13,
    Segment {
        id: Uuid,
        name: String,
        base: u64,
        size: u64,
        te_endpoint: String,
        protocol: String,
        host_id: String,
    }
);
layout!(V0_3_13, DistributedFile { path: String, offset: u64, size: u64, aligned: u64, shard: i32 });
layout!(V0_3_13, ReplicateConfig {
    replica_num: u64,
    nof_replica_num: u64,
    dfs_replica_num: u64,
    soft_pin_action: SoftPinAction,
    soft_pin_ttl_ms: Option<u64>,
    with_hard_pin: bool,
    preferred_segments: Vec<String>,
    preferred_segment: String,
    preferred_nof_segments: Vec<String>,
    prefer_alloc_in_same_node: bool,
    data_type: u8,
    host_id: String,
    group_ids: Option<Vec<String>>,
});
layout!(V0_3_13, ReplicaList { replicas: Vec<Replica>, lease_ttl_ms: u64, checksum: Option<u64> });
layout!(V0_3_13, ObjectMeta<'a> { key: &'a [u8], checksum: Option<u64> });

as_other!(
    [] V0_3_13, SoftPinAction, u8,
    |action| match action {
        SoftPinAction::Preserve => 0,
        SoftPinAction::Enable => 1,
        SoftPinAction::Disable => 2,
    },
    |code| match code {
        0 => Ok(SoftPinAction::Preserve),
        1 => Ok(SoftPinAction::Enable),
        2 => Ok(SoftPinAction::Disable),
        value => Err(DecodeError::Range { what: "soft pin action", value }),
    }
);

const fn spelled<A: Shape<V0_3_13>, R: Shape<V0_3_13>>() -> Option<Signature> {
    Some(Signature::spelled::<V0_3_13, A, R>())
}

pub(super) fn signature(function: Function) -> &'static Option<Signature> {
    signatures!(
        V0_3_13, function,
        [
            ServiceReady, Ping, GetFsdir, GetStorageConfig, MountSegment, ReMountSegment, UnmountSegment, ExistKey,
            BatchExistKey, GetReplicaList, BatchGetReplicaList, GetReplicaListByRegex, BatchQueryIp, BatchReplicaClear,
            PutStart, PutEnd, PutRevoke, BatchPutStart, BatchPutEnd, BatchPutRevoke, Remove, RemoveByRegex, RemoveAll,
            FetchTasks, UpsertStart, UpsertEnd, UpsertRevoke, BatchUpsertStart, BatchUpsertEnd, BatchUpsertRevoke,
            BatchRemove, BatchEvictDiskReplica, QuerySegmentStatus, QuerySegmentStatusById, GracefulUnmountSegment,
        ],
        {
            MountLocalDiskSegment => spelled::<(Uuid, bool), Refused<()>>(),
            OffloadObjectHeartbeat => spelled::<(Uuid, bool), Refused<Vec<TaskItem>>>(),
            NotifyOffloadSuccess => spelled::<(Uuid, Vec<TaskItem>, Vec<StorageObject>), Refused<()>>(),
            CreateCopyTask => spelled::<(Text, Text, Texts), Refused<Uuid>>(),
            CreateMoveTask => spelled::<(Text, Text, Text, Text), Refused<Uuid>>(),
            QueryTask => spelled::<Uuid, Refused<TaskState>>(),
            MarkTaskToComplete => spelled::<(Uuid, TaskComplete), Refused<()>>(),
            CopyStart => spelled::<(Uuid, Text, Text, Text, Texts), Refused<CopyAnswer>>(),
            CopyEnd => spelled::<(Uuid, Text, Text), Refused<()>>(),
            CopyRevoke => spelled::<(Uuid, Text, Text), Refused<()>>(),
            MoveStart => spelled::<(Uuid, Text, Text, Text, Text), Refused<MoveAnswer>>(),
            MoveEnd => spelled::<(Uuid, Text, Text), Refused<()>>(),
            MoveRevoke => spelled::<(Uuid, Text, Text), Refused<()>>(),
            EvictDiskReplica => spelled::<(Uuid, Text, Text, i32), Refused<()>>(),
            MountNoFSegment => spelled::<(NofSegment, Uuid), Refused<()>>(),
            ReMountNoFSegment => spelled::<(Vec<NofSegment>, Uuid), Refused<()>>(),
            UnmountNoFSegment => spelled::<(Uuid, Uuid), Refused<()>>(),
            GetAllNoFSegments => Some(Signature::answer_only::<V0_3_13, Refused<Vec<NofSegment>>>()),
            GetNoFSegmentsByName => spelled::<Text, Refused<Vec<NofOwner>>>(),
            ReportSsdCapacity => spelled::<(Uuid, i64), Refused<()>>(),
            PromotionObjectHeartbeat => spelled::<Uuid, Refused<Vec<TaskItem>>>(),
            PromotionAllocStart => spelled::<(Uuid, Text, Text, u64, Texts), Refused<Promotion>>(),
            NotifyPromotionSuccess => spelled::<(Uuid, Text, Text), Refused<()>>(),
            NotifyPromotionFailure => spelled::<(Uuid, Text, Text), Refused<()>>(),
            PollRemoveAll => spelled::<Uuid, Refused<bool>>(),
            UnmountLocalDiskSegment => spelled::<Uuid, Refused<()>>(),
            DynamicReplicaCopyStart => spelled::<(Uuid, Text, Text, Text, Texts, Uuid, u64), Refused<CopyAnswer>>(),
            DynamicReplicaCopyEnd => spelled::<(Uuid, Text, Text, Uuid, u64), Refused<()>>(),
            DynamicReplicaCopyRevoke => spelled::<(Uuid, Text, Text, Uuid, u64), Refused<()>>(),
        }
    )
}
