"""Finds and loads libmooncake_transfer.so, once, on first use.

Order: the wheel's own copy beside this file; in a source tree, the release build of the target directory; then what
the loader finds (LD_LIBRARY_PATH). A library of another version is refused wherever it was found.
"""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
from pathlib import Path
from typing import Optional

from . import _abi

NAME = "libmooncake_transfer.so"
PACKAGE = Path(__file__).resolve().parent

_lock = threading.Lock()
_library: Optional[ctypes.CDLL] = None


def source_tree() -> Optional[Path]:
    """The root of the source tree that this package lies in, or None in an installation."""
    if len(PACKAGE.parents) < 3:
        return None
    root = PACKAGE.parents[2]
    return root if (root / "include" / "mooncake_transfer.h").is_file() else None


def directories() -> list[Path]:
    """Where the library, and beside it the software NPU and the programs, may lie; the first one wins."""
    found = [PACKAGE / "lib"]
    tree = source_tree()
    if tree is not None:
        found.append(Path(os.environ.get("CARGO_TARGET_DIR", tree / "target")) / "release")
    return found


def directory() -> Path:
    """The directory that has the library."""
    tried = directories()
    for candidate in tried:
        if (candidate / NAME).is_file():
            return candidate
    places = ", ".join(str(place) for place in tried)
    raise ImportError(f"{NAME} is in none of: {places}; install the wheel again, or run `make build` in the tree")


def program(name: str) -> Path:
    """A program that was built or installed with the library."""
    found = directory()
    place = PACKAGE / "bin" / name if found == PACKAGE / "lib" else found / name
    if not place.is_file():
        raise FileNotFoundError(f"{name} is not part of this installation ({place})")
    return place


def foreign_files() -> list[Path]:
    """Files in the package's folder that another distribution named mooncake has left there."""
    names = [path for path in PACKAGE.glob("*.so*") if path.is_file()]
    return sorted(names)


def load() -> ctypes.CDLL:
    """The library with all its types; the first call loads it.

    Every call through it releases the interpreter lock.
    """
    global _library
    if _library is None:
        with _lock:
            if _library is None:
                _library = _open()
    return _library


def _nowhere() -> bool:
    return not any((candidate / NAME).is_file() for candidate in directories())


def _from_loader_path() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(NAME)
    except OSError as error:
        try:
            directory()
        except ImportError as places:
            raise ImportError(f"{places}; nor does the loader find it ({error})") from None
        raise


def _open() -> ctypes.CDLL:
    library = _from_loader_path() if _nowhere() else ctypes.CDLL(str(directory() / NAME))
    _abi.declare(library)
    # Not the package's own __version__: another distribution's __init__.py may have taken its place.
    version, wanted = library.mooncake_transfer_version().decode(), _abi.MOONCAKE_TRANSFER_VERSION
    if version != wanted:
        raise ImportError(f"{NAME} is version {version}, this package is {wanted}: the installation is mixed")
    left_over = foreign_files()
    if left_over:
        listed = ", ".join(path.name for path in left_over)
        warnings.warn(
            f"{PACKAGE} has files of another distribution ({listed}); this package does not use them. "
            "Uninstall that distribution, then install this one again",
            RuntimeWarning,
            stacklevel=4,
        )
    from . import _log

    _log.attach(library)
    return library
