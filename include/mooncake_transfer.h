/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What this library offers beyond transfer_engine_c.h. Both headers may be used together, on the same engine
 * and the same batches.
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
 */
#ifndef MOONCAKE_TRANSFER_H
#define MOONCAKE_TRANSFER_H

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

#ifdef __cplusplus
}
#endif

#endif /* MOONCAKE_TRANSFER_H */
