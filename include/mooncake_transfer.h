/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What this library offers beyond transfer_engine_c.h and store_c.h. All headers may be used together, on the same
 * engines, batches and stores.
 *
 * The law of this header
 *
 *  1. A function that can fail returns 0 or a negative enum mooncake_transfer_code. On failure no output is
 *     written, except where the function says so, and the failure becomes the calling thread's last error.
 *     A call that succeeds leaves the last error alone.
 *  2. Outputs come last. Structs begin with struct_size, which the caller sets to sizeof; a shorter struct of
 *     an older header is filled as far as it goes, a longer one of a newer header keeps its rest untouched.
 *  3. Texts given to the library are UTF-8, closed by NUL, copied before the call returns. Texts given by the
 *     library belong to it; nobody frees them. Those of an error record live until the same thread asks for
 *     the next record, or ends.
 *  4. Every call that can block has a deadline: timeout_ms, where MOONCAKE_TRANSFER_DEFAULT_TIMEOUT stands for
 *     MC_TRANSFER_TIMEOUT, 0 for "look, do not wait", and larger values than 30 days are 30 days. Transfers get
 *     one nanosecond a byte on top. Calls without timeout_ms have the limits of transfer_engine_c.h.
 *  5. Any thread may call anything. Closing an engine while others call is safe: they get STALE_HANDLE.
 *  6. Handles and batch ids are tickets with a generation. One that is NULL, closed, of another engine or from
 *     before a fork gives an error, never undefined behaviour.
 *  7. A callback runs on a thread of the library or of the caller, may block only briefly, and may not call
 *     the library.
 *  8. When a call that submits and waits (mooncake_transfer_run, _run_lists) answers anything but STILL_RUNNING,
 *     nothing it started touches your memory any more; what a submit started is quiet when its tasks are finished.
 *     With STILL_RUNNING you keep the batch id: the memory belongs to the transfer until a later wait ends it.
 *  9. Law 8 is about your memory. Of a write that failed, any part may stand at the peer. Where the connection broke
 *     in the middle, the peer may go on for a moment with what it was given before: over TCP with the bytes that were
 *     on their way; in a transfer by way of slots until it has seen the loss, at the latest when it has heard nothing
 *     for MOONCAKE_TRANSFER_CONTROL_SILENCE_MS. Whoever owns that memory knows that this is over when
 *     unregisterLocalMemory has succeeded there.
 */
#ifndef MOONCAKE_TRANSFER_H
#define MOONCAKE_TRANSFER_H

#include "store_c.h"
#include "transfer_engine_c.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Version of this header; compare with mooncake_transfer_version at run time. */
#define MOONCAKE_TRANSFER_VERSION "0.1.0"

/** As timeout_ms: what MC_TRANSFER_TIMEOUT says (30 s unless set). */
#define MOONCAKE_TRANSFER_DEFAULT_TIMEOUT (-1)
/** As a device: the caller's current one, or the one that the local name says. */
#define MOONCAKE_TRANSFER_ANY_DEVICE (-1)

