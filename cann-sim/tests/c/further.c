/* Functions beside the main path: every exported function is called by some test. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>
#include "check.h"

aclError aclFinalizeReference(uint64_t *count);
aclError aclrtPeekAtLastError(int level);
aclError aclrtGetLastError(int level);
aclError aclrtResetDeviceForce(int32_t device);
aclError aclrtGetRunMode(int *mode);
aclError aclrtSynchronizeDevice(void);
aclError aclrtSynchronizeDeviceWithTimeout(int32_t ms);
aclError aclrtQueryDeviceStatus(int32_t device, int *status);
aclError aclrtDeviceDisablePeerAccess(int32_t peer);
aclError aclrtGetLogicDevIdByPhyDevId(const int32_t phy, int32_t *const logic);
aclError aclrtGetUserDevIdByLogicDevId(const int32_t logic, int32_t *const user);
aclError aclrtGetPhyDevIdByUserDevId(const int32_t user, int32_t *const phy);
aclError aclrtGetUserDevIdByPhyDevId(const int32_t phy, int32_t *const user);
typedef int (*rt_id)(uint32_t, uint32_t *); /* of libruntime.so, which programs find through its dependents */
aclError aclrtDestroyStreamForce(aclrtStream stream);
aclError aclrtStreamWaitEventWithTimeout(aclrtStream stream, aclrtEvent event, int32_t ms);
aclError aclrtCreateEventWithFlag(aclrtEvent *event, uint32_t flag);
aclError aclrtResetEvent(aclrtEvent event, aclrtStream stream);
aclError aclrtQueryEvent(aclrtEvent event, int *status);
aclError aclrtQueryEventWaitStatus(aclrtEvent event, int *status);
aclError aclrtEventGetTimestamp(aclrtEvent event, uint64_t *us);
aclError aclrtMallocCached(void **address, size_t size, int policy);
aclError aclrtMemcpyBatchAsync(void **dsts, size_t *maxs, void **srcs, size_t *sizes, size_t n,
                               aclrtMemcpyBatchAttr *attrs, size_t *indexes, size_t attrCount, size_t *fail,
                               aclrtStream stream);
aclError aclrtMemcpyBatchV2(void **dsts, size_t *maxs, void **srcs, size_t *sizes, size_t n,
                            aclrtMemcpyBatchAttr *attrs, size_t *indexes, size_t attrCount);
aclError aclrtMemcpyBatchAsyncV2(void **dsts, size_t *maxs, void **srcs, size_t *sizes, size_t n,
                                 aclrtMemcpyBatchAttr *attrs, size_t *indexes, size_t attrCount, aclrtStream stream);
aclError aclrtMemGetAddressRange(void *address, void **base, size_t *size);
typedef struct { uint32_t sdid; int32_t *pid; size_t num; } aclrtServerPid;
aclError aclrtIpcMemSetAttr(const char *key, int type, uint64_t value);
aclError aclrtIpcMemImportPidInterServer(const char *key, aclrtServerPid *servers, size_t count);
aclError aclrtReserveMemAddressNoUCMemory(void **address, size_t size, size_t align, void *expected, uint64_t flags);
aclError aclrtMemSetPidToShareableHandleV2(void *shareable, int type, int32_t *pids, size_t count);
HcclResult HcclRemapRegistedMemory(HcclComm *comms, HcclMem *mems, uint64_t commCount, uint64_t memCount);

static atomic_int gate;
static void hold(void *unused) {
    (void)unused;
    while (!atomic_load(&gate)) usleep(100);
}

static void *no_error_here(void *unused) {
    (void)unused;
    return (void *)(intptr_t)aclrtGetLastError(0);
}

static void last_error_is_the_threads(void) {
    void *address = NULL, *other = NULL;
    pthread_t thread;
    OK(aclrtSetDevice(0));
    OK(aclrtPeekAtLastError(0));
    EXPECT(aclrtMalloc(&address, 64, 9), 107000);
    EXPECT(aclrtPeekAtLastError(0), 107000);
    OK(pthread_create(&thread, NULL, no_error_here, NULL));
    OK(pthread_join(thread, &other));
    EXPECT((intptr_t)other, 0);
    EXPECT(HcclCommDestroy(NULL), 2); /* a number of HCCL's is none of the runtime's */
    EXPECT(aclrtGetLastError(0), 107000); /* reads and clears */
    OK(aclrtGetLastError(0));
}

