"""The wheel: made from this build, installed into fresh environments, used without LD_LIBRARY_PATH."""

from __future__ import annotations

import fnmatch
import glob
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import LIMIT_S, PACKAGE, ROOT, built, clean_environment

SOFTWARE_NPU = "lib/cann-sim"


def bare_environment(**variables: str) -> dict[str, str]:
    environment = clean_environment(**variables)
    for name in ("PYTHONPATH", "LD_LIBRARY_PATH", "CARGO_TARGET_DIR"):
        environment.pop(name, None)
    return environment


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, pytestconfig) -> Path:
    if pytestconfig.getoption("--wheel"):
        return pytestconfig.getoption("--wheel").resolve()
    missing = [name for name in ("mooncake", "transfer_engine_bench", "mooncake_master") if not (built() / name).is_file()]
    assert not missing, f"not built: {missing}"
    output = tmp_path_factory.mktemp("dist")
    command = [sys.executable, str(PACKAGE / "build_wheel.py"), "--built", str(built()), "--output", str(output)]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    return Path(outcome.stdout.strip())


class Installed:
    """A virtual environment with the wheel."""

    def __init__(self, interpreter: str, directory: Path, wheel: Path) -> None:
        # The tests' own pip installs into the fresh environment: one of its own would take longer than the test.
        subprocess.run([interpreter, "-m", "venv", "--without-pip", str(directory)], check=True, capture_output=True)
        self.bin = directory / "bin"
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python")]
        pip += ["install", "--quiet", "--no-index", "--no-deps", str(wheel)]
        subprocess.run(pip, check=True, env=bare_environment(), cwd=directory)
        self.directory = directory
        package = "import mooncake, pathlib; print(pathlib.Path(mooncake.__file__).parent)"
        self.package = Path(self.run("python", "-c", package).stdout.strip())

    def run(self, program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(self.bin / program), *arguments],
            env=bare_environment(**variables),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=2 * LIMIT_S,
        )


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Installed:
    return Installed(sys.executable, tmp_path_factory.mktemp("environment") / "venv", wheel)


def test_the_readme_installs_what_is_made(wheel):
    command = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("make wheel && "))
    pattern = command.rsplit("pip install ", 1)[1].replace("$(uname -m)", os.uname().machine)
    assert fnmatch.fnmatch(f"dist/{wheel.name}", pattern), f"{pattern} is not dist/{wheel.name}"


def test_name_and_contents(wheel):
    name = wheel.name
    assert name.startswith("mooncake_transfer-") and "-py3-none-manylinux_2_" in name, name
    names = set(zipfile.ZipFile(wheel).namelist())
    for wanted in (
        "mooncake/engine/__init__.py",
        "mooncake/store/__init__.py",
        "mooncake/py.typed",
        "mooncake/lib/libmooncake_transfer.so",
        "mooncake/lib/libtransfer_engine.so",
        "mooncake/lib/cann-sim/libcann_sim.so",
        "mooncake/lib/cann-sim/libascendcl.so",
        "mooncake/lib/cann-sim/libhcomm.so",
        "mooncake/include/mooncake_transfer.h",
        "mooncake/include/transfer_engine_c.h",
        "mooncake/include/mooncake_transfer.hpp",
        "mooncake/bin/mooncake",
        "mooncake/bin/transfer_engine_bench",
        "mooncake/bin/mooncake_master",
    ):
        assert wanted in names, wanted
    assert not [name for name in names if name.endswith(".pyc")]


def test_a_newer_glibc_than_allowed_is_refused(tmp_path):
    command = [sys.executable, str(PACKAGE / "build_wheel.py"), "--built", str(built()), "--output", str(tmp_path)]
    outcome = subprocess.run([*command, "--glibc", "2.3"], capture_output=True, text=True)
    assert outcome.returncode != 0 and "allowed is 2.3" in outcome.stderr


def test_it_lies_in_the_environment_and_moves_memory(installed):
    assert str(installed.package).startswith(str(installed.directory))
    example = ROOT / "examples" / "python" / "transfer.py"
    outcome = installed.run("python", str(example))
    assert outcome.returncode == 0, outcome.stderr
    assert "131072 bytes" in outcome.stdout and "right" in outcome.stdout


