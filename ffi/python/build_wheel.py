#!/usr/bin/env python3
"""Packs what was built into a wheel that serves every Python from 3.9 on.

Usage: build_wheel.py --built DIRECTORY --output DIRECTORY [--glibc 2.28] [--architecture x86_64]

The platform tag is not claimed but read: it is the newest version of the C library's symbols that any file of the
wheel asks for, and --glibc makes a newer one an error. Needs nothing but Python and readelf.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Optional

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NAME = "mooncake_transfer"
OLDEST_TAG = (2, 17)
LIBRARY = "libmooncake_transfer.so"
PROGRAMS = ("mooncake", "transfer_engine_bench", "mooncake_master", "cann-sim-control", "cann-probe")
# A build of a part of the tree still makes a wheel.
OPTIONAL_PROGRAMS = frozenset(("cann-sim-control", "cann-probe"))
SCRIPTS = (
    "mc_store_rest_server",
    "mooncake",
    "mooncake_client",
    "mooncake_http_metadata_server",
    "mooncake_master",
    "transfer_engine_bench",
    "transfer_engine_topology_dump",
)
ALLOWED_LIBRARIES = re.compile(
    r"lib(c|m|dl|pthread|rt|gcc_s)\.so\.\d+|ld-linux-[\w-]+\.so\.\d+|lib(cann_sim|runtime|acl_rt|hcomm)\.so"
)
# The numbers of the processors in an ELF header.
MACHINES = {"x86_64": 62, "aarch64": 183}
# The time stamp of every file, so that the same inputs give the same wheel.
STAMP = (2026, 1, 1, 0, 0, 0)


def version() -> str:
    """The workspace's version, which library, header and package share."""
    text = (ROOT / "Cargo.toml").read_text()
    found = re.search(r'^version = "(.*)"', text, re.MULTILINE)
    assert found is not None
    return found.group(1)


def readelf(path: Path, *options: str) -> str:
    """What readelf says about a file."""
    return subprocess.run(["readelf", "-W", *options, str(path)], check=True, capture_output=True, text=True).stdout


def newest_glibc(paths: list[Path]) -> tuple[int, int]:
    """The newest C library that any of the files asks for."""
    newest = (0, 0)
    for path in paths:
        for major, minor in re.findall(r"GLIBC_(\d+)\.(\d+)", readelf(path, "--version-info")):
            newest = max(newest, (int(major), int(minor)))
    return newest


def check_machine(path: Path, architecture: str) -> None:
    """Refuses a file for another processor: a stub that the host's compiler made, for example."""
    number = int.from_bytes(path.read_bytes()[18:20], "little")
    if number != MACHINES[architecture]:
        raise SystemExit(f"{path.name} is not for {architecture}: its ELF machine is {number}")


def check_needed(path: Path) -> None:
    """Refuses a file that needs a library which is not on every machine."""
    for library in re.findall(r"\(NEEDED\).*\[(.*)\]", readelf(path, "-d")):
        if not ALLOWED_LIBRARIES.fullmatch(library):
            raise SystemExit(f"{path.name} needs {library}, which a machine may not have")


