"""Host memory between two processes, by every call that moves it."""

import pytest
from conftest import clean_environment, has_ipv6_loopback
from mooncake.engine import Code

START = """
engine = TransferEngine()
assert engine.initialize(host, "P2PHANDSHAKE", protocol, "") == 0
block = blocks.HostBlock(length, seed)
assert engine.register_memory(block.address, length) == 0
result = [(f"[{host}]" if ":" in host else host) + f":{engine.get_rpc_port()}", block.address]
"""

LENGTH = 1 << 20


@pytest.fixture(params=[(host, route) for host in ("127.0.0.1", "::1") for route in ("same host", "tcp")])
def pair(peers, request):
    """A peer with data, and one with room, by either route and either family of addresses."""
    host, route = request.param
    if host == "::1" and not has_ipv6_loopback():
        pytest.skip("this machine has no IPv6 loopback")
    environment = clean_environment(MOONCAKE_TRANSFER_SAME_HOST="1" if route == "same host" else "0")
    holder, reader = peers(environment), peers(environment)
    name, address = holder.run(START, host=host, protocol="tcp", length=LENGTH, seed=7)
    reader.run(START, host=host, protocol="rdma", length=LENGTH, seed=-1)
    reader.run("pass", name=name, remote=address)
    return holder, reader


def same(pair) -> bool:
    return pair[0].run("result = block.digest()") == pair[1].run("result = block.digest()")


def test_read_one(pair):
    assert pair[1].run("result = engine.transfer_sync_read(name, block.address, remote, length)") == 0
    assert same(pair)


def test_read_ten_thousand(pair):
    code = """
count = 10_000
size = length // count
offsets = range(0, count * size, size)
result = engine.batch_transfer_sync_read(
    name, [block.address + o for o in offsets], tuple(remote + o for o in offsets), [size] * count)
result = [result, block.buffer.raw[:count * size] == blocks.pattern(length, 7)[:count * size]]
"""
    assert pair[1].run(code) == [0, True]


def test_write_one_and_many(pair):
    holder, reader = pair
    write = "ctypes.memmove(block.address, blocks.pattern(length, seed), length)\n"
    reader.run(write, seed=9)
    assert reader.run("result = engine.transfer_sync_write(name, block.address, remote, length)") == 0
    assert same(pair)
    reader.run(write, seed=10)
    code = """
half = length // 2
result = engine.batch_transfer_sync_write(
    name, [block.address, block.address + half], [remote, remote + half], [half, half])
"""
    assert reader.run(code) == 0
    assert same(pair)


def test_asynchronous_status_covers_the_whole_batch(pair):
    code = """
size = 4096
offsets = range(0, length, size)
batch = engine.batch_transfer_async_read(
    name, [block.address + o for o in offsets], [remote + o for o in offsets], [size] * len(offsets))
assert 0 < batch < 2**63, batch
while (status := engine.transfer_check_status(batch)) == 0:
    os.sched_yield()
result = [status, engine.transfer_check_status(batch)]
"""
    assert pair[1].run(code) == [1, -1], "done once, then the id is dead"
    assert same(pair)


def test_a_bad_block_among_good_ones_fails_the_batch(pair):
    code = """
remotes = [remote] * 50 + [remote + length] + [remote] * 50
batch = engine.batch_transfer_async_read(name, [block.address] * 101, remotes, [64] * 101)
while (status := engine.transfer_check_status(batch)) == 0:
    os.sched_yield()
result = [status, int(last_error().code), last_error().peer == name, last_error().range[0] == remote + length]
"""
    status, code, peer_known, range_known = pair[1].run(code)
    assert (status, code, peer_known, range_known) == (-1, Code.ADDRESS_NOT_REGISTERED, True, True)


def test_waiting_for_several_batches(pair):
    code = """
ids = [engine.batch_transfer_async_read(name, [block.address + i * 4096], [remote + i * 4096], [4096])
       for i in range(length // 4096)]
result = [engine.get_batch_transfer_status(ids), engine.transfer_check_status(ids[0])]
"""
    assert pair[1].run(code) == [0, -1]
    assert same(pair)
    code = """
good = engine.transfer_submit_write(name, block.address, remote, 64)
bad = engine.transfer_submit_write(name, block.address, remote + length, 64)
result = [engine.get_batch_transfer_status([bad, good]), engine.transfer_check_status(good)]
"""
    assert pair[1].run(code) == [-1, -1]


@pytest.mark.parametrize("call", ["transfer_sync", "batch_transfer_sync"])
def test_notes_are_sent_once_the_blocks_are_there(pair, call):
    holder, reader = pair
    arguments = "block.address, remote, 64" if call == "transfer_sync" else "[block.address], [remote], [64]"
    code = f"result = engine.{call}(name, {arguments}, Write, TransferNotify('layer', 'done \u2713'))"
    assert reader.run(code) == 0
    waiting = """
import time
end = time.monotonic() + 30
notes = []
while not notes and time.monotonic() < end:
    notes = engine.get_notifies()
    time.sleep(0.001)
result = [[note.name, note.msg] for note in notes]
"""
    assert holder.run(waiting) == [["layer", "done \u2713"]]
    assert holder.run("result = len(engine.get_notifies())") == 0


def test_probe(pair):
    assert pair[1].run("result = engine.send_probe(name)") == 0
    pair[0].kill()
    assert pair[1].run("result = engine.send_probe(name)") == -102
    assert pair[1].run("result = engine.send_probe('no-such-host.invalid:1')") == -101


def test_a_dead_peer_is_a_failure_with_its_name(pair):
    holder, reader = pair
    holder.kill()
    code = """
code = engine.batch_transfer_sync_read(name, [block.address], [remote], [64])
result = [code, last_error().peer == name, len(last_error().message) > 10]
"""
    assert reader.run(code) == [-1, True, True]
