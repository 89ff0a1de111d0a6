"""vLLM-Ascend's use of the engine, in our own words: what its connectors call, on the software NPU.

The prefill side has the KV cache of a model in 56 tensors (28 layers, K and V), the decode side as many; each
registers its tensors one by one, tells session and addresses over a side channel (here: the test), and the decode
side reads lists of blocks. The other connector writes layer by layer.
"""

import pytest
from conftest import npu_environment

TENSORS = 56
TENSOR_BYTES = 2 << 20
BLOCK_BYTES = 16 << 10

SIDE = """
import random
npu.set_device(device)
tensors = [npu.allocate(tensor_bytes) for _ in range(count)]
for number, tensor in enumerate(tensors):
    npu.write(tensor, blocks.pattern(tensor_bytes, seed + number))
engine = TransferEngine()
assert engine.initialize(local_name, "P2PHANDSHAKE", "ascend", "") == 0
for tensor in tensors:
    assert engine.register_memory(tensor, tensor_bytes) == 0
port = engine.get_rpc_port()
assert port > 0
result = [port, tensors]
"""

CHECK = """
def expected(number):
    theirs = blocks.pattern(tensor_bytes, peer_seed + number)
    mine = bytearray(blocks.pattern(tensor_bytes, seed + number))
    for place, source in moved:
        mine[place * block_bytes:(place + 1) * block_bytes] = theirs[source * block_bytes:(source + 1) * block_bytes]
    return bytes(mine)
result = [number for number, tensor in enumerate(tensors) if npu.read(tensor, tensor_bytes) != expected(number)]
"""

PLAN = """
places = list(range(tensor_bytes // block_bytes))
random.Random(plan_seed).shuffle(places)
moved = list(zip(places[:block_count], places[block_count:2 * block_count]))
local = [tensor + place * block_bytes for tensor in tensors for place, _ in moved]
remote = [tensor + source * block_bytes for tensor in peer_tensors for _, source in moved]
lengths = [block_bytes] * len(local)
"""


def side(peer, device, seed, local_name="127.0.0.1", count=TENSORS):
    port, tensors = peer.run(
        SIDE,
        device=device,
        seed=seed,
        local_name=local_name,
        count=count,
        tensor_bytes=TENSOR_BYTES,
        block_bytes=BLOCK_BYTES,
    )
    return f"127.0.0.1:{port}", tensors


def plan(peer, tensors, peer_seed, blocks=12):
    peer.run(PLAN, peer_tensors=tensors, plan_seed=peer_seed, block_count=blocks)
    peer.run("pass", peer_seed=peer_seed)


def test_pull_of_56_tensors(peers):
    environment = npu_environment(2)
    prefill, decode = peers(environment), peers(environment)
    session, tensors = side(prefill, 0, seed=100)
    side(decode, 1, seed=300)
    plan(decode, tensors, peer_seed=100)
    decode.run("pass", session=session)
    read = "result = engine.batch_transfer_sync_read(session, local, remote, lengths)"
    assert decode.run(read) == 0
    assert decode.run(CHECK) == [], "every block that was asked for has arrived, and no other byte changed"
    assert decode.run(read) == 0, "a second time, over the same channel"
    unregister = "result = [engine.unregister_memory(tensor) for tensor in tensors]"
    assert set(decode.run(unregister)) == {0}
    assert set(prefill.run(unregister)) == {0}
    for peer in (decode, prefill):
        peer.run("engine.close()")
        assert peer.quit() == 0


def test_push_layer_by_layer(peers):
    environment = npu_environment(2)
    prefill, decode = peers(environment), peers(environment)
    session, tensors = side(decode, 1, seed=300)
    side(prefill, 0, seed=100)
    code = """
codes = []
for layer in range(0, count, 2):
    mine, theirs = tensors[layer:layer + 2], peer_tensors[layer:layer + 2]
    codes.append(engine.batch_transfer_sync_write(session, mine, theirs, [tensor_bytes] * 2))
result = codes
"""
    assert set(prefill.run(code, session=session, peer_tensors=tensors)) == {0}
    check = """
result = [n for n, t in enumerate(tensors) if npu.read(t, tensor_bytes) != blocks.pattern(tensor_bytes, 100 + n)]
"""
    assert decode.run(check) == []


