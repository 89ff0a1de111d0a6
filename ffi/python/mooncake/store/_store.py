"""``MooncakeDistributedStore``: upstream's class over the C interface.

Conventions, all of them upstream's: puts give 0 or a negative code, gets a number of bytes or a negative code, exists
1, 0 or a negative code; a value that is not there is ``b""`` and a buffer that is not there ``None``. A second put of a
key is 0 and keeps the first value. What fails for one key does not spoil the others. A wrong type is a TypeError; lists
that do not fit each other are -600. ``last_error()`` tells why a call failed.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Mapping

from .. import _abi, _lists, _record, _views
from .._abi import StoreCode
from . import _client, _setup
from ._buffer import BufferHandle
from ._client import INVALID, Blocks, Keys
from ._ranges import RangeMethods
from ._replica import ReplicaDescriptor
from ._replica import read as read_replicas
from ._replicate import ReplicateConfig
from ._replicate import to_c as replication
from ._replicate import unoffered
from ._tensor import TensorMethods
from ._unoffered import UnofferedMethods

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Optional, Union
    from .._lists import Integers

_UPSERT = _abi.MOONCAKE_TRANSFER_STORE_UPSERT
_STAGED = _abi.MOONCAKE_TRANSFER_STORE_STAGED
_EXACT = _abi.MOONCAKE_TRANSFER_STORE_EXACT
_OVERFLOW = int(StoreCode.BUFFER_OVERFLOW)

# Values up to this size are read without asking for their size first.
_SCRATCH_BYTES = 64 << 10

_PUT = "mooncake_transfer_store_put"
_GET = "mooncake_transfer_store_get"
_SIZES = "mooncake_transfer_store_sizes"
_EXIST = "mooncake_transfer_store_exist"


class MooncakeDistributedStore(RangeMethods, TensorMethods, UnofferedMethods):
    """A client of the pool. Any thread may call any method; none holds the interpreter lock while it waits."""

    # ---- the store itself --------------------------------------------------------------------------------

    def setup(
        self,
        local_hostname: Union[str, Mapping[str, Any], None] = None,
        metadata_server: Optional[str] = None,
        global_segment_size: Union[int, str, None] = None,
        local_buffer_size: Union[int, str, None] = None,
        protocol: Optional[str] = None,
        rdma_devices: Optional[str] = None,
        master_server_addr: Optional[str] = None,
        engine: Any = None,
        enable_ssd_offload: bool = False,
        ssd_offload_path: str = "",
        tenant_id: str = "default",
        enable_client_http_server: bool = False,
        client_http_port: int = 9300,
        *,
        config: Optional[Mapping[str, Any]] = None,
    ) -> int:
        """Joins the pool: 0, or a negative code. Called again, it leaves the pool and joins anew.

        setup(local_hostname, metadata_server, global_segment_size, local_buffer_size, protocol, rdma_devices,
        master_server_addr, engine=None, enable_ssd_offload=False, ssd_offload_path="", tenant_id="default",
        enable_client_http_server=False, client_http_port=9300): the first seven are needed, by position or name.
        ``local_hostname`` is ``host``, ``host:port`` or ``host:port:npu_N``; ``global_segment_size`` bytes of this
        host's memory go to the pool (0: none). With a ``local_buffer_size`` of 0 only the calls with addresses can put,
        as upstream has it; values are not staged, so that no memory is taken for another size. ``engine`` is the value
        of ``TransferEngine.get_engine()``: then the store moves data with that engine, and either of the two may end
        first. ``enable_ssd_offload=True`` is refused: NOT_SUPPORTED.

        setup(config): the same from a dict with the keys local_hostname and metadata_server and, as they are needed,
        global_segment_size, local_buffer_size (both 16 MiB; "16MB", "1.5 GB" are fine), protocol ("tcp"), rdma_devices,
        master_server_addr ("127.0.0.1:50051"), tenant_id.
        """
        if config is None and isinstance(local_hostname, Mapping):
            config, local_hostname = local_hostname, None
        try:
            if config is not None:
                settings = _setup.from_dict(config)
            else:
                settings = {
                    "local_hostname": local_hostname,
                    "metadata_server": metadata_server,
                    "global_segment_size": global_segment_size,
                    "local_buffer_size": local_buffer_size,
                    "protocol": protocol,
                    "rdma_devices": rdma_devices,
                    "master_server_addr": master_server_addr,
                    "engine": engine,
                    "enable_ssd_offload": enable_ssd_offload,
                    "ssd_offload_path": ssd_offload_path,
                    "tenant_id": tenant_id,
                    "enable_client_http_server": enable_client_http_server,
                }
                missing = [name for name in list(settings)[:7] if settings[name] is None]
                if missing:
                    raise TypeError(f"setup() is missing: {', '.join(missing)}")
            options = _setup.to_c(settings)
        except _setup.Refused as refused:
            code = StoreCode.INVALID_PARAMS if refused.offered else StoreCode.NOT_SUPPORTED
            return _record.refuse_store(str(refused), code, refused.advice)
        handle = self._open_handle()
        if handle is None:
            return int(StoreCode.INTERNAL_ERROR)
        self._buffers.clear()
        return self._code(handle.library.mooncake_transfer_store_setup(handle.value, ctypes.byref(options)))

    def init_all(self, protocol: str, device_name: str, mount_segment_size: int, /) -> int:
        """Upstream's way to begin for tests of its own; not offered: -600."""
        return self._refuse("init_all is not offered", "call setup")

    def close(self) -> int:
        """Leaves the pool with this client's memory: 0, also a second time. ``setup`` may be called again."""
        handle = self._handle
        if handle is None:
            return 0
        self._buffers.clear()
        return self._code(handle.library.mooncake_transfer_store_close(handle.value))

    def health_check(self) -> int:
        """0: the master answers. 1: not set up, or closed. 2: the master does not answer."""
        handle = self._handle
        return 1 if handle is None else handle.library.mooncake_store_health_check(handle.value)

    def drain(self, timeout_ms: int = _abi.MOONCAKE_TRANSFER_DEFAULT_TIMEOUT) -> int:
        """How many transfers go on that a call had to give up after its deadline and could not make quiet
        (``last_error().code`` was STILL_RUNNING), after a wait for them. While one does, the memory that its call was
        given may still be touched. A negative code when the store is not set up. Not in upstream."""
        handle = self._handle
        if handle is None:
            return self._not_set_up()
        left = ctypes.c_size_t()
        code = handle.library.mooncake_transfer_store_drain(handle.value, timeout_ms, ctypes.byref(left))
        return left.value if code == 0 else self._code(code)

    def get_hostname(self) -> str:
        """The name of this client, ``host:port``; "" when it is not set up."""
        return self._name()

    # ---- memory ------------------------------------------------------------------------------------------

    def register_buffer(self, buffer_ptr: int, size: int) -> int:
        """Makes memory known: 0, or -600 for an overlap, for no bytes and for address 0."""
        address, length = _lists.integer(buffer_ptr, "buffer_ptr"), _lists.integer(size, "size")
        handle = self._handle
        if handle is None:
            return self._not_set_up()
        code = self._code(handle.library.mooncake_store_register_buffer(handle.value, address, length))
        if code == 0:
            self._buffers[address] = length
        return code

    def unregister_buffer(self, buffer_ptr: int) -> int:
        """Forgets memory that ``register_buffer`` made known: 0, or -600."""
        address = _lists.integer(buffer_ptr, "buffer_ptr")
        handle = self._handle
        if handle is None:
            return self._not_set_up()
        code = self._code(handle.library.mooncake_store_unregister_buffer(handle.value, address))
        if code == 0:
            self._buffers.pop(address, None)
        return code

    # ---- values ------------------------------------------------------------------------------------------

    def put(self, key: str, value: Any, config: Optional[ReplicateConfig] = None) -> int:
        """Stores the bytes of an object with a buffer: 0 or a negative code. No bytes are -600."""
        return self._put_values([key], [(value,)], config, _STAGED)[0]

    def put_parts(self, key: str, *parts: Any, config: Optional[ReplicateConfig] = None) -> int:
        """Stores the parts one after the other as one value. No bytes at all are 0, and nothing is stored."""
        return self._put_parts(key, parts, config, _STAGED)

    def put_batch(self, keys: Sequence[str], values: Sequence[Any], config: Optional[ReplicateConfig] = None) -> int:
        """Stores several values: 0, or the first failure."""
        return self._put_batch(keys, values, config, _STAGED)

    def upsert(self, key: str, value: Any, config: Optional[ReplicateConfig] = None) -> int:
        """As ``put``; an existing key gets the new value."""
        return self._put_values([key], [(value,)], config, _STAGED | _UPSERT)[0]

    def upsert_parts(self, key: str, *parts: Any, config: Optional[ReplicateConfig] = None) -> int:
        """As ``put_parts``; an existing key gets the new value."""
        return self._put_parts(key, parts, config, _STAGED | _UPSERT)

    def upsert_batch(self, keys: Sequence[str], values: Sequence[Any], config: Optional[ReplicateConfig] = None) -> int:
        """As ``put_batch``; existing keys get the new values."""
        return self._put_batch(keys, values, config, _STAGED | _UPSERT)

    def get(self, key: str, /) -> bytes:
        """The value; ``b""`` when there is none or it cannot be read (``last_error()`` tells which)."""
        return self._read([key], bytes)[0] or b""

    def get_batch(self, keys: Sequence[str], /) -> list[bytes]:
        """The values, ``b""`` for each that is not there. No keys give ``[b""]``, as upstream has it."""
        listed = list(keys)
        return [value or b"" for value in self._read(listed, bytes)] if listed else [b""]

    def get_buffer(self, key: str, /) -> Optional[BufferHandle]:
        """The value in memory with an address, or None."""
        found: Optional[BufferHandle] = self._read([key], BufferHandle)[0]
        return found

    def batch_get_buffer(self, keys: Sequence[str], /) -> list[Optional[BufferHandle]]:
        """The values in memory with addresses; None for each that is not there."""
        return self._read(list(keys), BufferHandle)

    # ---- memory of the caller ----------------------------------------------------------------------------

    def put_from(self, key: str, buffer_ptr: int, size: int, config: Optional[ReplicateConfig] = None) -> int:
        """Stores ``size`` bytes of the host or of an NPU: 0 or a negative code. No bytes are 0 without an object."""
        return self._put_from(key, buffer_ptr, size, config, 0)

    def upsert_from(self, key: str, buffer_ptr: int, size: int, config: Optional[ReplicateConfig] = None) -> int:
        """As ``put_from``; an existing key gets the new value."""
        return self._put_from(key, buffer_ptr, size, config, _UPSERT)

    def put_from_with_metadata(
        self,
        key: str,
        buffer_ptr: int,
        metadata_buffer_ptr: int,
        size: int,
        metadata_size: int,
        config: Optional[ReplicateConfig] = None,
    ) -> int:
        """Stores the metadata's bytes, then the buffer's, as one value: 0 or a negative code."""
        head, body = _lists.integer(metadata_buffer_ptr, "metadata_buffer_ptr"), _lists.integer(buffer_ptr, "buffer_ptr")
        addresses = [head, body]
        sizes = [_lists.integer(metadata_size, "metadata_size"), _lists.integer(size, "size")]
        kept = [number for number in range(2) if sizes[number]]
        if not kept:
            return 0
        blocks = _client.several([[addresses[number] for number in kept]], [[sizes[number] for number in kept]])
        return self._put([key], blocks, config, 0)[0]

    def batch_put_from(
        self, keys: Sequence[str], buffer_ptrs: Integers, sizes: Integers, config: Optional[ReplicateConfig] = None
    ) -> list[int]:
        """Stores one buffer for each key: a list of 0 and negative codes."""
        return self._put(keys, _client.single(buffer_ptrs, sizes), config, 0)

    def batch_upsert_from(
        self, keys: Sequence[str], buffer_ptrs: Integers, sizes: Integers, config: Optional[ReplicateConfig] = None
    ) -> list[int]:
        """As ``batch_put_from``; existing keys get the new values."""
        return self._put(keys, _client.single(buffer_ptrs, sizes), config, _UPSERT)

    def batch_put_from_multi_buffers(
        self,
        keys: Sequence[str],
        all_buffer_ptrs: Sequence[Integers],
        all_sizes: Sequence[Integers],
        config: Optional[ReplicateConfig] = None,
    ) -> list[int]:
        """Stores, for each key, its buffers one after the other as one value: a list of 0 and negative codes."""
        return self._put(keys, _client.several(all_buffer_ptrs, all_sizes), config, 0)

    def batch_put_from_ascend(
        self, keys: str, buffer_ptrs: Integers, sizes: Integers, config: Optional[ReplicateConfig] = None
    ) -> list[int]:
        """Stores the buffers one after the other under one key (the name of the argument is the callers'): ``[0]`` or
        a list with a negative code."""
        return self._put(_one_key(keys), _one_row(buffer_ptrs, sizes), config, 0)

    def get_into(self, key: str, buffer_ptr: int, size: int) -> int:
        """Reads into memory of ``size`` bytes or more: the value's length, -704 when it is not there, -600 when
        it does not fit."""
        blocks = _client.single([_lists.integer(buffer_ptr, "buffer_ptr")], [_lists.integer(size, "size")])
        return self._move(_GET, Keys([key]), blocks, 0)[0]

    def batch_get_into(self, keys: Sequence[str], buffer_ptrs: Integers, sizes: Integers) -> list[int]:
        """Reads into one buffer for each key: a list of lengths and negative codes."""
        return self._move(_GET, Keys(keys), _client.single(buffer_ptrs, sizes), 0)

    def batch_get_into_multi_buffers(
        self,
        keys: Sequence[str],
        all_buffer_ptrs: Sequence[Integers],
        all_sizes: Sequence[Integers],
        prefer_alloc_in_same_node: bool = False,
    ) -> list[int]:
        """Reads each value into its buffers, one after the other: a list of lengths and negative codes. The sum of
        the sizes is the value's length; how it was cut when it was put does not matter. The last argument changes
        nothing: what lies at one peer is always read in one batch."""
        if not isinstance(prefer_alloc_in_same_node, (bool, int)):
            kind = type(prefer_alloc_in_same_node).__name__
            raise TypeError(f"prefer_alloc_in_same_node: a bool is needed, not {kind}")
        return self._move(_GET, Keys(keys), _client.several(all_buffer_ptrs, all_sizes), _EXACT)

    def batch_get_into_ascend(self, keys: str, buffer_ptrs: Integers, sizes: Integers) -> list[int]:
        """Reads the value of one key into the buffers, one after the other: a list with its length, which is the sum
        of the sizes, or with a negative code."""
        return self._move(_GET, Keys(_one_key(keys)), _one_row(buffer_ptrs, sizes), _EXACT)

    # ---- keys --------------------------------------------------------------------------------------------

    def is_exist(self, key: str, /) -> int:
        """1: the value is there, and stays for a lease; 0: it is not; negative: not known."""
        return self._ask(_EXIST, Keys([key]))[0]

    def batch_is_exist(self, keys: Sequence[str]) -> list[int]:
        """``is_exist`` for each key."""
        return self._ask(_EXIST, Keys(keys))

    def get_size(self, key: str, /) -> int:
        """The value's length, -704 when it is not there, -703 while it is being written."""
        return self._ask(_SIZES, Keys([key]))[0]

    def remove(self, key: str, force: bool = False) -> int:
        """Removes a value: 0, -704, -703 while it is being written, -706 while it may be in use and not ``force``."""
        return self._ask_remove([key], force)[0]

    def batch_remove(self, keys: Sequence[str], force: bool = False) -> list[int]:
        """``remove`` for each key."""
        return self._ask_remove(keys, force)

    def remove_by_regex(self, regex_pattern: str, force: bool = False) -> int:
        """Removes every value with a match of the pattern somewhere in its key: how many, or a negative code."""
        pattern = _lists.text(regex_pattern, "regex_pattern")
        handle = self._handle
        if handle is None:
            return self._not_set_up()
        return self._code(handle.library.mooncake_store_remove_by_regex(handle.value, pattern, bool(force)))

    def remove_all(self, force: bool = False) -> int:
        """Removes every value that is not in use, or with ``force`` every one: how many, or a negative code."""
        handle = self._handle
        if handle is None:
            return self._not_set_up()
        return self._code(handle.library.mooncake_store_remove_all(handle.value, bool(force)))

    # ---- copies ------------------------------------------------------------------------------------------

    def get_replica_desc(self, key: str) -> list[ReplicaDescriptor]:
        """The copies of a value; none when it is not there."""
        return self.batch_get_replica_desc([key]).get(key, [])

    def batch_get_replica_desc(self, keys: Sequence[str]) -> dict[str, list[ReplicaDescriptor]]:
        """The copies of each value by key, without those that are not there."""
        listed = list(keys)
        text = self._text("mooncake_transfer_store_replicas", Keys(listed)) if listed else None
        if text is None:
            return {}
        return {key: copies for key, copies in zip(listed, read_replicas(text)) if copies is not None}

    def batch_replica_clear(self, keys: Sequence[str], segment_name: str = "") -> list[str]:
        """Drops the copies on a segment ("" is all) of values that this client stored and nobody uses: their keys."""
        listed = list(keys)
        segment = _lists.text(segment_name, "segment_name")
        dropped = self._ask("mooncake_transfer_store_clear", Keys(listed), segment)
        return [key for key, result in zip(listed, dropped) if result == 1]

    # ---- inside ------------------------------------------------------------------------------------------

    def _put(
        self, keys: Iterable[Any], blocks: Optional[Blocks], config: Optional[ReplicateConfig], flags: int
    ) -> list[int]:
        """One call for all keys."""
        if config is not None and not isinstance(config, ReplicateConfig):
            raise TypeError(f"config: a ReplicateConfig is needed, not {type(config).__name__}")
        packed = Keys(keys)
        refused = None if config is None else unoffered(config)
        if refused is not None:
            return [_record.refuse_store(refused, StoreCode.NOT_SUPPORTED)] * packed.count
        return self._move(_PUT, packed, blocks, replication(config), flags)

    def _put_values(
        self, keys: Sequence[Any], values: Sequence[Sequence[Any]], config: Optional[ReplicateConfig], flags: int
    ) -> list[int]:
        """Stores the parts of each value, straight from where they are."""
        views = [[_views.View(part, "value") for part in parts] for parts in values]
        try:
            # An empty part is none; a value of no bytes is refused by the library with the others of its kind.
            kept = [[view for view in parts if view.length] for parts in views]
            addresses = [[view.address for view in parts] for parts in kept]
            lengths = [[view.length for view in parts] for parts in kept]
            return self._put(keys, _client.several(addresses, lengths), config, flags)
        finally:
            for parts in views:
                for view in parts:
                    view.release()

    def _put_parts(self, key: str, parts: Sequence[Any], config: Optional[ReplicateConfig], flags: int) -> int:
        if not any(memoryview(part).nbytes for part in parts):
            _client.key_bytes(key)
            return 0 if self._handle is not None else self._not_set_up()
        return self._put_values([key], [parts], config, flags)[0]

    def _put_batch(
        self, keys: Sequence[str], values: Sequence[Any], config: Optional[ReplicateConfig], flags: int
    ) -> int:
        listed, contents = list(keys), list(values)
        if len(listed) != len(contents):
            return self._refuse(f"{len(listed)} keys and {len(contents)} values")
        results = self._put_values(listed, [(content,) for content in contents], config, flags)
        return next((result for result in results if result != 0), 0)

    def _put_from(
        self, key: str, buffer_ptr: int, size: int, config: Optional[ReplicateConfig], flags: int
    ) -> int:
        address, length = _lists.integer(buffer_ptr, "buffer_ptr"), _lists.integer(size, "size")
        if length == 0:
            return 0 if self._handle is not None else self._not_set_up()
        return self._put([key], _client.single([address], [length]), config, flags)[0]

    def _ask_remove(self, keys: Sequence[str], force: bool) -> list[int]:
        return self._ask("mooncake_transfer_store_remove", Keys(keys), bool(force))

    def _read(self, keys: Sequence[Any], kind: type) -> list[Any]:
        """New objects of that kind with the values, None for each that is not there."""
        packed = Keys(keys)
        if packed.count == 1 and self._handle is not None:
            scratch = bytearray(_SCRATCH_BYTES)
            length = self._scratch(packed, scratch)
            if length >= 0:
                return [kind(memoryview(scratch)[:length])]
            if length not in (INVALID, _OVERFLOW):
                self._code(length)
                return [None]
        sizes = self._ask(_SIZES, packed)
        wanted = [number for number, size in enumerate(sizes) if size > 0]
        made: list[Any] = [None] * len(sizes)
        if not wanted:
            return made
        addresses = array("Q")
        for number in wanted:
            if kind is bytes:
                made[number], address = _views.new_bytes(sizes[number])
            else:
                made[number] = kind(sizes[number])
                address = _views.address(made[number])
            addresses.append(address)
        lengths = array("Q", (sizes[number] for number in wanted))
        blocks = Blocks(array("Q", [1]) * len(wanted), addresses, lengths)
        results = self._move(_GET, Keys(keys[number] for number in wanted), blocks, _EXACT)
        for number, result in zip(wanted, results):
            if result != sizes[number]:
                made[number] = None
        return made

    def _scratch(self, packed: Keys, scratch: bytearray) -> int:
        """Reads one value into memory that may be too small for it, which is no event."""
        handle = self._handle
        if handle is None:
            return INVALID
        result, view = ctypes.c_int64(), _views.View(scratch, "scratch")
        one, address, length = ctypes.c_uint64(1), ctypes.c_uint64(view.address), ctypes.c_uint64(len(scratch))
        code = handle.library.mooncake_transfer_store_get(
            handle.value,
            packed.joined,
            packed.lengths,
            1,
            one,
            address,
            length,
            0,
            ctypes.byref(result),
        )
        view.release()
        return result.value if code == 0 else code


def _one_key(key: Any) -> list[Any]:
    if not isinstance(key, (str, bytes)):
        raise TypeError(f"keys: a single str is needed, not {type(key).__name__}")
    return [key]


def _one_row(addresses: Integers, sizes: Integers) -> Optional[Blocks]:
    starts, lengths = _lists.integers(addresses, "buffer_ptrs"), _lists.integers(sizes, "sizes")
    if len(starts) != len(lengths):
        return None
    return Blocks(array("Q", [len(starts)]), starts, lengths)
