"""Moves KV caches between Ascend NPUs: Mooncake's Python interface over libmooncake_transfer.so.

Importing this package loads, opens and starts nothing; the library is loaded by the first engine or store.
``mooncake.engine`` and ``mooncake.store`` have upstream's names.
"""

from ._abi import MOONCAKE_TRANSFER_VERSION as __version__

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from .store import BufferPool

__all__ = ["BufferPool", "__version__"]


def __getattr__(name: str) -> object:
    # Upstream's package has this name; the store is imported by the first who asks for it.
    if name == "BufferPool":
        from .store import BufferPool

        return BufferPool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
