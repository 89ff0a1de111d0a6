/* Cost profiles: vendor calls take the time of the published measurements, in model time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "../../include/cann_sim_cost.h"
#include "ends.h"

enum { KIB = 1 << 10, MIB = 1 << 20, SIZE = 8 << 20 };

/* As a program does that also runs on hardware. */
#define MODEL(name) ((__typeof__(&name))dlsym(RTLD_DEFAULT, #name))

static double model_us(void) { return (double)MODEL(cann_sim_cost_now_ns)() / 1e3; }

static double wall_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* `seen` is within `percent` of `expected`. */
static void near(double seen, double expected, double percent) {
    if (seen < expected * (1 - percent / 100) || seen > expected * (1 + percent / 100)) {
        fprintf(stderr, "%.1f us, expected %.1f us\n", seen, expected);
        exit(1);
    }
}

static char table[900];

static void connect_pair(struct end *one, struct end *two, int first, int second, const char *name) {
    OK(aclrtSetDevice(second));
    char *theirs = device_memory(SIZE);
    OK(aclrtSetDevice(first));
    char *mine = device_memory(SIZE);
    *one = (struct end){table, name, 0, first, 30, mine, SIZE, 0, NULL, NULL, 0};
    *two = (struct end){table, name, 1, second, 30, theirs, SIZE, 0, NULL, NULL, 0};
    pair_ends(one, two);
    OK(one->result);
    OK(aclrtSetDevice(first));
}

/* Model time of `calls` calls of 64 descriptors of `length` bytes, with one wait at the end. */
static double transfer(struct end *one, struct end *two, size_t length, int calls, int is_get) {
    static HcclOneSideOpDesc desc[64];
    aclrtStream stream = NULL;
    OK(aclrtCreateStream(&stream));
    for (size_t i = 0; i < 64; i++) {
        size_t offset = i * length % SIZE;
        desc[i] = (HcclOneSideOpDesc){(char *)one->memory + offset, (char *)two->memory + offset, length, UINT8};
    }
    double start = model_us();
    for (int i = 0; i < calls; i++)
        OK(is_get ? HcclBatchGet(one->comm, 1, desc, 64, stream) : HcclBatchPut(one->comm, 1, desc, 64, stream));
    OK(aclrtSynchronizeStream(stream));
    double took = model_us() - start;
    OK(aclrtDestroyStream(stream));
    return took;
}

/* Facts 6: floors and rates of A2 over RoCE, in calls of the vendor's. CANN_SIM_PROFILE=a2-roce */
static void descriptors_over_roce(void) {
    struct end one, two;
    strcpy(table, far_table(0, 1));
    connect_pair(&one, &two, 0, 1, "roce");
    EXPECT(strcmp(MODEL(cann_sim_cost_profile)(), "a2-roce"), 0);
    near(transfer(&one, &two, 16 * KIB, 1, 0), 64 * 22.9, 20);
    near(transfer(&one, &two, 16 * KIB, 1, 1), 64 * 23.4, 20);
    near(transfer(&one, &two, 2 * MIB, 1, 1), 64 * 87.4, 20);
    double busy = (double)MODEL(cann_sim_cost_busy_ns)(1, 0) / 1e3; /* launches, whatever the machine did meanwhile */
    near(busy, 64 * 23.0 + 128 * 23.4, 0.1);
    near((double)MODEL(cann_sim_cost_busy_ns)(9, 0) / 1e3, 64 * (16 * 1.024 + 2048 * 1.024) / 24, 0.1);
    EXPECT(MODEL(cann_sim_cost_busy_ns)(1, 1), 0); /* the owner does nothing */
    end_pair(&one);
    end_pair(&two);
}

/* The same over HCCS of A3. CANN_SIM_PROFILE=a3-hccs: the chip follows. */
static void descriptors_over_hccs(void) {
    struct end one, two;
    EXPECT(strcmp(aclrtGetSocName(), "Ascend910_9392"), 0);
    strcpy(table, near_table(0, 1));
    connect_pair(&one, &two, 0, 1, "hccs");
    near(transfer(&one, &two, 16 * KIB, 4, 0), 256 * 1.024, 25);
    near(transfer(&one, &two, 2 * MIB, 1, 0), 64 * 13.19, 25);
    end_pair(&one);
    end_pair(&two);
}

