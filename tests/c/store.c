/* The store from C: upstream's functions and ours. The first argument is the scenario, the second the master's
 * host:port; NULL handles, memory that is not there and handles of another kind are errors, never crashes. */
#include "check.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEGMENT (32u << 20)
#define NOT_FOUND MOONCAKE_TRANSFER_STORE_OBJECT_NOT_FOUND
#define INVALID MOONCAKE_TRANSFER_STORE_INVALID_PARAMS

static const char *master;

static mooncake_store_t join(uint64_t segment) {
    mooncake_store_t store = mooncake_store_create();
    CHECK(store != NULL);
    CHECK_EQUAL(mooncake_store_setup(store, "127.0.0.1", "P2PHANDSHAKE", segment, 1 << 20, "tcp", "", master), 0);
    return store;
}

static void arguments(void) {
    char text[64], block[64];
    int result = 7;
    int64_t length = 7;
    uint64_t one = 1, address = (uint64_t)(uintptr_t)block;
    const char *key = "key";
    void *buffer = block;
    size_t size = sizeof block;
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    mooncake_store_t closed = mooncake_store_create(), fresh = mooncake_store_create();
    mooncake_store_destroy(closed);
    mooncake_store_destroy(closed);
    mooncake_store_destroy(NULL);
    mooncake_store_t bad[] = {NULL, closed, fresh, engine, block};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        mooncake_store_t store = bad[i];
        CHECK_EQUAL(mooncake_store_health_check(store), 1);
        CHECK_EQUAL(mooncake_store_put(store, "key", "value", 5, NULL), INVALID);
        CHECK_EQUAL(mooncake_store_put_from(store, "key", block, 5, NULL), INVALID);
        CHECK_EQUAL(mooncake_store_batch_put_from(store, &key, &buffer, &size, 1, NULL, &result), INVALID);
        CHECK_EQUAL(mooncake_store_get_into(store, "key", block, sizeof block), INVALID);
        CHECK_EQUAL(mooncake_store_batch_get_into(store, &key, &buffer, &size, 1, &length), INVALID);
        CHECK_EQUAL(mooncake_store_is_exist(store, "key"), INVALID);
        CHECK_EQUAL(mooncake_store_batch_is_exist(store, &key, 1, &result), INVALID);
        CHECK_EQUAL(mooncake_store_get_size(store, "key"), INVALID);
        CHECK_EQUAL(mooncake_store_get_hostname(store, text, sizeof text), -1);
        CHECK_EQUAL(mooncake_store_remove(store, "key", 0), INVALID);
        CHECK_EQUAL(mooncake_store_remove_by_regex(store, "key", 0), INVALID);
        CHECK_EQUAL(mooncake_store_remove_all(store, 0), INVALID);
        CHECK_EQUAL(mooncake_store_register_buffer(store, block, 64), INVALID);
        CHECK_EQUAL(mooncake_store_unregister_buffer(store, block), INVALID);
        CHECK_EQUAL(mooncake_store_init_all(store, "tcp", "", 0), INVALID);
        CHECK_EQUAL(mooncake_transfer_store_put(store, "key", (uint64_t[]){3}, 1, &one, &address, &one, NULL, 0, &length),
                    INVALID);
        CHECK_EQUAL(mooncake_transfer_store_exist(store, "key", (uint64_t[]){3}, 1, &length), INVALID);
        CHECK(result == 7 && length == 7);
        CHECK_EQUAL(mooncake_transfer_store_setup(store, NULL), INVALID);
        CHECK(last_code() == MOONCAKE_TRANSFER_INVALID_ARGUMENT || last_code() == MOONCAKE_TRANSFER_STALE_HANDLE);
    }
    /* A fresh one says what is missing; the others that they are no stores. */
    CHECK_EQUAL(mooncake_store_is_exist(fresh, "key"), INVALID);
    CHECK(strstr(last_error_text(), "not set up") != NULL);
    CHECK_EQUAL(mooncake_store_is_exist(engine, "key"), INVALID);
    CHECK(strstr(last_error_text(), "not a handle") != NULL);
    CHECK_EQUAL(mooncake_transfer_store_close(fresh), 0);
    CHECK_EQUAL(mooncake_transfer_store_close(NULL), INVALID);
    size_t left = 7;
    CHECK_EQUAL(mooncake_transfer_store_drain(fresh, 0, &left), INVALID);
    CHECK_EQUAL(left, 7);

    CHECK_EQUAL(mooncake_store_setup(fresh, NULL, "P2PHANDSHAKE", 0, 0, NULL, NULL, NULL), INVALID);
    CHECK(strstr(last_error_text(), "local_hostname") != NULL);
    CHECK_EQUAL(mooncake_store_setup(fresh, "127.0.0.1", "P2PHANDSHAKE", 5, 0, "tcp", "", master), INVALID);
    CHECK_EQUAL(mooncake_store_setup(fresh, "127.0.0.1", "P2PHANDSHAKE", 0, 0, "pigeon", "", master), INVALID);
    CHECK(strstr(last_error_text(), "pigeon") != NULL);
    struct mooncake_transfer_store_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = 8;
    CHECK_EQUAL(mooncake_transfer_store_setup(fresh, &options), INVALID);
    CHECK(strstr(last_error_text(), "struct_size") != NULL);
    options.struct_size = sizeof options;
    options.local_hostname = "127.0.0.1";
    options.metadata_server = "P2PHANDSHAKE";
    options.master_address = master;
    options.engine = fresh;
    CHECK_EQUAL(mooncake_transfer_store_setup(fresh, &options), INVALID);
    options.engine = NULL;
    CHECK_EQUAL(mooncake_transfer_store_setup(fresh, &options), 0);

    /* Set up, and then with arguments that cannot be used. */
    CHECK_EQUAL(mooncake_store_health_check(fresh), 0);
    CHECK_EQUAL(mooncake_transfer_store_drain(fresh, 0, NULL), INVALID);
    CHECK_EQUAL(mooncake_transfer_store_drain(fresh, -1, &left), 0);
    CHECK_EQUAL(left, 0);
    CHECK_EQUAL(mooncake_store_put(fresh, NULL, "value", 5, NULL), INVALID);
    CHECK_EQUAL(mooncake_store_put(fresh, "key", NULL, 5, NULL), INVALID);
    CHECK_EQUAL(mooncake_store_put(fresh, "key", "value", 5, NULL), INVALID);
    CHECK_EQUAL(mooncake_store_get_into(fresh, "key", block, 64), NOT_FOUND);
    CHECK_EQUAL(mooncake_store_batch_get_into(fresh, NULL, &buffer, &size, 1, &length), INVALID);
    CHECK_EQUAL(mooncake_store_batch_get_into(fresh, &key, &buffer, &size, 1, NULL), INVALID);
    CHECK_EQUAL(mooncake_store_batch_get_into(fresh, NULL, NULL, NULL, 0, NULL), 0);
    CHECK_EQUAL(mooncake_store_get_hostname(fresh, text, 3), -1);
    CHECK_EQUAL(mooncake_store_get_hostname(fresh, NULL, 100), -1);
    CHECK_EQUAL(mooncake_transfer_store_put(fresh, "key", (uint64_t[]){3}, 1, &one, &address, &one, NULL, 64, &length),
                INVALID);
    CHECK(strstr(last_error_text(), "flags") != NULL);
    CHECK_EQUAL(mooncake_transfer_store_get(fresh, "key", (uint64_t[]){UINT64_MAX}, 1, &one, &address, &one, 0, &length),
                INVALID);
    CHECK_EQUAL(mooncake_transfer_store_get(fresh, "key", (uint64_t[]){3}, 1, (uint64_t[]){UINT64_MAX}, &address, &one,
                                            0, &length),
                INVALID);
    struct mooncake_transfer_store_replication placement;
    memset(&placement, 0, sizeof placement);
    placement.struct_size = sizeof placement;
    placement.replica_count = 1;
    placement.soft_pin = 9;
    CHECK_EQUAL(mooncake_transfer_store_put(fresh, "key", (uint64_t[]){3}, 1, &one, &address, &one, &placement, 0,
                                            &length),
                INVALID);
    CHECK(strstr(last_error_text(), "soft_pin") != NULL);
    CHECK(length == 7);
    mooncake_store_destroy(fresh);
    destroyTransferEngine(engine);
}

