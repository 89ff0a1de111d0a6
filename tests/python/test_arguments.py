"""Wrong arguments and wrong order of calls: a TypeError, an exception or a failure value with a record."""

import array

import pytest
from blocks import HostBlock
from mooncake.engine import Code, Read, TransferEngine, Write, clear_error, last_error

BLOCK = HostBlock(4096, seed=1)


@pytest.fixture
def engine():
    made = TransferEngine()
    assert made.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
    yield made
    made.close()


def test_before_initialize_every_call_answers():
    made = TransferEngine()
    failures = [
        made.register_memory(BLOCK.address, 10),
        made.unregister_memory(BLOCK.address),
        made.batch_register_memory([BLOCK.address], [10]),
        made.batch_unregister_memory([BLOCK.address]),
        made.transfer_sync_read("127.0.0.1:1", BLOCK.address, 1, 1),
        made.batch_transfer_sync_write("127.0.0.1:1", [], [], []),
        made.transfer_check_status(1),
        made.get_batch_transfer_status([1]),
        made.send_probe("127.0.0.1:1"),
        made.warmup_efa_segment("x"),
    ]
    assert failures == [-1] * len(failures)
    zeros = [
        made.batch_transfer_async_read("127.0.0.1:1", [1], [1], [1]),
        made.transfer_submit_write("127.0.0.1:1", 1, 1, 1),
        made.allocate_managed_buffer(10),
        made.get_first_buffer_address("127.0.0.1:1"),
    ]
    assert zeros == [0] * len(zeros)
    assert "not initialized" in last_error().message
    for call in (made.get_rpc_port, made.get_engine, made.get_engine_ptr, made.get_notifies, made.counters):
        with pytest.raises(RuntimeError, match="initialize"):
            call()


@pytest.mark.parametrize("bad", [-1, 1.5, "1", None, 1 << 64, b"12345678"])
def test_no_address_is_a_type_error(engine, bad):
    name = f"127.0.0.1:{engine.get_rpc_port()}"
    with pytest.raises(TypeError):
        engine.register_memory(bad, 10)
    with pytest.raises(TypeError):
        engine.register_memory(BLOCK.address, bad)
    with pytest.raises(TypeError, match="buffers"):
        engine.batch_transfer_sync_read(name, [bad], [1], [1])
    with pytest.raises(TypeError, match="lengths"):
        engine.batch_transfer_sync_read(name, [1], [1], [bad])
    with pytest.raises(TypeError):
        engine.transfer_check_status(bad)


@pytest.mark.parametrize("bad", ["abc", b"12345678", 5, None, {1: 2}.keys(), array.array("d", [1.0])])
def test_no_list_is_a_type_error(engine, bad):
    with pytest.raises(TypeError, match="buffers"):
        engine.batch_transfer_sync_read("127.0.0.1:1", bad, [1], [1])


def test_other_wrong_types(engine):
    name = f"127.0.0.1:{engine.get_rpc_port()}"
    with pytest.raises(TypeError):
        engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp")
    with pytest.raises(TypeError):
        engine.initialize(b"127.0.0.1", "P2PHANDSHAKE", "tcp", "")
    with pytest.raises(TypeError, match="opcode"):
        engine.transfer_sync(name, BLOCK.address, BLOCK.address, 1, 0)
    with pytest.raises(TypeError, match="notify"):
        engine.transfer_sync(name, BLOCK.address, BLOCK.address, 1, Read, ("a", "b"))
    with pytest.raises(TypeError, match="frobnicate"):
        engine.register_memory(BLOCK.address, 10, frobnicate=1)


def test_lists_of_different_length_are_minus_one(engine):
    name = f"127.0.0.1:{engine.get_rpc_port()}"
    assert engine.batch_transfer_sync_read(name, [1, 2], [1], [1, 2]) == -1
    assert "2 buffers, 1 peer addresses and 2 lengths" in last_error().message
    assert engine.batch_transfer_async_write(name, [1], [1], []) == 0
    assert engine.batch_register_memory([1, 2], [1]) == -1


