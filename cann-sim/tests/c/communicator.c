/* The rules of registration, communicators and one-sided calls; both ranks in one process unless a peer must die. */
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"

enum { MIB = 1 << 20, SIZE = 4 << 20 };

static HcclPrepareConfig mesh = {0, 0, 0, 0};

static HcclComm made(int rank, const char *table, const char *name) {
    HcclCommConfig config = config_named(name);
    HcclComm comm = NULL;
    OK(HcclCommInitClusterInfoMemConfig(table, (uint32_t)rank, &config, &comm));
    return comm;
}

static HcclResult init(const char *table, int rank, const char *name) {
    HcclCommConfig config = config_named(name);
    HcclComm comm = NULL;
    HcclResult result = HcclCommInitClusterInfoMemConfig(table, (uint32_t)rank, &config, &comm);
    if (result == 0) OK(HcclCommDestroy(comm));
    return result;
}

static void registration(void) {
    void *handle = NULL, *again = NULL, *other = NULL;
    OK(aclrtSetDevice(0));
    char *memory = device_memory(SIZE);
    HcclMem mem = {0, memory, SIZE};
    EXPECT(HcclRegisterGlobalMem(NULL, &handle), 2);
    EXPECT(HcclRegisterGlobalMem(&mem, NULL), 2);
    HcclMem bad = {0, NULL, SIZE};
    EXPECT(HcclRegisterGlobalMem(&bad, &handle), 1);
    bad = (HcclMem){0, memory, 0};
    EXPECT(HcclRegisterGlobalMem(&bad, &handle), 1);
    bad = (HcclMem){7, memory, SIZE};
    EXPECT(HcclRegisterGlobalMem(&bad, &handle), 1);
    OK(HcclRegisterGlobalMem(&mem, &handle));
    OK(HcclRegisterGlobalMem(&mem, &again)); /* the same range: the same handle, not counted */
    TRUE(handle == again);
    bad = (HcclMem){0, memory + 1, SIZE};
    EXPECT(HcclRegisterGlobalMem(&bad, &other), 1); /* overlap */
    bad = (HcclMem){0, (void *)(uintptr_t)0x1000, 64}; /* nonsense is found out at prepare */
    OK(HcclRegisterGlobalMem(&bad, &other));
    OK(HcclDeregisterGlobalMem(other));
    OK(aclrtSetDevice(1));
    EXPECT(HcclDeregisterGlobalMem(handle), 6); /* another device's set */
    OK(aclrtSetDevice(0));
    OK(HcclDeregisterGlobalMem(handle));
    EXPECT(HcclDeregisterGlobalMem(handle), 1); /* stale */
    OK(HcclRegisterGlobalMem(&mem, &handle));
    HcclComm comm = made(0, near_table(0, 1), "bind");
    OK(HcclCommBindMem(comm, handle));
    EXPECT(HcclCommBindMem(comm, handle), 1);
    EXPECT(HcclCommBindMem(comm, (void *)64), 1);
    EXPECT(HcclDeregisterGlobalMem(handle), 1);
    EXPECT(HcclCommDestroy(comm), 1);
    OK(HcclCommUnbindMem(comm, handle));
    EXPECT(HcclCommUnbindMem(comm, handle), 1);
    OK(HcclCommDestroy(comm));
    EXPECT(HcclCommDestroy(NULL), 2);
    OK(HcclDeregisterGlobalMem(handle));
}

