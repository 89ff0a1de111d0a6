"""Moves KV caches between Ascend NPUs: Mooncake's Python interface over libmooncake_transfer.so.

Importing this package loads, opens and starts nothing; the library is loaded by the first engine.
``mooncake.engine`` has upstream's names.
"""

from ._abi import MOONCAKE_TRANSFER_VERSION as __version__

__all__ = ["__version__"]
