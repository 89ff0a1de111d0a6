/* Memory of one process in another: IPC keys, physical memory under handles. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"

enum { MIB = 1 << 20, PAGE = 2 << 20, SIZE = 4 << 20 };

static int to_child[2], to_parent[2];

static void tell(int fd, const void *value, size_t size) { EXPECT(write(fd, value, size), size); }
static void hear(int fd, void *value, size_t size) { EXPECT(read(fd, value, size), size); }
static void turn(int fd) { tell(fd, "x", 1); }
static void await(int fd) {
    char byte;
    hear(fd, &byte, 1);
}

/* Forks: the child runs `importer` and the parent `exporter`; both have pipes to each other. */
static void two(void (*exporter)(pid_t child), void (*importer)(void)) {
    int status = 0;
    TRUE(pipe(to_child) == 0 && pipe(to_parent) == 0);
    pid_t child = fork();
    if (child == 0) { /* each keeps its own ends only, so that nobody waits for a process that has failed */
        close(to_child[1]);
        close(to_parent[0]);
        importer();
        _exit(0);
    }
    close(to_child[0]);
    close(to_parent[1]);
    exporter(child);
    EXPECT(waitpid(child, &status, 0), child);
    EXPECT(status, 0);
}

static void pattern(void *device, int value, size_t size) {
    OK(aclrtMemset(device, size, value, size));
}

static void has(void *device, int value, size_t size) {
    unsigned char *host = malloc(size);
    OK(aclrtMemcpy(host, size, device, size, D2H));
    for (size_t i = 0; i < size; i++) EXPECT(host[i], value);
    free(host);
}

/* Facts 1.6: a key names device memory; the importer must be listed; copies between devices only. */
static void key_exporter(pid_t child) {
    char key[65], stray[65];
    int32_t pid = child;
    OK(aclrtSetDevice(0));
    char *memory = device_memory(SIZE), *small = device_memory(8192);
    EXPECT(aclrtIpcMemGetExportKey(memory, SIZE, key, 64, 0), 107000); /* the length must be 65 */
    EXPECT(aclrtIpcMemGetExportKey(memory + 4096, PAGE, key, 65, 0), 107000); /* no start of a 2 MiB page */
    EXPECT(aclrtIpcMemGetExportKey(memory, 64 * MIB, key, 65, 0), 107000);
    EXPECT(aclrtIpcMemGetExportKey(stray, 64, key, 65, 0), 107000);
    EXPECT(aclrtIpcMemGetExportKey(memory, SIZE, key, 65, 2), 107000);
    EXPECT(aclrtIpcMemGetExportKey(NULL, SIZE, key, 65, 0), 100000);
    TRUE((uintptr_t)small % 4096 != 0 || aclrtIpcMemGetExportKey(small, 4096, stray, 65, 0) == 0);
    OK(aclrtIpcMemGetExportKey(memory, SIZE, key, 65, 0));
    EXPECT(strlen(key), 64);
    pattern(memory, 0x11, SIZE);
    tell(to_child[1], key, sizeof key);
    await(to_parent[0]); /* it was refused */
    EXPECT(aclrtIpcMemSetImportPid("cann", &pid, 1), 107000);
    OK(aclrtIpcMemSetImportPid(key, &pid, 1));
    turn(to_child[1]);
    await(to_parent[0]); /* it wrote */
    has(memory, 0x22, PAGE);
    has(memory + PAGE, 0x11, PAGE);
    turn(to_child[1]);
    await(to_parent[0]); /* it closed */
    OK(aclrtIpcMemClose(key));
    EXPECT(aclrtIpcMemClose(key), 107000);
    turn(to_child[1]);
    OK(aclrtFree(memory));
}