static void initialisation(void) {
    HcclCommConfig config = config_named("x");
    HcclComm comm = NULL;
    char name[128];
    uint32_t number = 9;
    EXPECT(init(near_table(0, 1), 0, "no device"), 15);
    OK(aclrtSetDevice(0));
    EXPECT(HcclCommInitClusterInfoMemConfig(NULL, 0, &config, &comm), 2);
    EXPECT(HcclCommInitClusterInfoMemConfig(near_table(0, 1), 0, NULL, &comm), 2);
    EXPECT(HcclCommInitClusterInfoMemConfig(near_table(0, 1), 0, &config, NULL), 2);
    EXPECT(init(near_table(0, 1), 0, ""), 1);
    EXPECT(init("{", 0, "x"), 1);
    EXPECT(init(near_table(0, 1), 1, "x"), 1); /* rank 1 is device 1, the current one is 0 */
    EXPECT(init(near_table(0, 1), 2, "x"), 1);
    config.magic = 0;
    EXPECT(HcclCommInitClusterInfoMemConfig(near_table(0, 1), 0, &config, &comm), 1);
    static const uint64_t sizes[] = {160, 300, 2240, 2248}; /* of older and newer headers */
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        union { HcclCommConfig config; char room[2248]; } newer;
        memset(&newer, 0, sizeof newer);
        newer.config = config_named("sizes");
        newer.config.size = sizes[i];
        if (sizes[i] == 160) newer.config.version = 2;
        OK(HcclCommInitClusterInfoMemConfig(near_table(0, 1), 0, &newer.config, &comm));
        OK(HcclCommDestroy(comm));
    }
    comm = made(0, near_table(0, 1), "same name");
    EXPECT(init(near_table(0, 1), 0, "same name"), 1);
    OK(aclrtSetDevice(1)); /* a name is unique per device */
    OK(init(near_table(0, 1), 1, "same name"));
    OK(aclrtSetDevice(0));
    OK(HcclGetCommName(comm, name));
    EXPECT(strcmp(name, "same name"), 0);
    OK(HcclGetRankId(comm, &number));
    EXPECT(number, 0);
    OK(HcclGetRankSize(comm, &number));
    EXPECT(number, 2);
    OK(HcclCommDestroy(comm));
    OK(init(near_table(0, 1), 0, "same name")); /* free again at once */
    EXPECT(HcclCommDestroy(comm), 1);
    TRUE(strstr(HcclGetErrorString(9), "TIMEOUT") != NULL);
}

/* Two servers; every part of the table can be replaced. */
static HcclResult init_with(const char *second_id, const char *host_ip, const char *second_ip, const char *ports) {
    char text[1200];
    snprintf(text, sizeof text,
             "{\"version\":\"1.0\",\"status\":\"completed\",\"server_count\":\"2\",\"server_list\":["
             "{\"server_id\":\"10.0.0.7\",\"host_ip\":\"%s\",\"device\":[{\"device_id\":\"0\",%s"
             "\"device_ip\":\"29.1.0.12\",\"rank_id\":\"0\"}]},{\"server_id\":\"%s\",\"device\":["
             "{\"device_id\":\"1\",\"device_ip\":\"%s\",\"rank_id\":\"1\"}]}]}",
             host_ip, ports, second_id, second_ip);
    return init(text, 0, "table");
}

static void rank_table_values(void) {
    char name[66];
    const char *ip = "29.1.0.22", *id = "10.0.0.8", *host = "10.0.0.7";
    OK(aclrtSetDevice(0));
    memset(name, 's', sizeof name);
    name[64] = 0;
    OK(init_with(name, host, ip, ""));
    name[64] = 's';
    name[65] = 0;
    EXPECT(init_with(name, host, ip, ""), 1); /* 65 characters */
    EXPECT(init_with("10.0.0.7", host, ip, ""), 1);
    EXPECT(init_with(id, host, "29.1.0.12", ""), 1); /* the other device's address */
    EXPECT(init_with(id, host, "29.1.0", ""), 1);
    EXPECT(init_with(id, "localhost", ip, ""), 1);
    OK(init_with(id, "fd00::7", ip, ""));
    static const char *ports[] = {"device_port", "device_vnic_port", "host_port", "backup_device_port"};
    for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++) {
        static const struct { const char *value; HcclResult result; } values[] = {
            {"1", 0}, {"65535", 0}, {"0", 1}, {"65536", 1}, {"http", 1}};
        for (size_t k = 0; k < sizeof values / sizeof values[0]; k++) {
            char text[80];
            snprintf(text, sizeof text, "\"%s\":\"%s\",", ports[i], values[k].value);
            EXPECT(init_with(id, host, ip, text), values[k].result);
        }
    }
}

static void traffic_class_counts_when_it_connects(void) {
    OK(aclrtSetDevice(0));
    for (int part = 0; part < 2; part++) {
        HcclCommConfig config = config_named("quality");
        HcclComm comm = NULL;
        if (part == 0) config.trafficClass = 256;
        else config.serviceLevel = 8;
        OK(HcclCommInitClusterInfoMemConfig(near_table(0, 1), 0, &config, &comm));
        EXPECT(HcclCommPrepare(comm, &mesh, 20), 1);
        OK(HcclCommDestroy(comm));
    }
}

