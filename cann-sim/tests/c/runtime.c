/* Devices, contexts, streams, events. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "check.h"

static atomic_int gate, entered, order_index;
static int order[8];

/* Holds a stream until the gate opens; the loop has no other bound than the test's own end. */
static void hold(void *unused) {
    (void)unused;
    atomic_store(&entered, 1);
    while (!atomic_load(&gate)) usleep(100);
}
static void note(void *value) { order[atomic_fetch_add(&order_index, 1)] = (int)(intptr_t)value; }
static void await_entered(void) {
    while (!atomic_load(&entered)) usleep(100);
}

static void *without_context(void *unused) {
    (void)unused;
    void *address = NULL;
    int device = 0;
    aclrtContext context = NULL;
    EXPECT(aclrtMalloc(&address, 4096, 0), 107002);
    const char *text = aclGetRecentErrMsg();
    TRUE(text != NULL && strstr(text, "ctx is NULL") != NULL);
    TRUE(aclGetRecentErrMsg() == NULL); /* read and cleared */
    EXPECT(aclrtGetDevice(&device), 107002);
    EXPECT(aclrtGetCurrentContext(&context), 107002);
    EXPECT(aclrtSynchronizeStream(NULL), 107002);
    EXPECT(aclrtMallocHost(&address, 64), 107002);
    return NULL;
}

static void in_thread(void *(*function)(void *)) {
    pthread_t thread;
    OK(pthread_create(&thread, NULL, function, NULL));
    OK(pthread_join(thread, NULL));
}

static void context_is_thread_local(void) {
    int device = -1;
    OK(aclrtSetDevice(1));
    in_thread(without_context);
    OK(aclrtGetDevice(&device));
    EXPECT(device, 1);
    TRUE(aclGetRecentErrMsg() == NULL); /* the other thread's failures are not ours */
}

static void default_context_is_shared_and_counted(void) {
    aclrtContext first = NULL, second = NULL, other = NULL, current = NULL;
    OK(aclrtSetDevice(0));
    OK(aclrtGetCurrentContext(&first));
    OK(aclrtSetDevice(0));
    OK(aclrtGetCurrentContext(&second));
    TRUE(first == second);
    OK(aclrtSetDevice(3));
    OK(aclrtGetCurrentContext(&other));
    TRUE(first != other);
    OK(aclrtSetCurrentContext(first));
    OK(aclrtResetDevice(0));
    OK(aclrtGetCurrentContext(&current));
    OK(aclrtResetDevice(0));
    EXPECT(aclrtGetCurrentContext(&current), 107002);
    EXPECT(aclrtSetDevice(8), 107001);
    EXPECT(aclrtSetDevice(-1), 107001);
}

static void explicit_contexts(void) {
    aclrtContext context = NULL, current = NULL;
    aclrtStream mine = NULL, theirs = NULL;
    int device = 0;
    OK(aclrtSetDevice(0));
    OK(aclrtCtxGetCurrentDefaultStream(&mine));
    OK(aclrtCreateContext(&context, 2));
    OK(aclrtGetCurrentContext(&current));
    TRUE(current == context);
    OK(aclrtGetDevice(&device));
    EXPECT(device, 2);
    OK(aclrtCtxGetCurrentDefaultStream(&theirs));
    TRUE(mine != theirs);
    EXPECT(aclrtSynchronizeStream(mine), 107003);
    OK(aclrtSynchronizeStream(theirs));
    OK(aclrtDestroyContext(context));
    EXPECT(aclrtGetCurrentContext(&current), 107002);
    EXPECT(aclrtSetCurrentContext(context), 107017);
    EXPECT(aclrtDestroyContext(context), 107017);
    EXPECT(aclrtDestroyContext(NULL), 100000);
}

static void device_ids(void) {
    uint32_t count = 0;
    int id = -1, logic = -1;
    OK(aclrtGetDeviceCount(&count));
    EXPECT(count, 2); /* the environment: physical 4,5,6,7; visible 1,3 */
    OK(aclrtGetPhyDevIdByLogicDevId(1, &id));
    EXPECT(id, 7);
    OK(aclrtGetLogicDevIdByUserDevId(1, &logic));
    EXPECT(logic, 3);
    EXPECT(aclrtGetPhyDevIdByLogicDevId(2, &id), 107001);
    EXPECT(strcmp(aclrtGetSocName(), "Ascend910B3"), 0);
    EXPECT(aclrtGetDeviceCount(NULL), 100000);
    OK(aclrtSetDevice(1));
    void *memory = device_memory(4096);
    aclrtPtrAttributes attributes;
    OK(aclrtPointerGetAttributes(memory, &attributes));
    EXPECT(attributes.location.id, 1);
}

