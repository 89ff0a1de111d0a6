// What HIXL 9.0 and 9.2 and upstream's NPU wheel call, in their order (facts 10), by a program of our own: a client
// and a server process, each with one engine; the passive server acts on a worker thread when it connects and relays.
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mutex>
#include <string>
#include <thread>
#include <vector>

extern "C" {
#include "check.h"
}

namespace {

constexpr size_t kMemory = 32u << 20;
constexpr size_t kStaging = 32u << 20;
constexpr size_t kBlock = 4096;
constexpr int kBlocks = 700;
constexpr int kNormalOnly = 2;
constexpr int kHighBandWidth = 0x1000;
constexpr int kHbm = 1;
constexpr int kSuperPodDeviceId = 403;
constexpr int kSuperPodId = 405;
constexpr int kOpPut = 0;
constexpr int kOpGet = 1;

bool is_9_2 = true;     // CANN_SIM_RELEASE
bool is_a3 = false;     // CANN_SIM_SOC
bool is_far = false;    // two servers
bool has_host = false;  // host memory is registered too: RoCE only

// The control connection between the two engines.
struct Control {
  int fd = -1;
  void Send(const void *data, size_t size) const { EXPECT(write(fd, data, size), size); }
  void Receive(void *data, size_t size) const {
    for (size_t done = 0; done < size;) {
      ssize_t count = read(fd, static_cast<char *>(data) + done, size - done);
      TRUE(count > 0);
      done += static_cast<size_t>(count);
    }
  }
  template <typename T> void Tell(const T &value) const { Send(&value, sizeof value); }
  template <typename T> T Hear() const {
    T value;
    Receive(&value, sizeof value);
    return value;
  }
};

// One rank as its engine describes it to the peer.
struct RankInfo {
  int device;
  long long super_device_id, super_pod_id;
  char *memory, *staging, *host;
};

std::string Table(const RankInfo &client, const RankInfo &server) {
  auto device = [](const RankInfo &info, int rank) {
    std::string text = "{\"device_id\":\"" + std::to_string(info.device) + "\",\"rank_id\":\"" + std::to_string(rank) +
                       "\",\"device_ip\":\"29.1.0." + std::to_string(10 + info.device) + "\"";
    if (is_a3) text += ",\"super_device_id\":\"" + std::to_string(info.super_device_id) + "\"";
    return text + "}";
  };
  std::string one = device(client, 0), two = device(server, 1);
  std::string servers = is_far ? "{\"server_id\":\"10.0.0.7\",\"device\":[" + one + "]},{\"server_id\":\"10.0.0.8\",\"device\":[" +
                                     two + "]}"
                               : "{\"server_id\":\"10.0.0.7\",\"device\":[" + one + "," + two + "]}";
  std::string text = std::string("{\"version\":\"") + (is_a3 ? "1.2" : "1.0") + "\",\"status\":\"completed\",\"server_count\":\"" +
                     (is_far ? "2" : "1") + "\",\"server_list\":[" + servers + "]";
  if (is_a3) {
    text += ",\"super_pod_list\":[{\"super_pod_id\":\"" + std::to_string(client.super_pod_id) +
            "\",\"server_list\":[{\"server_id\":\"10.0.0.7\"}" + (is_far ? ",{\"server_id\":\"10.0.0.8\"}" : "") + "]}]";
  }
  return text + "}";
}

// Restores the caller's context, as the library does around each of its calls.
class ContextGuard {
 public:
  explicit ContextGuard(aclrtContext context) {
    if (aclrtGetCurrentContext(&before_) != 0) before_ = nullptr;
    OK(aclrtSetCurrentContext(context));
  }
  ~ContextGuard() {
    if (before_ != nullptr) OK(aclrtSetCurrentContext(before_));
  }

 private:
  aclrtContext before_ = nullptr;
};

// A transfer slot: 9.2 a context with its default stream that stops on failure, 9.0 a stream of its own.
struct Slot {
  aclrtContext context = nullptr;
  aclrtStream stream = nullptr;
};

class Engine {
 public:
  Engine(int rank, Control control) : rank_(rank), control_(control) {}

