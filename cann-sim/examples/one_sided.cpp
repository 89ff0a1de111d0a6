// Two processes, two NPUs, the vendor's names alone: register, init, bind, prepare, put, get, verify.
//
// One process writes into and reads from the other's NPU memory; the owner runs no code meanwhile. The program is an
// ordinary CANN program: on hardware it runs on two NPUs of one server (HCCS). One-sided HCCL is in no public header
// of the vendor's, so it is declared here; the runtime's functions are declared too, to build where no CANN is.
//
//   c++ -std=c++17 one_sided.cpp -o one_sided -L$CANN -lascendcl -lacl_rt -lhcomm   (up to 8.3: -lhccl for -lhcomm)
//   LD_LIBRARY_PATH=$CANN ./one_sided
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

extern "C" {
typedef int aclError;
typedef void *aclrtStream;
aclError aclInit(const char *configPath);
aclError aclrtSetDevice(int32_t device);
aclError aclrtResetDevice(int32_t device);
aclError aclrtGetPhyDevIdByLogicDevId(const int32_t logic, int32_t *const physical);
aclError aclrtMalloc(void **address, size_t size, int policy);
aclError aclrtFree(void *address);
aclError aclrtMemcpy(void *target, size_t limit, const void *source, size_t count, int kind);
aclError aclrtCreateStream(aclrtStream *stream);
aclError aclrtDestroyStream(aclrtStream stream);
aclError aclrtSynchronizeStreamWithTimeout(aclrtStream stream, int32_t milliseconds);
const char *aclGetRecentErrMsg(void);

typedef int HcclResult;
typedef void *HcclComm;
struct HcclMem { int32_t type; void *addr; uint64_t size; };
struct HcclOneSideOpDesc { void *localAddr, *remoteAddr; uint64_t count; int32_t dataType; };
struct HcclPrepareConfig { int32_t topoType; uint64_t reserved[3]; };
#pragma pack(push, 4)
struct HcclCommConfig { // version 5, which every release from 8.1 on reads
    uint64_t size;
    uint32_t magic, version;
    uint64_t reserved;
    uint32_t bufferSize, deterministic;
    char name[128], udi[128];
    uint32_t opExpansionMode, trafficClass, serviceLevel;
};
#pragma pack(pop)
HcclResult HcclCommInitClusterInfoMemConfig(const char *table, uint32_t rank, HcclCommConfig *config, HcclComm *comm);
HcclResult HcclCommDestroy(HcclComm comm);
HcclResult HcclRegisterGlobalMem(const HcclMem *memory, void **handle);
HcclResult HcclDeregisterGlobalMem(void *handle);
HcclResult HcclCommBindMem(HcclComm comm, void *handle);
HcclResult HcclCommUnbindMem(HcclComm comm, void *handle);
HcclResult HcclCommPrepare(HcclComm comm, const HcclPrepareConfig *config, const int seconds);
HcclResult HcclBatchPut(HcclComm comm, uint32_t rank, HcclOneSideOpDesc *descs, uint32_t count, aclrtStream stream);
HcclResult HcclBatchGet(HcclComm comm, uint32_t rank, HcclOneSideOpDesc *descs, uint32_t count, aclrtStream stream);
}

static void check(int code, const char *what) {
    if (code == 0) return;
    const char *text = aclGetRecentErrMsg();
    std::fprintf(stderr, "%s answered %d: %s\n", what, code, text ? text : "no text");
    std::exit(1);
}
#define CHECK(call) check(call, #call)

static constexpr size_t kSize = 4u << 20;  // a multiple of 2 MiB: HCCS takes whole huge pages
static constexpr size_t kBlock = 4000;     // blocks of the transfer; they may have any size and place
static constexpr uint32_t kBlocks = 200;   // at most 256 descriptors a call
enum { kHostToDevice = 1, kDeviceToHost = 2, kHugePagesFirst = 0, kDeviceMemory = 0, kUint8 = 7, kFullMesh = 0 };

// What the two processes have to tell each other, by any way of their own; here a socket pair.
struct Hello { int32_t physical; void *memory; };

template <class T> static void tell(int socket, const T &value) {
    if (write(socket, &value, sizeof value) != ssize_t(sizeof value)) std::exit(1);
}
template <class T> static T hear(int socket) {
    T value;
    if (read(socket, &value, sizeof value) != ssize_t(sizeof value)) std::exit(1);
    return value;
}

static std::vector<uint8_t> bytes_of(const void *device, size_t offset, size_t length) {
    std::vector<uint8_t> bytes(length);
    CHECK(aclrtMemcpy(bytes.data(), length, static_cast<const char *>(device) + offset, length, kDeviceToHost));
    return bytes;
}

