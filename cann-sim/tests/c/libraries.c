/* Which library has which function in the posed release, seen through dlsym as a program sees it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include "check.h"

static int has(const char *library, const char *symbol) {
    void *handle = dlopen(library, RTLD_NOW);
    if (handle == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    void *address = dlsym(handle, symbol);
    int version[3];
    if (address != NULL && strcmp(symbol, "aclrtGetVersion") == 0)
        OK(((aclError(*)(int *, int *, int *))address)(&version[0], &version[1], &version[2])); /* it can be called */
    return address != NULL;
}

static void until_8_2(void) {
    TRUE(has("libascendcl.so", "aclrtGetVersion"));
    TRUE(!has("libacl_rt.so", "aclrtGetVersion"));
    TRUE(has("libhccl.so", "HcclRegisterMem"));
    TRUE(has("libhccl.so", "HcclExchangeMemDesc"));
    TRUE(has("libhccl.so", "HcclEnableMemAccess"));
    TRUE(has("libhccl.so", "HcclAllReduce"));
    TRUE(!has("libhccl.so", "HcclRegisterGlobalMem"));
    TRUE(!has("libhccl.so", "HcclCommPrepare"));
    TRUE(!has("libhcomm.so", "HcclRegisterMem"));
    TRUE(has("libascendcl.so", "aclrtMemcpyBatch"));
    TRUE(!has("libascendcl.so", "aclrtMemcpyBatchAsync"));
    TRUE(!has("libascendcl.so", "aclrtGetPhyDevIdByLogicDevId"));
    TRUE(has("libascendcl.so", "rtGetDevicePhyIdByIndex")); /* by its dependency */
}

static void release_8_3(void) {
    TRUE(has("libascendcl.so", "aclrtLaunchHostFunc"));
    TRUE(!has("libacl_rt.so", "aclrtLaunchHostFunc"));
    TRUE(has("libhccl.so", "HcclCommPrepare"));
    TRUE(!has("libhcomm.so", "HcclCommPrepare"));
    TRUE(!has("libascendcl.so", "aclrtMemGetAddressRange"));
}

static void release_8_5(void) {
    TRUE(has("libascendcl.so", "aclrtGetVersion")); /* by its dependency */
    TRUE(has("libacl_rt.so", "aclrtGetVersion"));
    TRUE(has("libacl_rt.so", "aclrtGetPhyDevIdByLogicDevId"));
    TRUE(has("libhcomm.so", "HcclBatchPut"));
    TRUE(!has("libhcomm.so", "HcclAllReduce"));
    TRUE(has("libhccl.so", "HcclAllReduce"));
    TRUE(!has("libacl_rt.so", "aclrtMemGetAddressRange"));
    TRUE(!has("libacl_rt.so", "aclrtMemcpyBatchV2"));
    TRUE(!has("libacl_rt.so", "HcclBatchPut"));
}

static void release_9_1(void) {
    TRUE(has("libacl_rt.so", "aclrtMemGetAddressRange"));
    TRUE(has("libacl_rt.so", "aclrtMemcpyBatchV2"));
    TRUE(has("libhcomm.so", "HcclCommPrepare"));
}

static void hidden_by_name(void) {
    TRUE(!has("libhcomm.so", "HcclBatchPut"));
    TRUE(!has("libascendcl.so", "aclrtMemcpyBatch"));
    TRUE(has("libhcomm.so", "HcclBatchGet"));
}

MAIN(CASE(until_8_2), CASE(release_8_3), CASE(release_8_5), CASE(release_9_1), CASE(hidden_by_name))
