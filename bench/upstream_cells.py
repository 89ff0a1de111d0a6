"""Upstream's released engine in the cells of host_cells, as a target or as an initiator.

The initiator reads one cell a line from standard input and answers with one line of JSON. Its worker threads stay, so
that their processor time is seen from outside.
"""

import ctypes
import json
import mmap
import sys
import threading
import time

from mooncake.engine import TransferEngine

BUFFER = 256 << 20


def worker(engine, base, cell, thread, end, times, failed):
    block, batch, threads = cell["block"], cell["batch"], cell["threads"]
    size = block * batch
    slots = max(BUFFER // size, 1)
    call = 0
    while True:
        start = (call * threads + thread) % slots * size
        call += 1
        begun = time.perf_counter()
        if batch == 1:
            move = engine.transfer_sync_write if cell["write"] else engine.transfer_sync_read
            result = move(cell["target"], base + start, cell["remote"] + start, block)
        else:
            move = engine.batch_transfer_sync_write if cell["write"] else engine.batch_transfer_sync_read
            result = move(
                cell["target"],
                [base + start + index * block for index in range(batch)],
                [cell["remote"] + start + (batch - 1 - index) * block for index in range(batch)],
                [block] * batch,
            )
        times.append((time.perf_counter() - begun) * 1e6)
        if result != 0:
            failed.append(result)
        if time.perf_counter() >= end:
            return


def serve(number, jobs, done):
    while True:
        with jobs:
            while jobs.work[number] is None:
                jobs.wait()
            work, jobs.work[number] = jobs.work[number], None
        work()
        done.release()


def main():
    engine = TransferEngine()
    if engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") != 0:
        raise SystemExit("cannot initialize")
    buffer = mmap.mmap(-1, BUFFER, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, BUFFER, 4096):
        buffer[offset] = 1
    base = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    if engine.register_memory(base, BUFFER) != 0:
        raise SystemExit("cannot register")
    print(f"\n@ 127.0.0.1:{engine.get_rpc_port()} {base}", flush=True)
    if sys.argv[1] == "target":
        sys.stdin.read()
        return
    jobs, done = threading.Condition(), threading.Semaphore(0)
    jobs.work = [None] * 8
    for number in range(8):
        threading.Thread(target=serve, args=(number, jobs, done), daemon=True).start()
    for line in sys.stdin:
        cell = json.loads(line)
        times, failed = [[] for _ in range(cell["threads"])], []
        begun = time.perf_counter()
        end = begun + cell["seconds"]
        with jobs:
            for thread in range(cell["threads"]):
                jobs.work[thread] = lambda thread=thread: worker(
                    engine, base, cell, thread, end, times[thread], failed
                )
            jobs.notify_all()
        for _ in range(cell["threads"]):
            done.acquire()
        elapsed = time.perf_counter() - begun
        answer = {"calls_us": [t for some in times for t in some], "elapsed_s": elapsed, "failed": bool(failed)}
        print("\n@ " + json.dumps(answer), flush=True)


main()