static void initialise_twice(void) {
    int major = 0, minor = 0, patch = 0;
    OK(aclInit(NULL));
    EXPECT(aclInit(NULL), 100002);
    OK(aclFinalize());
    EXPECT(aclFinalize(), 100037);
    OK(aclrtGetVersion(&major, &minor, &patch));
    EXPECT(major * 100 + minor, 116);
}

static void streams_are_fifo_and_asynchronous(void) {
    aclrtStream slow = NULL, fast = NULL;
    int status = -1;
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&slow));
    OK(aclrtCreateStream(&fast));
    OK(aclrtLaunchHostFunc(slow, hold, NULL)); /* returns although the function is held */
    for (intptr_t i = 0; i < 4; i++) OK(aclrtLaunchHostFunc(slow, note, (void *)i));
    OK(aclrtStreamQuery(slow, &status));
    EXPECT(status, 1);
    OK(aclrtLaunchHostFunc(fast, note, (void *)(intptr_t)9)); /* another stream is not held */
    OK(aclrtSynchronizeStream(fast));
    EXPECT(order[0], 9);
    atomic_store(&gate, 1);
    OK(aclrtSynchronizeStream(slow));
    OK(aclrtStreamQuery(slow, &status));
    EXPECT(status, 0);
    for (int i = 0; i < 4; i++) EXPECT(order[i + 1], i);
    OK(aclrtDestroyStream(slow));
    EXPECT(aclrtDestroyStream(slow), 107017);
    EXPECT(aclrtDestroyStream(NULL), 100000);
    OK(aclrtDestroyStream(fast));
}

static void sync_timeout_leaves_the_work_going(void) {
    aclrtStream stream = NULL;
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    OK(aclrtLaunchHostFunc(stream, hold, NULL));
    OK(aclrtLaunchHostFunc(stream, note, (void *)(intptr_t)5));
    EXPECT(aclrtSynchronizeStreamWithTimeout(stream, 20), 507046);
    EXPECT(aclrtSynchronizeStreamWithTimeout(stream, -2), 107000);
    atomic_store(&gate, 1);
    OK(aclrtSynchronizeStreamWithTimeout(stream, -1));
    EXPECT(order[0], 5);
}

static aclrtStream aborted;
static aclrtContext aborted_context;
static atomic_int waiter_id;
static void *wait_for_aborted(void *unused) {
    (void)unused;
    OK(aclrtSetCurrentContext(aborted_context));
    atomic_store(&waiter_id, (int)syscall(SYS_gettid));
    return (void *)(intptr_t)aclrtSynchronizeStream(aborted);
}

/* Waits until the thread sleeps: after it told its id, the only place where it can is the wait for the stream. */
static void await_sleeping(void) {
    while (!atomic_load(&waiter_id)) usleep(100);
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", atomic_load(&waiter_id));
    while (state != 'S') {
        FILE *file = fopen(path, "r");
        TRUE(file != NULL);
        if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1) state = 0;
        fclose(file);
    }
}

static void abort_drops_the_queue_and_tells_waiters(void) {
    aclrtStream other = NULL;
    aclrtEvent never = NULL, dropped = NULL;
    pthread_t waiter;
    void *result = NULL;
    OK(aclrtSetDevice(0));
    OK(aclrtGetCurrentContext(&aborted_context));
    OK(aclrtCreateStream(&aborted));
    OK(aclrtCreateStream(&other));
    OK(aclrtCreateEventExWithFlag(&never, 1));
    OK(aclrtCreateEventExWithFlag(&dropped, 1));
    OK(aclrtLaunchHostFunc(other, hold, NULL));
    OK(aclrtRecordEvent(never, other));
    OK(aclrtStreamWaitEvent(aborted, never)); /* the running task: a wait that does not end by itself */
    OK(aclrtLaunchHostFunc(aborted, note, NULL));
    OK(aclrtRecordEvent(dropped, aborted));
    await_entered();
    OK(pthread_create(&waiter, NULL, wait_for_aborted, NULL));
    await_sleeping();
    OK(aclrtStreamAbort(aborted));
    OK(pthread_join(waiter, &result));
    EXPECT((intptr_t)result, 107023);
    EXPECT(aclrtSynchronizeEventWithTimeout(dropped, 1000), 107023);
    OK(aclrtSynchronizeStream(aborted));
    OK(aclrtLaunchHostFunc(aborted, note, (void *)(intptr_t)3)); /* the stream can be used again */
    OK(aclrtSynchronizeStream(aborted));
    EXPECT(order_index, 1);
    EXPECT(order[0], 3);
    atomic_store(&gate, 1);
    OK(aclrtSynchronizeStream(other));
}

