#!/usr/bin/env python3
"""Makes mooncake/_abi.py, the ctypes side of the C interface, from the headers in include/.

Usage: generate_abi.py [--check]. With --check nothing is written; the exit code says whether the file is up to
date. The headers are the contract: types, numbers and prototypes are read from them and stand nowhere else.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
INCLUDE = HERE.parent.parent / "include"
OUTPUT = HERE / "mooncake" / "_abi.py"
HEADERS = ("transfer_engine_c.h", "store_c.h", "mooncake_transfer.h")

SCALARS = {
    "int": "c_int",
    "int32_t": "c_int32",
    "uint32_t": "c_uint32",
    "int64_t": "c_int64",
    "uint64_t": "c_uint64",
    "size_t": "c_size_t",
    "double": "c_double",
}

# Read only inside this file; no function of the interface uses it.
UNUSED_STRUCTS = {"segment_desc"}


def strip_comments(text: str) -> str:
    """The header without comments."""
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


class Headers:
    """What the headers declare."""

    def __init__(self, texts: list[str]) -> None:
        self.macros: list[tuple[str, str]] = []
        self.aliases: dict[str, str] = {}
        self.enums: list[tuple[str, list[tuple[str, int]]]] = []
        self.sentences: dict[str, dict[str, str]] = {}
        self.structs: list[tuple[str, list[tuple[str, str]]]] = []
        self.callbacks: list[tuple[str, str, list[str]]] = []
        self.functions: list[tuple[str, str, list[tuple[str, str]]]] = []
        for text in texts:
            self.read(strip_comments(text))
            self.read_sentences(text)

    def read_sentences(self, text: str) -> None:
        """The comments of the members of those enums that have one for each."""
        for name, body in re.findall(r"^enum (\w+) \{(.*?)^\};", text, re.DOTALL | re.MULTILINE):
            commented = re.findall(r"/\*\* ([^*]*) \*/\s*(\w+) = ", body)
            if len(commented) == len(re.findall(r"\w+ = -?\d+", body)):
                self.sentences[name] = {member: sentence for sentence, member in commented}

    def read(self, text: str) -> None:
        """Reads one header."""
        for name, value in re.findall(r"^#define[ \t]+(\w+)[ \t]+(\S.*?)[ \t]*$", text, re.MULTILINE):
            if value in SCALARS:
                self.aliases[name] = value
            else:
                self.macros.append((name, value))
        code = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
        code = code.replace('extern "C" {', "")
        for name, body in re.findall(r"enum (\w+) \{(.*?)\};", code, re.DOTALL):
            members = re.findall(r"(\w+)\s*=\s*(-?\d+)", body)
            self.enums.append((name, [(member, int(value)) for member, value in members]))
        for name, body in re.findall(r"^struct (\w+) \{(.*?)^\};", code, re.DOTALL | re.MULTILINE):
            if name not in UNUSED_STRUCTS:
                fields = [field.strip() for field in body.split(";") if field.strip()]
                self.structs.append((name, [self.field(field) for field in fields]))
        for kind, name in re.findall(r"typedef ([\w *]+?)(\w+);", code):
            self.aliases[name] = kind.strip()
        for result, name, arguments in re.findall(r"typedef (\w+) \(\*(\w+)\)\((.*?)\);", code, re.DOTALL):
            kinds = [self.field(argument)[1] for argument in arguments.split(",")]
            self.callbacks.append((name, self.type(result), kinds))
        code = re.sub(r"(enum|struct) \w+ \{.*?^\};", "", code, flags=re.DOTALL | re.MULTILINE)
        code = re.sub(r"typedef [^;]*;", "", code)
        for statement in code.split(";"):
            match = re.fullmatch(r"\s*([\w *]+?)(\w+)\((.*)\)\s*", statement, re.DOTALL)
            if match is None:
                continue
            result, name, arguments = match.groups()
            listed = [] if arguments.strip() == "void" else arguments.split(",")
            self.functions.append((name, self.type(result), [self.field(argument) for argument in listed]))

    def field(self, declaration: str) -> tuple[str, str]:
        """Name and ctypes type of a field or an argument."""
        match = re.fullmatch(r"\s*(.*?)(\w+)(?:\[(\d+)\])?\s*", declaration, re.DOTALL)
        assert match is not None, declaration
        kind, name, length = match.groups()
        base = self.type(kind)
        return name, f"{base} * {length}" if length else base

    def type(self, declaration: str) -> str:
        """The ctypes type of a C type."""
        words = declaration.replace("*", " * ").replace("const", " ").split()
        stars = words.count("*")
        words = [word for word in words if word not in ("*", "struct")]
        name = " ".join(words)
        while name in self.aliases:
            resolved = self.aliases[name].replace("*", " * ").replace("struct", " ").split()
            stars += resolved.count("*")
            name = " ".join(word for word in resolved if word != "*")
        if name == "void":
            return {0: "None", 1: "c_void_p", 2: "POINTER(c_void_p)"}[stars]
        if name == "char":
            return {0: "c_char", 1: "c_char_p", 2: "POINTER(c_char_p)"}[stars]
        if any(name == callback for callback, _, _ in self.callbacks):
            return name
        base = SCALARS.get(name, name)
        for _ in range(stars):
            base = f"POINTER({base})"
        return base


def constant(value: str) -> str:
    """A macro's value as Python."""
    value = value.strip()
    if value == "UINT64_MAX":
        return "2**64 - 1"
    return re.sub(r"\((-?\d+)u?\)", r"\1", value)