static void device_as_a_whole(void) {
    int mode = -1, status = -1;
    int32_t pid = 0;
    int64_t value = 0;
    uint64_t references = 9;
    OK(aclInit(NULL));
    OK(aclrtGetRunMode(&mode));
    EXPECT(mode, 1); /* a host build */
    OK(aclrtSetDevice(0));
    OK(aclrtQueryDeviceStatus(0, &status));
    EXPECT(status, 0);
    EXPECT(aclrtQueryDeviceStatus(64, &status), 107001);
    OK(aclrtDeviceGetBareTgid(&pid));
    EXPECT(pid, getpid());
    OK(aclrtGetDeviceInfo(0, 402, &value));
    EXPECT(value, 0);
    EXPECT(aclrtGetDeviceInfo(0, 9999, &value), 107000);
    aclrtStream stream = NULL;
    OK(aclrtCreateStream(&stream));
    OK(aclrtLaunchHostFunc(stream, hold, NULL));
    EXPECT(aclrtSynchronizeDeviceWithTimeout(20), 507046); /* all streams of the device */
    EXPECT(aclrtSynchronizeDeviceWithTimeout(-2), 107000);
    atomic_store(&gate, 1);
    OK(aclrtSynchronizeDevice());
    OK(aclrtSetDevice(0));
    OK(aclrtResetDeviceForce(0)); /* whatever the count */
    EXPECT(aclrtGetDevice(&mode), 107002);
    OK(aclFinalizeReference(&references));
    EXPECT(references, 0);
}

static void ids_both_ways(void) { /* CANN_SIM_PHYSICAL_IDS=4,5,6,7 ASCEND_RT_VISIBLE_DEVICES=1,3 CANN_SIM_RELEASE=9.1 */
    int32_t id = -1;
    uint32_t number = 0;
    rt_id rtGetDevicePhyIdByIndex = (rt_id)dlsym(RTLD_DEFAULT, "rtGetDevicePhyIdByIndex");
    rt_id rtGetDeviceIndexByPhyId = (rt_id)dlsym(RTLD_DEFAULT, "rtGetDeviceIndexByPhyId");
    OK(aclrtGetUserDevIdByLogicDevId(3, &id));
    EXPECT(id, 1);
    OK(aclrtGetLogicDevIdByPhyDevId(7, &id));
    EXPECT(id, 1); /* documented as the logical id, really the user's (facts 1.6) */
    OK(aclrtGetPhyDevIdByUserDevId(1, &id));
    EXPECT(id, 7);
    OK(aclrtGetUserDevIdByPhyDevId(5, &id));
    EXPECT(id, 0);
    EXPECT(aclrtGetUserDevIdByPhyDevId(4, &id), 107001); /* not visible */
    OK(rtGetDevicePhyIdByIndex(1, &number));
    EXPECT(number, 7);
    OK(rtGetDeviceIndexByPhyId(5, &number));
    EXPECT(number, 0);
    int (*rtGetDeviceInfo)(uint32_t, int32_t, int32_t, int64_t *) = dlsym(RTLD_DEFAULT, "rtGetDeviceInfo");
    int64_t public_value = -1, inner_value = -2;
    OK(aclrtGetDeviceInfo(1, 403, &public_value));
    OK(rtGetDeviceInfo(1, 0, 26, &inner_value)); /* the number in the super pod, as the inner runtime calls it */
    EXPECT(inner_value, public_value);
    OK(aclrtGetDeviceInfo(1, 405, &public_value));
    OK(rtGetDeviceInfo(1, 0, 29, &inner_value)); /* the super pod */
    EXPECT(inner_value, public_value);
    EXPECT(rtGetDeviceInfo(1, 0, 28, &inner_value), 107000);
}

static void events_of_the_older_kind(void) {
    aclrtStream one = NULL, two = NULL;
    aclrtEvent event = NULL, plain = NULL, held = NULL;
    uint64_t first = 0, second = 0;
    int status = -1;
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&one));
    OK(aclrtCreateStreamWithConfig(&two, 0, 3));
    OK(aclrtCreateEvent(&event));
    OK(aclrtCreateEventWithFlag(&plain, 1));
    EXPECT(aclrtCreateEventWithFlag(&held, 0x8000), 107000);
    OK(aclrtLaunchHostFunc(one, hold, NULL));
    OK(aclrtRecordEvent(event, one));
    OK(aclrtQueryEvent(event, &status));
    EXPECT(status, 1); /* the deprecated query is not inverted */
    OK(aclrtStreamWaitEvent(two, event));
    OK(aclrtQueryEventWaitStatus(event, &status));
    EXPECT(status, 1);
    atomic_store(&gate, 1);
    OK(aclrtSynchronizeStream(two));
    OK(aclrtQueryEvent(event, &status));
    EXPECT(status, 0);
    OK(aclrtQueryEventWaitStatus(event, &status));
    EXPECT(status, 0);
    OK(aclrtEventGetTimestamp(event, &first));
    OK(aclrtRecordEvent(event, one));
    OK(aclrtSynchronizeEvent(event));
    OK(aclrtEventGetTimestamp(event, &second));
    TRUE(second >= first);
    EXPECT(aclrtEventGetTimestamp(plain, &first), 107000); /* no time line */
    OK(aclrtResetEvent(event, one));
    OK(aclrtQueryEvent(event, &status));
    EXPECT(status, 0);
}

