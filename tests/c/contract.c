/* The interface's answers, call by call, with host memory in one process and no NPU: what upstream's library
 * answers to the same calls, and what this one adds. One scenario per name given. */
#include "check.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static transfer_engine_t make(void) {
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", loopback(), "", 0, 0);
    CHECK(engine != NULL);
    return engine;
}

static void name_of(transfer_engine_t engine, char *name, size_t capacity) {
    CHECK_EQUAL(mooncake_transfer_session_name(engine, name, capacity), 0);
}

static struct transfer_request request(int opcode, void *source, int target, void *remote, uint64_t length) {
    struct transfer_request made;
    memset(&made, 0, sizeof made);
    made.opcode = opcode;
    made.source = source;
    made.target_id = target;
    made.target_offset = (uint64_t)(uintptr_t)remote;
    made.length = length;
    return made;
}

/* Submits one request in a batch of its own; the state it ends in. */
static int move(transfer_engine_t engine, struct transfer_request made, uint64_t *bytes) {
    batch_id_t batch = allocateBatchID(engine, 1);
    CHECK(batch != INVALID_BATCH && batch >= 1 && batch < (UINT64_C(1) << 63));
    CHECK_EQUAL(submitTransfer(engine, batch, &made, 1), 0);
    int state = poll_task(engine, batch, 0, bytes);
    CHECK_EQUAL(freeBatchID(engine, batch), 0);
    return state;
}

static char source[4096], target[4096], extra[4096];

static void names_and_transports(void) {
    transfer_engine_t a = make();
    char name[64], cut[8];
    size_t host = strlen(loopback());
    CHECK_EQUAL(getLocalIpAndPort(a, name, sizeof name), 0);
    CHECK(strncmp(name, loopback(), host) == 0 && name[host] == ':' && atoi(name + host + 1) >= 1024);
    memset(cut, 'x', sizeof cut);
    CHECK_EQUAL(getLocalIpAndPort(a, cut, 5), 0);
    CHECK(memcmp(cut, name, 4) == 0 && memcmp(cut + 4, "\0xxx", 4) == 0);
    CHECK_EQUAL(getLocalIpAndPort(a, NULL, 0), 0);
    CHECK_EQUAL(getLocalIpAndPort(a, NULL, 5), -1);
    char session[64];
    CHECK_EQUAL(mooncake_transfer_session_name(a, session, sizeof session), 0);
    /* Upstream writes an IPv6 address without brackets there; the name that peers open has them. */
    CHECK(strcmp(session, loopback_session(atoi(name + host + 1))) == 0);
    memset(cut, 'x', sizeof cut);
    CHECK_EQUAL(mooncake_transfer_session_name(a, cut, sizeof cut), MOONCAKE_TRANSFER_TOO_MANY_REQUESTS);
    CHECK(memcmp(cut, "xxxxxxxx", 8) == 0);

    CHECK(installTransport(a, "xyz", NULL) == NULL);
    CHECK_EQUAL(last_code(), MOONCAKE_TRANSFER_NOT_SUPPORTED_TRANSPORT);
    CHECK(strstr(last_error_text(), "xyz") != NULL);
    char broken[] = "{\"cpu:0\": 5}";
    void *arguments[] = {broken, NULL};
    CHECK(installTransport(a, "ascend", arguments) == NULL);
    CHECK_EQUAL(last_code(), MOONCAKE_TRANSFER_MALFORMED_JSON);
    CHECK_EQUAL(uninstallTransport(a, "xyz"), 0);
    CHECK_EQUAL(discoverTopology(a), 0);
    CHECK_EQUAL(warmupEfaSegment(a, name), 0);
    nic_load_stat_t stats[2];
    size_t count = 2;
    CHECK_EQUAL(getNicLoadStats(a, stats, &count), 0);
    CHECK_EQUAL(count, 0);
    CHECK_EQUAL(getNicLoadStats(a, NULL, &count), -1);
    char links[4096];
    CHECK_EQUAL(showLinks(a, links, sizeof links, 1), 0);
    CHECK(strstr(links, "\"local_nics\"") != NULL && strstr(links, "\"cpu:0\"") != NULL);
    CHECK_EQUAL(showLinks(a, links, sizeof links, 0), 0);
    CHECK(links[0] != '\0');
    CHECK_EQUAL(showLinks(a, NULL, 10, 0), -1);
    destroyTransferEngine(a);

    CHECK(createTransferEngine("http://127.0.0.1:1/metadata", "127.0.0.1", "", 0, 0) == NULL);
    CHECK(last_code() != 0);
    CHECK(createTransferEngine("P2PHANDSHAKE", "not a host:1:2:3", "", 0, 0) == NULL);
    CHECK(last_code() != 0);
    char with_npu[80];
    snprintf(with_npu, sizeof with_npu, "%s:npu_1", loopback_session(12001));
    transfer_engine_t npu_name = createTransferEngine("P2PHANDSHAKE", with_npu, "", 0, 0);
    CHECK(npu_name != NULL);
    CHECK_EQUAL(getLocalIpAndPort(npu_name, name, sizeof name), 0);
    CHECK(strncmp(name, loopback(), host) == 0 && name[host] == ':' && strstr(name, "npu") == NULL);
    destroyTransferEngine(npu_name);
}