static int run(int rank, int socket) {
    CHECK(aclInit(nullptr));
    CHECK(aclrtSetDevice(rank)); // every thread that calls CANN needs this
    Hello mine{};
    CHECK(aclrtGetPhyDevIdByLogicDevId(rank, &mine.physical));
    CHECK(aclrtMalloc(&mine.memory, kSize, kHugePagesFirst));
    std::vector<uint8_t> contents(kSize, uint8_t(0x10 + rank));
    CHECK(aclrtMemcpy(mine.memory, kSize, contents.data(), kSize, kHostToDevice));

    HcclMem region{kDeviceMemory, mine.memory, kSize};
    void *handle = nullptr;
    CHECK(HcclRegisterGlobalMem(&region, &handle)); // bookkeeping; wrong memory shows at prepare

    tell(socket, mine);
    Hello theirs = hear<Hello>(socket);
    int physical[2] = {rank == 0 ? mine.physical : theirs.physical, rank == 0 ? theirs.physical : mine.physical};
    char table[512]; // the same text on both sides
    std::snprintf(table, sizeof table,
                  "{\"version\":\"1.0\",\"status\":\"completed\",\"server_count\":\"1\",\"server_list\":["
                  "{\"server_id\":\"this server\",\"device\":[{\"device_id\":\"%d\",\"rank_id\":\"0\"},"
                  "{\"device_id\":\"%d\",\"rank_id\":\"1\"}]}]}",
                  physical[0], physical[1]);
    HcclCommConfig config{};
    config.size = sizeof config;
    config.magic = 0xF0F0F0F0u;
    config.version = 5;
    config.bufferSize = config.deterministic = config.trafficClass = config.serviceLevel = 0xFFFFFFFFu; // unset
    std::strcpy(config.name, "example"); // part of the meeting place; unique per NPU
    HcclComm comm = nullptr;
    CHECK(HcclCommInitClusterInfoMemConfig(table, uint32_t(rank), &config, &comm));
    CHECK(HcclCommBindMem(comm, handle)); // before prepare: what is bound later no peer ever sees
    HcclPrepareConfig prepare{kFullMesh, {0, 0, 0}};
    CHECK(HcclCommPrepare(comm, &prepare, 30)); // blocks until both are here

    bool good = true;
    if (rank == 0) {
        aclrtStream stream = nullptr;
        CHECK(aclrtCreateStream(&stream)); // HCCL takes no default stream
        char *local = static_cast<char *>(mine.memory), *remote = static_cast<char *>(theirs.memory);
        std::vector<HcclOneSideOpDesc> descs;
        for (size_t i = 0; i < kBlocks; i++) // addresses are the owner's own on both sides
            descs.push_back({local + i * kBlock, remote + kSize / 2 + i * kBlock, kBlock, kUint8});
        CHECK(HcclBatchGet(comm, 1, descs.data(), kBlocks, stream)); // returns when queued
        CHECK(aclrtSynchronizeStreamWithTimeout(stream, 10000));     // now the bytes are here
        for (uint8_t byte : bytes_of(local, 0, kBlock * kBlocks)) good = good && byte == 0x11;
        for (size_t i = 0; i < kBlocks; i++)
            descs[i] = {local + kSize / 2 + i * kBlock, remote + i * kBlock, kBlock, kUint8};
        CHECK(HcclBatchPut(comm, 1, descs.data(), kBlocks, stream));
        CHECK(aclrtSynchronizeStreamWithTimeout(stream, 10000));
        CHECK(aclrtDestroyStream(stream));
        tell(socket, good);
        good = hear<bool>(socket) && good;
    } else {
        bool got = hear<bool>(socket); // the first that this process does since prepare
        std::vector<uint8_t> seen = bytes_of(mine.memory, 0, kSize);
        for (size_t i = 0; i < kSize; i++) good = good && seen[i] == (i < kBlock * kBlocks ? 0x10 : 0x11);
        good = good && got;
        tell(socket, good);
    }
    CHECK(HcclCommUnbindMem(comm, handle)); // everything is unbound before a communicator is destroyed
    CHECK(HcclCommDestroy(comm));
    CHECK(HcclDeregisterGlobalMem(handle));
    CHECK(aclrtFree(mine.memory));
    CHECK(aclrtResetDevice(rank));
    return good ? 0 : 1;
}

int main() {
    int sockets[2], status = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) != 0) return 1;
    pid_t child = fork(); // before the first call of CANN: its state does not survive a fork
    if (child == 0) {
        close(sockets[0]);
        return run(1, sockets[1]);
    }
    close(sockets[1]); // so that each side notices when the other is gone
    int code = run(0, sockets[0]);
    waitpid(child, &status, 0);
    if (code == 0 && status == 0) std::puts("put and get verified");
    return code != 0 || status != 0;
}
