"""The client does not grow with the number of keys; bench_store_keys.py does the same with a million."""

from conftest import clean_environment, run_python
from pool import master  # noqa: F401


def test_many_keys(master):  # noqa: F811
    # A process of its own: what other tests have left does not count.
    code = f"""
import bench_store_keys as bench
memory, rate = bench.run(60_000, "{master.address}", say=lambda line: None)
grown = bench.grown_bytes(memory)
assert grown <= bench.ALLOWED_BYTES, (grown, memory)
"""
    outcome = run_python(code, clean_environment())
    assert outcome.returncode == 0, outcome.stderr
