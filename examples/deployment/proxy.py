"""The proxy: takes requests, has each prefilled by one node and answered by another, in turn."""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import Any

from service import ask, serve


def main() -> int:
    """Runs the proxy until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--prefiller-hosts", nargs="+", required=True)
    parser.add_argument("--prefiller-ports", nargs="+", type=int, required=True)
    parser.add_argument("--decoder-hosts", nargs="+", required=True)
    parser.add_argument("--decoder-ports", nargs="+", type=int, required=True)
    arguments = parser.parse_args()
    prefillers = itertools.cycle(list(zip(arguments.prefiller_hosts, arguments.prefiller_ports)))
    decoders = itertools.cycle(list(zip(arguments.decoder_hosts, arguments.decoder_ports)))

    def complete(body: dict[str, Any]) -> dict[str, Any]:
        host, port = next(prefillers)
        prefill = f"http://{host}:{port}"
        first = ask(f"{prefill}/v1/completions", {**body, "max_tokens": 1})
        parameters = {**first["kv_transfer_params"], "url": prefill}
        host, port = next(decoders)
        answer = ask(f"http://{host}:{port}/v1/completions", {**body, "kv_transfer_params": parameters})
        answer["usage"]["cached_tokens"] = first["usage"]["cached_tokens"]
        return dict(answer)

    serve(arguments.host, arguments.port, {"/v1/completions": complete})
    return 0


if __name__ == "__main__":
    sys.exit(main())
