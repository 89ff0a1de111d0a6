"""How vLLM, SGLang, LMCache and MindIE use the store, in our own words: calls, arguments and what they compare."""

import ctypes

import pytest
from blocks import HostBlock, pattern
from mooncake.store import MooncakeDistributedStore, ReplicateConfig
from pool import MIB, join, master, masters  # noqa: F401


@pytest.fixture
def store():
    made = MooncakeDistributedStore()
    yield made
    made.close()


def test_vllms_store_connector(store, master):  # noqa: F811
    arguments = ("127.0.0.1", "P2PHANDSHAKE", 64 * MIB, 16 * MIB, "tcp", "", master.address)
    assert store.setup(*arguments) == 0
    cache = HostBlock(4 * MIB, seed=2)
    assert store.register_buffer(cache.address, cache.length) == 0
    keys = [f"vllm@{number}" for number in range(4)]
    rows = [[cache.address + number * MIB + part * 65536 for part in range(16)] for number in range(4)]
    sizes = [[65536] * 16] * 4
    config = ReplicateConfig()
    assert not any(code < 0 or code == -200 for code in store.batch_put_from_multi_buffers(keys, rows, sizes, config))
    ctypes.memset(cache.address, 0, cache.length)
    assert store.batch_is_exist(keys + ["none"]) == [1, 1, 1, 1, 0]
    described = store.batch_get_replica_desc(keys)
    assert all(described[key][0].is_memory_replica() for key in keys)
    assert not any(described[key][0].is_disk_replica() or described[key][0].is_local_disk_replica() for key in keys)
    assert store.batch_get_into_multi_buffers(keys, rows, sizes) == [MIB] * 4
    assert cache.buffer.raw == pattern(4 * MIB, 2)


def test_sglangs_store(store, master):  # noqa: F811
    arguments = ("127.0.0.1", "P2PHANDSHAKE", 64 * MIB, 16 * MIB, "tcp", "", master.address, None)
    optional = {"tenant_id": "default", "enable_ssd_offload": False, "ssd_offload_path": ""}
    try:
        store.setup(*arguments, **optional, a_keyword_of_tomorrow=1)
    except TypeError as error:
        assert "a_keyword_of_tomorrow" in str(error), "it drops the keyword that the text names and tries again"
    assert store.setup(*arguments, **optional) == 0
    assert store.put("sglang-warm-up", bytes(4096)) == 0
    assert store.is_exist("sglang-warm-up") == 1 and store.get("sglang-warm-up") == bytes(4096)
    assert master.http("/get_all_segments").strip(), "the sign that the pool is ready"
    assert hasattr(ReplicateConfig, "group_ids")
    pages = HostBlock(8 * 8192, seed=3)
    assert store.register_buffer(pages.address, pages.length) == 0
    keys = [f"page{number}_k" for number in range(8)]
    addresses, sizes = [pages.address + 8192 * number for number in range(8)], [8192] * 8
    missing = [number for number, there in enumerate(store.batch_is_exist(keys)) if there != 1]
    assert missing == list(range(8))
    config = ReplicateConfig()
    config.group_ids = ["request"] * 8
    assert store.batch_put_from(keys, addresses, sizes, config) == [0] * 8
    ctypes.memset(pages.address, 0, pages.length)
    assert all(length > 0 for length in store.batch_get_into(keys, addresses, sizes))
    assert pages.buffer.raw == pattern(8 * 8192, 3)
    assert store.remove_all() >= 0


def test_groups_have_to_fit_the_keys(join, master):  # noqa: F811
    store, block = join(master), HostBlock(100, seed=1)
    config = ReplicateConfig()
    config.group_ids = ["only one"]
    assert store.batch_put_from(["g1", "g2"], [block.address] * 2, [100] * 2, config) == [-600] * 2


def test_lmcaches_connector(store, master):  # noqa: F811
    settings = {
        "local_hostname": "localhost",
        "metadata_server": "P2PHANDSHAKE",
        "global_segment_size": str(64 * MIB),
        "local_buffer_size": str(16 * MIB),
        "protocol": "tcp",
        "rdma_devices": "",
        "master_server_addr": master.address,
    }
    store.setup(settings)
    pinned = HostBlock(4 * MIB, seed=6)
    store.register_buffer(pinned.address, pinned.length)
    config = ReplicateConfig()
    config.replica_num = 1
    config.preferred_segment = store.get_hostname()
    metadata, body = bytes(range(28)), pattern(100_000, 8)
    assert not store.is_exist("lm")
    assert store.put_parts("lm", metadata, memoryview(body), config=config) == 0
    assert store.is_exist("lm")
    handles = store.batch_get_buffer(["lm", "absent"])
    assert handles[1] is None
    view = memoryview(handles[0])
    assert view[:28] == metadata
    copy = bytearray(100_000)
    memoryview(copy)[:] = view[28:]
    assert copy == body
    assert store.batch_put_from(["lm2"], [pinned.address], [MIB], config) == [0]
    into = store.batch_get_into(["lm2", "absent"], [pinned.address + 2 * MIB, pinned.address + 3 * MIB], [MIB, MIB])
    assert into[0] == MIB and into[1] <= 0
    assert pinned.buffer.raw[2 * MIB : 3 * MIB] == pattern(4 * MIB, 6)[:MIB]
    assert store.unregister_buffer(pinned.address) == 0


def test_sglangs_direct_linker(join, master):  # noqa: F811
    store = join(master)
    value, target = pattern(200_000, 9), HostBlock(200_000)
    assert store.put("linked", value) == 0
    assert store.batch_get_session_start(["linked"]) == [0]
    layers = 10
    for layer in range(layers):
        offset = layer * 20_000
        row, sizes, offsets = [target.address + offset, target.address + offset + 10_000], [10_000] * 2, [offset, offset + 10_000]
        assert store.batch_get_into_multi_buffer_ranges(["linked"], [row], [sizes], [offsets]) == [20_000]
    store.batch_get_session_end(["linked"])
    assert target.buffer.raw == value


def test_a_swapped_size_is_the_same_object(join, masters):  # noqa: F811
    """Two writers of one key: the first one's bytes stay, whatever the second one brings."""
    own = masters()
    first, second = join(own), join(own)
    assert first.put("shared", b"a" * 1000) == 0 and second.put("shared", b"b" * 5000) == 0
    assert first.get("shared") == second.get("shared") == b"a" * 1000
