"""Upstream's ``mooncake.store``: puts blocks of memory, host or NPU, into a pool and gets them by key.

    from mooncake.store import MooncakeDistributedStore

    store = MooncakeDistributedStore()
    store.setup("10.0.0.1", "P2PHANDSHAKE", 30000000000, 1 << 30, "ascend", "", "10.0.0.9:50088")
    store.batch_put_from_multi_buffers(keys, addresses, sizes)

Names, keywords, defaults and return values are upstream's (release 0.3.13), with the two calls of its Ascend branch.
Where upstream crashes (a store that was not set up, say), a call here returns an error that ``last_error()`` explains.
Every code is a ``StoreCode``, whose ``__doc__`` is its sentence. Nothing is loaded at import.

What is not offered is there by name: methods answer NOT_SUPPORTED (-1012) or raise NotImplementedError.
"""

from .._abi import Code, Stage
from .._record import ErrorRecord, clear_error, last_error
from ._buffer import BufferHandle
from ._code import StoreCode, describe
from ._memory import BufferLease, BufferLeaseView, BufferPool, MooncakeHostMemAllocator, bind_to_numa_node
from ._parallel import ParallelAxis, QueryTaskResponse, ReadTarget, TaskStatus, TaskType, TensorParallelism
from ._replica import Descriptor, DiskDescriptor, MemoryDescriptor, ReplicaDescriptor, ReplicaStatus
from ._replicate import ObjectDataType, ReplicateConfig, SoftPinAction
from ._store import MooncakeDistributedStore
from ._unoffered import (
    EngramStore,
    EngramStoreConfig,
    MooncakeDistributedNoFRegister,
    get_alloc_func_addr,
    get_free_func_addr,
)

# The members of upstream's enums are names of its module, too.
UNKNOWN = ObjectDataType.UNKNOWN
KVCACHE = ObjectDataType.KVCACHE
TENSOR = ObjectDataType.TENSOR
WEIGHT = ObjectDataType.WEIGHT
SAMPLE = ObjectDataType.SAMPLE
ACTIVATION = ObjectDataType.ACTIVATION
GRADIENT = ObjectDataType.GRADIENT
OPTIMIZER_STATE = ObjectDataType.OPTIMIZER_STATE
METADATA = ObjectDataType.METADATA
GENERAL = ObjectDataType.GENERAL
UNDEFINED = ReplicaStatus.UNDEFINED
INITIALIZED = ReplicaStatus.INITIALIZED
COMPLETE = ReplicaStatus.COMPLETE
REMOVED = ReplicaStatus.REMOVED
REPLICA_COPY = TaskType.REPLICA_COPY
REPLICA_MOVE = TaskType.REPLICA_MOVE
PENDING = TaskStatus.PENDING
SUCCESS = TaskStatus.SUCCESS
# Of two enums with one name, upstream's module has the later one's member.
PROCESSING = TaskStatus.PROCESSING
FAILED = TaskStatus.FAILED
RegisteredBufferPool = BufferPool
RegisteredBufferLease = BufferLease
RegisteredBufferLeaseView = BufferLeaseView

__all__ = [
    "ACTIVATION",
    "COMPLETE",
    "FAILED",
    "GENERAL",
    "GRADIENT",
    "INITIALIZED",
    "KVCACHE",
    "METADATA",
    "OPTIMIZER_STATE",
    "PENDING",
    "PROCESSING",
    "REMOVED",
    "REPLICA_COPY",
    "REPLICA_MOVE",
    "SAMPLE",
    "SUCCESS",
    "TENSOR",
    "UNDEFINED",
    "UNKNOWN",
    "WEIGHT",
    "BufferHandle",
    "BufferLease",
    "BufferLeaseView",
    "BufferPool",
    "Code",
    "Descriptor",
    "DiskDescriptor",
    "EngramStore",
    "EngramStoreConfig",
    "ErrorRecord",
    "MemoryDescriptor",
    "MooncakeDistributedNoFRegister",
    "MooncakeDistributedStore",
    "MooncakeHostMemAllocator",
    "ObjectDataType",
    "ParallelAxis",
    "QueryTaskResponse",
    "ReadTarget",
    "RegisteredBufferLease",
    "RegisteredBufferLeaseView",
    "RegisteredBufferPool",
    "ReplicaDescriptor",
    "ReplicaStatus",
    "ReplicateConfig",
    "SoftPinAction",
    "Stage",
    "StoreCode",
    "TaskStatus",
    "TaskType",
    "TensorParallelism",
    "bind_to_numa_node",
    "clear_error",
    "describe",
    "get_alloc_func_addr",
    "get_free_func_addr",
    "last_error",
]
