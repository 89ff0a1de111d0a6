"""The store over the C interface: lists in, lists out, for the classes that have upstream's names.

Invariants: every call of the library releases the interpreter lock; a store that was never set up does not load the
library; a store ends with the last object that holds it, and at the interpreter's exit it leaves its pool.
"""

from __future__ import annotations

import ctypes
import itertools
import weakref
from array import array

from .. import _abi, _lists, _record
from .._abi import StoreCode

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Optional
    from .._lists import Integers

INVALID = int(StoreCode.INVALID_PARAMS)
NOT_FOUND = int(StoreCode.OBJECT_NOT_FOUND)
_NAME_CAPACITY = 512


class Handle:
    """A store of the library; it is destroyed with the last reference."""

    def __init__(self, library: ctypes.CDLL, value: int) -> None:
        self.library = library
        self.value = value
        finalizer = weakref.finalize(self, library.mooncake_store_destroy, value)
        # At exit the pool is left by _leave_at_exit; the library's own end is that of the process.
        finalizer.atexit = False
        _watch_exit()
        _open.add(self)


_open: "weakref.WeakSet[Handle]" = weakref.WeakSet()
_watching = False


def _leave_at_exit() -> None:
    for handle in list(_open):
        handle.library.mooncake_transfer_store_close(handle.value)


def _watch_exit() -> None:
    global _watching
    if not _watching:
        _watching = True
        import atexit

        atexit.register(_leave_at_exit)


def key_bytes(key: Any, name: str = "key") -> bytes:
    """A key for the C interface."""
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, bytes):
        return key
    raise TypeError(f"{name}: a str is needed, not {type(key).__name__}")


class Keys:
    """Keys as C takes them: one run of bytes and an array of lengths."""

    __slots__ = ("count", "joined", "lengths")

    def __init__(self, keys: Iterable[Any], name: str = "keys") -> None:
        if isinstance(keys, (str, bytes)):
            raise TypeError(f"{name}: a list of str is needed, not {type(keys).__name__}")
        encoded = [key.encode() if type(key) is str else key_bytes(key, name) for key in keys]
        self.joined = b"".join(encoded)
        lengths = array("Q", map(len, encoded))
        self.count = len(lengths)
        self.lengths = first(lengths)


class Blocks:
    """Buffers of all keys together, and how many belong to each."""

    __slots__ = ("addresses", "counts", "lengths", "rows", "total")

    def __init__(self, counts: "array[int]", addresses: "array[int]", lengths: "array[int]") -> None:
        self.counts = first(counts)
        self.addresses = first(addresses)
        self.lengths = first(lengths)
        self.rows = len(counts)
        self.total = len(addresses)


def first(values: "array[int]") -> Optional[ctypes.c_uint64]:
    """The array as C takes it: a view of its first element, which keeps the array."""
    return ctypes.c_uint64.from_buffer(values) if values else None


def single(addresses: Integers, sizes: Integers) -> Optional[Blocks]:
    """One buffer for each key; None when the lists differ in length."""
    starts, lengths = _lists.integers(addresses, "buffer_ptrs"), _lists.integers(sizes, "sizes")
    if len(starts) != len(lengths):
        return None
    return Blocks(array("Q", [1]) * len(starts), starts, lengths)


def flat(rows: Sequence[Integers], name: str) -> "tuple[array[int], array[int]]":
    """The numbers of all rows, and how many each row has."""
    if isinstance(rows, (str, bytes)):
        raise TypeError(f"{name}: a list of lists of integers is needed, not {type(rows).__name__}")
    try:
        counts = array("Q", map(len, rows))
        # Most callers have lists of lists: those are joined without a Python step for each number.
        if all(type(row) is list for row in rows):
            return array("Q", itertools.chain.from_iterable(rows)), counts
    except (TypeError, OverflowError):
        pass
    numbers, counts = array("Q"), array("Q")
    for row in rows:
        values = _lists.integers(row, name)
        counts.append(len(values))
        numbers.extend(values)
    return numbers, counts


def several(all_addresses: Sequence[Integers], all_sizes: Sequence[Integers]) -> Optional[Blocks]:
    """Several buffers for each key; None when the lists differ in shape."""
    addresses, counts = flat(all_addresses, "all_buffer_ptrs")
    lengths, length_counts = flat(all_sizes, "all_sizes")
    return Blocks(counts, addresses, lengths) if counts == length_counts else None


