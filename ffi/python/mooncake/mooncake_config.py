"""``MooncakeConfig``: how a process joins the pool, from ``mooncake.json`` or from ``MOONCAKE_*`` variables.

The file is the one that MOONCAKE_CONFIG_PATH names. Without it, MOONCAKE_MASTER is needed and the others have
defaults. Sizes are bytes, or numbers with KB, MB, GB or TB (powers of 1024). A key of the file that nobody reads is
reported, with the one that was probably meant; keys of the programs that share the file (vLLM-Ascend, vLLM, SGLang)
are theirs.
"""

from __future__ import annotations

import json
import os

from . import _sizes

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Optional

DEFAULT_GLOBAL_SEGMENT_SIZE = 3355443200
DEFAULT_LOCAL_BUFFER_SIZE = 1073741824
DEFAULT_CLIENT_HTTP_PORT = 9300

_PROTOCOLS = frozenset(("tcp", "rdma", "ascend", "ubshmem", "cxl", "efa", "nvlink", "rpc_only"))
_TRUE = frozenset(("1", "true", "yes", "on", "enable", "enabled"))
_FALSE = frozenset(("0", "false", "no", "off", "disable", "disabled", ""))
_REQUIRED = ("local_hostname", "metadata_server", "master_server_address")
_KNOWN = (
    *_REQUIRED,
    "global_segment_size",
    "local_buffer_size",
    "protocol",
    "device_name",
    "enable_ssd_offload",
    "ssd_offload_path",
    "tenant_id",
    "enable_client_http_server",
    "client_http_port",
)
# Read by other programs from the same file.
_THEIRS = frozenset(
    (
        "use_ascend_direct",
        "alloc_in_same_node",
        "preferred_segment",
        "prefer_alloc_in_same_node",
        "transfer_timeout",
        "storage_root_dir",
        "master_metrics_port",
        "check_server",
        "standalone_storage",
        "client_server_address",
        "extra_backend_tag",
        "kv_role",
        "mode",
    )
)
_VARIABLES = {
    "local_hostname": ("MOONCAKE_LOCAL_HOSTNAME", "localhost"),
    "metadata_server": ("MOONCAKE_TE_META_DATA_SERVER", "P2PHANDSHAKE"),
    "master_server_address": ("MOONCAKE_MASTER", None),
    "global_segment_size": ("MOONCAKE_GLOBAL_SEGMENT_SIZE", DEFAULT_GLOBAL_SEGMENT_SIZE),
    "local_buffer_size": ("MOONCAKE_LOCAL_BUFFER_SIZE", DEFAULT_LOCAL_BUFFER_SIZE),
    "protocol": ("MOONCAKE_PROTOCOL", "tcp"),
    "device_name": ("MOONCAKE_DEVICE", ""),
    "enable_ssd_offload": ("MOONCAKE_OFFLOAD_ENABLED", False),
    "ssd_offload_path": ("MOONCAKE_OFFLOAD_FILE_STORAGE_PATH", ""),
    "tenant_id": ("MOONCAKE_TENANT_ID", "default"),
    "enable_client_http_server": ("MOONCAKE_ENABLE_CLIENT_HTTP_SERVER", False),
    "client_http_port": ("MOONCAKE_CLIENT_HTTP_PORT", DEFAULT_CLIENT_HTTP_PORT),
}


def _parse_segment_size(value: Any) -> int:
    """A size by upstream's name of this function."""
    return _sizes.parse(value, "global_segment_size")


def _switch(value: Any, name: str) -> bool:
    if not isinstance(value, str):
        return bool(value)
    word = value.strip().lower()
    if word not in _TRUE and word not in _FALSE:
        raise ValueError(f'{name}: "{value}" is neither true nor false')
    return word in _TRUE


def _warn(message: str) -> None:
    import logging

    logging.getLogger("mooncake.store").warning("%s", message)