def test_device_named_in_the_local_name(peers):
    """The layer-wise connector of older releases names the device in the local name, by its physical id."""
    environment = npu_environment(8, ASCEND_RT_VISIBLE_DEVICES="4,5")
    prefill, decode = peers(environment), peers(environment)
    session, tensors = side(prefill, 0, seed=100, local_name="127.0.0.1:0:npu_4", count=4)
    side(decode, 1, seed=300, local_name="127.0.0.1:0:npu_5", count=4)
    plan(decode, tensors, peer_seed=100)
    assert decode.run("result = engine.batch_transfer_sync_read(session, local, remote, lengths)", session=session) == 0
    assert decode.run(CHECK) == []
    wrong = """
other = TransferEngine()
result = [other.initialize("127.0.0.1:0:npu_4", "P2PHANDSHAKE", "ascend", ""), str(last_error())]
"""
    code, text = decode.run(wrong)
    assert code == -1 and "says NPU 4" in text and "device 1, which is NPU 5" in text, "the caller's device is another one"


def test_a_second_engine_moves_memory_of_the_first(peers):
    """The pool connector of the guide makes an engine of its own and hands it tensors that only the connector's
    engine has registered."""
    environment = npu_environment(2)
    prefill, decode = peers(environment), peers(environment)
    session, tensors = side(prefill, 0, seed=100, count=8)
    side(decode, 1, seed=300, count=8)
    decode.run("second = TransferEngine(); result = second.initialize('127.0.0.1', 'P2PHANDSHAKE', 'ascend', '')")
    plan(decode, tensors, peer_seed=100)
    read = "result = second.batch_transfer_sync_read(session, local, remote, lengths)"
    assert decode.run(read, session=session) == 0
    assert decode.run(CHECK) == []
    assert decode.run("result = engine.batch_transfer_sync_read(session, local, remote, lengths)") == 0
    # What the owner takes back is gone for the borrower, too, until it is registered again.
    assert decode.run("result = engine.unregister_memory(tensors[0])") == 0
    assert decode.run("result = engine.register_memory(tensors[0], tensor_bytes)") == 0
    assert decode.run(read) == 0
    decode.run("second.close()")
    assert decode.run("result = engine.batch_transfer_sync_read(session, local, remote, lengths)") == 0
    assert decode.run("result = [engine.unregister_memory(t) for t in tensors]") == [0] * 8


def test_the_pool_reaches_host_memory_of_the_second_engine(peers):
    """NPU memory of one engine, host memory of another of the same process."""
    environment = npu_environment(1)
    process = peers(environment)
    side(process, 0, seed=100, count=2)
    code = """
pool = TransferEngine()
assert pool.initialize("127.0.0.1", "P2PHANDSHAKE", "ascend", "") == 0
segment = pool.allocate_managed_buffer(2 * tensor_bytes)
name = f"127.0.0.1:{pool.get_rpc_port()}"
targets = [segment, segment + tensor_bytes]
assert pool.batch_transfer_sync_write(name, tensors, targets, [tensor_bytes] * 2) == 0, last_error()
result = [pool.read_bytes_from_buffer(t, tensor_bytes) == blocks.pattern(tensor_bytes, 100 + n)
          for n, t in enumerate(targets)]
"""
    assert process.run(code) == [True, True]