static void connect_timeout_is_checked(void) { /* HCCL_CONNECT_TIMEOUT=60 */
    OK(aclrtSetDevice(0));
    EXPECT(init(near_table(0, 1), 0, "x"), 1);
    TRUE(strstr(aclGetRecentErrMsg(), "EI0001") != NULL);
}

/* One rank of a pair in this process. */
struct side {
    int rank;
    const char *name;
    void *memory[4];
    size_t sizes[4];
    int types[4], count;
    void *handles[4];
    HcclComm comm;
    HcclResult result;
    int seconds;
};

static void *bring_up(void *argument) {
    struct side *side = argument;
    char table[700];
    OK(aclrtSetDevice(side->rank));
    for (int i = 0; i < side->count; i++) side->handles[i] = registered(side->types[i], side->memory[i], side->sizes[i]);
    strcpy(table, near_table(0, 1));
    HcclCommConfig config = config_named(side->name);
    OK(HcclCommInitClusterInfoMemConfig(table, (uint32_t)side->rank, &config, &side->comm));
    for (int i = 0; i < side->count; i++) OK(HcclCommBindMem(side->comm, side->handles[i]));
    side->result = HcclCommPrepare(side->comm, &mesh, side->seconds);
    return NULL;
}

static void pair_up(struct side *one, struct side *two) {
    pthread_t thread;
    near_table(0, 1); /* fills the shared text before two threads read it */
    OK(pthread_create(&thread, NULL, bring_up, two));
    bring_up(one);
    OK(pthread_join(thread, NULL));
}

static void tear_down(struct side *side) {
    OK(aclrtSetDevice(side->rank));
    for (int i = 0; i < side->count; i++) OK(HcclCommUnbindMem(side->comm, side->handles[i]));
    OK(HcclCommDestroy(side->comm));
    for (int i = 0; i < side->count; i++) OK(HcclDeregisterGlobalMem(side->handles[i]));
}

static struct side side_of(int rank, const char *name, void *memory, size_t size) {
    struct side side;
    memset(&side, 0, sizeof side);
    side.rank = rank;
    side.name = name;
    side.seconds = 20;
    if (memory) {
        side.memory[0] = memory;
        side.sizes[0] = size;
        side.count = 1;
    }
    return side;
}

