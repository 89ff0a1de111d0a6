/* The few vendor calls that the C test programs make, declared by ourselves and opened at run time, as an
 * application's framework would have them open already. */
#ifndef NPU_H
#define NPU_H

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct npu {
    int (*init)(const char *);
    int (*finalize)(void);
    int (*set_device)(int32_t);
    int (*malloc)(void **, size_t, int);
    int (*free)(void *);
    int (*malloc_host)(void **, size_t);
    int (*memcpy)(void *, size_t, const void *, size_t, int);
};

enum { NPU_HOST_TO_DEVICE = 1, NPU_DEVICE_TO_HOST = 2, NPU_HUGE_FIRST = 0 };

static inline void *npu_symbol(void *library, const char *name) {
    void *symbol = dlsym(library, name);
    if (!symbol) {
        fprintf(stderr, "no %s: %s\n", name, dlerror());
        exit(3);
    }
    return symbol;
}

/** Opens the vendor's library in $MOONCAKE_TRANSFER_CANN_PATH and starts it on a device. */
static inline struct npu npu_open(int device) {
    const char *directory = getenv("MOONCAKE_TRANSFER_CANN_PATH");
    char path[4096];
    snprintf(path, sizeof path, "%s/libascendcl.so", directory ? directory : "");
    void *library = dlopen(directory ? path : "libascendcl.so", RTLD_NOW | RTLD_GLOBAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(3);
    }
    struct npu npu;
    *(void **)&npu.init = npu_symbol(library, "aclInit");
    *(void **)&npu.finalize = npu_symbol(library, "aclFinalize");
    *(void **)&npu.set_device = npu_symbol(library, "aclrtSetDevice");
    *(void **)&npu.malloc = npu_symbol(library, "aclrtMalloc");
    *(void **)&npu.free = npu_symbol(library, "aclrtFree");
    *(void **)&npu.malloc_host = npu_symbol(library, "aclrtMallocHost");
    *(void **)&npu.memcpy = npu_symbol(library, "aclrtMemcpy");
    int code = npu.init(NULL);
    if (code == 0) code = npu.set_device(device);
    if (code != 0) {
        fprintf(stderr, "the NPU does not start: %d\n", code);
        exit(3);
    }
    return npu;
}

#endif
