"""NIXL in the cells of host_cells, as a target or as an initiator: its UCX backend, left to choose its own transport.

One agent a process and one thread, as its documentation has it. A call builds the descriptor lists and the request,
posts it, polls until it is done and releases it, which is what one call of a batch transfer does elsewhere.
"""

import base64
import ctypes
import json
import mmap
import os
import sys
import time

import numpy
from nixl_cu12._api import nixl_agent, nixl_agent_config

BUFFER = 256 << 20


def memory():
    buffer = mmap.mmap(-1, BUFFER, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, BUFFER, 4096):
        buffer[offset] = 1
    return buffer, ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def call(agent, peer, base, cell, number):
    block, batch = cell["block"], cell["batch"]
    size = block * batch
    start = number % max(BUFFER // size, 1) * size
    steps = numpy.arange(batch, dtype=numpy.uint64) * numpy.uint64(block)
    near = numpy.zeros((batch, 3), dtype=numpy.uint64)
    near[:, 0] = steps + numpy.uint64(base + start)
    near[:, 1] = block
    far = near.copy()
    far[:, 0] = steps[::-1] + numpy.uint64(cell["remote"] + start)
    handle = agent.initialize_xfer(
        "WRITE" if cell["write"] else "READ",
        agent.get_xfer_descs(near, "DRAM"),
        agent.get_xfer_descs(far, "DRAM"),
        peer,
    )
    state = agent.transfer(handle)
    while state == "PROC":
        state = agent.check_xfer_state(handle)
    agent.release_xfer_handle(handle)
    return state == "DONE"


def main():
    role = sys.argv[1]
    agent = nixl_agent(f"{role}-{os.getpid()}", nixl_agent_config(backends=["UCX"]))
    buffer, base = memory()
    agent.register_memory([(base, BUFFER, 0, "")], "DRAM")
    print(f"\n@ {base64.b64encode(agent.get_agent_metadata()).decode()} {base}", flush=True)
    if role == "target":
        sys.stdin.read()
        return
    peer = None
    for line in sys.stdin:
        cell = json.loads(line)
        if peer is None:
            peer = agent.add_remote_agent(base64.b64decode(cell["target"]))
            peer = peer.decode() if isinstance(peer, bytes) else peer
        times, failed, number = [], False, 0
        begun = time.perf_counter()
        end = begun + cell["seconds"]
        while True:
            start = time.perf_counter()
            failed |= not call(agent, peer, base, cell, number)
            over = time.perf_counter()
            times.append((over - start) * 1e6)
            number += 1
            if over >= end:
                break
        answer = {"calls_us": times, "elapsed_s": time.perf_counter() - begun, "failed": failed}
        print("\n@ " + json.dumps(answer), flush=True)


main()
