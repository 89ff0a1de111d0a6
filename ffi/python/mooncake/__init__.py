"""Moves KV caches between Ascend NPUs: Mooncake's Python interface over libmooncake_transfer.so.

Importing this package loads, opens and starts nothing; the library is loaded by the first engine.
``mooncake.engine`` has upstream's names.
"""

__version__ = "0.1.0"
