"""mooncake_client and mc_store_rest_server: processes of the pool without an inference program."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import pytest
from conftest import LIMIT_S, clean_environment
from mooncake import mooncake_client
from pool import MIB, join, master, masters  # noqa: F401


@pytest.fixture
def run():
    """Starts a program of the package, whose line with a mark says that it is ready."""
    started = []

    def start(module: str, *words: str, mark: str = "mooncake_client: "):
        process = subprocess.Popen(
            [sys.executable, "-m", f"mooncake.{module}", *words],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        line = process.stdout.readline()
        assert mark in line, line + process.stderr.read()
        return process, line.partition(mark)[2].strip()

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_client_that_only_lends(run, masters, join, number):  # noqa: F811
    own = masters()
    reader = join(own, segment=0)
    assert reader.put("nowhere", b"value") < 0, "there is no memory yet"
    words = (f"--master_server_address={own.address}", "-metadata_server", "P2PHANDSHAKE", "--port=20007")
    process, line = run("mooncake_client", *words, "--global_segment_size=32MB", "--noenable_offload")
    assert line == f"127.0.0.1:20007 is in the pool of {own.address}"
    assert own.http("/get_all_segments").strip() == "127.0.0.1:20007"
    assert reader.put("lent", b"value" * 1000) == 0 and reader.get("lent") == b"value" * 1000
    process.send_signal(number)
    assert process.wait(LIMIT_S) == 0
    assert own.http("/get_all_segments").strip() == "", "it has left the pool"
    assert reader.is_exist("lent") == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--enable_offload",), "not offered"),
        (("--master_server_address=nohost.invalid:1",), "nohost.invalid"),
        (("--global_segment_size=much", "--host=127.0.0.1"), "INVALID_PARAMS"),
        (("--no_such_flag=1",), "no_such_flag"),
    ],
)
def test_a_client_that_cannot_start(words, text):
    command = [sys.executable, "-m", "mooncake.mooncake_client", *words]
    outcome = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=LIMIT_S)
    assert outcome.returncode != 0 and text in outcome.stderr, outcome.stderr


def test_flags_as_upstream_writes_them():
    flags = mooncake_client.arguments(["-port", "1", "--threads=2", "--enable_http_server=true", "-noenable_offload"])
    assert (flags.port, flags.threads, flags.enable_http_server, flags.enable_offload) == (1, 2, True, False)
    defaults = mooncake_client.arguments([])
    assert (defaults.host, defaults.port, defaults.global_segment_size) == ("0.0.0.0", 50052, "4 GB")
    assert mooncake_client.address_towards("127.0.0.1:50051") == "127.0.0.1"


def ask(port: str, method: str, path: str, body=None):
    data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            status, content, kind = answer.status, answer.read(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        status, content, kind = error.code, error.read(), error.headers["Content-Type"]
    return status, json.loads(content) if kind == "application/json" else content


def test_the_pool_behind_http(run, masters, join, tmp_path):  # noqa: F811
    own = masters()
    settings = {
        "local_hostname": "127.0.0.1",
        "metadata_server": "P2PHANDSHAKE",
        "master_server_address": "127.0.0.1:1",
        "global_segment_size": "32MB",
        "local_buffer_size": "1MB",
    }
    path = tmp_path / "mooncake.json"
    path.write_text(json.dumps(settings))
    words = ("--config", str(path), f"-Dmaster_server_address={own.address}", "--host=127.0.0.1", "--port=0")
    process, port = run("mooncake_store_service", *words, mark="listening on ")
    assert ask(port, "GET", "/api/exist/key") == (200, {"exists": False})
    assert ask(port, "GET", "/api/get/key")[0] == 404
    assert ask(port, "PUT", "/api/put", {"key": "a/key with ü", "value": "väl"}) == (200, {"status": "success"})
    quoted = urllib.parse.quote("a/key with ü", safe="")
    assert ask(port, "GET", f"/api/get/{quoted}") == (200, "väl".encode())
    assert ask(port, "GET", f"/api/exist/{quoted}") == (200, {"exists": True})
    assert join(own, segment=16 * MIB).get("a/key with ü") == "väl".encode(), "it is the pool's"
    assert ask(port, "DELETE", f"/api/remove/{quoted}")[0] == 500, "leased"
    for body in ({}, {"key": "k"}, {"key": "k", "value": 5}, [], b"no json"):
        assert ask(port, "PUT", "/api/put", body)[0] == 400
    assert ask(port, "PUT", "/api/put", {"key": "k", "value": ""})[0] == 500, "a value has bytes"
    assert ask(port, "POST", "/api/mount", {})[0] == 501
    assert ask(port, "GET", "/nothing")[0] == ask(port, "GET", "/api/get/")[0] == ask(port, "POST", "/api/get/k")[0] == 404
    status, answer = ask(port, "DELETE", "/api/remove_all")
    assert status == 200 and answer["status"].startswith("success removed ")
    process.terminate()
    assert process.wait(LIMIT_S) == 0


def test_a_service_without_settings():
    command = [sys.executable, "-m", "mooncake.mooncake_store_service"]
    outcome = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=LIMIT_S)
    assert outcome.returncode == 1 and "MOONCAKE_MASTER" in outcome.stderr
