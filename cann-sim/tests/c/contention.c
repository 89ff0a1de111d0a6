/* What a card keeps doing after an abort, what processes of a server contend for, and the ways of a super pod. */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "ends.h"

enum { MIB = 1 << 20, SIZE = 4 << 20 };

static char table[900];

static unsigned char byte_of(const char *device, size_t offset) {
    unsigned char byte;
    OK(aclrtMemcpy(&byte, 1, device + offset, 1, D2H));
    return byte;
}

static size_t landed(const char *device) { /* bytes are written from the front */
    static unsigned char host[SIZE];
    size_t count = 0;
    OK(aclrtMemcpy(host, SIZE, device, SIZE, D2H));
    while (count < SIZE && host[count] == 0x77) count++;
    return count;
}

static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A put of 4 MiB over a link of 8 MiB/s (CANN_SIM_FAULTS), aborted when its first bytes have landed. */
static void aborted_put(struct end *one, struct end *two, char **theirs) {
    aclrtStream stream = NULL;
    OK(aclrtSetDevice(1));
    *theirs = device_memory(SIZE);
    OK(aclrtMemset(*theirs, SIZE, 0, SIZE));
    OK(aclrtSetDevice(0));
    char *mine = device_memory(SIZE);
    OK(aclrtMemset(mine, SIZE, 0x77, SIZE));
    *one = (struct end){table, "abort", 0, 0, 20, mine, SIZE, 0, NULL, NULL, 0};
    *two = (struct end){table, "abort", 1, 1, 20, *theirs, SIZE, 0, NULL, NULL, 0};
    pair_ends(one, two);
    OK(one->result);
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    HcclOneSideOpDesc desc[4];
    for (int i = 0; i < 4; i++) desc[i] = (HcclOneSideOpDesc){mine + i * MIB, *theirs + i * MIB, MIB, UINT8};
    OK(HcclBatchPut(one->comm, 1, desc, 4, stream));
    OK(HcclBatchPut(one->comm, 1, desc, 4, stream)); /* queued behind: an abort drops it */
    while (byte_of(*theirs, 0) != 0x77) usleep(1000);
    OK(aclrtStreamAbort(stream));
    TRUE(byte_of(*theirs, SIZE - 1) == 0);
    OK(aclrtSynchronizeStream(stream)); /* the stream itself has nothing left to do */
}

/* Facts 2.4 point 5: the doorbells have rung; the work requests land although the stream was aborted. */
static void roce_goes_on_after_an_abort(void) {
    struct end one, two;
    char *theirs = NULL;
    strcpy(table, far_table(0, 1));
    aborted_put(&one, &two, &theirs);
    double limit = now_seconds() + 20;
    while (landed(theirs) < SIZE && now_seconds() < limit) usleep(2000);
    EXPECT(landed(theirs), SIZE);
    end_pair(&one);
    end_pair(&two);
}

/* Destroying the communicator destroys its queue pairs: when it returns, no byte lands any more. */
static void destroying_the_communicator_stops_the_card(void) {
    struct end one, two;
    char *theirs = NULL;
    strcpy(table, far_table(0, 1));
    aborted_put(&one, &two, &theirs);
    end_pair(&one);
    size_t count = landed(theirs);
    TRUE(count < SIZE);
    usleep(700000); /* the rest would have landed by now */
    EXPECT(landed(theirs), count);
    end_pair(&two);
}

/* A put that the stream comes to after its communicator was destroyed finds no queue pair, and moves nothing. */
static volatile int go;
static void hold(void *unused) {
    (void)unused;
    while (!go) usleep(1000);
}

static void a_destroyed_communicator_moves_nothing(void) {
    aclrtStream stream = NULL;
    strcpy(table, far_table(0, 1));
    OK(aclrtSetDevice(1));
    char *theirs = device_memory(SIZE);
    OK(aclrtMemset(theirs, SIZE, 0, SIZE));
    OK(aclrtSetDevice(0));
    char *mine = device_memory(SIZE);
    OK(aclrtMemset(mine, SIZE, 0x77, SIZE));
    struct end one = {table, "gone", 0, 0, 20, mine, SIZE, 0, NULL, NULL, 0};
    struct end two = {table, "gone", 1, 1, 20, theirs, SIZE, 0, NULL, NULL, 0};
    pair_ends(&one, &two);
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    OK(aclrtLaunchHostFunc(stream, hold, NULL));
    HcclOneSideOpDesc desc = {mine, theirs, SIZE, UINT8};
    OK(HcclBatchPut(one.comm, 1, &desc, 1, stream));
    end_pair(&one);
    go = 1;
    EXPECT(aclrtSynchronizeStreamWithTimeout(stream, 100), 507046); /* it waits for an answer that never comes */
    EXPECT(landed(theirs), 0);
    OK(aclrtStreamAbort(stream));
    end_pair(&two);
}

