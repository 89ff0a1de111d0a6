/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The transfer engine's C interface as existing programs know it: the names, types, numbers and return
 * conventions of Mooncake's transfer_engine_c.h from release 0.3.0 to 0.3.13. A program written for that
 * header compiles with this one and runs with libmooncake_transfer.so without a change.
 *
 * What this library adds to the contract, for every function here:
 *
 *  - NULL is checked. A NULL, closed, foreign or pre-fork engine is an error, never a crash: the failure value
 *    of the function's type is returned and a record says why (mooncake_transfer_last_error in
 *    mooncake_transfer.h).
 *  - Texts and arrays are copied before the call returns; they may be freed right away.
 *  - Any thread may call any function. Calls on one batch may also run side by side.
 *  - Every exchange with a peer or the metadata service is bounded by MC_HANDSHAKE_CONNECT_TIMEOUT (a call over a
 *    list, such as syncSegmentCache, by that for each of it), every transfer by MC_TRANSFER_TIMEOUT plus one
 *    nanosecond a byte.
 *
 * Two numberings of failures exist, and each function uses one of them:
 *
 *  - "negative" (registration, open, notifications): -1 invalid argument, -2 too many requests, -3 address not
 *    registered, -4 busy, -6 no such device, -7 address overlapped, -101 name resolution, -102 socket,
 *    -103 malformed JSON, -104 rejected handshake, -200 metadata, -201 endpoint, -202 device context or vendor
 *    failure, -301 clock, -302 memory, -303 not implemented or not supported;
 *  - "status" (submit, poll, free): 1 invalid argument, 2 too many requests, 3 address not registered, 4 busy,
 *    6 no such device, 7 address overlapped, 8 no transport serves it, 101 name resolution, 102 socket,
 *    103 malformed JSON, 104 rejected handshake, 200 metadata, 201 endpoint, 202 device context or vendor
 *    failure, 301 clock, 302 memory, 999 not implemented.
 */
#ifndef MOONCAKE_TRANSFER_ENGINE_C_H
#define MOONCAKE_TRANSFER_ENGINE_C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Macros rather than typedefs, because programs were written against macros. */
#define segment_handle_t int32_t
#define segment_id_t int32_t
#define batch_id_t uint64_t

/** Id of the engine's own segment. */
#define LOCAL_SEGMENT (0)
/** What allocateBatchID answers on failure; no batch has this id. */
#define INVALID_BATCH UINT64_MAX

/** Opcodes: fetch from, or store to, the target segment. Any other number behaves as OPCODE_READ. */
#define OPCODE_READ (0)
#define OPCODE_WRITE (1)

/** Task states. getTransferStatus of this library shows WAITING, COMPLETED and FAILED only. */
#define STATUS_WAITING (0)
#define STATUS_PENDING (1)
#define STATUS_INVALID (2)
#define STATUS_CANCELED (3)
#define STATUS_COMPLETED (4)
#define STATUS_TIMEOUT (5)
#define STATUS_FAILED (6)

/** Opaque handle of an engine. Its value is a ticket that the library checks, not an address. */
typedef void *transfer_engine_t;
/** Opaque handle of an installed transport; no function takes it. */
typedef void *transport_t;

/** One block to move: 40 bytes. */
struct transfer_request {
    int opcode;             /* OPCODE_READ or OPCODE_WRITE */
    void *source;           /* local address, host or NPU */
    segment_id_t target_id; /* from openSegment, or LOCAL_SEGMENT */
    uint64_t target_offset; /* absolute address in the target process */
    uint64_t length;        /* bytes; 0 completes at once */
};
typedef struct transfer_request transfer_request_t;

/** State of one task: 16 bytes. */
struct transfer_status {
    int status;                 /* STATUS_* */
    uint64_t transferred_bytes; /* never more than the request's length */
};
typedef struct transfer_status transfer_status_t;

/** A notification: two texts. Passed by value to the library, as an array from it. */
struct notify_msg {
    char *name;
    char *msg;
};
typedef struct notify_msg notify_msg_t;