class Client:
    """A store handle and the calls on it."""

    def __init__(self) -> None:
        self._handle: Optional[Handle] = None

    # ---- state -------------------------------------------------------------------------------------------

    def _open_handle(self) -> Optional[Handle]:
        """The handle, made on first use; None with a record when there are too many."""
        if self._handle is None:
            from .._library import load

            library = load()
            value = library.mooncake_store_create()
            if not value:
                _record.store_failed(library, int(StoreCode.INTERNAL_ERROR))
                return None
            self._handle = Handle(library, value)
        return self._handle

    def _refuse(self, message: str, advice: Optional[str] = None) -> int:
        return _record.refuse_store(message, advice=advice)

    def _not_set_up(self) -> int:
        return self._refuse("the store is not set up", "call setup first")

    def _code(self, code: int) -> int:
        """What a call returned, kept and logged when it is a failure."""
        if code < 0 and self._handle is not None:
            _record.store_failed(self._handle.library, code)
        return code

    # ---- calls on many keys ------------------------------------------------------------------------------

    def _finish(self, handle: Handle, code: int, results: "array[int]") -> list[int]:
        """The results as a list; a failure of the call stands for every key."""
        if code != 0:
            _record.store_failed(handle.library, code)
            return [code] * len(results)
        listed = results.tolist()
        worst = next((result for result in listed if result < 0 and result != NOT_FOUND), 0)
        if worst:
            _record.store_failed(handle.library, worst)
        return listed

    def _ask(self, function: str, keys: Keys, *arguments: Any) -> list[int]:
        """A call with keys alone."""
        handle = self._handle
        if keys.count == 0:
            return []
        if handle is None:
            return [self._not_set_up()] * keys.count
        results = array("q", bytes(8 * keys.count))
        call = getattr(handle.library, function)
        place = ctypes.c_int64.from_buffer(results)
        code = call(handle.value, keys.joined, keys.lengths, keys.count, *arguments, place)
        return self._finish(handle, code, results)

    def _move(self, function: str, keys: Keys, blocks: Optional[Blocks], *arguments: Any) -> list[int]:
        """A call with keys and buffers; None for the buffers is lists that do not fit each other."""
        handle = self._handle
        if keys.count == 0:
            return []
        if handle is None:
            return [self._not_set_up()] * keys.count
        if blocks is None or blocks.rows != keys.count:
            return [self._refuse("the lists of keys, addresses and sizes differ in shape")] * keys.count
        results = array("q", bytes(8 * keys.count))
        call = getattr(handle.library, function)
        code = call(
            handle.value,
            keys.joined,
            keys.lengths,
            keys.count,
            blocks.counts,
            blocks.addresses,
            blocks.lengths,
            *arguments,
            ctypes.c_int64.from_buffer(results),
        )
        return self._finish(handle, code, results)

    def _parts(self, keys: Keys, blocks: Blocks, offsets: "array[int]") -> list[int]:
        """Reads parts of objects; one result for each part."""
        handle = self._handle
        if blocks.total == 0:
            return []
        if handle is None:
            return [self._not_set_up()] * blocks.total
        results = array("q", bytes(8 * blocks.total))
        code = handle.library.mooncake_transfer_store_get_ranges(
            handle.value,
            keys.joined,
            keys.lengths,
            keys.count,
            blocks.counts,
            blocks.addresses,
            blocks.lengths,
            first(offsets),
            ctypes.c_int64.from_buffer(results),
        )
        return self._finish(handle, code, results)

    def _name(self) -> str:
        handle = self._handle
        if handle is None:
            return ""
        name = ctypes.create_string_buffer(_NAME_CAPACITY)
        if handle.library.mooncake_store_get_hostname(handle.value, name, len(name)) != 0:
            return ""
        return name.value.decode("utf-8", "replace")

    def _text(self, function: str, keys: Keys) -> Optional[str]:
        """A call that writes a text of any length."""
        handle = self._handle
        if handle is None:
            self._not_set_up()
            return None
        capacity, length = 4096, ctypes.c_size_t()
        call = getattr(handle.library, function)
        while True:
            text = ctypes.create_string_buffer(capacity)
            code = call(handle.value, keys.joined, keys.lengths, keys.count, text, capacity, ctypes.byref(length))
            if code == 0:
                return text.value.decode()
            if code != StoreCode.BUFFER_OVERFLOW or length.value < capacity:
                _record.store_failed(handle.library, code)
                return None
            capacity = 2 * length.value