/** Failures. Those with a twin in transfer_engine_c.h have its number. */
enum mooncake_transfer_code {
    MOONCAKE_TRANSFER_OK = 0,
    MOONCAKE_TRANSFER_INVALID_ARGUMENT = -1,
    MOONCAKE_TRANSFER_TOO_MANY_REQUESTS = -2,
    MOONCAKE_TRANSFER_ADDRESS_NOT_REGISTERED = -3,
    MOONCAKE_TRANSFER_BUSY = -4,
    MOONCAKE_TRANSFER_DEVICE_NOT_FOUND = -6,
    MOONCAKE_TRANSFER_ADDRESS_OVERLAPPED = -7,
    MOONCAKE_TRANSFER_DNS = -101,
    MOONCAKE_TRANSFER_SOCKET = -102,
    MOONCAKE_TRANSFER_MALFORMED_JSON = -103,
    MOONCAKE_TRANSFER_REJECT_HANDSHAKE = -104,
    MOONCAKE_TRANSFER_METADATA = -200,
    MOONCAKE_TRANSFER_ENDPOINT = -201,
    MOONCAKE_TRANSFER_CONTEXT = -202,
    MOONCAKE_TRANSFER_CLOCK = -301,
    MOONCAKE_TRANSFER_MEMORY = -302,
    MOONCAKE_TRANSFER_NOT_IMPLEMENTED = -303,
    MOONCAKE_TRANSFER_NOT_SUPPORTED_TRANSPORT = -1001,
    /** The deadline passed; what was started is quiet again. Of mooncake_transfer_wait: only the wait is over. */
    MOONCAKE_TRANSFER_TIMEOUT = -1002,
    /** mooncake_transfer_cancel; what was started is quiet again. */
    MOONCAKE_TRANSFER_CANCELLED = -1003,
    /** The deadline passed and what was started could not be made quiet; the batch lives on. */
    MOONCAKE_TRANSFER_STILL_RUNNING = -1004,
    /** The peer behind this name is another process than before. */
    MOONCAKE_TRANSFER_STALE_INCARNATION = -1005,
    /** A library of CANN, or a function in it, is missing. */
    MOONCAKE_TRANSFER_LIBRARY_UNAVAILABLE = -1006,
    /** A vendor call failed; the record has its name, code and text. */
    MOONCAKE_TRANSFER_VENDOR = -1007,
    /** A limit of the machine or the vendor forbids it. */
    MOONCAKE_TRANSFER_UNSUPPORTED = -1008,
    /** The handle is closed, of another engine, or from before a fork. */
    MOONCAKE_TRANSFER_STALE_HANDLE = -1009,
    /** A defect of this library. */
    MOONCAKE_TRANSFER_INTERNAL = -1010
};

/** Where in the life of a transfer a failure arose. */
enum mooncake_transfer_stage {
    MOONCAKE_TRANSFER_STAGE_CONFIGURE = 0,
    MOONCAKE_TRANSFER_STAGE_LOAD = 1,
    MOONCAKE_TRANSFER_STAGE_RESOLVE = 2,
    MOONCAKE_TRANSFER_STAGE_HANDSHAKE = 3,
    MOONCAKE_TRANSFER_STAGE_CONNECT = 4,
    MOONCAKE_TRANSFER_STAGE_REGISTER = 5,
    MOONCAKE_TRANSFER_STAGE_SUBMIT = 6,
    MOONCAKE_TRANSFER_STAGE_EXECUTE = 7,
    MOONCAKE_TRANSFER_STAGE_DRAIN = 8
};

/** Bits of mooncake_transfer_error.known. */
#define MOONCAKE_TRANSFER_KNOWS_DEVICE (1u)
#define MOONCAKE_TRANSFER_KNOWS_RANGE (2u)
#define MOONCAKE_TRANSFER_KNOWS_VENDOR (4u)

/** Everything known about one failure. Texts that are unknown are NULL. */
struct mooncake_transfer_error {
    size_t struct_size;          /* set by the caller */
    int32_t code;                /* enum mooncake_transfer_code */
    int32_t stage;               /* enum mooncake_transfer_stage */
    int32_t negative;            /* the same failure in transfer_engine_c.h's negative numbering */
    int32_t status;              /* and in its status numbering */
    uint32_t known;              /* MOONCAKE_TRANSFER_KNOWS_* */
    int32_t device;              /* the id aclrtSetDevice takes */
    uint64_t range_start;        /* the address range it concerns */
    uint64_t range_length_bytes;
    int32_t vendor_code;         /* an aclError or a HcclResult */
    int32_t reserved;
    const char *code_name;       /* "address-overlapped" */
    const char *stage_name;      /* "register" */
    const char *message;         /* one sentence with the facts */
    const char *peer;            /* as the caller named it */
    const char *vendor_function; /* as the vendor spells it */
    const char *vendor_text;     /* aclGetRecentErrMsg, fetched on the same thread */
    const char *vendor_log;      /* where the vendor logs */
    const char *advice;          /* what to do */
    const char *text;            /* all of the above in one line */
};