static void events(void) {
    aclrtStream one = NULL, two = NULL;
    aclrtEvent event = NULL, start = NULL, end = NULL;
    int status = -1;
    float ms = -1;
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&one));
    OK(aclrtCreateStream(&two));
    OK(aclrtCreateEventExWithFlag(&event, 1));
    OK(aclrtQueryEventStatus(event, &status));
    EXPECT(status, 1); /* never recorded is complete */
    OK(aclrtLaunchHostFunc(one, hold, NULL));
    OK(aclrtRecordEvent(event, one));
    OK(aclrtQueryEventStatus(event, &status));
    EXPECT(status, 0);
    OK(aclrtStreamWaitEvent(two, event));
    OK(aclrtLaunchHostFunc(two, note, (void *)(intptr_t)7));
    EXPECT(aclrtSynchronizeEventWithTimeout(event, 10), 507047);
    EXPECT(aclrtSynchronizeStreamWithTimeout(two, 10), 507046);
    EXPECT(order_index, 0);
    atomic_store(&gate, 1);
    OK(aclrtSynchronizeEvent(event));
    OK(aclrtSynchronizeStream(two));
    EXPECT(order[0], 7);
    OK(aclrtRecordEvent(event, one)); /* again */
    OK(aclrtSynchronizeEvent(event));
    OK(aclrtCreateEventExWithFlag(&start, 8));
    OK(aclrtCreateEventExWithFlag(&end, 8));
    OK(aclrtRecordEvent(start, one));
    OK(aclrtRecordEvent(end, one));
    OK(aclrtSynchronizeStream(one));
    OK(aclrtEventElapsedTime(&ms, start, end));
    TRUE(ms >= 0);
    EXPECT(aclrtEventElapsedTime(&ms, event, end), 107000); /* no time line */
    OK(aclrtDestroyEvent(event));
    EXPECT(aclrtDestroyEvent(event), 107017);
    EXPECT(aclrtRecordEvent(NULL, one), 100000);
}

static void stop_on_failure(void) {
    aclrtContext context = NULL;
    aclrtStream stream = NULL;
    OK(aclrtSetDevice(0));
    OK(aclrtCreateContext(&context, 0));
    OK(aclrtCreateStream(&stream));
    char *memory = device_memory(4096);
    void *pinned = NULL;
    OK(aclrtMallocHost(&pinned, 1 << 20));
    OK(aclrtMemcpyAsync(memory, 1 << 20, pinned, 1 << 20, H2D, stream)); /* leaves the allocation */
    EXPECT(aclrtSynchronizeStream(stream), 507013);
    OK(aclrtSynchronizeStream(stream)); /* a stream that continues reports a failure once */
    OK(aclrtSetStreamFailureMode(NULL, 1));
    EXPECT(aclrtSetStreamFailureMode(NULL, 1), 107000); /* once per stream */
    OK(aclrtMemcpyAsync(memory, 1 << 20, pinned, 1 << 20, H2D, stream));
    EXPECT(aclrtSynchronizeStream(stream), 507013);
    EXPECT(aclrtLaunchHostFunc(NULL, note, NULL), 107035); /* every stream of the context stops */
    EXPECT(aclrtSynchronizeStream(stream), 507013);
    EXPECT(order_index, 0);
    OK(aclrtDestroyContext(context));
    OK(aclrtSetDevice(0));
    OK(aclrtLaunchHostFunc(NULL, note, NULL));
    OK(aclrtSynchronizeStream(NULL));
    EXPECT(order_index, 1);
}

static void ten_thousand_streams_and_events(void) {
    OK(aclrtSetDevice(0));
    for (int round = 0; round < 10; round++) {
        static aclrtStream streams[1000];
        static aclrtEvent events[1000];
        for (int i = 0; i < 1000; i++) {
            OK(aclrtCreateStream(&streams[i]));
            OK(aclrtCreateEventExWithFlag(&events[i], 1));
            if (i % 10 == 0) OK(aclrtRecordEvent(events[i], streams[i]));
        }
        for (int i = 0; i < 1000; i++) {
            OK(aclrtDestroyStream(streams[i]));
            OK(aclrtDestroyEvent(events[i]));
        }
    }
    aclrtStream stream = NULL;
    int made = 1; /* the default stream */
    while (aclrtCreateStream(&stream) == 0) made++;
    EXPECT(made, 1984);
    EXPECT(aclrtCreateStream(&stream), 207008);
}

MAIN(CASE(context_is_thread_local), CASE(default_context_is_shared_and_counted), CASE(explicit_contexts),
     CASE(device_ids), CASE(initialise_twice), CASE(streams_are_fifo_and_asynchronous),
     CASE(sync_timeout_leaves_the_work_going), CASE(abort_drops_the_queue_and_tells_waiters), CASE(events),
     CASE(stop_on_failure), CASE(ten_thousand_streams_and_events))
