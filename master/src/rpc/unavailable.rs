//! The functions of upstream's master that this one does not offer, and what it answers to them.
//!
//! They belong to features that are not here: disks and SSD offload, NVMe over fabrics, copies and moves by task,
//! promotion, dynamic replication. A client calls them only when it was set up for such a feature.

use mooncake_wire::{ErrorCode, Function};

/// What is answered to a function that is not offered; `None` for one that is.
#[must_use]
pub(super) const fn answer(function: Function) -> Option<ErrorCode> {
    match function {
        // Local disks and SSD offload.
        Function::MountLocalDiskSegment
        | Function::UnmountLocalDiskSegment
        | Function::OffloadObjectHeartbeat
        | Function::NotifyOffloadSuccess
        | Function::ReportSsdCapacity
        | Function::EvictDiskReplica
        | Function::BatchEvictDiskReplica
        | Function::PollRemoveAll
        // Promotion from disk to memory.
        | Function::PromotionObjectHeartbeat
        | Function::PromotionAllocStart
        | Function::NotifyPromotionSuccess
        | Function::NotifyPromotionFailure
        // NVMe over fabrics.
        | Function::MountNoFSegment
        | Function::ReMountNoFSegment
        | Function::UnmountNoFSegment
        | Function::GetAllNoFSegments
        | Function::GetNoFSegmentsByName
        // Copies and moves.
        | Function::CreateCopyTask
        | Function::CreateMoveTask
        | Function::CopyStart
        | Function::CopyEnd
        | Function::CopyRevoke
        | Function::MoveStart
        | Function::MoveEnd
        | Function::MoveRevoke
        | Function::DynamicReplicaCopyStart
        | Function::DynamicReplicaCopyEnd
        | Function::DynamicReplicaCopyRevoke => Some(ErrorCode::UNAVAILABLE_IN_CURRENT_MODE),
        // There are no tasks, so none has this id.
        Function::QueryTask | Function::MarkTaskToComplete => Some(ErrorCode::TASK_NOT_FOUND),
        _ => None,
    }
}