/** How to make an engine. */
struct mooncake_transfer_options {
    size_t struct_size;     /* set by the caller */
    const char *metadata;   /* as createTransferEngine's metadata_conn_string */
    const char *local_name; /* as createTransferEngine's local_server_name */
    int32_t device;         /* the id aclrtSetDevice takes, or MOONCAKE_TRANSFER_ANY_DEVICE */
    int32_t auto_discover;  /* non-zero: read the machine's memory nodes into the topology */
};

/** Levels of the log; MC_LOG_LEVEL sets the first one. */
enum mooncake_transfer_log_level {
    MOONCAKE_TRANSFER_LOG_OFF = 0,
    MOONCAKE_TRANSFER_LOG_ERROR = 1,
    MOONCAKE_TRANSFER_LOG_WARNING = 2,
    MOONCAKE_TRANSFER_LOG_INFO = 3,
    MOONCAKE_TRANSFER_LOG_DEBUG = 4,
    MOONCAKE_TRANSFER_LOG_TRACE = 5
};

/** Takes one line of the log. Both texts live until it returns. */
typedef void (*mooncake_transfer_log_sink_t)(void *user, int level, const char *module, const char *message);

/** Version of the library, "0.1.0". Cannot fail. */
const char *mooncake_transfer_version(void);

/** Name of a code of this header, "busy"; "unknown" for other numbers. Cannot fail. */
const char *mooncake_transfer_code_name(int code);

/**
 * Writes the calling thread's last error. INVALID_ARGUMENT when error is NULL or too short, METADATA when
 * no call failed on this thread since the last clear; neither changes the last error.
 */
int mooncake_transfer_last_error(struct mooncake_transfer_error *error);

/** Forgets the calling thread's last error. Cannot fail. */
void mooncake_transfer_clear_error(void);

/** Makes an engine; see createTransferEngine. End it with destroyTransferEngine. */
int mooncake_transfer_create(const struct mooncake_transfer_options *options, transfer_engine_t *engine);

/** Writes the name that peers open, IPv6 hosts in brackets. Fails when capacity is too small (256 never is). */
int mooncake_transfer_session_name(transfer_engine_t engine, char *name, size_t capacity);

/**
 * Makes ready what a protocol needs, as the protocol argument of upstream's initialize asks for it. "ascend"
 * opens CANN; where that fails, one warning says why, host memory can still be moved and device memory is
 * refused, unless MOONCAKE_TRANSFER_REQUIRE_NPU=1 makes it an error. "rdma" warns once that no card is driven.
 * Every other protocol, also an unknown one, is fine: host memory always moves within the host or by TCP.
 */
int mooncake_transfer_use_protocol(transfer_engine_t engine, const char *protocol);

/**
 * Writes the lowest host address that the engine of that name has published, else its lowest device address,
 * else 0. A descriptor known before is fetched anew.
 */
int mooncake_transfer_first_buffer_address(transfer_engine_t engine, const char *segment_name, uint64_t *address);

/** Asks whether the engine of that name answers. */
int mooncake_transfer_probe(transfer_engine_t engine, const char *segment_name);

/** As submitTransfer, with a deadline for these requests; their memory is quiet at most a grace time after. */
int mooncake_transfer_submit(transfer_engine_t engine, batch_id_t batch_id, const struct transfer_request *requests,
                             size_t count, int64_t timeout_ms);

/**
 * Waits until every task of the batch is finished, using no processor time. 0: all completed. Otherwise the
 * first failed task's code; TIMEOUT when the wait ended first and tasks are still waiting; STILL_RUNNING as
 * in the law. All tasks that it saw finished count as seen: the batch can be freed.
 */
int mooncake_transfer_wait(transfer_engine_t engine, batch_id_t batch_id, int64_t timeout_ms);

