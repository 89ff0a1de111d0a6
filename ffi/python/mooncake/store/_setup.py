"""The arguments of ``setup``: upstream's two forms of it, made into C's struct."""

from __future__ import annotations

import ctypes

from .. import _abi, _lists, _sizes

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Optional

# What a dict may leave out, as upstream has it.
_DICT_DEFAULTS: dict[str, Any] = {
    "global_segment_size": 16 << 20,
    "local_buffer_size": 16 << 20,
    "protocol": "tcp",
    "rdma_devices": "",
    "master_server_addr": "127.0.0.1:50051",
    "ipc_socket_path": "",
    "enable_ssd_offload": False,
    "ssd_offload_path": "",
    "tenant_id": "default",
    "enable_client_http_server": False,
    "client_http_port": 9300,
}
_DICT_REQUIRED = ("local_hostname", "metadata_server")
_TRUE = frozenset(("1", "true", "yes", "on", "enable"))
_SMALLEST_SIZE = 1024


class Refused(Exception):
    """Arguments that cannot be used, with what to do about it."""

    def __init__(self, message: str, advice: Optional[str] = None, offered: bool = True) -> None:
        super().__init__(message)
        self.advice = advice
        self.offered = offered


def nearest(name: str, known: "tuple[str, ...] | list[str]") -> str:
    """A hint at the name that was meant, or nothing."""
    import difflib

    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _switch(value: Any) -> bool:
    return value.strip().lower() in _TRUE if isinstance(value, str) else bool(value)


def from_dict(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a dict, whose values may be texts. Refused for what is missing or no size."""
    missing = [name for name in _DICT_REQUIRED if not config.get(name)]
    if missing:
        raise Refused(f"the dict has no {' and no '.join(missing)}")
    known = (*_DICT_REQUIRED, *_DICT_DEFAULTS)
    unknown = [f"{name}{nearest(str(name), known)}" for name in config if name not in known]
    if unknown:
        import logging

        logging.getLogger("mooncake.store").warning("setup does not know %s", ", ".join(unknown))
    settings = dict(_DICT_DEFAULTS)
    settings.update((name, value) for name, value in config.items() if name in known)
    for name in ("global_segment_size", "local_buffer_size"):
        settings[name] = size(settings[name], name)
        if 0 < settings[name] < _SMALLEST_SIZE:
            raise Refused(f"{name} is {settings[name]} bytes", f"0, or at least {_SMALLEST_SIZE}")
    for name in ("local_hostname", "metadata_server", "protocol", "rdma_devices", "master_server_addr", "tenant_id"):
        settings[name] = str(settings[name])
    settings["engine"] = None
    if settings.pop("ipc_socket_path"):
        raise Refused("ipc_socket_path: a client without memory of its own is not offered", offered=False)
    return settings


def size(value: Any, name: str) -> int:
    """A size in bytes; Refused for a text that is none, TypeError for other things."""
    if isinstance(value, float):
        raise TypeError(f"{name}: a size in bytes is needed, not float")
    try:
        return _sizes.parse(value, name)
    except ValueError as error:
        if not isinstance(value, str):
            raise TypeError(str(error)) from None
        raise Refused(str(error)) from None


def engine_handle(engine: Any) -> Optional[int]:
    """The C handle of what ``get_engine`` gave; an engine itself is taken, too."""
    if engine is None:
        return None
    from ..engine import InnerTransferEngine, TransferEngine

    if isinstance(engine, TransferEngine):
        engine = engine.get_engine()
    if isinstance(engine, InnerTransferEngine):
        return engine.handle
    kind = f"{type(engine).__module__}.{type(engine).__qualname__}"
    raise TypeError(f"engine: the value of TransferEngine.get_engine() of this package is needed, not {kind}")


def to_c(settings: Mapping[str, Any]) -> _abi.mooncake_transfer_store_options:
    """The settings in C's form. Refused for what is not offered."""
    if _switch(settings["enable_ssd_offload"]):
        raise Refused("enable_ssd_offload: a copy on a disk is not offered", "leave it out", offered=False)
    _lists.text(str(settings["ssd_offload_path"]), "ssd_offload_path")
    if _switch(settings["enable_client_http_server"]):
        import logging

        logging.getLogger("mooncake.store").warning(
            "enable_client_http_server: the client has no HTTP server; its counters are in the engine's"
        )
    options = _abi.mooncake_transfer_store_options()
    options.struct_size = ctypes.sizeof(options)
    options.local_hostname = _lists.text(settings["local_hostname"], "local_hostname")
    options.metadata_server = _lists.text(settings["metadata_server"], "metadata_server")
    options.protocol = _lists.text(settings["protocol"], "protocol")
    options.device_names = _lists.text(settings["rdma_devices"], "rdma_devices")
    options.master_address = _lists.text(settings["master_server_addr"], "master_server_addr")
    options.tenant = _lists.text(settings["tenant_id"], "tenant_id")
    options.global_segment_size_bytes = size(settings["global_segment_size"], "global_segment_size")
    options.local_buffer_size_bytes = size(settings["local_buffer_size"], "local_buffer_size")
    options.engine = engine_handle(settings["engine"])
    return options
