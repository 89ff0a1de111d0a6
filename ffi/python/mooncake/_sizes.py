"""Sizes in bytes as people write them: ``30000000000``, ``"16MB"``, ``"1.5 gb"``. Units are powers of 1024."""

from __future__ import annotations

import math
import re

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNITS = {"": 0, "b": 0, "k": 1, "kb": 1, "kib": 1, "m": 2, "mb": 2, "mib": 2, "g": 3, "gb": 3, "gib": 3}
_UNITS.update({"t": 4, "tb": 4, "tib": 4})
_WRITTEN = re.compile(r"\s*((?:\d+(?:\.\d*)?|\.\d+)(?:e\+?\d{1,2})?)\s*([a-z]*)\s*", re.IGNORECASE)
_LARGEST = 2**63 - 1


def parse(value: Any, name: str) -> int:
    """The size in bytes. ValueError, naming the argument, for what is no size; TypeError for what is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        number = getattr(value, "__index__", None)
        if number is None or isinstance(value, bool):
            raise TypeError(f"{name}: a size in bytes is needed, not {type(value).__name__}")
        value = number()
    if isinstance(value, str):
        match = _WRITTEN.fullmatch(value)
        unit = None if match is None else _UNITS.get(match.group(2).lower())
        if match is None or unit is None:
            raise ValueError(f'{name}: "{value}" is no size; write bytes, or a number with KB, MB, GB or TB')
        digits = match.group(1)
        # Whole numbers stay exact, however large.
        value = int(digits) * 1024**unit if digits.isdigit() else float(digits) * 1024.0**unit
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{name}: {value} is no size")
        value = int(value)
    if not 0 <= value <= _LARGEST:
        raise ValueError(f"{name}: {value} is no size")
    return int(value)


def text(size: int) -> str:
    """A size as people read it."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:.1f} {unit}"
    return f"{size} bytes"