  void Initialize() {
    uint32_t count = 0;
    int32_t device = -1, physical = -1;
    aclrtContext none = nullptr;
    TRUE(strstr(aclrtGetSocName(), is_a3 ? "Ascend910_93" : "Ascend910B") != nullptr);
    EXPECT(aclrtGetCurrentContext(&none), 107002);  // tolerated
    OK(aclrtSetDevice(rank_));                      // the application's call
    OK(aclrtGetDeviceCount(&count));
    TRUE(count >= 2);
    OK(aclrtGetDevice(&device));
    aclrtContext application = nullptr;
    OK(aclrtGetCurrentContext(&application));
    OK(aclrtCreateContext(&context_, device));
    ContextGuard guard(context_);
    uint64_t one = 1;
    OK(aclrtMalloc(&constant_, 8, kNormalOnly));
    OK(aclrtMemcpy(constant_, 8, &one, 8, H2D));
    OK(aclrtGetPhyDevIdByLogicDevId(device, &physical));
    EXPECT(physical, rank_);
    info_ = RankInfo{physical, 0, 0, nullptr, nullptr, nullptr};
    if (is_a3) {
      int64_t value = 0;
      OK(aclrtGetDeviceInfo(static_cast<uint32_t>(device), kSuperPodDeviceId, &value));
      info_.super_device_id = value;
      OK(aclrtGetDeviceInfo(static_cast<uint32_t>(device), kSuperPodId, &value));
      info_.super_pod_id = value;
    }
    OK(aclrtSetCurrentContext(application));
    Register();
    OK(aclrtSetCurrentContext(context_));
  }

  // The application's memory, registered under its own context; the pool of staging buffers under the engine's.
  void Register() {
    aclrtPtrAttributes attributes;
    size_t available = 0, total = 0;
    info_.memory = static_cast<char *>(device_memory(kMemory));
    OK(aclrtPointerGetAttributes(info_.memory, &attributes));  // the wheel asks before each registration
    EXPECT(attributes.location.type, 1);
    EXPECT(attributes.location.id, rank_);
    handles_.push_back(registered(0, info_.memory, kMemory));
    if (has_host) {
      void *host = nullptr;
      OK(aclrtMallocHost(&host, kMemory));
      OK(aclrtPointerGetAttributes(host, &attributes));
      EXPECT(attributes.location.type, 0);
      info_.host = static_cast<char *>(host);
      handles_.push_back(registered(1, host, kMemory));
    }
    OK(aclrtGetMemInfo(kHbm, &available, &total));
    TRUE(available >= 2 * kStaging);
    for (auto &buffer : staging_) {
      OK(aclrtMalloc(&buffer, kStaging, kHighBandWidth));
      EXPECT(reinterpret_cast<uintptr_t>(buffer) % (2u << 20), 0);
      handles_.push_back(registered(0, buffer, kStaging));
    }
    info_.staging = static_cast<char *>(staging_[0]);
  }

  // Both sides: initialise, bind every region, prepare together.
  void Connect() {
    ContextGuard guard(context_);
    control_.Tell(info_);
    peer_ = control_.Hear<RankInfo>();
    std::string table = rank_ == 0 ? Table(info_, peer_) : Table(peer_, info_);
    union {
      HcclCommConfig config;
      char room[2248];
    } config;
    memset(&config, 0, sizeof config);
    config.config = config_named("hixl_client_server");
    config.config.size = is_9_2 ? 2248 : 2240;  // sizeof of the caller's header; the version stays 5
    int32_t physical = 0;
    OK(aclrtGetPhyDevIdByLogicDevId(rank_, &physical));
    {
      static std::mutex one_at_a_time;
      std::lock_guard<std::mutex> lock(one_at_a_time);
      OK(HcclCommInitClusterInfoMemConfig(table.c_str(), static_cast<uint32_t>(rank_), &config.config, &comm_));
    }
    for (void *handle : handles_) OK(HcclCommBindMem(comm_, handle));
    HcclPrepareConfig mesh = {0, 0, 0, 0};
    OK(HcclCommPrepare(comm_, &mesh, 10));
  }

