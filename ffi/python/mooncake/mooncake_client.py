"""``mooncake_client``: a process that lends memory to the pool and does nothing else, with upstream's flags.

Flags are written as upstream's are: ``--flag=value``, ``--flag value``, with one dash or two. It runs until SIGTERM or
SIGINT, then leaves the pool and ends with 0.
"""

from __future__ import annotations

import argparse
import socket
import sys
import threading

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Optional

_WILDCARDS = ("", "0.0.0.0", "::", "[::]")


def _switch(word: str) -> bool:
    if word.lower() in ("1", "t", "true", "y", "yes"):
        return True
    if word.lower() in ("0", "f", "false", "n", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{word} is neither true nor false")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mooncake_client", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--host", default="0.0.0.0", help="this host's name for others; 0.0.0.0 is the address towards the master")
    add("--port", type=int, default=50052, help="part of the name of the memory in the pool")
    add("--master_server_address", default="127.0.0.1:50051")
    add("--metadata_server", default="http://127.0.0.1:8080/metadata", help="or P2PHANDSHAKE")
    add("--protocol", default="tcp")
    add("--device_names", default="")
    add("--global_segment_size", default="4 GB", help="memory that is lent")
    add("--local_buffer_size", default="0")
    add("--tenant_id", default="default")
    add("--threads", type=int, default=1, help="of no effect: the library has its own number")
    for name in ("enable_offload", "start_offload_rpc_server", "enable_http_server"):
        help_text = "not offered" if name == "enable_offload" else "of no effect"
        add(f"--{name}", type=_switch, nargs="?", const=True, default=False, help=help_text)
        add(f"--no{name}", dest=name, action="store_false", help=argparse.SUPPRESS)
    add("--http_port", type=int, default=9300, help="of no effect")
    return parser


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """The flags, with one dash or two."""
    doubled = [f"-{word}" if len(word) > 2 and word[0] == "-" and word[1].isalpha() else word for word in words]
    return _parser().parse_args(doubled)


def address_towards(master: str) -> str:
    """The address of this host that the route to the master has."""
    host, _, port = master.split(",")[0].strip().rpartition(":")
    family, kind, protocol, _, place = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as route:
        # Nothing is sent: a datagram socket only looks up the route.
        route.connect(place)
        found = str(route.getsockname()[0])
    return f"[{found}]" if ":" in found else found


def watch_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set from now on."""
    import signal

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ended.set())
    return ended


def wait(ended: threading.Event) -> None:
    """Sleeps until the event is set."""
    # With a time limit, so that the interpreter gets to run the handlers on every platform.
    while not ended.wait(3600):
        pass


def main(words: Optional[Sequence[str]] = None) -> int:
    """Runs it."""
    import logging

    from .store import MooncakeDistributedStore, describe

    flags = arguments(sys.argv[1:] if words is None else words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if flags.enable_offload:
        print("mooncake_client: --enable_offload: a copy on a disk is not offered", file=sys.stderr)
        return 1
    store = MooncakeDistributedStore()
    ended = watch_signals()
    try:
        host = address_towards(flags.master_server_address) if flags.host in _WILDCARDS else flags.host
        code = store.setup(
            {
                "local_hostname": f"{host}:{flags.port}",
                "metadata_server": flags.metadata_server,
                "global_segment_size": flags.global_segment_size,
                "local_buffer_size": flags.local_buffer_size,
                "protocol": flags.protocol,
                "rdma_devices": flags.device_names,
                "master_server_addr": flags.master_server_address,
                "tenant_id": flags.tenant_id,
            }
        )
    except (OSError, ValueError) as error:
        print(f"mooncake_client: {flags.master_server_address}: {error}", file=sys.stderr)
        return 1
    if code != 0:
        print(f"mooncake_client: {describe(code)}", file=sys.stderr)
        return 1
    print(f"mooncake_client: {store.get_hostname()} is in the pool of {flags.master_server_address}", flush=True)
    wait(ended)
    store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