static void codes(void) {
    CHECK(strcmp(mooncake_transfer_store_code_name(-704), "OBJECT_NOT_FOUND") == 0);
    CHECK(strcmp(mooncake_transfer_store_code_name(0), "OK") == 0);
    CHECK(strcmp(mooncake_transfer_store_code_name(12345), "UNKNOWN") == 0);
    CHECK(strstr(mooncake_transfer_store_code_text(-200), "full") != NULL);
    CHECK(strcmp(mooncake_transfer_store_code_text(12345), "") == 0);
}

static void values(void) {
    mooncake_store_t owner = join(SEGMENT), reader = join(0);
    char name[64], block[4096], copy[8192];
    CHECK_EQUAL(mooncake_store_get_hostname(owner, name, sizeof name), 0);
    CHECK(strncmp(name, "127.0.0.1:", 10) == 0 && atoi(name + 10) >= 1024);
    memset(block, 'b', sizeof block);
    CHECK_EQUAL(mooncake_store_register_buffer(reader, copy, sizeof copy), 0);
    CHECK_EQUAL(mooncake_store_register_buffer(reader, copy, sizeof copy), INVALID);
    const char *segments[] = {name};
    struct mooncake_replicate_config config = {1, 1, 0, segments, 1};
    CHECK_EQUAL(mooncake_store_put(reader, "c/one", "value", 5, &config), 0);
    CHECK_EQUAL(mooncake_store_put(reader, "c/one", "other", 5, NULL), 0);
    CHECK_EQUAL(mooncake_store_put_from(reader, "c/two", block, sizeof block, NULL), 0);
    CHECK_EQUAL(mooncake_store_get_size(owner, "c/two"), 4096);
    memset(copy, 0, sizeof copy);
    CHECK_EQUAL(mooncake_store_get_into(owner, "c/one", copy, sizeof copy), 5);
    CHECK(memcmp(copy, "value\0", 6) == 0);
    CHECK_EQUAL(mooncake_store_get_into(reader, "c/two", copy, sizeof copy), 4096);
    CHECK(memcmp(copy, block, sizeof block) == 0 && copy[4096] == 0);
    CHECK_EQUAL(mooncake_store_get_into(reader, "c/two", copy, 4095), INVALID);
    CHECK_EQUAL(mooncake_store_is_exist(reader, "c/one"), 1);
    CHECK_EQUAL(mooncake_store_is_exist(reader, "c/none"), 0);

    const char *keys[] = {"c/b0", "c/b1", "c/b2"};
    void *sources[] = {block, block + 1000, block}, *places[] = {copy, copy + 2000, copy + 4000};
    size_t sizes[] = {1000, 2000, 0}, room[] = {1000, 2000, 4000};
    int results[3];
    CHECK_EQUAL(mooncake_store_batch_put_from(owner, keys, sources, sizes, 3, NULL, results), 0);
    CHECK(results[0] == 0 && results[1] == 0 && results[2] == INVALID);
    int64_t lengths[3];
    CHECK_EQUAL(mooncake_store_batch_get_into(reader, keys, places, room, 3, lengths), 0);
    CHECK(lengths[0] == 1000 && lengths[1] == 2000 && lengths[2] == NOT_FOUND);
    CHECK(memcmp(copy, block, 1000) == 0 && memcmp(copy + 2000, block, 2000) == 0);
    CHECK_EQUAL(mooncake_store_batch_is_exist(reader, keys, 3, results), 0);
    CHECK(results[0] == 1 && results[1] == 1 && results[2] == 0);
    CHECK_EQUAL(mooncake_store_remove(reader, "c/none", 0), NOT_FOUND);
    CHECK_EQUAL(mooncake_store_remove(reader, "c/one", 0), MOONCAKE_TRANSFER_STORE_OBJECT_HAS_LEASE);
    CHECK_EQUAL(mooncake_store_remove(reader, "c/one", 1), 0);
    CHECK_EQUAL(mooncake_store_remove_by_regex(reader, "b[01]$", 1), 2);
    CHECK_EQUAL(mooncake_store_remove_by_regex(reader, "(", 1), INVALID);
    CHECK_EQUAL(mooncake_store_remove_all(reader, 1), 1);
    CHECK_EQUAL(mooncake_store_unregister_buffer(reader, copy), 0);
    CHECK_EQUAL(mooncake_store_unregister_buffer(reader, copy), INVALID);
    CHECK_EQUAL(mooncake_transfer_store_close(owner), 0);
    CHECK_EQUAL(mooncake_store_health_check(owner), 1);
    CHECK_EQUAL(mooncake_store_setup(owner, "127.0.0.1", "P2PHANDSHAKE", SEGMENT, 1 << 20, NULL, NULL, master), 0);
    CHECK_EQUAL(mooncake_store_put(owner, "c/again", "value", 5, NULL), 0);
    mooncake_store_destroy(owner);
    mooncake_store_destroy(reader);
}

