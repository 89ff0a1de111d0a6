// The C++ face: ownership, errors with their record, waiting. Prints "ok" when every check holds.
#include <mooncake_transfer.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <vector>

namespace transfer = mooncake::transfer;
using transfer::Batch;
using transfer::Direction;
using transfer::Engine;

static_assert(!std::is_copy_constructible_v<Engine> && std::is_nothrow_move_constructible_v<Engine>);
static_assert(!std::is_copy_constructible_v<Batch> && std::is_nothrow_move_constructible_v<Batch>);
static_assert(!std::is_copy_assignable_v<Engine> && std::is_nothrow_move_assignable_v<Batch>);

static void check(bool condition, const char *what) {
    if (condition) return;
    std::fprintf(stderr, "failed: %s\n", what);
    std::exit(1);
}
#define CHECK(condition) check(condition, #condition)

static std::uint64_t address(const std::vector<char> &memory) {
    return reinterpret_cast<std::uint64_t>(memory.data());
}

static void failures_are_thrown_with_their_record() {
    try {
        Engine engine("not a name::");
        check(false, "a bad name is refused");
    } catch (const transfer::Error &error) {
        CHECK(error.code() == MOONCAKE_TRANSFER_INVALID_ARGUMENT || error.code() == MOONCAKE_TRANSFER_DNS);
        CHECK(!std::string(error.what()).empty());
    }
    Engine engine("127.0.0.1");
    std::vector<char> memory(4096);
    engine.register_memory(memory.data(), memory.size(), "cpu:0");
    try {
        engine.register_memory(memory.data(), memory.size(), "cpu:0");
        check(false, "an overlap is refused");
    } catch (const transfer::Error &error) {
        CHECK(error.code() == MOONCAKE_TRANSFER_ADDRESS_OVERLAPPED);
        CHECK(error.stage() == MOONCAKE_TRANSFER_STAGE_REGISTER);
    }
    try {
        engine.open("127.0.0.1:1");
        check(false, "nobody listens there");
    } catch (const transfer::Error &error) {
        CHECK(error.peer() == "127.0.0.1:1");
        CHECK(!error.advice().empty());
    }
    engine.unregister_memory(memory.data());
    try {
        engine.unregister_memory(memory.data());
        check(false, "it is gone");
    } catch (const transfer::Error &error) {
        CHECK(error.code() == MOONCAKE_TRANSFER_ADDRESS_NOT_REGISTERED);
    }
}

static void handles_move_and_end_once() {
    Engine first("127.0.0.1");
    const std::string name = first.name();
    Engine second(std::move(first));
    CHECK(first.handle() == nullptr && second.name() == name);
    Engine third("127.0.0.1");
    third = std::move(second);
    CHECK(third.name() == name);
    third.close();
    third.close();
    try {
        third.name();
        check(false, "a closed engine has no name");
    } catch (const transfer::Error &) {
    }
}

static void blocks_move_in_both_directions() {
    std::vector<char> theirs(1 << 20), ours(theirs.size());
    for (std::size_t place = 0; place < theirs.size(); ++place) theirs[place] = static_cast<char>(place * 7 >> 3);
    Engine holder("127.0.0.1"), mover("127.0.0.1");
    holder.register_memory(theirs.data(), theirs.size(), "cpu:0");
    mover.register_memory(ours.data(), ours.size(), "cpu:0");
    mover.probe(holder.name());
    const transfer::Segment segment = mover.open(holder.name());
    mover.read(segment, {{ours.data(), address(theirs), ours.size()}});
    CHECK(ours == theirs);

    std::vector<transfer::Block> blocks;
    for (std::size_t offset = 0; offset < ours.size(); offset += 4096) {
        blocks.push_back({ours.data() + offset, address(theirs) + offset, 4096});
    }
    ours.assign(ours.size(), 'w');
    Batch batch = mover.start(Direction::write, segment, blocks, std::chrono::seconds(10));
    CHECK(batch.id() != INVALID_BATCH);
    batch.wait(std::chrono::seconds(10));
    CHECK(batch.try_wait() == MOONCAKE_TRANSFER_OK);
    CHECK(ours == theirs);

    Batch failing = mover.start(Direction::read, segment, {{ours.data(), 5, 64}});
    CHECK(failing.try_wait() == MOONCAKE_TRANSFER_ADDRESS_NOT_REGISTERED);
    { Batch dropped = mover.start(Direction::read, segment, blocks); }
    Batch moved = std::move(batch);
    CHECK(batch.id() == INVALID_BATCH && moved.id() != INVALID_BATCH);
    CHECK(mover.counters().find("# HELP") != std::string::npos);
}

int main() {
    failures_are_thrown_with_their_record();
    handles_move_and_end_once();
    blocks_move_in_both_directions();
    std::puts("ok");
}
