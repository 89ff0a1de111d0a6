"""JSON over HTTP, for the nodes and the proxy."""

from __future__ import annotations

import json
import sys
import traceback
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LIMIT_S = 90
Routes = dict[str, Callable[[Any], Any]]


def ask(url: str, body: Any = None) -> Any:
    """The answer of a service; a body makes it a POST."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        return json.load(answer)


def serve(host: str, port: int, routes: Routes) -> None:
    """Serves until the process is ended. Where the port is taken, another one is; the line that says so is the sign
    that the service is ready."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, body: Any) -> None:
            route = routes.get(self.path)
            try:
                status, result = (200, route(body)) if route else (404, {"error": f"no {self.path} here"})
            except Exception as error:
                traceback.print_exc()
                status, result = 500, {"error": f"{type(error).__name__}: {error}"}
            data = json.dumps(result).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            self._answer(json.loads(self.rfile.read(length) or b"null"))

        def log_message(self, text: str, *values: object) -> None:
            print(text % values, file=sys.stderr)

    class Server(ThreadingHTTPServer):
        # A second server on the same port is an error, not a lottery.
        allow_reuse_port = False
        daemon_threads = True

    try:
        server = Server((host, port), Handler)
    except OSError:
        server = Server((host, 0), Handler)
    print(f"listening on {server.server_address[1]}", flush=True)
    server.serve_forever()
