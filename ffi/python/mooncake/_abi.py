"""The C interface for ctypes. Generated from include/ by generate_abi.py; not edited by hand."""

from __future__ import annotations

import enum
from ctypes import (
    CDLL,
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_double,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)

LOCAL_SEGMENT = 0
INVALID_BATCH = 2**64 - 1
OPCODE_READ = 0
OPCODE_WRITE = 1
STATUS_WAITING = 0
STATUS_PENDING = 1
STATUS_INVALID = 2
STATUS_CANCELED = 3
STATUS_COMPLETED = 4
STATUS_TIMEOUT = 5
STATUS_FAILED = 6
MOONCAKE_TRANSFER_VERSION = "0.1.0"
MOONCAKE_TRANSFER_DEFAULT_TIMEOUT = -1
MOONCAKE_TRANSFER_ANY_DEVICE = -1
MOONCAKE_TRANSFER_KNOWS_DEVICE = 1
MOONCAKE_TRANSFER_KNOWS_RANGE = 2
MOONCAKE_TRANSFER_KNOWS_VENDOR = 4


class Code(enum.IntEnum):
    """enum mooncake_transfer_code."""

    OK = 0
    INVALID_ARGUMENT = -1
    TOO_MANY_REQUESTS = -2
    ADDRESS_NOT_REGISTERED = -3
    BUSY = -4
    DEVICE_NOT_FOUND = -6
    ADDRESS_OVERLAPPED = -7
    DNS = -101
    SOCKET = -102
    MALFORMED_JSON = -103
    REJECT_HANDSHAKE = -104
    METADATA = -200
    ENDPOINT = -201
    CONTEXT = -202
    CLOCK = -301
    MEMORY = -302
    NOT_IMPLEMENTED = -303
    NOT_SUPPORTED_TRANSPORT = -1001
    TIMEOUT = -1002
    CANCELLED = -1003
    STILL_RUNNING = -1004
    STALE_INCARNATION = -1005
    LIBRARY_UNAVAILABLE = -1006
    VENDOR = -1007
    UNSUPPORTED = -1008
    STALE_HANDLE = -1009
    INTERNAL = -1010


class Stage(enum.IntEnum):
    """enum mooncake_transfer_stage."""

    CONFIGURE = 0
    LOAD = 1
    RESOLVE = 2
    HANDSHAKE = 3
    CONNECT = 4
    REGISTER = 5
    SUBMIT = 6
    EXECUTE = 7
    DRAIN = 8


class LogLevel(enum.IntEnum):
    """enum mooncake_transfer_log_level."""

    OFF = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    DEBUG = 4
    TRACE = 5


class transfer_request(Structure):
    """struct transfer_request."""

    _fields_ = (
        ("opcode", c_int),
        ("source", c_void_p),
        ("target_id", c_int32),
        ("target_offset", c_uint64),
        ("length", c_uint64),
    )


class transfer_status(Structure):
    """struct transfer_status."""

    _fields_ = (
        ("status", c_int),
        ("transferred_bytes", c_uint64),
    )


class notify_msg(Structure):
    """struct notify_msg."""

    _fields_ = (
        ("name", c_char_p),
        ("msg", c_char_p),
    )


class buffer_entry(Structure):
    """struct buffer_entry."""

    _fields_ = (
        ("addr", c_void_p),
        ("length", c_size_t),
    )


class nic_load_stat(Structure):
    """struct nic_load_stat."""

    _fields_ = (
        ("device_name", c_char * 64),
        ("inflight_bytes", c_uint64),
        ("ewma_bandwidth_bps", c_double),
    )


class mooncake_transfer_error(Structure):
    """struct mooncake_transfer_error."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("code", c_int32),
        ("stage", c_int32),
        ("negative", c_int32),
        ("status", c_int32),
        ("known", c_uint32),
        ("device", c_int32),
        ("range_start", c_uint64),
        ("range_length_bytes", c_uint64),
        ("vendor_code", c_int32),
        ("reserved", c_int32),
        ("code_name", c_char_p),
        ("stage_name", c_char_p),
        ("message", c_char_p),
        ("peer", c_char_p),
        ("vendor_function", c_char_p),
        ("vendor_text", c_char_p),
        ("vendor_log", c_char_p),
        ("advice", c_char_p),
        ("text", c_char_p),
    )


class mooncake_transfer_options(Structure):
    """struct mooncake_transfer_options."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("metadata", c_char_p),
        ("local_name", c_char_p),
        ("device", c_int32),
        ("auto_discover", c_int32),
    )


