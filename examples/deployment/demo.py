#!/usr/bin/env python3
"""The deployment guide on one machine: master, prefill, decode and mixed node, proxy, and requests over HTTP.

Every process is the one of the guide or stands in its place; the NPUs are software unless a CANN is named by
MOONCAKE_TRANSFER_CANN_PATH. Every byte of every KV cache is compared with what the model would have computed, on each
node that gets it, and every answer with what it has to be. The last line counts hits, misses, bytes and mismatches.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Optional

import model
from service import ask

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOST = "127.0.0.1"
START_LIMIT_S = 60
STOP_LIMIT_S = 10
MASTER_PORT = 50088
# The long question at its full length takes about so much memory, with all copies.
FULL_LENGTH_BYTES = 8 << 30
SHORT_TOKENS = 1_500
SOFTWARE_NPUS = 16

SHORT_QUESTION = "Hello. I have a question. Which river is the longest?"
LONG_QUESTION = (
    "Consider a cluster in which some nodes compute the beginning of an answer and others go on with it. "
    "The memory of the first holds keys and values of every token, layer by layer, and the second needs them at once. "
)


class Process:
    """A child with its output in a file; the line that says its port is waited for."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.file = log.open("w", encoding="utf-8")
        self.child = subprocess.Popen(
            list(command), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: Queue[Optional[str]] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.file.write(line)
            self.file.flush()
            self.lines.put(line)
        self.lines.put(None)

    def wait_for(self, mark: str) -> Optional[str]:
        """What follows the mark in the first line that has it; None when the process ended without."""
        end = time.monotonic() + START_LIMIT_S
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                raise SystemExit(f"{self.name} does not come up in {START_LIMIT_S} s; see {self.log}") from None
            if line is None:
                return None
            if mark in line:
                return line.partition(mark)[2].split()[0].strip(",")

    def stop(self) -> None:
        """Asks it to end, and ends it when it does not."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self.child.kill()
        self.child.wait()
        self.file.close()


class Deployment:
    """All processes; they end in the reverse order of their start."""

    def __init__(self, logs: Path, direct: bool, segment_bytes: int) -> None:
        self.logs = logs
        self.direct = direct
        self.segment_bytes = segment_bytes
        self.started: list[Process] = []
        built = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
        self.master_program = built / "mooncake_master"
        self.base = dict(os.environ)
        package = str(ROOT / "ffi" / "python")
        if (ROOT / "ffi" / "python").is_dir():
            self.base["PYTHONPATH"] = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        # One process that sleeps in a read of the output of another must not wait for a buffer to fill.
        self.base["PYTHONUNBUFFERED"] = "1"
        self.base["PYTHONHASHSEED"] = "0"
        if "MOONCAKE_TRANSFER_CANN_PATH" not in self.base and "ASCEND_HOME_PATH" not in self.base:
            self.base["MOONCAKE_TRANSFER_CANN_PATH"] = str(software_npu(built))
            self.base["CANN_SIM_NAMESPACE"] = f"demo-pool-{os.getpid()}"
            self.base["CANN_SIM_DEVICE_COUNT"] = str(SOFTWARE_NPUS)
            print(f"no CANN is named: {SOFTWARE_NPUS} software NPUs")

    def start(self, name: str, command: Sequence[str], environment: dict[str, str]) -> Process:
        """Starts a process."""
        process = Process(name, command, environment, self.logs / f"{name}.log")
        self.started.append(process)
        return process

    def start_master(self) -> str:
        """`mooncake_master --port 50088`, or on a port of its own choice where that one is taken: host:port."""
        program = str(self.master_program) if self.master_program.is_file() else "mooncake_master"
        local = ["--rpc_address=127.0.0.1", "--metrics_host=127.0.0.1"]
        master = self.start("master", [program, "--port", str(MASTER_PORT), *local], self.base)
        address = master.wait_for(" rpc=")
        if address is None:
            print(f"port {MASTER_PORT} or the metrics port 9003 is taken: the master chooses its own")
            free = ["--port=0", "--rpc_port=0", "--metrics_port=0"]
            master = self.start("master-on-free-ports", [program, *free, *local], self.base)
            address = master.wait_for(" rpc=")
        if address is None:
            raise SystemExit(f"the master does not start; see {master.log}")
        print(f"master       {address}")
        return address

    def write_config(self, master: str) -> str:
        """The guide's mooncake.json, with the master's address and, when asked for, the newer way."""
        config = json.loads((HERE / "mooncake.json").read_text())
        config["master_server_address"] = master
        config["global_segment_size"] = self.segment_bytes or config["global_segment_size"]
        if self.direct:
            config["use_ascend_direct"] = True
        path = self.logs / "mooncake.json"
        path.write_text(json.dumps(config, indent=4) + "\n")
        return str(path)

    def start_node(self, role: str, port: int, visible: str, config: str, log: str, *more: str) -> str:
        """A node with the guide's environment: its URL."""
        environment = {
            **self.base,
            "MOONCAKE_CONFIG_PATH": config,
            "VLLM_USE_V1": "1",
            "ASCEND_RT_VISIBLE_DEVICES": visible,
            "ASCEND_TRANSPORT_PRINT": "1",
            "ACL_OP_INIT_MODE": "1",
            "ASCEND_AGGREGATE_ENABLE": "1",
        }
        first = visible.split(",")[0]
        command = [sys.executable, str(HERE / "node.py"), role, "--port", str(port), "--npu", first, *more]
        return self._service(self.start(log, command, environment), port, f"{role:<12} NPU {first:<3}")

    def start_proxy(self, prefill: str, decode: str) -> str:
        """The proxy before both nodes: its URL."""
        command = [sys.executable, str(HERE / "proxy.py"), "--port", "8000"]
        command += ["--prefiller-hosts", HOST, "--prefiller-ports", prefill.rpartition(":")[2]]
        command += ["--decoder-hosts", HOST, "--decoder-ports", decode.rpartition(":")[2]]
        return self._service(self.start("proxy", command, self.base), 8000, "proxy              ")

    def _service(self, process: Process, wanted: int, title: str) -> str:
        port = process.wait_for("listening on ")
        if port is None:
            print(process.log.read_text()[-3000:], file=sys.stderr)
            raise SystemExit(f"{process.name} does not start; see {process.log}")
        print(f"{title} http://{HOST}:{port}" + ("" if int(port) == wanted else f" ({wanted} is taken)"))
        return f"http://{HOST}:{port}"

    def stop(self) -> None:
        """Ends everything."""
        for process in reversed(self.started):
            process.stop()


class Requests:
    """Sends prompts and compares the answers."""

    def __init__(self) -> None:
        self.wrong = 0
        self.cached: list[int] = []

    def send(self, title: str, url: str, prompt: str) -> None:
        """One request; its line."""
        started = time.monotonic()
        body = {"model": model.NAME, "prompt": prompt, "max_tokens": 256, "temperature": 0.0}
        answer = ask(f"{url}/v1/completions", body)
        seconds = time.monotonic() - started
        usage = answer["usage"]
        right = answer["choices"][0]["text"] == model.expected_answer(prompt.encode())
        self.wrong += not right
        self.cached.append(usage["cached_tokens"])
        print(
            f"{title:<44} {usage['prompt_tokens']:>6} tokens, {usage['cached_tokens']:>6} from the pool, "
            f"{seconds:6.2f} s, the answer is {'right' if right else 'WRONG'}"
        )


def software_npu(built: Path) -> Path:
    """Where the software NPU is: in the build, else in the installed package."""
    if (built / "cann-sim").is_dir():
        return built / "cann-sim"
    import mooncake

    return Path(mooncake.__path__[0]) / "lib" / "cann-sim"


def available_bytes() -> int:
    """Memory that the host has left."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def long_prompt(tokens: int, ending: str) -> str:
    """A long question; two with other endings share their first half."""
    whole = LONG_QUESTION * (tokens // len(LONG_QUESTION) + 1)
    half = tokens // 2 // model.BLOCK_TOKENS * model.BLOCK_TOKENS
    rest = (ending + " " + whole)[: tokens - half]
    return whole[:half] + rest


def run(deployment: Deployment, tokens: int) -> int:
    """The guide's two scenarios; the number of things that are not as they should be."""
    config = deployment.write_config(deployment.start_master())
    prefill = deployment.start_node("prefill", 8100, "0,1,2,3", config, "p")
    decode = deployment.start_node("decode", 8200, "4,5,6,7", config, "d")
    # Alone with the pool, and with the guide's register_buffer left out: nobody registers the KV cache.
    mixed = deployment.start_node("mixed", 8300, "8,9,10,11", config, "mix")
    proxy = deployment.start_proxy(prefill, decode)
    print()
    requests = Requests()
    requests.send("short question", proxy, SHORT_QUESTION)
    first, second = long_prompt(tokens, "What is moved first?"), long_prompt(tokens, "And who waits for whom?")
    requests.send("long question", proxy, first)
    requests.send("the same one again", proxy, first)
    requests.send("another one with the same first half", proxy, second)
    requests.send("mixed node: the long question", mixed, first)
    own = "A question that only the mixed node was asked. " + long_prompt(tokens // 4, "Why?")
    requests.send("mixed node: a question of its own", mixed, own)
    requests.send("which then comes to the prefill node", proxy, own)
    full, half = tokens // model.BLOCK_TOKENS, tokens // 2 // model.BLOCK_TOKENS
    owned = len(own) // model.BLOCK_TOKENS
    expected = [blocks * model.BLOCK_TOKENS for blocks in (0, 0, full, half, full, 0, owned)]
    unexpected = sum(cached != wanted for cached, wanted in zip(requests.cached, expected))
    if unexpected:
        print(f"{unexpected} requests got another number of tokens from the pool than {expected}")
    return report({"prefill": prefill, "decode": decode, "mixed": mixed}, requests.wrong) + unexpected


def report(nodes: dict[str, str], wrong_answers: int) -> int:
    """What the nodes have counted; how much of it should be 0."""
    counts: dict[str, dict[str, int]] = {name: ask(f"{url}/stats") for name, url in nodes.items()}
    print()
    columns = list(next(iter(counts.values())))
    print(" " * 8 + "".join(f"{column:>15}" for column in columns))
    for name, row in counts.items():
        print(f"{name:<8}" + "".join(f"{row[column]:>15,}" for column in columns))
    total = {column: sum(row[column] for row in counts.values()) for column in columns}
    mismatches = total["mismatches"] + wrong_answers
    print(
        f"\npool: {total['hits']} hits, {total['misses']} misses, {total['bytes_put']:,} bytes put, "
        f"{total['bytes_got']:,} bytes got; between nodes: {total['bytes_pulled']:,} bytes; {mismatches} mismatches"
    )
    return mismatches + total["not_stored"] + total["not_loaded"]


def main() -> int:
    """Runs the demonstration; 0 when everything is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = f"length of the long question (default: {model.MAX_TOKENS})"
    parser.add_argument("--tokens", type=int, default=0, help=length)
    parser.add_argument("--direct", action="store_true", help="use_ascend_direct: one engine for both connectors")
    parser.add_argument("--segment-bytes", type=int, default=0, help="global_segment_size in place of the guide's")
    parser.add_argument("--logs", type=Path, help="directory for the logs (default: a new one)")
    arguments = parser.parse_args()
    tokens = arguments.tokens or model.MAX_TOKENS
    if not arguments.tokens and available_bytes() < FULL_LENGTH_BYTES:
        tokens = SHORT_TOKENS
        print(f"less than {FULL_LENGTH_BYTES >> 30} GiB of memory are left: the long question has {tokens} tokens")
    logs = arguments.logs or Path(tempfile.mkdtemp(prefix="demo-pool-"))
    logs.mkdir(parents=True, exist_ok=True)
    print(f"logs in {logs}")
    started = time.monotonic()
    deployment = Deployment(logs, arguments.direct, arguments.segment_bytes)
    try:
        wrong = run(deployment, tokens)
    finally:
        deployment.stop()
    print(f"{time.monotonic() - started:.1f} s")
    return 0 if wrong == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
