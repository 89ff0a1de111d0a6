"""The deployment guide as `make demo-pool` runs it, with a shorter question."""

import re
import subprocess
import sys

import pytest
from conftest import LIMIT_S, ROOT, clean_environment, run_python
from pool import masters  # noqa: F401

DEMO = ROOT / "examples" / "deployment" / "demo.py"


@pytest.mark.parametrize("way", [(), ("--direct",)], ids=["guide", "direct"])
def test_every_byte_is_right(way, tmp_path):
    command = [sys.executable, str(DEMO), "--tokens=700", f"--segment-bytes={256 << 20}", f"--logs={tmp_path}", *way]
    outcome = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=3 * LIMIT_S)
    logs = "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in tmp_path.glob("*.log"))
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr + logs
    last = next(line for line in outcome.stdout.splitlines() if line.startswith("pool: "))
    # 5 full blocks: all of them, 2 of another prompt, all for the mixed node, and its own one.
    assert re.match(r"pool: 13 hits, 9 misses, 66,060,288 bytes put, 95,420,416 bytes got; ", last), last
    assert last.endswith(" bytes; 0 mismatches")
    assert "WRONG" not in outcome.stdout
    # What the guide's environment asks for arrives at the processes, and nothing of it is unknown.
    assert "is set but not used" not in logs


def test_the_configuration_is_the_guides():
    import json

    config = json.loads((DEMO.parent / "mooncake.json").read_text())
    assert config["global_segment_size"] == 30000000000 and config["protocol"] == "ascend"
    assert config["master_server_address"].endswith(":50088")


def test_the_pool_in_the_readme(masters):  # noqa: F811
    blocks = (ROOT / "README.md").read_text().split("```python\n")[1:]
    code = next(block.split("```", 1)[0] for block in blocks if "mooncake.store" in block)
    assert code.count("127.0.0.1:50088") == 1
    outcome = run_python(code.replace("127.0.0.1:50088", masters().address))
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("b'value' 1 OBJECT_NOT_FOUND (-704): "), outcome.stdout + outcome.stderr
