/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The C++ face of libmooncake_transfer.so: header-only, C++17, over mooncake_transfer.h.
 *
 *  - Handles are move-only and end what they hold. An Engine outlives its Batches.
 *  - A failure is thrown as mooncake::transfer::Error, which carries the whole record; where a failure is an
 *    everyday answer (try_*), it is returned as a Code.
 *  - Nothing here owns memory that is moved: it is the caller's, and belongs to a transfer until that is over.
 *  - Any thread may call anything, as in the C interface.
 */
#ifndef MOONCAKE_TRANSFER_HPP
#define MOONCAKE_TRANSFER_HPP

#include "mooncake_transfer.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mooncake::transfer {

/** enum mooncake_transfer_code, by another name. */
using Code = ::mooncake_transfer_code;

/** Everything known about a failure, with texts that live as long as it does. */
class Error : public std::exception {
  public:
    /** The calling thread's last failure; code stands in when there is no record. */
    static Error last(int code) {
        ::mooncake_transfer_error record{};
        record.struct_size = sizeof record;
        if (::mooncake_transfer_last_error(&record) != MOONCAKE_TRANSFER_OK) {
            return Error(code, ::mooncake_transfer_code_name(code));
        }
        Error error(record.code, record.text);
        error.stage_ = record.stage;
        error.message_ = text(record.message);
        error.peer_ = text(record.peer);
        error.advice_ = text(record.advice);
        error.vendor_function_ = text(record.vendor_function);
        error.vendor_text_ = text(record.vendor_text);
        if ((record.known & MOONCAKE_TRANSFER_KNOWS_DEVICE) != 0) error.device_ = record.device;
        if ((record.known & MOONCAKE_TRANSFER_KNOWS_VENDOR) != 0) error.vendor_code_ = record.vendor_code;
        if ((record.known & MOONCAKE_TRANSFER_KNOWS_RANGE) != 0) {
            error.range_ = std::make_pair(record.range_start, record.range_length_bytes);
        }
        return error;
    }

    Error(int code, std::string what) : what_(std::move(what)), code_(code) {}

    /** All of the record in one line. */
    const char *what() const noexcept override { return what_.c_str(); }
    Code code() const noexcept { return static_cast<Code>(code_); }
    int stage() const noexcept { return stage_; }
    /** One sentence with the facts. */
    const std::string &message() const noexcept { return message_; }
    const std::string &peer() const noexcept { return peer_; }
    /** What to do. */
    const std::string &advice() const noexcept { return advice_; }
    const std::string &vendor_function() const noexcept { return vendor_function_; }
    const std::string &vendor_text() const noexcept { return vendor_text_; }
    std::optional<int> device() const noexcept { return device_; }
    std::optional<int> vendor_code() const noexcept { return vendor_code_; }
    /** Address and length in bytes. */
    std::optional<std::pair<std::uint64_t, std::uint64_t>> range() const noexcept { return range_; }

  private:
    static std::string text(const char *value) { return value == nullptr ? std::string() : std::string(value); }

    std::string what_, message_, peer_, advice_, vendor_function_, vendor_text_;
    std::optional<std::pair<std::uint64_t, std::uint64_t>> range_;
    std::optional<int> device_, vendor_code_;
    int code_;
    int stage_ = MOONCAKE_TRANSFER_STAGE_CONFIGURE;
};

/** Throws unless the code is OK. */
inline void require(int code) {
    if (code != MOONCAKE_TRANSFER_OK) throw Error::last(code);
}

/** How long a call may take; the default stands for MC_TRANSFER_TIMEOUT. */
class Timeout {
  public:
    Timeout() = default;
    template <class Rep, class Period>
    Timeout(std::chrono::duration<Rep, Period> time)
        : milliseconds_(std::chrono::duration_cast<std::chrono::milliseconds>(time).count()) {
        if (milliseconds_ < 0) milliseconds_ = 0;
    }
    std::int64_t milliseconds() const noexcept { return milliseconds_; }

