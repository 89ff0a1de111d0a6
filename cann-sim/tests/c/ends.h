/* Both ranks of a communicator in one process. */
#ifndef CANN_SIM_TEST_ENDS_H
#define CANN_SIM_TEST_ENDS_H

#include <pthread.h>
#include "check.h"

struct end {
    const char *table, *name;
    int rank, device, seconds;
    void *memory;
    size_t size;
    int type;
    void *handle;
    HcclComm comm;
    HcclResult result;
};

static inline HcclResult prepare_end(struct end *end) {
    HcclPrepareConfig mesh = {0, 0, 0, 0};
    HcclCommConfig config = config_named(end->name);
    OK(aclrtSetDevice(end->device));
    OK(HcclCommInitClusterInfoMemConfig(end->table, (uint32_t)end->rank, &config, &end->comm));
    if (end->memory) {
        end->handle = registered(end->type, end->memory, end->size);
        OK(HcclCommBindMem(end->comm, end->handle));
    }
    return end->result = HcclCommPrepare(end->comm, &mesh, end->seconds);
}

static inline void *prepare_thread(void *end) {
    prepare_end(end);
    return NULL;
}

static inline void pair_ends(struct end *one, struct end *two) {
    pthread_t thread;
    OK(pthread_create(&thread, NULL, prepare_thread, two));
    prepare_end(one);
    OK(pthread_join(thread, NULL));
}

static inline void end_pair(struct end *end) {
    OK(aclrtSetDevice(end->device));
    if (end->handle) OK(HcclCommUnbindMem(end->comm, end->handle));
    OK(HcclCommDestroy(end->comm));
    if (end->handle) OK(HcclDeregisterGlobalMem(end->handle));
}

#endif
