/* One engine on one NPU, driven by commands on standard input, one line each; the answer is one line that
 * begins with the command's own number:
 *
 *   1 alloc npu|host BYTES            allocate and register a region      -> 1 ok REGION ADDRESS
 *   2 fill REGION SEED                write the pattern of SEED           -> 2 ok
 *   3 check REGION SEED               compare with it                     -> 3 ok | 3 mismatch at BYTE
 *   4 move read|write REGION PEER REMOTE BYTES BLOCK order|scatter        -> 4 ok BYTES
 *     in one batch of BYTES / BLOCK requests, by submitTransfer and getTransferStatus
 *   5 run ...                         the same by mooncake_transfer_run
 *   6 notify PEER NAME TEXT; 7 notes; 8 probe PEER; 9 drop REGION; 10 open PEER; 11 destroy
 *
 * A failure answers "N failed CODE TEXT" with the last error's code name and text. */
#include "check.h"
#include "npu.h"

#define CHUNK_BYTES (16u << 20)
#define HUGE_PAGE_BYTES ((size_t)2 << 20)
#define MAX_REGIONS 64

static struct npu npu;
static transfer_engine_t engine;
static int device;

static struct region {
    char *address;
    size_t length;
    int on_device;
} regions[MAX_REGIONS];
static int region_count;

static char *chunk;

static int fail(int number) {
    struct mooncake_transfer_error error;
    error.struct_size = sizeof error;
    if (mooncake_transfer_last_error(&error) == 0) {
        printf("%d failed %s %s\n", number, error.code_name, error.text);
    } else {
        printf("%d failed none without a record\n", number);
    }
    return -1;
}

/* The word at a position of a pattern: any misplaced or foreign word differs. */
static uint64_t word(uint64_t seed, uint64_t position) {
    uint64_t mixed = (position + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ seed * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ (mixed >> 31)) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ (mixed >> 29);
}

static void copy(void *destination, const void *origin, size_t length, int on_device, int kind) {
    if (!on_device) {
        memcpy(destination, origin, length);
        return;
    }
    int code = npu.memcpy(destination, length, origin, length, kind);
    if (code != 0) {
        fprintf(stderr, "aclrtMemcpy returned %d\n", code);
        exit(3);
    }
}

static void fill(const struct region *region, uint64_t seed) {
    for (size_t start = 0; start < region->length; start += CHUNK_BYTES) {
        size_t length = region->length - start < CHUNK_BYTES ? region->length - start : CHUNK_BYTES;
        for (size_t i = 0; i < length / 8; i++) ((uint64_t *)(void *)chunk)[i] = word(seed, start / 8 + i);
        copy(region->address + start, chunk, length, region->on_device, NPU_HOST_TO_DEVICE);
    }
}

static long long mismatch(const struct region *region, uint64_t seed) {
    for (size_t start = 0; start < region->length; start += CHUNK_BYTES) {
        size_t length = region->length - start < CHUNK_BYTES ? region->length - start : CHUNK_BYTES;
        copy(chunk, region->address + start, length, region->on_device, NPU_DEVICE_TO_HOST);
        for (size_t i = 0; i < length / 8; i++) {
            if (((uint64_t *)(void *)chunk)[i] != word(seed, start / 8 + i)) return (long long)(start + 8 * i);
        }
    }
    return -1;
}