mooncake_transfer_log_sink_t = CFUNCTYPE(None, c_void_p, c_int, c_char_p, c_char_p)


def declare(library: CDLL) -> None:
    """Gives every function of the interface its types."""
    library.createTransferEngine.argtypes = (c_char_p, c_char_p, c_char_p, c_uint64, c_int)
    library.createTransferEngine.restype = c_void_p
    library.destroyTransferEngine.argtypes = (c_void_p,)
    library.destroyTransferEngine.restype = None
    library.discoverTopology.argtypes = (c_void_p,)
    library.discoverTopology.restype = c_int
    library.getLocalIpAndPort.argtypes = (c_void_p, c_char_p, c_size_t)
    library.getLocalIpAndPort.restype = c_int
    library.installTransport.argtypes = (c_void_p, c_char_p, POINTER(c_void_p))
    library.installTransport.restype = c_void_p
    library.uninstallTransport.argtypes = (c_void_p, c_char_p)
    library.uninstallTransport.restype = c_int
    library.openSegment.argtypes = (c_void_p, c_char_p)
    library.openSegment.restype = c_int32
    library.openSegmentNoCache.argtypes = (c_void_p, c_char_p)
    library.openSegmentNoCache.restype = c_int32
    library.closeSegment.argtypes = (c_void_p, c_int32)
    library.closeSegment.restype = c_int
    library.removeLocalSegment.argtypes = (c_void_p, c_char_p)
    library.removeLocalSegment.restype = c_int
    library.syncSegmentCache.argtypes = (c_void_p,)
    library.syncSegmentCache.restype = c_int
    library.warmupEfaSegment.argtypes = (c_void_p, c_char_p)
    library.warmupEfaSegment.restype = c_int
    library.registerLocalMemory.argtypes = (c_void_p, c_void_p, c_size_t, c_char_p, c_int)
    library.registerLocalMemory.restype = c_int
    library.unregisterLocalMemory.argtypes = (c_void_p, c_void_p)
    library.unregisterLocalMemory.restype = c_int
    library.registerLocalMemoryBatch.argtypes = (c_void_p, POINTER(buffer_entry), c_size_t, c_char_p)
    library.registerLocalMemoryBatch.restype = c_int
    library.unregisterLocalMemoryBatch.argtypes = (c_void_p, POINTER(c_void_p), c_size_t)
    library.unregisterLocalMemoryBatch.restype = c_int
    library.allocateBatchID.argtypes = (c_void_p, c_size_t)
    library.allocateBatchID.restype = c_uint64
    library.submitTransfer.argtypes = (c_void_p, c_uint64, POINTER(transfer_request), c_size_t)
    library.submitTransfer.restype = c_int
    library.submitTransferWithNotify.argtypes = (c_void_p, c_uint64, POINTER(transfer_request), c_size_t, notify_msg)
    library.submitTransferWithNotify.restype = c_int
    library.getTransferStatus.argtypes = (c_void_p, c_uint64, c_size_t, POINTER(transfer_status))
    library.getTransferStatus.restype = c_int
    library.freeBatchID.argtypes = (c_void_p, c_uint64)
    library.freeBatchID.restype = c_int
    library.getNotifsFromEngine.argtypes = (c_void_p, POINTER(c_int))
    library.getNotifsFromEngine.restype = POINTER(notify_msg)
    library.freeNotifsMsgBuf.argtypes = (POINTER(notify_msg), c_int)
    library.freeNotifsMsgBuf.restype = c_int
    library.genNotifyInEngine.argtypes = (c_void_p, c_uint64, notify_msg)
    library.genNotifyInEngine.restype = c_int
    library.getNicLoadStats.argtypes = (c_void_p, POINTER(nic_load_stat), POINTER(c_size_t))
    library.getNicLoadStats.restype = c_int
    library.enableGracefulShutdown.argtypes = (c_void_p,)
    library.enableGracefulShutdown.restype = c_int
    library.showLinks.argtypes = (c_void_p, c_char_p, c_size_t, c_int)
    library.showLinks.restype = c_int
    library.mooncake_transfer_version.argtypes = ()
    library.mooncake_transfer_version.restype = c_char_p
    library.mooncake_transfer_code_name.argtypes = (c_int,)
    library.mooncake_transfer_code_name.restype = c_char_p
    library.mooncake_transfer_last_error.argtypes = (POINTER(mooncake_transfer_error),)
    library.mooncake_transfer_last_error.restype = c_int
    library.mooncake_transfer_clear_error.argtypes = ()
    library.mooncake_transfer_clear_error.restype = None
    library.mooncake_transfer_create.argtypes = (POINTER(mooncake_transfer_options), POINTER(c_void_p))
    library.mooncake_transfer_create.restype = c_int
    library.mooncake_transfer_session_name.argtypes = (c_void_p, c_char_p, c_size_t)
    library.mooncake_transfer_session_name.restype = c_int
    library.mooncake_transfer_use_protocol.argtypes = (c_void_p, c_char_p)
    library.mooncake_transfer_use_protocol.restype = c_int
    library.mooncake_transfer_first_buffer_address.argtypes = (c_void_p, c_char_p, POINTER(c_uint64))
    library.mooncake_transfer_first_buffer_address.restype = c_int
    library.mooncake_transfer_probe.argtypes = (c_void_p, c_char_p)
    library.mooncake_transfer_probe.restype = c_int
    library.mooncake_transfer_submit.argtypes = (c_void_p, c_uint64, POINTER(transfer_request), c_size_t, c_int64)
    library.mooncake_transfer_submit.restype = c_int
    library.mooncake_transfer_wait.argtypes = (c_void_p, c_uint64, c_int64)
    library.mooncake_transfer_wait.restype = c_int
    library.mooncake_transfer_cancel.argtypes = (c_void_p, c_uint64)
    library.mooncake_transfer_cancel.restype = c_int
    library.mooncake_transfer_run.argtypes = (c_void_p, POINTER(transfer_request), c_size_t, c_int64, POINTER(c_uint64))
    library.mooncake_transfer_run.restype = c_int
    library.mooncake_transfer_submit_lists.argtypes = (c_void_p, c_uint64, c_int32, c_int, POINTER(c_uint64), POINTER(c_uint64), POINTER(c_uint64), c_size_t, POINTER(notify_msg), c_int64)
    library.mooncake_transfer_submit_lists.restype = c_int
    library.mooncake_transfer_run_lists.argtypes = (c_void_p, c_int32, c_int, POINTER(c_uint64), POINTER(c_uint64), POINTER(c_uint64), c_size_t, POINTER(notify_msg), c_int64, POINTER(c_uint64))
    library.mooncake_transfer_run_lists.restype = c_int
    library.mooncake_transfer_task_error.argtypes = (c_void_p, c_uint64, c_size_t, POINTER(mooncake_transfer_error))
    library.mooncake_transfer_task_error.restype = c_int
    library.mooncake_transfer_counters.argtypes = (c_void_p, c_char_p, c_size_t, POINTER(c_size_t))
    library.mooncake_transfer_counters.restype = c_int
    library.mooncake_transfer_topology.argtypes = (c_void_p, c_char_p, c_size_t, POINTER(c_size_t))
    library.mooncake_transfer_topology.restype = c_int
    library.mooncake_transfer_set_log.argtypes = (mooncake_transfer_log_sink_t, c_void_p, c_int)
    library.mooncake_transfer_set_log.restype = c_int


