/* Installs the Ascend transport and says how that went; afterwards the engine still serves host memory. */
#include "check.h"

int main(void) {
    char source[64] = "still here", target[64] = "";
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", NULL, 0, 0);
    CHECK(engine != NULL);
    transport_t first = installTransport(engine, "ascend", NULL);
    struct mooncake_transfer_error error;
    error.struct_size = sizeof error;
    if (first != NULL) {
        CHECK(installTransport(engine, "ascend", NULL) == first);
        printf("installed\n");
    } else {
        CHECK_EQUAL(mooncake_transfer_last_error(&error), 0);
        printf("failed %s %s %s\n", error.code_name, error.stage_name, error.text);
    }
    CHECK_EQUAL(registerLocalMemory(engine, target, sizeof target, "cpu:0", 1), 0);
    struct transfer_request request = {OPCODE_WRITE, source, LOCAL_SEGMENT, (uint64_t)(uintptr_t)target, sizeof source};
    batch_id_t still;
    CHECK_EQUAL(mooncake_transfer_run(engine, &request, 1, LIMIT_MS, &still), 0);
    CHECK(strcmp(target, "still here") == 0);
    destroyTransferEngine(engine);
    return 0;
}