static void calls_are_checked_in_order(void) {
    static HcclOneSideOpDesc many[257];
    aclrtStream stream = NULL;
    OK(aclrtSetDevice(0));
    char *mine = device_memory(SIZE), *late = device_memory(SIZE);
    OK(aclrtMemset(mine, SIZE, 0, SIZE));
    OK(aclrtSetDevice(1));
    char *theirs = device_memory(SIZE);
    OK(aclrtMemset(theirs, SIZE, 0, SIZE));
    struct side one = side_of(0, "checks", mine, 3 * MIB), two = side_of(1, "checks", theirs, 3 * MIB);
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    HcclComm unprepared = made(0, near_table(0, 1), "unprepared");
    for (int i = 0; i < 257; i++) many[i] = (HcclOneSideOpDesc){mine, theirs, 64, UINT8};
    EXPECT(HcclBatchPut(unprepared, 1, many, 1, stream), 6);
    EXPECT(HcclBatchPut(unprepared, 1, many, 257, stream), 1);
    OK(HcclCommDestroy(unprepared));
    pair_up(&one, &two);
    OK(one.result);
    OK(two.result);
    OK(HcclCommPrepare(one.comm, &mesh, 1)); /* again: no work */
    OK(aclrtSetDevice(0));
    EXPECT(HcclBatchPut(NULL, 1, many, 1, stream), 2);
    EXPECT(HcclBatchPut(one.comm, 1, NULL, 1, stream), 2);
    EXPECT(HcclBatchPut(one.comm, 1, many, 1, NULL), 2); /* unlike ACL, NULL is no default stream */
    EXPECT(HcclBatchPut(one.comm, 1, many, 257, stream), 1);
    EXPECT(HcclBatchPut(one.comm, 2, many, 1, stream), 1);
    EXPECT(HcclBatchPut(one.comm, 0, many, 1, stream), 1);
    OK(HcclBatchPut(one.comm, 1, many, 256, stream));
    HcclOneSideOpDesc desc = {mine, theirs, 64, 99};
    EXPECT(HcclBatchPut(one.comm, 1, &desc, 1, stream), 1);
    desc = (HcclOneSideOpDesc){mine, theirs, 0, UINT8};
    EXPECT(HcclBatchPut(one.comm, 1, &desc, 1, stream), 1);
    desc = (HcclOneSideOpDesc){NULL, theirs, 64, UINT8};
    EXPECT(HcclBatchPut(one.comm, 1, &desc, 1, stream), 1);
    desc = (HcclOneSideOpDesc){mine, theirs + 3 * MIB - 63, 64, UINT8};
    EXPECT(HcclBatchPut(one.comm, 1, &desc, 1, stream), 4);
    TRUE(strstr(aclGetRecentErrMsg(), "Can't find remoteBuffer by key") != NULL);
    desc = (HcclOneSideOpDesc){mine + 3 * MIB - 63, theirs, 64, UINT8};
    EXPECT(HcclBatchPut(one.comm, 1, &desc, 1, stream), 4);
    desc = (HcclOneSideOpDesc){mine, theirs, UINT64_MAX, 6};
    EXPECT(HcclBatchPut(one.comm, 1, &desc, 1, stream), 1);
    desc = (HcclOneSideOpDesc){mine + 8, theirs + 8, 8, 6}; /* eight elements of eight bytes */
    OK(aclrtSynchronizeStream(stream)); /* a fill does not wait for streams */
    OK(aclrtMemset(mine, SIZE, 3, SIZE));
    OK(HcclBatchPut(one.comm, 1, &desc, 1, stream));
    OK(aclrtSynchronizeStream(stream));
    unsigned char seen[80];
    OK(aclrtSetDevice(1));
    OK(aclrtMemcpy(seen, 80, theirs, 80, D2H));
    for (int i = 0; i < 80; i++) EXPECT(seen[i], i >= 8 && i < 72 ? 3 : 0);
    /* Memory bound after prepare is not part of the set. */
    OK(aclrtSetDevice(0));
    void *handle = registered(0, late, SIZE);
    OK(HcclCommBindMem(one.comm, handle));
    desc = (HcclOneSideOpDesc){late, theirs, 64, UINT8};
    EXPECT(HcclBatchPut(one.comm, 1, &desc, 1, stream), 4);
    OK(HcclCommUnbindMem(one.comm, handle));
    /* A stream of another context is the runtime's error. */
    aclrtContext context = NULL;
    OK(aclrtCreateContext(&context, 0));
    EXPECT(HcclBatchPut(one.comm, 1, many, 1, stream), 15);
    OK(aclrtDestroyContext(context));
    tear_down(&one);
    tear_down(&two);
}

static void an_error_leaves_the_descriptors_before_it(void) {
    aclrtStream stream = NULL;
    unsigned char seen[3 * 64];
    OK(aclrtSetDevice(0));
    char *mine = device_memory(SIZE);
    OK(aclrtMemset(mine, SIZE, 0x77, SIZE));
    OK(aclrtSetDevice(1));
    char *theirs = device_memory(SIZE);
    OK(aclrtMemset(theirs, SIZE, 0, SIZE));
    struct side one = side_of(0, "partial", mine, SIZE), two = side_of(1, "partial", theirs, SIZE);
    pair_up(&one, &two);
    OK(one.result);
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    HcclOneSideOpDesc desc[3] = {{mine, theirs, 64, UINT8},
                                 {mine, theirs + 64, 64, UINT8},
                                 {mine, theirs + SIZE, 64, UINT8}};
    EXPECT(HcclBatchPut(one.comm, 1, desc, 3, stream), 4);
    OK(aclrtSynchronizeStream(stream));
    OK(aclrtSetDevice(1));
    OK(aclrtMemcpy(seen, sizeof seen, theirs, sizeof seen, D2H));
    for (int i = 0; i < 3 * 64; i++) EXPECT(seen[i], i < 128 ? 0x77 : 0);
    tear_down(&one);
    tear_down(&two);
}