static void a_stream_gives_up_waiting_for_an_event(void) {
    aclrtStream held = NULL, waiting = NULL;
    aclrtEvent event = NULL;
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&held));
    OK(aclrtCreateStream(&waiting));
    OK(aclrtCreateEventExWithFlag(&event, 1));
    OK(aclrtLaunchHostFunc(held, hold, NULL));
    OK(aclrtRecordEvent(event, held));
    OK(aclrtStreamWaitEventWithTimeout(waiting, event, 20));
    EXPECT(aclrtSynchronizeStream(waiting), 507047);
    OK(aclrtDestroyStreamForce(waiting)); /* does not wait for work */
    EXPECT(aclrtDestroyStreamForce(waiting), 107017);
    atomic_store(&gate, 1);
    OK(aclrtSynchronizeStream(held));
}

static void peer_access_can_be_taken_back(void) {
    OK(aclrtSetDevice(1));
    char *there = device_memory(4096);
    OK(aclrtSetDevice(0));
    char *here = device_memory(4096);
    EXPECT(aclrtDeviceEnablePeerAccess(1, 7), 107000);
    OK(aclrtDeviceEnablePeerAccess(1, 0));
    OK(aclrtMemcpy(here, 64, there, 64, D2D));
    OK(aclrtDeviceDisablePeerAccess(1));
    EXPECT(aclrtMemcpy(here, 64, there, 64, D2D), 107000);
}

static void batches_on_a_stream(void) { /* CANN_SIM_RELEASE=9.1 */
    enum { N = 5000 }; /* the asynchronous call has no limit of 4096 */
    static void *targets[N], *sources[N];
    static size_t sizes[N];
    size_t start = 0, fail = 0;
    aclrtStream stream = NULL;
    aclrtMemcpyBatchAttr attribute;
    memset(&attribute, 0, sizeof attribute);
    attribute.dstLoc = (aclrtMemLocation){0, 1};
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    char *memory = device_memory(N * 16), *pinned = NULL, seen[N * 16];
    OK(aclrtMallocHost((void **)&pinned, N * 16));
    memset(pinned, 0x2f, N * 16);
    for (int i = 0; i < N; i++) {
        targets[i] = memory + i * 16;
        sources[i] = pinned + i * 16;
        sizes[i] = 16;
    }
    OK(aclrtMemsetAsync(memory, N * 16, 0, N * 16, stream));
    OK(aclrtMemcpyBatchAsync(targets, sizes, sources, sizes, N, &attribute, &start, 1, &fail, stream));
    EXPECT(fail, SIZE_MAX);
    OK(aclrtSynchronizeStream(stream));
    OK(aclrtMemcpy(seen, sizeof seen, memory, sizeof seen, D2H));
    for (size_t i = 0; i < sizeof seen; i++) EXPECT(seen[i], 0x2f);
    sizes[3] = 0;
    EXPECT(aclrtMemcpyBatchAsync(targets, sizes, sources, sizes, N, &attribute, &start, 1, &fail, stream), 107000);
    sizes[3] = 16;
    OK(aclrtSynchronizeStream(stream));
    EXPECT(aclrtMemcpyBatchV2(targets, sizes, sources, sizes, 4097, &attribute, &start, 1), 107000);
    OK(aclrtMemcpyBatchV2(targets, sizes, sources, sizes, 4096, &attribute, &start, 1));
    memset(pinned, 0x30, N * 16);
    OK(aclrtMemcpyBatchAsyncV2(targets, sizes, sources, sizes, N, &attribute, &start, 1, stream));
    OK(aclrtSynchronizeStream(stream));
    OK(aclrtMemcpy(seen, sizeof seen, memory, sizeof seen, D2H));
    EXPECT(seen[N * 16 - 1], 0x30);
}

