/* Callbacks, copies of rows, host registration, aborts of a device, and calls that are there only to be refused. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"

enum { MIB = 1 << 20, SIZE = 4 << 20 };

static atomic_int order, first_at, second_at, leave;
static pthread_t ran_on;

static void first(void *argument) {
    EXPECT(*(int *)argument, 7);
    ran_on = pthread_self();
    first_at = ++order;
}
static void second(void *argument) {
    (void)argument;
    second_at = ++order;
}

static void *serve(void *seen) {
    while (!leave) *(int *)seen = aclrtProcessReport(20);
    return NULL;
}

/* Facts 1.6: LaunchCallback needs a thread that loops over ProcessReport and is subscribed to the stream. */
static void callbacks(void) {
    aclrtStream stream = NULL, other = NULL;
    pthread_t thread;
    int argument = 7, seen = 0;
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    OK(aclrtCreateStream(&other));
    EXPECT(aclrtLaunchCallback(first, &argument, 1, stream), 107015);
    EXPECT(aclrtProcessReport(10), 107010); /* this thread serves nobody */
    EXPECT(aclrtProcessReport(0), 107000);
    EXPECT(aclrtProcessReport(-2), 107000);
    OK(pthread_create(&thread, NULL, serve, &seen));
    OK(aclrtSubscribeReport((uint64_t)thread, stream));
    EXPECT(aclrtSubscribeReport((uint64_t)pthread_self(), stream), 107011); /* one thread for a stream */
    OK(aclrtSubscribeReport((uint64_t)thread, other));
    EXPECT(aclrtLaunchCallback(NULL, NULL, 1, stream), 100000);
    OK(aclrtLaunchCallback(first, &argument, 1, stream));
    OK(aclrtLaunchHostFunc(stream, second, NULL)); /* in stream order after a blocking callback */
    OK(aclrtSynchronizeStream(stream));
    EXPECT(first_at, 1);
    EXPECT(second_at, 2);
    TRUE(pthread_equal(ran_on, thread));
    OK(aclrtLaunchCallback(first, &argument, 0, other)); /* the stream does not wait for it */
    OK(aclrtSynchronizeStream(other));
    while (order < 3) usleep(1000);
    EXPECT(aclrtUnSubscribeReport((uint64_t)pthread_self(), stream), 107011);
    OK(aclrtUnSubscribeReport((uint64_t)thread, stream));
    EXPECT(aclrtLaunchCallback(first, &argument, 1, stream), 107015);
    OK(aclrtUnSubscribeReport((uint64_t)thread, other));
    leave = 1;
    OK(pthread_join(thread, NULL));
    TRUE(seen == 107010 || seen == 107019 || seen == 0);
}

/* A blocking callback that nobody runs holds the stream until it is aborted. */
static void an_abort_ends_the_wait_for_a_callback(void) {
    aclrtStream stream = NULL;
    int argument = 7;
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    OK(aclrtSubscribeReport((uint64_t)pthread_self(), stream));
    EXPECT(aclrtProcessReport(1), 107019);
    OK(aclrtLaunchCallback(first, &argument, 1, stream));
    EXPECT(aclrtSynchronizeStreamWithTimeout(stream, 30), 507046);
    OK(aclrtStreamAbort(stream));
    OK(aclrtSynchronizeStream(stream));
    EXPECT(aclrtProcessReport(1), 107019); /* what was aborted is not called later */
    EXPECT(order, 0);
    OK(aclrtDestroyStream(stream));
}

/* Facts 1.6: other chips than A2, A3 and 950 cannot abort. */
static void chips_without_abort(void) { /* CANN_SIM_SOC=Ascend310P3 */
    aclrtStream stream = NULL;
    int argument = 7;
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    EXPECT(aclrtStreamAbort(NULL), 100000);
    EXPECT(aclrtStreamAbort(stream), 207000);
    OK(aclrtLaunchHostFunc(stream, first, &argument)); /* and the stream goes on */
    OK(aclrtSynchronizeStream(stream));
    EXPECT(first_at, 1);
    OK(aclrtDestroyStream(stream));
}

