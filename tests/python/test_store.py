"""mooncake.store with a master: what upstream's own tests look at, in our own words, and its conventions."""

import array
import ctypes
import os
import random
import threading

import pytest
from blocks import HostBlock, pattern
from mooncake.engine import TransferEngine
from mooncake.store import MooncakeDistributedStore, ReplicateConfig, SoftPinAction, StoreCode, last_error
from pool import MIB, join, master, masters, wait_until  # noqa: F401

ABSENT = StoreCode.OBJECT_NOT_FOUND
INVALID = StoreCode.INVALID_PARAMS


@pytest.fixture(scope="module")
def store(master):  # noqa: F811
    made = MooncakeDistributedStore()
    assert made.setup("localhost", "P2PHANDSHAKE", 256 * MIB, 64 * MIB, "tcp", "eth0", master.address) == 0
    host, port = made.get_hostname().split(":")
    assert host == "localhost" and 12300 <= int(port) <= 14300, "a port of upstream's range where none was given"
    yield made
    assert made.close() == 0


@pytest.fixture
def key(request):
    return f"{request.node.nodeid.partition('::')[2]}/{os.getpid()}"


def dropped(store, key) -> bool:
    """Removes a key whose lease is ending."""
    return store.remove(key) == 0


class TestSetup:
    def config(self, master, **changes):  # noqa: F811
        wanted = {
            "local_hostname": "localhost",
            "metadata_server": "P2PHANDSHAKE",
            "global_segment_size": "16MB",
            "local_buffer_size": "16 MB",
            "protocol": "tcp",
            "rdma_devices": "eth0",
            "master_server_addr": master.address,
        }
        return {**wanted, **changes}

    def test_dict_with_sizes_as_people_write_them(self, master, key):  # noqa: F811
        store = MooncakeDistributedStore()
        assert store.setup(self.config(master)) == 0
        assert store.put(key, b"value") == 0 and store.get(key) == b"value"
        assert store.close() == 0

    @pytest.mark.parametrize(
        "changes",
        [
            {"global_segment_size": "50%"},
            {"global_segment_size": 1000},
            {"local_buffer_size": "much"},
            {"protocol": "carrier pigeon"},
            {"local_hostname": ""},
        ],
    )
    def test_dict_that_cannot_be_used(self, master, changes):  # noqa: F811
        store = MooncakeDistributedStore()
        assert store.setup(self.config(master, **changes)) == INVALID
        assert last_error().store_code == INVALID

    def test_a_missing_key_is_named(self, master):  # noqa: F811
        wanted = self.config(master)
        del wanted["metadata_server"]
        assert MooncakeDistributedStore().setup(config=wanted) == INVALID
        assert "metadata_server" in last_error().message

    def test_an_unknown_key_is_named_with_the_one_that_was_meant(self, master, caplog):  # noqa: F811
        store = MooncakeDistributedStore()
        assert store.setup(self.config(master, master_server_adress="x")) == 0
        assert "master_server_adress; did you mean master_server_addr?" in caplog.text
        store.close()

    def test_keywords_texts_and_no_memory_at_all(self, master, key):  # noqa: F811
        store = MooncakeDistributedStore()
        code = store.setup(
            local_hostname="127.0.0.1:20000",
            metadata_server="P2PHANDSHAKE",
            global_segment_size=0,
            local_buffer_size="0",
            protocol="tcp",
            rdma_devices="",
            master_server_addr=master.address,
            engine=None,
        )
        assert code == 0 and store.get_hostname() == "127.0.0.1:20000"
        assert store.put(key, b"value") == INVALID, "there is no local buffer"
        assert store.is_exist(key) == 0
        assert store.close() == 0

    def test_sizes_that_no_page_divides(self, join, master, key):  # noqa: F811
        store = join(master, segment=30_000_000_001)
        block = HostBlock(3 * MIB + 1, seed=3)
        assert store.put_from(key, block.address, block.length) == 0
        assert store.get(key) == pattern(block.length, 3)
        detail = master.http("/get_segments_detail")
        assert '"size_bytes":30000000001' in detail.replace(" ", "")

    @pytest.mark.parametrize("size", [1, 16 * MIB - 1])
    def test_segments_below_upstreams_smallest(self, master, size):  # noqa: F811
        store = MooncakeDistributedStore()
        assert store.setup("127.0.0.1", "P2PHANDSHAKE", size, 0, "tcp", "", master.address) == INVALID

    def test_a_disk_is_refused_loudly(self, master):  # noqa: F811
        arguments = ("127.0.0.1", "P2PHANDSHAKE", 0, 0, "tcp", "", master.address)
        assert MooncakeDistributedStore().setup(*arguments, enable_ssd_offload=True) == StoreCode.NOT_SUPPORTED
        assert "enable_ssd_offload" in last_error().message

    def test_types(self, master):  # noqa: F811
        for wrong in [
            (5, "P2PHANDSHAKE", 0, 0, "tcp", "", "m:1"),
            ("h", "P2PHANDSHAKE", 1.5, 0, "tcp", "", "m:1"),
            ("h", "P2PHANDSHAKE", -1, 0, "tcp", "", "m:1"),
            ("h", "P2PHANDSHAKE", 0, 0, "tcp", "", "m:1", object()),
        ]:
            with pytest.raises(TypeError):
                MooncakeDistributedStore().setup(*wrong)

    def test_the_line_that_says_what_is_mounted(self, join, master, caplog):  # noqa: F811
        import logging

        # The library's level is that of the logger when it was loaded; a fresh process shows the line.
        code = f"""
import logging
logging.basicConfig(level=logging.INFO)
from mooncake.store import MooncakeDistributedStore
store = MooncakeDistributedStore()
assert store.setup("127.0.0.1", "P2PHANDSHAKE", {64 * MIB}, 0, "tcp", "", "{master.address}") == 0
store.close()
"""
        from conftest import run_python

        outcome = run_python(code)
        assert outcome.returncode == 0, outcome.stderr
        lines = [line for line in outcome.stderr.splitlines() if "lends" in line]
        assert len(lines) == 1 and "the host has" in lines[0], outcome.stderr
        assert logging.getLogger("mooncake").level == logging.NOTSET

    def test_twice_on_one_object(self, master, key):  # noqa: F811
        store = MooncakeDistributedStore()
        for _ in range(2):
            assert store.setup(self.config(master)) == 0
            assert store.is_exist(key) == 0, "the first segment went with what was in it"
            assert store.put(key, b"value") == 0
        store.close()


