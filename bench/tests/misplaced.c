/* A library that behaves as the engine's, except that it exchanges the target addresses of the first two
 * requests of every batch: every byte arrives, two blocks of them in each other's place. With it, a benchmark
 * that really verifies must fail. The real library is named by REAL_LIBRARY. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "transfer_engine_c.h"

static void *real(const char *name) {
    static void *library;
    if (!library) library = dlopen(getenv("REAL_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
    void *function = library ? dlsym(library, name) : NULL;
    if (!function) {
        fprintf(stderr, "misplaced.c: %s\n", dlerror());
        exit(70);
    }
    return function;
}

#define FORWARD(result, name, parameters, arguments)                     \
    result name parameters {                                            \
        result(*function) parameters = (result(*) parameters)real(#name); \
        return function arguments;                                      \
    }

FORWARD(transfer_engine_t, createTransferEngine,
        (const char *metadata, const char *name, const char *host, uint64_t port, int discover),
        (metadata, name, host, port, discover))
FORWARD(void, destroyTransferEngine, (transfer_engine_t engine), (engine))
FORWARD(int, getLocalIpAndPort, (transfer_engine_t engine, char *text, size_t length), (engine, text, length))
FORWARD(transport_t, installTransport, (transfer_engine_t engine, const char *name, void **args),
        (engine, name, args))
FORWARD(segment_handle_t, openSegment, (transfer_engine_t engine, const char *name), (engine, name))
FORWARD(int, registerLocalMemory,
        (transfer_engine_t engine, void *address, size_t length, const char *location, int remote),
        (engine, address, length, location, remote))
FORWARD(int, unregisterLocalMemory, (transfer_engine_t engine, void *address), (engine, address))
FORWARD(batch_id_t, allocateBatchID, (transfer_engine_t engine, size_t size), (engine, size))
FORWARD(int, getTransferStatus,
        (transfer_engine_t engine, batch_id_t batch, size_t task, struct transfer_status *status),
        (engine, batch, task, status))
FORWARD(int, freeBatchID, (transfer_engine_t engine, batch_id_t batch), (engine, batch))
FORWARD(notify_msg_t *, getNotifsFromEngine, (transfer_engine_t engine, int *size), (engine, size))
FORWARD(int, freeNotifsMsgBuf, (notify_msg_t *notes, int size), (notes, size))
FORWARD(int, genNotifyInEngine, (transfer_engine_t engine, uint64_t target, notify_msg_t note),
        (engine, target, note))

int submitTransfer(transfer_engine_t engine, batch_id_t batch, struct transfer_request *requests, size_t count) {
    int (*function)(transfer_engine_t, batch_id_t, struct transfer_request *, size_t) =
        (int (*)(transfer_engine_t, batch_id_t, struct transfer_request *, size_t))real("submitTransfer");
    if (count >= 2) {
        uint64_t first = requests[0].target_offset;
        requests[0].target_offset = requests[1].target_offset;
        requests[1].target_offset = first;
    }
    int code = function(engine, batch, requests, count);
    if (count >= 2) {
        uint64_t first = requests[0].target_offset;
        requests[0].target_offset = requests[1].target_offset;
        requests[1].target_offset = first;
    }
    return code;
}