static void address_ranges(void) { /* CANN_SIM_RELEASE=9.1 */
    void *memory = NULL, *base = NULL;
    size_t size = 0;
    OK(aclrtSetDevice(0));
    OK(aclrtMallocCached(&memory, 3 << 20, 0));
    OK(aclrtMemGetAddressRange((char *)memory + (1 << 20), &base, &size));
    TRUE(base == memory && size >= 3 << 20);
    EXPECT(aclrtMemGetAddressRange(&size, &base, &size), 107000); /* no device memory */
    EXPECT(aclrtMemGetAddressRange(NULL, &base, &size), 100000);
}

static void memory_can_be_registered_with_the_card_again(void) {
    HcclComm comm = NULL;
    HcclCommConfig config = config_named("again");
    OK(aclrtSetDevice(0));
    OK(HcclCommInitClusterInfoMemConfig(near_table(0, 1), 0, &config, &comm));
    HcclMem memory = {0, device_memory(4 << 20), 4 << 20};
    OK(HcclRemapRegistedMemory(&comm, &memory, 1, 1)); /* RoCE only; otherwise success */
    EXPECT(HcclRemapRegistedMemory(NULL, &memory, 1, 1), 2);
    OK(HcclCommDestroy(comm));
    EXPECT(HcclRemapRegistedMemory(&comm, &memory, 1, 1), 1);
}

static void sharing_inside_a_super_pod(void) { /* CANN_SIM_SOC=Ascend910_9392 CANN_SIM_RELEASE=9.0 */
    char key[65], fabric[128];
    int32_t pid = getpid();
    aclrtServerPid server = {0, &pid, 1};
    void *address = NULL, *handle = NULL;
    OK(aclrtSetDevice(0));
    OK(aclrtIpcMemGetExportKey(device_memory(4 << 20), 4 << 20, key, sizeof key, 0));
    OK(aclrtIpcMemSetAttr(key, 0, 0));
    OK(aclrtIpcMemImportPidInterServer(key, &server, 1));
    EXPECT(aclrtIpcMemImportPidInterServer(key, &server, 0), 100000);
    OK(aclrtReserveMemAddressNoUCMemory(&address, 1 << 30, 0, NULL, 1)); /* multiples of 1 GiB, 40 to 224 TiB */
    TRUE((uintptr_t)address >= 40ull << 40 && (uintptr_t)address < 224ull << 40);
    OK(aclrtReleaseMemAddress(address));
    EXPECT(aclrtReserveMemAddressNoUCMemory(&address, 2 << 20, 0, NULL, 1), 107000);
    aclrtPhysicalMemProp property = {0, 0, 4, {0, 1}, 0};
    OK(aclrtMallocPhysical(&handle, 4 << 20, &property, 0));
    OK(aclrtMemExportToShareableHandleV2(handle, 0, 2, fabric));
    OK(aclrtMemSetPidToShareableHandleV2(fabric, 2, &pid, 1));
    EXPECT(aclrtMemExportToShareableHandleV2(handle, 0, 2, fabric), 107000); /* one export for one handle */
}

static void sharing_between_servers_needs_a3(void) { /* CANN_SIM_RELEASE=9.0 */
    void *address = NULL;
    OK(aclrtSetDevice(0));
    EXPECT(aclrtReserveMemAddressNoUCMemory(&address, 1 << 30, 0, NULL, 1), 207000);
}

/* What is out of scope exists and says so: ACL answers 207000, HCCL 5. */
static void out_of_scope(void) {
    static const char *const acl[] = {"aclrtCreateNotify", "aclrtBinaryLoadFromFile", "aclrtLaunchKernelWithConfig"};
    static const char *const hccl[] = {"HcclGetRootInfo", "HcclCommInitRootInfo", "HcclAllReduce"};
    char room[4200];
    for (size_t i = 0; i < sizeof acl / sizeof acl[0]; i++) {
        aclError (*function)(void *) = (aclError(*)(void *))dlsym(RTLD_DEFAULT, acl[i]);
        TRUE(function != NULL);
        EXPECT(function(room), 207000);
    }
    for (size_t i = 0; i < sizeof hccl / sizeof hccl[0]; i++) {
        HcclResult (*function)(void *) = (HcclResult(*)(void *))dlsym(RTLD_DEFAULT, hccl[i]);
        TRUE(function != NULL);
        EXPECT(function(room), 5);
    }
}

MAIN(CASE(last_error_is_the_threads), CASE(device_as_a_whole), CASE(ids_both_ways), CASE(events_of_the_older_kind),
     CASE(a_stream_gives_up_waiting_for_an_event), CASE(peer_access_can_be_taken_back), CASE(batches_on_a_stream),
     CASE(address_ranges), CASE(memory_can_be_registered_with_the_card_again), CASE(sharing_inside_a_super_pod),
     CASE(sharing_between_servers_needs_a3), CASE(out_of_scope))
