"""What upstream's store has and this one has not. Methods with a number for an answer give NOT_SUPPORTED, with the
reason in ``last_error()``; the others raise NotImplementedError."""

from __future__ import annotations


from .. import _record
from .._abi import StoreCode
from ._client import Client
from ._replicate import ReplicateConfig

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn
    from .._lists import Integers


def refuse(name: str) -> int:
    """The answer of a call that is not offered."""
    return _record.refuse_store(f"{name} is not offered", StoreCode.NOT_SUPPORTED)


def _raise(name: str) -> NoReturn:
    raise NotImplementedError(f"{name} is not offered by this store")


class UnofferedMethods(Client):
    """Copies by tasks of the master, clients without memory, segments of files, values written in parts."""

    def setup_dummy(self, mem_pool_size: int, local_buffer_size: int, server_address: str) -> int:
        """A client that borrows another process's memory: NOT_SUPPORTED."""
        return refuse("setup_dummy")

    def alloc_from_mem_pool(self, size: int, /) -> int:
        """Memory of such a client; 0 is none."""
        refuse("alloc_from_mem_pool")
        return 0

    def create_copy_task(self, key: str, targets: Sequence[str]) -> tuple[tuple[int, int], int]:
        """A copy made by the master's orders: NOT_SUPPORTED; ``replica_num`` of a put makes copies."""
        return (0, 0), refuse("create_copy_task")

    def create_move_task(self, key: str, source: str, target: str) -> tuple[tuple[int, int], int]:
        """A move made by the master's orders: NOT_SUPPORTED."""
        return (0, 0), refuse("create_move_task")

    def query_task(self, task_id: tuple[int, int]) -> tuple[None, int]:
        """State of such a task: NOT_SUPPORTED."""
        return None, refuse("query_task")

    def batch_put_session_start(self, keys: Sequence[str], sizes: Integers, config: Any = None) -> list[int]:
        """Values written in parts: NOT_SUPPORTED for each."""
        if config is not None and not isinstance(config, ReplicateConfig):
            raise TypeError(f"config: a ReplicateConfig is needed, not {type(config).__name__}")
        return [refuse("batch_put_session_start")] * len(keys)

    def batch_put_from_multi_buffer_ranges(
        self,
        keys: Sequence[str],
        all_buffer_ptrs: Sequence[Integers],
        all_sizes: Sequence[Integers],
        all_dst_offsets: Sequence[Integers],
    ) -> list[int]:
        """Values written in parts: NOT_SUPPORTED for each."""
        return [refuse("batch_put_from_multi_buffer_ranges")] * len(keys)

    def batch_put_session_end(self, keys: Sequence[str]) -> list[int]:
        """Values written in parts: NOT_SUPPORTED for each."""
        return [refuse("batch_put_session_end")] * len(keys)

    def batch_put_session_revoke(self, keys: Sequence[str]) -> list[int]:
        """Values written in parts: NOT_SUPPORTED for each."""
        return [refuse("batch_put_session_revoke")] * len(keys)

    def get_offload_rpc_read_count(self) -> int:
        """Reads from other clients' disks: none."""
        return 0

    def mount_segment(
        self, path: str, size: int, offset: int = 0, protocol: str = "tcp", location: str = ""
    ) -> dict[str, Any]:
        """A file as memory of the pool: NOT_SUPPORTED under "ret"."""
        return {"ret": refuse("mount_segment"), "segment_ids": []}

    def allocate_and_mount_segment(self, size: int, protocol: str = "tcp", location: str = "") -> dict[str, Any]:
        """More memory for the pool after ``setup``: NOT_SUPPORTED under "ret"."""
        return {"ret": refuse("allocate_and_mount_segment"), "segment_ids": []}

    def unmount_segment(self, segment_ids: Sequence[str], grace_period_seconds: int = 0) -> int:
        """NOT_SUPPORTED: ``close`` takes this client's memory from the pool."""
        return refuse("unmount_segment")

    def unmount_and_free_segment(self, segment_ids: Sequence[str], grace_period_seconds: int = 0) -> int:
        """NOT_SUPPORTED: ``close`` takes this client's memory from the pool."""
        return refuse("unmount_and_free_segment")

    def unmount_local_disk_segment(self, grace_period_seconds: int = 0) -> int:
        """NOT_SUPPORTED: there is no segment on a disk."""
        return refuse("unmount_local_disk_segment")


class _Unoffered:
    """A class of upstream's that cannot be made."""

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        _raise(type(self).__name__)


class EngramStore(_Unoffered):
    """Upstream's table of embeddings on the store; not offered."""


class EngramStoreConfig(_Unoffered):
    """Its settings; not offered."""


class MooncakeDistributedNoFRegister(_Unoffered):
    """Upstream's registration of NVMe over fabrics; not offered."""


def get_alloc_func_addr() -> int:
    """Upstream's allocator for memory that GPUs share; raises."""
    _raise("get_alloc_func_addr")


def get_free_func_addr() -> int:
    """Its counterpart; raises."""
    _raise("get_free_func_addr")
