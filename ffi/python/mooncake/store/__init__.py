"""Place of upstream's ``mooncake.store``.

The pool's client is not part of this release. The package stands here all the same, so that a ``store.so`` left
by another distribution is not loaded into a process that uses this engine.
"""

raise ImportError("mooncake.store is not part of this release of mooncake-transfer; mooncake.engine is")