/* The chip's own copies end with their task. */
static void hccs_stops_at_an_abort(void) {
    struct end one, two;
    char *theirs = NULL;
    strcpy(table, near_table(0, 1));
    aborted_put(&one, &two, &theirs);
    size_t count = landed(theirs);
    TRUE(count < SIZE);
    usleep(700000);
    EXPECT(landed(theirs), count);
    end_pair(&one);
    end_pair(&two);
}

static HcclResult alone(const char *text, int seconds) {
    struct end end = {text, "another", 0, 0, seconds, NULL, 0, 0, NULL, NULL, 0};
    HcclResult result = prepare_end(&end);
    end_pair(&end);
    return result;
}

/* A child holds a prepared RoCE pair of devices 0 and 1 until it is killed. */
static pid_t holder(void) {
    int ready[2];
    char byte = 0;
    TRUE(pipe(ready) == 0);
    pid_t child = fork();
    if (child == 0) {
        struct end one = {table, "holder", 0, 0, 20, NULL, 0, 0, NULL, NULL, 0};
        struct end two = {table, "holder", 1, 1, 20, NULL, 0, 0, NULL, NULL, 0};
        pair_ends(&one, &two);
        OK(one.result);
        EXPECT(write(ready[1], "x", 1), 1);
        for (;;) pause();
    }
    EXPECT(read(ready[0], &byte, 1), 1);
    return child;
}

static void bury(pid_t child) {
    int status = 0;
    OK(kill(child, SIGKILL));
    EXPECT(waitpid(child, &status, 0), child);
}

/* Facts 2.4 point 4: 19 when another process on the NPU listens at the same port; in one process it is shared. */
static void ports_clash(void) {
    char other[900];
    strcpy(table, far_table(0, 1));
    pid_t child = holder();
    EXPECT(alone(table, 5), 19);
    TRUE(strstr(aclGetRecentErrMsg(), "HCCL_NPU_SOCKET_PORT_RANGE") != NULL);
    EXPECT(alone(near_table(0, 1), 1), 9); /* HCCS does not use the card's port */
    snprintf(other, sizeof other,
             "{\"version\":\"1.0\",\"status\":\"completed\",\"server_count\":\"2\",\"server_list\":["
             "{\"server_id\":\"10.0.0.7\",\"device\":[{\"device_id\":\"0\",\"device_ip\":\"29.1.0.12\","
             "\"device_port\":\"17001\",\"rank_id\":\"0\"}]},{\"server_id\":\"10.0.0.8\",\"device\":["
             "{\"device_id\":\"1\",\"device_ip\":\"29.1.0.22\",\"rank_id\":\"1\"}]}]}");
    EXPECT(alone(other, 1), 9); /* a port of its own: only the peer is missing */
    bury(child);
    EXPECT(alone(table, 1), 9); /* a dead process holds no port */
    struct end one = {table, "first", 0, 0, 20, NULL, 0, 0, NULL, NULL, 0}, two = one, three = one, four = one;
    two.rank = two.device = four.rank = four.device = 1;
    three.name = four.name = "second";
    pair_ends(&one, &two);
    pair_ends(&three, &four); /* a second communicator of this process */
    OK(one.result);
    OK(three.result);
    OK(four.result);
}

static void a_port_range_avoids_the_clash(void) { /* HCCL_NPU_SOCKET_PORT_RANGE=auto */
    strcpy(table, far_table(0, 1));
    pid_t child = holder();
    EXPECT(alone(table, 1), 9);
    bury(child);
}

