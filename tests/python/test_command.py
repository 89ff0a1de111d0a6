"""The mooncake command. Promise 18: the doctor says what is wrong with this machine before a model loads."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time

import pytest
from conftest import LIMIT_S, built, clean_environment, npu_environment, run_python

NOWHERE = {"ASCEND_HOME_PATH": "/nonexistent", "ASCEND_TOOLKIT_HOME": "/nonexistent"}


def mooncake(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(built() / "mooncake"), *arguments],
        env=environment or clean_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def free_port() -> int:
    """For the master's flag, which takes 0 for its default, and that another master may have."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def findings(**variables: str) -> tuple[dict[str, dict], int]:
    outcome = mooncake("doctor", "--json", environment=clean_environment(**{**NOWHERE, **variables}))
    report = json.loads(outcome.stdout)
    assert report["ok"] == (outcome.returncode == 0)
    return {finding["check"]: finding for finding in report["findings"]}, outcome.returncode


def test_without_cann_every_path_is_named():
    report, code = findings()
    assert code == 0
    assert report["CANN"]["verdict"] == "warn"
    assert any("/nonexistent" in line for line in report["CANN"]["details"])
    assert "set_env.sh" in report["CANN"]["fix"]
    assert {"version", "locked memory", "huge pages", "ptrace scope", "ports", "variables"} <= set(report)


def test_where_an_npu_is_required_its_absence_fails():
    report, code = findings(MOONCAKE_TRANSFER_REQUIRE_NPU="1")
    assert code == 1 and report["CANN"]["verdict"] == "fail"


def test_devices_with_physical_ids_on_the_software_npu(tmp_path):
    addresses = tmp_path / "hccn.conf"
    addresses.write_text("address_4=10.0.0.4\naddress_5=10.0.0.5\n")
    environment = npu_environment(8, ASCEND_RT_VISIBLE_DEVICES="4,5", MOONCAKE_TRANSFER_HCCN_CONF=str(addresses))
    outcome = mooncake("doctor", "--json", "--symbols", environment=environment)
    report = {finding["check"]: finding for finding in json.loads(outcome.stdout)["findings"]}
    assert outcome.returncode == 0, outcome.stdout
    assert report["CANN"]["verdict"] == "pass"
    assert report["NPUs"]["details"] == [
        "device 0 is NPU 4, network address 10.0.0.4",
        "device 1 is NPU 5, network address 10.0.0.5",
    ]
    assert report["one-sided"]["verdict"] == report["addresses"]["verdict"] == "pass"
    assert any("HcclCommPrepare" in line for line in report["functions"]["details"])
    assert "CANN " in report["release"]["found"]


def test_an_older_cann_is_told_by_its_functions():
    environment = npu_environment(1, CANN_SIM_HIDE="HcclBatchPut")
    outcome = mooncake("doctor", "--json", environment=environment)
    report = {finding["check"]: finding for finding in json.loads(outcome.stdout)["findings"]}
    assert outcome.returncode == 1
    assert report["functions"]["verdict"] == "fail"
    assert any(line.startswith("HcclBatchPut: missing") for line in report["functions"]["details"])


def test_variables_that_are_unread_unusable_or_contradict_each_other():
    report, code = findings(MC_TRANSFER_TIMEOT="5")
    assert code == 0 and "MC_TRANSFER_TIMEOUT" in report["unread"]["details"][0]
    report, code = findings(MC_HANDSHAKE_CONNECT_TIMEOUT="soon")
    assert code == 1 and "soon" in report["variables"]["details"][0]
    report, code = findings(MC_FORCE_TCP="1", MOONCAKE_TRANSFER_REQUIRE_NPU="1")
    assert code == 1 and "MC_FORCE_TCP" in report["contradiction"]["details"][0]


def test_table_without_colour_in_a_pipe():
    outcome = mooncake("doctor", environment=clean_environment(**NOWHERE))
    assert "\x1b[" not in outcome.stdout
    assert outcome.stdout.splitlines()[-1].endswith("fail")


def test_colour_on_a_terminal():
    ours, theirs = os.openpty()
    with open(ours, "rb", buffering=0) as screen:
        environment = clean_environment(**NOWHERE)
        child = subprocess.Popen([str(built() / "mooncake"), "doctor"], env=environment, stdout=theirs)
        os.close(theirs)
        shown = b""
        try:
            while part := screen.read(4096):
                shown += part
        except OSError:
            pass  # what a terminal answers once nobody holds its other end
        assert child.wait(LIMIT_S) == 0
    assert b"\x1b[32mpass\x1b[0m" in shown and b"\x1b[33mwarn\x1b[0m" in shown, shown