static void many_buffers(void) {
    mooncake_store_t store = join(SEGMENT);
    static char source[78 * 56 * 64], target[sizeof source];
    for (size_t i = 0; i < sizeof source; i++) source[i] = (char)(i * 31 + (i >> 9));
    static uint64_t key_lengths[78], counts[78], from[78 * 56], to[78 * 56], lengths[78 * 56];
    static char keys[78 * 8];
    int64_t results[78];
    for (size_t key = 0; key < 78; key++) {
        /* Each key has a NUL inside. */
        key_lengths[key] = (uint64_t)sprintf(keys + key * 5, "%02zuxx", key) + 1;
        keys[key * 5 + 2] = '\0';
        counts[key] = 56;
        for (size_t part = 0; part < 56; part++) {
            size_t at = key * 56 + part;
            from[at] = (uint64_t)(uintptr_t)(source + 64 * at);
            to[at] = (uint64_t)(uintptr_t)(target + 64 * (key * 56 + 55 - part));
            lengths[at] = 64;
        }
    }
    CHECK_EQUAL(mooncake_transfer_store_put(store, keys, key_lengths, 78, counts, from, lengths, NULL, 0, results), 0);
    for (size_t key = 0; key < 78; key++) CHECK_EQUAL(results[key], 0);
    uint32_t exact = MOONCAKE_TRANSFER_STORE_EXACT;
    CHECK_EQUAL(mooncake_transfer_store_get(store, keys, key_lengths, 78, counts, to, lengths, exact, results), 0);
    for (size_t key = 0; key < 78; key++) CHECK_EQUAL(results[key], 56 * 64);
    for (size_t at = 0; at < 78 * 56; at++) {
        size_t turned = at / 56 * 56 + 55 - at % 56;
        CHECK(memcmp(target + 64 * turned, source + 64 * at, 64) == 0);
    }
    CHECK_EQUAL(mooncake_transfer_store_sizes(store, keys, key_lengths, 78, results), 0);
    CHECK(results[0] == 56 * 64 && results[77] == 56 * 64);
    CHECK_EQUAL(mooncake_transfer_store_exist(store, keys, key_lengths, 78, results), 0);
    CHECK(results[0] == 1 && results[77] == 1);
    /* Parts: the last 10 bytes of the first object and its first one; the second object has no byte 3584. */
    uint64_t parts[] = {2, 1}, offsets[] = {56 * 64 - 10, 0, 56 * 64}, part_lengths[] = {10, 1, 1};
    uint64_t places[] = {(uint64_t)(uintptr_t)target, (uint64_t)(uintptr_t)(target + 10), (uint64_t)(uintptr_t)(target + 20)};
    memset(target, 'x', 32);
    CHECK_EQUAL(mooncake_transfer_store_get_ranges(store, keys, key_lengths, 2, parts, places, part_lengths, offsets,
                                                   results),
                0);
    CHECK(results[0] == 10 && results[1] == 1 && results[2] == INVALID);
    CHECK(memcmp(target, source + 56 * 64 - 10, 10) == 0 && target[10] == source[0] && target[20] == 'x');
    /* An upsert replaces, by way of the local buffer or not. */
    CHECK_EQUAL(mooncake_transfer_store_remove(store, keys, key_lengths, 78, 1, results), 0);
    uint64_t one = 1, five = 5, new_place = (uint64_t)(uintptr_t) "fresh";
    for (uint32_t flags = 0; flags < 4; flags++) {
        CHECK_EQUAL(mooncake_transfer_store_put(store, keys, key_lengths, 1, &one, &new_place, &five, NULL, flags, results),
                    0);
        CHECK_EQUAL(results[0], 0);
    }
    char text[2048];
    size_t length = 0;
    CHECK_EQUAL(mooncake_transfer_store_replicas(store, keys, key_lengths, 2, text, 2, &length),
                MOONCAKE_TRANSFER_STORE_BUFFER_OVERFLOW);
    CHECK(length > 2 && length < sizeof text);
    CHECK_EQUAL(mooncake_transfer_store_replicas(store, keys, key_lengths, 2, text, sizeof text, &length), 0);
    CHECK(strlen(text) == length && strstr(text, "\"size\":5") != NULL && strstr(text, ",null]") != NULL);
    CHECK_EQUAL(mooncake_transfer_store_clear(store, keys, key_lengths, 1, "no such segment", results), 0);
    CHECK_EQUAL(results[0], 0);
    mooncake_store_destroy(store);
}

