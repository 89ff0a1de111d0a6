"""Memory for values: upstream's host allocator, its pool of registered buffers, and binding to a memory node."""

from __future__ import annotations

import ctypes
import os
import threading
import time
import weakref
from pathlib import Path

from .. import _lists, _memory

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Optional


_LARGEST_BYTES = 1 << 47


class MooncakeHostMemAllocator:
    """Host memory by address."""

    def __init__(self) -> None:
        self._pages = _memory.Pages()

    def alloc(self, size: int, /) -> int:
        """New memory of that many bytes: its address, or 0."""
        return self._pages.allocate(_lists.integer(size, "size")) or 0

    def free(self, ptr: int, /) -> int:
        """Gives memory back: 0, or -1 for an address that ``alloc`` did not give."""
        address = _lists.integer(ptr, "ptr")
        if not self._pages.holds(address):
            return -1
        self._pages.free(address)
        return 0


def bind_to_numa_node(node: int) -> None:
    """Keeps the calling thread on the processors of a memory node, so that memory it touches first lies there.

    ValueError when the machine has no such node.
    """
    listed = Path(f"/sys/devices/system/node/node{_lists.integer(node, 'node')}/cpulist")
    try:
        text = listed.read_text().strip()
    except OSError:
        raise ValueError(f"this machine has no memory node {node}") from None
    processors: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        processors.update(range(int(low), int(high or low) + 1))
    if processors:
        os.sched_setaffinity(0, processors)


class BufferLease:
    """A buffer of a pool, until ``release``, the end of a ``with`` block, or the end of this object."""

    def __init__(self, pool: BufferPool, address: int, room: int, size: int) -> None:
        self._pool: Optional[BufferPool] = pool
        self._room = room
        # What views of the bytes refer to: alive as long as one of them is.
        self._exporter: Optional[weakref.ref[Any]] = None
        self.ptr = address
        """Where it begins."""
        self.size = size
        """How many bytes were asked for."""

    @property
    def buffer(self) -> memoryview:
        """Its bytes. RuntimeError after ``release``."""
        if self._pool is None:
            raise RuntimeError("the buffer was released")
        exporter = None if self._exporter is None else self._exporter()
        if exporter is None:
            exporter = (ctypes.c_ubyte * self.size).from_address(self.ptr)
            self._exporter = weakref.ref(exporter)
        return memoryview(exporter).cast("B")

    def release(self) -> None:
        """Gives it back to the pool; a second call does nothing. RuntimeError while views of its bytes are alive."""
        if self._exporter is not None and self._exporter() is not None:
            raise RuntimeError("the buffer has exported views: let them go first")
        pool, self._pool = self._pool, None
        if pool is not None:
            pool._take_back(self.ptr, self._room)

    def __enter__(self) -> BufferLease:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.release()

    def __del__(self) -> None:
        # With views alive the buffer stays theirs, and is lost to the pool.
        if self._exporter is None or self._exporter() is None:
            self.release()


class BufferLeaseView:
    """Upstream's name for what ``BufferLease.buffer`` gives; that is a memoryview here."""

    def __init__(self, lease: BufferLease) -> None:
        self.buffer = lease.buffer


