/* Where a process is: its server, its container, its network cards. */
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "pair.h"

enum { MIB = 1 << 20 };

static const char *boot_id_file = "/proc/sys/kernel/random/boot_id";

/* Runs `work` in a process of its own, with a variable set. */
static pid_t in_place(const char *variable, const char *value, void (*work)(void *), void *argument) {
    pid_t child = fork();
    if (child == 0) {
        OK(setenv(variable, value, 1));
        work(argument);
        _exit(0);
    }
    return child;
}

static void join(pid_t child) {
    int status = 0;
    EXPECT(waitpid(child, &status, 0), child);
    EXPECT(status, 0);
}

struct preparing { int rank, device, far; HcclResult expected; };

static void prepare(void *argument) {
    struct preparing *self = argument;
    struct rank rank = {.device = self->device, .rank = self->rank, .seconds = self->expected == 0 ? 30 : 1,
                        .table = self->far ? far_table(0, 1) : near_table(0, 1), .name = "places"};
    make_rank(&rank);
    prepare_rank(&rank);
    EXPECT(rank.prepared, self->expected);
}

/* Two servers: the chips' links do not leave one, whatever the rank table says; Ethernet does. */
static void servers_are_apart(void) {
    for (int far = 0; far < 2; far++) {
        struct preparing one = {0, 0, far, far ? 0 : 9}, two = {1, 1, far, far ? 0 : 9};
        pid_t left = in_place("CANN_SIM_SERVER_INDEX", "0", prepare, &one);
        pid_t right = in_place("CANN_SIM_SERVER_INDEX", "1", prepare, &two);
        join(left);
        join(right);
    }
}

static void prepare_with_addresses(void *argument) {
    static char table[640];
    HcclCommConfig config = config_named("link choice");
    HcclPrepareConfig mesh = {0, 0, 0, 0};
    HcclComm comm = NULL;
    struct preparing *self = argument;
    snprintf(table, sizeof table,
             "{\"version\":\"1.0\",\"status\":\"completed\",\"server_count\":\"1\",\"server_list\":["
             "{\"server_id\":\"10.0.0.7\",\"device\":[{\"device_id\":\"0\",\"device_ip\":\"29.1.0.12\","
             "\"rank_id\":\"0\"},{\"device_id\":\"1\",\"device_ip\":\"29.1.0.22\",\"rank_id\":\"1\"}]}]}");
    OK(aclrtSetDevice(self->device));
    OK(HcclCommInitClusterInfoMemConfig(table, (uint32_t)self->rank, &config, &comm));
    EXPECT(HcclCommPrepare(comm, &mesh, self->expected == 0 ? 30 : 2), self->expected);
    OK(HcclCommDestroy(comm));
}

/* Facts 2.5: both sides must choose the same link; one table, HCCL_INTRA_ROCE_ENABLE on one side only. */
static void different_link_choices(void) {
    static const struct { const char *one, *two; HcclResult result; } choices[] = {
        {"0", "1", 9}, {"1", "0", 9}, {"0", "0", 0}, {"1", "1", 0}};
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        struct preparing one = {0, 0, 0, choices[i].result}, two = {1, 1, 0, choices[i].result};
        pid_t left = in_place("HCCL_INTRA_ROCE_ENABLE", choices[i].one, prepare_with_addresses, &one);
        pid_t right = in_place("HCCL_INTRA_ROCE_ENABLE", choices[i].two, prepare_with_addresses, &two);
        join(left);
        join(right);
    }
}

/* CANN_SIM_HCCN_CONF names both cards of the far rank table. */
static void cards_with_addresses(void) {
    struct rank one, two;
    make_pair(&one, &two, "complete", 1, 20);
    OK(one.prepared);
    OK(two.prepared);
}

/* It names the first card only. */
static void cards_without_addresses(void) {
    struct rank one, two;
    make_pair(&one, &two, "partial", 1, 1);
    EXPECT(one.prepared, 9); /* nobody comes */
    EXPECT(two.prepared, 19);
    end_rank(&one);
    end_rank(&two);
    make_pair(&one, &two, "chips", 0, 20); /* the chips' own links need no card */
    OK(one.prepared);
    OK(two.prepared);
}