static void shared_engine(void) {
    for (int engine_first = 0; engine_first < 2; engine_first++) {
        transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
        char session[256], name[256], block[64] = "block", copy[64];
        CHECK_EQUAL(mooncake_transfer_session_name(engine, session, sizeof session), 0);
        CHECK_EQUAL(registerLocalMemory(engine, block, sizeof block, "cpu:0", 1), 0);
        mooncake_store_t store = mooncake_store_create();
        struct mooncake_transfer_store_options options;
        memset(&options, 0, sizeof options);
        options.struct_size = sizeof options;
        options.local_hostname = session;
        options.metadata_server = "P2PHANDSHAKE";
        options.master_address = master;
        options.global_segment_size_bytes = SEGMENT;
        options.engine = engine;
        CHECK_EQUAL(mooncake_transfer_store_setup(store, &options), 0);
        CHECK_EQUAL(mooncake_store_get_hostname(store, name, sizeof name), 0);
        CHECK(strcmp(name, session) == 0);
        if (engine_first) {
            destroyTransferEngine(engine);
            CHECK_EQUAL(registerLocalMemory(engine, copy, sizeof copy, "cpu:0", 1), -1);
        } else {
            mooncake_store_t other = mooncake_store_create();
            CHECK_EQUAL(mooncake_transfer_store_setup(other, &options), 0);
            mooncake_store_destroy(other);
        }
        CHECK_EQUAL(mooncake_store_put_from(store, "shared", block, sizeof block, NULL), 0);
        CHECK_EQUAL(mooncake_store_get_into(store, "shared", copy, sizeof copy), (int64_t)sizeof copy);
        CHECK(memcmp(block, copy, sizeof block) == 0);
        mooncake_store_destroy(store);
        if (!engine_first) {
            CHECK_EQUAL(registerLocalMemory(engine, copy, sizeof copy, "cpu:0", 1), 0);
            destroyTransferEngine(engine);
        }
    }
}

