/* What the C test programs share: checks that name what failed, and bounded polling. */
#ifndef CHECK_H
#define CHECK_H

#include "mooncake_transfer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/** Longest time that anything in these programs waits. */
#define LIMIT_MS 30000

static inline const char *last_error_text(void) {
    static _Thread_local struct mooncake_transfer_error error;
    error.struct_size = sizeof error;
    return mooncake_transfer_last_error(&error) == 0 ? error.text : "no error";
}

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: failed: %s; last error: %s\n", __FILE__, __LINE__, #condition,           \
                    last_error_text());                                                                      \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

#define CHECK_EQUAL(seen, expected)                                                                          \
    do {                                                                                                     \
        long long seen_value = (long long)(seen), expected_value = (long long)(expected);                    \
        if (seen_value != expected_value) {                                                                  \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld; last error: %s\n", __FILE__, __LINE__, #seen,      \
                    seen_value, expected_value, last_error_text());                                          \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

/** The loopback address that the engines of these programs are named by; TEST_LOOPBACK can name another one. */
static inline const char *loopback(void) {
    const char *chosen = getenv("TEST_LOOPBACK");
    return chosen && *chosen ? chosen : "127.0.0.1";
}

/** The name of whoever has a port there, in a buffer of the calling thread. */
static inline const char *loopback_session(int port) {
    static _Thread_local char name[64];
    snprintf(name, sizeof name, strchr(loopback(), ':') ? "[%s]:%d" : "%s:%d", loopback(), port);
    return name;
}

static inline long long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline void pause_briefly(void) {
    struct timespec short_time = {0, 50000};
    nanosleep(&short_time, NULL);
}

/** Polls one task until it is finished; the state, or -1 when the limit passed or the poll failed. */
static inline int poll_task(transfer_engine_t engine, batch_id_t batch, size_t task, uint64_t *bytes) {
    long long end = now_ms() + LIMIT_MS;
    struct transfer_status status = {-1, 0};
    do {
        if (getTransferStatus(engine, batch, task, &status) != 0) return -1;
        if (status.status != STATUS_WAITING) {
            if (bytes) *bytes = status.transferred_bytes;
            return status.status;
        }
        pause_briefly();
    } while (now_ms() < end);
    return -1;
}

/** The last error's code. */
static inline int last_code(void) {
    struct mooncake_transfer_error error;
    memset(&error, 0, sizeof error);
    error.struct_size = sizeof error;
    return mooncake_transfer_last_error(&error) == 0 ? error.code : 0;
}

#endif
