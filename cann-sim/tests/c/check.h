/* Expectations of the C tests: a failed one prints where and what, and ends the process with 1. */
#ifndef CANN_SIM_TEST_CHECK_H
#define CANN_SIM_TEST_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cann.h"

#define EXPECT(expression, expected)                                                                       \
    do {                                                                                                   \
        long long seen_ = (long long)(expression), expected_ = (long long)(expected);                      \
        if (seen_ != expected_) {                                                                          \
            const char *text_ = aclGetRecentErrMsg();                                                      \
            fprintf(stderr, "%s:%d: %s is %lld, expected %lld (%s)\n", __FILE__, __LINE__, #expression,    \
                    seen_, expected_, text_ ? text_ : "no text");                                          \
            exit(1);                                                                                       \
        }                                                                                                  \
    } while (0)
#define OK(expression) EXPECT(expression, 0)
#define TRUE(expression) EXPECT(!!(expression), 1)

/* The version-5 config that every caller of the communicator path passes. */
static inline HcclCommConfig config_named(const char *name) {
    HcclCommConfig config;
    memset(&config, 0, sizeof config);
    config.size = 300;
    config.magic = 0xF0F0F0F0u;
    config.version = 5;
    config.bufferSize = 200;
    config.trafficClass = config.serviceLevel = 0xFFFFFFFFu;
    strncpy(config.name, name, sizeof config.name - 1);
    return config;
}

/* One server, two NPUs. */
static inline const char *near_table(int first, int second) {
    static __thread char text[512];
    snprintf(text, sizeof text,
             "{\"version\":\"1.0\",\"status\":\"completed\",\"server_count\":\"1\",\"server_list\":[{\"server_id\":"
             "\"10.0.0.7\",\"device\":[{\"device_id\":\"%d\",\"rank_id\":\"0\"},"
             "{\"device_id\":\"%d\",\"rank_id\":\"1\"}]}]}",
             first, second);
    return text;
}

/* Two servers with one NPU each: RoCE on A2. */
static inline const char *far_table(int first, int second) {
    static __thread char text[640];
    snprintf(text, sizeof text,
             "{\"version\":\"1.0\",\"status\":\"completed\",\"server_count\":\"2\",\"server_list\":["
             "{\"server_id\":\"10.0.0.7\",\"device\":[{\"device_id\":\"%d\",\"device_ip\":\"29.1.0.12\","
             "\"rank_id\":\"0\"}]},{\"server_id\":\"10.0.0.8\",\"device\":[{\"device_id\":\"%d\","
             "\"device_ip\":\"29.1.0.22\",\"rank_id\":\"1\"}]}]}",
             first, second);
    return text;
}

static inline void *device_memory(size_t size) {
    void *address = NULL;
    OK(aclrtMalloc(&address, size, 0));
    return address;
}

static inline void *registered(int type, void *address, size_t size) {
    HcclMem memory = {type, address, size};
    void *handle = NULL;
    OK(HcclRegisterGlobalMem(&memory, &handle));
    return handle;
}

/* A program's cases; main runs the one its argument names. */
struct test_case { const char *name; void (*run)(void); };
static inline int run_case(const struct test_case *cases, size_t count, int argc, char **argv) {
    for (size_t i = 0; i < count; i++) {
        if (argc > 1 && strcmp(cases[i].name, argv[1]) == 0) {
            cases[i].run();
            puts("ok");
            return 0;
        }
    }
    fprintf(stderr, "no such case\n");
    return 2;
}
#define CASE(name) {#name, name}
#define MAIN(...)                                                                                          \
    int main(int argc, char **argv) {                                                                      \
        static const struct test_case cases[] = {__VA_ARGS__};                                             \
        return run_case(cases, sizeof cases / sizeof cases[0], argc, argv);                                \
    }

enum { UINT8 = 7, H2H = 0, H2D = 1, D2H = 2, D2D = 3, KIND_DEFAULT = 4 };
#endif