def short(prefix: str, member: str) -> str:
    """An enum member without the prefix that C needs."""
    return member[len(prefix):] if member.startswith(prefix) else member


def render(headers: Headers) -> str:
    """The text of _abi.py."""
    lines = [
        '"""The C interface for ctypes. Generated from include/ by generate_abi.py; not edited by hand."""',
        "",
        "from __future__ import annotations",
        "",
        "import enum",
        "from ctypes import (",
        "    CDLL,",
        "    CFUNCTYPE,",
        "    POINTER,",
        "    Structure,",
    ]
    body: list[str] = []
    for name, value in headers.macros:
        body.append(f"{name} = {constant(value)}")
    for name, members in headers.enums:
        title = "".join(word.capitalize() for word in name.removeprefix("mooncake_transfer_").split("_"))
        prefixes = {
            "Stage": "MOONCAKE_TRANSFER_STAGE_",
            "LogLevel": "MOONCAKE_TRANSFER_LOG_",
            "StoreCode": "MOONCAKE_TRANSFER_STORE_",
        }
        prefix = prefixes.get(title, "MOONCAKE_TRANSFER_")
        body += ["", "", f"class {title}(enum.IntEnum):", f'    """enum {name}."""', ""]
        body += [f"    {short(prefix, member)} = {value}" for member, value in members]
        sentences = headers.sentences.get(name)
        if sentences is not None:
            body += ["", "", f"{name.removeprefix('mooncake_transfer_').upper()}_SENTENCES = {{"]
            body += [f'    {value}: "{sentences[member]}",' for member, value in members]
            body += ["}"]
    for name, fields in headers.structs:
        body += ["", "", f"class {name}(Structure):", f'    """struct {name}."""', "", "    _fields_ = ("]
        body += [f'        ("{field}", {kind}),' for field, kind in fields]
        body += ["    )"]
    body += ["", ""]
    for name, result, kinds in headers.callbacks:
        body.append(f"{name} = CFUNCTYPE({', '.join([result, *kinds])})")
    body += [
        "",
        "",
        "def declare(library: CDLL) -> None:",
        '    """Gives every function of the interface its types."""',
    ]
    for name, result, arguments in headers.functions:
        kinds = ", ".join(kind for _, kind in arguments)
        if len(arguments) == 1:
            kinds += ","
        # The array of notifications and every other text that the caller frees keep their pointer.
        body.append(f"    library.{name}.argtypes = ({kinds})")
        body.append(f"    library.{name}.restype = {result}")
    body += ["", "", "FUNCTIONS = ("]
    body += [f'    "{name}",' for name, _, _ in headers.functions]
    body += [")"]
    text = "\n".join(body)
    used = sorted({name for name in re.findall(r"\bc_\w+", text)})
    lines += [f"    {name}," for name in used] + [")", ""]
    return "\n".join(lines + body) + "\n"


def main() -> int:
    """Writes or checks the file."""
    text = render(Headers([(INCLUDE / header).read_text() for header in HEADERS]))
    if "--check" in sys.argv[1:]:
        fresh = OUTPUT.exists() and OUTPUT.read_text() == text
        if not fresh:
            print(f"{OUTPUT.name} is not what the headers say; run generate_abi.py", file=sys.stderr)
        return 0 if fresh else 1
    OUTPUT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
