"""The part of torch that mooncake.store uses, on numpy, for machines without torch: tensors of the host."""

import types

import numpy


class Tensor:
    """An array with torch's names."""

    def __init__(self, array: numpy.ndarray) -> None:
        self.array = array
        self.dtype = array.dtype
        self.shape = array.shape

    def dim(self) -> int:
        return self.array.ndim

    def contiguous(self) -> "Tensor":
        return Tensor(numpy.ascontiguousarray(self.array).reshape(self.array.shape))

    def numel(self) -> int:
        return self.array.size

    def element_size(self) -> int:
        return self.array.itemsize

    def data_ptr(self) -> int:
        return self.array.ctypes.data

    def chunk(self, count: int, dimension: int) -> list["Tensor"]:
        length = -(-self.array.shape[dimension] // count)
        cuts = range(length, self.array.shape[dimension], length)
        return [Tensor(part) for part in numpy.split(self.array, list(cuts), dimension)]

    def view(self, dtype: numpy.dtype) -> "Tensor":
        return Tensor(self.array.view(dtype))

    def reshape(self, shape: tuple) -> "Tensor":
        return Tensor(self.array.reshape(shape))


def module() -> types.ModuleType:
    """A module to stand in sys.modules as torch."""
    made = types.ModuleType("torch")
    for name in ("float32", "float64", "int8", "uint8", "int16", "int32", "int64", "float16"):
        setattr(made, name, numpy.dtype(name))
    setattr(made, "bool", numpy.dtype("bool"))
    made.frombuffer = lambda value, dtype, count, offset: Tensor(numpy.frombuffer(value, dtype, count, offset))
    made.empty = lambda shape, dtype: Tensor(numpy.empty(shape, dtype))
    return made
