"""Failures: the record of the last one on this thread, and how it is kept and logged."""

from __future__ import annotations

import ctypes
import threading
import time

from . import _abi
from ._abi import Code, Stage, StoreCode

# Only for checkers of types: the module typing costs a quarter of this package's import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


class ErrorRecord:
    """Everything known about one failure; what is unknown is None.

    ``message`` is one sentence with the facts, ``text`` all fields in one line, as it is logged. ``negative`` is the
    same failure in the negative numbering of upstream's C interface. ``device`` is the id that
    ``torch.npu.set_device`` takes, ``range`` address and length in bytes of the memory it concerns, ``advice`` what to
    do. ``batch_id``, with ``Code.STILL_RUNNING``, is the batch that may still touch memory; see transfer_check_status.
    ``store_code`` is what a call of the store returned.
    """

    __slots__ = (
        "advice",
        "batch_id",
        "code",
        "device",
        "message",
        "negative",
        "peer",
        "range",
        "stage",
        "store_code",
        "text",
        "vendor_code",
        "vendor_function",
        "vendor_log",
        "vendor_text",
    )

    def __init__(
        self,
        code: Code,
        stage: Stage,
        message: str,
        text: str,
        *,
        negative: int = -1,
        peer: Optional[str] = None,
        device: Optional[int] = None,
        range: Optional[tuple[int, int]] = None,
        vendor_code: Optional[int] = None,
        vendor_function: Optional[str] = None,
        vendor_text: Optional[str] = None,
        vendor_log: Optional[str] = None,
        advice: Optional[str] = None,
        batch_id: Optional[int] = None,
        store_code: Optional[StoreCode] = None,
    ) -> None:
        self.code = code
        self.stage = stage
        self.message = message
        self.text = text
        self.negative = negative
        self.peer = peer
        self.device = device
        self.range = range
        self.vendor_code = vendor_code
        self.vendor_function = vendor_function
        self.vendor_text = vendor_text
        self.vendor_log = vendor_log
        self.advice = advice
        self.batch_id = batch_id
        self.store_code = store_code

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        known = (f"{name}={getattr(self, name)!r}" for name in self.__slots__ if getattr(self, name) is not None)
        return f"ErrorRecord({', '.join(known)})"


class _Last(threading.local):
    record: Optional[ErrorRecord] = None


_last = _Last()


def last_error() -> Optional[ErrorRecord]:
    """The record of the last failure on the calling thread, or None. Successful calls leave it alone."""
    return _last.record


def clear_error() -> None:
    """Forgets the calling thread's last failure."""
    _last.record = None


def keep(record: ErrorRecord, logger: str = "mooncake.engine") -> None:
    """Makes a record the thread's last one and logs it."""
    # Imported on the first failure: an import of the package should cost little.
    import logging

    _last.record = record
    logging.getLogger(logger).error("%s", record.text)


def refuse(message: str, *, stage: Stage = Stage.CONFIGURE, advice: Optional[str] = None) -> None:
    """Keeps a failure found on this side of the C interface."""
    text = f"{stage.name.lower()}: invalid-argument: {message}" + (f"; {advice}" if advice else "")
    keep(ErrorRecord(Code.INVALID_ARGUMENT, stage, message, text, advice=advice))


def _text(value: Optional[bytes]) -> Optional[str]:
    return None if value is None else value.decode("utf-8", "replace")


def fetch(library: ctypes.CDLL) -> Optional[ErrorRecord]:
    """The library's record of the calling thread's last failure."""
    error = _abi.mooncake_transfer_error()
    error.struct_size = ctypes.sizeof(error)
    if library.mooncake_transfer_last_error(ctypes.byref(error)) != 0:
        return None
    knows = error.known
    vendor = bool(knows & _abi.MOONCAKE_TRANSFER_KNOWS_VENDOR)
    message = _text(error.message) or ""
    return ErrorRecord(
        code=Code(error.code),
        stage=Stage(error.stage),
        message=message,
        text=_text(error.text) or message,
        negative=error.negative,
        peer=_text(error.peer),
        device=error.device if knows & _abi.MOONCAKE_TRANSFER_KNOWS_DEVICE else None,
        range=(
            (error.range_start, error.range_length_bytes)
            if knows & _abi.MOONCAKE_TRANSFER_KNOWS_RANGE
            else None
        ),
        vendor_code=error.vendor_code if vendor else None,
        vendor_function=_text(error.vendor_function),
        vendor_text=_text(error.vendor_text),
        vendor_log=_text(error.vendor_log),
        advice=_text(error.advice),
    )


def failed(library: ctypes.CDLL, batch_id: Optional[int] = None) -> Optional[ErrorRecord]:
    """Keeps and logs the failure that a call of the library has just returned."""
    record = fetch(library)
    if record is None:
        return None
    if batch_id is not None:
        record.batch_id = batch_id
    keep(record)
    return record


def refuse_store(message: str, code: StoreCode = StoreCode.INVALID_PARAMS, advice: Optional[str] = None) -> int:
    """Keeps a failure of the store found on this side of the C interface; the number to return."""
    text = f"store: {code.name} ({int(code)}): {message}" + (f"; {advice}" if advice else "")
    kind = Code.NOT_IMPLEMENTED if code == StoreCode.NOT_SUPPORTED else Code.INVALID_ARGUMENT
    record = ErrorRecord(kind, Stage.CONFIGURE, message, text, advice=advice, store_code=code)
    keep(record, "mooncake.store")
    return int(code)


# A failure of the store with the same code is logged once in this time, with the number of those in between.
_LOG_INTERVAL_S = 10.0
# When each code was logged, and how often it came since; as many entries as there are codes.
_logged: dict[int, tuple[float, int]] = {}


def store_failed(library: ctypes.CDLL, code: int) -> None:
    """Keeps the failure that a call of the store has just returned, and logs it; an absent key is no event."""
    record = fetch(library)
    if record is None:
        return
    try:
        record.store_code = StoreCode(code)
    except ValueError:
        pass
    _last.record = record
    if code == StoreCode.OBJECT_NOT_FOUND:
        return
    now = time.monotonic()
    at, between = _logged.get(code, (now - _LOG_INTERVAL_S, 0))
    if now - at < _LOG_INTERVAL_S:
        _logged[code] = (at, between + 1)
        return
    _logged[code] = (now, 0)
    if between:
        record.text += f" ({between} more with this code since the last such line)"
    keep(record, "mooncake.store")
