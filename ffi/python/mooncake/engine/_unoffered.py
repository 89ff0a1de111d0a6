"""Names of upstream that are no part of transfers: an RPC of its own, and GPU memory shared by file handles.

They exist so that ``from mooncake.engine import ...`` works; using one raises NotImplementedError.
"""

from __future__ import annotations

# Only for checkers of types: the module typing costs a quarter of this package's import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def _refuse(name: str) -> NoReturn:
    raise NotImplementedError(f"mooncake.engine.{name} is not offered by mooncake-transfer; transfers are")


class ReceivedData:
    """What a call of upstream's RPC has brought; not offered."""

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        _refuse("ReceivedData")


class ReceivedTensor:
    """A tensor that upstream's RPC has brought; not offered."""

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        _refuse("ReceivedTensor")


class CoroRPCInterface:
    """Upstream's RPC between Python programs; not offered."""

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        _refuse("RpcInterface")


RpcInterface = CoroRPCInterface


def create_rpc_client(local_rank: int = 0, world_size: int = 1) -> NoReturn:
    """Not offered."""
    _refuse("create_rpc_client")


def create_rpc_server(local_rank: int = 0, world_size: int = 1) -> NoReturn:
    """Not offered."""
    _refuse("create_rpc_server")


class SharedSegment:
    """Upstream's memory shared between processes by handles of a GPU; not offered."""

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        _refuse("SharedSegment")

    @staticmethod
    def supported(mmap: bool = True, host_register: bool = False) -> bool:
        """False: programs that ask before they use it take another way."""
        return False

    @staticmethod
    def create(
        name: str,
        size: int,
        world_size: int,
        rank_id: int,
        owner_rank: int = 0,
        device_id: int = 0,
        mmap: bool = True,
        host_register: bool = False,
    ) -> NoReturn:
        """Not offered."""
        _refuse("SharedSegment.create")