def test_several_engines_of_one_process(peers):
    environment = npu_environment(4)
    prefill, decode = peers(environment), peers(environment)
    several = """
engines, sessions, regions = [], [], []
for device in range(4):
    npu.set_device(device)
    made = TransferEngine()
    assert made.initialize("127.0.0.1", "P2PHANDSHAKE", "ascend", "") == 0
    region = npu.allocate(2 << 20)
    npu.write(region, blocks.pattern(2 << 20, seed + device))
    assert made.register_memory(region, 2 << 20) == 0
    engines.append(made); regions.append(region); sessions.append(f"127.0.0.1:{made.get_rpc_port()}")
result = [sessions, regions]
"""
    sessions, regions = prefill.run(several, seed=100)
    assert len(set(sessions)) == 4
    decode.run(several, seed=300)
    code = """
codes = []
for n in range(4):
    peer = (n + 1) % 4
    codes.append(engines[n].batch_transfer_sync_read(their_sessions[peer], [regions[n]], [theirs[peer]], [2 << 20]))
wrong = []
for n in range(4):
    npu.set_device(n)
    if npu.read(regions[n], 2 << 20) != blocks.pattern(2 << 20, 100 + (n + 1) % 4):
        wrong.append(n)
result = [codes, wrong]
"""
    assert decode.run(code, their_sessions=sessions, theirs=regions) == [[0, 0, 0, 0], []]


def test_initialize_from_a_helper_thread(peers):
    """A framework that guards initialize with a deadline runs it in a thread that has no device bound."""
    environment = npu_environment(2)
    prefill, decode = peers(environment), peers(environment)
    session, tensors = side(prefill, 1, seed=100, count=4)
    helper = """
npu.set_device(0)
tensors = [npu.allocate(tensor_bytes) for _ in range(4)]
for number, tensor in enumerate(tensors):
    npu.write(tensor, blocks.pattern(tensor_bytes, 300 + number))
engine = TransferEngine()
codes = []
def begin():
    codes.append(engine.initialize("127.0.0.1", "P2PHANDSHAKE", "ascend", ""))
thread = threading.Thread(target=begin); thread.start(); thread.join()
def register():
    codes.extend(engine.register_memory(tensor, tensor_bytes) for tensor in tensors)
thread = threading.Thread(target=register); thread.start(); thread.join()
outcome = []
def read():
    outcome.append(engine.batch_transfer_sync_read(session, tensors, peer_tensors, [tensor_bytes] * 4))
    outcome.append(npu.current_device())
thread = threading.Thread(target=read); thread.start(); thread.join()
right = [npu.read(t, tensor_bytes) == blocks.pattern(tensor_bytes, 100 + n) for n, t in enumerate(tensors)]
result = [codes, outcome, npu.current_device(), right]
"""
    codes, outcome, device, right = decode.run(
        helper, session=session, peer_tensors=tensors, tensor_bytes=TENSOR_BYTES
    )
    assert codes == [0] * 5
    assert outcome[0] == 0 and outcome[1] == -1, "a thread without a device has none afterwards"
    assert device == 0 and right == [True] * 4


def test_tensor_parallel_4_on_each_side(peers):
    environment = npu_environment(8)
    prefill = [peers(environment) for _ in range(4)]
    decode = [peers(environment) for _ in range(4)]
    start = dict(count=8, tensor_bytes=TENSOR_BYTES, block_bytes=BLOCK_BYTES, local_name="127.0.0.1")
    for rank, peer in enumerate(prefill):
        peer.begin(SIDE, device=rank, seed=100 * (rank + 1), **start)
    for rank, peer in enumerate(decode):
        peer.begin(SIDE, device=4 + rank, seed=1000 * (rank + 1), **start)
    sources = [peer.finish() for peer in prefill]
    for peer in decode:
        peer.finish()
    for rank, (peer, (_, tensors)) in enumerate(zip(decode, sources)):
        plan(peer, tensors, peer_seed=100 * (rank + 1))
    read = "result = engine.batch_transfer_sync_read(session, local, remote, lengths)"
    for peer, (port, _) in zip(decode, sources):
        peer.begin(read, session=f"127.0.0.1:{port}")
    assert [peer.finish() for peer in decode] == [0] * 4
    assert [peer.run(CHECK) for peer in decode] == [[]] * 4


def test_many_threads_pull_at_once(peers):
    environment = npu_environment(2)
    prefill, decode = peers(environment), peers(environment)
    session, tensors = side(prefill, 0, seed=100, count=32)
    side(decode, 1, seed=300, count=32)
    code = """
codes = [None] * 32
def pull(n):
    codes[n] = engine.batch_transfer_sync_read(session, [tensors[n]], [peer_tensors[n]], [tensor_bytes])
threads = [threading.Thread(target=pull, args=(n,)) for n in range(32)]
for thread in threads: thread.start()
for thread in threads: thread.join()
wrong = [n for n, t in enumerate(tensors) if npu.read(t, tensor_bytes) != blocks.pattern(tensor_bytes, 100 + n)]
result = [set(codes) == {0}, wrong]
"""
    assert decode.run(code, session=session, peer_tensors=tensors) == [True, []]


