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
MOONCAKE_TRANSFER_STORE_UPSERT = 1
MOONCAKE_TRANSFER_STORE_STAGED = 2
MOONCAKE_TRANSFER_STORE_EXACT = 1
MOONCAKE_TRANSFER_STORE_PIN_PRESERVE = 0
MOONCAKE_TRANSFER_STORE_PIN_ENABLE = 1
MOONCAKE_TRANSFER_STORE_PIN_DISABLE = 2


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


class StoreCode(enum.IntEnum):
    """enum mooncake_transfer_store_code."""

    OK = 0
    INTERNAL_ERROR = -1
    BUFFER_OVERFLOW = -10
    SHARD_INDEX_OUT_OF_RANGE = -100
    SEGMENT_NOT_FOUND = -101
    SEGMENT_ALREADY_EXISTS = -102
    CLIENT_NOT_FOUND = -103
    NO_AVAILABLE_HANDLE = -200
    INVALID_VERSION = -300
    INVALID_KEY = -400
    WRITE_FAIL = -500
    INVALID_PARAMS = -600
    ILLEGAL_CLIENT = -601
    INVALID_WRITE = -700
    INVALID_READ = -701
    INVALID_REPLICA = -702
    REPLICA_IS_NOT_READY = -703
    OBJECT_NOT_FOUND = -704
    OBJECT_ALREADY_EXISTS = -705
    OBJECT_HAS_LEASE = -706
    LEASE_EXPIRED = -707
    OBJECT_HAS_REPLICATION_TASK = -708
    OBJECT_NO_REPLICATION_TASK = -709
    REPLICA_NOT_FOUND = -710
    REPLICA_ALREADY_EXISTS = -711
    REPLICA_IS_GONE = -712
    REPLICA_NOT_IN_LOCAL_MEMORY = -713
    OBJECT_REPLICA_BUSY = -714
    TRANSFER_FAIL = -800
    CHECKSUM_MISMATCH = -801
    RPC_FAIL = -900
    RPC_TIMEOUT = -901
    ETCD_OPERATION_ERROR = -1000
    ETCD_KEY_NOT_EXIST = -1001
    ETCD_TRANSACTION_FAIL = -1002
    ETCD_CTX_CANCELLED = -1003
    OPLOG_ENTRY_NOT_FOUND = -1004
    K8S_LEASE_OPERATION_ERROR = -1005
    K8S_LEASE_NOT_FOUND = -1006
    INCOMPLETE_OPLOG_CATCH_UP = -1007
    UNAVAILABLE_IN_CURRENT_STATUS = -1010
    UNAVAILABLE_IN_CURRENT_MODE = -1011
    NOT_SUPPORTED = -1012
    FILE_NOT_FOUND = -1100
    FILE_OPEN_FAIL = -1101
    FILE_READ_FAIL = -1102
    FILE_WRITE_FAIL = -1103
    FILE_INVALID_BUFFER = -1104
    FILE_LOCK_FAIL = -1105
    FILE_INVALID_HANDLE = -1106
    BUCKET_NOT_FOUND = -1200
    BUCKET_ALREADY_EXISTS = -1201
    KEYS_EXCEED_BUCKET_LIMIT = -1202
    KEYS_ULTRA_LIMIT = -1203
    UNABLE_OFFLOAD = -1300
    UNABLE_OFFLOADING = -1301
    TASK_NOT_FOUND = -1400
    TASK_PENDING_LIMIT_EXCEEDED = -1401
    JOB_NOT_FOUND = -1402
    SERIALIZE_UNSUPPORTED = -1500
    SERIALIZE_FAIL = -1501
    DESERIALIZE_FAIL = -1502
    PERSISTENT_FAIL = -1503
    DFS_NETWORK_TIMEOUT = -1600
    DFS_SERVICE_UNAVAILABLE = -1601
    DFS_QUOTA_EXCEEDED = -1602
    DFS_PERMISSION_DENIED = -1603
    DFS_STALE_HANDLE = -1604
    DFS_PARTIAL_WRITE = -1605
    TENANT_QUOTA_EXCEEDED = -1700
    TENANT_NOT_REGISTERED = -1701
    TENANT_NOT_EMPTY = -1702