static void segments(void) {
    transfer_engine_t a = make(), b = make();
    char own[64], peer[64], slash[80], alias[64];
    name_of(a, own, sizeof own);
    name_of(b, peer, sizeof peer);
    CHECK_EQUAL(openSegment(a, ""), -1);
    CHECK_EQUAL(openSegment(a, "//"), -1);
    CHECK_EQUAL(openSegment(a, loopback_session(1)), -1);
    CHECK(strstr(last_error_text(), loopback_session(1)) != NULL);
    CHECK_EQUAL(openSegment(a, peer), 1);
    CHECK_EQUAL(openSegment(a, peer), 1);
    snprintf(slash, sizeof slash, "/%s", peer);
    CHECK_EQUAL(openSegment(a, slash), 1);
    CHECK_EQUAL(openSegment(a, own), 0);
    snprintf(alias, sizeof alias, "localhost%s", strrchr(peer, ':'));
    CHECK_EQUAL(openSegment(a, alias), 2);
    CHECK_EQUAL(openSegmentNoCache(a, peer), 1);
    CHECK_EQUAL(closeSegment(a, 1), 0);
    CHECK_EQUAL(closeSegment(a, 12345), 0);
    CHECK_EQUAL(syncSegmentCache(a), 0);
    CHECK_EQUAL(removeLocalSegment(a, peer), 0);
    CHECK_EQUAL(removeLocalSegment(a, "unknown"), 0);
    CHECK_EQUAL(removeLocalSegment(a, ""), -1);
    CHECK_EQUAL(openSegment(a, peer), 3);
    CHECK_EQUAL(mooncake_transfer_probe(a, peer), 0);
    CHECK(mooncake_transfer_probe(a, loopback_session(1)) < 0);
    destroyTransferEngine(b);
    CHECK(mooncake_transfer_probe(a, peer) < 0);
    CHECK_EQUAL(syncSegmentCache(a), 0);
    destroyTransferEngine(a);
}

static void registration(void) {
    transfer_engine_t a = make();
    CHECK_EQUAL(registerLocalMemory(a, source, sizeof source, "cpu:0", 1), 0);
    CHECK_EQUAL(registerLocalMemory(a, source, sizeof source, "cpu:0", 1), -7);
    CHECK_EQUAL(registerLocalMemory(a, source + 100, 10, "cpu:0", 1), -7);
    CHECK_EQUAL(last_code(), MOONCAKE_TRANSFER_ADDRESS_OVERLAPPED);
    CHECK_EQUAL(registerLocalMemory(a, target, 0, "cpu:0", 1), -1);
    CHECK_EQUAL(registerLocalMemory(a, NULL, 10, "cpu:0", 1), -1);
    CHECK_EQUAL(registerLocalMemory(a, target, 10, NULL, 1), -1);
    CHECK_EQUAL(registerLocalMemory(a, target, 10, "moon:0", 1), -1);
    CHECK(strstr(last_error_text(), "moon:0") != NULL);
    CHECK(registerLocalMemory(a, (void *)(uintptr_t)-16, 4096, "cpu:0", 1) < 0);
    CHECK_EQUAL(unregisterLocalMemory(a, source + 1), -3);
    CHECK_EQUAL(unregisterLocalMemory(a, source), 0);
    CHECK_EQUAL(unregisterLocalMemory(a, source), -3);

    buffer_entry_t overlapping[] = {{source, 100}, {target, 100}, {source + 50, 10}};
    CHECK_EQUAL(registerLocalMemoryBatch(a, overlapping, 3, "cpu:0"), -7);
    CHECK_EQUAL(registerLocalMemory(a, source, 100, "*", 1), 0);
    CHECK_EQUAL(unregisterLocalMemory(a, source), 0);
    buffer_entry_t neighbours[] = {{source, 100}, {source + 100, 100}, {target, 100}};
    CHECK_EQUAL(registerLocalMemoryBatch(a, neighbours, 3, "cpu:0"), 0);
    CHECK_EQUAL(registerLocalMemoryBatch(a, neighbours, 1, "cpu:0"), -7);
    CHECK_EQUAL(registerLocalMemoryBatch(a, NULL, 0, "cpu:0"), 0);
    CHECK_EQUAL(registerLocalMemoryBatch(a, NULL, 2, "cpu:0"), -1);
    buffer_entry_t empty[] = {{extra, 0}};
    CHECK_EQUAL(registerLocalMemoryBatch(a, empty, 1, "cpu:0"), -1);
    void *addresses[] = {extra, source, source + 100, target};
    CHECK_EQUAL(unregisterLocalMemoryBatch(a, addresses, 4), -3);
    CHECK_EQUAL(unregisterLocalMemory(a, target), -3);
    CHECK_EQUAL(unregisterLocalMemoryBatch(a, NULL, 0), 0);
    destroyTransferEngine(a);
}

