"""What a call with 10,000 blocks costs before anything moves: our binding against upstream's, side by side.

Usage: bench_lists.py [PYTHON OF AN ENVIRONMENT WITH UPSTREAM'S WHEEL]

Each measures the same call in a process of its own: batch_register_memory of lists of 10,001 addresses and 10,000
lengths, which both refuse once they have converted them. What the refusal itself costs is taken off by the same call
with two integers. Also the time of the import.
"""

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

RUNS = 5


def measure(python: str, environment: dict[str, str]) -> tuple[float, float]:
    """Medians of the import and of the conversion of two lists of 10,000, in seconds."""
    rows = []
    for _ in range(RUNS):
        outcome = subprocess.run([python, "-c", MEASURE], env=environment, capture_output=True, text=True, check=True)
        rows.append([float(word) for word in outcome.stdout.split()[-2:]])
    return statistics.median(row[0] for row in rows), statistics.median(row[1] for row in rows)


def main() -> None:
    package = Path(__file__).resolve().parents[2] / "ffi" / "python"
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    rows = {"ours": measure(sys.executable, {**plain, "PYTHONPATH": str(package)})}
    if len(sys.argv) > 1:
        rows["upstream"] = measure(sys.argv[1], plain)
    print(f"{'':10}{'import ms':>12}{'2 x 10,000 integers us':>26}")
    for name, (loaded, converted) in rows.items():
        print(f"{name:10}{loaded * 1e3:12.1f}{converted * 1e6:26.0f}")


if __name__ == "__main__":
    main()
