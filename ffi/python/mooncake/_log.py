"""The library's log as records of Python's ``logging``, under the logger ``mooncake``.

The level is MC_LOG_LEVEL if that is set, else what the logger ``mooncake`` lets through when the library is
loaded. At interpreter exit the library's log goes back to standard error first, so that no thread of the library
enters an interpreter that is going away.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
from typing import Optional

from . import _abi
from ._abi import LogLevel

LOGGER = logging.getLogger("mooncake")

_PYTHON_LEVELS = {
    LogLevel.ERROR: logging.ERROR,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.INFO: logging.INFO,
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.TRACE: logging.DEBUG - 5,
}


def _receive(_user: Optional[int], level: int, module: bytes, message: bytes) -> None:
    # An exception here would only be printed by ctypes; logging's own handlers report theirs.
    LOGGER.log(
        _PYTHON_LEVELS.get(LogLevel(level), logging.ERROR),
        "%s: %s",
        module.decode("utf-8", "replace"),
        message.decode("utf-8", "replace"),
    )


# Kept for the life of the process: the library holds its address.
_SINK = _abi.mooncake_transfer_log_sink_t(_receive)


def _level() -> int:
    named = os.environ.get("MC_LOG_LEVEL", "").strip().upper()
    if named in LogLevel.__members__:
        return int(LogLevel[named])
    for ours in (LogLevel.TRACE, LogLevel.DEBUG, LogLevel.INFO, LogLevel.WARNING, LogLevel.ERROR):
        if LOGGER.isEnabledFor(_PYTHON_LEVELS[ours]):
            return int(ours)
    return int(LogLevel.OFF)


def attach(library: ctypes.CDLL) -> None:
    """Sends the library's log to Python from now until the interpreter exits."""
    level = _level()
    library.mooncake_transfer_set_log(_SINK, None, level)

    def detach() -> None:
        library.mooncake_transfer_set_log(_abi.mooncake_transfer_log_sink_t(), None, level)

    atexit.register(detach)
