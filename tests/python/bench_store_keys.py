#!/usr/bin/env python3
"""Many keys through the Python API: how fast they go, and that the client does not grow with them.

Usage: bench_store_keys.py [KEYS]. Starts a master, puts KEYS (1,000,000) small values in batches, asks for all of them and reads
every one back compared, then removes them; some also one by one. Prints rates and the client's resident memory after each
tenth. The exit code is 1 when the second half of the keys made the client larger by more than 2 MiB.
"""

from __future__ import annotations

import sys
import time
from array import array

import conftest  # noqa: F401  puts the package on the path
from blocks import HostBlock
from pool import MIB, Master

from mooncake.store import MooncakeDistributedStore, last_error

BATCH = 1000
VALUE_BYTES = 64
# What half of the keys may add: the allocator's own, not anything for each key.
ALLOWED_BYTES = 2 * MIB


def resident_bytes() -> int:
    """Memory of this process that is there, without what it lends to the pool."""
    fields = dict(line.split(":", 1) for line in open("/proc/self/status", encoding="ascii"))
    return int(fields["RssAnon"].split()[0]) * 1024


def run(keys: int, address: str, say=print) -> tuple[list[int], float]:
    """Puts, asks for, reads and removes that many keys; the memory after each tenth, and keys a second."""
    store = MooncakeDistributedStore()
    segment = max(64 * MIB, 2 * keys * VALUE_BYTES)
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", segment, MIB, "tcp", "", address) == 0, last_error()
    source, target = HostBlock(BATCH * VALUE_BYTES), HostBlock(BATCH * VALUE_BYTES)
    offsets = range(0, BATCH * VALUE_BYTES, VALUE_BYTES)
    sources = array("Q", (source.address + offset for offset in offsets))
    targets = array("Q", (target.address + offset for offset in offsets))
    sizes = array("Q", [VALUE_BYTES]) * BATCH
    memory: list[int] = []
    started = time.monotonic()
    for first in range(0, keys, BATCH):
        names = [f"model@1@0@{number:064x}" for number in range(first, first + BATCH)]
        source.buffer.raw = b"".join(f"{number:<{VALUE_BYTES}}".encode() for number in range(first, first + BATCH))
        assert store.batch_put_from(names, sources, sizes) == [0] * BATCH, last_error()
        assert store.batch_is_exist(names) == [1] * BATCH
        assert store.batch_get_into(names, targets, sizes) == [VALUE_BYTES] * BATCH
        assert target.buffer.raw == source.buffer.raw, first
        assert store.get(names[7])[:20].split() == [str(first + 7).encode()]
        assert store.batch_remove(names[: BATCH // 2], True) == [0] * (BATCH // 2)
        if (first // BATCH + 1) % max(1, keys // BATCH // 10) == 0:
            memory.append(resident_bytes())
            rate = (first + BATCH) / (time.monotonic() - started)
            say(f"{first + BATCH:>9} keys  {memory[-1] / MIB:7.1f} MiB  {rate:9.0f} keys/s put, asked for, read and compared")
    rate = keys / (time.monotonic() - started)
    removed = store.remove_all(True)
    assert removed == keys - keys // BATCH * (BATCH // 2), removed
    assert store.close() == 0
    return memory, rate


def grown_bytes(memory: list[int]) -> int:
    """How much the second half of the keys has added."""
    return memory[-1] - memory[len(memory) // 2 - 1]


def main() -> int:
    """Runs it against a master of its own."""
    keys = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    master = Master()
    try:
        memory, rate = run(keys, master.address)
    finally:
        master.kill()
    print(f"{keys} keys, {rate:.0f} a second; the second half added {grown_bytes(memory) / MIB:.2f} MiB to the client")
    return 0 if grown_bytes(memory) <= ALLOWED_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