/* It is not there. */
static void no_card_has_an_address(void) {
    struct rank one, two;
    make_pair(&one, &two, "absent", 1, 1);
    EXPECT(one.prepared, 19);
    EXPECT(two.prepared, 19);
}

struct guest { int rank; void **address; pthread_barrier_t *barrier; };

static void visit(void *argument) {
    struct guest *self = argument;
    int id = -1;
    struct rank rank = {.device = 0, .rank = self->rank, .seconds = 30, .table = near_table(4, 5), .name = "guests"};
    make_rank(&rank);
    OK(aclrtGetPhyDevIdByLogicDevId(0, &id));
    EXPECT(id, 4 + self->rank);
    prepare_rank(&rank);
    OK(rank.prepared);
    self->address[self->rank] = rank.memory;
    pthread_barrier_wait(self->barrier);
    if (self->rank == 0) {
        aclrtStream stream = NULL;
        OK(aclrtCreateStream(&stream));
        OK(aclrtMemset(rank.memory, PAIR_SIZE, 9, PAIR_SIZE));
        HcclOneSideOpDesc desc = {rank.memory, self->address[1], PAIR_SIZE, UINT8};
        OK(HcclBatchPut(rank.comm, 1, &desc, 1, stream));
        OK(aclrtSynchronizeStream(stream));
    }
    pthread_barrier_wait(self->barrier);
    if (self->rank == 1) EXPECT(device_byte(rank.memory + PAIR_SIZE - 1), 9);
}

/* Two containers were given one NPU each: both call it device 0, and they reach each other by the physical ids. */
static void containers_with_an_npu_each(void) {
    struct shared { pthread_barrier_t barrier; void *address[2]; } *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_t attributes;
    OK(pthread_barrierattr_init(&attributes));
    OK(pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED));
    OK(pthread_barrier_init(&shared->barrier, &attributes, 2));
    struct guest one = {0, shared->address, &shared->barrier}, two = {1, shared->address, &shared->barrier};
    pid_t first = in_place("CANN_SIM_PHYSICAL_IDS", "4", visit, &one);
    pid_t second = in_place("CANN_SIM_PHYSICAL_IDS", "5", visit, &two);
    join(first);
    join(second);
}

struct dock { int rank, pod; HcclResult expected; int64_t *ids; pthread_barrier_t *barrier; };

/* One die of server `rank`, which says it is in super pod 0. */
static void dock(void *argument) {
    struct dock *self = argument;
    char table[1024], number[16];
    snprintf(number, sizeof number, "%d", self->pod);
    OK(setenv("CANN_SIM_SUPER_POD_ID", number, 1));
    OK(aclrtGetDeviceInfo((uint32_t)self->rank, 403, &self->ids[self->rank]));
    pthread_barrier_wait(self->barrier);
    snprintf(table, sizeof table,
             "{\"version\":\"1.2\",\"status\":\"completed\",\"server_list\":["
             "{\"server_id\":\"s0\",\"device\":[{\"device_id\":\"0\","
             "\"super_device_id\":\"%lld\",\"rank_id\":\"0\"}]},"
             "{\"server_id\":\"s1\",\"device\":[{\"device_id\":\"1\","
             "\"super_device_id\":\"%lld\",\"rank_id\":\"1\"}]}],"
             "\"super_pod_list\":[{\"super_pod_id\":\"0\",\"server_list\":["
             "{\"server_id\":\"s0\"},{\"server_id\":\"s1\"}]}]}",
             (long long)self->ids[0], (long long)self->ids[1]);
    struct rank rank = {.device = self->rank, .rank = self->rank, .seconds = self->expected == 0 ? 30 : 1,
                        .table = table, .name = "pod"};
    make_rank(&rank);
    prepare_rank(&rank);
    EXPECT(rank.prepared, self->expected);
}

