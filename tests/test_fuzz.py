"""The fuzzers of tests/fuzz: each runs, and finds what it is there to find."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"
FUZZERS = sorted(p.stem for p in FUZZ.glob("*.py") if p.stem not in ("__main__", "frame"))
NEEDS = {"onnx_file": "onnx", "keras_file": "h5py"}


def fuzz(*arguments: str, path: Path = FUZZ) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(path)])}
    command = [sys.executable, str(FUZZ), *arguments, "--seed", "0"]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("name", FUZZERS)
def test_no_faults_in_some_cases(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    result = fuzz(name, "--cases", "40", "--seconds", "600")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "40 cases" in result.stdout


READER = """
def originals(folder):
    (folder / "a").write_bytes(b"good")

def read(path):
    data = open(path, "rb").read()
    if data != b"good":
        {fault}
"""


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("raise KeyError('x')", "builtins.KeyError at bad.py"),
        ("import os; os.abort()", "the process ended with -6"),
        ("b'x' * (100 << 20)", "MB of memory, at most 64 allowed"),
        ("import time; e = time.process_time() + 5.1\n        while time.process_time() < e: pass",
         "seconds"),
        ("import frame", ""),
    ],
)  # fmt: skip
def test_faults_are_found(fault: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(READER.format(fault=fault))
    result = fuzz("bad", "--cases", "2", path=tmp_path)
    assert result.returncode == (1 if found else 0), result.stdout + result.stderr
    assert found in result.stdout


def test_a_case_can_be_run_again(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(READER.format(fault="raise KeyError('again')"))
    result = fuzz("bad", "--case", "0", path=tmp_path)
    assert "KeyError: 'again'" in result.stderr
