"""mooncake.store on NPU memory, as the three generations of vLLM-Ascend's pool connector call it, on software NPUs.

A node has the KV cache of a model in 56 tensors. Each test has a node that lends memory to the pool and one that does not,
so that values also go to the memory of another process.
"""

import pytest
from conftest import npu_environment
from pool import MIB, masters  # noqa: F401

TENSORS = 56
BLOCK_BYTES = 16 << 10
# One request of the guide's model at its full length.
KEYS = 78

SIDE = """
from mooncake.mooncake_config import MooncakeConfig
from mooncake.store import MooncakeDistributedStore, ReplicateConfig, StoreCode
npu.set_device(0)
tensor_bytes = 2 << 20
tensors = [npu.allocate(tensor_bytes) for _ in range(56)]
def fill(seed):
    for number, tensor in enumerate(tensors):
        npu.write(tensor, blocks.pattern(tensor_bytes, seed + number))
def rows(numbers):
    return [[tensor + number * block_bytes for tensor in tensors] for number in numbers]
def wrong(seed, moved):
    # Which (tensor, block) is not what the block of the other side was.
    bad = []
    for number, tensor in enumerate(tensors):
        mine, theirs = npu.read(tensor, tensor_bytes), blocks.pattern(tensor_bytes, seed + number)
        for place, source in moved:
            here, there = place * block_bytes, source * block_bytes
            if mine[here:here + block_bytes] != theirs[there:there + block_bytes]:
                bad.append((number, place))
    return bad
fill(seed)
sizes = [block_bytes] * 56
names = [f"Qwen2.5-7B-Instruct@1@0@{number:064x}" for number in range(78)]
store = MooncakeDistributedStore()
result = None
"""

# Seven positional arguments, a second engine under the name of the NPU, which registers nothing.
FIRST = """
engine = TransferEngine()
assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "ascend", "") == 0
if registers == "engine":
    for tensor in tensors:
        assert engine.register_memory(tensor, tensor_bytes) == 0
name = f"127.0.0.1:{8790 + npu_id}:npu_{npu_id}"
code = store.setup(name, "P2PHANDSHAKE", segment, 1 << 30, "ascend", "", master)
assert code == 0, last_error()
if registers == "store":
    assert [store.register_buffer(tensor, tensor_bytes) for tensor in tensors] == [0] * 56
result = store.get_hostname()
"""

# Eight, the engine shared; the newest gives them by name and may lend nothing.
SHARED = """
engine = TransferEngine()
assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "ascend", "") == 0
session = f"127.0.0.1:{engine.get_rpc_port()}"
for tensor in tensors:
    assert engine.register_memory(tensor, tensor_bytes) == 0
if keywords:
    code = store.setup(local_hostname=session, metadata_server="P2PHANDSHAKE", global_segment_size=segment,
        local_buffer_size=0, protocol="ascend", rdma_devices="", master_server_addr=master, engine=engine.get_engine())
else:
    code = store.setup(session, "P2PHANDSHAKE", segment, 1 << 30, "ascend", "", master, engine.get_engine())
assert code == 0, last_error()
result = store.get_hostname()
"""


@pytest.fixture
def node(peers, masters, tmp_path):  # noqa: F811
    """Starts nodes on an NPU each, every NPU with an address for RoCE."""
    # What the lease is for is tested elsewhere; here a machine that stands still for a while must not matter.
    master = masters("--default_kv_lease_ttl=10000")
    addresses = tmp_path / "hccn.conf"
    addresses.write_text("".join(f"address_{number}=127.0.0.{number + 1}\n" for number in range(8)))
    environment = npu_environment(8, MOONCAKE_TRANSFER_HCCN_CONF=str(addresses))

    def start(setup, seed, npu_id, segment=64 * MIB, settings=(), **values):
        peer = peers({**environment, "ASCEND_RT_VISIBLE_DEVICES": str(npu_id), **dict(settings)})
        common = dict(seed=seed, block_bytes=BLOCK_BYTES, segment=segment, npu_id=npu_id, master=master.address)
        peer.run(SIDE, **common)
        peer.run(setup, **{"registers": "engine", "keywords": False, **values})
        return peer

    return start


PUT_FIRST = "result = [store.batch_put_from_ascend(names[n], row, sizes)[0] for n, row in enumerate(rows(range(count)))]"
GET_FIRST = """
result = [store.batch_get_into_ascend(names[n], row, sizes)[0] for n, row in enumerate(rows(reversed(range(count))))]
"""