STORE_CODE_SENTENCES = {
    0: "Done.",
    -1: "The client or the master failed in a way that no other code names.",
    -10: "A buffer is too small for what it should hold.",
    -100: "The master asked for a part of its table that does not exist.",
    -101: "The pool has no segment of that name or id.",
    -102: "The pool has a segment of that id already.",
    -103: "The master does not know this client.",
    -200: "The pool is full: no segment has room for the object.",
    -300: "Client and master speak different versions.",
    -400: "The key cannot be used.",
    -500: "The master could not write.",
    -600: "An argument cannot be used, or the store is not set up.",
    -601: "The object belongs to another client.",
    -700: "The object is in no state that can be written.",
    -701: "The object is in no state that can be read.",
    -702: "The copy is in no usable state.",
    -703: "The object is still being written.",
    -704: "There is no object of that key.",
    -705: "There is an object of that key already.",
    -706: "The object may be in use: its lease has not ended.",
    -707: "The lease ended before the read did, so that the bytes cannot be trusted.",
    -708: "The object is being copied or moved.",
    -709: "The object is not being copied or moved.",
    -710: "There is no such copy of the object.",
    -711: "There is such a copy of the object already.",
    -712: "The copy went away meanwhile.",
    -713: "The copy does not lie in this client's memory.",
    -714: "A copy of the object is in use.",
    -800: "The bytes could not be moved; the last error says between whom and why.",
    -801: "The bytes are not those that were stored.",
    -900: "The master does not answer, or answered what cannot be understood.",
    -901: "The master did not answer in time.",
    -1000: "An operation of the metadata service failed.",
    -1001: "The metadata service has no such key.",
    -1002: "A transaction of the metadata service failed.",
    -1003: "An operation of the metadata service was cancelled.",
    -1004: "The master's operation log has no such entry.",
    -1005: "An operation on the cluster's lease failed.",
    -1006: "The cluster has no such lease.",
    -1007: "The master has not read its operation log to the end.",
    -1010: "The master cannot do this in its present state.",
    -1011: "The master does not do this in its mode of operation.",
    -1012: "This is not offered.",
    -1100: "There is no such file.",
    -1101: "The file cannot be opened.",
    -1102: "The file cannot be read.",
    -1103: "The file cannot be written.",
    -1104: "The file's buffer cannot be used.",
    -1105: "The file cannot be locked.",
    -1106: "The file is not open.",
    -1200: "There is no such bucket on the disk.",
    -1201: "There is such a bucket on the disk already.",
    -1202: "A bucket on the disk has too many keys.",
    -1203: "The disk has too many keys.",
    -1300: "The object cannot be copied to a disk.",
    -1301: "The object cannot be copied to a disk now.",
    -1400: "There is no such task.",
    -1401: "Too many tasks are waiting.",
    -1402: "There is no such job.",
    -1500: "This cannot be written down.",
    -1501: "Writing down failed.",
    -1502: "What was written down cannot be read.",
    -1503: "The master's state cannot be kept.",
    -1600: "The shared file system did not answer in time.",
    -1601: "The shared file system is not available.",
    -1602: "The shared file system's quota is used up.",
    -1603: "The shared file system does not permit this.",
    -1604: "The shared file system has forgotten the file.",
    -1605: "The shared file system wrote only a part.",
    -1700: "The tenant's quota is used up.",
    -1701: "The tenant is not known.",
    -1702: "The tenant still has objects.",
}


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


