"""A call that waits holds no interpreter lock, uses no processor time, and ends at its deadline."""

from conftest import clean_environment
from test_transfers import START

LENGTH = 1 << 20

WAIT = """
import time
outcome = {}
def wait():
    started, used = time.monotonic(), time.thread_time()
    outcome["code"] = engine.batch_transfer_sync_read(name, [block.address], [remote], [length])
    outcome["seconds"], outcome["processor"] = time.monotonic() - started, time.thread_time() - used
    outcome["error"] = last_error().code.name
thread = threading.Thread(target=wait)
thread.start()
turns = 0
while thread.is_alive():
    turns += 1
    thread.join(0.01)
outcome["turns"] = turns
result = outcome
"""


def test_a_stopped_peer_costs_the_deadline_and_nothing_else(peers):
    environment = clean_environment(MOONCAKE_TRANSFER_SAME_HOST="0", MC_TRANSFER_TIMEOUT="5")
    holder, reader = peers(environment), peers(environment)
    name, address = holder.run(START, host="127.0.0.1", protocol="tcp", length=LENGTH, seed=7)
    reader.run(START, host="127.0.0.1", protocol="tcp", length=LENGTH, seed=-1)
    read = "result = engine.batch_transfer_sync_read(name, [block.address], [remote], [64])"
    assert reader.run(read, name=name, remote=address) == 0
    holder.stop()
    try:
        outcome = reader.run(WAIT)
    finally:
        holder.go_on()
    assert outcome["code"] == -1
    assert outcome["error"] in ("TIMEOUT", "STILL_RUNNING"), outcome
    assert 4.9 < outcome["seconds"] < 30, outcome
    assert outcome["turns"] > 20, "the other thread went on while this one waited"
    assert outcome["processor"] < 1, outcome
