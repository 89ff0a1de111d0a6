/* The older one-sided family, the only one of release 8.2: register for a peer, exchange, enable, put and get. */
#include <pthread.h>
#include "check.h"

enum { MIB = 1 << 20, SIZE = 4 << 20 };

static char table[700];

struct side {
    int rank;
    void *memory;
    int type;
    HcclComm comm;
    HcclMemDesc own[3], theirs[4];
    uint32_t count, room;
    int own_count, seconds;
    HcclResult result;
    HcclResult registered;
};

static void *bring_up(void *argument) {
    struct side *side = argument;
    OK(aclrtSetDevice(side->rank));
    if (!side->comm) {
        HcclCommConfig config = config_named("older");
        OK(HcclCommInitClusterInfoMemConfig(table, (uint32_t)side->rank, &config, &side->comm));
    }
    side->registered = HcclRegisterMem(side->comm, (uint32_t)(1 - side->rank), side->type, side->memory, SIZE, &side->own[0]);
    HcclMemDescs own = {side->own, (uint32_t)side->own_count}, theirs = {side->theirs, side->room};
    side->result = HcclExchangeMemDesc(side->comm, (uint32_t)(1 - side->rank), &own, side->seconds, &theirs, &side->count);
    return NULL;
}

static struct side side_of(int rank, void *memory, int type) {
    struct side side;
    memset(&side, 0, sizeof side);
    side.rank = rank;
    side.memory = memory;
    side.type = type;
    side.own_count = 1;
    side.room = 4;
    side.seconds = 20;
    return side;
}

static void pair_up(struct side *one, struct side *two) {
    pthread_t thread;
    OK(pthread_create(&thread, NULL, bring_up, two));
    bring_up(one);
    OK(pthread_join(thread, NULL));
}

static void parameters(void) {
    HcclMemDesc desc;
    HcclMem mem;
    HcclComm comm = NULL;
    uint32_t count = 0;
    strcpy(table, near_table(0, 1));
    OK(aclrtSetDevice(0));
    char *memory = device_memory(SIZE);
    HcclCommConfig config = config_named("older");
    OK(HcclCommInitClusterInfoMemConfig(table, 0, &config, &comm));
    EXPECT(HcclRegisterMem(NULL, 1, 0, memory, SIZE, &desc), 2);
    EXPECT(HcclRegisterMem(comm, 1, 0, memory, SIZE, NULL), 2);
    EXPECT(HcclRegisterMem(comm, 1, 0, memory, 0, &desc), 1);
    EXPECT(HcclRegisterMem(comm, 1, 2, memory, SIZE, &desc), 1);
    EXPECT(HcclRegisterMem(comm, 1, -1, memory, SIZE, &desc), 1);
    EXPECT(HcclRegisterMem(comm, 2, 0, memory, SIZE, &desc), 1);
    EXPECT(HcclRegisterMem(comm, 1, 0, memory, (64ull << 30) + 1, &desc), 1); /* more than 64 GiB of device memory */
    EXPECT(HcclRegisterMem(comm, 1, 1, memory, (1ull << 40) + 1, &desc), 1);  /* more than 1 TiB of host memory */
    EXPECT(HcclRegisterMem(comm, 1, 0, memory + 4096, MIB, &desc), 15);       /* HCCS wants 2 MiB */
    OK(HcclRegisterMem(comm, 0, 0, memory, SIZE, &desc)); /* our own rank: nothing to do */
    OK(HcclRegisterMem(comm, 1, 0, memory, SIZE, &desc));
    uint32_t ranks[2]; /* what HIXL reads of a description */
    memcpy(ranks, desc.desc, sizeof ranks);
    EXPECT(ranks[0], 0);
    EXPECT(ranks[1], 1);
    HcclMemDesc again;
    OK(HcclRegisterMem(comm, 1, 0, memory, SIZE, &again));
    EXPECT(memcmp(&desc, &again, sizeof desc), 0);
    EXPECT(HcclRegisterMem(comm, 1, 0, memory + 2 * MIB, 2 * MIB, &again), 1); /* overlap */
    EXPECT(HcclEnableMemAccess(comm, &desc, &mem), 1); /* our own is not the peer's */
    EXPECT(HcclEnableMemAccess(comm, NULL, &mem), 2);
    HcclMemDescs own = {&desc, 1}, theirs = {&again, 1};
    EXPECT(HcclExchangeMemDesc(comm, 1, NULL, 1, &theirs, &count), 2);
    EXPECT(HcclExchangeMemDesc(comm, 1, &own, 1, &theirs, NULL), 2);
    EXPECT(HcclExchangeMemDesc(comm, 0, &own, 1, &theirs, &count), 1);
    EXPECT(HcclExchangeMemDesc(comm, 1, &own, -2, &theirs, &count), 1);
    EXPECT(HcclExchangeMemDesc(comm, 1, &own, 1, &theirs, &count), 9); /* nobody comes */
    aclrtStream stream = NULL;
    OK(aclrtCreateStream(&stream));
    HcclOneSideOpDesc op = {memory, memory, 64, UINT8};
    EXPECT(HcclBatchPut(comm, 1, &op, 1, stream), 6); /* no connection */
    OK(HcclDeregisterMem(comm, &desc));
    EXPECT(HcclDeregisterMem(comm, &desc), 1);
    memset(&desc, 0, sizeof desc);
    EXPECT(HcclDeregisterMem(comm, &desc), 1);
    OK(HcclCommDestroy(comm));
}

