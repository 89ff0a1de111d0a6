"""``TransferEngine``: upstream's class over the C interface.

Invariants: every call of the library releases the interpreter lock; a failure is kept for ``last_error()`` and
logged before the failure value is returned; an engine ends when the last object that holds it is gone, and never
at interpreter exit, where threads of the library may be at work.
"""

from __future__ import annotations

import ctypes
import weakref
from array import array

from .. import _abi, _lists, _memory, _record
from .._abi import Code, Stage
from ._notify import TransferNotify
from ._opcode import TransferOpcode

# Only for checkers of types: the module typing costs a quarter of this package's import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Optional, Union

    from .._lists import Integers

# The class below has an attribute of that name, which its annotations would find first.
_Opcode = TransferOpcode
_DEFAULT_TIMEOUT = _abi.MOONCAKE_TRANSFER_DEFAULT_TIMEOUT
_NAME_CAPACITY = 512
_PEER_TO_PEER = "P2PHANDSHAKE"


class _Handle:
    """An engine of the library; it is destroyed with the last reference."""

    def __init__(self, library: ctypes.CDLL, value: int) -> None:
        self.library = library
        self.value = value
        finalizer = weakref.finalize(self, library.destroyTransferEngine, value)
        # Threads may be inside the library when the interpreter exits; the process's end is the engine's.
        finalizer.atexit = False


class InnerTransferEngine:
    """What ``TransferEngine.get_engine`` gives: the engine, to be handed on to a store that shares it."""

    def __init__(self, handle: _Handle) -> None:
        self._handle = handle

    @property
    def handle(self) -> int:
        """The ``transfer_engine_t`` of the C interface. It is valid while this object lives."""
        return self._handle.value


def _load() -> ctypes.CDLL:
    from .._library import load

    return load()


def _create(library: ctypes.CDLL, metadata: bytes, local_name: bytes) -> Optional[_Handle]:
    options = _abi.mooncake_transfer_options()
    options.struct_size = ctypes.sizeof(options)
    options.metadata = metadata
    options.local_name = local_name
    options.device = _abi.MOONCAKE_TRANSFER_ANY_DEVICE
    options.auto_discover = 1
    engine = ctypes.c_void_p()
    if library.mooncake_transfer_create(ctypes.byref(options), ctypes.byref(engine)) != 0:
        _record.failed(library)
        return None
    assert engine.value is not None
    return _Handle(library, engine.value)