/** One range to register: 16 bytes. */
struct buffer_entry {
    void *addr;
    size_t length;
};
typedef struct buffer_entry buffer_entry_t;

/** Load of one RDMA card: 80 bytes. This library drives none. */
struct nic_load_stat {
    char device_name[64];
    uint64_t inflight_bytes;
    double ewma_bandwidth_bps;
};
typedef struct nic_load_stat nic_load_stat_t;

/** Kept for programs that name the type; no function uses it. */
struct segment_desc {
    int type;
    union {
        struct {
            void *addr;
            uint64_t size;
            const char *location;
        } rdma;
        struct {
            const char *file_path;
            const char *subsystem_name;
            const char *proto;
            const char *ip;
            uint64_t port;
        } nvmeof;
    } desc_;
};
typedef struct segment_desc segment_desc_t;

/* ---- engine ------------------------------------------------------------------------------------------- */

/**
 * Makes an engine and starts its listeners.
 *
 * metadata_conn_string: "P2PHANDSHAKE", "http://host:port/metadata" or "etcd://host:port". local_server_name: "host",
 * "host:port", "[v6]:port" or "host:port:npu_N" (N a physical device id), with a metadata service any text; with
 * P2PHANDSHAKE the port is chosen by the engine, see getLocalIpAndPort. ip_or_host_name and rpc_port are
 * accepted and ignored (ip_or_host_name may be NULL).
 * auto_discover non-zero: read the machine's memory nodes into the topology. NPUs are opened on first use either
 * way.
 *
 * Returns NULL on failure.
 */
transfer_engine_t createTransferEngine(const char *metadata_conn_string, const char *local_server_name,
                                       const char *ip_or_host_name, uint64_t rpc_port, int auto_discover);

/** Stops the engine, in bounded time. The handle is dead from here on; a NULL or dead one is ignored. */
void destroyTransferEngine(transfer_engine_t engine);

/** Looks again at what the machine has. Returns 0, or a negative code. */
int discoverTopology(transfer_engine_t engine);

/**
 * Writes the name under which peers open this engine, as "host:port" with no brackets around an IPv6 host,
 * cut to buf_len and closed by NUL. (mooncake_transfer_session_name gives the bracketed form.)
 * Returns 0, or -1 for a bad handle or buffer.
 */
int getLocalIpAndPort(transfer_engine_t engine, char *buf_out, size_t buf_len);

/* ---- transports --------------------------------------------------------------------------------------- */

/**
 * Installs a transport by name: "ascend", or "tcp", which is always there. args may be NULL; otherwise
 * args[0], unless NULL, is a priority matrix as JSON text. Installing what is installed returns the same handle.
 * Returns NULL for a name that is unknown or not offered, and for a matrix that does not parse.
 */
transport_t installTransport(transfer_engine_t engine, const char *proto, void **args);

/** Does nothing, successfully; transports live as long as their engine. */
int uninstallTransport(transfer_engine_t engine, const char *proto);

/* ---- segments ----------------------------------------------------------------------------------------- */

/**
 * Opens a peer's segment by name; leading '/' are dropped. A name opened before answers from the cache, the
 * engine's own name is 0, others count 1, 2, 3 and are never reused. Returns -1 on failure.
 */
segment_handle_t openSegment(transfer_engine_t engine, const char *segment_name);

/** The same, but a known descriptor is fetched anew first. */
segment_handle_t openSegmentNoCache(transfer_engine_t engine, const char *segment_name);

/** Does nothing, successfully; segments live as long as their engine. */
int closeSegment(transfer_engine_t engine, segment_handle_t segment_id);

/** Forgets a name and its id. 0, also for an unknown name; -1 for an empty one. */
int removeLocalSegment(transfer_engine_t engine, const char *segment_name);

/** Fetches every cached descriptor anew; a peer that does not answer is logged, not returned. */
int syncSegmentCache(transfer_engine_t engine);

/** Does nothing, successfully; there is no EFA card here. */
int warmupEfaSegment(transfer_engine_t engine, const char *segment_name);

