/* Scripted faults do what the module `fault` says of them, and nothing else. */
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "pair.h"

enum { MIB = 1 << 20, BYTES = 65536 };

static double now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static aclrtStream stream_of(int device) {
    aclrtStream stream = NULL;
    OK(aclrtSetDevice(device));
    OK(aclrtCreateStream(&stream));
    return stream;
}

/* Rank 0 fills its memory with `value` and puts the first `bytes` of it. */
static void put(struct rank *one, struct rank *two, int value, size_t bytes, aclrtStream stream) {
    OK(aclrtMemset(one->memory, PAIR_SIZE, value, PAIR_SIZE));
    HcclOneSideOpDesc desc = {one->memory, two->memory, bytes, UINT8};
    OK(HcclBatchPut(one->comm, 1, &desc, 1, stream));
}

/* aclrtMemset=fail:507899@2;aclrtMalloc/1=fail:207001;HcclRegisterGlobalMem=fail:7@1;aclrtGetDevice=delay:60 */
static void calls(void) {
    OK(aclrtSetDevice(1));
    void *refused = NULL;
    EXPECT(aclrtMalloc(&refused, MIB, 0), 207001);
    TRUE(strstr(aclGetRecentErrMsg(), "scripted") != NULL);
    OK(aclrtSetDevice(0));
    char *memory = device_memory(MIB);
    OK(aclrtMemset(memory, MIB, 1, MIB));
    EXPECT(aclrtMemset(memory, MIB, 2, MIB), 507899);
    EXPECT(device_byte(memory), 1); /* a call that fails does nothing */
    OK(aclrtMemset(memory, MIB, 3, MIB));
    HcclMem mem = {0, memory, MIB};
    void *handle = NULL;
    EXPECT(HcclRegisterGlobalMem(&mem, &handle), 7);
    OK(HcclRegisterGlobalMem(&mem, &handle));
    int device = 9;
    double start = now_ms();
    OK(aclrtGetDevice(&device));
    TRUE(now_ms() - start >= 60);
}

/* aclrtMemset=fail:507899@all:3 */
static void counted_over_processes(void) {
    int down[2], status = 0;
    OK(pipe(down));
    pid_t child = fork();
    OK(aclrtSetDevice(0));
    char *memory = device_memory(MIB);
    if (child == 0) {
        char go = 0;
        EXPECT(read(down[0], &go, 1), 1);
        EXPECT(aclrtMemset(memory, MIB, 1, MIB), 507899);
        OK(aclrtMemset(memory, MIB, 1, MIB));
        _exit(0);
    }
    OK(aclrtMemset(memory, MIB, 1, MIB));
    OK(aclrtMemset(memory, MIB, 1, MIB));
    EXPECT(write(down[1], "g", 1), 1);
    EXPECT(waitpid(child, &status, 0), child);
    EXPECT(status, 0);
    OK(aclrtMemset(memory, MIB, 1, MIB));
}

/* transfer=delay:60000@1 */
static void a_delayed_transfer_can_be_aborted(void) {
    struct rank one, two;
    make_pair(&one, &two, "delay", 0, 20);
    OK(one.prepared);
    aclrtStream stream = stream_of(0);
    put(&one, &two, 5, BYTES, stream);
    EXPECT(aclrtSynchronizeStreamWithTimeout(stream, 20), 507046);
    OK(aclrtStreamAbort(stream));
    EXPECT(device_byte(two.memory), 0);
    put(&one, &two, 6, BYTES, stream);
    OK(aclrtSynchronizeStream(stream));
    EXPECT(device_byte(two.memory), 6);
}

/* transfer=stuck:500 */
static void a_stuck_transfer_outlasts_the_abort(void) {
    struct rank one, two;
    make_pair(&one, &two, "stuck", 1, 20);
    OK(one.prepared);
    aclrtStream stream = stream_of(0);
    put(&one, &two, 5, BYTES, stream);
    EXPECT(aclrtSynchronizeStreamWithTimeout(stream, 20), 507046);
    OK(aclrtStreamAbort(stream)); /* returns when nothing runs any more */
    EXPECT(device_byte(two.memory), 5);
}