static void key_importer(void) {
    char key[65];
    char *theirs = NULL, *again = NULL, host[64];
    aclrtStream stream = NULL;
    aclrtPtrAttributes attributes;
    hear(to_child[0], key, sizeof key);
    EXPECT(aclrtIpcMemImportByKey((void **)&theirs, key, 0), 107002);
    OK(aclrtSetDevice(1));
    OK(aclrtCreateStream(&stream));
    char *mine = device_memory(SIZE);
    pattern(mine, 0x22, SIZE);
    EXPECT(aclrtIpcMemImportByKey((void **)&theirs, key, 0), 207006); /* not listed */
    EXPECT(aclrtIpcMemImportByKey((void **)&theirs, "nonsense", 0), 107000);
    turn(to_parent[1]);
    await(to_child[0]);
    char digit = key[20];
    key[20] = digit == '0' ? '1' : '0';
    EXPECT(aclrtIpcMemImportByKey((void **)&theirs, key, 0), 507899); /* nobody has that one */
    key[20] = digit;
    OK(aclrtIpcMemImportByKey((void **)&theirs, key, 0));
    OK(aclrtIpcMemImportByKey((void **)&again, key, 0));
    TRUE(again == theirs);
    OK(aclrtPointerGetAttributes(theirs, &attributes));
    EXPECT(attributes.location.type, 1);
    EXPECT(attributes.location.id, 1); /* the importing device (facts 8.6, assumed) */
    EXPECT(aclrtMemcpyAsync(theirs, PAGE, mine, PAGE, D2D, stream), 107000); /* no access to device 0 yet */
    OK(aclrtDeviceEnablePeerAccess(0, 0));
    OK(aclrtMemcpyAsync(theirs, PAGE, mine, PAGE, D2D, stream));
    OK(aclrtSynchronizeStream(stream));
    OK(aclrtMemcpy(mine, SIZE, theirs, SIZE, D2D)); /* from another device: also at once */
    has(mine, 0x22, PAGE);
    has(mine + PAGE, 0x11, PAGE);
    EXPECT(aclrtMemcpy(host, 64, theirs, 64, D2H), 107000); /* not to the host */
    EXPECT(aclrtMemcpy(theirs, 64, host, 64, H2D), 107000);
    EXPECT(aclrtFree(theirs), 107000);
    EXPECT(aclrtIpcMemGetExportKey(theirs, SIZE, host, 65, 0), 107000); /* not ours to share */
    OK(aclrtSetDevice(0)); /* the device that holds the memory */
    void *near = device_memory(PAGE);
    EXPECT(aclrtMemcpy(near, 64, theirs, 64, D2D), 107000); /* not at once */
    OK(aclrtSetDevice(1));
    turn(to_parent[1]);
    await(to_child[0]);
    OK(aclrtIpcMemClose(key));
    EXPECT(aclrtIpcMemClose(key), 107000);
    OK(aclrtPointerGetAttributes(theirs, &attributes));
    EXPECT(attributes.location.type, 2);
    turn(to_parent[1]);
    await(to_child[0]);
    EXPECT(aclrtIpcMemImportByKey((void **)&theirs, key, 0), 507899); /* the key ended */
}

static void keys(void) { two(key_exporter, key_importer); }

/* Facts 1.4: an unrestricted export; the import enables access itself from 8.3 on. */
static void open_exporter(pid_t child) {
    char key[65];
    OK(aclrtSetDevice(0));
    char *memory = device_memory(SIZE);
    pattern(memory, 0x33, SIZE);
    OK(aclrtIpcMemGetExportKey(memory, SIZE, key, 65, 1));
    tell(to_child[1], key, sizeof key);
    (void)child;
    await(to_parent[0]);
}

static void open_importer(void) {
    char key[65];
    void *theirs = NULL;
    hear(to_child[0], key, sizeof key);
    OK(aclrtSetDevice(1));
    char *mine = device_memory(SIZE);
    EXPECT(aclrtIpcMemImportByKey(&theirs, key, 2), 107000);
    OK(aclrtIpcMemImportByKey(&theirs, key, 1));
    OK(aclrtMemcpy(mine, SIZE, theirs, SIZE, D2D));
    has(mine, 0x33, SIZE);
    turn(to_parent[1]);
}

static void open_keys(void) { two(open_exporter, open_importer); }

