/* Two ranks in one process: devices 0 and 1, 4 MiB of device memory each, prepared together. */
#ifndef CANN_SIM_TEST_PAIR_H
#define CANN_SIM_TEST_PAIR_H

#include <pthread.h>
#include "check.h"

enum { PAIR_SIZE = 4 << 20 };

struct rank {
    int device, rank, seconds;
    const char *table, *name;
    char *memory;
    void *handle;
    HcclComm comm;
    HcclResult prepared;
};

static void *prepare_rank(void *argument) {
    struct rank *self = argument;
    HcclPrepareConfig mesh = {0, 0, 0, 0};
    OK(aclrtSetDevice(self->device));
    self->prepared = HcclCommPrepare(self->comm, &mesh, self->seconds);
    return NULL;
}

static inline void make_rank(struct rank *self) {
    HcclCommConfig config = config_named(self->name);
    OK(aclrtSetDevice(self->device));
    self->memory = device_memory(PAIR_SIZE);
    OK(aclrtMemset(self->memory, PAIR_SIZE, 0, PAIR_SIZE));
    self->handle = registered(0, self->memory, PAIR_SIZE);
    OK(HcclCommInitClusterInfoMemConfig(self->table, (uint32_t)self->rank, &config, &self->comm));
    OK(HcclCommBindMem(self->comm, self->handle));
}

/* Makes and prepares both; the caller's device is 0 afterwards. The outcome is in `prepared`. */
static inline void make_pair(struct rank *one, struct rank *two, const char *name, int far, int seconds) {
    pthread_t thread;
    static char table[640];
    strcpy(table, far ? far_table(0, 1) : near_table(0, 1));
    *one = (struct rank){.device = 0, .rank = 0, .seconds = seconds, .table = table, .name = name};
    *two = (struct rank){.device = 1, .rank = 1, .seconds = seconds, .table = table, .name = name};
    make_rank(one);
    make_rank(two);
    OK(pthread_create(&thread, NULL, prepare_rank, two));
    prepare_rank(one);
    OK(pthread_join(thread, NULL));
    OK(aclrtSetDevice(0));
}

static inline void end_rank(struct rank *self) {
    OK(aclrtSetDevice(self->device));
    OK(HcclCommUnbindMem(self->comm, self->handle));
    OK(HcclCommDestroy(self->comm));
    OK(HcclDeregisterGlobalMem(self->handle));
}

static inline unsigned char device_byte(const char *address) {
    unsigned char byte = 0;
    OK(aclrtMemcpy(&byte, 1, address, 1, D2H));
    return byte;
}
#endif
