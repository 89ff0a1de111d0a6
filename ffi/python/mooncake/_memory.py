"""Host memory of this process, reached by address.

Bytes are copied by the kernel (process_vm_readv and writev on ourselves), so that an address that is not mapped,
or that is memory of an NPU, is an error instead of a crash.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading

# Only for checkers of types: the module typing costs a quarter of this package's import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from typing import Optional


class _Range(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_KERNEL_FORBIDS = frozenset((errno.ENOSYS, errno.EPERM))


def _copy(name: str, ours: int, theirs: int, length: int) -> None:
    """Copies between a buffer of ours and an address that may be wrong."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    function.restype = ctypes.c_ssize_t
    done = 0
    while done < length:
        local, remote = _Range(ours + done, length - done), _Range(theirs + done, length - done)
        moved = function(os.getpid(), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
        if moved > 0:
            done += moved
            continue
        code = ctypes.get_errno()
        if code not in _KERNEL_FORBIDS:
            raise ValueError(f"address {theirs + done:#x}: {os.strerror(code or errno.EFAULT)}")
        # A container may forbid the call; then the address has to be right.
        if name == "process_vm_readv":
            ctypes.memmove(ours + done, theirs + done, length - done)
        else:
            ctypes.memmove(theirs + done, ours + done, length - done)
        return


def read(address: int, length: int) -> bytes:
    """The bytes at an address."""
    if length == 0:
        return b""
    buffer = ctypes.create_string_buffer(length)
    _copy("process_vm_readv", ctypes.addressof(buffer), address, length)
    return buffer.raw


def write(address: int, data: bytes) -> None:
    """Writes bytes to an address."""
    if data:
        buffer = ctypes.create_string_buffer(data, len(data))
        _copy("process_vm_writev", ctypes.addressof(buffer), address, len(data))


class Pages:
    """Anonymous memory handed out by address."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int, mmap.mmap] = {}

    def allocate(self, length: int) -> Optional[int]:
        """New zeroed memory of at least that length, or None when the system has none."""
        import mmap

        try:
            pages = mmap.mmap(-1, length)
        except (OSError, ValueError, OverflowError):
            return None
        address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        with self._lock:
            self._held[address] = pages
        return address

    def holds(self, address: int) -> bool:
        """Whether the address was handed out and not taken back."""
        with self._lock:
            return address in self._held

    def free(self, address: int) -> None:
        """Gives memory back to the system."""
        with self._lock:
            pages = self._held.pop(address)
        pages.close()