def place(source: Path, target: Path, architecture: str) -> Path:
    """Copies a library or program, without debugging information where the tools can take it out."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
    if architecture == platform.machine() and shutil.which("strip"):
        subprocess.run(["strip", "--strip-debug", str(target)], check=True)
    target.chmod(0o755)
    return target


def stage(built: Path, tree: Path, architecture: str) -> list[Path]:
    """Lays the package out under tree; the ELF files in it."""
    package = tree / "mooncake"
    shutil.copytree(HERE / "mooncake", package, ignore=shutil.ignore_patterns("__pycache__"))
    elves = [place(built / LIBRARY, package / "lib" / LIBRARY, architecture)]
    # A linker script: programs that link with -ltransfer_engine get our library under its own name.
    (package / "lib" / "libtransfer_engine.so").write_text(f"INPUT({LIBRARY})\n")
    simulator = package / "lib" / "cann-sim"
    elves.append(place(built / "libcann_sim.so", simulator / "libcann_sim.so", architecture))
    for path in sorted((built / "cann-sim").glob("*.so")):
        elves.append(place(path, simulator / path.name, architecture))
    for program in PROGRAMS:
        if program in OPTIONAL_PROGRAMS and not (built / program).is_file():
            continue
        elves.append(place(built / program, package / "bin" / program, architecture))
    for pattern in ("*.h", "*.hpp"):
        for header in sorted((ROOT / "include").glob(pattern)):
            (package / "include").mkdir(exist_ok=True)
            shutil.copy2(header, package / "include" / header.name)
    return elves


def metadata(tag: str) -> dict[str, str]:
    """The files of the wheel's dist-info directory."""
    scripts = "".join(f"{script} = mooncake._programs:{script}\n" for script in SCRIPTS)
    return {
        "METADATA": (
            "Metadata-Version: 2.1\n"
            "Name: mooncake-transfer\n"
            f"Version: {version()}\n"
            "Summary: Moves KV caches between Ascend NPUs: a drop-in replacement for the Mooncake transfer engine\n"
            "License: Apache-2.0\n"
            "Requires-Python: >=3.9\n"
            "Description-Content-Type: text/markdown\n\n" + (ROOT / "README.md").read_text()
        ),
        "WHEEL": f"Wheel-Version: 1.0\nGenerator: build_wheel.py\nRoot-Is-Purelib: false\nTag: py3-none-{tag}\n",
        "entry_points.txt": f"[console_scripts]\n{scripts}",
        "top_level.txt": "mooncake\n",
    }


def pack(tree: Path, information: dict[str, str], wheel: Path) -> None:
    """Writes the archive with its list of hashes."""
    folder = f"{NAME}-{version()}.dist-info"
    record: list[str] = []
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(name: str, data: bytes, mode: int) -> None:
            entry = zipfile.ZipInfo(name, STAMP)
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}")

        for path in sorted(tree.rglob("*")):
            if path.is_file():
                add(path.relative_to(tree).as_posix(), path.read_bytes(), 0o755 if path.stat().st_mode & 0o100 else 0o644)
        for name, text in information.items():
            add(f"{folder}/{name}", text.encode(), 0o644)
        add(f"{folder}/LICENSE", (ROOT / "LICENSE").read_bytes(), 0o644)
        record.append(f"{folder}/RECORD,,")
        archive.writestr(zipfile.ZipInfo(f"{folder}/RECORD", STAMP), "\n".join(record) + "\n")


def make(built: Path, output: Path, glibc: Optional[str], architecture: str) -> Path:
    """Builds the wheel; its path."""
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory)
        elves = stage(built, tree, architecture)
        for path in elves:
            check_machine(path, architecture)
            check_needed(path)
        floor = max(newest_glibc(elves), OLDEST_TAG)
        if glibc:
            wanted = tuple(int(part) for part in glibc.split("."))
            if floor > wanted:
                found = ".".join(map(str, floor))
                raise SystemExit(f"a file asks for glibc {found}, allowed is {glibc}: use `make wheel`")
            floor = (wanted[0], wanted[1])
        tag = f"manylinux_{floor[0]}_{floor[1]}_{architecture}"
        output.mkdir(parents=True, exist_ok=True)
        wheel = output / f"{NAME}-{version()}-py3-none-{tag}.whl"
        pack(tree, metadata(tag), wheel)
        return wheel


def build_wheel(wheel_directory: str, config_settings: object = None, metadata_directory: Optional[str] = None) -> str:
    """What pip calls for `pip install ./ffi/python`: packs the release build of the tree (see pyproject.toml)."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return make(target / "release", Path(wheel_directory), None, platform.machine()).name


def main() -> int:
    """Builds the wheel and prints its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--built", type=Path, required=True, help="directory of the release build")
    parser.add_argument("--output", type=Path, required=True, help="directory for the wheel")
    parser.add_argument("--glibc", help="newest C library that the wheel may ask for, for example 2.28")
    parser.add_argument("--architecture", default=platform.machine())
    arguments = parser.parse_args()
    print(make(arguments.built, arguments.output, arguments.glibc, arguments.architecture))
    return 0


if __name__ == "__main__":
    sys.exit(main())
