/* Ways to leave a process, or to be left in one, while a transfer is in flight:
 *
 *   promise_exit DEVICE PEER REMOTE WAY
 *
 * WAY: exit | return | graceful | signal-wait | fork | fork-exit. The engine's library is opened with dlopen for
 * "dlclose", linked otherwise. The transfer reads 2 MiB from REMOTE of PEER; the software NPU of the test delays it. */
#include "check.h"
#include "npu.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES ((size_t)2 << 20)

static struct npu npu;
static transfer_engine_t engine;
static char *memory;
static const char *peer;
static uint64_t remote;
static batch_id_t batch;
static volatile sig_atomic_t signals;

static void on_signal(int number) {
    (void)number;
    signals++;
}

static transfer_engine_t make(void) {
    transfer_engine_t made = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    CHECK(made != NULL);
    return made;
}

/* Starts the transfer; the channel is there when it returns. */
static void start(void) {
    int segment = openSegment(engine, peer);
    CHECK(segment > 0);
    struct transfer_request request = {OPCODE_READ, memory, segment, remote, 4096};
    CHECK_EQUAL(mooncake_transfer_run(engine, &request, 1, LIMIT_MS, &batch), 0);
    printf("connected\n");
    fflush(stdout);
    CHECK(getchar() != EOF); /* the test sets the delay and says go */
    batch = allocateBatchID(engine, 1);
    CHECK(batch != INVALID_BATCH);
    request.length = BYTES;
    CHECK_EQUAL(submitTransfer(engine, batch, &request, 1), 0);
}

static void *interrupt(void *thread) {
    for (int i = 0; i < 50; i++) {
        pthread_kill(*(pthread_t *)thread, SIGUSR1);
        struct timespec pause = {0, 5000000};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static void refuses(transfer_engine_t old) {
    CHECK(registerLocalMemory(old, memory, BYTES, "*", 1) != 0);
    CHECK_EQUAL(last_code(), MOONCAKE_TRANSFER_STALE_HANDLE);
    CHECK(openSegment(old, peer) < 0);
    CHECK_EQUAL(last_code(), MOONCAKE_TRANSFER_STALE_HANDLE);
    CHECK(mooncake_transfer_wait(old, batch, 100) != 0);
    CHECK_EQUAL(last_code(), MOONCAKE_TRANSFER_STALE_HANDLE);
    CHECK(freeBatchID(old, batch) != 0);
    destroyTransferEngine(old);
}

/* The child after a fork: old handles are errors, a new engine works, and the parent's transfer is not disturbed. */
static void forked(int leave_by_exit) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(LIMIT_MS / 1000);
        if (leave_by_exit) exit(7); /* the parent's engine is alive in this copy of its memory */
        refuses(engine);
        transfer_engine_t own = make();
        static char from[64] = "hello", into[64];
        CHECK_EQUAL(registerLocalMemory(own, from, sizeof from, "cpu:0", 1), 0);
        CHECK_EQUAL(registerLocalMemory(own, into, sizeof into, "cpu:0", 1), 0);
        struct transfer_request request = {OPCODE_WRITE, from, 0, (uint64_t)(uintptr_t)into, sizeof from};
        batch_id_t still;
        CHECK_EQUAL(mooncake_transfer_run(own, &request, 1, LIMIT_MS, &still), 0);
        CHECK(strcmp(into, "hello") == 0);
        CHECK_EQUAL(mooncake_transfer_probe(own, peer), 0);
        destroyTransferEngine(own);
        exit(7);
    }
    int status = -1;
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status));
    CHECK_EQUAL(WEXITSTATUS(status), 7);
    CHECK_EQUAL(mooncake_transfer_wait(engine, batch, LIMIT_MS), 0);
    CHECK_EQUAL(freeBatchID(engine, batch), 0);
    destroyTransferEngine(engine);
}

int main(int count, char **arguments) {
    CHECK_EQUAL(count, 5);
    int device = atoi(arguments[1]);
    peer = arguments[2];
    remote = strtoull(arguments[3], NULL, 10);
    const char *way = arguments[4];
    npu = npu_open(device);
    void *address = NULL;
    CHECK_EQUAL(npu.malloc(&address, BYTES, NPU_HUGE_FIRST), 0);
    memory = address;
    engine = make();
    CHECK_EQUAL(registerLocalMemory(engine, memory, BYTES, "*", 1), 0);
    if (strcmp(way, "graceful") == 0) CHECK_EQUAL(enableGracefulShutdown(engine), 0);
    start();
    if (strcmp(way, "signal-wait") == 0) {
        struct sigaction action;
        memset(&action, 0, sizeof action);
        action.sa_handler = on_signal; /* no SA_RESTART: system calls of the wait are interrupted */
        CHECK_EQUAL(sigaction(SIGUSR1, &action, NULL), 0);
        pthread_t self = pthread_self(), other;
        CHECK_EQUAL(pthread_create(&other, NULL, interrupt, &self), 0);
        CHECK_EQUAL(mooncake_transfer_wait(engine, batch, LIMIT_MS), 0);
        CHECK(signals > 0);
        CHECK_EQUAL(pthread_join(other, NULL), 0);
        CHECK_EQUAL(freeBatchID(engine, batch), 0);
        destroyTransferEngine(engine);
    } else if (strcmp(way, "fork") == 0) {
        forked(0);
    } else if (strcmp(way, "fork-exit") == 0) {
        forked(1);
    } else if (strcmp(way, "destroy") == 0) {
        destroyTransferEngine(engine); /* with the transfer in flight */
    } else if (strcmp(way, "graceful") == 0) {
        raise(SIGTERM);
        for (;;) pause();
    }
    printf("leaving\n");
    fflush(stdout);
    if (strcmp(way, "exit") == 0) exit(5);
    return 5;
}