static void transfers(void) {
    transfer_engine_t a = make(), b = make();
    char peer[64];
    name_of(b, peer, sizeof peer);
    CHECK_EQUAL(registerLocalMemory(a, source, sizeof source, "cpu:0", 1), 0);
    CHECK_EQUAL(registerLocalMemory(b, target, sizeof target, "cpu:0", 1), 0);
    int segment = openSegment(a, peer);
    CHECK_EQUAL(segment, 1);
    memcpy(source, "hello", 6);
    memset(target, 0, sizeof target);
    uint64_t bytes = 0;

    batch_id_t batch = allocateBatchID(a, 2);
    struct transfer_request write = request(OPCODE_WRITE, source, segment, target, 5);
    CHECK_EQUAL(submitTransfer(a, batch, &write, 1), 0);
    write.length = 0; /* the entry was copied: this must not matter */
    CHECK_EQUAL(poll_task(a, batch, 0, &bytes), STATUS_COMPLETED);
    CHECK_EQUAL(bytes, 5);
    CHECK(memcmp(target, "hello\0", 6) == 0);
    CHECK_EQUAL(poll_task(a, batch, 0, &bytes), STATUS_COMPLETED);
    struct transfer_status untouched = {77, 78};
    CHECK_EQUAL(getTransferStatus(a, batch, 1, &untouched), 1);
    CHECK(untouched.status == 77 && untouched.transferred_bytes == 78);
    CHECK_EQUAL(getTransferStatus(a, batch, 0, NULL), 1);
    struct transfer_request two[] = {write, write};
    CHECK_EQUAL(submitTransfer(a, batch, two, 2), 2);
    CHECK_EQUAL(getTransferStatus(a, batch, 1, &untouched), 1);
    struct transfer_request read = request(OPCODE_READ, source + 100, segment, target, 5);
    CHECK_EQUAL(submitTransfer(a, batch, &read, 1), 0);
    CHECK_EQUAL(poll_task(a, batch, 1, &bytes), STATUS_COMPLETED);
    CHECK(memcmp(source + 100, "hello", 5) == 0);
    CHECK_EQUAL(submitTransfer(a, batch, &read, 1), 2);
    CHECK_EQUAL(submitTransfer(a, batch, NULL, 0), 0);
    CHECK_EQUAL(submitTransfer(a, batch, NULL, 3), 1);
    CHECK_EQUAL(freeBatchID(a, batch), 0);
    CHECK_EQUAL(freeBatchID(a, batch), 1);
    CHECK_EQUAL(submitTransfer(a, batch, &read, 1), 1);

    batch = allocateBatchID(a, 0);
    CHECK(batch != INVALID_BATCH);
    CHECK_EQUAL(submitTransfer(a, batch, &read, 1), 2);
    CHECK_EQUAL(freeBatchID(a, batch), 0);

    batch = allocateBatchID(a, 2);
    struct transfer_request good_and_bad[] = {read, request(OPCODE_READ, source, 99, target, 5)};
    CHECK_EQUAL(submitTransfer(a, batch, good_and_bad, 2), 1);
    CHECK_EQUAL(getTransferStatus(a, batch, 0, &untouched), 1);
    CHECK_EQUAL(freeBatchID(a, batch), 0);

    CHECK_EQUAL(move(a, request(OPCODE_WRITE, source, segment, target, 0), &bytes), STATUS_COMPLETED);
    CHECK_EQUAL(bytes, 0);
    CHECK_EQUAL(move(a, request(OPCODE_WRITE, source, segment, extra, 16), &bytes), STATUS_FAILED);
    CHECK_EQUAL(last_code(), MOONCAKE_TRANSFER_ADDRESS_NOT_REGISTERED);
    CHECK_EQUAL(move(a, request(OPCODE_WRITE, source, segment, target + sizeof target - 8, 16), &bytes), STATUS_FAILED);
    CHECK_EQUAL(move(a, request(OPCODE_READ, source, segment, target, UINT64_MAX - 8), &bytes), STATUS_FAILED);
    memcpy(extra, "unregistered-src", 16);
    CHECK_EQUAL(move(a, request(OPCODE_WRITE, extra, segment, target, 16), &bytes), STATUS_COMPLETED);
    CHECK(bytes == 16 && memcmp(target, "unregistered-src", 16) == 0);
    CHECK_EQUAL(move(a, request(OPCODE_WRITE, extra, LOCAL_SEGMENT, source, 5), &bytes), STATUS_COMPLETED);
    CHECK(memcmp(source, "unreg", 5) == 0);
    memset(extra, 0, sizeof extra);
    CHECK_EQUAL(move(a, request(7, extra, segment, target, 16), &bytes), STATUS_COMPLETED);
    CHECK(memcmp(extra, "unregistered-src", 16) == 0);

    /* Finished, but never seen finished: busy until it is polled. */
    memset(target, 0, sizeof target);
    memcpy(source, "seen?", 5);
    batch = allocateBatchID(a, 1);
    write = request(OPCODE_WRITE, source, segment, target, 5);
    CHECK_EQUAL(submitTransfer(a, batch, &write, 1), 0);
    for (long long end = now_ms() + LIMIT_MS; memcmp(target, "seen?", 5) != 0 && now_ms() < end;) pause_briefly();
    CHECK(memcmp(target, "seen?", 5) == 0);
    CHECK_EQUAL(freeBatchID(a, batch), 4);
    CHECK_EQUAL(poll_task(a, batch, 0, NULL), STATUS_COMPLETED);
    CHECK_EQUAL(freeBatchID(a, batch), 0);

    /* Ours: one call, and waiting on a batch. */
    batch_id_t still = 55;
    struct transfer_request many[16];
    for (int i = 0; i < 16; i++) many[i] = request(OPCODE_WRITE, source + 64 * i, segment, target + 64 * (15 - i), 64);
    for (int i = 0; i < (int)sizeof source; i++) source[i] = (char)(i * 7);
    CHECK_EQUAL(mooncake_transfer_run(a, many, 16, LIMIT_MS, &still), 0);
    for (int i = 0; i < 16; i++) CHECK(memcmp(source + 64 * i, target + 64 * (15 - i), 64) == 0);
    many[3].target_offset = 16;
    CHECK_EQUAL(mooncake_transfer_run(a, many, 16, LIMIT_MS, &still), MOONCAKE_TRANSFER_ADDRESS_NOT_REGISTERED);
    many[3].target_id = 1234;
    CHECK_EQUAL(mooncake_transfer_run(a, many, 16, LIMIT_MS, &still), MOONCAKE_TRANSFER_INVALID_ARGUMENT);
    CHECK_EQUAL(mooncake_transfer_run(a, many, 1, LIMIT_MS, NULL), MOONCAKE_TRANSFER_INVALID_ARGUMENT);
    CHECK_EQUAL(still, 55);
    batch = allocateBatchID(a, 16);
    CHECK_EQUAL(mooncake_transfer_submit(a, batch, many, 2, LIMIT_MS), 0);
    CHECK_EQUAL(mooncake_transfer_wait(a, batch, LIMIT_MS), 0);
    struct mooncake_transfer_error error;
    error.struct_size = sizeof error;
    CHECK_EQUAL(mooncake_transfer_task_error(a, batch, 0, &error), MOONCAKE_TRANSFER_METADATA);
    many[2].target_offset = 16;
    CHECK_EQUAL(mooncake_transfer_submit(a, batch, many + 2, 1, MOONCAKE_TRANSFER_DEFAULT_TIMEOUT), 0);
    CHECK_EQUAL(mooncake_transfer_wait(a, batch, LIMIT_MS), MOONCAKE_TRANSFER_ADDRESS_NOT_REGISTERED);
    CHECK_EQUAL(mooncake_transfer_task_error(a, batch, 2, &error), 0);
    CHECK(error.code == MOONCAKE_TRANSFER_ADDRESS_NOT_REGISTERED && error.negative == -3 && error.status == 3);
    CHECK((error.known & MOONCAKE_TRANSFER_KNOWS_RANGE) && error.range_start == 16 && error.range_length_bytes == 64);
    CHECK(error.peer != NULL && strcmp(error.peer, peer) == 0);
    CHECK_EQUAL(mooncake_transfer_cancel(a, batch), 0);
    CHECK_EQUAL(freeBatchID(a, batch), 0);
    CHECK_EQUAL(mooncake_transfer_wait(a, batch, 0), MOONCAKE_TRANSFER_STALE_HANDLE);
    CHECK_EQUAL(mooncake_transfer_cancel(a, batch), MOONCAKE_TRANSFER_STALE_HANDLE);

    size_t length = 0;
    CHECK_EQUAL(mooncake_transfer_counters(a, NULL, 0, &length), MOONCAKE_TRANSFER_TOO_MANY_REQUESTS);
    CHECK(length > 0);
    char *counters = malloc(length + 4096);
    CHECK_EQUAL(mooncake_transfer_counters(a, counters, length + 4096, &length), 0);
    CHECK(strlen(counters) == length && strstr(counters, "# TYPE") != NULL);
    free(counters);
    destroyTransferEngine(a);
    destroyTransferEngine(b);
}