/* Facts 7.1, cost model: the port of a device is one for all processes. CANN_SIM_PROFILE=a3-roce */
static void processes_share_a_port(void) {
    int begin[2], ready[2], told[2], status = 0;
    double alone = 64 * 88.8, first = 0, last = 0;
    char byte = 0;
    TRUE(pipe(begin) == 0 && pipe(ready) == 0 && pipe(told) == 0);
    pid_t children[2];
    for (int i = 0; i < 2; i++) {
        children[i] = fork();
        if (children[i] != 0) continue;
        struct end one, two;
        /* Each has a port of its own to listen at, and the same card. */
        snprintf(table, sizeof table,
                 "{\"version\":\"1.0\",\"status\":\"completed\",\"server_count\":\"2\",\"server_list\":["
                 "{\"server_id\":\"10.0.0.7\",\"device\":[{\"device_id\":\"0\",\"device_ip\":\"29.1.0.12\","
                 "\"device_port\":\"%d\",\"rank_id\":\"0\"}]},{\"server_id\":\"10.0.0.8\",\"device\":["
                 "{\"device_id\":\"%d\",\"device_ip\":\"29.1.0.2%d\",\"rank_id\":\"1\"}]}]}", 17000 + i, 1 + i, 1 + i);
        connect_pair(&one, &two, 0, 1 + i, i ? "right" : "left");
        EXPECT(write(ready[1], "x", 1), 1);
        EXPECT(read(begin[0], &byte, 1), 1);
        double times[2] = {model_us(), 0}; /* the same clock in both, since nothing was waited for yet */
        transfer(&one, &two, 2 * MIB, 1, 0);
        times[1] = model_us();
        EXPECT(write(told[1], times, sizeof times), sizeof times);
        exit(0);
    }
    for (int i = 0; i < 2; i++) EXPECT(read(ready[0], &byte, 1), 1);
    EXPECT(write(begin[1], "xx", 2), 2);
    for (int i = 0; i < 2; i++) {
        double times[2];
        EXPECT(waitpid(children[i], &status, 0), children[i]);
        EXPECT(status, 0);
        EXPECT(read(told[0], times, sizeof times), sizeof times);
        if (i == 0 || times[0] < first) first = times[0];
        if (times[1] > last) last = times[1];
    }
    if (last - first < 2 * alone * 0.98) { /* however the two were scheduled, one port carried all bytes */
        fprintf(stderr, "both took %.1f us, one alone takes %.1f us\n", last - first, alone);
        exit(1);
    }
}

/* Copies of the runtime. CANN_SIM_PROFILE=a2-hccs */
static void copies_of_the_runtime(void) {
    aclrtStream stream = NULL;
    char *host = NULL;
    void *targets[100], *sources[100];
    size_t sizes[100], indexes[1] = {0}, failed = 0;
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    char *device = device_memory(SIZE), *other = device_memory(SIZE);
    OK(aclrtMallocHost((void **)&host, SIZE));
    double start = model_us();
    for (int i = 0; i < 100; i++)
        OK(aclrtMemcpyAsync(device + i * 8192, 8192, other + i * 8192, 8192, D2D, stream));
    near(model_us() - start, 100 * 11.8, 25); /* launches pass on this thread */
    OK(aclrtSynchronizeStream(stream));
    near(model_us() - start, 100 * 11.8, 25);
    start = model_us();
    OK(aclrtMemcpy(host, SIZE, device, SIZE, D2H));
    near(model_us() - start, 10 + SIZE / 22500.0, 25);
    for (int i = 0; i < 100; i++) {
        targets[i] = device + i * 8192;
        sources[i] = host + i * 8192;
        sizes[i] = 8192;
    }
    aclrtMemcpyBatchAttr attribute = {.dstLoc = {0, 1}, .srcLoc = {0, 0}};
    start = model_us();
    OK(aclrtMemcpyBatch(targets, sizes, sources, sizes, 100, &attribute, indexes, 1, &failed));
    near(model_us() - start, 10 + 100 + 100 * 8192 / 22500.0, 25);
}

