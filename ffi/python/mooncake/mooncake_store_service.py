"""``mc_store_rest_server``: a client of the pool behind HTTP, with upstream's paths and answers.

PUT /api/put with {"key": ..., "value": text}, GET /api/get/KEY, GET /api/exist/KEY, DELETE /api/remove/KEY and
DELETE /api/remove_all; KEY is percent-encoded. Paths that mount and unmount memory after the start are answered with 501.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from .mooncake_client import wait, watch_signals
from .mooncake_config import MooncakeConfig
from .store import MooncakeDistributedStore, describe

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Optional, Union

    Answer = tuple[int, Union[bytes, dict[str, Any]]]

MAX_BODY_BYTES = 100 << 20
_RETRY_S = 1.0
_UNOFFERED = ("mount", "unmount", "mount_shm", "unmount_shm", "unmount_local_disk", "reconfigure")


class MooncakeStoreService:
    """A store, its settings, and the answers to requests."""

    def __init__(self, config_path: Optional[str] = None, cli_config: Optional[Mapping[str, str]] = None) -> None:
        """ValueError and OSError as ``MooncakeConfig``; a key of ``cli_config`` wins over the file."""
        config = MooncakeConfig.from_file(config_path) if config_path else MooncakeConfig.load_from_env()
        settings = {**vars(config), **(cli_config or {})}
        self.config = MooncakeConfig.from_dict(settings, "the settings")
        self.store = MooncakeDistributedStore()

    def start(self, max_wait_s: float, ended: threading.Event) -> bool:
        """Joins the pool, trying again until the time is over or the event is set."""
        end = time.monotonic() + max_wait_s
        while True:
            code = self.store.setup(**self.config.setup_arguments())
            if code == 0:
                return True
            if time.monotonic() + _RETRY_S >= end:
                logging.error("the pool cannot be joined within %s s: %s", max_wait_s, describe(code))
                return False
            if ended.wait(_RETRY_S):
                return False

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Status and body, bytes or JSON."""
        area, _, rest = path.partition("?")[0].removeprefix("/api/").partition("/")
        key = unquote(rest)
        if not path.startswith("/api/"):
            return 404, {"error": f"no {path} here"}
        if (method, area) == ("PUT", "put"):
            return self._put(body)
        if (method, area) == ("DELETE", "remove_all"):
            removed = self.store.remove_all()
            return _outcome(removed, "RemoveAll operation failed", f"success removed {removed} keys")
        if method == "POST" and area in _UNOFFERED:
            return 501, {"error": f"{area} is not offered"}
        if not key:
            return 404, {"error": f"no {method} {path} here"}
        if (method, area) == ("GET", "get"):
            return self._get(key)
        if (method, area) == ("GET", "exist"):
            there = self.store.is_exist(key)
            return (500, {"error": "Exist check failed"}) if there < 0 else (200, {"exists": there > 0})
        if (method, area) == ("DELETE", "remove"):
            return _outcome(self.store.remove(key), "Remove operation failed", "success")
        return 404, {"error": f"no {method} {path} here"}

    def _put(self, body: bytes) -> Answer:
        try:
            data = json.loads(body)
        except ValueError as error:
            return 400, {"error": f"no JSON: {error}"}
        key, value = (data.get("key"), data.get("value")) if isinstance(data, dict) else (None, None)
        if not isinstance(key, str) or not isinstance(value, str) or not key:
            return 400, {"error": "Missing key or value"}
        return _outcome(self.store.put(key, value.encode()), "PUT operation failed", "success")

    def _get(self, key: str) -> Answer:
        there = self.store.is_exist(key)
        if there < 0:
            return 500, {"error": "Exist check failed"}
        value = self.store.get(key) if there else b""
        # A value has at least one byte.
        return (200, value) if value else (404, {"error": "Key not found"})


def _outcome(code: int, failed: str, done: str) -> Answer:
    return (500, {"error": failed, "reason": describe(code)}) if code < 0 else (200, {"status": done})


def serve(service: MooncakeStoreService, host: str, port: int) -> ThreadingHTTPServer:
    """Serves on threads of its own from now on."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 60

        def _respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if not 0 <= length <= MAX_BODY_BYTES:
                status, result = 413, {"error": f"at most {MAX_BODY_BYTES} bytes are taken"}  # type: Answer
                self.close_connection = True
            else:
                status, result = service.answer(self.command, self.path, self.rfile.read(length))
            is_json = isinstance(result, dict)
            data = json.dumps(result).encode() if isinstance(result, dict) else result
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if is_json else "application/octet-stream")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = _respond

        def log_message(self, format: str, *args: Any) -> None:
            logging.info(format, *args)

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="mc-http", daemon=True).start()
    return server


def main(words: Optional[Sequence[str]] = None) -> int:
    """Runs it until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser("mc_store_rest_server", description=__doc__)
    parser.add_argument("--config", help="a mooncake.json; else the environment")
    parser.add_argument("-D", "--define", action="append", default=[], metavar="KEY=VALUE", help="wins over the file")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--max-wait-time", type=float, default=60, metavar="SECONDS")
    flags = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    wrong = [item for item in flags.define if "=" not in item]
    if wrong:
        print(f"mc_store_rest_server: -D {wrong[0]}: KEY=VALUE is needed", file=sys.stderr)
        return 1
    try:
        service = MooncakeStoreService(flags.config, dict(item.split("=", 1) for item in flags.define))
    except (OSError, ValueError) as error:
        print(f"mc_store_rest_server: {error}", file=sys.stderr)
        return 1
    ended = watch_signals()
    if not service.start(flags.max_wait_time, ended):
        return 1
    try:
        server = serve(service, flags.host, flags.port)
    except OSError as error:
        print(f"mc_store_rest_server: port {flags.port}: {error}", file=sys.stderr)
        service.store.close()
        return 1
    print(f"mc_store_rest_server: listening on {server.server_address[1]}", flush=True)
    wait(ended)
    server.shutdown()
    service.store.close()
    return 0


def sync_main() -> int:
    """Upstream's name of the entry point."""
    return main()


if __name__ == "__main__":
    sys.exit(main())
