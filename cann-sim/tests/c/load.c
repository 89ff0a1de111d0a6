/* Many processes on the NPUs of one server: every byte arrives, memory is accounted for over all of them, and one that
 * is killed leaves nothing. */
#include <dirent.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "pair.h"

enum { MIB = 1 << 20, PROCESSES = 4, DEVICES = 8, ROUNDS = 40, BLOCK = 7000, BLOCKS = 256 };

/* Memory that all processes of a case share. */
struct shared {
    pthread_barrier_t barrier;
    void *address[DEVICES];
};

static struct shared *share(unsigned parties) {
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_t attributes;
    TRUE(shared != MAP_FAILED);
    OK(pthread_barrierattr_init(&attributes));
    OK(pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED));
    OK(pthread_barrier_init(&shared->barrier, &attributes, parties));
    return shared;
}

static void meet(struct shared *shared) {
    int result = pthread_barrier_wait(&shared->barrier);
    TRUE(result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD);
}

/* A child that does not outlive a failed test. */
static pid_t spawn(void) {
    pid_t parent = getpid(), child = fork();
    TRUE(child >= 0);
    if (child == 0) {
        OK(prctl(PR_SET_PDEATHSIG, SIGKILL));
        if (getppid() != parent) _exit(1);
    }
    return child;
}

static void bury(pid_t child, int signal_number) {
    int status = 0;
    if (signal_number != 0) OK(kill(child, signal_number));
    EXPECT(waitpid(child, &status, 0), child);
    EXPECT(signal_number == 0 ? status : WTERMSIG(status), signal_number);
}

static unsigned char pattern(int device, int round, size_t index) {
    return (unsigned char)(device * 37 + round * 11 + (int)(index % 251));
}

/* One device: exchanges blocks with its neighbour, which does the same at the same time. The lower half of the memory
 * is what the neighbour writes, the upper half what it reads. */
struct end { int device; struct shared *shared; };

static void *exchange(void *argument) {
    struct end *end = argument;
    int own = end->device, other = own % 2 == 1 ? (own + 1) % DEVICES : (own + DEVICES - 1) % DEVICES;
    int low = own < other ? own : other, high = own < other ? other : own, rank = own == low ? 0 : 1;
    char name[32];
    snprintf(name, sizeof name, "pair %d %d", low, high);
    struct rank self = {.device = own, .rank = rank, .seconds = 60, .table = near_table(low, high), .name = name};
    make_rank(&self);
    prepare_rank(&self);
    OK(self.prepared);
    end->shared->address[own] = self.memory;
    meet(end->shared);
    char *remote = end->shared->address[other];
    unsigned char *host = NULL;
    aclrtStream stream = NULL;
    OK(aclrtMallocHost((void **)&host, PAIR_SIZE / 2));
    OK(aclrtCreateStream(&stream));
    for (int round = 0; round < ROUNDS; round++) {
        HcclOneSideOpDesc desc[BLOCKS];
        for (size_t i = 0; i < PAIR_SIZE / 2; i++) host[i] = pattern(own, round, i);
        OK(aclrtMemcpyAsync(self.memory + PAIR_SIZE / 2, PAIR_SIZE / 2, host, PAIR_SIZE / 2, H2D, stream));
        OK(aclrtSynchronizeStream(stream));
        meet(end->shared); /* everybody's upper half is written */
        for (size_t i = 0; i < BLOCKS; i++)
            desc[i] = (HcclOneSideOpDesc){self.memory + PAIR_SIZE / 2 + i * BLOCK, remote + i * BLOCK, BLOCK, UINT8};
        OK(HcclBatchPut(self.comm, (uint32_t)(1 - rank), desc, BLOCKS, stream));
        OK(aclrtSynchronizeStream(stream));
        meet(end->shared); /* everybody's lower half is written */
        OK(aclrtMemcpy(host, PAIR_SIZE / 2, self.memory, PAIR_SIZE / 2, D2H));
        for (size_t i = 0; i < (size_t)BLOCK * BLOCKS; i++) EXPECT(host[i], pattern(other, round, i));
        meet(end->shared); /* everybody has looked */
        for (size_t i = 0; i < BLOCKS; i++)
            desc[i] = (HcclOneSideOpDesc){self.memory + i * BLOCK, remote + PAIR_SIZE / 2 + (BLOCKS - 1 - i) * BLOCK,
                                          BLOCK, UINT8};
        OK(HcclBatchGet(self.comm, (uint32_t)(1 - rank), desc, BLOCKS, stream));
        OK(aclrtSynchronizeStream(stream));
        OK(aclrtMemcpy(host, PAIR_SIZE / 2, self.memory, PAIR_SIZE / 2, D2H));
        for (size_t i = 0; i < BLOCKS; i++)
            for (size_t j = 0; j < BLOCK; j += 97)
                EXPECT(host[i * BLOCK + j], pattern(other, round, (BLOCKS - 1 - i) * BLOCK + j));
        meet(end->shared);
    }
    OK(aclrtDestroyStream(stream));
    OK(aclrtFreeHost(host));
    end_rank(&self);
    OK(aclrtFree(self.memory));
    return NULL;
}