/* transfer=late:300 */
static void a_late_transfer_lands_after_the_abort(void) {
    struct rank one, two;
    make_pair(&one, &two, "late", 1, 20);
    OK(one.prepared);
    aclrtStream stream = stream_of(0);
    double start = now_ms();
    put(&one, &two, 5, BYTES, stream);
    EXPECT(aclrtSynchronizeStreamWithTimeout(stream, 20), 507046);
    OK(aclrtStreamAbort(stream));
    unsigned char early = device_byte(two.memory);
    if (now_ms() - start < 300) EXPECT(early, 0);
    while (device_byte(two.memory) != 5) TRUE(now_ms() - start < 20000);
    TRUE(now_ms() - start >= 300);
    put(&one, &two, 6, BYTES, stream); /* one that nobody aborts is there when the stream says so */
    OK(aclrtSynchronizeStream(stream));
    EXPECT(device_byte(two.memory), 6);
}

/* transfer=late:800@1 */
static void a_destroyed_communicator_lets_nothing_land(void) {
    struct rank one, two;
    make_pair(&one, &two, "late destroyed", 1, 20);
    OK(one.prepared);
    aclrtStream stream = stream_of(0);
    put(&one, &two, 5, BYTES, stream);
    EXPECT(aclrtSynchronizeStreamWithTimeout(stream, 20), 507046);
    OK(aclrtStreamAbort(stream));
    end_rank(&one);
    usleep(1000 * 1000); /* past the time at which it would have come */
    EXPECT(device_byte(two.memory), 0);
}

/* copy=late:200@1;copy=fail:507899@2 */
static void copies_of_the_runtime(void) {
    aclrtStream stream = stream_of(0);
    char *memory = device_memory(MIB), *source = device_memory(MIB);
    OK(aclrtMemset(memory, MIB, 0, MIB));
    OK(aclrtMemset(source, MIB, 5, MIB));
    double start = now_ms();
    OK(aclrtMemcpyAsync(memory, MIB, source, MIB, D2D, stream));
    EXPECT(aclrtSynchronizeStreamWithTimeout(stream, 10), 507046);
    OK(aclrtStreamAbort(stream));
    while (device_byte(memory) != 5) TRUE(now_ms() - start < 20000);
    TRUE(now_ms() - start >= 200);
    OK(aclrtMemcpyAsync(memory, MIB, source, MIB, D2D, stream));
    EXPECT(aclrtSynchronizeStream(stream), 507899);
    OK(aclrtMemcpyAsync(memory, MIB, source, MIB, D2D, stream));
    OK(aclrtSynchronizeStream(stream));
}

/* link/0-1=down@2 */
static void a_link_that_is_down_once(void) {
    for (int far = 0; far < 2; far++) {
        struct rank one, two;
        pid_t child = fork(); /* each kind of link counts from the start */
        int status = 0;
        if (child != 0) {
            EXPECT(waitpid(child, &status, 0), child);
            EXPECT(status, 0);
            continue;
        }
        make_pair(&one, &two, "down", far, 20);
        OK(one.prepared);
        aclrtStream stream = stream_of(0);
        put(&one, &two, 5, BYTES, stream);
        OK(aclrtSynchronizeStream(stream));
        put(&one, &two, 6, BYTES, stream);
        EXPECT(aclrtSynchronizeStreamWithTimeout(stream, far ? 50 : 20000), far ? 507046 : 507056);
        OK(aclrtStreamAbort(stream));
        EXPECT(device_byte(two.memory), 5);
        put(&one, &two, 7, BYTES, stream);
        OK(aclrtSynchronizeStream(stream));
        EXPECT(device_byte(two.memory), 7);
        _exit(0);
    }
}

/* link/1=down */
static void a_link_that_is_down_carries_no_meeting(void) {
    struct rank one, two;
    make_pair(&one, &two, "no meeting", 0, 1);
    EXPECT(one.prepared, 9);
    EXPECT(two.prepared, 9);
}