/** Stops what the batch has not finished. Its tasks end as FAILED with CANCELLED, or complete. */
int mooncake_transfer_cancel(transfer_engine_t engine, batch_id_t batch_id);

/**
 * Submits, waits and frees in one call. *still_running is written only on STILL_RUNNING: wait for that batch
 * later and free it with freeBatchID.
 */
int mooncake_transfer_run(transfer_engine_t engine, const struct transfer_request *requests, size_t count,
                          int64_t timeout_ms, batch_id_t *still_running);

/**
 * As mooncake_transfer_submit, for requests of one direction (OPCODE_*) and one segment, given as arrays of
 * count local addresses, remote addresses and lengths. notify_msg, unless NULL, is sent to the segment when the
 * whole batch is complete.
 */
int mooncake_transfer_submit_lists(transfer_engine_t engine, batch_id_t batch_id, segment_id_t segment_id, int opcode,
                                   const uint64_t *local, const uint64_t *remote, const uint64_t *lengths_bytes,
                                   size_t count, const struct notify_msg *notify_msg, int64_t timeout_ms);

/** As mooncake_transfer_run, for requests given as mooncake_transfer_submit_lists takes them. */
int mooncake_transfer_run_lists(transfer_engine_t engine, segment_id_t segment_id, int opcode, const uint64_t *local,
                                const uint64_t *remote, const uint64_t *lengths_bytes, size_t count,
                                const struct notify_msg *notify_msg, int64_t timeout_ms, batch_id_t *still_running);

/** Writes why a task failed. METADATA when the task has not failed. */
int mooncake_transfer_task_error(transfer_engine_t engine, batch_id_t batch_id, size_t task_id,
                                 struct mooncake_transfer_error *error);

/**
 * Writes the engine's counters as Prometheus text. *length_bytes is the text's length without NUL; it is written also
 * when capacity is too small (TOO_MANY_REQUESTS), so that a call with capacity 0 tells how much to bring.
 */
int mooncake_transfer_counters(transfer_engine_t engine, char *text, size_t capacity, size_t *length_bytes);

/** Writes the engine's topology as upstream's JSON; capacity and length as for mooncake_transfer_counters. */
int mooncake_transfer_topology(transfer_engine_t engine, char *text, size_t capacity, size_t *length_bytes);

/**
 * Sends the log to sink instead of standard error (NULL: back to standard error) from level upward; user is
 * handed through. When it returns, the previous sink is not running and will not be called again. BUSY when
 * the previous sink does not return within 5 seconds.
 */
int mooncake_transfer_set_log(mooncake_transfer_log_sink_t sink, void *user, int level);

/*
 * The pool. These functions take a store of store_c.h. They differ from the law above in one thing: what they return,
 * and write for each key, are the numbers of enum mooncake_transfer_store_code.
 *
 * Keys are given as one run of bytes, in UTF-8, in which each key follows the one before without a NUL between, and
 * an array of their lengths. Buffers are given for all keys together, those of the first key first, as arrays of
 * addresses and lengths; buffer_counts says how many belong to each key. An object is the bytes of its buffers in
 * their order. results has one place for each key and is written completely when the call returns 0.
 */