/* Facts 2.4 point 1: initialisations of two processes that meet answer 7, and succeed when tried again. */
static void initialisations_collide(void) { /* CANN_SIM_INIT_EXCLUSIVE_MS=300 */
    int begun[2], status = 0;
    char byte = 0;
    TRUE(pipe(begun) == 0);
    strcpy(table, near_table(0, 1));
    HcclCommConfig config = config_named("collide");
    HcclComm comm = NULL;
    OK(aclrtSetDevice(0));
    pid_t child = fork();
    if (child == 0) {
        EXPECT(write(begun[1], "x", 1), 1);
        for (;;) /* keeps the server busy until it is killed */
            if (HcclCommInitClusterInfoMemConfig(table, 0, &config, &comm) == 0) OK(HcclCommDestroy(comm));
    }
    EXPECT(read(begun[0], &byte, 1), 1);
    HcclResult result = 0;
    double limit = now_seconds() + 20;
    while (result != 7 && now_seconds() < limit) {
        result = HcclCommInitClusterInfoMemConfig(table, 0, &config, &comm);
        if (result == 0) OK(HcclCommDestroy(comm));
    }
    EXPECT(result, 7);
    OK(kill(child, SIGKILL));
    EXPECT(waitpid(child, &status, 0), child);
    OK(HcclCommInitClusterInfoMemConfig(table, 0, &config, &comm)); /* again: nobody is in the way */
    OK(HcclCommDestroy(comm));
}

static int64_t attribute(int device, int number) {
    int64_t value = 0;
    OK(aclrtGetDeviceInfo((uint32_t)device, number, &value));
    return value;
}

/* Two servers of super pods `one` and `two`; super device ids as given, -1 for none. */
static void pod_table(const char *one, const char *two, long long first, long long second) {
    char ids[2][64] = {"", ""};
    long long values[2] = {first, second};
    for (int i = 0; i < 2; i++)
        if (values[i] >= 0) snprintf(ids[i], sizeof ids[i], "\"super_device_id\":\"%lld\",", values[i]);
    int length = snprintf(table, sizeof table,
        "{\"version\":\"1.2\",\"status\":\"completed\",\"server_count\":\"2\",\"server_list\":["
        "{\"server_id\":\"10.0.0.7\",\"device\":[{\"device_id\":\"0\",%s\"device_ip\":\"29.1.0.13\",\"rank_id\":\"0\"}]},"
        "{\"server_id\":\"10.0.0.8\",\"device\":[{\"device_id\":\"1\",%s\"device_ip\":\"29.1.0.29\",\"rank_id\":\"1\"}]}],"
        "\"super_pod_list\":[", ids[0], ids[1]);
    if (strcmp(one, two) == 0)
        snprintf(table + length, sizeof table - (size_t)length,
                 "{\"super_pod_id\":\"%s\",\"server_list\":[{\"server_id\":\"10.0.0.7\"},{\"server_id\":\"10.0.0.8\"}]}]}", one);
    else
        snprintf(table + length, sizeof table - (size_t)length,
                 "{\"super_pod_id\":\"%s\",\"server_list\":[{\"server_id\":\"10.0.0.7\"}]},"
                 "{\"super_pod_id\":\"%s\",\"server_list\":[{\"server_id\":\"10.0.0.8\"}]}]}", one, two);
}

/* One put of a host's and a device's bytes to device memory and, where it may, to host memory. */
static void pod_pair(HcclResult expected, int seconds, int host_is_reachable) {
    aclrtStream stream = NULL;
    unsigned char *theirs_host = NULL, *mine_host = NULL;
    OK(aclrtSetDevice(1));
    char *theirs = device_memory(SIZE);
    OK(aclrtMallocHost((void **)&theirs_host, SIZE));
    OK(aclrtSetDevice(0));
    OK(aclrtMallocHost((void **)&mine_host, SIZE));
    memset(mine_host, 0x5a, SIZE);
    char *mine = device_memory(SIZE);
    OK(aclrtMemset(mine, SIZE, 0x77, SIZE));
    struct end one = {table, "pod", 0, 0, seconds, mine_host, SIZE, 1, NULL, NULL, 0};
    struct end two = {table, "pod", 1, 1, seconds, theirs, SIZE, 0, NULL, NULL, 0};
    pair_ends(&one, &two);
    EXPECT(one.result, expected);
    EXPECT(two.result, expected);
    if (expected == 0) {
        OK(aclrtSetDevice(0));
        OK(aclrtCreateStream(&stream));
        HcclOneSideOpDesc desc = {mine_host, theirs, SIZE, UINT8}; /* A3: our own host memory can be the local end */
        OK(HcclBatchPut(one.comm, 1, &desc, 1, stream));
        OK(aclrtSynchronizeStream(stream));
        OK(aclrtSetDevice(1));
        EXPECT(byte_of(theirs, SIZE - 1), 0x5a);
        OK(aclrtCreateStream(&stream));
        desc = (HcclOneSideOpDesc){theirs, mine_host, 64, UINT8};
        EXPECT(HcclBatchPut(two.comm, 0, &desc, 1, stream), host_is_reachable ? 0 : 4);
        OK(aclrtSynchronizeStream(stream));
    }
    end_pair(&one);
    end_pair(&two);
}

