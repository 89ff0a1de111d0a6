"""Host memory and patterns."""

import ctypes
import hashlib
import random


def pattern(length: int, seed: int) -> bytes:
    """Bytes that differ at every place and for every seed."""
    return random.Random(seed).randbytes(length)


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