/** Outcomes of the pool, in upstream's numbers. The comment of each is what mooncake_transfer_store_code_text gives. */
enum mooncake_transfer_store_code {
    /** Done. */
    MOONCAKE_TRANSFER_STORE_OK = 0,
    /** The client or the master failed in a way that no other code names. */
    MOONCAKE_TRANSFER_STORE_INTERNAL_ERROR = -1,
    /** A buffer is too small for what it should hold. */
    MOONCAKE_TRANSFER_STORE_BUFFER_OVERFLOW = -10,
    /** The master asked for a part of its table that does not exist. */
    MOONCAKE_TRANSFER_STORE_SHARD_INDEX_OUT_OF_RANGE = -100,
    /** The pool has no segment of that name or id. */
    MOONCAKE_TRANSFER_STORE_SEGMENT_NOT_FOUND = -101,
    /** The pool has a segment of that id already. */
    MOONCAKE_TRANSFER_STORE_SEGMENT_ALREADY_EXISTS = -102,
    /** The master does not know this client. */
    MOONCAKE_TRANSFER_STORE_CLIENT_NOT_FOUND = -103,
    /** The pool is full: no segment has room for the object. */
    MOONCAKE_TRANSFER_STORE_NO_AVAILABLE_HANDLE = -200,
    /** Client and master speak different versions. */
    MOONCAKE_TRANSFER_STORE_INVALID_VERSION = -300,
    /** The key cannot be used. */
    MOONCAKE_TRANSFER_STORE_INVALID_KEY = -400,
    /** The master could not write. */
    MOONCAKE_TRANSFER_STORE_WRITE_FAIL = -500,
    /** An argument cannot be used, or the store is not set up. */
    MOONCAKE_TRANSFER_STORE_INVALID_PARAMS = -600,
    /** The object belongs to another client. */
    MOONCAKE_TRANSFER_STORE_ILLEGAL_CLIENT = -601,
    /** The object is in no state that can be written. */
    MOONCAKE_TRANSFER_STORE_INVALID_WRITE = -700,
    /** The object is in no state that can be read. */
    MOONCAKE_TRANSFER_STORE_INVALID_READ = -701,
    /** The copy is in no usable state. */
    MOONCAKE_TRANSFER_STORE_INVALID_REPLICA = -702,
    /** The object is still being written. */
    MOONCAKE_TRANSFER_STORE_REPLICA_IS_NOT_READY = -703,
    /** There is no object of that key. */
    MOONCAKE_TRANSFER_STORE_OBJECT_NOT_FOUND = -704,
    /** There is an object of that key already. */
    MOONCAKE_TRANSFER_STORE_OBJECT_ALREADY_EXISTS = -705,
    /** The object may be in use: its lease has not ended. */
    MOONCAKE_TRANSFER_STORE_OBJECT_HAS_LEASE = -706,
    /** The lease ended before the read did, so that the bytes cannot be trusted. */
    MOONCAKE_TRANSFER_STORE_LEASE_EXPIRED = -707,
    /** The object is being copied or moved. */
    MOONCAKE_TRANSFER_STORE_OBJECT_HAS_REPLICATION_TASK = -708,
    /** The object is not being copied or moved. */
    MOONCAKE_TRANSFER_STORE_OBJECT_NO_REPLICATION_TASK = -709,
    /** There is no such copy of the object. */
    MOONCAKE_TRANSFER_STORE_REPLICA_NOT_FOUND = -710,
    /** There is such a copy of the object already. */
    MOONCAKE_TRANSFER_STORE_REPLICA_ALREADY_EXISTS = -711,
    /** The copy went away meanwhile. */
    MOONCAKE_TRANSFER_STORE_REPLICA_IS_GONE = -712,
    /** The copy does not lie in this client's memory. */
    MOONCAKE_TRANSFER_STORE_REPLICA_NOT_IN_LOCAL_MEMORY = -713,
    /** A copy of the object is in use. */
    MOONCAKE_TRANSFER_STORE_OBJECT_REPLICA_BUSY = -714,
    /** The bytes could not be moved; the last error says between whom and why. */
    MOONCAKE_TRANSFER_STORE_TRANSFER_FAIL = -800,
    /** The bytes are not those that were stored. */
    MOONCAKE_TRANSFER_STORE_CHECKSUM_MISMATCH = -801,
    /** The master does not answer, or answered what cannot be understood. */
    MOONCAKE_TRANSFER_STORE_RPC_FAIL = -900,
    /** The master did not answer in time. */
    MOONCAKE_TRANSFER_STORE_RPC_TIMEOUT = -901,
    /** An operation of the metadata service failed. */
    MOONCAKE_TRANSFER_STORE_ETCD_OPERATION_ERROR = -1000,
    /** The metadata service has no such key. */
    MOONCAKE_TRANSFER_STORE_ETCD_KEY_NOT_EXIST = -1001,
    /** A transaction of the metadata service failed. */
    MOONCAKE_TRANSFER_STORE_ETCD_TRANSACTION_FAIL = -1002,
    /** An operation of the metadata service was cancelled. */
    MOONCAKE_TRANSFER_STORE_ETCD_CTX_CANCELLED = -1003,
    /** The master's operation log has no such entry. */
    MOONCAKE_TRANSFER_STORE_OPLOG_ENTRY_NOT_FOUND = -1004,
    /** An operation on the cluster's lease failed. */
    MOONCAKE_TRANSFER_STORE_K8S_LEASE_OPERATION_ERROR = -1005,
    /** The cluster has no such lease. */
    MOONCAKE_TRANSFER_STORE_K8S_LEASE_NOT_FOUND = -1006,
    /** The master has not read its operation log to the end. */
    MOONCAKE_TRANSFER_STORE_INCOMPLETE_OPLOG_CATCH_UP = -1007,
    /** The master cannot do this in its present state. */
    MOONCAKE_TRANSFER_STORE_UNAVAILABLE_IN_CURRENT_STATUS = -1010,
    /** The master does not do this in its mode of operation. */
    MOONCAKE_TRANSFER_STORE_UNAVAILABLE_IN_CURRENT_MODE = -1011,
    /** This is not offered. */
    MOONCAKE_TRANSFER_STORE_NOT_SUPPORTED = -1012,
    /** There is no such file. */
    MOONCAKE_TRANSFER_STORE_FILE_NOT_FOUND = -1100,
    /** The file cannot be opened. */
    MOONCAKE_TRANSFER_STORE_FILE_OPEN_FAIL = -1101,
    /** The file cannot be read. */
    MOONCAKE_TRANSFER_STORE_FILE_READ_FAIL = -1102,
    /** The file cannot be written. */
    MOONCAKE_TRANSFER_STORE_FILE_WRITE_FAIL = -1103,
    /** The file's buffer cannot be used. */
    MOONCAKE_TRANSFER_STORE_FILE_INVALID_BUFFER = -1104,
    /** The file cannot be locked. */
    MOONCAKE_TRANSFER_STORE_FILE_LOCK_FAIL = -1105,
    /** The file is not open. */
    MOONCAKE_TRANSFER_STORE_FILE_INVALID_HANDLE = -1106,
    /** There is no such bucket on the disk. */
    MOONCAKE_TRANSFER_STORE_BUCKET_NOT_FOUND = -1200,
    /** There is such a bucket on the disk already. */
    MOONCAKE_TRANSFER_STORE_BUCKET_ALREADY_EXISTS = -1201,
    /** A bucket on the disk has too many keys. */
    MOONCAKE_TRANSFER_STORE_KEYS_EXCEED_BUCKET_LIMIT = -1202,
    /** The disk has too many keys. */
    MOONCAKE_TRANSFER_STORE_KEYS_ULTRA_LIMIT = -1203,
    /** The object cannot be copied to a disk. */
    MOONCAKE_TRANSFER_STORE_UNABLE_OFFLOAD = -1300,
    /** The object cannot be copied to a disk now. */
    MOONCAKE_TRANSFER_STORE_UNABLE_OFFLOADING = -1301,
    /** There is no such task. */
    MOONCAKE_TRANSFER_STORE_TASK_NOT_FOUND = -1400,
    /** Too many tasks are waiting. */
    MOONCAKE_TRANSFER_STORE_TASK_PENDING_LIMIT_EXCEEDED = -1401,
    /** There is no such job. */
    MOONCAKE_TRANSFER_STORE_JOB_NOT_FOUND = -1402,
    /** This cannot be written down. */
    MOONCAKE_TRANSFER_STORE_SERIALIZE_UNSUPPORTED = -1500,
    /** Writing down failed. */
    MOONCAKE_TRANSFER_STORE_SERIALIZE_FAIL = -1501,
    /** What was written down cannot be read. */
    MOONCAKE_TRANSFER_STORE_DESERIALIZE_FAIL = -1502,
    /** The master's state cannot be kept. */
    MOONCAKE_TRANSFER_STORE_PERSISTENT_FAIL = -1503,
    /** The shared file system did not answer in time. */
    MOONCAKE_TRANSFER_STORE_DFS_NETWORK_TIMEOUT = -1600,
    /** The shared file system is not available. */
    MOONCAKE_TRANSFER_STORE_DFS_SERVICE_UNAVAILABLE = -1601,
    /** The shared file system's quota is used up. */
    MOONCAKE_TRANSFER_STORE_DFS_QUOTA_EXCEEDED = -1602,
    /** The shared file system does not permit this. */
    MOONCAKE_TRANSFER_STORE_DFS_PERMISSION_DENIED = -1603,
    /** The shared file system has forgotten the file. */
    MOONCAKE_TRANSFER_STORE_DFS_STALE_HANDLE = -1604,
    /** The shared file system wrote only a part. */
    MOONCAKE_TRANSFER_STORE_DFS_PARTIAL_WRITE = -1605,
    /** The tenant's quota is used up. */
    MOONCAKE_TRANSFER_STORE_TENANT_QUOTA_EXCEEDED = -1700,
    /** The tenant is not known. */
    MOONCAKE_TRANSFER_STORE_TENANT_NOT_REGISTERED = -1701,
    /** The tenant still has objects. */
    MOONCAKE_TRANSFER_STORE_TENANT_NOT_EMPTY = -1702
};