def test_the_source_tree_needs_no_installation(tmp_path):
    """With ffi/python on PYTHONPATH the package finds target/release of its tree."""
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "include", tree / "include")
    shutil.copytree(PACKAGE / "mooncake", tree / "ffi" / "python" / "mooncake")
    (tree / "target").mkdir()
    (tree / "target" / "release").symlink_to(built())
    environment = {**bare_environment(), "PYTHONPATH": str(tree / "ffi" / "python")}
    example = str(ROOT / "examples" / "python" / "transfer.py")
    outcome = subprocess.run([sys.executable, example], env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    assert outcome.returncode == 0, outcome.stderr
    assert "right" in outcome.stdout


def test_pip_builds_it_from_the_source_tree(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "-w", str(tmp_path), str(PACKAGE)]
    environment = bare_environment()
    environment["CARGO_TARGET_DIR"] = str(built().parent)
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert [path.name.split("-")[0] for path in tmp_path.glob("*.whl")] == ["mooncake_transfer"]


def test_every_python_from_3_9_on(wheel, tmp_path):
    found = {}
    for minor in range(9, 15):
        places = [shutil.which(f"python3.{minor}")]
        places += glob.glob(os.path.expanduser(f"~/.pyenv/versions/3.{minor}.*/bin/python3"))
        for place in filter(None, places):
            probe = subprocess.run([place, "-c", "import sys, venv; print(sys.version_info[1])"], capture_output=True, text=True)
            if probe.returncode == 0 and probe.stdout.strip() == str(minor):
                found[minor] = place
                break
    others = {minor: place for minor, place in found.items() if minor != sys.version_info[1]}
    if not others:
        pytest.skip("this machine has one Python only")
    for minor, place in others.items():
        environment = Installed(place, tmp_path / f"3.{minor}", wheel)
        outcome = environment.run("python", str(ROOT / "examples" / "python" / "transfer.py"))
        assert outcome.returncode == 0, (minor, outcome.stderr)
        assert "right" in outcome.stdout, minor


def test_console_scripts(installed):
    assert "mooncake " in installed.run("mooncake", "--version").stdout
    assert "--segment_id" in installed.run("transfer_engine_bench", "--help").stdout
    assert installed.run("mooncake_master", "--version").returncode == 0
    assert "metadata" in installed.run("mooncake_http_metadata_server", "--help").stdout
    assert '"cpu:0"' in installed.run("transfer_engine_topology_dump").stdout
    assert "--global_segment_size" in installed.run("mooncake_client", "--help").stdout
    assert "--max-wait-time" in installed.run("mc_store_rest_server", "--help").stdout


POOL = """
import subprocess, sys
from mooncake.store import MooncakeDistributedStore, last_error
ports = ["--port=0", "--rpc_port=0", "--metrics_port=0", "--rpc_address=127.0.0.1", "--metrics_host=127.0.0.1"]
master = subprocess.Popen([sys.argv[1], *ports], stderr=subprocess.PIPE, text=True)
try:
    line = next(line for line in master.stderr if " rpc=" in line)
    address = line.partition(" rpc=")[2].split()[0].strip(",")
    store = MooncakeDistributedStore()
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", 32 << 20, 1 << 20, "tcp", "", address) == 0, last_error()
    assert store.put("key", b"value") == 0 and store.get("key") == b"value"
    print("the value is right")
finally:
    master.terminate()
    master.wait()
"""


def test_the_store_with_its_master(installed):
    outcome = installed.run("python", "-c", POOL, str(installed.bin / "mooncake_master"))
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == "the value is right\n"


def test_doctor_without_cann_explains_itself(installed):
    outcome = installed.run("mooncake", "doctor", ASCEND_HOME_PATH="/nonexistent")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "CANN was not found" in outcome.stdout and "tried /nonexistent" in outcome.stdout
    assert "set_env.sh" in outcome.stdout


def test_it_wins_over_another_distribution_of_the_same_name(wheel, tmp_path):
    environment = Installed(sys.executable, tmp_path / "venv", wheel)
    (environment.package / "engine.so").write_bytes(b"no library at all")
    (environment.package / "store.so").write_bytes(b"no library at all")
    code = "from mooncake.engine import TransferEngine; print(TransferEngine().get_local_topology())"
    outcome = environment.run("python", "-W", "always", "-c", code)
    assert outcome.returncode == 0, outcome.stderr
    assert '"cpu:0"' in outcome.stdout
    assert "files of another distribution (engine.so, store.so)" in outcome.stderr
    assert "engine.so belongs to another distribution" in environment.run("mooncake", "--version").stderr


def upstreams_files() -> Path:
    """The package of upstream's newest wheel, as pip has installed it for the tests with upstream's peers."""
    peers = Path(os.environ.get("MOONCAKE_TRANSFER_PEERS", built().parent / "peers"))
    found = sorted(peers.glob("0.3.13.post1/lib/python3*/site-packages/mooncake"))
    if not found:
        pytest.skip(f"upstream's wheel is not in {peers}; tests/interop/make_peers.sh puts it there")
    return found[0]


@pytest.mark.parametrize("first", ["upstream", "ours"])
def test_it_wins_over_upstreams_wheel(wheel, tmp_path, first):
    """Both wheels write into one folder; what is there in both has the later one's content."""
    theirs = upstreams_files()
    environment = Installed(sys.executable, tmp_path / "venv", wheel)
    if first == "upstream":
        ours = tmp_path / "ours"
        environment.package.rename(ours)
        shutil.copytree(theirs, environment.package)
        shutil.copytree(ours, environment.package, dirs_exist_ok=True)
    else:
        shutil.copytree(theirs, environment.package, dirs_exist_ok=True)
    assert (environment.package / "engine.so").is_file()
    example = ROOT / "examples" / "python" / "transfer.py"
    outcome = environment.run("python", "-W", "always", str(example))
    assert outcome.returncode == 0, outcome.stderr
    assert "131072 bytes" in outcome.stdout and "right" in outcome.stdout
    assert "files of another distribution" in outcome.stderr and "engine.so" in outcome.stderr
