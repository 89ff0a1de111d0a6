"""Lists of addresses and lengths as flat arrays, converted at C speed.

A list or tuple of integers (Python's or numpy's) and anything with a one-dimensional buffer of 64-bit integers is
taken. What cannot be an address (a negative number, a fraction, a text) is a TypeError that names the argument.
"""

from __future__ import annotations

from array import array

# Only for checkers of types: the module typing costs a quarter of this package's import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Union

    Integers = Union[Sequence[int], "array[int]", Any]

_UNSIGNED = frozenset(("Q", "L", "N"))
_SIGNED = frozenset(("q", "l", "n"))


def integers(values: Integers, name: str) -> "array[int]":
    """The values as an array of unsigned 64-bit integers; a copy in every case."""
    if not isinstance(values, (list, tuple)):
        if isinstance(values, (str, bytes, bytearray)):
            raise TypeError(f"{name}: a list of integers is needed, not {type(values).__name__}")
        from_buffer = _from_buffer(values, name)
        if from_buffer is not None:
            return from_buffer
        if not (hasattr(values, "__len__") and hasattr(values, "__getitem__")):
            raise TypeError(f"{name}: a list of integers is needed, not {type(values).__name__}")
        values = list(values)
    try:
        return array("Q", values)
    except OverflowError as error:
        raise TypeError(f"{name}: {error}") from None
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None


def _from_buffer(values: Any, name: str) -> "Union[array[int], None]":
    try:
        view = memoryview(values)
    except (TypeError, ValueError):
        return None
    if view.ndim != 1 or view.itemsize != 8 or not view.contiguous:
        return None
    if view.format in _UNSIGNED:
        copy = array("Q")
        copy.frombytes(view.cast("B"))
        return copy
    if view.format in _SIGNED:
        if view.nbytes and min(view) < 0:
            raise TypeError(f"{name}: a negative number is no address and no length")
        copy = array("Q")
        copy.frombytes(view.cast("B"))
        return copy
    return None


def integer(value: Any, name: str) -> int:
    """One address or length."""
    if type(value) is int and 0 <= value < 1 << 64:
        return value
    try:
        number = value.__index__()
    except AttributeError:
        raise TypeError(f"{name}: an integer is needed, not {type(value).__name__}") from None
    if not 0 <= number < 1 << 64:
        raise TypeError(f"{name}: {number} is not an unsigned 64-bit integer")
    return int(number)


def text(value: Any, name: str) -> bytes:
    """A text for the C interface."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: a str is needed, not {type(value).__name__}")
    encoded = value.encode()
    if b"\0" in encoded:
        raise TypeError(f"{name}: a NUL inside")
    return encoded