static void put_and_get(int is_far) {
    aclrtStream stream = NULL;
    HcclMem mem;
    size_t before = 0, now = 0, total = 0;
    unsigned char *seen = malloc(SIZE);
    strcpy(table, is_far ? far_table(0, 1) : near_table(0, 1));
    OK(aclrtSetDevice(1));
    char *theirs = device_memory(SIZE);
    OK(aclrtMemset(theirs, SIZE, 0x10, SIZE));
    OK(aclrtSetDevice(0));
    char *mine = device_memory(SIZE), *more = device_memory(SIZE);
    OK(aclrtMemset(mine, SIZE, 0x20, SIZE));
    OK(aclrtGetMemInfo(1, &before, &total));
    struct side one = side_of(0, mine, 0), two = side_of(1, theirs, 0);
    pair_up(&one, &two);
    OK(one.registered);
    OK(one.result);
    OK(two.result);
    EXPECT(one.count, 1);
    EXPECT(two.count, 1);
    EXPECT(memcmp(&one.theirs[0], &two.own[0], sizeof two.own[0]), 0);
    OK(aclrtSetDevice(0));
    OK(aclrtCreateStream(&stream));
    HcclOneSideOpDesc op = {mine, theirs + MIB, MIB, UINT8};
    EXPECT(HcclBatchPut(one.comm, 1, &op, 1, stream), 4); /* not enabled yet */
    OK(HcclEnableMemAccess(one.comm, &one.theirs[0], &mem));
    EXPECT(mem.type, 0);
    TRUE(mem.addr == theirs);
    EXPECT(mem.size, SIZE);
    OK(HcclBatchPut(one.comm, 1, &op, 1, stream));
    OK(aclrtSynchronizeStream(stream));
    op = (HcclOneSideOpDesc){mine, theirs, 64, UINT8};
    OK(HcclBatchGet(one.comm, 1, &op, 1, stream));
    OK(aclrtSynchronizeStream(stream));
    OK(aclrtMemcpy(seen, SIZE, mine, SIZE, D2H));
    EXPECT(seen[63], 0x10);
    EXPECT(seen[64], 0x20);
    OK(aclrtSetDevice(1));
    OK(aclrtMemcpy(seen, SIZE, theirs, SIZE, D2H));
    for (int i = 0; i < SIZE; i++) EXPECT(seen[i], i >= MIB && i < 2 * MIB ? 0x20 : 0x10);
    /* A second exchange adds what was registered since. */
    OK(aclrtSetDevice(0));
    OK(HcclRegisterMem(one.comm, 1, 0, more, SIZE, &one.own[1]));
    op = (HcclOneSideOpDesc){more, theirs, 64, UINT8};
    OK(HcclBatchGet(one.comm, 1, &op, 1, stream)); /* locally it counts at once */
    OK(aclrtSynchronizeStream(stream));
    one.own_count = 2;
    one.room = two.room = 4;
    pair_up(&one, &two);
    OK(one.result);
    OK(two.result);
    EXPECT(one.count, 1);
    EXPECT(two.count, 2);
    OK(aclrtSetDevice(1));
    OK(HcclEnableMemAccess(two.comm, &two.theirs[1], &mem));
    TRUE(mem.addr == more);
    OK(aclrtCreateStream(&stream));
    op = (HcclOneSideOpDesc){theirs, more, SIZE, UINT8};
    OK(HcclBatchPut(two.comm, 0, &op, 1, stream));
    OK(aclrtSynchronizeStream(stream));
    OK(HcclDisableMemAccess(two.comm, &two.theirs[1]));
    EXPECT(HcclBatchPut(two.comm, 0, &op, 1, stream), 4);
    OK(aclrtSetDevice(0));
    OK(HcclDeregisterMem(one.comm, &one.own[1]));
    OK(HcclCommDestroy(one.comm));
    OK(HcclCommDestroy(two.comm));
    OK(aclrtGetMemInfo(1, &now, &total));
    EXPECT(now, before);
    free(seen);
}