static void old_importer(void) { /* CANN_SIM_RELEASE=8.2 */
    char key[65];
    void *theirs = NULL;
    hear(to_child[0], key, sizeof key);
    OK(aclrtSetDevice(1));
    EXPECT(aclrtIpcMemImportByKey(&theirs, key, 1), 107000);
    OK(aclrtIpcMemImportByKey(&theirs, key, 0));
    turn(to_parent[1]);
}

static void keys_before_8_3(void) { two(open_exporter, old_importer); }

/* A killed exporter: its key finds nobody, an import made before stays readable. */
static void mortal_exporter(pid_t child) {
    (void)child;
    char key[65];
    OK(aclrtSetDevice(0));
    OK(aclrtIpcMemGetExportKey(device_memory(SIZE), SIZE, key, 65, 1));
    tell(to_child[1], key, sizeof key);
    await(to_parent[0]);
}

static void a_dead_exporter(void) {
    char key[65];
    void *theirs = NULL;
    int status = 0;
    TRUE(pipe(to_child) == 0 && pipe(to_parent) == 0);
    pid_t child = fork();
    if (child == 0) {
        mortal_exporter(0);
        for (;;) pause();
    }
    hear(to_child[0], key, sizeof key);
    OK(aclrtSetDevice(1));
    OK(aclrtIpcMemImportByKey(&theirs, key, 1));
    OK(kill(child, SIGKILL));
    EXPECT(waitpid(child, &status, 0), child);
    OK(aclrtMemcpy(device_memory(SIZE), SIZE, theirs, SIZE, D2D));
    OK(aclrtIpcMemClose(key));
    EXPECT(aclrtIpcMemImportByKey(&theirs, key, 1), 507899);
}

static aclrtPhysicalMemProp on_device(uint32_t device) {
    return (aclrtPhysicalMemProp){0, 0, 4 /* HBM_HUGE */, {device, 1}, 0};
}