@pytest.mark.parametrize("registers", ["engine", "store", "nobody"])
def test_first_generation(node, registers):
    """The guide's calls: one key with many buffers each. With register_buffer false nobody tells the store of the
    tensors; the connector's engine, if there is one, knows them."""
    writer = node(FIRST, seed=1, npu_id=0, registers=registers)
    reader = node(FIRST, seed=100, npu_id=1, segment=0, registers=registers)
    count = 8
    assert writer.run("result = store.is_exist(names[0])") == 0
    assert writer.run(PUT_FIRST, count=count) == [0] * count
    assert reader.run("result = store.batch_is_exist(names[:10])") == [1] * count + [0] * 2
    assert reader.run(GET_FIRST, count=count) == [TENSORS * BLOCK_BYTES] * count
    moved = [[place, count - 1 - place] for place in range(count)]
    assert reader.run("result = wrong(1, moved)", moved=moved) == []
    # The other way round: the reader lends nothing, so that what it puts goes to the writer's memory.
    put = "result = store.batch_put_from_ascend('other', rows([9])[0], sizes)[0]"
    assert reader.run(put) == 0
    get = "result = store.batch_get_into_ascend('other', rows([20])[0], sizes)[0]"
    assert writer.run(get) == TENSORS * BLOCK_BYTES
    assert writer.run("result = wrong(100, [[20, 9]])") == []
    assert writer.run("result = store.batch_get_into_ascend('absent', rows([0])[0], sizes)[0]") == -704
    for peer in (reader, writer):
        assert peer.run("result = store.close()") == 0
        assert peer.quit() == 0


@pytest.mark.parametrize("keywords", [False, True], ids=["positional", "keywords"])
@pytest.mark.parametrize("fourth", ["", ", True"], ids=["three", "four"])
def test_second_and_third_generation(node, keywords, fourth):
    """One engine for both connectors; a whole request in one call: 78 keys of 56 buffers."""
    writer = node(SHARED, seed=1, npu_id=0, segment=128 * MIB, keywords=keywords)
    reader = node(SHARED, seed=100, npu_id=1, segment=0, keywords=keywords)
    put = """
config = ReplicateConfig()
config.preferred_segment = session
config.prefer_alloc_in_same_node = True
result = store.batch_put_from_multi_buffers(names, rows(range(count)), [sizes] * count, config)
"""
    assert writer.run(put, count=KEYS) == [0] * KEYS
    get = f"result = store.batch_get_into_multi_buffers(names, rows(reversed(range(count))), [sizes] * count{fourth})"
    assert reader.run(get, count=KEYS) == [TENSORS * BLOCK_BYTES] * KEYS
    moved = [[place, KEYS - 1 - place] for place in range(KEYS)]
    assert reader.run("result = wrong(1, moved)", moved=moved) == []
    # The owner of the memory reads them, too; a key that is missing does not spoil the others.
    get = f"""
wanted = [names[0], "absent", names[2]]
result = store.batch_get_into_multi_buffers(wanted, rows([100, 101, 102]), [sizes] * 3{fourth})
"""
    assert writer.run(get) == [TENSORS * BLOCK_BYTES, -704, TENSORS * BLOCK_BYTES]
    assert writer.run("result = wrong(1, [[100, 0], [102, 2]])") == []
    for peer in (reader, writer):
        assert peer.run("result = store.close()") == 0
        assert peer.run("result = [engine.unregister_memory(tensor) for tensor in tensors]") == [0] * TENSORS


ROUTES = {
    "same-host": {},
    "as-between-hosts": {"MOONCAKE_TRANSFER_SAME_HOST": "0"},
    "roce": {"MOONCAKE_TRANSFER_SAME_HOST": "0", "HCCL_INTRA_ROCE_ENABLE": "1"},
    "aggregated": {"MOONCAKE_TRANSFER_SAME_HOST": "0", "ASCEND_AGGREGATE_ENABLE": "1"},
    "other-host": {"other": "1"},
}