/* Facts 2.5 and 1.4: chips that only PCIe joins (CANN_SIM_PCIE_PAIRS=1-0,2-3). */
static void pcie_pairs(void) {
    uint64_t topology = 0;
    HcclComm comm = NULL;
    HcclCommConfig config = config_named("pcie");
    HcclPrepareConfig mesh = {0, 0, 0, 0};
    OK(aclrtSetDevice(0));
    OK(aclrtGetDevicesTopo(0, 1, &topology));
    EXPECT(topology, 2);
    OK(aclrtGetDevicesTopo(1, 2, &topology));
    EXPECT(topology, 1);
    OK(HcclCommInitClusterInfoMemConfig(near_table(0, 1), 0, &config, &comm));
    EXPECT(HcclCommPrepare(comm, &mesh, 20), 5);
    OK(HcclCommDestroy(comm));
    OK(HcclCommInitClusterInfoMemConfig(near_table(0, 2), 0, &config, &comm));
    EXPECT(HcclCommPrepare(comm, &mesh, 1), 9); /* only the peer is missing */
    OK(HcclCommDestroy(comm));
    OK(HcclCommInitClusterInfoMemConfig(far_table(0, 1), 0, &config, &comm));
    EXPECT(HcclCommPrepare(comm, &mesh, 1), 9); /* another server: over RoCE */
    OK(HcclCommDestroy(comm));
}

/* Facts 1.2: rows with a distance of their own on each side. */
static void copies_of_rows(void) {
    unsigned char *host = NULL, *back = NULL, plain[64 * 10];
    aclrtStream stream = NULL;
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    OK(aclrtMallocHost((void **)&host, 8192));
    OK(aclrtMallocHost((void **)&back, 8192));
    char *device = device_memory(8192);
    for (int i = 0; i < 8192; i++) host[i] = (unsigned char)(i * 7);
    memset(back, 0, 8192);
    OK(aclrtMemset(device, 8192, 0xee, 8192));
    EXPECT(aclrtMemcpy2d(NULL, 64, host, 64, 10, 1, H2D), 100000);
    EXPECT(aclrtMemcpy2d(device, 64, host, 64, 0, 1, H2D), 100000);
    EXPECT(aclrtMemcpy2d(device, 9, host, 64, 10, 2, H2D), 107000); /* wider than the pitch */
    EXPECT(aclrtMemcpy2d(device, 4096, host, 64, 10, 4, H2D), 107000); /* past the allocation */
    EXPECT(aclrtMemcpy2d(device, 64, host, 64, 10, 2, H2H), 107000);
    EXPECT(aclrtMemcpy2d(back, 64, host, 64, 10, 2, H2D), 207000);
    OK(aclrtMemcpy2d(device, 100, host, 50, 30, 20, H2D));
    OK(aclrtMemcpy2dAsync(back, 30, device, 100, 30, 20, D2H, stream));
    OK(aclrtSynchronizeStream(stream));
    for (int row = 0; row < 20; row++)
        for (int i = 0; i < 30; i++) EXPECT(back[row * 30 + i], (unsigned char)((row * 50 + i) * 7));
    OK(aclrtMemcpy(back, 100, device, 100, D2H));
    for (int i = 30; i < 100; i++) EXPECT(back[i], 0xee); /* what is between rows is left alone */
    OK(aclrtMemcpy2dAsync(plain, 64, device, 100, 30, 10, KIND_DEFAULT, stream)); /* not pinned: done at once */
    for (int row = 0; row < 10; row++) EXPECT(plain[row * 64 + 29], (unsigned char)((row * 50 + 29) * 7));
    EXPECT(aclrtMemcpyAsyncWithCondition(device, 640, plain, 640, H2D, stream), 107000); /* insists on pinned memory */
    OK(aclrtMemcpyAsyncWithCondition(device, 640, host, 640, H2D, stream));
    OK(aclrtSynchronizeStream(stream));
}