FUNCTIONS = (
    "createTransferEngine",
    "destroyTransferEngine",
    "discoverTopology",
    "getLocalIpAndPort",
    "installTransport",
    "uninstallTransport",
    "openSegment",
    "openSegmentNoCache",
    "closeSegment",
    "removeLocalSegment",
    "syncSegmentCache",
    "warmupEfaSegment",
    "registerLocalMemory",
    "unregisterLocalMemory",
    "registerLocalMemoryBatch",
    "unregisterLocalMemoryBatch",
    "allocateBatchID",
    "submitTransfer",
    "submitTransferWithNotify",
    "getTransferStatus",
    "freeBatchID",
    "getNotifsFromEngine",
    "freeNotifsMsgBuf",
    "genNotifyInEngine",
    "getNicLoadStats",
    "enableGracefulShutdown",
    "showLinks",
    "mooncake_transfer_version",
    "mooncake_transfer_code_name",
    "mooncake_transfer_last_error",
    "mooncake_transfer_clear_error",
    "mooncake_transfer_create",
    "mooncake_transfer_session_name",
    "mooncake_transfer_use_protocol",
    "mooncake_transfer_first_buffer_address",
    "mooncake_transfer_probe",
    "mooncake_transfer_submit",
    "mooncake_transfer_wait",
    "mooncake_transfer_cancel",
    "mooncake_transfer_run",
    "mooncake_transfer_submit_lists",
    "mooncake_transfer_run_lists",
    "mooncake_transfer_task_error",
    "mooncake_transfer_counters",
    "mooncake_transfer_topology",
    "mooncake_transfer_set_log",
)