/* ---- memory ------------------------------------------------------------------------------------------- */

/**
 * Makes a range reachable by peers. location: "cpu:N", "npu:N" or "*" (found out). remote_accessible is
 * ignored. Returns 0, -1 for a zero length or a bad argument, -7 for an overlap, or another negative code.
 */
int registerLocalMemory(transfer_engine_t engine, void *addr, size_t length, const char *location,
                        int remote_accessible);

/** Withdraws the range that starts at addr. -3: not registered; -4: transfers in flight touch it. */
int unregisterLocalMemory(transfer_engine_t engine, void *addr);

/** Registers all ranges or none. An empty list is fine. */
int registerLocalMemoryBatch(transfer_engine_t engine, buffer_entry_t *buffer_list, size_t buffer_len,
                             const char *location);

/** Withdraws each range, goes on past failures and returns the first of them. */
int unregisterLocalMemoryBatch(transfer_engine_t engine, void **addr_list, size_t addr_len);

/* ---- transfers ---------------------------------------------------------------------------------------- */

/** Makes a batch that takes up to batch_size requests, over any number of submits. INVALID_BATCH on failure. */
batch_id_t allocateBatchID(transfer_engine_t engine, size_t batch_size);

/**
 * Queues requests; task ids go on counting over the submits of a batch. Returns a status code: 0, 1 for an
 * unknown target or batch, 2 over capacity, 8 when the target publishes a protocol that is not spoken here. On
 * failure nothing was queued. What goes wrong later shows in getTransferStatus.
 */
int submitTransfer(transfer_engine_t engine, batch_id_t batch_id, struct transfer_request *entries, size_t count);

/** The same, and sends the notification to the first entry's target when the whole batch is complete. */
int submitTransferWithNotify(transfer_engine_t engine, batch_id_t batch_id, struct transfer_request *entries,
                             size_t count, notify_msg_t notify_msg);

/**
 * Looks at one task without waiting. Returns a status code; 1, with status untouched, for an unknown batch or
 * task. When the state written is FAILED, the task's failure becomes the thread's last error.
 */
int getTransferStatus(transfer_engine_t engine, batch_id_t batch_id, size_t task_id,
                      struct transfer_status *status);

/** Ends a batch. 4 while a task was not seen finished, by getTransferStatus or a wait; afterwards the id is dead. */
int freeBatchID(transfer_engine_t engine, batch_id_t batch_id);

/* ---- notifications ------------------------------------------------------------------------------------ */

/**
 * Takes all notifications that arrived: writes their number and returns an array to be given back with
 * freeNotifsMsgBuf, or NULL and 0 when there is none (NULL and -1 on failure).
 */
notify_msg_t *getNotifsFromEngine(transfer_engine_t engine, int *size);

/** Frees what getNotifsFromEngine returned; size must be the number it wrote. NULL is fine. */
int freeNotifsMsgBuf(notify_msg_t *msg, int size);

/** Sends a notification to the peer of an open segment. 0, -200 for an unknown segment, or another code. */
int genNotifyInEngine(transfer_engine_t engine, uint64_t target_id, notify_msg_t notify_msg);

/* ---- reports ------------------------------------------------------------------------------------------ */

/** Writes the number of RDMA cards driven, which is 0. -1 for NULL. */
int getNicLoadStats(transfer_engine_t engine, nic_load_stat_t *stats, size_t *count);

/**
 * From now on SIGTERM and SIGINT close this engine (and every other one enabled so) before the process ends
 * with 128 + the signal's number, and so does a normal exit. Process-wide: it replaces the handlers.
 */
int enableGracefulShutdown(transfer_engine_t engine);

/** Writes what links there are, as text or (json non-zero) as JSON, cut to buf_len and closed by NUL. */
int showLinks(transfer_engine_t engine, char *buf_out, size_t buf_len, int json);

#ifdef __cplusplus
}
#endif

#endif /* MOONCAKE_TRANSFER_ENGINE_C_H */