/* Facts 2.5 and 3: inside one super pod HCCS across servers, between super pods RoCE. */
static void super_pods(void) { /* CANN_SIM_SOC=Ascend910_9392 */
    long long first = attribute(0, 403), second = attribute(1, 403);
    pod_table("0", "0", first, second);
    pod_pair(0, 20, 0);
    pod_table("0", "1", first, second);
    pod_pair(0, 20, 1);
}

/* Facts 3: a missing super device id leads nowhere; so does one that is not the device's. */
static void super_device_ids_matter(void) { /* CANN_SIM_SOC=Ascend910_9392 */
    long long first = attribute(0, 403), second = attribute(1, 403);
    pod_table("0", "0", first, -1);
    pod_pair(9, 1, 0);
    pod_table("0", "0", first + 77, second);
    pod_pair(9, 1, 0);
    pod_table("0", "1", -1, -1); /* RoCE needs none */
    pod_pair(0, 20, 1);
}

/* Facts 2.4 point 4: 13 when the peer has no device memory left for the link; the full side says so itself. */
static void a_full_peer(void) { /* CANN_SIM_HBM_SIZE=64M */
    void *block = NULL;
    size_t available = 0, total = 0;
    strcpy(table, near_table(0, 1));
    OK(aclrtSetDevice(1));
    for (size_t size = 32 * MIB; size >= MIB; size /= 2)
        while (aclrtMallocAlign32(&block, size, 1) == 0) {}
    OK(aclrtGetMemInfo(1, &available, &total));
    TRUE(available < 2 * MIB);
    struct end one = {table, "full", 0, 0, 20, NULL, 0, 0, NULL, NULL, 0}, two = one;
    two.rank = two.device = 1;
    pair_ends(&one, &two);
    EXPECT(one.result, 13);
    EXPECT(two.result, 3);
    OK(aclrtSetDevice(1));
    OK(aclrtFree(block)); /* room again: the same communicators can prepare */
    HcclPrepareConfig mesh = {0, 0, 0, 0};
    EXPECT(HcclCommPrepare(two.comm, &mesh, 1), 9);
    end_pair(&one);
    end_pair(&two);
    OK(aclrtSetDevice(0));
    OK(aclrtGetMemInfo(1, &available, &total));
    EXPECT(available, total);
}

/* Facts 1.6 and 2.6: what the card cannot register is found out at prepare. */
static void memory_the_card_refuses(void) {
    void *address = NULL;
    strcpy(table, far_table(0, 1));
    OK(aclrtSetDevice(0));
    char *plain = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OK(aclrtHostRegister(plain, SIZE, 0, &address));
    struct end end = {table, "refused", 0, 0, 1, plain, SIZE, 1, NULL, NULL, 0};
    EXPECT(prepare_end(&end), 19); /* HCCL registers it itself, and that can be done once: 507910 below */
    TRUE(strstr(aclGetRecentErrMsg(), "507910") != NULL);
    end_pair(&end);
    OK(aclrtHostUnregister(plain));
    end = (struct end){table, "refused", 0, 0, 1, plain, SIZE, 1, NULL, NULL, 0};
    EXPECT(prepare_end(&end), 9); /* now only the peer is missing */
    end_pair(&end);
    aclrtPhysicalMemProp prop = {0, 0, 13, {0, 0}, 0};
    aclrtDrvMemHandle handle = NULL;
    OK(aclrtMallocPhysical(&handle, SIZE, &prop, 0));
    OK(aclrtReserveMemAddress(&address, SIZE, 0, NULL, 1));
    OK(aclrtMapMem(address, SIZE, 0, handle, 0));
    end = (struct end){table, "refused", 0, 0, 1, address, SIZE, 1, NULL, NULL, 0};
    EXPECT(prepare_end(&end), 19); /* not VMM-mapped host memory */
    end_pair(&end);
}

MAIN(CASE(roce_goes_on_after_an_abort), CASE(destroying_the_communicator_stops_the_card),
     CASE(a_destroyed_communicator_moves_nothing), CASE(hccs_stops_at_an_abort),
     CASE(ports_clash), CASE(a_port_range_avoids_the_clash), CASE(initialisations_collide), CASE(super_pods),
     CASE(super_device_ids_matter), CASE(memory_the_card_refuses), CASE(a_full_peer))
