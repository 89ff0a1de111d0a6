"""``BufferHandle``: the bytes of an object, in memory of their own."""

from __future__ import annotations

from .. import _views


class BufferHandle(bytearray):
    """What ``get_buffer`` gives: bytes with an address. It is a bytearray, so that every way to read bytes works."""

    __slots__ = ()

    def ptr(self) -> int:
        """Where the bytes begin."""
        return _views.address(self)

    def size(self) -> int:
        """How many there are."""
        return len(self)

    def __repr__(self) -> str:
        return f"<BufferHandle of {len(self)} bytes>"
