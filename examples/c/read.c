#include <mooncake_transfer.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    static char block[131072], copy[sizeof block];
    memset(block, 'K', sizeof block);

    /* The side that has the block: registers it, and tells its name and the address by any means. */
    transfer_engine_t prefill = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", NULL, 0, 0);
    if (registerLocalMemory(prefill, block, sizeof block, "cpu:0", 1) != 0) return 1;
    char name[256];
    mooncake_transfer_session_name(prefill, name, sizeof name);

    /* The side that wants it: opens the other by name and reads. */
    transfer_engine_t decode = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", NULL, 0, 0);
    if (registerLocalMemory(decode, copy, sizeof copy, "cpu:0", 1) != 0) return 1;
    int segment = openSegment(decode, name);
    struct transfer_request read = {OPCODE_READ, copy, segment, (uint64_t)(uintptr_t)block, sizeof block};
    batch_id_t still_running;
    int code = mooncake_transfer_run(decode, &read, 1, 1000, &still_running);
    printf("%s, the bytes are %s\n", code == 0 ? "read" : mooncake_transfer_code_name(code),
           memcmp(block, copy, sizeof block) == 0 ? "right" : "wrong");

    destroyTransferEngine(decode);
    destroyTransferEngine(prefill);
    return code;
}