@pytest.mark.parametrize("memory", ["npu", "host"])
@pytest.mark.parametrize("route", sorted(ROUTES))
def test_a_whole_request_on_every_route(node, route, memory):
    """78 keys of 56 buffers in one call, with and without the fourth argument: to and from the memory of another process,
    of this one, of another host; of NPUs and of hosts."""
    settings = dict(ROUTES[route])
    reader_settings = dict(settings)
    if settings.pop("other", None):
        # Another boot is another host: nothing of this one's kernel is shared.
        reader_settings = {"MOONCAKE_TRANSFER_BOOT_ID": "00000000-0000-4000-8000-000000000002"}
    writer = node(SHARED, seed=1, npu_id=0, segment=256 * MIB, settings=settings)
    reader = node(SHARED, seed=100, npu_id=1, segment=0, settings=reader_settings)
    host = """
if memory == "host":
    hosts = [ctypes.create_string_buffer(blocks.pattern(tensor_bytes, seed + n), tensor_bytes) for n in range(56)]
    tensors = [ctypes.addressof(one) for one in hosts]
    npu.read = ctypes.string_at
"""
    for peer in (writer, reader):
        peer.run(host, memory=memory)
    put = "result = store.batch_put_from_multi_buffers(names, rows(range(78)), [sizes] * 78)"
    assert writer.run(put) == [0] * KEYS
    whole = [TENSORS * BLOCK_BYTES] * KEYS
    for fourth, turn in (("", 1), (", True", 3)):
        moved = [[place, (place + turn) % KEYS] for place in range(KEYS)]
        get = f"""
asked = [names[source] for _, source in moved]
result = store.batch_get_into_multi_buffers(asked, rows([place for place, _ in moved]), [sizes] * 78{fourth})
"""
        assert reader.run(get, moved=moved) == whole
        assert reader.run("result = wrong(1, moved)") == []
    # Back: what this one puts lies in the other's memory, and the owner reads it there.
    again = "result = store.batch_put_from_multi_buffers([n + '/back' for n in names], rows(range(78)), [sizes] * 78)"
    assert reader.run(again) == [0] * KEYS
    own = "result = store.batch_get_into_multi_buffers([n + '/back' for n in names], rows(range(78)), [sizes] * 78, True)"
    assert writer.run(own) == whole
    assert writer.run("result = wrong(1, [[place, (place + 3) % 78] for place in range(78)])") == []


def test_the_schedulers_client(node):
    """It lends nothing, has no local buffer, and only asks."""
    writer = node(SHARED, seed=1, npu_id=0)
    scheduler = node(SHARED, seed=50, npu_id=1, segment=0, keywords=True)
    assert writer.run(PUT_FIRST, count=2) == [0, 0]
    assert scheduler.run("result = store.batch_is_exist(names[:4])") == [1, 1, 0, 0]
    assert scheduler.run("result = store.put('host', b'value')") == -600
    assert scheduler.run("result = store.health_check()") == 0


def test_many_threads(node):
    """Sending and receiving threads and a pool of lookups, none of which has bound an NPU."""
    writer = node(FIRST, seed=1, npu_id=0)
    reader = node(FIRST, seed=100, npu_id=1, segment=0)
    assert writer.run(PUT_FIRST, count=32) == [0] * 32
    code = """
outcome, devices = [None] * 32, set()
def load(number):
    found = store.batch_is_exist(names[:32])
    outcome[number] = (sum(found), store.batch_get_into_ascend(names[number], rows([number])[0], sizes)[0])
    devices.add(npu.current_device())
threads = [threading.Thread(target=load, args=(number,)) for number in range(32)]
for thread in threads: thread.start()
for thread in threads: thread.join()
result = [outcome, sorted(devices), npu.current_device()]
"""
    outcome, devices, own = reader.run(code)
    assert outcome == [[32, TENSORS * BLOCK_BYTES]] * 32
    assert devices == [-1] and own == 0, "no thread was bound behind its back"
    assert reader.run("result = wrong(1, [[n, n] for n in range(32)])") == []


def test_the_other_node_reads_from_the_one_that_has_both(node):
    """The transfer engine of the connector and the store's own live side by side in both nodes."""
    writer, reader = node(FIRST, seed=1, npu_id=0), node(FIRST, seed=100, npu_id=1)
    assert writer.run(PUT_FIRST, count=4) == [0] * 4
    port, theirs = writer.run("result = [engine.get_rpc_port(), tensors]")
    pull = """
local = [tensor + 10 * block_bytes for tensor in tensors]
remote = [tensor + 5 * block_bytes for tensor in theirs]
result = engine.batch_transfer_sync_read(f"127.0.0.1:{port}", local, remote, sizes)
"""
    assert reader.run(pull, port=port, theirs=theirs) == 0
    assert reader.run(GET_FIRST, count=4) == [TENSORS * BLOCK_BYTES] * 4
    assert reader.run("result = wrong(1, [[10, 5], [0, 3], [3, 0]])") == []


def test_a_value_of_host_and_npu_memory(node):
    """A header on the host and the rest on the NPU, as a tensor is stored."""
    writer = node(SHARED, seed=1, npu_id=0)
    put = """
head = ctypes.create_string_buffer(b"h" * 304, 304)
result = store.batch_put_from_multi_buffers(["mixed"], [[ctypes.addressof(head), tensors[3]]], [[304, 100000]])
"""
    assert writer.run(put) == [0]
    get = "value = store.get('mixed'); result = [len(value), value == b'h' * 304 + blocks.pattern(100000, 4)]"
    assert writer.run(get) == [100304, True]
