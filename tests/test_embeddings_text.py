"""Text of vectors as people write it: its words and numbers, or a refusal, never others."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import mmap
import pickle
import zipfile
from pathlib import Path

import fastlstm
import numpy as np
import pytest
from damage import assert_reads_or_refuses
from fastlstm.embeddings import Embeddings, load
from test_embeddings import assert_has, binary_file, fasttext_file, saved_file

WORDS = ["the", "cat", ". . .", "a\u00a0b", "\u3000", "naïve", "2nd", "name@domain.com"]
VECTORS = np.float32([[n / 4, -n, 3e-5 * n] for n in range(len(WORDS))])
HEADER = f"{len(WORDS)} 3"


def text(between: str = " ", after: str = "", end: str = "\n", word: str = " ") -> str:
    return "".join(
        word.join([name, between.join(f"{x:g}" for x in row)]) + after + end
        for name, row in zip(WORDS, VECTORS, strict=True)
    )


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors"


@pytest.mark.parametrize("header", ["", f"{HEADER}\n", f"{HEADER.replace(' ', chr(9))} \r\n"])
@pytest.mark.parametrize(
    "lines",
    [
        text(),
        text(word="\t"),
        text(between="\t", word="\t"),
        text(between="\t"),
        text(between="  ", word="   "),
        text(between=" \t", word="\t "),
        text(after=" "),
        text(after=" \t "),
        text(after="\t", end="\r\n"),
        text() + "\n",
        text() + "\n\r\n \t\n\n",
        text() + "\n" * 1_200_000,
        text() + " ",
        text(after=" ")[:-1],
        text(end="\r\n")[:-1],
    ],
    ids=range(15),
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_layouts(mark: str, header: str, lines: str, path: Path) -> None:
    assert_has(load(write(path, mark + header + lines)), WORDS, VECTORS)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("header", ["", f"{HEADER}\n"])
@pytest.mark.parametrize("compress", [False, True])
def test_a_last_line_without_end(compress: bool, header: str, mark: str, path: Path) -> None:
    data = (mark + header + text()[:-1]).encode()
    write(path, gzip.compress(data) if compress else data)
    with pytest.warns(UserWarning, match="its last line has no end: .* cut off") as warnings:
        assert_has(load(path), WORDS, VECTORS)
    assert warnings[0].filename == __file__
    assert str(warnings[0].message).startswith(f"{path}: ")
    # No warning where that line was not read.
    assert_has(load(path, limit=3), WORDS[:3], VECTORS[:3])


@pytest.mark.parametrize("data", ["a 1 2", "2 2\na 1 2\nb 3", "a 1 2\nb 3", "a 1 2\nb", "3 2", "a"])
def test_a_last_line_that_lacks_numbers(data: str, path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{path}: "):
        load(write(path, data))


@pytest.mark.parametrize("unit", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("header", ["", f"{HEADER}\n"])
def test_other_unicode(header: str, mark: str, unit: str, path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{path}: "):
        load(write(path, (mark + header + text()).encode(unit)))
    if mark or unit == "utf-16-le":
        with pytest.raises(ValueError, match="UTF-16"):
            load(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "cp037", "zlib", "hex", "rot13"])
def test_encodings_without_ascii(encoding: str, path: Path) -> None:
    with pytest.raises(ValueError, match=r"^encoding"):
        load(write(path, text()), encoding=encoding)
    assert load(path, encoding="utf-8-sig").words == tuple(WORDS)


@pytest.mark.parametrize(
    "data",
    [
        "the,0.1,0.2\ncat,0.3,0.4\n",
        "the, 0.1, 0.2\ncat, 0.3, 0.4\n",
        "the;0.1;0.2\ncat;0.3;0.4\n",
        "the 0,1 0,2\ncat 0,3 0,4\n",
        "the 0,1 2\ncat 0,3 4\n",
        "the [0.1 0.2]\ncat [0.3 0.4]\n",
        "the [0.1, 0.2]\ncat [0.3, 0.4]\n",
        "the 0.1f 0.2\ncat 0.3f 0.4\n",
        "the 0x1.8p-3 0.2\ncat 0x1p0 0.4\n",
        "the 0.1\u00a00.2 0.3\ncat 0.3\u00a00.4 0.5\n",
        "the \u22120.1 0.2\ncat \u22120.3 0.4\n",
        "the 1_0 0.2\ncat 1_0 0.4\n",
        "the\tDET\t0.1\t0.2\ncat\tNOUN\t0.3\t0.4\n",
        " the 0.1 0.2\n cat 0.3 0.4\n",
        "\tthe 0.1 0.2\n\tcat 0.3 0.4\n",
        "\nthe 0.1 0.2\ncat 0.3 0.4\n",
        "the 0.1 0.2\rcat 0.3 0.4\r",
        "the 0.1 0.2\n\ncat 0.3 0.4\n",
        "the 0.1 0.2\ncat 0.3 0.4 0.5\n",
        "the 0.1 0.2 0.3\ncat 0.3 0.4\n",
        "the 0.1 1e39\ncat 0.3 0.4\n",
        '{"the": [0.1, 0.2],\n"cat": [0.3, 0.4]}\n',
    ],
    ids=lambda data: repr(data[:24]),
)
def test_refused(data: str, path: Path) -> None:
    for header in ("", "2 2\n", "2 1\n"):
        with pytest.raises(ValueError, match=f"^{path}: "):
            load(write(path, header + data))


def test_numbers_without_words(path: Path) -> None:
    data = "0.1 0.2 0.3\n0.4 0.5 0.6\n"
    with pytest.raises(ValueError, match="line 1: expected a word and numbers, got numbers alone"):
        load(write(path, data))
    # Where the first line says so, and for later words, a number is a word.
    expected = np.float32([[0.2, 0.3], [0.5, 0.6]])
    assert_has(load(write(path, "2 2\n" + data)), ["0.1", "0.4"], expected)


def test_text_is_not_taken_for_binary(path: Path) -> None:
    write(path, "1 2\nthe 0.1, 0.2\n")  # of which 8 bytes could be two numbers
    with pytest.raises(ValueError, match=r"line 2: expected a number, got '0\.1,'"):
        load(path)
    write(path, "2 2\nthe 0.1 0.2\ncat 0.3 0.4\n")
    with pytest.raises(ValueError, match="line 2: expected binary numbers, got text"):
        load(path, format="word2vec-binary")


def test_numbers_beyond_float32(path: Path) -> None:
    write(path, "a -1e39 inf\n")
    with pytest.raises(ValueError, match="line 1: '-1e39' is beyond float32's range"):
        load(path)
    assert_has(load(path, dtype="float64"), ["a"], np.array([[-1e39, np.inf]]))


# --- what is not text -----------------------------------------------------------------------------


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("vectors.txt", text())
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zipped(), r"an archive \(zip\)"),
        (bz2.compress(text().encode()), "bzip2"),
        (lzma.compress(text().encode()), "xz"),
        (b"\x28\xb5\x2f\xfd" + bytes(99), "zstd"),
        (pickle.dumps({"the": [1.0]}), "a pickle, as gensim"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "a git-lfs pointer",
        ),
        (b"<!DOCTYPE html>\n<html lang=en>\n", "a web page"),
        (b"\xef\xbb\xbf<html>\n", "a web page"),
        (b"<!-- saved from url -->\n<html>\n", "a web page"),
        (b"", "an empty file"),
        (gzip.compress(b""), "an empty file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
        (b"\x93NUMPY\x01\0" + bytes(99), "a NumPy array"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_file_is_instead(data: bytes, message: str, path: Path) -> None:
    for form in (None, "glove", "word2vec", "word2vec-binary", "fasttext-binary", "saved"):
        with pytest.raises(ValueError, match=f"^{path}: ") as error:
            load(write(path, data), format=form)
        if data[:2] != b"\x1f\x8b" or form not in ("fasttext-binary", "saved"):
            assert error.match(message)


# --- bounds ---------------------------------------------------------------------------------------


def loaded(path: Path) -> np.ndarray:
    return load(path).vectors


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(b"a 1\n" * 1_000_000),
        gzip.compress(b"a 1\n" + b"\n" * 4_000_000),
        gzip.compress((b"a" + b" 0" * 60_000 + b"\n") * 40),
        gzip.compress(b"9999999 1\n" + b"a \0\0\0\0" * 500_000),
        gzip.compress(b"a 1\n") + gzip.compress(bytes(1 << 20)) * 20,
    ],
    ids=["words", "newlines", "numbers", "binary", "zeros"],
)
def test_compressed_bombs(data: bytes, path: Path) -> None:
    with pytest.raises(ValueError, match=r"decompressed, it is more than 64 times as large|longer"):
        load(write(path, data))
    assert not assert_reads_or_refuses(loaded, path, data)


@pytest.mark.parametrize(
    ("data", "is_read"),
    [
        (b"1099511627776 300\n" + b"a 1\n", False),
        (b"1099511627776 65536\n", False),
        (b"0 65536\n", True),
        (b"a 1\nb" + b" " * 500_000 + b"1\n", True),
        (b"a 1\n" + b"x " * 300_000 + b"1\n", True),
        (b"a" + b" 1" * 1_000_000 + b"\n", False),
        (b"a" + b" 1" * 65_536 + b"\n", True),
        (b"a 1\n" + b"\n" * 2_000_000, True),
        (b"a 1\n" * 50_000, True),
        (b"a 1\nb " + b"1" * 3_000_000 + b"\n", False),
        (
            binary_file(["a"], np.ones((1, 2), np.float32)).replace(b"1 2", b"1099511627776 2"),
            False,
        ),
        (saved_file([], np.ones((0, 1 << 40), np.float32)), False),
        # Many n-grams of a long word.
        (fasttext_file(["x" * 60_000], np.ones((9, 4), np.float32)), False),
        (fasttext_file(["x" * 6000], np.ones((900, 4), np.float32), maxn=33), False),
        (fasttext_file(["x" * 6000], np.ones((750, 4), np.float32), maxn=32), True),
        (fasttext_file(["x" * 200], np.ones((9, 60_000), np.float32)), True),
    ],
    ids=range(16),
)
def test_what_a_file_describes_is_bounded_by_its_size(
    data: bytes, is_read: bool, path: Path
) -> None:
    assert assert_reads_or_refuses(loaded, path, data) == is_read


def test_low_memory_is_no_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "loadtxt", fail)
    with pytest.raises(MemoryError):
        load(write(path, text()))


@pytest.mark.parametrize("kind", ["saved", "fasttext", "h5", "pickle"])
def test_no_room_to_map_a_file_is_no_damage(
    kind: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    vectors = np.ones((9, 4), np.float32)
    data = {
        "saved": lambda: saved_file(["x"], vectors[:1]),
        "fasttext": lambda: fasttext_file(["x"], vectors),
        "h5": lambda: b"\x89HDF\r\n\x1a\n" + bytes(1000),
        "pickle": lambda: pickle.dumps({"weight_ih_l0": vectors}),
    }
    readers = {"h5": fastlstm.from_keras, "pickle": fastlstm.from_torch}
    write(path, data[kind]())
    monkeypatch.setattr(mmap, "mmap", fail)
    with pytest.raises(MemoryError, match="no room to map a file"):
        readers.get(kind, load)(path)


def test_unknown_words_of_any_length(path: Path) -> None:
    """What a caller looks up is not bounded by the file."""
    embeddings = load(write(path, fasttext_file(["x"], np.ones((9, 4), np.float32), maxn=3)))
    assert isinstance(embeddings, Embeddings)
    assert embeddings["y" * 20_000].tolist() == [1, 1, 1, 1]