class TestValues:
    def test_round_trip(self, store, key):
        assert store.put(key, b"Hello") == 0
        assert store.get(key) == b"Hello" and store.get_size(key) == 5 and store.is_exist(key) == 1
        assert store.put(key, b"another, longer one") == 0, "a second put is a success"
        assert store.get(key) == b"Hello", "and keeps the first value"
        assert store.remove(key) == StoreCode.OBJECT_HAS_LEASE
        wait_until(lambda: dropped(store, key), "the lease ends")
        assert store.get(key) == b"" and store.get_size(key) == ABSENT and store.is_exist(key) == 0
        assert last_error() is not None

    @pytest.mark.parametrize("length", [1, 3, 65536, 65537, 5 * MIB + 3])
    def test_lengths(self, store, key, length):
        value = pattern(length, length % 251)
        assert store.put(key, value) == 0
        assert store.get(key) == value and bytes(store.get_buffer(key)) == value

    @pytest.mark.parametrize(
        "value",
        [bytearray(b"abc"), memoryview(b"abcdef")[::2], array.array("i", [1, 2, 3]), (ctypes.c_double * 4)(1, 2, 3, 4)],
        ids=["bytearray", "strided", "typed", "ctypes"],
    )
    def test_anything_with_a_buffer(self, store, key, value):
        assert store.put(key, value) == 0
        assert store.get(key) == memoryview(value).tobytes(), "all its bytes, not one for each element"

    def test_what_is_no_value(self, store, key):
        assert store.put(key, b"") == INVALID
        assert store.put("", b"value") == INVALID
        for wrong in ("text", 5, None):
            with pytest.raises(TypeError, match="value"):
                store.put(key, wrong)
        with pytest.raises(TypeError, match="key"):
            store.put(5, b"value")
        with pytest.raises(TypeError, match="ReplicateConfig"):
            store.put(key, b"value", {"replica_num": 1})
        assert store.is_exist(key) == 0

    @pytest.mark.parametrize("name", ["with\0nul", "schlüssel/🔑", "model@8@3@" + "f" * 64 + "@27", "k" * 8192])
    def test_keys(self, store, name):
        assert store.put(name, name.encode()) == 0
        assert store.get(name) == name.encode() and store.batch_is_exist([name, name + "x"]) == [1, 0]
        assert list(store.batch_get_replica_desc([name, name + "x"])) == [name]

    def test_parts(self, store, key):
        assert store.put_parts(key, b"one", memoryview(b"two"), bytearray(b""), b"three") == 0
        assert store.get(key) == b"onetwothree"
        assert store.put_parts(key + "0", b"", b"") == 0
        assert store.is_exist(key + "0") == 0, "no bytes are a success without an object"

    def test_batches(self, store, key):
        keys = [f"{key}/{number}" for number in range(20)]
        values = [pattern(100 * number + 1, number) for number in range(20)]
        assert store.put_batch(keys, values) == 0
        assert store.get_batch([*keys, "absent"]) == [*values, b""]
        handles = store.batch_get_buffer([keys[3], "absent", keys[4]])
        assert [handle and bytes(handle) for handle in handles] == [values[3], None, values[4]]
        assert store.put_batch(keys, values[:-1]) == INVALID
        assert store.put_batch([], []) == 0 and store.get_batch([]) == [b""] and store.batch_get_buffer([]) == []
        assert store.put_batch([key, ""], [b"good", b"bad"]) == INVALID, "the first failure"
        assert store.get(key) == b"good", "which does not spoil the others"

    def test_buffer_handle(self, store, key):
        assert store.put(key, b"0123456789") == 0
        handle = store.get_buffer(key)
        assert (len(handle), handle.size(), bytes(handle)) == (10, 10, b"0123456789")
        assert ctypes.string_at(handle.ptr(), 10) == b"0123456789"
        view = memoryview(handle)
        assert view[3] == ord("3") and bytes(view[2:4]) == b"23"
        assert store.get_buffer("absent") is None

    def test_exists_and_removal_of_many(self, store, key):
        keys = [f"{key}/{number}" for number in range(20)]
        assert store.put_batch(keys[:10], [b"value"] * 10) == 0
        assert store.batch_is_exist(keys) == [1] * 10 + [0] * 10
        assert store.batch_is_exist([]) == [] and store.batch_is_exist(keys[:1]) == [1]
        assert store.batch_remove(keys[8:12], True) == [0, 0, ABSENT, ABSENT]
        assert store.batch_remove(keys[:1]) == [StoreCode.OBJECT_HAS_LEASE]
        assert store.remove_by_regex(rf"{key}/[0-5]", True) == 6
        assert store.remove_by_regex("(", True) == INVALID
        assert store.batch_is_exist(keys[:8]) == [0] * 6 + [1] * 2

    def test_upsert(self, store, key):
        assert store.upsert(key, b"first") == 0 and store.get(key) == b"first"
        wait_until(lambda: store.upsert(key, b"other") == 0, "the lease ends")
        assert store.get(key) == b"other"
        wait_until(lambda: store.upsert_parts(key, b"a longer", b" value") == 0, "the lease ends")
        assert store.get(key) == b"a longer value"
        block = HostBlock(100, seed=1)
        wait_until(lambda: store.upsert_from(key, block.address, 100) == 0, "the lease ends")
        assert store.get(key) == pattern(100, 1)