/** Bits of the flags of mooncake_transfer_store_put. */
/** An existing object gets the new value. Otherwise it keeps its own, and the outcome is 0. */
#define MOONCAKE_TRANSFER_STORE_UPSERT (1u)
/** As mooncake_store_put: host memory, and -600 where there is no local buffer. */
#define MOONCAKE_TRANSFER_STORE_STAGED (2u)

/** Bits of the flags of mooncake_transfer_store_get. */
/** Buffers that are larger than the object are -800, as in upstream's multi-buffer form, instead of fine. */
#define MOONCAKE_TRANSFER_STORE_EXACT (1u)

/** As soft_pin of struct mooncake_transfer_store_replication. */
#define MOONCAKE_TRANSFER_STORE_PIN_PRESERVE (0)
#define MOONCAKE_TRANSFER_STORE_PIN_ENABLE (1)
#define MOONCAKE_TRANSFER_STORE_PIN_DISABLE (2)

/** How to join a pool; see mooncake_store_setup. */
struct mooncake_transfer_store_options {
    size_t struct_size; /* set by the caller */
    const char *local_hostname;
    const char *metadata_server;
    const char *protocol;       /* NULL: "tcp" */
    const char *device_names;   /* NULL: "" */
    const char *master_address; /* NULL: "127.0.0.1:50051"; several, divided by commas, are tried in order */
    const char *tenant;         /* NULL: "default" */
    uint64_t global_segment_size_bytes;
    uint64_t local_buffer_size_bytes;
    transfer_engine_t engine; /* NULL: one of the store's own; otherwise either may be closed before the other */
};

