"""Memory of Python objects by address: that of any object with a buffer, and bytes that are made to be filled.

Nothing is copied; the object cannot move or shrink while a view of it is held.
"""

from __future__ import annotations

import ctypes

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional


class _Buffer(ctypes.Structure):
    """``Py_buffer`` of the interpreter's stable interface."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_SIMPLE = 0

_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_Buffer),)
_release_buffer.restype = None
_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t)
_new_bytes.restype = ctypes.py_object
_bytes_address = ctypes.pythonapi.PyBytes_AsString
_bytes_address.argtypes = (ctypes.py_object,)
_bytes_address.restype = ctypes.c_void_p


class View:
    """The bytes of an object, held in place until ``release`` or the end of this view.

    What is not contiguous (every second element of an array, say) is copied first. TypeError for an object
    without a buffer.
    """

    __slots__ = ("_buffer", "_held", "address", "length")

    def __init__(self, value: Any, name: str) -> None:
        self._held = False
        self._buffer = _Buffer()
        if isinstance(value, str):
            raise TypeError(f"{name}: bytes or an object with a buffer is needed, not str")
        try:
            _get_buffer(value, ctypes.byref(self._buffer), _SIMPLE)
        except BufferError:
            _get_buffer(memoryview(value).tobytes(), ctypes.byref(self._buffer), _SIMPLE)
        except TypeError:
            kind = type(value).__name__
            raise TypeError(f"{name}: bytes or an object with a buffer is needed, not {kind}") from None
        self._held = True
        self.address: int = self._buffer.buf or 0
        """Where the bytes begin."""
        self.length: int = self._buffer.len
        """How many there are, whatever the size of an element is."""

    def release(self) -> None:
        """Lets the object go; a second call does nothing."""
        if self._held:
            self._held = False
            _release_buffer(ctypes.byref(self._buffer))

    def __del__(self) -> None:
        self.release()


def address(value: bytearray) -> int:
    """Where the bytes of a bytearray begin, until its length changes."""
    view = View(value, "value")
    try:
        return view.address
    finally:
        view.release()


def new_bytes(length: int) -> "tuple[bytes, int]":
    """Bytes that nobody else knows yet, with their address: for one writer, before they are handed on."""
    fresh: Optional[bytes] = _new_bytes(None, length)
    assert fresh is not None
    return fresh, _bytes_address(fresh) or 0
