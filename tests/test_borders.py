"""Who may know whom in csrc/: every folder includes what stands below it, and nothing above."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "csrc"

# From the lowest. All may read the public headers in include/, which know none of them.
LADDER = ("simd", "kernels", "runtime", "schedule", "weights", "cells", "passes", "files", "c")

# A function of the C++ library would be compiled for one instruction set and perhaps linked for
# all. kernel_symbols.sh looks for that in the objects, this for its cause.
KERNEL_LIBRARIES = {"cstdint", "stdint.h", "string.h", "immintrin.h", "arm_neon.h"}
KERNEL_LIBRARIES |= {"math.h", "stdlib.h"}  # where there is one target only

# What a system has and others lack. "runtime/system.hpp" has a file for each system behind it.
SYSTEM = re.compile(
    r"<(sys/[a-z]+|unistd|pthread|sched|dlfcn|fcntl|signal|csignal|windows|process|mach/[a-z_]+)(\.h)?>"
    r"|\b(__linux__|__unix__|__APPLE__|__FreeBSD__|_WIN32|__MINGW32__|__GLIBC__)\b"
)

# What GCC and Clang have beside C++, and the two files that do without where the compiler does.
BESIDE_CPP = re.compile(
    r"\b(__builtin_\w+|__attribute__|__extension__|__int128|__typeof__|typeof|vector_size)\b"
    r"|\b(__asm__|__asm|asm)\b *(volatile)? *\("  # inline assembly
    r"|\(\{"  # a statement that is an expression
)
# Braces are arguments as well: f({...}).
IN_A_CALL = re.compile(r"\w>?\(\{$")
FOR_COMPILERS = ["compiler.hpp", "lanes.hpp"]

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def includes(text: str) -> list[tuple[str, str]]:
    """The included names, each with its kind: ``<`` or ``"``."""
    return INCLUDE.findall(text)


def wrong_include(folder: str, kind: str, name: str) -> str | None:
    """What is wrong with an include in a file of ``csrc/folder``; None if nothing is.

    ``folder`` is ``include`` for public headers. Quoted names start at ``csrc`` or at
    ``csrc/include``.
    """
    if folder != "include" and folder not in LADDER:
        return f"{folder} is not on the ladder"
    if name == "Python.h" or name.startswith(("pybind11", "numpy")):
        return "the core must not know Python"
    if kind == "<":
        if folder in ("simd", "kernels") and name not in KERNEL_LIBRARIES:
            return "kernels must not use the C++ library"
        return None
    top, slash, _ = name.partition("/")
    if not slash:
        return "what is in quotes starts with its folder"
    if top == "fastlstm":
        return None
    if top not in LADDER:
        return f"{top} is not on the ladder"
    if folder == "include":
        return "public headers know no others"
    if LADDER.index(top) > LADDER.index(folder):
        return f"{folder} must not know {top}, which is above it"
    return None


def all_files() -> list[Path]:
    return sorted(f for f in SOURCE.rglob("*") if f.suffix in (".hpp", ".cpp", ".h", ".c"))


def all_includes() -> Iterator[tuple[Path, str, str, str]]:
    """All includes of the core: file, folder, kind and name."""
    for file in all_files():
        for kind, name in includes(file.read_text(encoding="utf-8")):
            yield file, file.relative_to(SOURCE).parts[0], kind, name


def test_nothing_includes_upwards() -> None:
    wrong = [
        f"{file.relative_to(SOURCE.parent)}: {name}: {reason}"
        for file, folder, kind, name in all_includes()
        if (reason := wrong_include(folder, kind, name)) is not None
    ]
    assert not wrong, "\n".join(wrong)


def test_one_file_for_each_system_calls_it() -> None:
    wrong, right = [], []
    for file in all_files():
        if SYSTEM.search(file.read_text(encoding="utf-8")) is not None:
            (right if file.name.startswith("system_") else wrong).append(file.name)
    assert not wrong
    assert right == [
        "system_linux.cpp",
        "system_macos.cpp",
        "system_posix.cpp",
        "system_windows.cpp",
    ]


def test_two_files_have_what_compilers_add_to_cpp() -> None:
    found = {}
    for file in all_files():
        code = re.sub(r"//.*", "", file.read_text(encoding="utf-8"))
        used = [m[0] for m in BESIDE_CPP.finditer(code) if not IN_A_CALL.search(code[: m.end()])]
        if used:
            found[file.name] = used
    assert sorted(found) == FOR_COMPILERS, found


def test_includes_are_found() -> None:
    assert any(
        folder == "kernels" and name == "simd/vec.hpp" for _, folder, _, name in all_includes()
    )
    assert includes('#include "a/b.hpp"\n  # include <c>\n// #include <d>\n') == [
        ('"', "a/b.hpp"),
        ("<", "c"),
    ]


@pytest.mark.parametrize(
    ("folder", "kind", "name", "reason"),
    [
        ("simd", '"', "kernels/list.hpp", "above"),
        ("kernels", '"', "runtime/cpu.hpp", "above"),
        ("kernels", "<", "vector", "C++ library"),
        ("runtime", '"', "passes/tape.hpp", "above"),
        ("weights", '"', "cells/lstm.hpp", "above"),
        ("cells", '"', "news/all.hpp", "not on the ladder"),
        ("news", '"', "simd/vec.hpp", "not on the ladder"),
        ("include", '"', "runtime/cpu.hpp", "public"),
        ("passes", "<", "pybind11/pybind11.h", "Python"),
        ("passes", '"', "tape.hpp", "starts with its folder"),
    ],
)
def test_wrong_includes_are_seen(folder: str, kind: str, name: str, reason: str) -> None:
    assert reason in (wrong_include(folder, kind, name) or "")


@pytest.mark.parametrize(
    ("folder", "kind", "name"),
    [
        ("simd", '"', "fastlstm/types.hpp"),
        ("kernels", '"', "kernels/tile.hpp"),
        ("passes", '"', "schedule/row_schedule.hpp"),
        ("weights", "<", "vector"),
        ("include", '"', "fastlstm/types.hpp"),
    ],
)
def test_right_includes_pass(folder: str, kind: str, name: str) -> None:
    assert wrong_include(folder, kind, name) is None