static void notifications(void) {
    transfer_engine_t a = make(), b = make();
    char peer[64];
    name_of(b, peer, sizeof peer);
    CHECK_EQUAL(registerLocalMemory(a, source, sizeof source, "cpu:0", 1), 0);
    CHECK_EQUAL(registerLocalMemory(b, target, sizeof target, "cpu:0", 1), 0);
    int segment = openSegment(a, peer);
    int count = 7;
    CHECK(getNotifsFromEngine(b, &count) == NULL && count == 0);
    notify_msg_t none = {(char *)"name2", (char *)""}, some = {(char *)"name2", (char *)"m2"};
    CHECK_EQUAL(genNotifyInEngine(a, (uint64_t)segment, none), 0);
    CHECK_EQUAL(genNotifyInEngine(a, (uint64_t)segment, some), 0);
    CHECK_EQUAL(genNotifyInEngine(a, 99, some), -200);
    CHECK_EQUAL(genNotifyInEngine(a, UINT64_MAX, some), -200);
    notify_msg_t bad = {NULL, (char *)"x"};
    CHECK_EQUAL(genNotifyInEngine(a, (uint64_t)segment, bad), -1);
    notify_msg_t *notes = getNotifsFromEngine(b, &count);
    CHECK(notes != NULL && count == 2);
    CHECK(strcmp(notes[0].name, "name2") == 0 && strcmp(notes[0].msg, "") == 0);
    CHECK(strcmp(notes[1].name, "name2") == 0 && strcmp(notes[1].msg, "m2") == 0);
    CHECK_EQUAL(freeNotifsMsgBuf(notes, count), 0);
    CHECK(getNotifsFromEngine(b, &count) == NULL && count == 0);
    CHECK_EQUAL(freeNotifsMsgBuf(NULL, 0), 0);
    CHECK(getNotifsFromEngine(b, NULL) == NULL);

    batch_id_t batch = allocateBatchID(a, 2);
    struct transfer_request write = request(OPCODE_WRITE, source, segment, target, 5);
    notify_msg_t done = {(char *)"request-17", (char *)"done"};
    CHECK_EQUAL(submitTransferWithNotify(a, batch, &write, 0, done), 1);
    CHECK_EQUAL(submitTransferWithNotify(a, batch, &write, 1, bad), 1);
    CHECK_EQUAL(submitTransferWithNotify(a, batch, &write, 1, done), 0);
    CHECK_EQUAL(poll_task(a, batch, 0, NULL), STATUS_COMPLETED);
    long long end = now_ms() + LIMIT_MS;
    while ((notes = getNotifsFromEngine(b, &count)) == NULL && now_ms() < end) pause_briefly();
    CHECK(notes != NULL && count == 1);
    CHECK(strcmp(notes[0].name, "request-17") == 0 && strcmp(notes[0].msg, "done") == 0);
    CHECK_EQUAL(freeNotifsMsgBuf(notes, count), 0);
    CHECK_EQUAL(freeBatchID(a, batch), 0);
    destroyTransferEngine(a);
    destroyTransferEngine(b);
}

