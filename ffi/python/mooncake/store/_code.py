"""Outcomes of the pool, in upstream's numbers. Each has its sentence as ``__doc__``."""

from __future__ import annotations


from .._abi import STORE_CODE_SENTENCES, StoreCode

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

for _code in StoreCode:
    _code.__doc__ = STORE_CODE_SENTENCES[_code]


def describe(code: Union[int, StoreCode]) -> str:
    """Name and sentence of a code, also of one that this release does not know."""
    if code > 0:
        return f"{int(code)}: success"
    try:
        known = StoreCode(code)
    except ValueError:
        return f"{int(code)}: no code of this release"
    return f"{known.name} ({int(known)}): {known.__doc__}"


__all__ = ["StoreCode", "describe"]
