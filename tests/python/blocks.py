"""Host memory and patterns."""

import ctypes
import hashlib
import random


PAGE_BYTES = 4096
_BASE = random.Random(1).randbytes(16 * PAGE_BYTES)


def pattern(length: int, seed: int) -> bytes:
    """Bytes that differ between the pages of a block and between seeds, made quickly."""
    shift = seed * 7919 % len(_BASE)
    data = bytearray(((_BASE[shift:] + _BASE[:shift]) * (length // len(_BASE) + 1))[:length])
    pages = range(len(range(0, length, PAGE_BYTES)))
    data[0::PAGE_BYTES] = bytes(page % 256 for page in pages)
    if length > 1:
        data[1::PAGE_BYTES] = bytes(page // 256 % 256 for page in range(len(range(1, length, PAGE_BYTES))))
    if length > 2:
        data[2::PAGE_BYTES] = bytes([seed % 256]) * len(range(2, length, PAGE_BYTES))
    return bytes(data)


class HostBlock:
    """Memory of the host at a fixed address."""

    def __init__(self, length: int, seed: int = -1) -> None:
        self.length = length
        self.buffer = ctypes.create_string_buffer(pattern(length, seed) if seed >= 0 else length, length)
        self.address = ctypes.addressof(self.buffer)

    def digest(self) -> str:
        return hashlib.sha256(self.buffer.raw).hexdigest()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
