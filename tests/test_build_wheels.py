"""What tools/build_wheels.py refuses; that it builds, CI shows."""

from __future__ import annotations

import importlib.util
import re
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SUFFIX = ".cpython-310-x86_64-linux-gnu.so"
NAMES = (
    *("fastlstm/py.typed", "fastlstm/_core.pyi", f"fastlstm/_core{SUFFIX}"),
    *(f"fastlstm/_scipy_blas{SUFFIX}", f"fastlstm_bench/_limits{SUFFIX}"),
    *("fastlstm_bench/cli.py", "fastlstm/examples/text.py"),
    "fastlstm-0.1.0.dist-info/licenses/LICENSE",
)


@pytest.fixture(scope="module")
def tool() -> Any:
    spec = importlib.util.spec_from_file_location("build_wheels", ROOT / "tools/build_wheels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_wheel(
    folder: Path,
    names: Iterable[str],
    data: bytes = b"",
    platform: str = "linux_x86_64",
    python: str = "cp310-cp310",
) -> Path:
    wheel = folder / f"fastlstm-0.1.0-{python}-{platform}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in names:
            archive.writestr(name, data)
    return wheel


def test_pythons_are_the_same_wherever_they_are_named(tool: Any) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    required = re.search(r'requires-python = ">=(3\.\d+)"', text)
    assert required is not None
    assert tool.claimed_versions()[0] == required[1]
    built = re.findall(r'"cp3(\d+)-\*"', text)  # cibuildwheel's
    assert tool.claimed_versions() == [f"3.{minor}" for minor in built]
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in tool.claimed_versions()


def test_files_of_a_wheel(tool: Any, tmp_path: Path) -> None:
    tool.check_files(make_wheel(tmp_path, NAMES))
    for k in range(len(NAMES)):
        with pytest.raises(tool.WheelError, match="lacks"):
            tool.check_files(make_wheel(tmp_path, NAMES[:k] + NAMES[k + 1 :]))
    with pytest.raises(tool.WheelError, match="has build"):
        tool.check_files(make_wheel(tmp_path, [*NAMES, "build/x.o"]))
    with pytest.raises(tool.WheelError, match="bytes, at most"):
        tool.check_files(make_wheel(tmp_path, NAMES, bytes(tool.MOST_BYTES // 6)))


@pytest.mark.parametrize(
    ("platform", "good"),
    [
        ("manylinux_2_24_x86_64.manylinux_2_28_x86_64", True),
        ("manylinux_2_24_aarch64", True),
        ("manylinux_2_34_aarch64", False),
        ("linux_aarch64", False),
    ],
)
def test_platforms_of_a_wheel(tool: Any, platform: str, good: bool) -> None:
    wheel = Path(f"fastlstm-0.1.0-cp310-cp310-{platform}.whl")
    if good:
        tool.check_platform(wheel)
    else:
        with pytest.raises(tool.WheelError, match="is not for manylinux_2_28"):
            tool.check_platform(wheel)


def test_modules_have_the_names_that_the_wheels_python_looks_for(tool: Any, tmp_path: Path) -> None:
    x86 = "manylinux_2_27_x86_64.manylinux_2_28_x86_64"
    tool.check_files(make_wheel(tmp_path, NAMES, platform=x86))
    arm = "manylinux_2_28_aarch64"
    with pytest.raises(tool.WheelError, match=r"looks for [.]cpython-310-aarch64-linux-gnu[.]so"):
        tool.check_files(make_wheel(tmp_path, NAMES, platform=arm))
    names = [name.replace("x86_64", "aarch64") for name in NAMES]
    tool.check_files(make_wheel(tmp_path, names, platform=arm))
    names = [name.replace("-310-", "-313t-") for name in NAMES]
    tool.check_files(make_wheel(tmp_path, names, python="cp313-cp313t"))
    with pytest.raises(tool.WheelError, match=r"looks for [.]cpython-313-x86_64-linux-gnu[.]so"):
        tool.check_files(make_wheel(tmp_path, names, python="cp313-cp313"))


def test_what_tries_a_wheel_without_readers_is_what_tries_others(tool: Any) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    of_musl = re.search(r"test-requires = \[(.*)\]", text)
    assert of_musl is not None
    assert tuple(re.findall(r'"([^"]*)"', of_musl[1])) == tool.TESTERS
    of_extra = re.search(r"test-wheel = \[\n(.*?)\n\]", text, re.DOTALL)
    assert of_extra is not None
    assert set(tool.TESTERS) < set(re.findall(r'"([^"]*)"', of_extra[1]))


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux's wheels")
def test_symbols_of_a_wheel(tool: Any, tmp_path: Path) -> None:
    pytest.importorskip("elftools")
    own = next(Path(fastlstm.__file__).parent.glob("_scipy_blas.*.so")).read_bytes()
    tool.check_symbols(make_wheel(tmp_path, NAMES, own))
    numpys = next(Path(np.__file__).parent.parent.glob("numpy.libs/*openblas*.so"), None)
    if numpys is None:
        pytest.skip("NumPy has no library of its own here")
    with pytest.raises(tool.WheelError, match="shows"):
        tool.check_symbols(make_wheel(tmp_path, NAMES, numpys.read_bytes()))


def test_what_fails_is_printed(tool: Any) -> None:
    with pytest.raises(tool.WheelError, match="of no use"):
        tool.run(sys.executable, "-c", "raise SystemExit('of no use')")