  Slot NewSlot() {
    Slot slot;
    if (is_9_2) {
      aclrtContext before = nullptr;
      OK(aclrtGetCurrentContext(&before));
      OK(aclrtCreateContext(&slot.context, rank_));
      OK(aclrtCtxGetCurrentDefaultStream(&slot.stream));
      OK(aclrtSetStreamFailureMode(slot.stream, 1));
      OK(aclrtSetCurrentContext(before));
    } else {
      slot.context = context_;
      ContextGuard guard(context_);
      OK(aclrtCreateStreamWithConfig(&slot.stream, 0, 3));
    }
    return slot;
  }

  void DropSlot(const Slot &slot) {
    if (is_9_2) {
      OK(aclrtDestroyContext(slot.context));
    } else {
      ContextGuard guard(slot.context);
      OK(aclrtDestroyStream(slot.stream));
    }
  }

  // 700 descriptors go as 256 + 256 + 188.
  HcclResult Submit(int op, std::vector<HcclOneSideOpDesc> descriptors, aclrtStream stream) {
    std::vector<uint32_t> calls;
    for (size_t first = 0; first < descriptors.size(); first += 256) {
      auto count = static_cast<uint32_t>(std::min<size_t>(256, descriptors.size() - first));
      calls.push_back(count);
      auto function = op == kOpPut ? HcclBatchPut : HcclBatchGet;
      HcclResult result = function(comm_, static_cast<uint32_t>(1 - rank_), descriptors.data() + first, count, stream);
      if (result != 0) return result;
    }
    if (descriptors.size() == kBlocks) TRUE((calls == std::vector<uint32_t>{256, 256, 188}));
    return 0;
  }

  std::vector<HcclOneSideOpDesc> Blocks(char *local, char *remote) const {
    std::vector<HcclOneSideOpDesc> descriptors;
    for (int i = 0; i < kBlocks; i++) {
      size_t at = static_cast<size_t>(i) * kBlock;
      descriptors.push_back({local + at, remote + (kBlocks * kBlock - kBlock - at), kBlock, UINT8});
    }
    return descriptors;
  }

  int rank_;
  Control control_;
  RankInfo info_ = {};
  RankInfo peer_ = {};
  aclrtContext context_ = nullptr;
  void *constant_ = nullptr;
  void *staging_[2] = {};
  std::vector<void *> handles_;
  HcclComm comm_ = nullptr;

  void Disconnect() {
    ContextGuard guard(context_);
    for (void *handle : handles_) OK(HcclCommUnbindMem(comm_, handle));
    OK(HcclCommDestroy(comm_));
  }