static HcclResult prepare_with(void *memory, size_t size, const char *name) {
    HcclComm comm = made(0, near_table(0, 1), name);
    void *handle = registered(0, memory, size);
    OK(HcclCommBindMem(comm, handle));
    HcclResult result = HcclCommPrepare(comm, &mesh, 1);
    OK(HcclCommUnbindMem(comm, handle));
    OK(HcclCommDestroy(comm));
    OK(HcclDeregisterGlobalMem(handle));
    return result;
}

static void hccs_wants_huge_aligned_device_memory(void) {
    OK(aclrtSetDevice(0));
    char *large = device_memory(SIZE), *small = device_memory(MIB);
    EXPECT(prepare_with(small, MIB, "small pages"), 15);
    EXPECT(prepare_with(large + 4096, 2 * MIB, "unaligned"), 15);
    EXPECT(prepare_with(large, 64 * MIB, "too long"), 15);
    EXPECT(prepare_with(large, SIZE + 32, "into the padding"), 15);
    char *odd = device_memory(3 * MIB); /* its last page is its own */
    EXPECT(prepare_with(odd, 4 * MIB, "to the end of the page"), 9);
    EXPECT(prepare_with(odd, 4 * MIB + 1, "past the end of the page"), 15);
    EXPECT(prepare_with((void *)(uintptr_t)(2 * MIB), 64, "nonsense"), 15);
    EXPECT(prepare_with(large + 2 * MIB, 1000, "nobody comes"), 9); /* only the peer is missing */
}

static void prepare_times_out(void) {
    OK(aclrtSetDevice(0));
    HcclComm comm = made(0, near_table(0, 1), "alone");
    EXPECT(HcclCommPrepare(comm, &mesh, -2), 1);
    EXPECT(HcclCommPrepare(comm, NULL, 1), 2);
    EXPECT(HcclCommPrepare(comm, &mesh, 1), 9);
    EXPECT(HcclCommPrepare(comm, &mesh, 1), 9);
    HcclOneSideOpDesc desc = {comm, comm, 1, UINT8};
    aclrtStream stream = NULL;
    OK(aclrtCreateStream(&stream));
    EXPECT(HcclBatchGet(comm, 1, &desc, 1, stream), 6);
    OK(HcclCommDestroy(comm));
}

static void other_names_do_not_meet(void) {
    struct side one = side_of(0, "one name", NULL, 0), two = side_of(1, "another name", NULL, 0);
    one.seconds = two.seconds = 1;
    pair_up(&one, &two);
    EXPECT(one.result, 9);
    EXPECT(two.result, 9);
}

/* A child owns rank 1's memory and waits to be killed; the parent is rank 0 with a prepared communicator. */
static pid_t peer(int far, HcclComm *comm, void **mine, void **theirs) {
    int up[2];
    OK(pipe(up));
    pid_t child = fork();
    int rank = child == 0 ? 1 : 0;
    OK(aclrtSetDevice(rank));
    void *memory = device_memory(SIZE);
    *comm = made(rank, far ? far_table(0, 1) : near_table(0, 1), "mortal");
    OK(HcclCommBindMem(*comm, registered(0, memory, SIZE)));
    if (child == 0) {
        OK(HcclCommPrepare(*comm, &mesh, 20));
        EXPECT(write(up[1], &memory, sizeof memory), sizeof memory);
        for (;;) pause();
    }
    OK(HcclCommPrepare(*comm, &mesh, 20));
    EXPECT(read(up[0], theirs, sizeof *theirs), sizeof *theirs);
    *mine = memory;
    return child;
}

static void bury(pid_t child) {
    int status = 0;
    OK(kill(child, SIGKILL));
    EXPECT(waitpid(child, &status, 0), child);
}

static void a_dead_peer_fails_hccs_tasks(void) {
    HcclComm comm = NULL;
    void *mine = NULL, *theirs = NULL;
    aclrtStream stream = NULL;
    pid_t child = peer(0, &comm, &mine, &theirs);
    OK(aclrtCreateStream(&stream));
    HcclOneSideOpDesc desc = {mine, theirs, 4096, UINT8};
    OK(HcclBatchGet(comm, 1, &desc, 1, stream));
    OK(aclrtSynchronizeStream(stream));
    bury(child);
    OK(HcclBatchGet(comm, 1, &desc, 1, stream)); /* the call itself knows nothing */
    EXPECT(aclrtSynchronizeStream(stream), 507057);
    OK(aclrtMemset(mine, SIZE, 1, SIZE)); /* device and stream are still good */
    OK(aclrtSynchronizeStream(stream));
}

