"""Tensors as values: a header of 304 bytes that says kind and shape, then the elements. Needs torch, which is
imported by the first call that needs it.

The layout is upstream's, so that a tensor put by one is got by the other: magic, version, header's length, kind of
element, number of dimensions, kind of layout, flags, where the elements begin and how many bytes they are, the whole
tensor's shape and this one's (eight numbers each, -1 where there is no dimension), the axes it was cut along.
"""

from __future__ import annotations

import ctypes
import importlib
import struct

from .. import _abi, _lists, _record, _views
from .._abi import StoreCode
from . import _client
from ._client import Blocks, Client, Keys
from ._replicate import ReplicateConfig

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn, Optional
    from .._lists import Integers

HEADER_BYTES = 304
MAX_DIMENSIONS = 8
_MAGIC = 0x4D4F4F4E
_VERSION = 1
_HEAD = struct.Struct("<IHHiiIIQQ8q8qII128x")
# The number of each kind of element, by torch's name of it.
_KINDS = (
    "float32",
    "float64",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "bool",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
)
_UPSERT = _abi.MOONCAKE_TRANSFER_STORE_UPSERT
_GET = "mooncake_transfer_store_get"


def header(kind: int, shape: Sequence[int], data_bytes: int) -> bytes:
    """The header of a tensor that was not cut."""
    padded = [*shape, *[-1] * (MAX_DIMENSIONS - len(shape))]
    return _HEAD.pack(
        _MAGIC, _VERSION, HEADER_BYTES, kind, len(shape), 0, 0, HEADER_BYTES, data_bytes, *padded, *padded, 0, 0
    )


def parse(value: Any) -> "tuple[int, tuple[int, ...], int, int]":
    """Kind, shape, where the elements begin and their bytes. ValueError for what is no tensor."""
    if len(value) < HEADER_BYTES:
        raise ValueError(f"{len(value)} bytes are no tensor")
    fields = _HEAD.unpack(bytes(value[:HEADER_BYTES]))
    magic, version, length, kind, dimensions = fields[:5]
    offset, data_bytes, local = fields[7], fields[8], fields[17:25]
    if magic != _MAGIC or version != _VERSION or length != HEADER_BYTES:
        raise ValueError("the value does not begin as a tensor does")
    if not 0 <= kind < len(_KINDS) or not 0 <= dimensions <= MAX_DIMENSIONS:
        raise ValueError(f"a tensor of kind {kind} with {dimensions} dimensions is not known")
    if offset < HEADER_BYTES or offset + data_bytes > len(value) or any(size < 0 for size in local[:dimensions]):
        raise ValueError("the tensor's header does not fit its value")
    return kind, tuple(local[:dimensions]), offset, data_bytes


