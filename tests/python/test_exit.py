"""Promise 21 and the interpreter's end: fork, exit with transfers in flight, exit with the log attached."""

import pytest
from conftest import clean_environment, run_python
from test_transfers import START

IN_FLIGHT = """
import ctypes, sys, threading
from mooncake.engine import *
engine = TransferEngine()
assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
block = ctypes.create_string_buffer(1 << 20)
name, remote = sys.argv[1], int(sys.argv[2])
assert engine.register_memory(ctypes.addressof(block), 1 << 20) == 0
assert engine.transfer_sync_read(name, ctypes.addressof(block), remote, 64) == 0
print("ready", flush=True)
sys.stdin.readline()
ids = [engine.batch_transfer_async_read(name, [ctypes.addressof(block)], [remote], [1 << 20]) for _ in range(8)]
assert all(ids)
waiting = threading.Thread(
    target=engine.batch_transfer_sync_read, args=(name, [ctypes.addressof(block)], [remote], [1 << 20]), daemon=True)
waiting.start()
assert engine.transfer_check_status(ids[0]) == 0
"""


@pytest.mark.parametrize("ending", ["", "sys.exit(0)", "del engine", "engine.close()"])
def test_exit_with_transfers_in_flight(peers, ending):
    import subprocess
    import sys

    environment = clean_environment(MOONCAKE_TRANSFER_SAME_HOST="0", MC_LOG_LEVEL="TRACE")
    holder = peers(environment)
    name, address = holder.run(START, host="127.0.0.1", protocol="tcp", length=1 << 20, seed=1)
    child = subprocess.Popen(
        [sys.executable, "-c", IN_FLIGHT + ending, name, str(address)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "ready\n", child.stderr.read()
        holder.stop()
        _, errors = child.communicate("go\n", timeout=60)
    finally:
        holder.go_on()
        child.kill()
        child.wait()
    assert child.returncode == 0, errors[-3000:]


def test_after_fork_old_engines_fail_and_new_ones_work():
    code = """
import ctypes, os, sys
from mooncake.engine import *
engine = TransferEngine()
assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
block = ctypes.create_string_buffer(64)
child = os.fork()
if child == 0:
    assert engine.register_memory(ctypes.addressof(block), 64) < 0
    assert last_error().code == Code.STALE_HANDLE, last_error()
    assert engine.transfer_sync_read("127.0.0.1:1", 1, 1, 1) == -1
    fresh = TransferEngine()
    assert fresh.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
    assert fresh.register_memory(ctypes.addressof(block), 64) == 0
    name = f"127.0.0.1:{fresh.get_rpc_port()}"
    assert fresh.transfer_sync_read(name, ctypes.addressof(block), ctypes.addressof(block) + 32, 32) == 0
    engine.close()
    sys.exit(5)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 5, status
assert engine.register_memory(ctypes.addressof(block), 64) == 0
"""
    outcome = run_python(code)
    assert outcome.returncode == 0, outcome.stderr


def test_many_engines_come_and_go():
    code = """
import gc, os
from mooncake.engine import TransferEngine
for _ in range(5):
    engines = [TransferEngine() for _ in range(4)]
    assert all(engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0 for engine in engines)
    inner = engines[0].get_engine()
    engines[0].close()
    assert inner.handle != 0
    del inner, engines
    gc.collect()
threads = len(os.listdir("/proc/self/task"))
assert threads <= 4, threads
"""
    outcome = run_python(code)
    assert outcome.returncode == 0, outcome.stderr
