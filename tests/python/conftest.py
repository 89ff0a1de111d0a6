"""What the tests share: the environment of child processes, peers, software NPUs, and counted skips."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGE = ROOT / "ffi" / "python"
LIMIT_S = 60
SETTINGS = ("ASCEND_", "CANN_SIM_", "HCCL_", "MC_", "MOONCAKE_")

sys.path[:0] = [str(PACKAGE), str(HERE)]

_instances = itertools.count()


def built() -> Path:
    """The directory of the build."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


# Where upstream's released packages are; see tests/interop/make_peers.sh.
PEERS = Path(os.environ.get("MOONCAKE_TRANSFER_PEERS", built().parent / "peers"))


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment without settings of the caller's shell, with the package and these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    kept["PYTHONPATH"] = os.pathsep.join([str(PACKAGE), str(HERE)])
    kept["CARGO_TARGET_DIR"] = str(built().parent)
    kept.update(variables)
    return kept


def npu_environment(devices: int = 2, **variables: str) -> dict[str, str]:
    """The same with a software NPU of the test's own."""
    name = f"python-{os.getpid()}-{next(_instances)}"
    return clean_environment(
        MOONCAKE_TRANSFER_CANN_PATH=str(built() / "cann-sim"),
        CANN_SIM_NAMESPACE=name,
        CANN_SIM_DEVICE_COUNT=str(devices),
        **variables,
    )


def run_python(code: str, environment: dict[str, str] | None = None, *arguments: str) -> subprocess.CompletedProcess:
    """Runs a program in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment or clean_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def has_ipv6_loopback() -> bool:
    """Whether ::1 can be bound here."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def stop_threads(process: subprocess.Popen) -> None:
    """Stops every thread of a process, and waits until it is so."""
    process.send_signal(signal.SIGSTOP)
    end = time.monotonic() + LIMIT_S
    tasks = Path(f"/proc/{process.pid}/task")
    while not all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks.glob("*/stat")):
        assert time.monotonic() < end, "the process does not stop"
        time.sleep(0.001)


class Peer:
    """A child process that runs lines of Python; see peer.py."""

    def __init__(self, environment: dict[str, str], python: str = sys.executable) -> None:
        self.process = subprocess.Popen(
            [python, str(HERE / "peer.py")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answers: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.answers.put(line)

    def begin(self, code: str, **values: Any) -> None:
        """Sends code without waiting for its answer."""
        self.process.stdin.write(json.dumps({"code": code, "values": values}) + "\n")
        self.process.stdin.flush()

    def finish(self) -> Any:
        """The result of what was begun."""
        try:
            answer = json.loads(self.answers.get(timeout=LIMIT_S))
        except Empty:
            raise AssertionError(f"no answer in {LIMIT_S} s; the process ended with {self.process.poll()}") from None
        assert "raised" not in answer, answer["raised"]
        return answer["result"]

    def run(self, code: str, **values: Any) -> Any:
        """Runs code; the value it gives to ``result``."""
        self.begin(code, **values)
        return self.finish()

    def quit(self) -> int:
        """Ends the process in good order; its exit code."""
        self.process.stdin.close()
        return self.process.wait(LIMIT_S)

    def stop(self) -> None:
        """Stops every thread of the process, and waits until it is so."""
        stop_threads(self.process)

    def go_on(self) -> None:
        """Ends what stop did."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def peers():
    """Starts peers and ends them after the test."""
    started: list[Peer] = []

    def start(environment: dict[str, str] | None = None, python: str = sys.executable) -> Peer:
        started.append(Peer(environment or clean_environment(), python))
        return started[-1]

    yield start
    for peer in started:
        if peer.process.poll() is None:
            peer.kill()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--wheel", type=Path, help="test this wheel instead of one packed from the build")


def count_skip(name: str, reason: str) -> None:
    """Adds a skip to the list that `make test` shows at its end."""
    log = os.environ.get("MOONCAKE_TRANSFER_SKIP_LOG")
    if log:
        with open(log, "a", encoding="utf-8") as lines:
            lines.write(f"{name}: {reason}\n")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        count_skip(report.nodeid, report.longrepr[2].removeprefix("Skipped: "))


def pytest_sessionstart() -> None:
    for name in list(os.environ):
        if name.startswith(SETTINGS) and name != "MOONCAKE_TRANSFER_SKIP_LOG":
            del os.environ[name]