class mooncake_replicate_config(Structure):
    """struct mooncake_replicate_config."""

    _fields_ = (
        ("replica_num", c_size_t),
        ("with_soft_pin", c_int),
        ("with_hard_pin", c_int),
        ("preferred_segments", POINTER(c_char_p)),
        ("preferred_segments_count", c_size_t),
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


class mooncake_transfer_store_options(Structure):
    """struct mooncake_transfer_store_options."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("local_hostname", c_char_p),
        ("metadata_server", c_char_p),
        ("protocol", c_char_p),
        ("device_names", c_char_p),
        ("master_address", c_char_p),
        ("tenant", c_char_p),
        ("global_segment_size_bytes", c_uint64),
        ("local_buffer_size_bytes", c_uint64),
        ("engine", c_void_p),
    )


class mooncake_transfer_store_replication(Structure):
    """struct mooncake_transfer_store_replication."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("replica_count", c_uint64),
        ("soft_pin_ttl_ms", c_uint64),
        ("soft_pin", c_int32),
        ("has_soft_pin_ttl", c_int32),
        ("hard_pin", c_int32),
        ("same_node", c_int32),
        ("data_type", c_int32),
        ("reserved", c_int32),
        ("preferred_segments", POINTER(c_char_p)),
        ("preferred_segment_count", c_size_t),
        ("group_ids", POINTER(c_char_p)),
        ("group_id_count", c_size_t),
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
    library.mooncake_store_create.argtypes = ()
    library.mooncake_store_create.restype = c_void_p
    library.mooncake_store_destroy.argtypes = (c_void_p,)
    library.mooncake_store_destroy.restype = None
    library.mooncake_store_setup.argtypes = (c_void_p, c_char_p, c_char_p, c_uint64, c_uint64, c_char_p, c_char_p, c_char_p)
    library.mooncake_store_setup.restype = c_int
    library.mooncake_store_init_all.argtypes = (c_void_p, c_char_p, c_char_p, c_uint64)
    library.mooncake_store_init_all.restype = c_int
    library.mooncake_store_health_check.argtypes = (c_void_p,)
    library.mooncake_store_health_check.restype = c_int
    library.mooncake_store_put.argtypes = (c_void_p, c_char_p, c_void_p, c_size_t, POINTER(mooncake_replicate_config))
    library.mooncake_store_put.restype = c_int
    library.mooncake_store_put_from.argtypes = (c_void_p, c_char_p, c_void_p, c_size_t, POINTER(mooncake_replicate_config))
    library.mooncake_store_put_from.restype = c_int
    library.mooncake_store_batch_put_from.argtypes = (c_void_p, POINTER(c_char_p), POINTER(c_void_p), POINTER(c_size_t), c_size_t, POINTER(mooncake_replicate_config), POINTER(c_int))
    library.mooncake_store_batch_put_from.restype = c_int
    library.mooncake_store_get_into.argtypes = (c_void_p, c_char_p, c_void_p, c_size_t)
    library.mooncake_store_get_into.restype = c_int64
    library.mooncake_store_batch_get_into.argtypes = (c_void_p, POINTER(c_char_p), POINTER(c_void_p), POINTER(c_size_t), c_size_t, POINTER(c_int64))
    library.mooncake_store_batch_get_into.restype = c_int
    library.mooncake_store_is_exist.argtypes = (c_void_p, c_char_p)
    library.mooncake_store_is_exist.restype = c_int
    library.mooncake_store_batch_is_exist.argtypes = (c_void_p, POINTER(c_char_p), c_size_t, POINTER(c_int))
    library.mooncake_store_batch_is_exist.restype = c_int
    library.mooncake_store_get_size.argtypes = (c_void_p, c_char_p)
    library.mooncake_store_get_size.restype = c_int64
    library.mooncake_store_get_hostname.argtypes = (c_void_p, c_char_p, c_size_t)
    library.mooncake_store_get_hostname.restype = c_int
    library.mooncake_store_remove.argtypes = (c_void_p, c_char_p, c_int)
    library.mooncake_store_remove.restype = c_int
    library.mooncake_store_remove_by_regex.argtypes = (c_void_p, c_char_p, c_int)
    library.mooncake_store_remove_by_regex.restype = c_int64
    library.mooncake_store_remove_all.argtypes = (c_void_p, c_int)
    library.mooncake_store_remove_all.restype = c_int64
    library.mooncake_store_register_buffer.argtypes = (c_void_p, c_void_p, c_size_t)
    library.mooncake_store_register_buffer.restype = c_int
    library.mooncake_store_unregister_buffer.argtypes = (c_void_p, c_void_p)
    library.mooncake_store_unregister_buffer.restype = c_int
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
    library.mooncake_transfer_store_code_name.argtypes = (c_int,)
    library.mooncake_transfer_store_code_name.restype = c_char_p
    library.mooncake_transfer_store_code_text.argtypes = (c_int,)
    library.mooncake_transfer_store_code_text.restype = c_char_p
    library.mooncake_transfer_store_setup.argtypes = (c_void_p, POINTER(mooncake_transfer_store_options))
    library.mooncake_transfer_store_setup.restype = c_int
    library.mooncake_transfer_store_close.argtypes = (c_void_p,)
    library.mooncake_transfer_store_close.restype = c_int
    library.mooncake_transfer_store_drain.argtypes = (c_void_p, c_int64, POINTER(c_size_t))
    library.mooncake_transfer_store_drain.restype = c_int
    library.mooncake_transfer_store_put.argtypes = (c_void_p, c_char_p, POINTER(c_uint64), c_size_t, POINTER(c_uint64), POINTER(c_uint64), POINTER(c_uint64), POINTER(mooncake_transfer_store_replication), c_uint32, POINTER(c_int64))
    library.mooncake_transfer_store_put.restype = c_int
    library.mooncake_transfer_store_get.argtypes = (c_void_p, c_char_p, POINTER(c_uint64), c_size_t, POINTER(c_uint64), POINTER(c_uint64), POINTER(c_uint64), c_uint32, POINTER(c_int64))
    library.mooncake_transfer_store_get.restype = c_int
    library.mooncake_transfer_store_get_ranges.argtypes = (c_void_p, c_char_p, POINTER(c_uint64), c_size_t, POINTER(c_uint64), POINTER(c_uint64), POINTER(c_uint64), POINTER(c_uint64), POINTER(c_int64))
    library.mooncake_transfer_store_get_ranges.restype = c_int
    library.mooncake_transfer_store_exist.argtypes = (c_void_p, c_char_p, POINTER(c_uint64), c_size_t, POINTER(c_int64))
    library.mooncake_transfer_store_exist.restype = c_int
    library.mooncake_transfer_store_sizes.argtypes = (c_void_p, c_char_p, POINTER(c_uint64), c_size_t, POINTER(c_int64))
    library.mooncake_transfer_store_sizes.restype = c_int
    library.mooncake_transfer_store_remove.argtypes = (c_void_p, c_char_p, POINTER(c_uint64), c_size_t, c_int, POINTER(c_int64))
    library.mooncake_transfer_store_remove.restype = c_int
    library.mooncake_transfer_store_clear.argtypes = (c_void_p, c_char_p, POINTER(c_uint64), c_size_t, c_char_p, POINTER(c_int64))
    library.mooncake_transfer_store_clear.restype = c_int
    library.mooncake_transfer_store_replicas.argtypes = (c_void_p, c_char_p, POINTER(c_uint64), c_size_t, c_char_p, c_size_t, POINTER(c_size_t))
    library.mooncake_transfer_store_replicas.restype = c_int


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
    "mooncake_store_create",
    "mooncake_store_destroy",
    "mooncake_store_setup",
    "mooncake_store_init_all",
    "mooncake_store_health_check",
    "mooncake_store_put",
    "mooncake_store_put_from",
    "mooncake_store_batch_put_from",
    "mooncake_store_get_into",
    "mooncake_store_batch_get_into",
    "mooncake_store_is_exist",
    "mooncake_store_batch_is_exist",
    "mooncake_store_get_size",
    "mooncake_store_get_hostname",
    "mooncake_store_remove",
    "mooncake_store_remove_by_regex",
    "mooncake_store_remove_all",
    "mooncake_store_register_buffer",
    "mooncake_store_unregister_buffer",
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
    "mooncake_transfer_store_code_name",
    "mooncake_transfer_store_code_text",
    "mooncake_transfer_store_setup",
    "mooncake_transfer_store_close",
    "mooncake_transfer_store_drain",
    "mooncake_transfer_store_put",
    "mooncake_transfer_store_get",
    "mooncake_transfer_store_get_ranges",
    "mooncake_transfer_store_exist",
    "mooncake_transfer_store_sizes",
    "mooncake_transfer_store_remove",
    "mooncake_transfer_store_clear",
    "mooncake_transfer_store_replicas",
)