static void four_processes_with_two_devices_each(void) {
    struct shared *shared = share(DEVICES);
    pid_t children[PROCESSES];
    for (int process = 0; process < PROCESSES; process++) {
        children[process] = spawn();
        if (children[process] != 0) continue;
        struct end ends[2] = {{2 * process, shared}, {2 * process + 1, shared}};
        pthread_t thread;
        OK(pthread_create(&thread, NULL, exchange, &ends[1]));
        exchange(&ends[0]);
        OK(pthread_join(thread, NULL));
        for (int i = 0; i < 2; i++) {
            size_t available = 0, total = 0;
            OK(aclrtSetDevice(ends[i].device));
            OK(aclrtGetMemInfo(1, &available, &total));
            EXPECT(available, total);
        }
        _exit(0);
    }
    for (int process = 0; process < PROCESSES; process++) bury(children[process], 0);
}

static size_t available_bytes(void) {
    size_t available = 0, total = 0;
    OK(aclrtGetMemInfo(1, &available, &total));
    return available;
}

/* The NPU has 64 MiB. */
static void several_processes_on_one_device(void) {
    enum { CHILDREN = 6 };
    struct shared *shared = share(CHILDREN + 1);
    pid_t children[CHILDREN];
    void *memory = NULL, *other = NULL;
    for (int i = 0; i < CHILDREN; i++) {
        children[i] = spawn();
        if (children[i] != 0) continue;
        OK(aclrtSetDevice(0));
        OK(aclrtMallocAlign32(&memory, 8 * MIB, 0));
        OK(aclrtMemset(memory, 8 * MIB, i, 8 * MIB));
        meet(shared);
        for (;;) pause();
    }
    meet(shared);
    OK(aclrtSetDevice(1));
    EXPECT(available_bytes(), 64 * MIB); /* another NPU */
    OK(aclrtSetDevice(0));
    EXPECT(available_bytes(), 16 * MIB);
    EXPECT(aclrtMallocAlign32(&memory, 18 * MIB, 0), 207001);
    OK(aclrtMallocAlign32(&memory, 16 * MIB, 0));
    EXPECT(available_bytes(), 0);
    EXPECT(aclrtMalloc(&other, 64, 0), 207001);
    OK(aclrtFree(memory));
    EXPECT(available_bytes(), 16 * MIB);
    for (int i = 0; i < 3; i++) bury(children[i], SIGKILL);
    EXPECT(available_bytes(), 40 * MIB); /* what they held is there again */
    OK(aclrtMallocAlign32(&memory, 40 * MIB, 0));
    for (int i = 3; i < CHILDREN; i++) bury(children[i], SIGKILL);
    EXPECT(available_bytes(), 24 * MIB);
}

/* Lines of a file that hold both words. */
static int lines_with(const char *path, const char *word, const char *other) {
    char line[1024];
    int count = 0;
    FILE *file = fopen(path, "r");
    TRUE(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) count += strstr(line, word) != NULL && strstr(line, other) != NULL;
    fclose(file);
    return count;
}

static int open_files(void) {
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    TRUE(directory != NULL);
    while (readdir(directory) != NULL) count++;
    closedir(directory);
    return count;
}

