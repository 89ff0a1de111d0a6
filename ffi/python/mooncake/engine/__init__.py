"""Upstream's ``mooncake.engine``: moves blocks of memory, host or NPU, between processes.

    from mooncake.engine import TransferEngine

    engine = TransferEngine()
    engine.initialize("10.0.0.1", "P2PHANDSHAKE", "ascend", "")
    engine.register_memory(address, length)
    engine.batch_transfer_sync_read("10.0.0.2:15044", local, remote, lengths)

Names, keywords, defaults and return values are upstream's (release 0.3.13). Where upstream's behaviour is
undefined, a call here raises or returns an error that ``last_error()`` explains. Nothing is loaded at import.

The classes of upstream that are no part of transfers (``RpcInterface``, ``SharedSegment`` and what belongs to
them) are there by name and raise NotImplementedError when they are used.
"""

from .._abi import Code, Stage
from .._record import ErrorRecord, clear_error, last_error
from ._notify import TransferNotify
from ._opcode import Read, TransferOpcode, Write
from ._transfer_engine import InnerTransferEngine, TransferEngine
from ._unoffered import (
    CoroRPCInterface,
    ReceivedData,
    ReceivedTensor,
    RpcInterface,
    SharedSegment,
    create_rpc_client,
    create_rpc_server,
)

SUPPORT_EFA = False
SUPPORT_HIP = False
SUPPORT_MNNVL = False
SUPPORT_MUSA = False
SUPPORT_INTRA_NVLINK = False
SUPPORT_CUDA = False

__all__ = [
    "SUPPORT_CUDA",
    "SUPPORT_EFA",
    "SUPPORT_HIP",
    "SUPPORT_INTRA_NVLINK",
    "SUPPORT_MNNVL",
    "SUPPORT_MUSA",
    "Code",
    "CoroRPCInterface",
    "ErrorRecord",
    "InnerTransferEngine",
    "Read",
    "ReceivedData",
    "ReceivedTensor",
    "RpcInterface",
    "SharedSegment",
    "Stage",
    "TransferEngine",
    "TransferNotify",
    "TransferOpcode",
    "Write",
    "clear_error",
    "create_rpc_client",
    "create_rpc_server",
    "last_error",
]
