"""A master of the pool for a test, and stores that join it."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
import urllib.request
from queue import Empty, Queue

import pytest
from conftest import LIMIT_S, built, clean_environment, stop_threads

MIB = 1 << 20
LOCAL = ("--rpc_address=127.0.0.1", "--metrics_host=127.0.0.1")
LEASE_MS = 200


class Master:
    """A mooncake_master on ports of its own choice."""

    def __init__(self, *flags: str, port: int = 0, metrics_port: int = 0) -> None:
        program = built() / "mooncake_master"
        if not program.is_file():
            pytest.fail(f"{program} is not built")
        ports = (f"--rpc_port={port}", f"--metrics_port={metrics_port}", f"--default_kv_lease_ttl={LEASE_MS}")
        self.process = subprocess.Popen(
            [str(program), *(("--port=0",) if port == 0 else ()), *LOCAL, *ports, *flags],
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()
        line = self.wait_for_line("admin_and_metrics_http=")
        self.port = int(re.search(r"[ ,]rpc=127\.0\.0\.1:(\d+)", line)[1])
        self.metrics_port = int(re.search(r"admin_and_metrics_http=127\.0\.0\.1:(\d+)", line)[1])
        self.address = f"127.0.0.1:{self.port}"

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.put(line)

    def wait_for_line(self, part: str) -> str:
        end, seen = time.monotonic() + LIMIT_S, []
        while True:
            try:
                seen.append(self.lines.get(timeout=max(0.0, end - time.monotonic())))
            except Empty:
                raise AssertionError(f"no line with {part!r}: {seen}") from None
            if part in seen[-1]:
                return seen[-1]

    def http(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=LIMIT_S) as answer:
            return answer.read().decode()

    def metric(self, name: str) -> float:
        return float(re.search(rf"^{name} (\S+)$", self.http("/metrics"), re.MULTILINE)[1])

    def stop(self) -> None:
        stop_threads(self.process)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def master():
    """One master for the tests of a file."""
    started = Master()
    yield started
    started.kill()


@pytest.fixture
def masters():
    """Starts masters that end with the test."""
    started: list[Master] = []

    def start(*flags: str, **ports: int) -> Master:
        started.append(Master(*flags, **ports))
        return started[-1]

    yield start
    for one in started:
        one.go_on()
        one.kill()


@pytest.fixture
def join():
    """Makes stores that are closed after the test."""
    from mooncake.store import MooncakeDistributedStore, last_error

    opened = []

    def make(master: Master, segment: int = 64 * MIB, buffer: int = 16 * MIB, host: str = "127.0.0.1", **more):
        store = MooncakeDistributedStore()
        opened.append(store)
        code = store.setup(host, "P2PHANDSHAKE", segment, buffer, "tcp", "", master.address, **more)
        assert code == 0, last_error()
        return store

    yield make
    for store in opened:
        store.close()


def wait_until(condition, what: str, limit_s: float = LIMIT_S):
    """The first true answer of the condition."""
    end = time.monotonic() + limit_s
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"{what}: not within {limit_s} s"
        time.sleep(0.005)