/* A child in the middle of its puts is killed, again and again under the same name. */
static void a_killed_process_leaves_nothing(void) {
    int files = 0;
    OK(aclrtSetDevice(0));
    size_t before = available_bytes();
    for (int round = 0; round < 5; round++) {
        int up[2];
        OK(pipe(up));
        pid_t child = spawn();
        int rank = child == 0 ? 1 : 0;
        struct rank self = {.device = rank, .rank = rank, .seconds = 30, .table = near_table(0, 1), .name = "victim"};
        make_rank(&self);
        if (child == 0) {
            void *remote = NULL;
            aclrtStream stream = NULL;
            prepare_rank(&self);
            OK(self.prepared);
            EXPECT(read(up[0], &remote, sizeof remote), sizeof remote);
            OK(aclrtCreateStream(&stream));
            HcclOneSideOpDesc desc = {self.memory, remote, PAIR_SIZE, UINT8};
            OK(aclrtMemset(self.memory, PAIR_SIZE, round + 1, PAIR_SIZE));
            for (;;) OK(HcclBatchPut(self.comm, 0, &desc, 1, stream));
        }
        prepare_rank(&self);
        OK(self.prepared);
        EXPECT(write(up[1], &self.memory, sizeof self.memory), sizeof self.memory);
        while (device_byte(self.memory) != round + 1) {}
        char path[64], word[32];
        snprintf(path, sizeof path, "/proc/%d/maps", (int)child);
        EXPECT(lines_with(path, "/dev/shm", ""), 0);
        snprintf(word, sizeof word, "/%d", (int)child);
        TRUE(lines_with("/proc/net/unix", "@cann-sim", word) > 0);
        bury(child, SIGKILL);
        EXPECT(lines_with("/proc/net/unix", "@cann-sim", word), 0);
        HcclOneSideOpDesc desc = {self.memory, self.memory, 64, UINT8};
        EXPECT(HcclBatchGet(self.comm, 1, &desc, 65, NULL), 2);
        end_rank(&self);
        OK(aclrtFree(self.memory));
        EXPECT(available_bytes(), before);
        OK(close(up[0]));
        OK(close(up[1]));
        if (round == 0) files = open_files();
        EXPECT(open_files(), files);
    }
}

/* Three ranks are named and two come; one of them is killed while both wait. */
static void a_peer_killed_while_it_prepares(void) {
    const char *table = "{\"version\":\"1.0\",\"status\":\"completed\","
                        "\"server_list\":[{\"server_id\":\"s\",\"device\":["
                        "{\"device_id\":\"0\",\"rank_id\":\"0\"},{\"device_id\":\"1\",\"rank_id\":\"1\"},"
                        "{\"device_id\":\"2\",\"rank_id\":\"2\"}]}]}";
    int up[2];
    char word = 0;
    OK(pipe(up));
    pid_t child = spawn();
    int rank = child == 0 ? 1 : 0;
    struct rank self = {.device = rank, .rank = rank, .seconds = rank == 0 ? 2 : 600, .table = table, .name = "three"};
    make_rank(&self);
    if (child == 0) {
        EXPECT(write(up[1], "p", 1), 1);
        prepare_rank(&self);
        _exit(1);
    }
    EXPECT(read(up[0], &word, 1), 1);
    pthread_t thread;
    OK(pthread_create(&thread, NULL, prepare_rank, &self));
    usleep(200 * 1000); /* the two have met, or not: both must end alike */
    bury(child, SIGKILL);
    OK(pthread_join(thread, NULL));
    EXPECT(self.prepared, 9);
    end_rank(&self);
}

/* HCCS maps the owner's memory: it stays reachable when the owner destroys its communicator, not when it dies. */
static void a_departed_peer_that_dies_is_noticed(void) {
    int up[2], down[2];
    OK(pipe(up));
    OK(pipe(down));
    pid_t child = spawn();
    int rank = child == 0 ? 1 : 0;
    struct rank self = {.device = rank, .rank = rank, .seconds = 30, .table = near_table(0, 1), .name = "departed"};
    make_rank(&self);
    prepare_rank(&self);
    OK(self.prepared);
    if (child == 0) {
        EXPECT(write(up[1], &self.memory, sizeof self.memory), sizeof self.memory);
        end_rank(&self);
        EXPECT(write(up[1], "d", 1), 1);
        for (;;) pause();
    }
    void *remote = NULL;
    char word = 0;
    aclrtStream stream = NULL;
    EXPECT(read(up[0], &remote, sizeof remote), sizeof remote);
    EXPECT(read(up[0], &word, 1), 1);
    OK(aclrtCreateStream(&stream));
    HcclOneSideOpDesc desc = {self.memory, remote, 4096, UINT8};
    OK(HcclBatchGet(self.comm, 1, &desc, 1, stream));
    OK(aclrtSynchronizeStream(stream));
    bury(child, SIGKILL);
    OK(HcclBatchGet(self.comm, 1, &desc, 1, stream));
    EXPECT(aclrtSynchronizeStream(stream), 507057);
}

MAIN(CASE(four_processes_with_two_devices_each), CASE(several_processes_on_one_device),
     CASE(a_killed_process_leaves_nothing), CASE(a_departed_peer_that_dies_is_noticed),
     CASE(a_peer_killed_while_it_prepares))
