"""The same twenty lines in C, C++ and Python, and the C++ face from C++; with what `make install` lays out."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import LIMIT_S, ROOT, built, clean_environment

RIGHT = "the bytes are right"


def run(*command: str, **variables: str) -> str:
    outcome = subprocess.run(
        list(command), env=clean_environment(**variables), capture_output=True, text=True, timeout=2 * LIMIT_S
    )
    assert outcome.returncode == 0, f"{command}\n{outcome.stdout}{outcome.stderr}"
    return outcome.stdout


def compiler(name: str) -> str:
    # The tests' own environment may have it where the machine has not.
    found = shutil.which(name, path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def link() -> list[str]:
    return ["-I", str(ROOT / "include"), "-L", str(built()), f"-Wl,-rpath,{built()}", "-lmooncake_transfer"]


def test_c(tmp_path):
    program = str(tmp_path / "read")
    source = str(ROOT / "examples" / "c" / "read.c")
    run(compiler("cc"), "-Wall", "-Wextra", "-Werror", source, "-o", program, *link())
    assert RIGHT in run(program)


def test_the_readme_has_the_example_in_c():
    assert (ROOT / "examples" / "c" / "read.c").read_text() in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["g++", "clang++"])
@pytest.mark.parametrize("source", ["examples/cpp/transfer.cpp", "tests/cpp/face.cpp"])
def test_cpp(tmp_path, name, source):
    program = str(tmp_path / "program")
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]
    run(compiler(name), *flags, str(ROOT / source), "-o", program, *link())
    output = run(program)
    assert RIGHT in output or output == "ok\n"


def test_python():
    assert RIGHT in run(sys.executable, str(ROOT / "examples" / "python" / "transfer.py"))


def test_the_readme_in_python():
    text = (ROOT / "README.md").read_text()
    code = text.split("```python\n", 1)[1].split("```", 1)[0]
    assert RIGHT in run(sys.executable, "-c", code)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    target = tmp_path_factory.mktemp("install")
    settings = [f"RELEASE_DIR={built()}", f"PREFIX={target}", "DESTDIR="]
    run("make", "-C", str(ROOT), "install-files", *settings)
    return target


def test_pkg_config(prefix, tmp_path):
    compiler("pkg-config")
    flags = run("pkg-config", "--cflags", "--libs", "mooncake-transfer", PKG_CONFIG_PATH=str(prefix / "lib/pkgconfig"))
    program = str(tmp_path / "program")
    source = str(ROOT / "examples" / "cpp" / "transfer.cpp")
    run(compiler("g++"), "-std=c++17", source, "-o", program, *flags.split())
    assert RIGHT in run(program, LD_LIBRARY_PATH=str(prefix / "lib"))


def test_cmake(prefix, tmp_path):
    cmake = compiler("cmake")
    source, build = str(ROOT / "examples" / "cpp"), str(tmp_path / "build")
    run(cmake, "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    run(cmake, "--build", build)
    assert RIGHT in run(os.path.join(build, "transfer"))


def test_the_installed_command_finds_its_programs(prefix):
    command = prefix / "bin" / "mooncake"
    assert "mooncake " in run(str(command), "--version")
    assert "--segment_id" in run(str(command), "bench", "--help")