/* link=slow:1M */
static void a_slow_link(void) {
    struct rank one, two;
    make_pair(&one, &two, "slow", 0, 20);
    OK(one.prepared);
    aclrtStream stream = stream_of(0);
    double start = now_ms();
    put(&one, &two, 5, MIB / 4, stream);
    OK(aclrtSynchronizeStream(stream));
    TRUE(now_ms() - start >= 245);
    EXPECT(device_byte(two.memory + MIB / 4 - 1), 5);
    put(&one, &two, 6, PAIR_SIZE, stream);
    EXPECT(aclrtSynchronizeStreamWithTimeout(stream, 20), 507046);
    OK(aclrtStreamAbort(stream)); /* part of it has moved, and nothing moves any more */
    EXPECT(device_byte(two.memory + PAIR_SIZE - 1), 0);
}

/* task/1=kill@2 */
static void a_killed_stream(void) {
    aclrtStream healthy = stream_of(0), stream = stream_of(1), other = stream_of(1);
    char *memory = device_memory(MIB);
    aclrtEvent event = NULL;
    OK(aclrtCreateEventExWithFlag(&event, 1));
    OK(aclrtMemset(memory, MIB, 1, MIB));
    OK(aclrtMemcpyAsync(memory, 64, memory + 64, 64, D2D, stream));
    OK(aclrtSynchronizeStream(stream));
    OK(aclrtMemcpyAsync(memory, 64, memory + 64, 64, D2D, stream));
    EXPECT(aclrtSynchronizeStream(stream), 507000);
    EXPECT(aclrtSynchronizeStream(stream), 507000);
    EXPECT(aclrtMemcpyAsync(memory, 64, memory + 64, 64, D2D, stream), 507000);
    EXPECT(aclrtRecordEvent(event, stream), 507000);
    OK(aclrtStreamAbort(stream));
    EXPECT(aclrtSynchronizeStream(stream), 507000); /* an abort does not revive it */
    OK(aclrtDestroyStream(stream));
    OK(aclrtMemcpyAsync(memory, 64, memory + 64, 64, D2D, other));
    OK(aclrtSynchronizeStream(other));
    OK(aclrtSetDevice(0));
    OK(aclrtSynchronizeStream(healthy));
}

/* memory/0=take:63G */
static void missing_memory(void) {
    size_t available = 0, total = 0;
    void *memory = NULL;
    OK(aclrtSetDevice(0));
    OK(aclrtGetMemInfo(1, &available, &total));
    EXPECT(total - available, 63ll << 30);
    EXPECT(aclrtMalloc(&memory, 2ull << 30, 0), 207001);
    OK(aclrtMalloc(&memory, MIB, 0));
    OK(aclrtSetDevice(1));
    OK(aclrtMalloc(&memory, 2ull << 30, 0));
}

/* Told what to do line by line; what it does is decided by faults that come while it runs. */
static void told(void) {
    struct rank one, two;
    char line[64];
    make_pair(&one, &two, "told", 0, 20);
    OK(one.prepared);
    aclrtStream stream = stream_of(0);
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL && strcmp(line, "end\n") != 0) {
        int result = -1;
        if (strcmp(line, "put\n") == 0) {
            put(&one, &two, 5, BYTES, stream);
            result = aclrtSynchronizeStream(stream);
        } else if (strcmp(line, "memset\n") == 0) {
            result = aclrtMemset(one.memory, MIB, 1, MIB);
        }
        printf("%d\n", result);
        fflush(stdout);
    }
}

MAIN(CASE(calls), CASE(counted_over_processes), CASE(a_delayed_transfer_can_be_aborted),
     CASE(a_stuck_transfer_outlasts_the_abort), CASE(a_late_transfer_lands_after_the_abort),
     CASE(a_destroyed_communicator_lets_nothing_land), CASE(copies_of_the_runtime), CASE(a_link_that_is_down_once),
     CASE(a_link_that_is_down_carries_no_meeting), CASE(a_slow_link), CASE(a_killed_stream), CASE(missing_memory),
     CASE(told))
