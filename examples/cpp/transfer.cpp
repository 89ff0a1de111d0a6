// Moves a block from one engine to another; the two could be processes on two machines.
//
//   c++ -std=c++17 transfer.cpp $(pkg-config --cflags --libs mooncake-transfer) -o transfer
#include <mooncake_transfer.hpp>

#include <cstring>
#include <iostream>
#include <vector>

namespace transfer = mooncake::transfer;

int main() try {
    std::vector<char> sent(131072, 'K'), received(sent.size());

    // The side that has the block: registers it, and tells its name and the address by any means.
    transfer::Engine prefill("127.0.0.1");
    prefill.register_memory(sent.data(), sent.size(), "cpu:0");
    const std::string name = prefill.name();
    const auto address = reinterpret_cast<std::uint64_t>(sent.data());

    // The side that wants it: opens the other by name and reads.
    transfer::Engine decode("127.0.0.1");
    decode.register_memory(received.data(), received.size(), "cpu:0");
    decode.read(decode.open(name), {{received.data(), address, received.size()}}, std::chrono::seconds(10));

    const bool right = sent == received;
    std::cout << sent.size() << " bytes read, the bytes are " << (right ? "right" : "wrong") << '\n';
    return right ? 0 : 1;
} catch (const transfer::Error &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
