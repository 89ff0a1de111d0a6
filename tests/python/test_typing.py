"""The package under mypy's strict rules."""

import subprocess
import sys

import pytest
from conftest import PACKAGE


def test_strict(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    outcome = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "-p", "mooncake"],
        cwd=PACKAGE,
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