static void near(void) { put_and_get(0); }
static void far(void) { put_and_get(1); }

/* RoCE takes host memory; HCCS does not offer it. */
static void host_memory(void) {
    HcclMem mem;
    aclrtStream stream = NULL;
    unsigned char *host = NULL;
    for (int is_far = 0; is_far < 2; is_far++) {
        strcpy(table, is_far ? far_table(0, 1) : near_table(0, 1));
        OK(aclrtSetDevice(1));
        OK(aclrtMallocHost((void **)&host, SIZE));
        memset(host, 0x31, SIZE);
        OK(aclrtSetDevice(0));
        char *mine = device_memory(SIZE);
        struct side one = side_of(0, mine, 0), two = side_of(1, host, 1);
        pair_up(&one, &two);
        OK(one.result);
        EXPECT(one.count, is_far);
        if (is_far) {
            OK(aclrtSetDevice(0));
            OK(HcclEnableMemAccess(one.comm, &one.theirs[0], &mem));
            EXPECT(mem.type, 1);
            OK(aclrtCreateStream(&stream));
            HcclOneSideOpDesc op = {mine, host, SIZE, UINT8};
            OK(HcclBatchGet(one.comm, 1, &op, 1, stream));
            OK(aclrtSynchronizeStream(stream));
            unsigned char seen[8];
            OK(aclrtMemcpy(seen, 8, mine + SIZE - 8, 8, D2H));
            EXPECT(seen[7], 0x31);
        }
        OK(HcclCommDestroy(one.comm));
        OK(HcclCommDestroy(two.comm));
    }
}

/* An array too short for the peer's descriptions. */
static void no_room(void) {
    strcpy(table, near_table(0, 1));
    OK(aclrtSetDevice(1));
    void *theirs = device_memory(SIZE);
    OK(aclrtSetDevice(0));
    struct side one = side_of(0, device_memory(SIZE), 0), two = side_of(1, theirs, 0);
    one.room = 0;
    pair_up(&one, &two);
    EXPECT(one.result, 1);
    OK(two.result);
}

MAIN(CASE(parameters), CASE(near), CASE(far), CASE(host_memory), CASE(no_room))
