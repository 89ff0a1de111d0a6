/* Allocation, addresses, copies. */
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"

enum { MIB = 1 << 20 };

static void on_device(void) { OK(aclrtSetDevice(0)); }

static size_t free_memory(void) {
    size_t available = 0, total = 0;
    OK(aclrtGetMemInfo(1, &available, &total));
    return available;
}

static int page_of(void *address) {
    aclrtPtrAttributes attributes;
    OK(aclrtPointerGetAttributes(address, &attributes));
    EXPECT(attributes.location.type, 1);
    return (int)attributes.pageSize;
}

static void allocation_rules(void) {
    on_device();
    void *address = NULL;
    EXPECT(aclrtMalloc(&address, 0, 0), 100000);
    EXPECT(aclrtMalloc(NULL, 64, 0), 100000);
    EXPECT(aclrtFree(NULL), 100000);
    EXPECT(aclrtMalloc(&address, 64, 9), 107000);
    size_t before = free_memory();
    char *small = device_memory(1000), *large = device_memory(MIB + 1), *only = NULL;
    EXPECT((uintptr_t)small % 64, 0);
    EXPECT(page_of(small), 4096);
    EXPECT((uintptr_t)large % (2 * MIB), 0);
    EXPECT(page_of(large), 2 * MIB);
    TRUE((uintptr_t)small % (2 * MIB) != 0); /* small pages must not pass for huge ones by accident */
    OK(aclrtMalloc((void **)&only, 64, 1)); /* HUGE_ONLY */
    EXPECT((uintptr_t)only % (2 * MIB), 0);
    OK(aclrtFree(only));
    EXPECT(aclrtFree(only), 107000);
    EXPECT(aclrtFree(small + 1), 107000);
    /* 32 bytes are added, except by Align32: exactly 2 MiB take two pages or one. */
    size_t now = free_memory();
    void *padded = device_memory(2 * MIB), *aligned = NULL;
    EXPECT(now - free_memory(), 4 * MIB);
    OK(aclrtMallocAlign32(&aligned, 2 * MIB, 0));
    EXPECT(now - free_memory(), 6 * MIB);
    OK(aclrtFree(padded));
    OK(aclrtFree(aligned));
    OK(aclrtFree(small));
    OK(aclrtFree(large));
    EXPECT(free_memory(), before);
}

static void out_of_memory(void) { /* CANN_SIM_HBM_SIZE=64M */
    on_device();
    void *blocks[64], *more = NULL;
    size_t total = 0, available = 0;
    int count = 0;
    OK(aclrtGetMemInfo(1, &available, &total));
    EXPECT(total, 64 * MIB);
    while (aclrtMalloc(&blocks[count], 7 * MIB, 0) == 0) count++;
    EXPECT(count, 8); /* 7 MiB and 32 bytes take four huge pages */
    EXPECT(aclrtMalloc(&more, 7 * MIB, 0), 207001);
    TRUE(strstr(aclGetRecentErrMsg(), "out of device memory") != NULL);
    EXPECT(aclrtMalloc(&more, SIZE_MAX, 0), 207001);
    OK(aclrtFree(blocks[3]));
    OK(aclrtMalloc(&more, 7 * MIB, 0));
    OK(aclrtSetDevice(1)); /* another device has its own memory */
    OK(aclrtMalloc(&more, 7 * MIB, 0));
}