static double launch_on_two_threads(void);

/* CANN_SIM_LAUNCH=device: the launches of a device are in a row. */
static void launches_of_a_device_are_in_a_row(void) { near(launch_on_two_threads(), 2 * 100 * 5.7, 25); }

/* CANN_SIM_LAUNCH=thread: each thread launches for itself. */
static void threads_launch_for_themselves(void) { near(launch_on_two_threads(), 100 * 5.7, 25); }

static pthread_barrier_t barrier;

static void *launcher(void *took) {
    aclrtStream stream = NULL;
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    char *device = device_memory(MIB), *other = device_memory(MIB);
    pthread_barrier_wait(&barrier);
    double start = model_us();
    for (int i = 0; i < 100; i++) OK(aclrtMemcpyAsync(device, 4096, other, 4096, D2D, stream));
    OK(aclrtSynchronizeStream(stream));
    *(double *)took = model_us() - start;
    return NULL;
}

static double launch_on_two_threads(void) { /* CANN_SIM_PROFILE=a3-hccs */
    pthread_t threads[2];
    double took[2];
    OK(pthread_barrier_init(&barrier, NULL, 2));
    for (int i = 0; i < 2; i++) OK(pthread_create(&threads[i], NULL, launcher, &took[i]));
    for (int i = 0; i < 2; i++) OK(pthread_join(threads[i], NULL));
    return took[0] > took[1] ? took[0] : took[1];
}

/* Facts 7.1: asynchronous return and completion, now with a duration. CANN_SIM_PROFILE=a2-hccs, slow-down 5000 */
static void nothing_completes_early(void) {
    struct end one, two;
    aclrtStream stream = NULL, second = NULL;
    aclrtEvent event = NULL;
    int32_t state = 0;
    strcpy(table, near_table(0, 1));
    connect_pair(&one, &two, 0, 1, "early");
    OK(aclrtCreateStream(&stream));
    OK(aclrtCreateStream(&second));
    OK(aclrtCreateEventExWithFlag(&event, 1));
    HcclOneSideOpDesc desc = {one.memory, two.memory, 4 * MIB, UINT8};
    double wall = wall_us(), model = model_us();
    OK(HcclBatchPut(one.comm, 1, &desc, 1, stream));
    TRUE(wall_us() - wall >= 11.8 * 5000 * 0.9); /* the launch keeps the caller */
    OK(aclrtRecordEvent(event, stream));
    OK(aclrtStreamWaitEvent(second, event));
    OK(aclrtStreamQuery(stream, &state));
    EXPECT(state, 1);
    OK(aclrtQueryEventStatus(event, &state));
    EXPECT(state, 0);
    EXPECT(aclrtSynchronizeStreamWithTimeout(second, 20), 507046); /* timeouts are on the machine's clock */
    OK(aclrtSynchronizeStream(second));
    double expected = 11.8 + 4 * MIB / 20500.0;
    near(model_us() - model, expected, 25);
    TRUE(wall_us() - wall >= expected * 5000);
    OK(aclrtStreamQuery(stream, &state));
    EXPECT(state, 0);
    end_pair(&one);
    end_pair(&two);
}

/* Facts 7.1: whatever was overslept before, no transfer ends before its time on the machine's clock. slow-down 1 */
static void no_transfer_ends_before_its_time(void) {
    struct end one, two;
    aclrtStream stream = NULL;
    static HcclOneSideOpDesc desc[64];
    strcpy(table, far_table(0, 1));
    connect_pair(&one, &two, 0, 1, "in time");
    OK(aclrtCreateStream(&stream));
    for (int i = 0; i < 64; i++)
        desc[i] = (HcclOneSideOpDesc){(char *)one.memory + i * 1024, (char *)two.memory + i * 1024, 1024, UINT8};
    for (int round = 0; round < 200; round++) {
        uint32_t number = 1 + (uint32_t)round * 29 % 64;
        double wall = wall_us(), expected = number * (round % 2 ? 23.4 : 23.0);
        if (round % 2)
            OK(HcclBatchGet(one.comm, 1, desc, number, stream));
        else
            OK(HcclBatchPut(one.comm, 1, desc, number, stream));
        int32_t state = 1;
        if (round % 3)
            OK(aclrtSynchronizeStream(stream));
        else
            while (state == 1) OK(aclrtStreamQuery(stream, &state));
        if (wall_us() - wall < expected - 0.001) {
            fprintf(stderr, "round %d: %.1f us for %.1f us\n", round, wall_us() - wall, expected);
            exit(1);
        }
    }
    OK(aclrtSetDevice(0));
    char *device = device_memory(SIZE), *host = NULL;
    OK(aclrtMallocHost((void **)&host, SIZE));
    for (int round = 0; round < 100; round++) {
        size_t length = 4096 << round % 8;
        double wall = wall_us(), expected = 10 + (double)length / 22500;
        OK(aclrtMemcpy(device, SIZE, host, length, H2D));
        TRUE(wall_us() - wall >= expected - 0.001);
    }
    end_pair(&one);
    end_pair(&two);
}