def test_what_the_doctor_looks_at():
    """Every check has a verdict; what is not right has a remedy."""
    for variables in ({}, {"MC_MIN_RPC_PORT": "40000", "MC_MAX_RPC_PORT": "40100"}):
        report, _ = findings(**variables)
        assert {"version", "CANN", "locked memory", "huge pages", "ptrace scope", "ports"} <= set(report)
        assert all(finding["verdict"] in ("pass", "warn", "fail") for finding in report.values())
        assert all(finding["fix"] for finding in report.values() if finding["verdict"] != "pass")
    environment = npu_environment(2)
    outcome = mooncake("doctor", "--json", environment=environment)
    report = {finding["check"]: finding for finding in json.loads(outcome.stdout)["findings"]}
    assert {"CANN", "functions", "release", "one-sided", "NPUs", "addresses"} <= set(report)
    assert "Ascend" in report["NPUs"]["found"], "the kind of chip"


def test_env_lists_every_variable_with_its_value():
    outcome = mooncake("env", "--json", environment=clean_environment(MC_MIN_PRC_PORT="15100"))
    assert outcome.returncode == 0, outcome.stderr
    rows = {row["name"]: row for row in json.loads(outcome.stdout)["variables"]}
    assert len(rows) >= 40
    assert rows["MC_TRANSFER_TIMEOUT"]["unit"] == "s" and rows["MC_TRANSFER_TIMEOUT"]["default"] == "30"
    assert rows["MC_MIN_RPC_PORT"]["set"] == {"name": "MC_MIN_PRC_PORT", "value": "15100"}
    assert all(row["meaning"] for row in rows.values())
    text = mooncake("env", "--all").stdout
    assert all(name in text for name in rows) and "MC_REDIS_USERNAME" in text


def test_probe():
    from mooncake.engine import TransferEngine

    engine = TransferEngine()
    assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
    name = f"127.0.0.1:{engine.get_rpc_port()}"
    outcome = mooncake("probe", name)
    assert outcome.returncode == 0 and f"{name} answers" in outcome.stdout
    engine.close()
    outcome = mooncake("probe", name)
    assert outcome.returncode == 1 and name in outcome.stderr


def test_bench_hands_its_flags_on():
    outcome = mooncake("bench", "--help")
    assert outcome.returncode == 0 and "--segment_id" in outcome.stdout


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_looks_at_a_pool(flags):
    """stats, keys and segments of a master that has none yet; with objects they are tested with the master."""
    with subprocess.Popen(
        [str(built() / "mooncake_master"), f"--rpc_port={free_port()}", "--metrics_port=0", "--logtostderr"],
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as master:
        try:
            line = next(line for line in master.stderr if "Master service started" in line)
            admin = re.search(r"admin_and_metrics_http=\S*:(\d+)", line).group(1)
            for question in ("stats", "keys", "segments"):
                outcome = mooncake(question, "--admin", f"127.0.0.1:{admin}", *flags)
                assert outcome.returncode == 0, outcome.stderr
                if flags:
                    json.loads(outcome.stdout)
            stats = mooncake("stats", "--admin", f"127.0.0.1:{admin}", "--json")
            assert json.loads(stats.stdout)["keys"] == 0
        finally:
            master.terminate()
    nobody = mooncake("stats", "--admin", f"127.0.0.1:{admin}")
    assert nobody.returncode == 1 and "mooncake_master" in nobody.stderr


def test_wrong_command_line():
    assert mooncake("frobnicate").returncode == 2
    assert mooncake().returncode == 2


def test_metadata_server_serves_engines(tmp_path):
    """Two engines that know each other by name only, with the metadata server between them."""
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [str(built() / "mooncake"), "metadata-server", "--port", "0", "--", f"--rpc_port={free_port()}", "--metrics_port=0"],
            env=clean_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        address = None
        end = time.monotonic() + LIMIT_S
        while address is None and time.monotonic() < end and server.poll() is None:
            address = re.search(r"metadata_http=(127\.0\.0\.1:[1-9]\d*)", log.read_text())
            time.sleep(0.01)
        assert address is not None, log.read_text()
        outcome = run_python(OVER_HTTP, None, address.group(1))
        assert outcome.returncode == 0, outcome.stderr
    finally:
        server.terminate()
        assert server.wait(LIMIT_S) == 0, log.read_text()


OVER_HTTP = """
import ctypes, sys
from mooncake.engine import TransferEngine, last_error
holder, reader = TransferEngine(), TransferEngine()
server = sys.argv[1] + "/metadata"
assert holder.initialize("127.0.0.1:17701", "http://" + server, "tcp", "") == 0, last_error()
assert reader.initialize_ext("127.0.0.1:17702", server, "tcp", "", "http") == 0, last_error()
block, copy = ctypes.create_string_buffer(b"x" * 4096, 4096), ctypes.create_string_buffer(4096)
assert holder.register_memory(ctypes.addressof(block), 4096) == 0
assert reader.register_memory(ctypes.addressof(copy), 4096) == 0
assert reader.transfer_sync_read("127.0.0.1:17701", ctypes.addressof(copy), ctypes.addressof(block), 4096) == 0
assert copy.raw == block.raw
"""
