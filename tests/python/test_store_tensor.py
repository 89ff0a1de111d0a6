"""Tensors in the store: upstream's layout, byte for byte, and what torch is needed for."""

import struct
import sys

import pytest
from blocks import HostBlock
from mooncake.store import MooncakeDistributedStore, StoreCode, last_error
from mooncake.store._tensor import HEADER_BYTES, header, parse
from pool import join, master  # noqa: F401


@pytest.fixture
def store(join, master):  # noqa: F811
    return join(master)


@pytest.fixture
def torch(monkeypatch):
    """torch, or what stands for it."""
    try:
        import torch as real

        return real
    except ImportError:
        pytest.importorskip("numpy", reason="neither torch nor numpy is installed")
        import numpy_torch

        made = numpy_torch.module()
        monkeypatch.setitem(sys.modules, "torch", made)
        return made


def tensor(torch, dtype: str, shape: tuple, data: bytes):
    count = 1
    for size in shape:
        count *= size
    return torch.frombuffer(bytearray(data), dtype=getattr(torch, dtype), count=count, offset=0).reshape(shape)


def test_the_header_is_upstreams():
    made = header(8, (3, 4), 96)
    assert HEADER_BYTES == len(made) == 304
    assert struct.unpack_from("<IHHiiIIQQ", made) == (0x4D4F4F4E, 1, 304, 8, 2, 0, 0, 304, 96)
    assert struct.unpack_from("<8q", made, 40) == struct.unpack_from("<8q", made, 104) == (3, 4, *[-1] * 6)
    assert made[168:] == bytes(136)
    assert parse(made + bytes(96)) == (8, (3, 4), 304, 96)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        bytes(400),
        header(8, (3, 4), 96),
        header(99, (3, 4), 96) + bytes(96),
        header(8, (3, -4), 96) + bytes(96),
        header(8, (3, 4), 2**64 - 1) + bytes(96),
    ],
)
def test_what_is_no_tensor(store, torch, damaged):
    with pytest.raises(ValueError):
        parse(damaged)
    if damaged:
        assert store.put("damaged", damaged) == 0
        assert store.get_tensor("damaged") is None and last_error().store_code == StoreCode.INVALID_PARAMS
        store.remove("damaged", True)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 3, 1, 5)])
def test_round_trip(store, torch, dtype, shape):
    count = 1
    for size in shape:
        count *= size
    width = getattr(torch, dtype).itemsize
    data = bytes(number % 2 for number in range(count * width))
    key = f"tensor/{dtype}/{shape}"
    assert store.put_tensor(key, tensor(torch, dtype, shape, data)) == 0
    assert store.get(key)[HEADER_BYTES:] == data
    got = store.get_tensor(key)
    assert tuple(got.shape) == shape and got.dtype == getattr(torch, dtype)
    # Put again under another name, the bytes are the same: no element was lost on the way.
    assert store.put_tensor(key + "/again", got) == 0 and store.get(key + "/again") == store.get(key)


def test_an_empty_tensor(store, torch):
    assert store.put_tensor("empty", torch.empty((0, 3), dtype=torch.int16)) == 0
    assert tuple(store.get_tensor("empty").shape) == (0, 3)


def test_many_and_missing(store, torch):
    one, two = tensor(torch, "int32", (4,), bytes(16)), tensor(torch, "int32", (2,), b"\1" * 8)
    assert store.batch_put_tensor(["one", "two"], [one, two]) == [0, 0]
    got = store.batch_get_tensor(["one", "absent", "two"])
    assert tuple(got[0].shape) == (4,) and got[1] is None and tuple(got[2].shape) == (2,)
    assert store.batch_put_tensor(["one"], [one, two]) == [StoreCode.INVALID_PARAMS]
    assert store.upsert_tensor("other", one) == 0 and store.pub_tensor("third", two) == 0
    with pytest.raises(TypeError, match="Tensor"):
        store.put_tensor("wrong", b"bytes")


def test_cut_for_ranks(store, torch):
    whole = tensor(torch, "int32", (8, 3), struct.pack("<24i", *range(24)))
    assert store.put_tensor_with_tp("cut", whole, tp_size=4, split_dim=0) == 0
    assert store.batch_is_exist([f"cut_tp_{rank}" for rank in range(5)]) == [1, 1, 1, 1, 0]
    for rank in range(4):
        assert tuple(store.get_tensor_with_tp("cut", rank, 4).shape) == (2, 3)
        assert store.get(f"cut_tp_{rank}")[HEADER_BYTES:] == struct.pack("<6i", *range(6 * rank, 6 * rank + 6))
    assert store.put_tensor_with_tp("uncut", whole, tp_size=5, split_dim=1) == StoreCode.INVALID_PARAMS


def test_memory_of_the_caller(store, torch):
    assert store.put_tensor("source", tensor(torch, "int32", (4,), struct.pack("<4i", 1, 2, 3, 4))) == 0
    place = HostBlock(4096)
    got = store.get_tensor_into("source", place.address, place.length)
    assert tuple(got.shape) == (4,) and place.buffer.raw[HEADER_BYTES : HEADER_BYTES + 16] == struct.pack("<4i", 1, 2, 3, 4)
    assert store.put_tensor_from("copy", place.address, HEADER_BYTES + 16) == 0
    assert store.get("copy") == store.get("source")
    assert store.get_tensor_into("absent", place.address, place.length) is None


def test_files_need_safetensors(store, torch, tmp_path):
    kept, copy = tensor(torch, "int32", (4,), struct.pack("<4i", 1, 2, 3, 4)), str(tmp_path / "kept.safetensors")
    assert store.put_tensor("kept", kept) == 0
    assert store.save_tensor_to_safetensor("absent", copy) == StoreCode.OBJECT_NOT_FOUND
    try:
        import safetensors.torch  # noqa: F401
    except ImportError:
        assert store.save_tensor_to_safetensor("kept", copy) == StoreCode.NOT_SUPPORTED
        assert store.load_tensor_from_safetensor("kept", copy) is None
        assert "safetensors is not installed" in last_error().message
        return
    assert store.save_tensor_to_safetensor("kept", copy) == 0
    assert store.remove("kept", True) == 0
    assert store.load_tensor_from_safetensor("kept", copy) is not None
    assert store.get("kept")[HEADER_BYTES:] == struct.pack("<4i", 1, 2, 3, 4)


def test_without_torch(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert store.put_tensor("key", object()) == StoreCode.NOT_SUPPORTED
    assert "torch is not installed" in last_error().message
    assert store.get_tensor("key") is None
    assert MooncakeDistributedStore().batch_get_tensor(["a", "b"]) == [None, None]