/** How objects are placed; all zero but struct_size and replica_count is the default. */
struct mooncake_transfer_store_replication {
    size_t struct_size; /* set by the caller */
    uint64_t replica_count;
    uint64_t soft_pin_ttl_ms;
    int32_t soft_pin;         /* MOONCAKE_TRANSFER_STORE_PIN_* */
    int32_t has_soft_pin_ttl; /* non-zero: soft_pin_ttl_ms is meant */
    int32_t hard_pin;         /* non-zero: never evicted */
    int32_t same_node;        /* non-zero: all objects of a call on one segment where that is possible */
    int32_t data_type;        /* what the bytes are, in upstream's numbers; 0 is unknown */
    int32_t reserved;
    const char **preferred_segments;
    size_t preferred_segment_count;
    const char **group_ids; /* NULL, or one for each key of the call: a group is evicted as one */
    size_t group_id_count;
};

/** Name of a code, "OBJECT_NOT_FOUND"; "UNKNOWN" for other numbers. Cannot fail. */
const char *mooncake_transfer_store_code_name(int code);

/** The sentence of a code; "" for other numbers. Cannot fail. */
const char *mooncake_transfer_store_code_text(int code);

/** As mooncake_store_setup, with what it has no argument for. */
int mooncake_transfer_store_setup(mooncake_store_t store, const struct mooncake_transfer_store_options *options);

