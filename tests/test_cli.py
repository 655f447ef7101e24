"""The command line: what it prints, its exit codes, and what it says when an extra is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fastlstm
import pytest
from fastlstm.cli import main


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True)


def test_version_of_the_module() -> None:
    result = python("-m", "fastlstm", "--version")
    assert (result.returncode, result.stdout) == (0, f"fastlstm {fastlstm.__version__}\n")


def test_exit_code_of_the_module() -> None:
    result = python("-m", "fastlstm")
    assert result.returncode == 2
    assert "COMMAND" in result.stderr


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert capsys.readouterr().out == fastlstm.show_config() + "\n"


def test_info_on_all(capsys: pytest.CaptureFixture[str]) -> None:
    """What is tuned: a line for each value of the core's table, after what is always shown."""
    assert main(["info", "--all"]) == 0
    out = capsys.readouterr().out
    assert out == fastlstm.show_config(all=True) + "\n"
    assert out.startswith(fastlstm.show_config())
    header = Path(__file__).parents[1] / "csrc" / "runtime" / "tuning.hpp"
    table = re.findall(r"^  X\((\w+), ", header.read_text(), re.MULTILINE)
    lines = [line.split() for line in out.splitlines() if line.startswith("  ")]
    assert [name for name, *_ in lines] == table
    assert all(float(value) > 0 and meaning for _, value, *meaning in lines)
    with pytest.raises(TypeError, match="all: expected True or False"):
        fastlstm.show_config(all="yes")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "COMMAND"),
        (["dance"], "invalid choice"),
        (["demo", "--seed", "-1"], "expected a number from 0 to 4294967295, got -1"),
        (["demo", "--seed", "one"], "--seed"),
        (["demo", "--fast"], "--fast"),
        (["info", "all"], "all"),
    ],
)
def test_wrong_arguments(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_demo_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Path, int, bool]] = []

    def run(out: Path, *, seed: int, quiet: bool) -> None:
        calls.append((out, seed, quiet))

    monkeypatch.setitem(sys.modules, "fastlstm.demo", SimpleNamespace(run=run))
    assert main(["demo"]) == 0
    assert main(["demo", "--out", "here", "--seed", "3", "--quiet"]) == 0
    assert calls == [(Path("fastlstm-demo"), 0, False), (Path("here"), 3, True)]


def test_demo_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file"
    path.touch()
    assert main(["demo", "--out", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fastlstm demo: ")
    assert str(path) in error


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("demo", "statsmodels"),
        ("demo", "matplotlib"),
        ("demo", "tqdm"),
        ("bench", "fastlstm_bench"),
    ],
)
def test_missing_extras(command: str, missing: str) -> None:
    # None in sys.modules makes an import fail as if the module were not there.
    result = python(
        "-c",
        f"import sys; sys.modules[{missing!r}] = None\n"
        f"from fastlstm.cli import main; sys.exit(main([{command!r}]))",
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"fastlstm {command} needs the package {missing}: pip install 'fastlstm[{command}]'\n"
    )


def test_bench_takes_all_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def bench(argv: list[str]) -> int:
        calls.append(argv)
        return 7

    monkeypatch.setitem(sys.modules, "fastlstm_bench", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "fastlstm_bench.cli", SimpleNamespace(main=bench))
    assert main(["bench", "--help", "run", "--threads", "2"]) == 7
    assert calls == [["--help", "run", "--threads", "2"]]


def test_heavy_imports_wait_for_their_command() -> None:
    result = python(
        "-c",
        "import sys; from fastlstm.cli import main; main(['info'])\n"
        "print({'statsmodels', 'matplotlib', 'tqdm', 'torch', 'fastlstm_bench'} & {*sys.modules})",
    )
    assert result.returncode == 0
    assert result.stdout.endswith("\nset()\n")


@pytest.mark.parametrize(
    "argv", [["info"], ["--help"], ["--version"], ["bench", "--list"], ["bench", "--help"]]
)
def test_nobody_reads_the_output(argv: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        result = subprocess.run(
            [sys.executable, "-m", "fastlstm", *argv],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": ""},  # unbuffered, argparse hides the error
        )
    assert (result.returncode, result.stderr) == (141, "")


def test_bench_into_a_folder_that_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--case", "lstm-step-B1-H64", "--out", "/proc/x"]) == 2
    error = capsys.readouterr().err
    assert error == "fastlstm bench: [Errno 2] No such file or directory: '/proc/x'\n"