/* Facts 1.2, VMM: reserve, allocate, map, use, unmap, free, release. */
static void mapping(void) {
    aclrtPhysicalMemProp prop = on_device(0), wrong = prop;
    aclrtDrvMemHandle handle = NULL, retained = NULL;
    char *base = NULL, *other = NULL;
    size_t granularity = 0, before = 0, now = 0, total = 0;
    aclrtPtrAttributes attributes;
    EXPECT(aclrtReserveMemAddress((void **)&base, SIZE, 0, NULL, 1), 107002);
    OK(aclrtSetDevice(0));
    OK(aclrtGetMemInfo(1, &before, &total));
    OK(aclrtMemGetAllocationGranularity(&prop, 0, &granularity));
    EXPECT(granularity, PAGE);
    wrong.memAttr = 10; /* 1 GiB pages */
    OK(aclrtMemGetAllocationGranularity(&wrong, 1, &granularity));
    EXPECT(granularity, 1 << 30);
    EXPECT(aclrtReserveMemAddress((void **)&base, 0, 0, NULL, 1), 100000);
    EXPECT(aclrtReserveMemAddress((void **)&base, SIZE, 0, NULL, 2), 100000); /* flags: 0 and 1 only */
    EXPECT(aclrtReserveMemAddress((void **)&base, SIZE, 64, NULL, 1), 107000);
    OK(aclrtReserveMemAddress((void **)&base, 2 * SIZE, 0, NULL, 1));
    EXPECT((uintptr_t)base % PAGE, 0);
    OK(aclrtPointerGetAttributes(base, &attributes));
    EXPECT(attributes.location.type, 2); /* nothing is there yet */
    EXPECT(aclrtMallocPhysical(&handle, SIZE, NULL, 0), 100000);
    EXPECT(aclrtMallocPhysical(&handle, SIZE, &prop, 1), 107000);
    EXPECT(aclrtMallocPhysical(&handle, 4096, &prop, 0), 107000); /* no multiple of the page */
    EXPECT(aclrtMallocPhysical(&handle, (size_t)1 << 50, &prop, 0), 207001);
    OK(aclrtMallocPhysical(&handle, SIZE, &prop, 0));
    OK(aclrtGetMemInfo(1, &now, &total));
    EXPECT(before - now, SIZE);
    EXPECT(aclrtMapMem(base, PAGE, 0, handle, 0), 107000); /* all of it or nothing */
    EXPECT(aclrtMapMem(base, SIZE, 64, handle, 0), 107000);
    EXPECT(aclrtMapMem(base + 4096, SIZE, 0, handle, 0), 107000);
    EXPECT(aclrtMapMem(base + 2 * SIZE, SIZE, 0, handle, 0), 107000); /* not reserved */
    EXPECT(aclrtMapMem(base, SIZE, 0, base, 0), 107017);
    OK(aclrtMapMem(base + SIZE, SIZE, 0, handle, 0));
    EXPECT(aclrtMapMem(base + SIZE, SIZE, 0, handle, 0), 107000);
    OK(aclrtPointerGetAttributes(base + SIZE + 5, &attributes));
    EXPECT(attributes.location.type, 1);
    EXPECT(attributes.pageSize, PAGE);
    pattern(base + SIZE, 0x44, SIZE);
    has(base + SIZE, 0x44, SIZE);
    EXPECT(aclrtFree(base + SIZE), 107000);
    EXPECT(aclrtReleaseMemAddress(base), 107000); /* still mapped */
    OK(aclrtMemRetainAllocationHandle(base + SIZE, &retained));
    OK(aclrtFreePhysical(retained));
    EXPECT(aclrtMemRetainAllocationHandle(device_memory(SIZE), &retained), 207000); /* facts 1.2: driver too old */
    /* The second device needs access to mapped memory of the first. */
    OK(aclrtSetDevice(1));
    other = device_memory(SIZE);
    EXPECT(aclrtMemcpy(other, SIZE, base + SIZE, SIZE, D2D), 107000);
    aclrtMemAccessDesc access = {3, {1, 1}, {0}};
    OK(aclrtMemSetAccess(base + SIZE, SIZE, &access, 1));
    OK(aclrtMemcpy(other, SIZE, base + SIZE, SIZE, D2D));
    has(other, 0x44, SIZE);
    OK(aclrtSetDevice(0));
    OK(aclrtFreePhysical(handle)); /* the mapping keeps the memory */
    EXPECT(aclrtFreePhysical(handle), 107017);
    has(base + SIZE, 0x44, PAGE);
    OK(aclrtUnmapMem(base + SIZE));
    EXPECT(aclrtUnmapMem(base + SIZE), 107000);
    OK(aclrtReleaseMemAddress(base));
    EXPECT(aclrtReleaseMemAddress(base), 107000);
    OK(aclrtGetMemInfo(1, &now, &total));
    EXPECT(before - now, SIZE + PAGE); /* only the block of aclrtMalloc is left */
}

/* Host memory under a handle can be touched by the host; device memory faults. */
static void host_physical_memory(void) {
    aclrtPhysicalMemProp prop = {0, 0, 13 /* MEM_HUGE */, {0, 4 /* HOST_NUMA */}, 0};
    aclrtDrvMemHandle handle = NULL;
    unsigned char *base = NULL;
    aclrtPtrAttributes attributes;
    OK(aclrtSetDevice(0));
    void *device = device_memory(SIZE);
    OK(aclrtReserveMemAddress((void **)&base, SIZE, 0, NULL, 1));
    OK(aclrtMallocPhysical(&handle, SIZE, &prop, 0));
    OK(aclrtMapMem(base, SIZE, 0, handle, 0));
    OK(aclrtPointerGetAttributes(base, &attributes));
    EXPECT(attributes.location.type, 0);
    memset(base, 0x55, SIZE);
    OK(aclrtMemcpy(device, SIZE, base, SIZE, H2D));
    has(device, 0x55, SIZE);
    OK(aclrtUnmapMem(base));
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        *(volatile unsigned char *)base = 1; /* the range is empty again */
        _exit(0);
    }
    EXPECT(waitpid(child, &status, 0), child);
    EXPECT(WIFSIGNALED(status) ? WTERMSIG(status) : 0, SIGSEGV);
}