/* Every function with a handle that is no engine: its failure value, a record, no crash. */
static void refuses(transfer_engine_t bad, int code) {
    int number = 0;
    size_t count = 0;
    char text[64];
    nic_load_stat_t stats[1];
    buffer_entry_t buffer = {source, 10};
    void *address = source;
    struct transfer_request some = request(OPCODE_READ, source, 0, target, 5);
    struct transfer_status status;
    notify_msg_t note = {(char *)"n", (char *)"m"};
    struct mooncake_transfer_error error;
    error.struct_size = sizeof error;
    batch_id_t still;
#define REFUSED(call, value)                                                                                 \
    do {                                                                                                     \
        mooncake_transfer_clear_error();                                                                     \
        CHECK_EQUAL(call, value);                                                                            \
        CHECK_EQUAL(last_code(), code);                                                                      \
    } while (0)
    REFUSED((destroyTransferEngine(bad), 0), 0);
    REFUSED(discoverTopology(bad), -1);
    REFUSED(getLocalIpAndPort(bad, text, sizeof text), -1);
    REFUSED((uintptr_t)installTransport(bad, "ascend", NULL), 0);
    REFUSED(uninstallTransport(bad, "ascend"), -1);
    REFUSED(openSegment(bad, "127.0.0.1:1"), -1);
    REFUSED(openSegmentNoCache(bad, "127.0.0.1:1"), -1);
    REFUSED(closeSegment(bad, 0), -1);
    REFUSED(removeLocalSegment(bad, "x"), -1);
    REFUSED(syncSegmentCache(bad), -1);
    REFUSED(warmupEfaSegment(bad, "x"), -1);
    REFUSED(registerLocalMemory(bad, source, 10, "cpu:0", 1), -1);
    REFUSED(unregisterLocalMemory(bad, source), -1);
    REFUSED(registerLocalMemoryBatch(bad, &buffer, 1, "cpu:0"), -1);
    REFUSED(unregisterLocalMemoryBatch(bad, &address, 1), -1);
    REFUSED(allocateBatchID(bad, 1), INVALID_BATCH);
    REFUSED(submitTransfer(bad, 1, &some, 1), 1);
    REFUSED(submitTransferWithNotify(bad, 1, &some, 1, note), 1);
    REFUSED(getTransferStatus(bad, 1, 0, &status), 1);
    REFUSED(freeBatchID(bad, 1), 1);
    REFUSED((uintptr_t)getNotifsFromEngine(bad, &number), 0);
    CHECK_EQUAL(number, -1);
    REFUSED(genNotifyInEngine(bad, 0, note), -1);
    REFUSED(getNicLoadStats(bad, stats, &count), -1);
    REFUSED(enableGracefulShutdown(bad), -1);
    REFUSED(showLinks(bad, text, sizeof text, 0), -1);
    REFUSED(mooncake_transfer_session_name(bad, text, sizeof text), code);
    REFUSED(mooncake_transfer_probe(bad, "127.0.0.1:1"), code);
    REFUSED(mooncake_transfer_submit(bad, 1, &some, 1, 0), code);
    REFUSED(mooncake_transfer_wait(bad, 1, 0), code);
    REFUSED(mooncake_transfer_cancel(bad, 1), code);
    REFUSED(mooncake_transfer_run(bad, &some, 1, 0, &still), code);
    REFUSED(mooncake_transfer_task_error(bad, 1, 0, &error), code);
    REFUSED(mooncake_transfer_counters(bad, text, sizeof text, &count), code);
}