class MooncakeConfig:
    """The settings of one process. Its attributes are the keys of the file."""

    def __init__(
        self,
        local_hostname: str,
        metadata_server: str,
        global_segment_size: Any = DEFAULT_GLOBAL_SEGMENT_SIZE,
        local_buffer_size: Any = DEFAULT_LOCAL_BUFFER_SIZE,
        protocol: str = "tcp",
        device_name: Optional[str] = "",
        master_server_address: str = "",
        enable_ssd_offload: Any = False,
        ssd_offload_path: str = "",
        tenant_id: str = "default",
        enable_client_http_server: Any = False,
        client_http_port: Any = DEFAULT_CLIENT_HTTP_PORT,
    ) -> None:
        """ValueError for what is no size and no port, and for an empty name."""
        self.local_hostname = str(local_hostname)
        self.metadata_server = str(metadata_server)
        self.master_server_address = str(master_server_address)
        for name in _REQUIRED:
            if not getattr(self, name):
                raise ValueError(f"Missing required config field: {name}")
        self.global_segment_size = _sizes.parse(global_segment_size, "global_segment_size")
        self.local_buffer_size = _sizes.parse(local_buffer_size, "local_buffer_size")
        self.protocol = str(protocol).strip().lower()
        if self.protocol not in _PROTOCOLS:
            _warn(f'protocol "{self.protocol}" is not known')
        self.device_name = device_name or ""
        self.enable_ssd_offload = _switch(enable_ssd_offload, "enable_ssd_offload")
        self.ssd_offload_path = str(ssd_offload_path)
        self.tenant_id = str(tenant_id) or "default"
        self.enable_client_http_server = _switch(enable_client_http_server, "enable_client_http_server")
        self.client_http_port = int(client_http_port)
        if not 0 < self.client_http_port < 65536:
            raise ValueError(f"client_http_port: {client_http_port} is no port")

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], source: str = "the settings") -> "MooncakeConfig":
        """From the keys of a file. ValueError for what is missing or no size."""
        import difflib

        for name in settings:
            if name not in _KNOWN and name not in _THEIRS:
                close = difflib.get_close_matches(str(name), _KNOWN, 1)
                _warn(f'{source}: "{name}" is not read' + (f"; did you mean {close[0]}?" if close else ""))
        missing = [name for name in _REQUIRED if not settings.get(name)]
        if missing:
            raise ValueError(f"{source}: Missing required config field: {', '.join(missing)}")
        # null stands for the default.
        return cls(**{name: settings[name] for name in _KNOWN if settings.get(name) is not None})

    @staticmethod
    def from_file(file_path: str) -> "MooncakeConfig":
        """From a JSON file. ValueError, naming the file, for what is no object, misses a key or has no size where
        one belongs; OSError when it cannot be read."""
        with open(file_path, encoding="utf-8") as file:
            try:
                settings = json.load(file)
            except json.JSONDecodeError as error:
                raise ValueError(f"{file_path}: {error}") from None
        if not isinstance(settings, dict):
            raise ValueError(f"{file_path}: an object is needed, not a {type(settings).__name__}")
        try:
            return MooncakeConfig.from_dict(settings, file_path)
        except ValueError as error:
            text = str(error)
            raise ValueError(text if text.startswith(file_path) else f"{file_path}: {text}") from None

    @staticmethod
    def load_from_env() -> "MooncakeConfig":
        """From the file that MOONCAKE_CONFIG_PATH names, else from the variables. ValueError when neither that nor
        MOONCAKE_MASTER is set."""
        path = os.getenv("MOONCAKE_CONFIG_PATH")
        if path:
            return MooncakeConfig.from_file(path)
        if not os.getenv("MOONCAKE_MASTER"):
            # Programs look for this text.
            raise ValueError(
                "Neither the environment variable 'MOONCAKE_CONFIG_PATH' nor 'MOONCAKE_MASTER' is set."
                " The first names a mooncake.json, the second is the master's host:port"
            )
        settings: dict[str, Any] = {name: os.getenv(*variable) for name, variable in _VARIABLES.items()}
        return MooncakeConfig(**settings)

    def setup_arguments(self, local_hostname: Optional[str] = None) -> dict[str, Any]:
        """The keyword arguments of ``MooncakeDistributedStore.setup``; another host name for this process if given."""
        return {
            "local_hostname": local_hostname or self.local_hostname,
            "metadata_server": self.metadata_server,
            "global_segment_size": self.global_segment_size,
            "local_buffer_size": self.local_buffer_size,
            "protocol": self.protocol,
            "rdma_devices": self.device_name,
            "master_server_addr": self.master_server_address,
            "enable_ssd_offload": self.enable_ssd_offload,
            "ssd_offload_path": self.ssd_offload_path,
            "tenant_id": self.tenant_id,
            "enable_client_http_server": self.enable_client_http_server,
            "client_http_port": self.client_http_port,
        }
