"""Upstream's descriptions of cut tensors and of the master's tasks: values that programs make and compare."""

from __future__ import annotations

import enum

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


class TaskType(enum.Enum):
    """Kind of a task of the master."""

    REPLICA_COPY = 0
    REPLICA_MOVE = 1

    def __int__(self) -> int:
        return self.value


class TaskStatus(enum.Enum):
    """State of a task of the master."""

    PENDING = 0
    PROCESSING = 1
    FAILED = 2
    SUCCESS = 3

    def __int__(self) -> int:
        return self.value


class QueryTaskResponse:
    """What is known of a task."""

    def __init__(self) -> None:
        self.id: tuple[int, int] = (0, 0)
        self.type = TaskType.REPLICA_COPY
        self.status = TaskStatus.PENDING
        self.created_at_ms_epoch = 0
        self.last_updated_at_ms_epoch = 0
        self.assigned_client: tuple[int, int] = (0, 0)
        self.message = ""


class ParallelAxis:
    """One way in which a tensor is cut."""

    def __init__(self) -> None:
        self.kind = ""
        self.rank = 0
        self.size = 1
        self.split_dim: Optional[int] = None
        self.expert_id: Optional[int] = None
        self.stage_id: Optional[int] = None


class TensorParallelism:
    """All the ways in which a tensor is cut."""

    def __init__(self) -> None:
        self.axes: list[ParallelAxis] = []


class ReadTarget:
    """How a tensor is wanted."""

    def __init__(self) -> None:
        self.mode = "as_stored"
        self.parallelism: Optional[TensorParallelism] = None