static int died_of(int *memory, int write) {
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        if (write) *(volatile int *)memory = 1;
        else (void)*(volatile int *)memory;
        _exit(0);
    }
    EXPECT(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void host_code_cannot_touch_device_memory(void) {
    on_device();
    int *memory = device_memory(4 * MIB), *small = device_memory(64), *pinned = NULL;
    EXPECT(died_of(memory, 0), SIGSEGV);
    EXPECT(died_of(memory, 1), SIGSEGV);
    EXPECT(died_of(small, 0), SIGSEGV);
    OK(aclrtMallocHost((void **)&pinned, 64));
    EXPECT(died_of(pinned, 1), 0);
}

static volatile int released;
static void hold(void *unused) {
    (void)unused;
    while (!released) usleep(1000);
}

static void attributes(void) {
    aclrtPtrAttributes seen;
    EXPECT(aclrtPointerGetAttributes(NULL, &seen), 100000);
    OK(aclrtPointerGetAttributes(&seen, &seen)); /* without a context */
    EXPECT(seen.location.type, 2);
    OK(aclrtSetDevice(3));
    char *memory = device_memory(4 * MIB), *pinned = NULL;
    OK(aclrtPointerGetAttributes(memory + 3 * MIB, &seen));
    EXPECT(seen.location.type, 1);
    EXPECT(seen.location.id, 3);
    OK(aclrtMallocHost((void **)&pinned, 100));
    EXPECT((uintptr_t)pinned % 64, 0);
    OK(aclrtPointerGetAttributes(pinned + 50, &seen));
    EXPECT(seen.location.type, 0);
    EXPECT(aclrtFree(pinned), 107000);
    EXPECT(aclrtFreeHost(memory), 107000);
    OK(aclrtFreeHost(pinned));
    char *plain = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *device = NULL;
    EXPECT(aclrtHostRegister(plain + 1, 4096, 0, &device), 107000);
    OK(aclrtHostRegister(plain, 8192, 0, &device));
    EXPECT(aclrtHostRegister(plain, 8192, 0, &device), 507910);
    OK(aclrtPointerGetAttributes(plain + 5000, &seen));
    EXPECT(seen.location.type, 0);
    OK(aclrtHostUnregister(plain));
    EXPECT(aclrtHostUnregister(plain), 507911);
}

/* Facts 1.6 and 8.11 (CANN_SIM_OLD_DRIVER=1): memory of the program is unknown, and nothing protects it. */
static void attributes_of_an_old_driver(void) {
    aclrtPtrAttributes seen = {.location = {99, 99}};
    aclrtStream stream = NULL;
    char plain[64] = "ordinary memory", *pinned = NULL;
    TRUE(aclrtPointerGetAttributes(plain, &seen) != 0);
    EXPECT(seen.location.type, 99); /* nothing is written on failure */
    OK(aclrtSetDevice(0));
    char *memory = device_memory(64);
    OK(aclrtMallocHost((void **)&pinned, 64));
    OK(aclrtPointerGetAttributes(memory, &seen));
    EXPECT(seen.location.type, 1);
    OK(aclrtPointerGetAttributes(pinned, &seen));
    EXPECT(seen.location.type, 0);
    OK(aclrtCreateStream(&stream));
    OK(aclrtLaunchHostFunc(stream, hold, NULL));
    OK(aclrtMemcpyAsync(memory, 64, plain, 64, H2D, stream)); /* comes back while the stream is held */
    plain[0] = 'O';                                           /* ... so the program can spoil what is copied */
    released = 1;
    OK(aclrtSynchronizeStream(stream));
    OK(aclrtMemcpy(pinned, 64, memory, 64, D2H));
    EXPECT(strcmp(pinned, "Ordinary memory"), 0);
}

static void synchronous_copies(void) {
    on_device();
    unsigned char plain[4096], back[4096], *pinned = NULL, *first = device_memory(3 * MIB), *second = device_memory(100000);
    OK(aclrtMallocHost((void **)&pinned, 4096));
    for (size_t i = 0; i < sizeof plain; i++) plain[i] = (unsigned char)(i * 7 + i / 256);
    OK(aclrtMemcpy(first + 12345, 4096, plain, 4096, D2H)); /* the addresses decide, not the kind */
    OK(aclrtMemcpy(second + 77, 4096, first + 12345, 4096, D2D));
    OK(aclrtMemcpy(pinned, 4096, second + 77, 4096, D2H));
    OK(aclrtMemcpy(back, 4096, pinned, 4096, H2H));
    EXPECT(memcmp(plain, back, 4096), 0);
    OK(aclrtMemset(second, 100000, 0x5a, 100000));
    OK(aclrtMemcpy(back, 4096, second + 95000, 4096, D2H));
    for (size_t i = 0; i < sizeof back; i++) EXPECT(back[i], 0x5a);
    OK(aclrtMemcpy(NULL, 0, NULL, 0, H2D)); /* nothing to do: pointers are not looked at */
    OK(aclrtMemset(NULL, 0, 0, 0));
    EXPECT(aclrtMemcpy(NULL, 8, plain, 8, H2D), 100000);
    EXPECT(aclrtMemcpy(first, 8, NULL, 8, H2D), 100000);
    EXPECT(aclrtMemcpy(first, 7, plain, 8, H2D), 107000);
    EXPECT(aclrtMemcpy(first, 8, plain, 8, 9), 107000);
    EXPECT(aclrtMemset(first, 7, 0, 8), 107000);
    OK(aclrtMemcpy(first, 8, first, 8, D2D));
    EXPECT(aclrtMemcpy(second + 99999, 4096, plain, 4096, H2D), 107000); /* leaves the allocation */
}

static void wild_host_addresses_answer_an_error(void) {
    on_device();
    char *memory = device_memory(4 * MIB), *hole = mmap(NULL, 2 * MIB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OK(munmap(hole + MIB, MIB));
    EXPECT(aclrtMemcpy(memory, 4096, (void *)16, 4096, H2D), 507899);
    EXPECT(aclrtMemcpy((void *)16, 4096, memory, 4096, D2H), 507899);
    EXPECT(aclrtMemcpy(memory, 2 * MIB, hole, 2 * MIB, H2D), 507899);
    EXPECT(aclrtMemcpy(hole, 4096, memory, 4096, D2H), 507899); /* read-only */
    OK(aclrtMemcpy(memory, MIB, hole, MIB, H2D));
    void *freed = device_memory(4 * MIB);
    OK(aclrtFree(freed));
    EXPECT(aclrtMemcpy(memory, 4096, freed, 4096, D2D), 507899);
}

static void asynchronous_copies(void) {
    on_device();
    aclrtStream stream = NULL;
    unsigned char *pinned = NULL, plain[64] = {9}, *memory = device_memory(4 * MIB), *other = device_memory(4 * MIB);
    OK(aclrtCreateStream(&stream));
    OK(aclrtMallocHost((void **)&pinned, 2 * MIB));
    memset(pinned, 0x11, MIB);
    OK(aclrtMemcpyAsync(memory, MIB, pinned, MIB, D2D, stream)); /* known sides correct the kind */
    OK(aclrtMemcpyAsync(other, MIB, memory, MIB, H2D, stream));
    OK(aclrtMemcpyAsync(pinned + MIB, MIB, other, MIB, KIND_DEFAULT, stream));
    OK(aclrtSynchronizeStream(stream));
    EXPECT(memcmp(pinned, pinned + MIB, MIB), 0);
    EXPECT(aclrtMemcpyAsync(pinned, 64, pinned + 64, 64, D2D, stream), 207000);
    EXPECT(aclrtMemcpyAsync(pinned, 64, plain, 64, H2H, stream), 207000);
    EXPECT(aclrtMemcpyAsync(pinned, 64, plain, 64, H2D, stream), 107000);
    EXPECT(aclrtMemcpyAsync(memory, 64, plain, 64, D2H, stream), 107000);
    EXPECT(aclrtMemcpyAsync(memory, 64, plain, 64, D2D, stream), 107000);
    EXPECT(aclrtMemcpyAsync(memory, 63, pinned, 64, H2D, stream), 107000);
    EXPECT(aclrtMemcpyAsync(NULL, 64, pinned, 64, H2D, stream), 100000);
    OK(aclrtMemcpyAsync(memory, 0, NULL, 0, H2D, stream));
    OK(aclrtMemcpyAsync(memory, 64, plain, 64, H2D, stream)); /* not pinned: done when the call returns */
    int status = 1;
    OK(aclrtStreamQuery(stream, &status));
    EXPECT(status, 0);
    plain[0] = 0;
    OK(aclrtMemcpy(plain, 64, memory, 64, D2H));
    EXPECT(plain[0], 9);
    OK(aclrtMemcpyAsync(memory, 64, pinned, 64, H2D, NULL)); /* the default stream */
    OK(aclrtSynchronizeStream(NULL));
}

static void copies_between_devices_need_peer_access(void) {
    int can = 0;
    on_device();
    char *here = device_memory(4096), word[8] = "crossed";
    OK(aclrtMemcpy(here, 8, word, 8, H2D));
    OK(aclrtSetDevice(1));
    char *there = device_memory(4096);
    EXPECT(aclrtMemcpy(there, 8, here, 8, D2D), 107000);
    OK(aclrtDeviceCanAccessPeer(&can, 1, 0));
    EXPECT(can, 1);
    EXPECT(aclrtDeviceEnablePeerAccess(1, 0), 107000);
    OK(aclrtDeviceEnablePeerAccess(0, 0));
    OK(aclrtMemcpy(there, 8, here, 8, D2D));
    memset(word, 0, 8);
    OK(aclrtMemcpy(word, 8, there, 8, D2H));
    EXPECT(strcmp(word, "crossed"), 0);
    on_device(); /* one-way: device 0 still has no access to device 1 */
    EXPECT(aclrtMemcpy(there, 8, here, 8, D2D), 107000);
}

static void batch_copies(void) {
    enum { N = 300 };
    OK(aclrtSetDevice(2));
    static unsigned char plain[N][64];
    unsigned char *memory = device_memory(N * 64), *pinned = NULL, seen[64];
    void *targets[5000], *sources[5000];
    size_t sizes[5000], limits[5000], start[2] = {0, N / 2}, fail = 0;
    aclrtMemcpyBatchAttr attrs[2];
    memset(attrs, 0, sizeof attrs);
    attrs[0].dstLoc = (aclrtMemLocation){2, 1};
    attrs[1] = attrs[0];
    OK(aclrtMallocHost((void **)&pinned, N * 64));
    for (int i = 0; i < N; i++) {
        memset(plain[i], i, 64);
        targets[i] = memory + i * 64;
        sources[i] = plain[i];
        sizes[i] = limits[i] = 64;
    }
    OK(aclrtMemcpyBatch(targets, limits, sources, sizes, N, attrs, start, 2, &fail));
    EXPECT(fail, SIZE_MAX);
    for (int i = 0; i < N; i++) {
        OK(aclrtMemcpy(seen, 64, memory + i * 64, 64, D2H));
        EXPECT(memcmp(seen, plain[i], 64), 0);
    }
    EXPECT(aclrtMemcpyBatch(targets, limits, sources, sizes, 0, attrs, start, 1, &fail), 100000);
    EXPECT(aclrtMemcpyBatch(targets, limits, sources, sizes, N, attrs, start, 2, NULL), 100000);
    start[0] = 1;
    EXPECT(aclrtMemcpyBatch(targets, limits, sources, sizes, N, attrs, start, 2, &fail), 100000);
    start[0] = 0;
    attrs[1].rsv[3] = 1;
    EXPECT(aclrtMemcpyBatch(targets, limits, sources, sizes, N, attrs, start, 2, &fail), 100000);
    attrs[1].rsv[3] = 0;
    limits[7] = 63;
    EXPECT(aclrtMemcpyBatch(targets, limits, sources, sizes, N, attrs, start, 2, &fail), 100000);
    limits[7] = 64;
    attrs[1].dstLoc.id = 0; /* the wrong device, from the middle on */
    EXPECT(aclrtMemcpyBatch(targets, limits, sources, sizes, N, attrs, start, 2, &fail), 107000);
    EXPECT(fail, N / 2);
    attrs[1].dstLoc.id = 2;
    sources[9] = memory;
    attrs[0].srcLoc = (aclrtMemLocation){0, 0};
    EXPECT(aclrtMemcpyBatch(targets, limits, sources, sizes, N, attrs, start, 2, &fail), 107000);
    EXPECT(fail, 9);
    sources[9] = (void *)16; /* unmapped host memory: an error, not a crash */
    EXPECT(aclrtMemcpyBatch(targets, limits, sources, sizes, N, attrs, start, 2, &fail), 507899);
    EXPECT(fail, 9);
    for (int i = 0; i < 4097; i++) {
        targets[i] = memory;
        sources[i] = pinned;
        sizes[i] = limits[i] = 64;
    }
    EXPECT(aclrtMemcpyBatch(targets, limits, sources, sizes, 4097, attrs, start, 1, &fail), 107000);
    OK(aclrtMemcpyBatch(targets, limits, sources, sizes, 4096, attrs, start, 1, &fail));
}

MAIN(CASE(allocation_rules), CASE(out_of_memory), CASE(host_code_cannot_touch_device_memory), CASE(attributes), CASE(attributes_of_an_old_driver),
     CASE(synchronous_copies), CASE(wild_host_addresses_answer_an_error), CASE(asynchronous_copies),
     CASE(copies_between_devices_need_peer_access), CASE(batch_copies))