/* A3: the chips' links cross servers inside a super pod, and do not leave it whatever the rank table says. */
static void super_pods(void) {
    struct shared { pthread_barrier_t barrier; int64_t ids[2]; } *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_t attributes;
    OK(pthread_barrierattr_init(&attributes));
    OK(pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED));
    OK(pthread_barrier_init(&shared->barrier, &attributes, 2));
    for (int apart = 0; apart < 2; apart++) {
        HcclResult expected = apart ? 9 : 0;
        struct dock one = {0, 0, expected, shared->ids, &shared->barrier};
        struct dock two = {1, apart, expected, shared->ids, &shared->barrier};
        pid_t first = in_place("CANN_SIM_SERVER_INDEX", "0", dock, &one);
        pid_t second = in_place("CANN_SIM_SERVER_INDEX", "1", dock, &two);
        join(first);
        join(second);
        TRUE(shared->ids[0] != shared->ids[1]);
    }
}

static int64_t attribute(uint32_t device, int which) {
    int64_t value = -1;
    OK(aclrtGetDeviceInfo(device, which, &value));
    return value;
}

static void expect_boot_id(const char *expected) {
    char text[64] = "";
    FILE *file = fopen(boot_id_file, "r");
    TRUE(file != NULL && fgets(text, sizeof text, file) != NULL);
    fclose(file);
    text[strcspn(text, "\n")] = 0;
    if (strcmp(text, expected) != 0) fprintf(stderr, "boot id %s\n", text);
    EXPECT(strcmp(text, expected), 0);
}

/* In the topology file of tests/topology.rs. */
static void place_left_a(void) {
    uint32_t count = 0;
    int id = -1;
    size_t available = 0, total = 0;
    OK(aclrtGetDeviceCount(&count));
    EXPECT(count, 1);
    OK(aclrtGetPhyDevIdByLogicDevId(0, &id));
    EXPECT(id, 5);
    OK(aclrtGetLogicDevIdByUserDevId(0, &id));
    EXPECT(id, 1);
    TRUE(strcmp(getenv("ASCEND_RT_VISIBLE_DEVICES"), "1") == 0);
    OK(aclrtSetDevice(0));
    OK(aclrtGetMemInfo(1, &available, &total));
    EXPECT(total, 2ll << 30);
    EXPECT(attribute(0, 404), 0);
    EXPECT(attribute(0, 405), 3);
}

static void place_right(void) {
    uint32_t count = 0;
    OK(aclrtGetDeviceCount(&count));
    EXPECT(count, 4);
    EXPECT(attribute(0, 301), 1ll << 30);
    EXPECT(attribute(0, 404), 1);
    EXPECT(attribute(0, 405), 3);
}

static void boot_id_of_left_b(void) { expect_boot_id("11111111-0000-4000-8000-00000000000b"); }

/* The parent holds 8 MiB of the physical NPU 5; this program knows it as device 1 of a container. */
static void sees_the_memory_of_others(void) {
    size_t available = 0, total = 0;
    OK(aclrtSetDevice(1));
    OK(aclrtGetMemInfo(1, &available, &total));
    EXPECT(total - available, 8 * MIB);
    OK(aclrtSetDevice(0));
    OK(aclrtGetMemInfo(1, &available, &total));
    EXPECT(available, total);
}

static void sees_no_memory_of_others(void) {
    size_t available = 0, total = 0;
    OK(aclrtSetDevice(5));
    OK(aclrtGetMemInfo(1, &available, &total));
    EXPECT(available, total);
}

/* Holds 8 MiB of device 5 until its input ends. */
static void holder(void) {
    void *memory = NULL;
    OK(aclrtSetDevice(5));
    OK(aclrtMallocAlign32(&memory, 8 * MIB, 0));
    printf("ready\n");
    fflush(stdout);
    while (getchar() != EOF) {}
}

MAIN(CASE(servers_are_apart), CASE(different_link_choices), CASE(cards_with_addresses), CASE(cards_without_addresses), CASE(no_card_has_an_address),
     CASE(containers_with_an_npu_each), CASE(super_pods), CASE(place_left_a), CASE(place_right),
     CASE(boot_id_of_left_b), CASE(sees_the_memory_of_others), CASE(sees_no_memory_of_others), CASE(holder))