class BufferPool:
    """Registered buffers that are used again. Sizes are rounded up to powers of two.

    As upstream's, what cannot be done is a RuntimeError that says why.
    """

    def __init__(
        self,
        store: Any,
        max_bytes: int = 0,
        min_size_class: int = 65536,
        max_size_class: Optional[int] = None,
        alignment: int = 8388608,
        block_on_exhaustion: bool = True,
        default_timeout: Optional[float] = None,
        max_regions: Optional[int] = None,
        prewarm_size: Optional[int] = None,
        prewarm_count: int = 0,
    ) -> None:
        """``max_bytes`` 0 and ``max_regions`` None are no limit; ``default_timeout`` in seconds bounds a wait for a
        buffer, None is 60 seconds. Buffers above ``max_size_class`` are given, too, and not kept afterwards.
        ``alignment`` is a power of two; memory begins at a page, and a larger one is not kept."""
        wanted = _lists.integer(alignment, "alignment")
        if wanted == 0 or wanted & (wanted - 1):
            raise RuntimeError(f"alignment is {wanted}: a power of two is needed")
        self._store = store
        self._max_bytes = _lists.integer(max_bytes, "max_bytes")
        self._smallest = max(1, _lists.integer(min_size_class, "min_size_class"))
        self._largest = max_size_class
        self._block = bool(block_on_exhaustion)
        self._timeout = 60.0 if default_timeout is None else float(default_timeout)
        self._max_regions = max_regions
        self._pages = _memory.Pages()
        self._free: dict[int, list[int]] = {}
        self._regions: dict[int, int] = {}
        self._closed = False
        self._changed = threading.Condition(threading.RLock())
        if prewarm_size is not None and prewarm_count:
            self.prewarm(prewarm_size, prewarm_count)

    def acquire(self, size: int, block: Optional[bool] = None, timeout: Optional[float] = None) -> BufferLease:
        """A buffer of at least ``size`` bytes. RuntimeError when the pool is exhausted and may not wait, or waited too
        long, when it can never have so many bytes, and after ``close``."""
        asked = _lists.integer(size, "size")
        room = max(self._smallest, 1 << max(0, asked - 1).bit_length())
        if room > _LARGEST_BYTES or (self._max_bytes and room > self._max_bytes):
            raise RuntimeError(f"{asked} bytes are above the pool's capacity")
        may_wait = self._block if block is None else bool(block)
        end = time.monotonic() + (self._timeout if timeout is None else float(timeout))
        with self._changed:
            while True:
                address = self._find(room)
                if address is not None:
                    return BufferLease(self, address, room, asked)
                left = end - time.monotonic()
                if not may_wait or left <= 0 or not self._changed.wait(left):
                    raise RuntimeError(f"the pool is exhausted: it has no {room} bytes left")

    def buffer(self, size: int, block: Optional[bool] = None, timeout: Optional[float] = None) -> BufferLease:
        """As ``acquire``, for ``with``."""
        return self.acquire(size, block, timeout)

    def prewarm(self, size: int, count: int) -> None:
        """Makes buffers before they are needed."""
        leases = [self.acquire(size, False) for _ in range(count)]
        for lease in leases:
            lease.release()

    def close(self) -> None:
        """Gives the memory back; RuntimeError while buffers are out. A second call does nothing."""
        with self._changed:
            if self._closed:
                return
            out = len(self._regions) - sum(map(len, self._free.values()))
            if out:
                raise RuntimeError(f"the pool has {out} active leases")
            self._closed = True
            for address in list(self._regions):
                self._drop(address)
            self._free.clear()
            self._changed.notify_all()

    def _find(self, room: int) -> Optional[int]:
        """A free buffer, or a new one; with the lock held."""
        if self._closed:
            raise RuntimeError("the pool is closed")
        waiting = self._free.get(room)
        if waiting:
            return waiting.pop()
        taken = sum(self._regions.values())
        if self._max_bytes and taken + room > self._max_bytes:
            return None
        if self._max_regions is not None and len(self._regions) >= self._max_regions:
            return None
        address = self._pages.allocate(room)
        if address is None:
            return None
        if self._store.register_buffer(address, room) != 0:
            self._pages.free(address)
            raise RuntimeError("the store does not take the pool's memory; see last_error()")
        self._regions[address] = room
        return address

    def _drop(self, address: int) -> None:
        self._store.unregister_buffer(address)
        del self._regions[address]
        self._pages.free(address)

    def _take_back(self, address: int, room: int) -> None:
        with self._changed:
            if self._largest is not None and room > self._largest:
                self._drop(address)
            else:
                self._free.setdefault(room, []).append(address)
            self._changed.notify_all()
