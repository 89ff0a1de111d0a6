"""Upstream's released transfer engine as a peer, driven by lines on standard input.

Arguments: host, metadata server. One command a line, as a JSON list: a name and its arguments. Each line is answered
by one line: "answer NUMBER VALUE", the value as JSON. Memory is a buffer of 8 MiB from anonymous pages, registered
at the start; "ready NAME ADDRESS" says where.
"""

import ctypes
import json
import mmap
import sys

from mooncake.engine import TransferEngine

LENGTH = 8 << 20


def pattern(seed, length):
    return bytes((index * 31 + (index >> 8) + seed * 7) % 253 for index in range(length))


def main():
    host, metadata = sys.argv[1:3]
    engine = TransferEngine()
    name = host
    if metadata != "P2PHANDSHAKE":
        name = f"{host}:{sys.argv[3]}"
    result = engine.initialize(name, metadata, "tcp", "")
    if result != 0:
        print("cannot initialize", result, flush=True)
        return
    buffer = mmap.mmap(-1, LENGTH)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    if engine.register_memory(address, LENGTH) != 0:
        print("cannot register", flush=True)
        return
    if metadata == "P2PHANDSHAKE":
        name = f"[{host}]:{engine.get_rpc_port()}" if ":" in host else f"{host}:{engine.get_rpc_port()}"
    print(f"\nready {name} {address}", flush=True)
    for number, line in enumerate(sys.stdin, 1):
        command, *arguments = json.loads(line)
        if command == "fill":
            seed, offset, length = arguments
            buffer[offset : offset + length] = pattern(seed, length)
            value = True
        elif command == "check":
            seed, offset, length = arguments
            value = buffer[offset : offset + length] == pattern(seed, length)
        elif command in ("write", "read"):
            target, offset, remote, length = arguments
            call = engine.transfer_sync_write if command == "write" else engine.transfer_sync_read
            value = call(target, address + offset, remote, length)
        elif command in ("batch_write", "batch_read"):
            target, offsets, remotes, lengths = arguments
            call = engine.batch_transfer_sync_write if command == "batch_write" else engine.batch_transfer_sync_read
            value = call(target, [address + offset for offset in offsets], remotes, lengths)
        elif command == "async_write":
            target, offsets, remotes, lengths = arguments
            batch = engine.batch_transfer_async_write(
                target, [address + offset for offset in offsets], remotes, lengths
            )
            value = engine.get_batch_transfer_status([batch])
        elif command == "notify":
            from mooncake.engine import TransferNotify, TransferOpcode

            target, offset, remote, length, note, text = arguments
            value = engine.transfer_sync(
                target, address + offset, remote, length, TransferOpcode.Write, TransferNotify(note, text)
            )
        elif command == "notes":
            value = [[note.name, note.msg] for note in engine.get_notifies()]
        elif command == "probe":
            value = engine.send_probe(arguments[0])
        elif command == "first_buffer":
            value = engine.get_first_buffer_address(arguments[0])
        else:
            raise ValueError(command)
        print(f"\nanswer {number} {json.dumps(value)}", flush=True)


main()