class TestMemory:
    def test_put_from_and_get_into(self, store, key):
        data = b"Hello, memory " * 1000
        block, small = HostBlock(len(data) + 1024), HostBlock(len(data) // 2)
        assert store.register_buffer(block.address, block.length) == 0
        assert store.register_buffer(small.address, small.length) == 0
        ctypes.memmove(block.address, data, len(data))
        assert store.put_from(key, block.address, len(data)) == 0
        ctypes.memset(block.address, 0, block.length)
        assert store.get_into(key, block.address, block.length) == len(data), "the place may be larger"
        assert block.buffer.raw == data + bytes(1024), "and what is left of it stays as it was"
        before = small.digest()
        assert store.get_into(key, small.address, small.length) == INVALID
        assert small.digest() == before
        assert store.get_into("absent", block.address, block.length) == ABSENT
        assert store.unregister_buffer(block.address) == 0
        assert store.unregister_buffer(small.address) == 0

    def test_registration(self, store):
        block = HostBlock(8192)
        assert store.register_buffer(0, 10) == INVALID and store.register_buffer(block.address, 0) == INVALID
        assert store.register_buffer(block.address, 4096) == 0
        assert store.register_buffer(block.address, 4096) == INVALID, "known already"
        assert store.register_buffer(block.address + 4096, 4096) == 0, "the neighbour is another one"
        assert store.unregister_buffer(block.address + 64) == INVALID
        assert store.unregister_buffer(block.address) == 0 and store.unregister_buffer(block.address + 4096) == 0

    def test_no_bytes_are_a_success_without_an_object(self, store, key):
        block = HostBlock(8)
        assert store.put_from(key, block.address, 0) == 0
        assert store.is_exist(key) == 0

    def test_batches(self, store, key):
        keys = [f"{key}/{number}" for number in range(8)]
        sources = [HostBlock(1000 * (number + 1), seed=number) for number in range(8)]
        targets = [HostBlock(10000) for _ in range(8)]
        addresses, sizes = [block.address for block in sources], [block.length for block in sources]
        assert store.batch_put_from(keys, addresses, sizes) == [0] * 8
        places = tuple(block.address for block in targets)
        assert store.batch_get_into([*keys[:7], "absent"], places, [10000] * 8) == [*sizes[:7], ABSENT]
        for number in range(7):
            assert targets[number].buffer.raw[: sizes[number]] == pattern(sizes[number], number)
        assert store.batch_get_into(keys, places, sizes[:-1]) == [INVALID] * 8
        assert store.batch_put_from(keys, addresses[:-1], sizes) == [INVALID] * 8
        assert store.batch_put_from([], [], []) == [] and store.batch_get_into([], [], []) == []

    def test_a_key_twice_in_one_batch(self, store, key):
        blocks = [HostBlock(100, seed=1), HostBlock(100, seed=2)]
        codes = store.batch_put_from([key, key], [block.address for block in blocks], [100, 100])
        assert codes == [0, 0] and store.get(key) == pattern(100, 1)

    def test_numpy(self, store, key):
        numpy = pytest.importorskip("numpy", reason="numpy is not installed")
        source, target = numpy.arange(1000, dtype=numpy.int64), numpy.zeros(1000, dtype=numpy.int64)
        address, size = numpy.uint64(source.ctypes.data), numpy.int64(8000)
        assert store.put_from(key, address, size) == 0
        into = store.batch_get_into([key], numpy.array([target.ctypes.data]), numpy.array([8000]))
        assert into == [8000] and (source == target).all()
        assert store.put(key + "2", source) == 0 and store.get(key + "2") == source.tobytes()

    @pytest.mark.parametrize("wrong", [1.5, "1", -1, None])
    def test_what_is_no_address(self, store, key, wrong):
        with pytest.raises(TypeError):
            store.batch_put_from([key], [wrong], [1])
        with pytest.raises(TypeError):
            store.get_into(key, wrong, 1)

    def test_metadata_before_data(self, store, key):
        head, body = HostBlock(64, seed=1), HostBlock(1000, seed=2)
        assert store.put_from_with_metadata(key, body.address, head.address, 1000, 64) == 0
        assert store.get(key) == pattern(64, 1) + pattern(1000, 2)


class TestManyBuffers:
    def test_cut_otherwise_on_the_way_back(self, store, key):
        parts = [HostBlock(length, seed=length % 200) for length in (1000, 1, 70000, 4096)]
        whole = b"".join(pattern(block.length, block.length % 200) for block in parts)
        sizes = [block.length for block in parts]
        assert store.batch_put_from_multi_buffers([key], [[block.address for block in parts]], [sizes]) == [0]
        assert store.get(key) == whole
        place = HostBlock(len(whole))
        cuts = [3, 50000, len(whole) - 50003]
        starts = [place.address, place.address + 3, place.address + 50003]
        for fourth in ((), (True,), (False,)):
            ctypes.memset(place.address, 0, place.length)
            assert store.batch_get_into_multi_buffers([key], [starts], [cuts], *fourth) == [len(whole)]
            assert place.buffer.raw == whole
        short = [*cuts[:2], cuts[2] - 1]
        assert store.batch_get_into_multi_buffers([key], [starts], [short]) == [INVALID]
        spare = HostBlock(len(whole) + 1)
        exact = store.batch_get_into_multi_buffers([key], [[spare.address]], [[spare.length]])
        assert exact == [StoreCode.TRANSFER_FAIL], "the sum has to be the object's length"

    def test_one_bad_key_does_not_spoil_the_batch(self, store, key):
        blocks = [HostBlock(100, seed=number) for number in range(3)]
        rows, sizes = [[block.address] for block in blocks], [[100]] * 3
        keys = [f"{key}/{number}" for number in range(3)]
        assert store.batch_put_from_multi_buffers(keys, [rows[0], [], rows[2]], [[100], [], [100]]) == [0, INVALID, 0]
        targets = [HostBlock(100) for _ in range(3)]
        places = [[block.address] for block in targets]
        assert store.batch_get_into_multi_buffers(keys, places, sizes) == [100, ABSENT, 100]
        assert [block.buffer.raw for block in targets] == [pattern(100, 0), bytes(100), pattern(100, 2)]

    @pytest.mark.parametrize("changed", ["addresses", "sizes", "keys"])
    def test_lists_that_do_not_fit(self, store, key, changed):
        block = HostBlock(100)
        keys, addresses, sizes = [key, key + "2"], [[block.address]] * 2, [[50]] * 2
        if changed == "addresses":
            addresses = addresses[:1]
        elif changed == "sizes":
            sizes = [[50], [25, 25]]
        else:
            keys = keys[:1]
        assert store.batch_put_from_multi_buffers(keys, addresses, sizes) == [INVALID] * len(keys)
        assert store.batch_get_into_multi_buffers(keys, addresses, sizes) == [INVALID] * len(keys)

    def test_the_ascend_branchs_calls(self, store, key):
        parts = [HostBlock(5000, seed=number) for number in range(4)]
        addresses, sizes = [block.address for block in parts], [5000] * 4
        assert store.batch_put_from_ascend(key, addresses, sizes)[0] == 0
        target = HostBlock(20000)
        places = [target.address + 5000 * number for number in range(4)]
        assert store.batch_get_into_ascend(key, places, sizes)[0] == sum(sizes)
        assert target.buffer.raw == b"".join(pattern(5000, number) for number in range(4))
        assert store.batch_get_into_ascend("absent", places, sizes)[0] == ABSENT
        assert store.batch_put_from_ascend(key, addresses, sizes[:-1])[0] == INVALID
        with pytest.raises(TypeError):
            store.batch_put_from_ascend([key], addresses, sizes)

    def test_ranges(self, store, key):
        one, two = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz0123456789"
        assert store.put_batch([key + "1", key + "2"], [one, two]) == 0
        first, second = HostBlock(32), HostBlock(32)
        for block in (first, second):
            ctypes.memset(block.address, ord("_"), 32)
            assert store.register_buffer(block.address, 32) == 0
        results = store.get_into_ranges(
            [first.address, second.address],
            [[key + "1", key + "2"], [key + "2", key + "1"]],
            [[[0, 20], [8]], [[4], [16]]],
            [[[1, 30], [2]], [[0], [10]]],
            [[[4, 3], [5]], [[6], [4]]],
        )
        assert results == [[[4, 3], [5]], [[6], [4]]]
        assert first.buffer.raw == b"1234____cdefg_______UVW_________".replace(b"UVW", one[30:33])
        assert second.buffer.raw[4:10] == two[:6] and second.buffer.raw[16:20] == one[10:14]
        base = [first.address]
        shape = store.get_into_ranges(base, [[key + "1", key + "2"]], [[[0], []]], [[[0, 1], []]], [[[4, 4], []]])
        assert [len(row) for row in shape[0]] == [2, 0] and max(shape[0][0]) < 0
        assert store.get_into_ranges(base, [[key + "1"]], [[[0]]], [[[len(one) - 1]]], [[[4]]]) == [[[INVALID]]]
        assert store.get_into_ranges(base, [[key + "1"]], [[[31]]], [[[0]]], [[[4]]]) == [[[INVALID]]]
        mixed = store.get_into_ranges(base, [["absent", key + "1"]], [[[0], [8]]], [[[0], [0]]], [[[4], [4]]])
        assert mixed == [[[ABSENT], [4]]]
        for block in (first, second):
            assert store.unregister_buffer(block.address) == 0

    def test_sessions_of_range_reads(self, store, key):
        value = pattern(10000, 4)
        assert store.put(key, value) == 0
        assert store.batch_get_session_start([key, "absent"]) == [0, ABSENT]
        target = HostBlock(300)
        places = [target.address, target.address + 100]
        sums = store.batch_get_into_multi_buffer_ranges([key], [places], [[100, 200]], [[5000, 7]])
        assert sums == [300] and target.buffer.raw == value[5000:5100] + value[7:207]
        assert store.batch_get_session_end([key]) == 0


class TestPlacement:
    @staticmethod
    def places(store, key) -> list[str]:
        """The names of the segments that have a copy."""
        copies = store.get_replica_desc(key)
        assert all(copy.is_memory_replica() and copy.status.name == "COMPLETE" for copy in copies)
        return [copy.get_memory_descriptor().buffer_descriptor.transport_endpoint for copy in copies]

    def test_a_copy_outlives_the_owner_of_the_other(self, join, masters, key):  # noqa: F811
        own = masters()
        engines = [TransferEngine() for _ in range(2)]
        for engine in engines:
            assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
        # With an engine of its own each store has the name of its endpoint.
        names = [f"127.0.0.1:{engine.get_rpc_port()}" for engine in engines]
        stores = {name: join(own, host=name, engine=engine.get_engine()) for name, engine in zip(names, engines)}
        reader = join(own, segment=0)
        config = ReplicateConfig()
        config.replica_num = 2
        value = pattern(MIB, 7)
        assert reader.put(key=key, value=value, config=config) == 0
        assert sorted(self.places(reader, key)) == sorted(names), "each on a segment of its own"
        gone, left = self.places(reader, key)
        assert stores[gone].close() == 0
        assert self.places(reader, key) == [left]
        assert reader.get(key) == value and stores[left].get(key) == value
        # The one that left comes back, and takes part again.
        arguments = (gone, "P2PHANDSHAKE", 64 * MIB, MIB, "tcp", "", own.address)
        assert stores[gone].setup(*arguments, engine=engines[names.index(gone)].get_engine()) == 0
        assert stores[gone].get(key) == value
        assert reader.put(key + "/again", value, config) == 0
        assert sorted(self.places(reader, key + "/again")) == sorted(names)
        # More copies than segments: as many as there is room for.
        config.replica_num = 5
        assert reader.put(key + "/five", b"value", config) == 0 and len(self.places(reader, key + "/five")) == 2

    def test_the_segment_that_is_preferred(self, join, masters, key):  # noqa: F811
        own = masters()
        stores = [join(own) for _ in range(3)]
        for number in range(6):
            config = ReplicateConfig()
            target = stores[number % 3]
            config.preferred_segment = target.get_hostname()
            name = f"{key}/{number}"
            assert stores[0].put(name, b"x" * 1000, config) == 0
            place = stores[0].get_replica_desc(name)[0].get_memory_descriptor().buffer_descriptor
            endpoint = place.transport_endpoint
            segments = own.http("/get_segments_detail")
            owner = segments.split(f'"{target.get_hostname()}"')[1].split("te_endpoint")[1].split('"')[2]
            assert endpoint == owner

    def test_soft_pins(self, store, key):
        config = ReplicateConfig()
        config.soft_pin_action, config.soft_pin_ttl_ms = SoftPinAction.ENABLE, 60000
        assert store.put(key, b"value", config) == 0
        config.soft_pin_action = SoftPinAction.PRESERVE
        assert store.put(key + "2", b"value", config) == INVALID, "a time without a pin"
        config.soft_pin_action, config.soft_pin_ttl_ms = SoftPinAction.ENABLE, 2**63
        assert store.put(key + "3", b"value", config) == INVALID, "longer than the master allows"

    def test_what_only_disks_have(self, store, key):
        config = ReplicateConfig()
        config.nof_replica_num = 1
        assert store.put(key, b"value", config) == StoreCode.NOT_SUPPORTED

    def test_dropping_the_copies_of_ones_own(self, join, masters, key):  # noqa: F811
        own = masters()
        mine, other = join(own), join(own)
        assert mine.put_batch([key + "1", key + "2"], [b"value"] * 2) == 0 and other.put(key + "3", b"value") == 0
        assert mine.is_exist(key + "1") == 1
        assert key + "3" not in mine.batch_replica_clear([key + "1", key + "3"]), "another client's is not touched"
        cleared = wait_until(lambda: mine.batch_replica_clear([key + "1"]), "the lease ends")
        assert cleared == [key + "1"] and mine.is_exist(key + "1") == 0 and mine.is_exist(key + "2") == 1
        assert mine.batch_replica_clear([key + "2"], "no:1") == [] and mine.batch_replica_clear([]) == []
        segments = [mine.get_hostname(), other.get_hostname()]
        named = wait_until(
            lambda: [name for name in segments if mine.batch_replica_clear([key + "2"], segment_name=name)],
            "the lease ends",
        )
        assert len(named) == 1 and mine.is_exist(key + "2") == 0, "only the segment that has the copy drops it"


def test_a_full_pool_evicts_and_then_says_so(join, masters, key):  # noqa: F811
    own = masters("--eviction_high_watermark_ratio=1.0")
    store = join(own, segment=16 * MIB)
    blocks = [HostBlock(MIB, seed=number) for number in range(4)]
    for number in range(64):
        block = blocks[number % 4]
        code = store.put_from(f"{key}/{number}", block.address, MIB)
        assert code == 0, f"put {number}: what nobody leases makes room: {last_error()}"
    for number in range(63, 55, -1):
        value = store.get(f"{key}/{number}")
        assert value in (b"", pattern(MIB, number % 4)), "there whole, or not there"
    pins = ReplicateConfig()
    pins.with_hard_pin = True
    pinned = 0

    def pin() -> bool:
        nonlocal pinned
        if store.put_from(f"{key}/pin/{pinned}", blocks[0].address, MIB, pins) == 0:
            pinned += 1
        return pinned == 16

    wait_until(pin, "pins take the place of what is not leased any more")
    assert store.put_from(f"{key}/more", blocks[0].address, MIB) == StoreCode.NO_AVAILABLE_HANDLE
    assert last_error().store_code == StoreCode.NO_AVAILABLE_HANDLE
    assert store.get(f"{key}/pin/3") == pattern(MIB, 0), "what is pinned stays"


def test_a_lease_protects_what_exists(join, masters, key):  # noqa: F811
    """Promise 10: what exists said is there is not evicted while its lease lasts."""
    own = masters("--default_kv_lease_ttl=60000")
    store = join(own, segment=16 * MIB)
    block = HostBlock(MIB, seed=5)
    assert store.put_from(key, block.address, MIB) == 0 and store.is_exist(key) == 1
    for number in range(40):
        store.put_from(f"{key}/{number}", block.address, MIB)
    assert store.get(key) == pattern(MIB, 5)
    assert store.remove(key) == StoreCode.OBJECT_HAS_LEASE and store.remove(key, True) == 0


def test_eight_threads(store, key):
    failures = []

    def work(thread):
        block = HostBlock(MIB // 4, seed=thread)
        for number in range(25):
            name = f"{key}/{thread}/{number}"
            if store.put(name, block.buffer.raw) != 0 or store.get(name) != block.buffer.raw:
                failures.append((name, last_error()))
            if store.remove(name, True) != 0:
                failures.append((name, "remove"))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[:3]


def test_like_a_dict(join, masters):  # noqa: F811
    """Random puts, gets and removals against a dict; a full pool may refuse, a lease may hold."""
    own = masters()
    store, model, chance = join(own, segment=32 * MIB), {}, random.Random(11)
    allowed = {int(StoreCode.NO_AVAILABLE_HANDLE), int(StoreCode.OBJECT_HAS_LEASE)}
    for step in range(600):
        name = f"key{chance.randrange(40)}"
        action = chance.random()
        if action < 0.5:
            value = pattern(chance.randrange(1, 200_000), step % 250)
            code = store.put(name, value)
            if code == 0:
                model.setdefault(name, value)
            assert code == 0 or code in allowed, (step, last_error())
        elif action < 0.85:
            value = store.get(name)
            if value:
                assert value == model[name], step
            elif name in model:
                assert store.is_exist(name) == 0, "only eviction makes a value go"
                del model[name]
        else:
            code = store.remove(name, chance.random() < 0.5)
            if code == 0:
                model.pop(name, None)
            else:
                assert code in allowed or code == ABSENT