  private:
    std::int64_t milliseconds_ = MOONCAKE_TRANSFER_DEFAULT_TIMEOUT;
};

/** Another engine, opened by name. */
struct Segment {
    segment_id_t id = LOCAL_SEGMENT;
};

enum class Direction : int { read = OPCODE_READ, write = OPCODE_WRITE };

/** One block: a local address, an address in the peer, a length. */
struct Block {
    const void *local;
    std::uint64_t remote;
    std::uint64_t length_bytes;
};

class Batch;

/** An engine: a name that peers open, and memory registered with it. */
class Engine {
  public:
    struct Options {
        std::string metadata = "P2PHANDSHAKE";
        /** host, host:port or host:port:npu_N */
        std::string local_name = "127.0.0.1";
        /** The id aclrtSetDevice takes. */
        int device = MOONCAKE_TRANSFER_ANY_DEVICE;
        bool auto_discover = true;
        /** "ascend" opens CANN; see mooncake_transfer_use_protocol. */
        std::string protocol;
    };

    explicit Engine(const Options &options) {
        ::mooncake_transfer_options plain{};
        plain.struct_size = sizeof plain;
        plain.metadata = options.metadata.c_str();
        plain.local_name = options.local_name.c_str();
        plain.device = options.device;
        plain.auto_discover = options.auto_discover ? 1 : 0;
        require(::mooncake_transfer_create(&plain, &handle_));
        if (!options.protocol.empty()) {
            const int code = ::mooncake_transfer_use_protocol(handle_, options.protocol.c_str());
            if (code != MOONCAKE_TRANSFER_OK) {
                Error error = Error::last(code);
                close();
                throw error;
            }
        }
    }
    explicit Engine(const std::string &local_name) : Engine(named(local_name)) {}
    ~Engine() { close(); }
    Engine(Engine &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Engine &operator=(Engine &&other) noexcept {
        if (this != &other) {
            close();
            handle_ = std::exchange(other.handle_, nullptr);
        }
        return *this;
    }
    Engine(const Engine &) = delete;
    Engine &operator=(const Engine &) = delete;

    /** Ends the engine now; a second call does nothing. */
    void close() noexcept { ::destroyTransferEngine(std::exchange(handle_, nullptr)); }

    /** For calls of the C interfaces. */
    transfer_engine_t handle() const noexcept { return handle_; }

    /** The name that peers open. */
    std::string name() const {
        char text[512];
        require(::mooncake_transfer_session_name(handle_, text, sizeof text));
        return text;
    }

    /** Makes memory reachable by peers until unregister_memory. */
    void register_memory(void *address, std::size_t length_bytes, const std::string &location = "*") {
        if (::registerLocalMemory(handle_, address, length_bytes, location.c_str(), 1) != 0) throw Error::last(-1);
    }
    void unregister_memory(void *address) {
        if (::unregisterLocalMemory(handle_, address) != 0) throw Error::last(-1);
    }

    Segment open(const std::string &name) {
        const segment_handle_t id = ::openSegment(handle_, name.c_str());
        if (id < 0) throw Error::last(-1);
        return Segment{id};
    }
    void probe(const std::string &name) { require(::mooncake_transfer_probe(handle_, name.c_str())); }

    /**
     * Moves blocks and waits. When it returns or throws, nothing it started touches memory any more, unless the
     * code is STILL_RUNNING: then *still_running, if given, is the batch to wait for.
     */
    void transfer(Direction direction, Segment segment, const std::vector<Block> &blocks, Timeout timeout = {},
                  batch_id_t *still_running = nullptr) {
        const std::vector<transfer_request> requests = plain(direction, segment, blocks);
        batch_id_t left = INVALID_BATCH;
        const int code = ::mooncake_transfer_run(handle_, requests.data(), requests.size(), timeout.milliseconds(), &left);
        if (still_running != nullptr) *still_running = left;
        require(code);
    }
    void read(Segment segment, const std::vector<Block> &blocks, Timeout timeout = {}) {
        transfer(Direction::read, segment, blocks, timeout);
    }
    void write(Segment segment, const std::vector<Block> &blocks, Timeout timeout = {}) {
        transfer(Direction::write, segment, blocks, timeout);
    }

    /** Starts to move blocks. */
    Batch start(Direction direction, Segment segment, const std::vector<Block> &blocks, Timeout timeout = {});

    /** The counters, as Prometheus text. */
    std::string counters() const {
        std::string text(8192, '\0');
        for (;;) {
            std::size_t length = 0;
            const int code = ::mooncake_transfer_counters(handle_, text.data(), text.size(), &length);
            if (code == MOONCAKE_TRANSFER_OK) {
                text.resize(length);
                return text;
            }
            if (code != MOONCAKE_TRANSFER_TOO_MANY_REQUESTS || length < text.size()) throw Error::last(code);
            text.resize(2 * length);
        }
    }

  private:
    friend class Batch;

    static Options named(const std::string &local_name) {
        Options options;
        options.local_name = local_name;
        return options;
    }

    static std::vector<transfer_request> plain(Direction direction, Segment segment, const std::vector<Block> &blocks) {
        std::vector<transfer_request> requests;
        requests.reserve(blocks.size());
        for (const Block &block : blocks) {
            requests.push_back({static_cast<int>(direction), const_cast<void *>(block.local), segment.id, block.remote,
                                block.length_bytes});
        }
        return requests;
    }

    transfer_engine_t handle_ = nullptr;
};

/** Blocks under way. Its end stops what is not finished; the memory is quiet then. */
class Batch {
  public:
    ~Batch() { end(); }
    Batch(Batch &&other) noexcept
        : engine_(std::exchange(other.engine_, nullptr)), id_(std::exchange(other.id_, INVALID_BATCH)) {}
    Batch &operator=(Batch &&other) noexcept {
        if (this != &other) {
            end();
            engine_ = std::exchange(other.engine_, nullptr);
            id_ = std::exchange(other.id_, INVALID_BATCH);
        }
        return *this;
    }
    Batch(const Batch &) = delete;
    Batch &operator=(const Batch &) = delete;

