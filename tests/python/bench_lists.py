"""What a call with 10,000 blocks costs before anything moves: our binding against upstream's, side by side.

Each measures the same call in a process of its own: batch_register_memory of lists of 10,001 addresses and 10,000
lengths, which both refuse once they have converted them. What the refusal itself costs is taken off by the same call
with two integers. Also the time of the import.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

MEASURE = """
import time
start = time.perf_counter()
import mooncake.engine
loaded = time.perf_counter() - start
import logging
logging.disable(logging.CRITICAL)
engine = mooncake.engine.TransferEngine()
assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
def seconds(count):
    local, remote, lengths = list(range(1 << 40, (1 << 40) + count)), list(range(count)), [4096] * count
    times = []
    for _ in range(200):
        start = time.perf_counter()
        engine.batch_register_memory(local, lengths[1:])
        times.append(time.perf_counter() - start)
    return sorted(times)[100]
print(loaded, seconds(10_001) - seconds(2))
"""

RUNS = 9
WHATS = (("import", "ms", 1e3), ("2 x 10,000 integers", "us", 1e6))


def measure(python: str, environment: dict[str, str]) -> list[float]:
    """Import, and conversion of two lists of 10,000, in seconds."""
    outcome = subprocess.run([python, "-c", MEASURE], env=environment, capture_output=True, text=True, check=True)
    return [float(word) for word in outcome.stdout.split()[-2:]]


def machine() -> str:
    """Processor and cores."""
    text = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")
    return f"{model or 'unknown'}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upstream", nargs="?", help="Python of an environment with upstream's wheel")
    parser.add_argument("--record", type=Path, help="file for the record")
    parser.add_argument("--commit", default="unknown")
    arguments = parser.parse_args()
    package = Path(__file__).resolve().parents[2] / "ffi" / "python"
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    sides = {"ours": (sys.executable, {**plain, "PYTHONPATH": str(package)})}
    if arguments.upstream:
        sides["upstream"] = (arguments.upstream, plain)
    # In turns, so that what else the machine does falls on both.
    rows: dict[str, list[list[float]]] = {name: [] for name in sides}
    for _ in range(RUNS):
        for name, side in sides.items():
            rows[name].append(measure(*side))
    lines = ["binding,what,unit,median,low,high"]
    for name, measured in rows.items():
        for number, (what, unit, factor) in enumerate(WHATS):
            values = sorted(row[number] * factor for row in measured)
            middle = statistics.median(values)
            print(f"{name:10}{what:22}{middle:10.1f} {unit} [{values[0]:.1f}-{values[-1]:.1f}]")
            lines.append(f'{name},"{what}",{unit},{middle:.3f},{values[0]:.3f},{values[-1]:.3f}')
    if arguments.record:
        head = [f"# machine: {machine()}; commit: {arguments.commit}", f"# command: bench_lists.py, {RUNS} runs in turns"]
        arguments.record.write_text("\n".join(head + lines) + "\n")


if __name__ == "__main__":
    main()