/* Facts 1.6: an abort does not wait for what the model has yet to charge. slow-down 10000: 2 s a block */
static void an_abort_ends_a_paced_transfer(void) {
    struct end one, two;
    aclrtStream stream = NULL;
    unsigned char byte = 1;
    strcpy(table, near_table(0, 1));
    connect_pair(&one, &two, 0, 1, "abort");
    OK(aclrtSetDevice(1));
    OK(aclrtMemset(two.memory, SIZE, 0, SIZE));
    OK(aclrtSetDevice(0));
    OK(aclrtMemset(one.memory, SIZE, 0x77, SIZE));
    OK(aclrtCreateStream(&stream));
    HcclOneSideOpDesc desc[2] = {{one.memory, two.memory, 4 * MIB, UINT8},
                                 {(char *)one.memory + 4 * MIB, (char *)two.memory + 4 * MIB, 4 * MIB, UINT8}};
    OK(HcclBatchPut(one.comm, 1, desc, 2, stream));
    double wall = wall_us();
    OK(aclrtStreamAbort(stream));
    OK(aclrtSynchronizeStream(stream));
    TRUE(wall_us() - wall < 10e6);
    end_pair(&one);
    OK(aclrtSetDevice(1)); /* the second block's time had not come */
    OK(aclrtMemcpy(&byte, 1, (char *)two.memory + 8 * MIB - 1, 1, D2H));
    EXPECT(byte, 0);
    end_pair(&two);
}

/* A message takes its time; CANN_SIM_PROFILE=a2-roce, slow-down 10000. */
static void messages(void) {
    OK(aclrtSetDevice(0));
    EXPECT(MODEL(cann_sim_cost_slowdown)(), 10000);
    EXPECT(MODEL(cann_sim_cost_message_ns)(0), 25000 * 10000);
    EXPECT(MODEL(cann_sim_cost_message_ns)(30000), 35000 * 10000);
    double wall = wall_us(), model = model_us();
    MODEL(cann_sim_cost_pass_message)(30000);
    near(model_us() - model, 35, 25);
    TRUE(wall_us() - wall >= 350000);
}

/* Without a profile nothing is charged, and the functions say so. */
static void null_charges_nothing(void) {
    OK(aclrtSetDevice(0));
    EXPECT(strcmp(MODEL(cann_sim_cost_profile)(), "null"), 0);
    EXPECT(MODEL(cann_sim_cost_slowdown)(), 1);
    EXPECT(MODEL(cann_sim_cost_message_ns)(1 << 30), 0);
    EXPECT(MODEL(cann_sim_cost_busy_ns)(0, -1), 0);
    double wall = wall_us(), model = model_us();
    TRUE(model >= wall && model < wall + 10e6); /* the machine's clock */
}

MAIN(CASE(descriptors_over_roce), CASE(descriptors_over_hccs), CASE(processes_share_a_port),
     CASE(copies_of_the_runtime), CASE(launches_of_a_device_are_in_a_row), CASE(threads_launch_for_themselves),
     CASE(nothing_completes_early), CASE(no_transfer_ends_before_its_time), CASE(an_abort_ends_a_paced_transfer), CASE(messages), CASE(null_charges_nothing))