static int allocate(int number, const char *kind, size_t length) {
    struct region *region = &regions[region_count];
    void *address = NULL;
    char location[16] = "cpu:0";
    CHECK(region_count < MAX_REGIONS);
    region->on_device = strcmp(kind, "npu") == 0;
    region->length = length;
    if (region->on_device) {
        /* HCCS takes whole huge pages only, and small allocations do not lie on them. */
        size_t whole = (length + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
        CHECK_EQUAL(npu.malloc(&address, whole, NPU_HUGE_FIRST), 0);
        snprintf(location, sizeof location, "npu:%d", device);
    } else {
        CHECK_EQUAL(posix_memalign(&address, 4096, length), 0);
    }
    region->address = address;
    if (registerLocalMemory(engine, address, length, location, 1) != 0) return fail(number);
    printf("%d ok %d %llu\n", number, region_count++, (unsigned long long)(uintptr_t)address);
    return 0;
}

static size_t gcd(size_t a, size_t b) {
    return b == 0 ? a : gcd(b, a % b);
}

static int move(int number, int by_run, int opcode, const struct region *region, const char *peer, uint64_t remote,
                size_t length, size_t block, int scatter, int timeout_ms) {
    int segment = openSegment(engine, peer);
    if (segment < 0) return fail(number);
    size_t count = length / block, stride = 1;
    if (scatter && count > 2) {
        for (stride = count / 2 + 1; gcd(stride, count) != 1; stride++) continue;
    }
    struct transfer_request *requests = calloc(count, sizeof *requests);
    for (size_t i = 0; i < count; i++) {
        size_t offset = i * stride % count * block;
        requests[i].opcode = opcode;
        requests[i].source = region->address + offset;
        requests[i].target_id = segment;
        requests[i].target_offset = remote + offset;
        requests[i].length = block;
    }
    uint64_t total = 0;
    if (by_run) {
        batch_id_t still;
        int code = mooncake_transfer_run(engine, requests, count, timeout_ms, &still);
        free(requests);
        if (code != 0) return fail(number);
        total = length;
    } else {
        batch_id_t batch = allocateBatchID(engine, count);
        int code = batch == INVALID_BATCH ? -1 : submitTransfer(engine, batch, requests, count);
        free(requests);
        if (code != 0) return fail(number);
        int failed = 0;
        for (size_t i = 0; i < count; i++) {
            uint64_t bytes = 0;
            int state = poll_task(engine, batch, i, &bytes);
            if (state == STATUS_FAILED) {
                if (!failed) fail(number);
                failed = 1;
            } else if (state != STATUS_COMPLETED) {
                fprintf(stderr, "task %zu has state %d\n", i, state);
                exit(1);
            }
            total += bytes;
        }
        CHECK_EQUAL(freeBatchID(engine, batch), 0);
        if (failed) return -1;
    }
    printf("%d ok %llu\n", number, (unsigned long long)total);
    return 0;
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: %s DEVICE LOCAL_NAME\n", arguments[0]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    device = atoi(arguments[1]);
    npu = npu_open(device);
    chunk = malloc(CHUNK_BYTES);
    engine = createTransferEngine("P2PHANDSHAKE", arguments[2], "", 0, 0);
    CHECK(engine != NULL);
    if (installTransport(engine, "ascend", NULL) == NULL) {
        fail(0);
        return 4;
    }
    char name[256];
    CHECK_EQUAL(mooncake_transfer_session_name(engine, name, sizeof name), 0);
    printf("ready %s\n", name);

    char line[1024], a[64], b[256], c[512], order[16];
    while (fgets(line, sizeof line, stdin)) {
        int number = 0, region = 0, used = 0;
        unsigned long long one = 0, two = 0, three = 0;
        long long timeout_ms = LIMIT_MS;
        sscanf(line, "%d %63s %n", &number, a, &used);
        const char *rest = line + used;
        if (strcmp(a, "alloc") == 0 && sscanf(rest, "%255s %llu", b, &one) == 2) {
            allocate(number, b, (size_t)one);
        } else if (strcmp(a, "fill") == 0 && sscanf(rest, "%d %llu", &region, &one) == 2) {
            fill(&regions[region], one);
            printf("%d ok\n", number);
        } else if (strcmp(a, "check") == 0 && sscanf(rest, "%d %llu", &region, &one) == 2) {
            long long at = mismatch(&regions[region], one);
            if (at < 0) {
                printf("%d ok\n", number);
            } else {
                printf("%d mismatch at %lld\n", number, at);
            }
        } else if ((strcmp(a, "move") == 0 || strcmp(a, "run") == 0) &&
                   sscanf(rest, "%255s %d %511s %llu %llu %llu %15s %lld", b, &region, c, &one, &two, &three, order,
                          &timeout_ms) >= 7) {
            move(number, strcmp(a, "run") == 0, strcmp(b, "write") == 0 ? OPCODE_WRITE : OPCODE_READ, &regions[region],
                 c, one, (size_t)two, (size_t)three, strcmp(order, "scatter") == 0, (int)timeout_ms);
        } else if (strcmp(a, "notify") == 0 && sscanf(rest, "%255s %63s %511s", b, a, c) == 3) {
            int segment = openSegment(engine, b);
            notify_msg_t note = {a, c};
            if (segment < 0 || genNotifyInEngine(engine, (uint64_t)segment, note) != 0) {
                fail(number);
            } else {
                printf("%d ok\n", number);
            }
        } else if (strcmp(a, "notes") == 0) {
            int notes = 0;
            notify_msg_t *list = getNotifsFromEngine(engine, &notes);
            printf("%d ok", number);
            for (int i = 0; i < notes; i++) printf(" %s=%s", list[i].name, list[i].msg);
            printf("\n");
            freeNotifsMsgBuf(list, notes);
        } else if (strcmp(a, "probe") == 0 && sscanf(rest, "%255s", b) == 1) {
            if (mooncake_transfer_probe(engine, b) != 0) {
                fail(number);
            } else {
                printf("%d ok\n", number);
            }
        } else if (strcmp(a, "open") == 0 && sscanf(rest, "%255s", b) == 1) {
            int segment = openSegment(engine, b);
            if (segment < 0) {
                fail(number);
            } else {
                printf("%d ok %d\n", number, segment);
            }
        } else if (strcmp(a, "drop") == 0 && sscanf(rest, "%d", &region) == 1) {
            if (unregisterLocalMemory(engine, regions[region].address) != 0) {
                fail(number);
            } else {
                printf("%d ok\n", number);
            }
        } else if (strcmp(a, "destroy") == 0) {
            destroyTransferEngine(engine);
            printf("%d ok\n", number);
        } else {
            printf("%d failed unknown command\n", number);
        }
    }
    destroyTransferEngine(engine);
    npu.finalize();
    return 0;
}