  void Finalize() {
    ContextGuard guard(context_);
    for (void *handle : handles_) OK(HcclDeregisterGlobalMem(handle));
    for (void *buffer : staging_) OK(aclrtFree(buffer));
    OK(aclrtFree(constant_));
    OK(aclrtFree(info_.memory));
    if (info_.host != nullptr) OK(aclrtFreeHost(info_.host));
  }
};

void Fill(char *device, unsigned char value, size_t size) { OK(aclrtMemset(device, size, value, size)); }

void Verify(const char *device, size_t size, const std::vector<unsigned char> &expected) {
  std::vector<unsigned char> host(size);
  OK(aclrtMemcpy(host.data(), size, device, size, D2H));
  for (size_t i = 0; i < size; i++) EXPECT(host[i], expected[i]);
}

// A pattern by block, so that the order of blocks shows.
std::vector<unsigned char> Numbered(int salt) {
  std::vector<unsigned char> bytes(kBlocks * kBlock);
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<unsigned char>(i / kBlock * 3 + salt);
  return bytes;
}

std::vector<unsigned char> Reversed(const std::vector<unsigned char> &bytes) {
  std::vector<unsigned char> reversed(bytes.size());
  for (size_t i = 0; i < kBlocks; i++)
    memcpy(&reversed[(kBlocks - 1 - i) * kBlock], &bytes[i * kBlock], kBlock);
  return reversed;
}

// TransferSync and both ways to see the end of TransferAsync.
void Transfers(Engine &engine) {
  auto sent = Numbered(1);
  OK(aclrtMemcpy(engine.info_.memory, sent.size(), sent.data(), sent.size(), H2D));
  Slot slot = engine.NewSlot();
  {
    ContextGuard guard(slot.context);  // memory and registration belong to another context
    OK(engine.Submit(kOpPut, engine.Blocks(engine.info_.memory, engine.peer_.memory), slot.stream));
    OK(aclrtSynchronizeStreamWithTimeout(slot.stream, 10000));
  }
  Fill(engine.info_.memory, 0, sent.size());
  {
    ContextGuard guard(slot.context);
    OK(engine.Submit(kOpGet, engine.Blocks(engine.info_.memory, engine.peer_.memory), slot.stream));
    if (is_9_2) {  // the flag: a constant of the device copied behind the transfer
      void *flag = nullptr;
      OK(aclrtMallocHost(&flag, 8));
      auto *value = static_cast<volatile uint64_t *>(flag);
      *value = 0;
      OK(aclrtMemcpyAsync(flag, 8, engine.constant_, 8, D2H, slot.stream));
      while (*value == 0) usleep(100);
      EXPECT(*value, 1);
      OK(aclrtFreeHost(flag));
    } else {
      aclrtEvent event = nullptr;
      int status = 0;
      OK(aclrtCreateEvent(&event));
      OK(aclrtRecordEvent(event, slot.stream));
      while (status != 1) {
        usleep(100);
        OK(aclrtQueryEventStatus(event, &status));
      }
      OK(aclrtDestroyEvent(event));
    }
  }
  Verify(engine.info_.memory, sent.size(), sent);
  if (has_host) {
    memset(engine.info_.host, 0x3c, kBlock);
    ContextGuard guard(slot.context);
    OK(engine.Submit(kOpPut, {{engine.info_.host, engine.peer_.host, kBlock, UINT8}}, slot.stream));
    OK(aclrtSynchronizeStreamWithTimeout(slot.stream, 10000));
  }
  // An address that nobody registered: the call fails, the slot is thrown away, the next one is good.
  {
    ContextGuard guard(slot.context);
    EXPECT(engine.Submit(kOpPut, {{engine.info_.memory, engine.peer_.memory + kMemory, 64, UINT8}}, slot.stream), 4);
    OK(aclrtStreamAbort(slot.stream));
  }
  engine.DropSlot(slot);
  slot = engine.NewSlot();
  {
    ContextGuard guard(slot.context);
    OK(engine.Submit(kOpGet, {{engine.info_.memory, engine.peer_.memory, 64, UINT8}}, slot.stream));
    OK(aclrtSynchronizeStreamWithTimeout(slot.stream, 10000));
  }
  engine.DropSlot(slot);
}

// One attribute per item, as the relay and the wheel's local copies pass them.
aclError CopyItems(bool to_device, char *device, char *host, size_t items, size_t size, size_t *failed) {
  int32_t id = 0;
  OK(aclrtGetDevice(&id));
  std::vector<void *> targets, sources;
  std::vector<size_t> sizes(items, size), indexes;
  std::vector<aclrtMemcpyBatchAttr> attributes;
  for (size_t i = 0; i < items; i++) {
    char *one = device + i * size, *other = host + i * size;
    targets.push_back(to_device ? one : other);
    sources.push_back(to_device ? other : one);
    aclrtMemLocation there = {static_cast<uint32_t>(id), 1}, here = {0, 0};
    aclrtMemcpyBatchAttr attribute = {to_device ? there : here, to_device ? here : there, {}};
    attributes.push_back(attribute);
    indexes.push_back(i);
  }
  aclError result = 0;
  for (size_t first = 0; first < items && result == 0; first += 4096) {
    size_t count = std::min<size_t>(4096, items - first);
    std::vector<size_t> starts(indexes.begin(), indexes.begin() + static_cast<long>(count));
    result = aclrtMemcpyBatch(&targets[first], &sizes[first], &sources[first], &sizes[first], count, &attributes[first],
                              starts.data(), count, failed);
  }
  return result;
}

struct Relay {
  char *destination;  // an address that the peer merely names
  size_t items, size;
};

// The client's half: its host memory into its staging buffer; the server fetches from there.
void RelayWrite(Engine &engine, char *destination, std::vector<char> &source, size_t items) {
  size_t failed = 0, size = source.size() / items;
  ContextGuard guard(engine.context_);
  OK(CopyItems(true, engine.info_.staging, source.data(), items, size, &failed));
  engine.control_.Tell(Relay{destination, items, size});
}

// The server's half, on its own thread: fetch, then copy to wherever the peer said. A wrong address is an error.
void RelayServe(Engine &engine, aclError expected) {
  auto relay = engine.control_.Hear<Relay>();
  size_t failed = 0, length = relay.items * relay.size;
  Slot slot = engine.NewSlot();
  ContextGuard guard(slot.context);
  OK(engine.Submit(kOpGet, {{engine.info_.staging, engine.peer_.staging, length, UINT8}}, slot.stream));
  OK(aclrtSynchronizeStreamWithTimeout(slot.stream, 10000));
  EXPECT(CopyItems(false, engine.info_.staging, relay.destination, relay.items, relay.size, &failed), expected);
  if (expected != 0) {
    EXPECT(failed, 0);
    EXPECT(aclrtMemcpy(relay.destination, relay.size, engine.info_.staging, relay.size, D2H), expected);
  }
}

void Server(Control control) {
  Engine engine(1, control);
  engine.Initialize();
  std::vector<char> destination(64 * 1000), hole(1);
  void *unmapped = mmap(nullptr, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  OK(munmap(unmapped, 1 << 20));
  std::thread worker([&] {  // a thread that set no device: it only has the engine's context
    OK(aclrtSetCurrentContext(engine.context_));
    engine.Connect();
    engine.control_.Tell(destination.data());
    engine.control_.Tell(unmapped);
    RelayServe(engine, 0);
    RelayServe(engine, 507899);
    engine.control_.Tell(1);  // kStatus
  });
  worker.join();
  for (char byte : destination) EXPECT(byte, 0x5e);
  control.Hear<int>();  // the client is done; nothing here took part in its transfers
  Verify(engine.info_.memory, kBlocks * kBlock, Reversed(Numbered(1)));
  if (has_host) EXPECT(engine.info_.host[kBlock - 1], 0x3c);
  engine.Disconnect();
  control.Tell(1);
  control.Hear<int>();
  engine.Connect();  // the name is free again at once
  control.Tell(1);
  for (;;) pause();  // and dies connected
}

void Client(Control control, pid_t server) {
  Engine engine(0, control);
  engine.Initialize();
  engine.Connect();
  char *destination = control.Hear<char *>();
  void *unmapped = control.Hear<void *>();
  std::vector<char> source(64 * 1000, 0x5e);
  RelayWrite(engine, destination, source, 1000);
  RelayWrite(engine, static_cast<char *>(unmapped), source, 10);
  control.Hear<int>();
  Transfers(engine);
  control.Tell(1);
  control.Hear<int>();
  engine.Disconnect();
  control.Tell(1);
  engine.Connect();
  control.Hear<int>();
  int status = 0;
  OK(kill(server, SIGKILL));
  EXPECT(waitpid(server, &status, 0), server);
  engine.Disconnect();  // a dead peer needs only local calls
  engine.Finalize();
  OK(aclrtDestroyContext(engine.context_));
  OK(aclrtResetDevice(0));
}

void Run() {
  const char *release = getenv("CANN_SIM_RELEASE"), *soc = getenv("CANN_SIM_SOC");
  is_9_2 = release == nullptr || strcmp(release, "9.0") != 0;
  is_a3 = soc != nullptr && strstr(soc, "Ascend910_93") != nullptr;
  has_host = is_far && !is_a3;
  int ends[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
  pid_t server = fork();
  if (server == 0) {
    close(ends[0]);
    Server(Control{ends[1]});
    _exit(0);
  }
  close(ends[1]);
  Client(Control{ends[0]}, server);
}

void near() { Run(); }
void far() {
  is_far = true;
  Run();
}

// The wheel's local copies and its pinned store memory, in one process.
void local_copies() {
  size_t failed = 0;
  aclrtStream stream = nullptr;
  aclrtPtrAttributes attributes;
  OK(aclrtSetDevice(0));
  OK(aclrtCreateStreamWithConfig(&stream, 0, 3));
  auto *one = static_cast<char *>(device_memory(kMemory)), *other = static_cast<char *>(device_memory(kMemory));
  std::vector<char> plain(5000 * 64, 0x11);
  OK(aclrtPointerGetAttributes(plain.data(), &attributes));
  EXPECT(attributes.location.type, 2);
  OK(CopyItems(true, one, plain.data(), 5000, 64, &failed));  // 4096 + 904
  for (int i = 0; i < 10; i++) OK(aclrtMemcpyAsync(other + i * 64, 64, one + i * 64, 64, D2D, stream));
  OK(aclrtSynchronizeStreamWithTimeout(stream, 10000));
  OK(CopyItems(false, other, plain.data(), 10, 64, &failed));
  EXPECT(aclrtMemcpyAsync(plain.data(), 64, plain.data() + 64, 64, H2H, stream), 207000);
  void *registered_at = nullptr, *pages = mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  OK(aclrtHostRegister(pages, 1 << 20, 0, &registered_at));
  OK(aclrtMemcpyAsync(one, 1 << 20, pages, 1 << 20, H2D, stream));
  OK(aclrtSynchronizeStreamWithTimeout(stream, 10000));
  OK(aclrtHostUnregister(pages));
  OK(aclrtStreamAbort(stream));
  OK(aclrtDestroyStream(stream));
}

// The store's fabric memory: pages of 1 GiB in the host, exported for other servers of the super pod.
void fabric_memory() {
  aclrtPhysicalMemProp prop = {0, 0, 17 /* P2P_HUGE1G */, {0, 4 /* HOST_NUMA */}, 0};
  aclrtDrvMemHandle handle = nullptr;
  aclrtMemFabricHandle fabric;
  size_t granularity = 0;
  void *address = nullptr;
  OK(aclrtSetDevice(0));
  OK(aclrtMemGetAllocationGranularity(&prop, 1, &granularity));
  EXPECT(granularity, 1u << 30);
  OK(aclrtMallocPhysical(&handle, granularity, &prop, 0));
  OK(aclrtReserveMemAddress(&address, granularity, 0, nullptr, 1));
  if (reinterpret_cast<uintptr_t>(address) % granularity != 0) {  // pages of 1 GiB want such a start
    OK(aclrtReleaseMemAddress(address));
    OK(aclrtReserveMemAddress(&address, 2 * granularity, 0, nullptr, 1));
  }
  char *start = reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(address) + granularity - 1) & ~(granularity - 1));
  OK(aclrtMapMem(start, granularity, 0, handle, 0));
  aclrtMemAccessDesc access = {3, {0, 1}, {}};
  OK(aclrtMemSetAccess(start, granularity, &access, 1));
  OK(aclrtMemExportToShareableHandleV2(handle, 1, 2, &fabric));
  start[granularity - 1] = 9;
  char *device = static_cast<char *>(device_memory(64));
  OK(aclrtMemcpy(device, 1, start + granularity - 1, 1, H2D));
  OK(aclrtUnmapMem(start));
  OK(aclrtFreePhysical(handle));
  OK(aclrtReleaseMemAddress(address));
}

}  // namespace

MAIN(CASE(near), CASE(far), CASE(local_copies), CASE(fabric_memory))
