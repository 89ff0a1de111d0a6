/* Two processes, two NPUs: register, init, bind, prepare, put, get, verify. The owner (rank 0) runs no code while the
 * initiator (rank 1) writes and reads its memory. Argument: near (HCCS) or far (RoCE, host memory too). */
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"

enum { SIZE = 4 << 20, BLOCK = 10000, BLOCKS = 200 };

static unsigned char pattern(size_t index, unsigned salt) {
    return (unsigned char)(index * 31 + (index >> 8) * 7 + salt);
}

static void fill(void *device, unsigned salt) {
    unsigned char *host = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++) host[i] = pattern(i, salt);
    OK(aclrtMemcpy(device, SIZE, host, SIZE, H2D));
    free(host);
}

static void verify(void *device, size_t offset, size_t length, size_t from, unsigned salt) {
    unsigned char *host = malloc(length);
    OK(aclrtMemcpy(host, length, (char *)device + offset, length, D2H));
    for (size_t i = 0; i < length; i++) EXPECT(host[i], pattern(from + i, salt));
    free(host);
}

static void tell(int fd, void *value) { EXPECT(write(fd, &value, sizeof value), sizeof value); }
static void *hear(int fd) {
    void *value = NULL;
    EXPECT(read(fd, &value, sizeof value), sizeof value);
    return value;
}

static void run(int rank, int far, int in, int out) {
    OK(aclInit(NULL));
    OK(aclrtSetDevice(rank));
    void *memory = device_memory(SIZE);
    void *host = NULL, *plain = malloc(SIZE);
    OK(aclrtMallocHost(&host, SIZE));
    fill(memory, (unsigned)rank);
    for (size_t i = 0; i < SIZE; i++) {
        ((unsigned char *)host)[i] = pattern(i, 100u + (unsigned)rank);
        ((unsigned char *)plain)[i] = pattern(i, 200u + (unsigned)rank);
    }
    void *handles[3] = {registered(0, memory, SIZE), registered(1, host, SIZE), registered(1, plain, SIZE)};
    HcclCommConfig config = config_named("put and get");
    HcclComm comm = NULL;
    OK(HcclCommInitClusterInfoMemConfig(far ? far_table(0, 1) : near_table(0, 1), (uint32_t)rank, &config, &comm));
    for (int i = 0; i < 3; i++) OK(HcclCommBindMem(comm, handles[i]));
    HcclPrepareConfig prepare = {0, 0, 0, 0};
    OK(HcclCommPrepare(comm, &prepare, 20));
    tell(out, memory);
    tell(out, host);
    tell(out, plain);
    void *remote = hear(in), *remote_host = hear(in), *remote_plain = hear(in);
    if (rank == 0) {
        hear(in); /* the initiator is done; until here this process did nothing */
        verify(memory, 0, BLOCK * BLOCKS / 2, SIZE / 2, 1);
        if (far) {
            for (size_t i = 0; i < 1000; i++) EXPECT(((unsigned char *)host)[i], pattern(i, 1));
            for (size_t i = 0; i < 1000; i++) EXPECT(((unsigned char *)plain)[i], pattern(i, 1));
        }
    } else {
        aclrtStream stream = NULL;
        OK(aclrtCreateStream(&stream));
        HcclOneSideOpDesc desc[BLOCKS];
        for (size_t i = 0; i < BLOCKS; i++) /* scattered: the upper half of ours from the upper half of theirs */
            desc[i] = (HcclOneSideOpDesc){(char *)memory + i * BLOCK, (char *)remote + SIZE / 2 + i * BLOCK, BLOCK, UINT8};
        OK(HcclBatchGet(comm, 0, desc, BLOCKS, stream));
        OK(aclrtSynchronizeStream(stream));
        verify(memory, 0, (size_t)BLOCK * BLOCKS, SIZE / 2, 0);
        for (size_t i = 0; i < BLOCKS / 2; i++)
            desc[i] = (HcclOneSideOpDesc){(char *)memory + SIZE / 2 + i * BLOCK, (char *)remote + i * BLOCK, BLOCK, UINT8};
        OK(HcclBatchPut(comm, 0, desc, BLOCKS / 2, stream));
        if (far) {
            fill(memory, 1);
            HcclOneSideOpDesc hosts[2] = {{memory, remote_host, 1000, UINT8}, {memory, remote_plain, 1000, UINT8}};
            OK(HcclBatchPut(comm, 0, hosts, 2, stream));
            HcclOneSideOpDesc back = {plain, (char *)remote_plain + 5000, 1000, UINT8};
            OK(HcclBatchGet(comm, 0, &back, 1, stream));
            back = (HcclOneSideOpDesc){(char *)plain + 1000, (char *)remote + SIZE - 1000, 1000, UINT8};
            OK(HcclBatchGet(comm, 0, &back, 1, stream));
            OK(aclrtSynchronizeStream(stream));
            for (size_t i = 0; i < 1000; i++) {
                EXPECT(((unsigned char *)plain)[i], pattern(5000 + i, 200));
                EXPECT(((unsigned char *)plain)[1000 + i], pattern(SIZE - 1000 + i, 0));
            }
        } else {
            HcclOneSideOpDesc hidden = {memory, remote_host, 1000, UINT8};
            EXPECT(HcclBatchPut(comm, 0, &hidden, 1, stream), 4); /* host memory is not exported over HCCS */
        }
        OK(aclrtSynchronizeStream(stream));
        OK(aclrtDestroyStream(stream));
        tell(out, NULL);
    }
    EXPECT(HcclCommDestroy(comm), 1); /* memory is still bound */
    EXPECT(HcclDeregisterGlobalMem(handles[0]), 1);
    for (int i = 0; i < 3; i++) OK(HcclCommUnbindMem(comm, handles[i]));
    OK(HcclCommDestroy(comm));
    for (int i = 0; i < 3; i++) OK(HcclDeregisterGlobalMem(handles[i]));
    OK(aclrtFree(memory));
    OK(aclrtFreeHost(host));
    free(plain);
    OK(aclrtResetDevice(rank));
    OK(aclFinalize());
}

int main(int argc, char **argv) {
    int far = argc > 1 && strcmp(argv[1], "far") == 0, up[2], down[2], status = 0;
    TRUE(pipe(up) == 0 && pipe(down) == 0);
    pid_t child = fork();
    if (child == 0) {
        run(0, far, down[0], up[1]);
        return 0;
    }
    run(1, far, up[0], down[1]);
    EXPECT(waitpid(child, &status, 0), child);
    EXPECT(status, 0);
    puts("ok");
    return 0;
}
