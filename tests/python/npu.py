"""The few vendor calls that a framework makes, on the library that MOONCAKE_TRANSFER_CANN_PATH names."""

import ctypes
import os

HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2
HUGE_PAGE_BYTES = 2 << 20


class Npu:
    """The vendor's runtime, started on no device yet."""

    def __init__(self) -> None:
        path = os.path.join(os.environ["MOONCAKE_TRANSFER_CANN_PATH"], "libascendcl.so")
        self.library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        self.library.aclrtMalloc.argtypes = (ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_int)
        self.library.aclrtMemcpy.argtypes = (
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
        )
        self.library.aclrtFree.argtypes = (ctypes.c_void_p,)
        self.check("aclInit", self.library.aclInit(None))

    @staticmethod
    def check(call: str, code: int) -> None:
        if code != 0:
            raise RuntimeError(f"{call}: {code}")

    def set_device(self, device: int) -> None:
        """Binds the calling thread."""
        self.check("aclrtSetDevice", self.library.aclrtSetDevice(device))

    def current_device(self) -> int:
        """The calling thread's device, or -1."""
        device = ctypes.c_int32()
        return device.value if self.library.aclrtGetDevice(ctypes.byref(device)) == 0 else -1

    def allocate(self, length: int) -> int:
        """Device memory in whole huge pages, on the calling thread's device."""
        rounded = -(-length // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
        address = ctypes.c_void_p()
        self.check("aclrtMalloc", self.library.aclrtMalloc(ctypes.byref(address), rounded, 0))
        return address.value or 0

    def write(self, address: int, data: bytes) -> None:
        self.check("aclrtMemcpy", self.library.aclrtMemcpy(address, len(data), data, len(data), HOST_TO_DEVICE))

    def read(self, address: int, length: int) -> bytes:
        data = ctypes.create_string_buffer(length)
        self.check("aclrtMemcpy", self.library.aclrtMemcpy(data, length, address, length, DEVICE_TO_HOST))
        return data.raw