def test_notes_of_transfers_between_npus(peers):
    environment = npu_environment(2)
    prefill, decode = peers(environment), peers(environment)
    session, tensors = side(decode, 1, seed=300, count=2)
    side(prefill, 0, seed=100, count=2)
    code = """
note = TransferNotify("request-1", "all layers")
lengths = [tensor_bytes] * 2
result = engine.batch_transfer_sync(session, tensors, peer_tensors, lengths, TransferOpcode.Write, note)
"""
    assert prefill.run(code, session=session, peer_tensors=tensors) == 0
    waiting = """
import time
end = time.monotonic() + 30
notes = []
while not notes and time.monotonic() < end:
    notes = engine.get_notifies()
    time.sleep(0.001)
right = [npu.read(t, tensor_bytes) == blocks.pattern(tensor_bytes, 100 + n) for n, t in enumerate(tensors)]
result = [[[note.name, note.msg] for note in notes], right]
"""
    assert decode.run(waiting) == [[["request-1", "all layers"]], [True, True]]


def test_threads_without_a_device_use_the_engines(peers):
    """Promise 5: eight engines on eight devices, driven by threads that have bound none; nothing lands elsewhere."""
    environment = npu_environment(8)
    process = peers(environment)
    code = """
size = 2 << 20
engines, regions = [], []
for device in range(8):
    npu.set_device(device)
    made = TransferEngine()
    assert made.initialize("127.0.0.1", "P2PHANDSHAKE", "ascend", "") == 0
    region = npu.allocate(size)
    npu.write(region, blocks.pattern(size, device))
    assert made.register_memory(region, size) == 0
    engines.append(made); regions.append(region)
targets = []
for device in range(8):
    npu.set_device(device)
    targets.append(npu.allocate(size))
    assert engines[device].register_memory(targets[-1], size) == 0
npu.set_device(7)
outcome = [None] * 8
def pull(n):
    peer = (n + 3) % 8
    name = f"127.0.0.1:{engines[peer].get_rpc_port()}"
    code = engines[n].batch_transfer_sync_read(name, [targets[n]], [regions[peer]], [size])
    outcome[n] = (code, npu.current_device())
threads = [threading.Thread(target=pull, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
mine = npu.current_device()
right = []
for n in range(8):
    npu.set_device(n)
    right.append(npu.read(targets[n], size) == blocks.pattern(size, (n + 3) % 8))
result = [outcome, mine, right]
"""
    outcome, mine, right = process.run(code)
    assert outcome == [[0, -1]] * 8 and mine == 7 and right == [True] * 8


@pytest.mark.parametrize("place", ["local", "remote"])
def test_memory_that_nobody_registered(peers, place):
    """Promise 3: the failure says which range, at whom, and what to do."""
    environment = npu_environment(2)
    prefill, decode = peers(environment), peers(environment)
    session, tensors = side(prefill, 0, seed=100, count=1)
    side(decode, 1, seed=300, count=1)
    code = """
extra = npu.allocate(tensor_bytes)
theirs = peer_tensors[0] + (0 if place == "local" else 64 * tensor_bytes)
mine = extra if place == "local" else tensors[0]
code = engine.batch_transfer_sync_read(session, [mine], [theirs], [tensor_bytes])
error = last_error()
result = [code, code == 0 or [error.code < 0, bool(error.message), bool(error.advice), error.range is not None]]
"""
    code, facts = decode.run(code, session=session, peer_tensors=tensors, place=place)
    if place == "remote":
        assert (code, facts) == (-1, [True, True, True, True])
    else:
        # Unregistered local memory is either taken along or refused with the whole record.
        assert code == 0 or facts == [True, True, True, True], facts