def test_nothing_to_do_is_success(engine):
    name = f"127.0.0.1:{engine.get_rpc_port()}"
    assert engine.batch_transfer_sync_read(name, [], [], []) == 0
    assert engine.batch_register_memory((), ()) == 0
    assert engine.batch_unregister_memory([]) == 0
    assert engine.get_batch_transfer_status([]) == 0
    batch = engine.batch_transfer_async_read(name, [], [], [])
    assert 0 < batch < 2**63
    assert engine.transfer_check_status(batch) == 1


def test_registration_codes(engine):
    assert engine.register_memory(BLOCK.address, 0) == -1
    assert engine.register_memory(0, 10) == -1
    assert engine.register_memory(BLOCK.address, 10, "nowhere") == -1
    assert engine.register_memory(BLOCK.address, 1024) == 0
    assert engine.register_memory(BLOCK.address, 1024) == -7
    assert engine.register_memory(buffer_addr=BLOCK.address + 1024, capacity=1024, location="cpu:0") == 0
    assert engine.unregister_memory(BLOCK.address) == 0
    assert engine.unregister_memory(BLOCK.address) == -3
    assert last_error().code == Code.ADDRESS_NOT_REGISTERED
    assert engine.batch_unregister_memory([BLOCK.address, BLOCK.address + 1024]) == -3
    assert engine.batch_register_memory([BLOCK.address, BLOCK.address + 10], [100, 100]) == -7
    assert engine.register_memory(BLOCK.address, 100) == 0, "all or none"


def test_unknown_ids(engine):
    for batch in (0, 1, 12345, 2**63, 2**64 - 1):
        assert engine.transfer_check_status(batch) == -1
        assert engine.get_batch_transfer_status([batch]) == -1
    assert last_error().code in (Code.STALE_HANDLE, Code.INVALID_ARGUMENT)


def test_metadata_that_is_not_there(engine):
    made = TransferEngine()
    clear_error()
    assert made.initialize("127.0.0.1", "no-such-scheme://127.0.0.1:1", "tcp", "") == -1
    assert last_error() is not None
    assert made.initialize_ext("127.0.0.1", "P2PHANDSHAKE", "tcp", "", "etcd") == 0


def test_initialize_again_replaces_the_engine(engine):
    port = engine.get_rpc_port()
    assert engine.register_memory(BLOCK.address, 100) == 0
    assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
    assert engine.get_rpc_port() != port
    assert engine.unregister_memory(BLOCK.address) == -3
    assert engine.send_probe(f"127.0.0.1:{port}") == -102


def test_bytes_by_address(engine):
    address = engine.allocate_managed_buffer(10_000)
    assert address != 0
    assert engine.get_first_buffer_address(f"127.0.0.1:{engine.get_rpc_port()}") == address
    assert engine.write_bytes_to_buffer(address, b"\x00\xffab", 4) == 0
    assert engine.write_bytes_to_buffer(address + 4, "text", 2) == 0
    assert engine.read_bytes_from_buffer(address, 7) == b"\x00\xffabte\x00"
    for bad in (0, 8, 2**64 - 1):
        with pytest.raises(ValueError, match="address"):
            engine.read_bytes_from_buffer(bad, 1)
        with pytest.raises(ValueError, match="address"):
            engine.write_bytes_to_buffer(bad, b"x", 1)
    with pytest.raises(ValueError, match="length says 5"):
        engine.write_bytes_to_buffer(address, b"x", 5)
    assert engine.free_managed_buffer(address, 10_000) == 0
    assert engine.free_managed_buffer(address, 10_000) == -3
    with pytest.raises(ValueError):
        engine.read_bytes_from_buffer(address, 1)


def test_topology_needs_no_engine():
    text = TransferEngine().get_local_topology()
    assert text.startswith("{\n") and '"cpu:0"' in text


def test_opcodes_by_name(engine):
    name = f"127.0.0.1:{engine.get_rpc_port()}"
    source, target = HostBlock(64, seed=2), HostBlock(64)
    assert engine.register_memory(source.address, 64) == 0 and engine.register_memory(target.address, 64) == 0
    assert engine.transfer_sync(name, target.address, source.address, 64, opcode=Read) == 0
    assert target.digest() == source.digest()
    back = HostBlock(64)
    assert engine.register_memory(back.address, 64) == 0
    assert engine.transfer_sync(name, source.address, back.address, 64, Write, transport_hint="any") == 0
    assert back.digest() == source.digest()
