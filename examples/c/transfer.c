/* Moves a block from NPU 1 to NPU 0, between two engines of this process.
 *
 *   cc transfer.c $(pkg-config --cflags --libs mooncake-transfer) -o transfer
 *
 * Without an NPU, use the software NPU that `make install` puts into lib/cann-sim:
 *
 *   export MOONCAKE_TRANSFER_CANN_PATH=PREFIX/lib/cann-sim LD_LIBRARY_PATH=PREFIX/lib:PREFIX/lib/cann-sim
 */
#include <dlfcn.h>
#include <mooncake_transfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES 131072
#define REGION_BYTES (2 << 20) /* a huge page: what NPU links take */

static void require(int condition, const char *what) {
    struct mooncake_transfer_error error = {.struct_size = sizeof error};
    if (condition) return;
    fprintf(stderr, "%s: %s\n", what, mooncake_transfer_last_error(&error) == 0 ? error.text : "failed");
    exit(1);
}

/* Your framework has its NPU memory already; this program asks CANN for some, on the given device. */
static int (*set_device)(int), (*copy)(void *, size_t, const void *, size_t, int);
static void *block_on(int device) {
    static int (*init)(const char *), (*allocate)(void **, size_t, int);
    void *cann = dlopen("libascendcl.so", RTLD_NOW), *block = NULL;
    require(cann != NULL, "libascendcl.so");
    *(void **)&init = dlsym(cann, "aclInit");
    *(void **)&set_device = dlsym(cann, "aclrtSetDevice");
    *(void **)&allocate = dlsym(cann, "aclrtMalloc");
    *(void **)&copy = dlsym(cann, "aclrtMemcpy");
    init(NULL); /* a second call is refused, which does no harm */
    require(set_device(device) == 0 && allocate(&block, REGION_BYTES, 0) == 0, "NPU memory");
    return block;
}

static transfer_engine_t engine_on(int device, void *block) {
    struct mooncake_transfer_options options = {sizeof options, "P2PHANDSHAKE", "127.0.0.1", device, 0};
    transfer_engine_t engine;
    char location[16];
    snprintf(location, sizeof location, "npu:%d", device);
    require(mooncake_transfer_create(&options, &engine) == 0, "create");
    require(installTransport(engine, "ascend", NULL) != NULL, "install");
    require(registerLocalMemory(engine, block, REGION_BYTES, location, 1) == 0, "register");
    return engine;
}

int main(void) {
    static char sent[BLOCK_BYTES], received[BLOCK_BYTES];
    memset(sent, 'K', sizeof sent);
    void *source = block_on(1);
    transfer_engine_t prefill = engine_on(1, source);
    require(copy(source, BLOCK_BYTES, sent, BLOCK_BYTES, 1) == 0, "copy to the NPU");
    void *target = block_on(0);
    transfer_engine_t decode = engine_on(0, target);

    char name[256]; /* the prefill side tells its name and addresses to the decode side, by any means */
    require(mooncake_transfer_session_name(prefill, name, sizeof name) == 0, "name");
    int segment = openSegment(decode, name);
    require(segment >= 0, "open");

    struct transfer_request request = {OPCODE_READ, target, segment, (uint64_t)(uintptr_t)source, BLOCK_BYTES};
    batch_id_t still_running;
    require(mooncake_transfer_run(decode, &request, 1, 10000, &still_running) == 0, "transfer");

    require(copy(received, BLOCK_BYTES, target, BLOCK_BYTES, 2) == 0, "copy from the NPU");
    require(memcmp(sent, received, BLOCK_BYTES) == 0, "comparison");
    printf("%d bytes moved from NPU 1 to NPU 0\n", BLOCK_BYTES);
    destroyTransferEngine(decode);
    destroyTransferEngine(prefill);
    return 0;
}
