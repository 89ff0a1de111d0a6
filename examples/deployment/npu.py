"""The KV cache of a node in the memory of an NPU: the few calls of the vendor's runtime that torch_npu makes for it."""

from __future__ import annotations

import ctypes
import os
import random

import model

_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2


def _open() -> ctypes.CDLL:
    """The runtime: the one that MOONCAKE_TRANSFER_CANN_PATH names, else the loader's."""
    directory = os.environ.get("MOONCAKE_TRANSFER_CANN_PATH")
    name = "libascendcl.so"
    library = ctypes.CDLL(os.path.join(directory, name) if directory else name, mode=ctypes.RTLD_GLOBAL)
    library.aclrtMalloc.argtypes = (ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_int)
    library.aclrtMemcpy.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
    )
    return library


def _check(call: str, code: int) -> None:
    if code != 0:
        raise RuntimeError(f"{call} returned {code}")


class Cache:
    """One tensor for K and one for V of each layer, cut into blocks that are handed out in no order."""

    def __init__(self, blocks: int) -> None:
        self._library = _open()
        _check("aclInit", self._library.aclInit(None))
        _check("aclrtSetDevice", self._library.aclrtSetDevice(0))
        self.tensor_bytes = blocks * model.BLOCK_BYTES
        self.tensors = [self._allocate(self.tensor_bytes) for _ in range(model.TENSORS)]
        self._free = list(range(blocks))
        random.shuffle(self._free)

    def _allocate(self, length: int) -> int:
        address = ctypes.c_void_p()
        _check("aclrtMalloc", self._library.aclrtMalloc(ctypes.byref(address), length, 0))
        return address.value or 0

    def bind(self) -> None:
        """Binds the calling thread to the node's NPU, as every thread of a framework does that touches it."""
        _check("aclrtSetDevice", self._library.aclrtSetDevice(0))

    def take(self, count: int) -> list[int]:
        """Blocks for a request."""
        if count > len(self._free):
            raise RuntimeError(f"the cache has {len(self._free)} free blocks, the request needs {count}")
        taken, self._free = self._free[:count], self._free[count:]
        return taken

    def give_back(self, blocks: list[int]) -> None:
        """Ends a request. What its blocks held is overwritten, so that nothing stale is taken for a transfer."""
        for block in blocks:
            for address in self.addresses(block):
                self._library.aclrtMemset(ctypes.c_void_p(address), ctypes.c_size_t(64), 0xA5, ctypes.c_size_t(64))
        self._free += blocks
        random.shuffle(self._free)

    def addresses(self, block: int) -> list[int]:
        """Where the block lies in each tensor."""
        return [tensor + block * model.BLOCK_BYTES for tensor in self.tensors]

    def compute(self, block: int, block_hash: str) -> None:
        """Fills a block as the model would."""
        for address, part in zip(self.addresses(block), model.contents(block_hash)):
            _check("aclrtMemcpy", self._library.aclrtMemcpy(address, len(part), part, len(part), _HOST_TO_DEVICE))

    def read(self, block: int) -> list[bytes]:
        """The block of each tensor."""
        buffer = ctypes.create_string_buffer(model.BLOCK_BYTES)
        parts = []
        for address in self.addresses(block):
            code = self._library.aclrtMemcpy(buffer, len(buffer), address, len(buffer), _DEVICE_TO_HOST)
            _check("aclrtMemcpy", code)
            parts.append(buffer.raw)
        return parts

    def mismatches(self, block: int, block_hash: str) -> int:
        """In how many tensors the block is not what the model would have computed."""
        return sum(part != right for part, right in zip(self.read(block), model.contents(block_hash)))