static void handles(void) {
    refuses(NULL, MOONCAKE_TRANSFER_INVALID_ARGUMENT);
    refuses(source, MOONCAKE_TRANSFER_INVALID_ARGUMENT);
    refuses((void *)(uintptr_t)1, MOONCAKE_TRANSFER_INVALID_ARGUMENT);
    refuses((void *)~(uintptr_t)0, MOONCAKE_TRANSFER_INVALID_ARGUMENT);
    transfer_engine_t a = make(), b = make();
    refuses((void *)((uintptr_t)a + ((uintptr_t)1 << 32)), MOONCAKE_TRANSFER_INVALID_ARGUMENT);
    batch_id_t batch = allocateBatchID(a, 1);
    CHECK_EQUAL(freeBatchID(b, batch), 1); /* another engine's */
    CHECK_EQUAL(freeBatchID(a, INVALID_BATCH), 1);
    CHECK_EQUAL(freeBatchID(a, 0), 1);
    CHECK_EQUAL(freeBatchID(a, batch ^ 1), 1);
    CHECK_EQUAL(freeBatchID(a, batch), 0);
    transfer_engine_t closed = a;
    destroyTransferEngine(a);
    refuses(closed, MOONCAKE_TRANSFER_STALE_HANDLE);
    a = make(); /* takes the place of the closed one, with another handle */
    CHECK(a != closed);
    refuses(closed, MOONCAKE_TRANSFER_STALE_HANDLE);
    destroyTransferEngine(a);
    destroyTransferEngine(b);

    /* Arguments that are NULL, beside a good engine. */
    a = make();
    CHECK(createTransferEngine(NULL, loopback(), "", 0, 0) == NULL);
    CHECK(createTransferEngine("P2PHANDSHAKE", NULL, "", 0, 0) == NULL);
    CHECK(installTransport(a, NULL, NULL) == NULL);
    CHECK_EQUAL(uninstallTransport(a, NULL), -1);
    CHECK_EQUAL(openSegment(a, NULL), -1);
    CHECK_EQUAL(openSegment(a, "\xff\xfe"), -1);
    CHECK_EQUAL(removeLocalSegment(a, NULL), -1);
    CHECK_EQUAL(warmupEfaSegment(a, NULL), -1);
    CHECK_EQUAL(registerLocalMemoryBatch(a, NULL, SIZE_MAX, "cpu:0"), -1);
    CHECK_EQUAL(unregisterLocalMemoryBatch(a, NULL, 5), -1);
    CHECK_EQUAL(allocateBatchID(a, SIZE_MAX), INVALID_BATCH);
    CHECK_EQUAL(mooncake_transfer_probe(a, NULL), MOONCAKE_TRANSFER_INVALID_ARGUMENT);
    CHECK_EQUAL(mooncake_transfer_last_error(NULL), MOONCAKE_TRANSFER_INVALID_ARGUMENT);
    CHECK_EQUAL(mooncake_transfer_create(NULL, &b), MOONCAKE_TRANSFER_INVALID_ARGUMENT);
    struct mooncake_transfer_options options = {sizeof options, "P2PHANDSHAKE", loopback(), 0, 0};
    options.device = MOONCAKE_TRANSFER_ANY_DEVICE;
    CHECK_EQUAL(mooncake_transfer_create(&options, NULL), MOONCAKE_TRANSFER_INVALID_ARGUMENT);
    options.struct_size = 8;
    CHECK_EQUAL(mooncake_transfer_create(&options, &b), MOONCAKE_TRANSFER_INVALID_ARGUMENT);
    options.struct_size = sizeof options;
    CHECK_EQUAL(mooncake_transfer_create(&options, &b), 0);
    destroyTransferEngine(b);
    destroyTransferEngine(a);
    CHECK(strcmp(mooncake_transfer_version(), MOONCAKE_TRANSFER_VERSION) == 0);
    CHECK(strcmp(mooncake_transfer_code_name(MOONCAKE_TRANSFER_BUSY), "busy") == 0);
}