/* Facts 1.6: the device's address of registered memory is for device code only; registered memory counts as host. */
static void host_registration(void) {
    void *address = NULL, *again = NULL;
    aclrtPtrAttributes attributes;
    char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OK(aclrtSetDevice(0));
    void *device = device_memory(SIZE);
    OK(aclrtPointerGetAttributes(memory, &attributes));
    EXPECT(attributes.location.type, 2); /* unregistered */
    EXPECT(aclrtHostRegister(memory + 1, SIZE / 2, 0, &address), 107000);
    EXPECT(aclrtHostRegister(memory, SIZE, 1, &address), 107000);
    OK(aclrtHostRegister(memory, SIZE, 0, &address));
    EXPECT(aclrtHostRegister(memory, SIZE, 0, &again), 507910);
    EXPECT(aclrtHostRegisterV2(memory, SIZE, 2), 507910);
    OK(aclrtPointerGetAttributes(memory + 100, &attributes));
    EXPECT(attributes.location.type, 0);
    EXPECT(attributes.location.id, 0);
    TRUE(address != memory);
    OK(aclrtHostGetDevicePointer(memory + 64, &again, 0));
    TRUE(again == (char *)address + 64);
    EXPECT(aclrtMemcpy(device, 64, address, 64, H2D), 507899); /* not by the copy calls */
    OK(aclrtMemcpy(device, 64, memory, 64, H2D));
    EXPECT(aclrtHostGetDevicePointer(memory, &again, 1), 107000);
    OK(aclrtHostUnregister(memory));
    EXPECT(aclrtHostUnregister(memory), 507911);
    EXPECT(aclrtHostGetDevicePointer(memory, &again, 0), 507911);
    EXPECT(aclrtHostRegisterV2(memory, SIZE, 0), 107000);
    EXPECT(aclrtHostRegisterV2(memory, SIZE, 1), 107000);
    OK(aclrtHostRegisterV2(memory, SIZE, 0x10000000)); /* pinned, without a device address */
    EXPECT(aclrtHostGetDevicePointer(memory, &again, 0), 107000);
    OK(aclrtHostUnregister(memory));
    OK(aclrtHostRegisterV2(memory, SIZE, 2 | 8));
    OK(aclrtHostGetDevicePointer(memory, &again, 0));
    OK(aclrtHostUnregister(memory));
}

/* Facts 1.2: allocation with a configuration, and a free that waits. */
static void other_allocations(void) {
    void *device = NULL, *host = NULL;
    aclrtStream stream = NULL;
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    EXPECT(aclrtMallocWithCfg(&device, 0, 0, NULL), 100000);
    OK(aclrtMallocWithCfg(&device, SIZE, 0, NULL));
    OK(aclrtMallocHostWithCfg(&host, SIZE, NULL));
    for (int i = 0; i < 50; i++) OK(aclrtMemcpyAsync(device, SIZE, host, SIZE, H2D, stream));
    OK(aclrtFreeWithDevSync(device));
    int status = 1;
    OK(aclrtStreamQuery(stream, &status));
    EXPECT(status, 0); /* the free waited for the copies */
    EXPECT(aclrtFreeWithDevSync(device), 107000);
    OK(aclrtFreeHost(host));
}

static atomic_int go;
static void hold(void *argument) {
    (void)argument;
    while (!go) usleep(1000);
}
static atomic_int waiter_saw;
static void *waiter(void *stream) {
    OK(aclrtSetDevice(0));
    waiter_saw = aclrtSynchronizeStream(stream);
    return NULL;
}
static void *release_soon(void *unused) {
    usleep(20000);
    go = 1;
    return unused;
}