class TransferEngine:
    """Moves memory between this process and others.

    One object is one engine: a name that peers open, and the memory registered with it. Any thread may call any
    method. Methods that return 0 on success return a negative number on failure, unless their text says otherwise;
    ``last_error()`` tells why. A wrong type is a TypeError.
    """

    TransferOpcode = TransferOpcode

    def __init__(self) -> None:
        self._handle: Optional[_Handle] = None
        self._managed = _memory.Pages()

    # ---- the engine itself -------------------------------------------------------------------------------

    def initialize(
        self, local_hostname: str, metadata_server: str, protocol: str, device_name: str, /
    ) -> int:
        """Starts the engine: 0, or -1.

        ``local_hostname`` is ``host``, ``host:port`` or ``host:port:npu_N`` (N a physical id); with the metadata
        server ``P2PHANDSHAKE`` the port is chosen by the engine, see ``get_rpc_port``. Without ``npu_N`` the device is
        the calling thread's current one, else that of the registered memory. ``protocol`` "ascend" opens
        CANN; where there is none, host memory can be moved all the same and one warning says so
        (MOONCAKE_TRANSFER_REQUIRE_NPU=1 makes it a failure). ``device_name`` names RDMA cards, of which none is driven.
        Called again, it replaces the engine.
        """
        metadata = _lists.text(metadata_server, "metadata_server")
        name = _lists.text(local_hostname, "local_hostname")
        wanted = _lists.text(protocol, "protocol")
        _lists.text(device_name, "device_name")
        library = _load()
        handle = _create(library, metadata, name)
        if handle is None:
            return -1
        if library.mooncake_transfer_use_protocol(handle.value, wanted) != 0:
            _record.failed(library)
            return -1
        self._handle = handle
        return 0

    def initialize_ext(
        self,
        local_hostname: str,
        metadata_server: str,
        protocol: str,
        device_name: str,
        metadata_type: str,
        /,
    ) -> int:
        """As ``initialize``, with the metadata service's kind apart from its address."""
        _lists.text(metadata_type, "metadata_type")
        if isinstance(metadata_server, str) and "://" not in metadata_server and metadata_server != _PEER_TO_PEER:
            metadata_server = f"{metadata_type}://{metadata_server}"
        return self.initialize(local_hostname, metadata_server, protocol, device_name)

    def close(self) -> None:
        """Ends the engine unless a store shares it; a second call does nothing. Not in upstream."""
        self._handle = None

    def get_rpc_port(self) -> int:
        """The port of the handshake: peers open ``host:port``. RuntimeError before ``initialize``."""
        _, port = self._name().rsplit(":", 1)
        return int(port)

    def get_engine(self) -> InnerTransferEngine:
        """The engine, for ``MooncakeDistributedStore.setup``. RuntimeError before ``initialize``."""
        return InnerTransferEngine(self._initialized())

    def get_engine_ptr(self) -> int:
        """The engine's handle in the C interface. RuntimeError before ``initialize``."""
        return self._initialized().value

    def get_local_topology(self, device_name: Optional[str] = None) -> str:
        """What memory this machine has, as upstream's JSON; needs no ``initialize``. "" on failure."""
        if device_name is not None:
            _lists.text(device_name, "device_name")
        library = _load()
        handle = self._handle or _create(library, _PEER_TO_PEER.encode(), b"127.0.0.1")
        if handle is None:
            return ""
        import json

        text = self._report(library.mooncake_transfer_topology, handle)
        return "" if text is None else json.dumps(json.loads(text), indent="\t")

    def counters(self) -> str:
        """The engine's counters as Prometheus text. RuntimeError before ``initialize``. Not in upstream."""
        handle = self._initialized()
        return self._report(handle.library.mooncake_transfer_counters, handle) or ""

    def send_probe(self, peer_server_name: str) -> int:
        """Asks whether the engine of that name answers: 0, -1 before ``initialize``, -101 name resolution,
        -102 socket."""
        name = _lists.text(peer_server_name, "peer_server_name")
        handle = self._handle
        if handle is None:
            return self._not_initialized()
        if handle.library.mooncake_transfer_probe(handle.value, name) == 0:
            return 0
        record = _record.failed(handle.library)
        return -1 if record is None else record.negative

    def warmup_efa_segment(self, segment_name: str) -> int:
        """0; there is no EFA card to warm up."""
        name = _lists.text(segment_name, "segment_name")
        return self._code(lambda handle: handle.library.warmupEfaSegment(handle.value, name))

    # ---- memory ------------------------------------------------------------------------------------------

    def register_memory(self, buffer_addr: int, capacity: int, location: str = "*") -> int:
        """Makes a range reachable by peers: 0, -1 for a bad argument, -7 for an overlap, or another code.

        ``location`` is ``cpu:N``, ``npu:N`` or ``*``, which finds it out from the address.
        """
        address = _lists.integer(buffer_addr, "buffer_addr")
        length = _lists.integer(capacity, "capacity")
        place = _lists.text(location, "location")
        return self._code(
            lambda handle: handle.library.registerLocalMemory(handle.value, address, length, place, 1)
        )

    def unregister_memory(self, addr: int, /) -> int:
        """Withdraws the range that starts there: 0, -3 when there is none, -4 while transfers use it."""
        address = _lists.integer(addr, "addr")
        return self._code(lambda handle: handle.library.unregisterLocalMemory(handle.value, address))

    def batch_register_memory(
        self, buffer_addresses: Integers, capacities: Integers, location: str = "*"
    ) -> int:
        """Makes all ranges reachable, or none. Lists of different length are -1."""
        addresses = _lists.integers(buffer_addresses, "buffer_addresses")
        lengths = _lists.integers(capacities, "capacities")
        place = _lists.text(location, "location")
        count = len(addresses)
        if count != len(lengths):
            _record.refuse(f"{count} addresses and {len(lengths)} capacities", stage=Stage.REGISTER)
            return -1
        if count == 0:
            return 0 if self._handle is not None else self._not_initialized()
        pairs = array("Q", bytes(16 * count))
        pairs[0::2] = addresses
        pairs[1::2] = lengths
        entries = ctypes.byref(_abi.buffer_entry.from_buffer(pairs))
        return self._code(
            lambda handle: handle.library.registerLocalMemoryBatch(handle.value, entries, count, place)
        )

    def batch_unregister_memory(self, buffer_addresses: Integers, /) -> int:
        """Withdraws every range, goes on past failures and returns the first of them."""
        addresses = _lists.integers(buffer_addresses, "buffer_addresses")
        count = len(addresses)
        if count == 0:
            return 0 if self._handle is not None else self._not_initialized()
        first = ctypes.byref(ctypes.c_void_p.from_buffer(addresses))
        return self._code(lambda handle: handle.library.unregisterLocalMemoryBatch(handle.value, first, count))

    def allocate_managed_buffer(self, length: int, /) -> int:
        """New host memory, registered: its address, or 0."""
        size = _lists.integer(length, "length")
        handle = self._handle
        if handle is None:
            self._not_initialized()
            return 0
        address = self._managed.allocate(size)
        if address is None:
            _record.refuse(f"no {size} bytes of memory to allocate", stage=Stage.REGISTER)
            return 0
        if handle.library.registerLocalMemory(handle.value, address, size, b"cpu:0", 1) != 0:
            _record.failed(handle.library)
            self._managed.free(address)
            return 0
        return address

    def free_managed_buffer(self, addr: int, length: int, /) -> int:
        """Gives back what ``allocate_managed_buffer`` returned: 0, -3 for another address, -4 while transfers use
        it."""
        address = _lists.integer(addr, "addr")
        _lists.integer(length, "length")
        if not self._managed.holds(address):
            _record.refuse(f"no managed buffer starts at {address:#x}", stage=Stage.REGISTER)
            return int(Code.ADDRESS_NOT_REGISTERED)
        code = self.unregister_memory(address)
        # After a new initialize or close the registration went with the old engine.
        if code in (0, int(Code.ADDRESS_NOT_REGISTERED)) or self._handle is None:
            self._managed.free(address)
            return 0
        return code

    def get_first_buffer_address(self, segment_name: str, /) -> int:
        """The first address that a peer has published; 0 when there is none or it cannot be reached."""
        name = _lists.text(segment_name, "segment_name")
        handle = self._handle
        if handle is None:
            self._not_initialized()
            return 0
        address = ctypes.c_uint64()
        library = handle.library
        if library.mooncake_transfer_first_buffer_address(handle.value, name, ctypes.byref(address)) != 0:
            _record.failed(library)
            return 0
        return address.value

    def write_bytes_to_buffer(self, dest: int, data: Union[str, bytes], length: int, /) -> int:
        """Copies the first ``length`` bytes of ``data`` to host memory of this process; 0.

        ValueError for an address that is no writable host memory, and for less data than ``length``.
        """
        address = _lists.integer(dest, "dest")
        size = _lists.integer(length, "length")
        content = data.encode() if isinstance(data, str) else bytes(data)
        if len(content) < size:
            raise ValueError(f"data has {len(content)} bytes, length says {size}")
        _memory.write(address, content[:size])
        return 0

    def read_bytes_from_buffer(self, src: int, length: int, /) -> bytes:
        """The bytes at an address of this process; ValueError when it is no readable host memory."""
        return _memory.read(_lists.integer(src, "src"), _lists.integer(length, "length"))

    # ---- transfers that wait -----------------------------------------------------------------------------

    def transfer_sync_write(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        transport_hint: str = "",
    ) -> int:
        """Writes one block to a peer: 0, or -1."""
        return self.transfer_sync(
            target_hostname, buffer, peer_buffer_address, length, TransferOpcode.Write, None, transport_hint
        )

    def transfer_sync_read(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        transport_hint: str = "",
    ) -> int:
        """Reads one block from a peer: 0, or -1."""
        return self.transfer_sync(
            target_hostname, buffer, peer_buffer_address, length, TransferOpcode.Read, None, transport_hint
        )

    def transfer_sync(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        opcode: _Opcode,
        notify: Optional[TransferNotify] = None,
        transport_hint: str = "",
    ) -> int:
        """Moves one block: 0, or -1. ``notify`` is sent to the peer once the block has arrived."""
        return self.batch_transfer_sync(
            target_hostname,
            (_lists.integer(buffer, "buffer"),),
            (_lists.integer(peer_buffer_address, "peer_buffer_address"),),
            (_lists.integer(length, "length"),),
            opcode,
            notify,
            transport_hint,
        )

    def batch_transfer_sync_write(
        self,
        target_hostname: str,
        buffers: Integers,
        peer_buffer_addresses: Integers,
        lengths: Integers,
        transport_hint: str = "",
    ) -> int:
        """Writes blocks to a peer: 0, or -1."""
        return self.batch_transfer_sync(
            target_hostname, buffers, peer_buffer_addresses, lengths, TransferOpcode.Write, None, transport_hint
        )

    def batch_transfer_sync_read(
        self,
        target_hostname: str,
        buffers: Integers,
        peer_buffer_addresses: Integers,
        lengths: Integers,
        transport_hint: str = "",
    ) -> int:
        """Reads blocks from a peer into ``buffers``: 0, or -1."""
        return self.batch_transfer_sync(
            target_hostname, buffers, peer_buffer_addresses, lengths, TransferOpcode.Read, None, transport_hint
        )

    def batch_transfer_sync(
        self,
        target_hostname: str,
        buffers: Integers,
        peer_buffer_addresses: Integers,
        lengths: Integers,
        opcode: _Opcode,
        notify: Optional[TransferNotify] = None,
        transport_hint: str = "",
    ) -> int:
        """Moves blocks and waits: 0, or -1, also for lists of different length. No blocks are 0.

        When it has returned, nothing it started touches memory any more, with one exception that is told: a last error
        with ``Code.STILL_RUNNING`` carries a ``batch_id``, and the memory belongs to that batch until
        ``transfer_check_status`` says that it is over. The deadline is MC_TRANSFER_TIMEOUT (30 s) and a nanosecond a byte.
        """
        blocks = self._blocks(target_hostname, buffers, peer_buffer_addresses, lengths, opcode, transport_hint)
        note = _note(notify)
        if blocks is None:
            return -1
        if blocks.count == 0:
            return 0
        handle = blocks.handle
        library = handle.library
        segment = library.openSegment(handle.value, blocks.target)
        if segment < 0:
            _record.failed(library)
            return -1
        still_running = ctypes.c_uint64()
        code = library.mooncake_transfer_run_lists(
            handle.value,
            segment,
            blocks.opcode,
            blocks.local,
            blocks.remote,
            blocks.lengths,
            blocks.count,
            note,
            _DEFAULT_TIMEOUT,
            ctypes.byref(still_running),
        )
        if code == 0:
            return 0
        _record.failed(library, still_running.value if code == Code.STILL_RUNNING else None)
        return -1

    # ---- transfers that do not wait ----------------------------------------------------------------------

    def transfer_submit_write(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        transport_hint: str = "",
    ) -> int:
        """Starts to write one block: an id for ``transfer_check_status``, or 0 on failure."""
        return self.batch_transfer_async(
            target_hostname,
            (_lists.integer(buffer, "buffer"),),
            (_lists.integer(peer_buffer_address, "peer_buffer_address"),),
            (_lists.integer(length, "length"),),
            TransferOpcode.Write,
            transport_hint,
        )

    def batch_transfer_async_write(
        self,
        target_hostname: str,
        buffers: Integers,
        peer_buffer_addresses: Integers,
        lengths: Integers,
        transport_hint: str = "",
    ) -> int:
        """Starts to write blocks: an id, or 0 on failure."""
        return self.batch_transfer_async(
            target_hostname, buffers, peer_buffer_addresses, lengths, TransferOpcode.Write, transport_hint
        )

    def batch_transfer_async_read(
        self,
        target_hostname: str,
        buffers: Integers,
        peer_buffer_addresses: Integers,
        lengths: Integers,
        transport_hint: str = "",
    ) -> int:
        """Starts to read blocks: an id, or 0 on failure."""
        return self.batch_transfer_async(
            target_hostname, buffers, peer_buffer_addresses, lengths, TransferOpcode.Read, transport_hint
        )

    def batch_transfer_async(
        self,
        target_hostname: str,
        buffers: Integers,
        peer_buffer_addresses: Integers,
        lengths: Integers,
        opcode: _Opcode,
        transport_hint: str = "",
    ) -> int:
        """Starts to move blocks: an id in [1, 2**63), or 0 on failure. No blocks give an id that is done at once.

        The memory belongs to the transfer until ``transfer_check_status`` or ``get_batch_transfer_status`` has said
        that it is over.
        """
        blocks = self._blocks(target_hostname, buffers, peer_buffer_addresses, lengths, opcode, transport_hint)
        if blocks is None:
            return 0
        handle = blocks.handle
        library = handle.library
        segment = 0
        if blocks.count:
            segment = library.openSegment(handle.value, blocks.target)
            if segment < 0:
                _record.failed(library)
                return 0
        batch: int = library.allocateBatchID(handle.value, blocks.count)
        if batch == _abi.INVALID_BATCH:
            _record.failed(library)
            return 0
        if blocks.count == 0:
            return batch
        code = library.mooncake_transfer_submit_lists(
            handle.value,
            batch,
            segment,
            blocks.opcode,
            blocks.local,
            blocks.remote,
            blocks.lengths,
            blocks.count,
            None,
            _DEFAULT_TIMEOUT,
        )
        if code != 0:
            _record.failed(library)
            library.freeBatchID(handle.value, batch)
            return 0
        return batch

    def transfer_check_status(self, batch_id: int, /) -> int:
        """Looks at all blocks of a batch: 0 under way, 1 done, -1 failed or unknown id, -2 timed out.

        The id is dead after 1, -1 and -2, with one exception: a last error with ``Code.STILL_RUNNING`` leaves it
        alive, since the blocks may still move; ask again.
        """
        batch = _lists.integer(batch_id, "batch_id")
        handle = self._handle
        if handle is None:
            return self._not_initialized()
        library = handle.library
        code = library.mooncake_transfer_wait(handle.value, batch, 0)
        if code == 0:
            library.freeBatchID(handle.value, batch)
            return 1
        record = _record.fetch(library)
        freed = library.freeBatchID(handle.value, batch) == 0
        if code == Code.TIMEOUT and not freed:
            return 0
        if record is not None:
            if code == Code.STILL_RUNNING:
                record.batch_id = batch
            _record.keep(record)
        return -2 if code in (Code.TIMEOUT, Code.STILL_RUNNING) else -1

    def get_batch_transfer_status(self, batch_ids: Integers, /) -> int:
        """Waits until all batches are done: 0; -1 when one failed, timed out or is unknown. No ids are 0.

        Every id is dead afterwards: after a failure what is left of the others is stopped. A last error with
        ``Code.STILL_RUNNING`` names the one that could not be stopped, which stays alive.
        """
        batches = _lists.integers(batch_ids, "batch_ids")
        handle = self._handle
        if handle is None:
            return self._not_initialized()
        library = handle.library
        outcome = 0
        for batch in batches:
            code = 0
            if outcome == 0:
                code = library.mooncake_transfer_wait(handle.value, batch, _DEFAULT_TIMEOUT)
                if code != 0:
                    outcome = -1
                    _record.failed(library, batch if code == Code.STILL_RUNNING else None)
            if library.freeBatchID(handle.value, batch) != 0 and outcome != 0:
                # Stopped, so that what the caller no longer can name does not write its memory.
                library.mooncake_transfer_cancel(handle.value, batch)
                code = library.mooncake_transfer_wait(handle.value, batch, _DEFAULT_TIMEOUT)
                if code == Code.STILL_RUNNING:
                    _record.failed(library, batch)
                library.freeBatchID(handle.value, batch)
        return outcome

    # ---- notifications -----------------------------------------------------------------------------------

    def get_notifies(self) -> list[TransferNotify]:
        """Takes the notifications that have arrived. RuntimeError before ``initialize``."""
        handle = self._initialized()
        library = handle.library
        size = ctypes.c_int()
        messages = library.getNotifsFromEngine(handle.value, ctypes.byref(size))
        if not messages:
            if size.value < 0:
                _record.failed(library)
            return []
        try:
            return [
                TransferNotify(
                    (messages[number].name or b"").decode("utf-8", "replace"),
                    (messages[number].msg or b"").decode("utf-8", "replace"),
                )
                for number in range(size.value)
            ]
        finally:
            library.freeNotifsMsgBuf(messages, size)

    # ---- inside ------------------------------------------------------------------------------------------

    def _initialized(self) -> _Handle:
        if self._handle is None:
            raise RuntimeError("the engine is not initialized: call initialize first")
        return self._handle

    def _not_initialized(self) -> int:
        _record.refuse("the engine is not initialized", advice="call initialize first")
        return -1

    def _code(self, call: Callable[[_Handle], int]) -> int:
        handle = self._handle
        if handle is None:
            return self._not_initialized()
        code = call(handle)
        if code != 0:
            _record.failed(handle.library)
        return code

    def _name(self) -> str:
        handle = self._initialized()
        name = ctypes.create_string_buffer(_NAME_CAPACITY)
        if handle.library.mooncake_transfer_session_name(handle.value, name, len(name)) != 0:
            record = _record.failed(handle.library)
            raise RuntimeError(str(record))
        return name.value.decode()

    def _report(self, function: Callable[..., int], handle: _Handle) -> Optional[str]:
        """A text of any length; the length may grow between two calls."""
        capacity, length = 4096, ctypes.c_size_t()
        while True:
            text = ctypes.create_string_buffer(capacity)
            code = function(handle.value, text, capacity, ctypes.byref(length))
            if code == 0:
                return text.value.decode()
            if code != Code.TOO_MANY_REQUESTS or length.value < capacity:
                _record.failed(handle.library)
                return None
            capacity = 2 * length.value

    def _blocks(
        self,
        target_hostname: str,
        buffers: Integers,
        peer_buffer_addresses: Integers,
        lengths: Integers,
        opcode: _Opcode,
        transport_hint: str,
    ) -> Optional[_Blocks]:
        """The arguments of a transfer in C's form, or None with a record."""
        if not isinstance(opcode, TransferOpcode):
            raise TypeError(f"opcode: a TransferOpcode is needed, not {type(opcode).__name__}")
        if not isinstance(transport_hint, str):
            raise TypeError(f"transport_hint: a str is needed, not {type(transport_hint).__name__}")
        target = _lists.text(target_hostname, "target_hostname")
        local = _lists.integers(buffers, "buffers")
        remote = _lists.integers(peer_buffer_addresses, "peer_buffer_addresses")
        sizes = _lists.integers(lengths, "lengths")
        handle = self._handle
        if handle is None:
            self._not_initialized()
            return None
        if not len(local) == len(remote) == len(sizes):
            _record.refuse(
                f"{len(local)} buffers, {len(remote)} peer addresses and {len(sizes)} lengths", stage=Stage.SUBMIT
            )
            return None
        return _Blocks(handle, target, int(opcode), local, remote, sizes)


class _Blocks:
    """Blocks to move: three arrays of one length that stay where they are."""

    __slots__ = ("count", "handle", "lengths", "local", "opcode", "remote", "target")

    def __init__(
        self,
        handle: _Handle,
        target: bytes,
        opcode: int,
        local: array[int],
        remote: array[int],
        lengths: array[int],
    ) -> None:
        self.handle = handle
        self.target = target
        self.opcode = opcode
        self.count = len(local)
        self.local = _start(local)
        self.remote = _start(remote)
        self.lengths = _start(lengths)


def _start(values: array[int]) -> Optional[ctypes.c_uint64]:
    """The array as C takes it: a view of its first element, which keeps the array."""
    return ctypes.c_uint64.from_buffer(values) if values else None


def _note(notify: Optional[TransferNotify]) -> Optional[_abi.notify_msg]:
    if notify is None:
        return None
    if not isinstance(notify, TransferNotify):
        raise TypeError(f"notify: a TransferNotify is needed, not {type(notify).__name__}")
    return _abi.notify_msg(_lists.text(notify.name, "notify.name"), _lists.text(notify.msg, "notify.msg"))