    batch_id_t id() const noexcept { return id_; }

    /** Waits: OK when all blocks have moved, TIMEOUT when time was over first, else what failed. */
    Code try_wait(Timeout timeout = {}) noexcept {
        return static_cast<Code>(::mooncake_transfer_wait(engine_, id_, timeout.milliseconds()));
    }
    void wait(Timeout timeout = {}) { require(try_wait(timeout)); }

    /** Stops what is not finished. */
    void cancel() { require(::mooncake_transfer_cancel(engine_, id_)); }

  private:
    friend class Engine;
    Batch(transfer_engine_t engine, batch_id_t id) noexcept : engine_(engine), id_(id) {}

    void end() noexcept {
        if (id_ == INVALID_BATCH) return;
        if (::freeBatchID(engine_, id_) != 0) {
            ::mooncake_transfer_cancel(engine_, id_);
            ::mooncake_transfer_wait(engine_, id_, MOONCAKE_TRANSFER_DEFAULT_TIMEOUT);
            ::freeBatchID(engine_, id_);
        }
        id_ = INVALID_BATCH;
    }

    transfer_engine_t engine_;
    batch_id_t id_;
};

inline Batch Engine::start(Direction direction, Segment segment, const std::vector<Block> &blocks, Timeout timeout) {
    const std::vector<transfer_request> requests = plain(direction, segment, blocks);
    const batch_id_t id = ::allocateBatchID(handle_, requests.size());
    if (id == INVALID_BATCH) throw Error::last(MOONCAKE_TRANSFER_TOO_MANY_REQUESTS);
    Batch batch(handle_, id);
    require(::mooncake_transfer_submit(handle_, id, requests.data(), requests.size(), timeout.milliseconds()));
    return batch;
}

} // namespace mooncake::transfer

#endif /* MOONCAKE_TRANSFER_HPP */