/* Facts 1.6: handle and shareable handle are one to one; the exporter cannot import; pids are checked. */
static void handle_exporter(pid_t child) {
    aclrtPhysicalMemProp prop = on_device(0);
    aclrtDrvMemHandle handle = NULL, second = NULL, stray = NULL;
    aclrtMemFabricHandle fabric;
    uint64_t shareable = 0;
    int32_t pid = child;
    char *base = NULL;
    OK(aclrtSetDevice(0));
    OK(aclrtReserveMemAddress((void **)&base, SIZE, 0, NULL, 1));
    OK(aclrtMallocPhysical(&handle, SIZE, &prop, 0));
    OK(aclrtMallocPhysical(&second, SIZE, &prop, 0));
    OK(aclrtMapMem(base, SIZE, 0, handle, 0));
    pattern(base, 0x66, SIZE);
    EXPECT(aclrtMemExportToShareableHandle(handle, 1, 0, &shareable), 107000);
    OK(aclrtMemExportToShareableHandle(handle, 0, 0, &shareable));
    EXPECT(aclrtMemExportToShareableHandle(handle, 0, 0, &shareable), 107000); /* once */
    EXPECT(aclrtMemImportFromShareableHandle(shareable, 0, &stray), 107000); /* not by the exporter */
    OK(aclrtMemExportToShareableHandleV2(second, 1, 2, &fabric));
    tell(to_child[1], &shareable, sizeof shareable);
    tell(to_child[1], &fabric, sizeof fabric);
    await(to_parent[0]);
    OK(aclrtMemSetPidToShareableHandle(shareable, &pid, 1));
    turn(to_child[1]);
    await(to_parent[0]);
    has(base, 0x77, SIZE);
}

static void handle_importer(void) {
    aclrtDrvMemHandle handle = NULL, second = NULL;
    aclrtMemFabricHandle fabric;
    uint64_t shareable = 0;
    char *base = NULL, host[SIZE / 64];
    hear(to_child[0], &shareable, sizeof shareable);
    hear(to_child[0], &fabric, sizeof fabric);
    OK(aclrtSetDevice(1));
    EXPECT(aclrtMemImportFromShareableHandle(shareable, 1, &handle), 207006);
    turn(to_parent[1]);
    await(to_child[0]);
    OK(aclrtMemImportFromShareableHandle(shareable, 1, &handle));
    EXPECT(aclrtMemImportFromShareableHandleV2(&fabric, 2, 1, &second), 107000);
    OK(aclrtMemImportFromShareableHandleV2(&fabric, 2, 0, &second)); /* not restricted */
    fabric.data[0] ^= 1;
    EXPECT(aclrtMemImportFromShareableHandleV2(&fabric, 2, 0, &second), 107000);
    EXPECT(aclrtMemExportToShareableHandle(handle, 0, 0, &shareable), 107000); /* imported ones are not passed on */
    OK(aclrtReserveMemAddress((void **)&base, SIZE, 0, NULL, 1));
    OK(aclrtMapMem(base, SIZE, 0, handle, 0));
    char *mine = device_memory(SIZE);
    OK(aclrtMemcpy(mine, SIZE, base, SIZE, D2D));
    has(mine, 0x66, SIZE);
    OK(aclrtMemcpy(host, sizeof host, base, sizeof host, D2H)); /* unlike with keys */
    EXPECT(host[7], 0x66);
    pattern(mine, 0x77, SIZE);
    OK(aclrtMemcpy(base, SIZE, mine, SIZE, D2D));
    turn(to_parent[1]);
}

static void handles(void) { two(handle_exporter, handle_importer); }

MAIN(CASE(keys), CASE(open_keys), CASE(keys_before_8_3), CASE(a_dead_exporter), CASE(mapping),
     CASE(host_physical_memory), CASE(handles))