/* After a fork the parent's handles are dead in the child, a new engine works there, and the parent goes on. */
static void after_fork(void) {
    transfer_engine_t a = make();
    batch_id_t batch = allocateBatchID(a, 1);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(LIMIT_MS / 1000);
        refuses(a, MOONCAKE_TRANSFER_STALE_HANDLE);
        transfer_engine_t own = make();
        CHECK_EQUAL(registerLocalMemory(own, target, sizeof target, "cpu:0", 1), 0);
        CHECK_EQUAL(move(own, request(OPCODE_WRITE, source, LOCAL_SEGMENT, target, 64), NULL), STATUS_COMPLETED);
        char name[64];
        name_of(own, name, sizeof name);
        CHECK_EQUAL(mooncake_transfer_probe(own, name), 0);
        destroyTransferEngine(own);
        exit(0);
    }
    int status = -1;
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK_EQUAL(status, 0);
    CHECK_EQUAL(freeBatchID(a, batch), 0);
    char name[64];
    name_of(a, name, sizeof name);
    CHECK_EQUAL(mooncake_transfer_probe(a, name), 0);
    destroyTransferEngine(a);
}

static int lines, levels_wrong;

static void sink(void *user, int level, const char *module, const char *message) {
    if (user != &lines || level < 1 || level > 5 || !module || !message) levels_wrong++;
    __sync_fetch_and_add(&lines, 1);
}

static void log_sink(void) {
    CHECK_EQUAL(mooncake_transfer_set_log(sink, &lines, 9), MOONCAKE_TRANSFER_INVALID_ARGUMENT);
    CHECK_EQUAL(mooncake_transfer_set_log(sink, &lines, MOONCAKE_TRANSFER_LOG_TRACE), 0);
    transfer_engine_t a = make();
    destroyTransferEngine(a);
    CHECK(lines > 0 && levels_wrong == 0);
    CHECK_EQUAL(mooncake_transfer_set_log(sink, &lines, MOONCAKE_TRANSFER_LOG_OFF), 0);
    int before = lines;
    destroyTransferEngine(make());
    CHECK_EQUAL(lines, before);
    CHECK_EQUAL(mooncake_transfer_set_log(NULL, NULL, MOONCAKE_TRANSFER_LOG_TRACE), 0);
    destroyTransferEngine(make()); /* to standard error again */
    CHECK_EQUAL(lines, before);
}

static void *fails_otherwise(void *unused) {
    (void)unused;
    CHECK_EQUAL(last_code(), 0);
    CHECK_EQUAL(openSegment(NULL, "x"), -1);
    CHECK_EQUAL(last_code(), MOONCAKE_TRANSFER_INVALID_ARGUMENT);
    return NULL;
}