/** Leaves the pool; the handle stays and can be set up again. Of a store that is not set up: 0. */
int mooncake_transfer_store_close(mooncake_store_t store);

/**
 * Waits until transfers are over that a call of this store had to give up after its deadline and could not make quiet
 * (the last error was MOONCAKE_TRANSFER_STILL_RUNNING): *left is how many go on. While one does, the memory that was
 * given to its call may still be read or written. With 0 as timeout_ms it only looks.
 */
int mooncake_transfer_store_drain(mooncake_store_t store, int64_t timeout_ms, size_t *left);

/** Stores objects. A result is 0 or a negative code. replication may be NULL. */
int mooncake_transfer_store_put(mooncake_store_t store, const char *keys, const uint64_t *key_lengths_bytes,
                                size_t key_count, const uint64_t *buffer_counts, const uint64_t *addresses,
                                const uint64_t *lengths_bytes,
                                const struct mooncake_transfer_store_replication *replication, uint32_t flags,
                                int64_t *results);

/** Reads objects into buffers. A result is the object's length or a negative code. */
int mooncake_transfer_store_get(mooncake_store_t store, const char *keys, const uint64_t *key_lengths_bytes,
                                size_t key_count, const uint64_t *buffer_counts, const uint64_t *addresses,
                                const uint64_t *lengths_bytes, uint32_t flags, int64_t *results);

/**
 * Reads parts of objects: buffer_counts, addresses and lengths_bytes say where the parts go, and source_offsets_bytes
 * where in its object each part begins. results has one place for each part: its length or a negative code.
 */
int mooncake_transfer_store_get_ranges(mooncake_store_t store, const char *keys, const uint64_t *key_lengths_bytes,
                                       size_t key_count, const uint64_t *buffer_counts, const uint64_t *addresses,
                                       const uint64_t *lengths_bytes, const uint64_t *source_offsets_bytes,
                                       int64_t *results);

/** A result is 1: there, and leased; 0: not there; negative: not known. */
int mooncake_transfer_store_exist(mooncake_store_t store, const char *keys, const uint64_t *key_lengths_bytes,
                                  size_t key_count, int64_t *results);

/** A result is the object's length or a negative code. */
int mooncake_transfer_store_sizes(mooncake_store_t store, const char *keys, const uint64_t *key_lengths_bytes,
                                  size_t key_count, int64_t *results);

/** Removes objects, those in use only with force. A result is 0 or a negative code. */
int mooncake_transfer_store_remove(mooncake_store_t store, const char *keys, const uint64_t *key_lengths_bytes,
                                   size_t key_count, int force, int64_t *results);

/** Drops the copies on that segment, "" for all, of objects that this client stored. A result is 1 when it did. */
int mooncake_transfer_store_clear(mooncake_store_t store, const char *keys, const uint64_t *key_lengths_bytes,
                                  size_t key_count, const char *segment_name, int64_t *results);

/**
 * Writes, as JSON, where the copies of each object are: an array with, for each key, null or an array of objects
 * {"id", "status", "kind", "size", "address", "endpoint", "path"}, of which those that do not apply are absent.
 * Capacity and length as for mooncake_transfer_counters; too small a capacity is -10.
 */
int mooncake_transfer_store_replicas(mooncake_store_t store, const char *keys, const uint64_t *key_lengths_bytes,
                                     size_t key_count, char *text, size_t capacity, size_t *length_bytes);

#ifdef __cplusplus
}
#endif

#endif /* MOONCAKE_TRANSFER_H */