def _package(name: str) -> Any:
    """A package that may be missing: then None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _torch() -> Any:
    return _package("torch")


def _no_torch() -> int:
    return _record.refuse_store("torch is not installed", StoreCode.NOT_SUPPORTED, "install it, or put bytes")


def _shard(key: str, rank: int, size: int) -> str:
    return key if size <= 1 else f"{key}_tp_{rank}"


class TensorMethods(Client):
    """The methods for tensors. Puts give 0 or a negative code, gets a tensor or None."""

    # ---- one tensor a key --------------------------------------------------------------------------------

    def put_tensor(self, key: str, tensor: Any) -> int:
        """Stores a tensor, also one of an NPU."""
        return self._put_tensors([key], [tensor], None, 0)[0]

    def pub_tensor(self, key: str, tensor: Any, config: Optional[ReplicateConfig] = None) -> int:
        """As ``put_tensor``, with a placement."""
        return self._put_tensors([key], [tensor], config, 0)[0]

    def upsert_tensor(self, key: str, tensor: Any) -> int:
        """As ``put_tensor``; an existing key gets the new tensor."""
        return self._put_tensors([key], [tensor], None, _UPSERT)[0]

    def upsert_pub_tensor(self, key: str, tensor: Any, config: Optional[ReplicateConfig] = None) -> int:
        """As ``upsert_tensor``, with a placement."""
        return self._put_tensors([key], [tensor], config, _UPSERT)[0]

    def batch_put_tensor(self, keys: Sequence[str], tensors_list: Sequence[Any]) -> list[int]:
        """``put_tensor`` for each key."""
        return self._put_tensors(keys, tensors_list, None, 0)

    def batch_pub_tensor(
        self, keys: Sequence[str], tensors_list: Sequence[Any], config: Optional[ReplicateConfig] = None
    ) -> list[int]:
        """``pub_tensor`` for each key."""
        return self._put_tensors(keys, tensors_list, config, 0)

    def batch_upsert_tensor(self, keys: Sequence[str], tensors_list: Sequence[Any]) -> list[int]:
        """``upsert_tensor`` for each key."""
        return self._put_tensors(keys, tensors_list, None, _UPSERT)

    def batch_upsert_pub_tensor(
        self, keys: Sequence[str], tensors_list: Sequence[Any], config: Optional[ReplicateConfig] = None
    ) -> list[int]:
        """``upsert_pub_tensor`` for each key."""
        return self._put_tensors(keys, tensors_list, config, _UPSERT)

    def get_tensor(self, key: str) -> Any:
        """The tensor, on the host; None when it is not there or the value is no tensor."""
        return self.batch_get_tensor([key])[0]

    def batch_get_tensor(self, keys: Sequence[str]) -> list[Any]:
        """``get_tensor`` for each key."""
        listed = list(keys)
        if _torch() is None:
            _no_torch()
            return [None] * len(listed)
        return [None if value is None else self._tensor(value) for value in self._read(listed, bytearray)]

    # ---- memory of the caller, with header and elements --------------------------------------------------

    def put_tensor_from(self, key: str, buffer_ptr: int, size: int) -> int:
        """Stores memory that has a header and elements as ``get_tensor_into`` leaves them."""
        return self._put_rows([key], [buffer_ptr], [size], 0)[0]

    def upsert_tensor_from(self, key: str, buffer_ptr: int, size: int) -> int:
        """As ``put_tensor_from``; an existing key gets the new tensor."""
        return self._put_rows([key], [buffer_ptr], [size], _UPSERT)[0]

    def batch_put_tensor_from(self, keys: Sequence[str], buffer_ptrs: Integers, sizes: Integers) -> list[int]:
        """``put_tensor_from`` for each key."""
        return self._put_rows(keys, buffer_ptrs, sizes, 0)

    def batch_upsert_tensor_from(self, keys: Sequence[str], buffer_ptrs: Integers, sizes: Integers) -> list[int]:
        """``upsert_tensor_from`` for each key."""
        return self._put_rows(keys, buffer_ptrs, sizes, _UPSERT)

    def get_tensor_into(self, key: str, buffer_ptr: int, size: int) -> Any:
        """Reads header and elements into memory of the host: a tensor that lies there, or None."""
        return self.batch_get_tensor_into([key], [buffer_ptr], [size])[0]

    def batch_get_tensor_into(self, keys: Sequence[str], buffer_ptrs: Integers, sizes: Integers) -> list[Any]:
        """``get_tensor_into`` for each key."""
        packed = Keys(keys)
        starts, lengths = _lists.integers(buffer_ptrs, "buffer_ptrs"), _lists.integers(sizes, "sizes")
        if _torch() is None:
            _no_torch()
            return [None] * packed.count
        results = self._move(_GET, packed, _client.single(starts, lengths), 0)
        tensors: list[Any] = []
        for number, result in enumerate(results):
            if result < 0:
                tensors.append(None)
            else:
                tensors.append(self._tensor((ctypes.c_ubyte * result).from_address(starts[number])))
        return tensors

    # ---- tensors that ranks share ------------------------------------------------------------------------

    def put_tensor_with_tp(
        self, key: str, tensor: Any, tp_rank: int = 0, tp_size: int = 1, split_dim: int = 0
    ) -> int:
        """Cuts the tensor for ``tp_size`` ranks and stores each part under ``key_tp_RANK``: 0, or the first failure."""
        return self.batch_put_tensor_with_tp([key], [tensor], tp_rank, tp_size, split_dim)[0]

    def pub_tensor_with_tp(
        self,
        key: str,
        tensor: Any,
        config: Optional[ReplicateConfig] = None,
        tp_rank: int = 0,
        tp_size: int = 1,
        split_dim: int = 0,
    ) -> int:
        """As ``put_tensor_with_tp``, with a placement."""
        return self.batch_pub_tensor_with_tp([key], [tensor], config, tp_rank, tp_size, split_dim)[0]

    def batch_put_tensor_with_tp(
        self,
        base_keys: Sequence[str],
        tensors_list: Sequence[Any],
        tp_rank: int = 0,
        tp_size: int = 1,
        split_dim: int = 0,
    ) -> list[int]:
        """``put_tensor_with_tp`` for each key."""
        return self.batch_pub_tensor_with_tp(base_keys, tensors_list, None, tp_rank, tp_size, split_dim)

    def batch_pub_tensor_with_tp(
        self,
        base_keys: Sequence[str],
        tensors_list: Sequence[Any],
        config: Optional[ReplicateConfig] = None,
        tp_rank: int = 0,
        tp_size: int = 1,
        split_dim: int = 0,
    ) -> list[int]:
        """``pub_tensor_with_tp`` for each key."""
        keys, parts, owners = [], [], []
        for number, (key, tensor) in enumerate(zip(base_keys, tensors_list)):
            pieces = [tensor] if tp_size <= 1 else list(tensor.chunk(tp_size, split_dim))
            if tp_size > 1 and len(pieces) != tp_size:
                return [self._refuse(f"dimension {split_dim} of {key} cannot be cut into {tp_size}")] * len(base_keys)
            keys += [_shard(key, rank, tp_size) for rank in range(len(pieces))]
            parts += pieces
            owners += [number] * len(pieces)
        answer = [0] * len(base_keys)
        for owner, code in zip(owners, self._put_tensors(keys, parts, config, 0)):
            answer[owner] = answer[owner] or code
        return answer

    def put_tensor_with_tp_from(
        self, key: str, buffer_ptr: int, size: int, tp_rank: int = 0, tp_size: int = 1, split_dim: int = 0
    ) -> int:
        """``put_tensor_from`` for the part of one rank."""
        return self.put_tensor_from(_shard(key, tp_rank, tp_size), buffer_ptr, size)

    def batch_put_tensor_with_tp_from(
        self,
        base_keys: Sequence[str],
        buffer_ptrs: Integers,
        sizes: Integers,
        tp_rank: int = 0,
        tp_size: int = 1,
        split_dim: int = 0,
    ) -> list[int]:
        """``put_tensor_with_tp_from`` for each key."""
        return self.batch_put_tensor_from([_shard(key, tp_rank, tp_size) for key in base_keys], buffer_ptrs, sizes)

    def get_tensor_with_tp(self, key: str, tp_rank: int = 0, tp_size: int = 1, split_dim: int = 0) -> Any:
        """The part of one rank, or None."""
        return self.get_tensor(_shard(key, tp_rank, tp_size))

    def batch_get_tensor_with_tp(self, base_keys: Sequence[str], tp_rank: int = 0, tp_size: int = 1) -> list[Any]:
        """``get_tensor_with_tp`` for each key."""
        return self.batch_get_tensor([_shard(key, tp_rank, tp_size) for key in base_keys])

    def get_tensor_with_tp_into(
        self, key: str, buffer_ptr: int, size: int, tp_rank: int = 0, tp_size: int = 1, split_dim: int = 0
    ) -> Any:
        """``get_tensor_into`` for the part of one rank."""
        return self.get_tensor_into(_shard(key, tp_rank, tp_size), buffer_ptr, size)

    def batch_get_tensor_with_tp_into(
        self, base_keys: Sequence[str], buffer_ptrs: Integers, sizes: Integers, tp_rank: int = 0, tp_size: int = 1
    ) -> list[Any]:
        """``get_tensor_with_tp_into`` for each key."""
        return self.batch_get_tensor_into([_shard(key, tp_rank, tp_size) for key in base_keys], buffer_ptrs, sizes)

    # ---- files -------------------------------------------------------------------------------------------

    def save_tensor_to_safetensor(self, key: str, file_name: Optional[str] = None) -> int:
        """Writes a stored tensor to a file of the package safetensors, which has to be there: 0 or a negative code."""
        tensor = self.get_tensor(key)
        if tensor is None:
            return int(StoreCode.OBJECT_NOT_FOUND)
        files = _package("safetensors.torch")
        if files is None:
            return _record.refuse_store("safetensors is not installed", StoreCode.NOT_SUPPORTED)
        try:
            files.save_file({key: tensor.contiguous()}, key if file_name is None else file_name)
        except OSError as error:
            return _record.refuse_store(f"{file_name or key}: {error}", StoreCode.FILE_WRITE_FAIL)
        return 0

    def load_tensor_from_safetensor(self, key: Optional[str] = None, file_name: str = "") -> Any:
        """Stores the tensor of that name in a file, else the file's first one, under the key, which is the file's name
        when it is None: the tensor, or None."""
        files = _package("safetensors.torch")
        if files is None:
            _record.refuse_store("safetensors is not installed", StoreCode.NOT_SUPPORTED)
            return None
        try:
            tensors = files.load_file(file_name)
        except OSError as error:
            _record.refuse_store(f"{file_name}: {error}", StoreCode.FILE_READ_FAIL)
            return None
        if not tensors:
            _record.refuse_store(f"{file_name} has no tensor", StoreCode.FILE_READ_FAIL)
            return None
        name = file_name if key is None else key
        tensor = tensors[name] if name in tensors else next(iter(tensors.values()))
        return tensor if self.put_tensor(name, tensor) == 0 else None

    # ---- not offered -------------------------------------------------------------------------------------

    def _parallelism(self, *_arguments: Any, **_named: Any) -> NoReturn:
        """Not offered: cut the tensor, or use the methods with ``tp_rank``; raises NotImplementedError."""
        raise NotImplementedError("tensors cut along several axes are not offered by this store")

    put_tensor_with_parallelism = _parallelism
    put_tensor_with_parallelism_from = _parallelism
    upsert_tensor_with_parallelism = _parallelism
    upsert_tensor_with_parallelism_from = _parallelism
    get_tensor_with_parallelism = _parallelism
    get_tensor_with_parallelism_into = _parallelism
    batch_put_tensor_with_parallelism = _parallelism
    batch_put_tensor_with_parallelism_from = _parallelism
    batch_upsert_tensor_with_parallelism = _parallelism
    batch_upsert_tensor_with_parallelism_from = _parallelism
    batch_get_tensor_with_parallelism = _parallelism
    batch_get_tensor_with_parallelism_into = _parallelism

    # ---- inside ------------------------------------------------------------------------------------------

    def _read(self, keys: Sequence[Any], kind: type) -> list[Any]:
        raise NotImplementedError

    def _put(self, keys: Any, blocks: Optional[Blocks], config: Optional[ReplicateConfig], flags: int) -> list[int]:
        raise NotImplementedError

    def _put_rows(self, keys: Sequence[str], buffer_ptrs: Integers, sizes: Integers, flags: int) -> list[int]:
        return self._put(keys, _client.single(buffer_ptrs, sizes), None, flags)

    def _put_tensors(
        self, keys: Sequence[str], tensors: Sequence[Any], config: Optional[ReplicateConfig], flags: int
    ) -> list[int]:
        listed = list(keys)
        if len(listed) != len(tensors):
            return [self._refuse(f"{len(listed)} keys and {len(tensors)} tensors")] * len(listed)
        torch = _torch()
        if torch is None:
            return [_no_torch()] * len(listed)
        kinds = {getattr(torch, name): number for number, name in enumerate(_KINDS) if hasattr(torch, name)}
        held: list[Any] = []
        addresses, lengths = [], []
        for tensor in tensors:
            if not hasattr(tensor, "data_ptr"):
                raise TypeError(f"tensor: a torch.Tensor is needed, not {type(tensor).__name__}")
            if tensor.dtype not in kinds or tensor.dim() > MAX_DIMENSIONS:
                why = f"a tensor of {tensor.dtype} with {tensor.dim()} dimensions cannot be stored"
                return [self._refuse(why)] * len(listed)
            whole = tensor.contiguous()
            data_bytes = whole.numel() * whole.element_size()
            head = _views.View(header(kinds[whole.dtype], tuple(whole.shape), data_bytes), "header")
            held += [whole, head]
            addresses.append([head.address, whole.data_ptr()] if data_bytes else [head.address])
            lengths.append([head.length, data_bytes] if data_bytes else [head.length])
        results = self._put(listed, _client.several(addresses, lengths), config, flags)
        # Until here, so that the bytes stay where they are.
        held.clear()
        return results

    def _tensor(self, value: Any) -> Any:
        torch = _torch()
        try:
            kind, shape, offset, data_bytes = parse(value)
        except ValueError as error:
            self._refuse(str(error))
            return None
        dtype = getattr(torch, _KINDS[kind], None)
        if dtype is None:
            self._refuse(f"this torch has no {_KINDS[kind]}")
            return None
        if data_bytes == 0:
            return torch.empty(shape, dtype=dtype)
        elements = torch.frombuffer(value, dtype=torch.uint8, count=data_bytes, offset=offset)
        return elements.view(dtype).reshape(shape)


__all__ = ["HEADER_BYTES", "TensorMethods"]