static void last_error_per_thread(void) {
    transfer_engine_t a = make();
    CHECK_EQUAL(registerLocalMemory(a, source, 0, "cpu:0", 1), -1);
    int code = last_code();
    CHECK(code != 0);
    CHECK_EQUAL(unregisterLocalMemory(a, source), -3);
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, fails_otherwise, NULL), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK_EQUAL(last_code(), MOONCAKE_TRANSFER_ADDRESS_NOT_REGISTERED);
    destroyTransferEngine(a);
    CHECK_EQUAL(last_code(), MOONCAKE_TRANSFER_ADDRESS_NOT_REGISTERED);
}

/* A peer that accepts and says nothing: an open ends, in bounded time, with a record that names it. */
static void silent_peer(void) {
    struct addrinfo hints, *place = NULL;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICHOST;
    CHECK_EQUAL(getaddrinfo(loopback(), "0", &hints, &place), 0);
    int listener = socket(place->ai_family, SOCK_STREAM, 0);
    CHECK_EQUAL(bind(listener, place->ai_addr, place->ai_addrlen), 0);
    CHECK_EQUAL(listen(listener, 8), 0);
    /* The port stands at the same place for both families. */
    struct sockaddr_in6 address;
    socklen_t length = sizeof address;
    CHECK_EQUAL(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    const char *name = loopback_session(ntohs(address.sin6_port));
    freeaddrinfo(place);
    transfer_engine_t a = make();
    long long start = now_ms();
    CHECK_EQUAL(openSegment(a, name), -1);
    CHECK(now_ms() - start < LIMIT_MS);
    CHECK(strstr(last_error_text(), name) != NULL);
    CHECK(mooncake_transfer_probe(a, name) < 0);
    destroyTransferEngine(a);
    close(listener);
}

static void graceful(void) {
    transfer_engine_t a = make();
    CHECK_EQUAL(enableGracefulShutdown(a), 0);
    CHECK_EQUAL(enableGracefulShutdown(a), 0);
    printf("ready\n");
    fflush(stdout);
    for (;;) pause();
}

static void graceful_exit(void) {
    CHECK_EQUAL(enableGracefulShutdown(make()), 0);
    make(); /* left alone: an exit with engines alive must not crash */
}

/* Many threads on one engine, each with batches of its own, while another opens, registers and polls. */
static transfer_engine_t shared_engine;
static int shared_segment;
static char shared_memory[8][65536];

static void *worker(void *argument) {
    char *mine = shared_memory[(size_t)(uintptr_t)argument];
    for (int round = 0; round < 200; round++) {
        memset(mine, round, 32768);
        struct transfer_request write = request(OPCODE_WRITE, mine, shared_segment, mine + 32768, 32768);
        batch_id_t still;
        CHECK_EQUAL(mooncake_transfer_run(shared_engine, &write, 1, LIMIT_MS, &still), 0);
        CHECK(memcmp(mine, mine + 32768, 32768) == 0);
    }
    return NULL;
}

static void threads(void) {
    transfer_engine_t b = make();
    shared_engine = make();
    CHECK_EQUAL(registerLocalMemory(b, shared_memory, sizeof shared_memory, "cpu:0", 1), 0);
    char name[64];
    name_of(b, name, sizeof name);
    shared_segment = openSegment(shared_engine, name);
    CHECK_EQUAL(shared_segment, 1);
    pthread_t workers[8];
    for (uintptr_t i = 0; i < 8; i++) CHECK_EQUAL(pthread_create(&workers[i], NULL, worker, (void *)i), 0);
    for (int i = 0; i < 50; i++) {
        CHECK_EQUAL(registerLocalMemory(shared_engine, extra, sizeof extra, "cpu:0", 1), 0);
        CHECK_EQUAL(openSegment(shared_engine, name), 1);
        CHECK_EQUAL(unregisterLocalMemory(shared_engine, extra), 0);
    }
    for (int i = 0; i < 8; i++) CHECK_EQUAL(pthread_join(workers[i], NULL), 0);
    destroyTransferEngine(shared_engine);
    destroyTransferEngine(b);
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        void (*run)(void);
    } scenarios[] = {
        {"names_and_transports", names_and_transports},
        {"segments", segments},
        {"registration", registration},
        {"transfers", transfers},
        {"notifications", notifications},
        {"handles", handles},
        {"after_fork", after_fork},
        {"log_sink", log_sink},
        {"last_error_per_thread", last_error_per_thread},
        {"silent_peer", silent_peer},
        {"graceful", graceful},
        {"graceful_exit", graceful_exit},
        {"threads", threads},
    };
    for (size_t i = 0; count == 2 && i < sizeof scenarios / sizeof *scenarios; i++) {
        if (strcmp(arguments[1], scenarios[i].name) == 0) {
            scenarios[i].run();
            printf("%s: passed\n", arguments[1]);
            return 0;
        }
    }
    fprintf(stderr, "usage: %s SCENARIO\n", arguments[0]);
    return 2;
}