static void after_fork(void) {
    mooncake_store_t store = join(SEGMENT);
    CHECK_EQUAL(mooncake_store_put(store, "forked", "value", 5, NULL), 0);
    pid_t child = fork();
    if (child == 0) {
        char copy[8];
        CHECK_EQUAL(mooncake_store_get_into(store, "forked", copy, sizeof copy), INVALID);
        CHECK_EQUAL(last_code(), MOONCAKE_TRANSFER_STALE_HANDLE);
        CHECK_EQUAL(mooncake_store_health_check(store), 1);
        mooncake_store_destroy(store);
        mooncake_store_t fresh = join(0);
        CHECK_EQUAL(mooncake_store_get_into(fresh, "forked", copy, sizeof copy), 5);
        mooncake_store_destroy(fresh);
        _exit(5);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 5);
    CHECK_EQUAL(mooncake_store_is_exist(store, "forked"), 1);
    mooncake_store_destroy(store);
}

static void *use(void *store) {
    char key[32], copy[16];
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "thread/%d", i % 20);
        int code = mooncake_store_put(store, key, "0123456789", 10, NULL);
        CHECK(code == 0 || code == INVALID || code == MOONCAKE_TRANSFER_STORE_RPC_FAIL ||
              code == MOONCAKE_TRANSFER_STORE_TRANSFER_FAIL || code == MOONCAKE_TRANSFER_STORE_NO_AVAILABLE_HANDLE ||
              code == MOONCAKE_TRANSFER_STORE_SEGMENT_NOT_FOUND || code == NOT_FOUND);
        int64_t length = mooncake_store_get_into(store, key, copy, sizeof copy);
        if (length >= 0) CHECK(length == 10 && memcmp(copy, "0123456789", 10) == 0);
    }
    return NULL;
}

/* Closed, set up again and destroyed while eight threads use it. */
static void threads(void) {
    mooncake_store_t store = join(SEGMENT);
    pthread_t started[8];
    for (int i = 0; i < 8; i++) CHECK_EQUAL(pthread_create(&started[i], NULL, use, store), 0);
    for (int i = 0; i < 3; i++) {
        pause_briefly();
        CHECK_EQUAL(mooncake_transfer_store_close(store), 0);
        CHECK_EQUAL(mooncake_store_setup(store, "127.0.0.1", "P2PHANDSHAKE", SEGMENT, 1 << 20, "tcp", "", master), 0);
    }
    mooncake_store_destroy(store);
    for (int i = 0; i < 8; i++) CHECK_EQUAL(pthread_join(started[i], NULL), 0);
}

int main(int count, char **words) {
    static const struct {
        const char *name;
        void (*run)(void);
    } scenarios[] = {{"arguments", arguments},         {"codes", codes},           {"values", values},
                     {"many_buffers", many_buffers},   {"shared_engine", shared_engine},
                     {"after_fork", after_fork},       {"threads", threads}};
    CHECK(count == 3);
    master = words[2];
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
        if (strcmp(scenarios[i].name, words[1]) == 0) {
            scenarios[i].run();
            printf("%s: passed\n", words[1]);
            return 0;
        }
    }
    fprintf(stderr, "no scenario %s\n", words[1]);
    return 2;
}