static void a_dead_peer_hangs_roce_tasks(void) {
    HcclComm comm = NULL;
    void *mine = NULL, *theirs = NULL;
    aclrtStream stream = NULL;
    pid_t child = peer(1, &comm, &mine, &theirs);
    OK(aclrtCreateStream(&stream));
    HcclOneSideOpDesc desc = {mine, theirs, 4096, UINT8};
    OK(HcclBatchPut(comm, 1, &desc, 1, stream));
    OK(aclrtSynchronizeStream(stream));
    bury(child);
    OK(HcclBatchPut(comm, 1, &desc, 1, stream));
    EXPECT(aclrtSynchronizeStreamWithTimeout(stream, 50), 507046);
    OK(aclrtStreamAbort(stream));
    OK(aclrtSynchronizeStream(stream));
}

static void a_roce_task_fails_after_the_execution_timeout(void) { /* HCCL_EXEC_TIMEOUT=1 */
    HcclComm comm = NULL;
    void *mine = NULL, *theirs = NULL;
    aclrtStream stream = NULL;
    pid_t child = peer(1, &comm, &mine, &theirs);
    OK(aclrtCreateStream(&stream));
    HcclOneSideOpDesc desc = {mine, theirs, 4096, UINT8};
    bury(child);
    OK(HcclBatchPut(comm, 1, &desc, 1, stream));
    EXPECT(aclrtSynchronizeStreamWithTimeout(stream, 20000), 507057);
}

static void a_killed_process_can_come_back(void) {
    for (int round = 0; round < 3; round++) {
        HcclComm comm = NULL;
        void *mine = NULL, *theirs = NULL;
        pid_t child = fork(); /* each round's pair lives and dies below this process */
        if (child == 0) {
            pid_t grandchild = peer(0, &comm, &mine, &theirs);
            bury(grandchild);
            kill(getpid(), SIGKILL);
        }
        int status = 0;
        EXPECT(waitpid(child, &status, 0), child);
        EXPECT(WIFSIGNALED(status) ? WTERMSIG(status) : -1, SIGKILL);
    }
}

static void a_thousand_communicators(void) {
    enum { COUNT = 1000 };
    static HcclComm comms[COUNT];
    char name[32];
    OK(aclrtSetDevice(0));
    char *memory = device_memory(SIZE);
    void *handle = registered(0, memory, SIZE);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "comm %d", i);
        comms[i] = made(0, near_table(0, 1), name);
        OK(HcclCommBindMem(comms[i], handle));
    }
    for (int i = 0; i < COUNT; i++) {
        OK(HcclCommUnbindMem(comms[i], handle));
        OK(HcclCommDestroy(comms[i]));
    }
    OK(HcclDeregisterGlobalMem(handle));
    for (int i = 0; i < 50; i++) { /* prepared ones give back what they took */
        OK(aclrtSetDevice(1));
        void *theirs = device_memory(SIZE);
        struct side one = side_of(0, "again", memory, SIZE), two = side_of(1, "again", theirs, SIZE);
        pair_up(&one, &two);
        OK(one.result);
        OK(two.result);
        tear_down(&one);
        tear_down(&two);
        OK(aclrtFree(theirs));
    }
    size_t available = 0, total = 0;
    OK(aclrtSetDevice(1));
    OK(aclrtGetMemInfo(1, &available, &total));
    EXPECT(available, total);
}

MAIN(CASE(registration), CASE(initialisation), CASE(connect_timeout_is_checked), CASE(calls_are_checked_in_order),
     CASE(an_error_leaves_the_descriptors_before_it), CASE(hccs_wants_huge_aligned_device_memory),
     CASE(prepare_times_out), CASE(other_names_do_not_meet), CASE(a_dead_peer_fails_hccs_tasks),
     CASE(a_dead_peer_hangs_roce_tasks), CASE(a_killed_process_can_come_back), CASE(a_thousand_communicators),
     CASE(rank_table_values), CASE(traffic_class_counts_when_it_connects), CASE(a_roce_task_fails_after_the_execution_timeout))
