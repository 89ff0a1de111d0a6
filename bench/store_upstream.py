"""Upstream's released store client in the cells of store_cells, as an owner or as a client.

Arguments: role, master, bytes lent. The client reads one cell a line from standard input and answers with one line of
JSON. Values are of one buffer, whose first bytes tell them apart, so that what is read can be looked at.
"""

import ctypes
import json
import mmap
import sys
import time

from mooncake.store import MooncakeDistributedStore

BUFFER = 512 << 20


def run(store, buffer, base, cell):
    operation, size, batch = cell["operation"], cell["size"], cell["batch"]
    count = max(cell["keys"], batch)
    calls, failed, times = 0, 0, []
    addresses = [base + index * size for index in range(batch)]
    sizes = [size] * batch
    value = bytes(buffer[:size]) if operation == "put" else b""
    begun = time.perf_counter()
    end = begun + cell["seconds"]
    while True:
        if operation in ("put", "batch_put_from"):
            keys = [f"{cell['name']}/{calls * batch + index}" for index in range(batch)]
        else:
            keys = [f"{cell['name']}/{(calls * batch + index) % count}" for index in range(batch)]
        start = time.perf_counter()
        if operation == "put":
            results = [store.put(keys[0], value)]
        elif operation == "get":
            results = [len(store.get(keys[0])) - size]
        elif operation == "batch_put_from":
            results = store.batch_put_from(keys, addresses, sizes)
        elif operation == "batch_get_into":
            results = [got - size for got in store.batch_get_into(keys, addresses, sizes)]
        elif batch == 1:
            results = [store.is_exist(keys[0]) - 1]
        else:
            results = [found - 1 for found in store.batch_is_exist(keys)]
        now = time.perf_counter()
        times.append((now - start) * 1e6)
        failed += sum(result != 0 for result in results)
        calls += 1
        if now >= end or calls >= cell["most_calls"]:
            return {"calls_us": times, "elapsed_s": now - begun, "failed": failed}


def main():
    role, master, lent = sys.argv[1], sys.argv[2], int(sys.argv[3])
    store = MooncakeDistributedStore()
    begun = time.perf_counter()
    if store.setup("127.0.0.1", "P2PHANDSHAKE", lent, 64 << 20, "tcp", "", master) != 0:
        raise SystemExit("setup failed")
    took = time.perf_counter() - begun
    print(f"\nready {took * 1e3:.3f}", flush=True)
    if role == "owner":
        sys.stdin.read()
        return
    buffer = mmap.mmap(-1, BUFFER)
    for offset in range(0, BUFFER, 4096):
        buffer[offset] = 1 + offset // 4096 % 251
    base = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    if store.register_buffer(base, BUFFER) != 0:
        raise SystemExit("cannot register")
    for line in sys.stdin:
        cell = json.loads(line)
        if cell["operation"] == "remove_all":
            answer = {"calls_us": [], "elapsed_s": 0, "failed": 0 if store.remove_all(True) >= 0 else 1}
        elif cell["operation"] == "close":
            begun = time.perf_counter()
            store.close()
            answer = {"calls_us": [], "elapsed_s": time.perf_counter() - begun, "failed": 0}
        else:
            answer = run(store, buffer, base, cell)
        print("\n" + json.dumps(answer), flush=True)


main()