/* Facts 1.5: waiters of an aborted device are told 107022; other devices go on. */
static void device_abort(void) {
    aclrtStream stream = NULL, elsewhere = NULL;
    pthread_t thread, releaser;
    OK(aclrtSetDevice(1));
    OK(aclrtCreateStream(&elsewhere));
    char *memory = device_memory(MIB);
    OK(aclrtMemsetAsync(memory, MIB, 5, MIB, elsewhere));
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    OK(aclrtLaunchHostFunc(stream, hold, NULL));
    OK(aclrtLaunchHostFunc(stream, second, NULL));
    waiter_saw = -1;
    OK(pthread_create(&thread, NULL, waiter, stream));
    OK(pthread_create(&releaser, NULL, release_soon, NULL)); /* a function of the program cannot be stopped midway */
    OK(aclrtDeviceTaskAbort(0, 1000));
    OK(pthread_join(thread, NULL));
    OK(pthread_join(releaser, NULL));
    TRUE(waiter_saw == 107022 || waiter_saw == 0); /* 0: the waiter came after the abort */
    EXPECT(second_at, 0); /* what was queued is gone */
    EXPECT(aclrtDeviceTaskAbort(99, 0), 107001);
    OK(aclrtSetDevice(1));
    OK(aclrtSynchronizeStream(elsewhere));
}

/* A stop is for device-only streams, and ids are the stream's own. */
static void stream_stop_and_ids(void) {
    aclrtStream stream = NULL, device_only = NULL;
    int32_t one = 0, other = 0;
    uint64_t topology = 0;
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    OK(aclrtCreateStreamWithConfig(&device_only, 0, 0x20));
    EXPECT(aclrtStreamStop(NULL), 107000);
    EXPECT(aclrtStreamStop(stream), 207000);
    OK(aclrtStreamStop(device_only));
    OK(aclrtStreamGetId(stream, &one));
    OK(aclrtStreamGetId(device_only, &other));
    TRUE(one != other);
    EXPECT(aclrtGetDevicesTopo(0, 0, &topology), 107000);
    OK(aclrtGetDevicesTopo(0, 1, &topology));
    EXPECT(topology, 1);
}

static void a3_topology(void) { /* CANN_SIM_SOC=Ascend910_9392 */
    uint64_t topology = 0;
    OK(aclrtGetDevicesTopo(0, 1, &topology));
    EXPECT(topology, 0x20); /* two dies of a package */
    OK(aclrtGetDevicesTopo(0, 2, &topology));
    EXPECT(topology, 0x40);
}

/* Facts 7.2 and 10: what HIXL's builds want to exist and the communicator path does not call answers 207000. */
static void out_of_scope(void) {
    static const char *const names[] = {
        "aclsysGetVersionNum", "aclrtCreateNotify", "aclrtDestroyNotify", "aclrtRecordNotify",
        "aclrtWaitAndResetNotify", "aclrtGetNotifyId", "aclrtNotifyBatchReset", "aclrtBinaryLoadFromFile",
        "aclrtBinaryGetFunction", "aclrtBinaryGetFunctionByEntry", "aclrtBinaryUnLoad", "aclrtKernelArgsInit",
        "aclrtKernelArgsAppend", "aclrtKernelArgsFinalize", "aclrtLaunchKernel", "aclrtLaunchKernelV2",
        "aclrtLaunchKernelWithConfig", "aclrtSetStreamAttribute", "aclrtGetThreadLastTaskId", "aclrtMemGetAccess",
        "rtGetDevResAddress", "rtNotifyGetAddrOffset", "rtStreamGetSqid", "rtStreamGetCqid"};
    void *library = dlopen("libascendcl.so", RTLD_NOW);
    OK(aclrtSetDevice(0));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        int (*function)(void *, void *, void *, void *) = NULL;
        *(void **)&function = dlsym(library, names[i]);
        if (function == NULL) {
            fprintf(stderr, "no %s\n", names[i]);
            exit(1);
        }
        EXPECT(function(NULL, NULL, NULL, NULL), 207000);
    }
}

MAIN(CASE(callbacks), CASE(an_abort_ends_the_wait_for_a_callback),
     CASE(chips_without_abort), CASE(pcie_pairs), CASE(copies_of_rows), CASE(host_registration),
     CASE(other_allocations), CASE(device_abort), CASE(stream_stop_and_ids), CASE(a3_topology), CASE(out_of_scope))
