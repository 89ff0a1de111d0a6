"""Console scripts: each becomes the program of its name that lies in the package; needs no LD_LIBRARY_PATH."""

from __future__ import annotations

import os
import sys


def _become(name: str, *first: str) -> int:
    from ._library import program

    try:
        path = str(program(name))
    except (FileNotFoundError, ImportError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    os.execv(path, [name, *first, *sys.argv[1:]])


def mooncake() -> int:
    """The ``mooncake`` command, after a look at the installation itself."""
    from ._library import foreign_files

    for path in foreign_files():
        print(f"mooncake: {path} belongs to another distribution and is not used", file=sys.stderr)
    return _become("mooncake")


def transfer_engine_bench() -> int:
    """The benchmark."""
    return _become("transfer_engine_bench")


def mooncake_master() -> int:
    """The metadata service of the pool."""
    return _become("mooncake_master")


def mooncake_client() -> int:
    """A process that lends memory to the pool."""
    from .mooncake_client import main

    return main()


def mc_store_rest_server() -> int:
    """The pool behind HTTP."""
    from .mooncake_store_service import main

    return main()


def mooncake_http_metadata_server() -> int:
    """Upstream's name of ``mooncake metadata-server``."""
    return _become("mooncake", "metadata-server")


def transfer_engine_topology_dump() -> int:
    """Upstream's name of a look at this machine's topology."""
    from .engine import TransferEngine

    text = TransferEngine().get_local_topology()
    print(text)
    return 0 if text else 1
