"""Word embeddings: files of every format against gensim's, lookups, errors, damage."""

from __future__ import annotations

import gzip
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
import safetensors.numpy
from damage import assert_reads_or_refuses, check_reader, cuts
from fastlstm.embeddings import Embeddings, load
from fastlstm.embeddings._fasttext import hashes_of_ngrams
from hypothesis import assume, given
from hypothesis import strategies as st

WORDS = ["the", "cat", "naïve", "日本語", "кошка", "😀", "5", "don't", "a\u00a0b", "\u0085", "</s>"]
OTHERS = ["cats", "日本", "naïvement", "x", "😀😀", "ca", "thecat" * 2000]


@pytest.fixture(scope="module")
def gensim() -> Any:
    return pytest.importorskip("gensim")


@pytest.fixture
def vectors(rng: np.random.Generator) -> np.ndarray:
    return (rng.standard_normal((len(WORDS), 6)) * 10.0 ** rng.integers(-9, 9, 6)).astype("f4")


# --- files, written by us -------------------------------------------------------------------------


def text_file(words: list[str], vectors: np.ndarray, header: bool = True) -> bytes:
    lines = [
        f"{word} {' '.join(map(repr, row.tolist()))}\n"
        for word, row in zip(words, vectors, strict=True)
    ]
    first = f"{len(words)} {vectors.shape[1]}\n" if header else ""
    return (first + "".join(lines)).encode()


def glove_file(words: list[str], vectors: np.ndarray) -> bytes:
    return text_file(words, vectors, header=False)


def binary_file(words: list[str], vectors: np.ndarray, end: bytes = b"\n") -> bytes:
    data = [
        word.encode() + b" " + row.tobytes() + end for word, row in zip(words, vectors, strict=True)
    ]
    return f"{len(words)} {vectors.shape[1]}\n".encode() + b"".join(data)


def saved_file(words: list[str], vectors: np.ndarray) -> bytes:
    return safetensors.numpy.save(
        {
            "vectors": vectors,
            "word_ends": np.cumsum([len(word.encode()) for word in words]),
            "words": np.frombuffer("".join(words).encode(), np.uint8),
        },
        metadata={"fastlstm.embeddings": "1"},
    )


def fasttext_file(
    words: list[Any],
    matrix: np.ndarray,
    *,
    labels: int = 0,
    minn: int = 3,
    maxn: int = 6,
    version: int = 12,
    model: int = 2,
    pruned: int = -1,
    quantised: bool = False,
    **changes: Any,
) -> bytes:
    """A model whose matrix has a row for each word and for some buckets; changes make it wrong."""
    dim = changes.get("dim", matrix.shape[1])
    count = changes.get("count", len(words))
    bucket = changes.get("bucket", len(matrix) - len(words))
    options = (dim, 5, 5, 1, 5, 1, 2, model, bucket, minn, maxn, 100, 1e-4)
    data = [struct.pack("<2i12id", 793712314, version, *options)]
    data.append(struct.pack("<3i2q", count + labels, count, labels, 1000, pruned))
    entries = [(word, 0) for word in words] + [(f"__label__{n}", 1) for n in range(labels)]
    for word, kind in changes.get("entries", entries):
        encoded = word if isinstance(word, bytes) else word.encode()
        data.append(encoded + struct.pack("<bqb", 0, 3, kind))
    shape = changes.get("shape", matrix.shape)
    data += [struct.pack("<?2q", quantised, *shape), matrix.tobytes()]
    data += [struct.pack("<?2q", False, 2, 3), bytes(24), changes.get("rest", b"")]
    return b"".join(data)


def plain_fasttext_file(words: list[str], vectors: np.ndarray) -> bytes:
    return fasttext_file(words, vectors, maxn=0)


WRITERS: dict[str, Callable[..., bytes]] = {
    "word2vec": text_file,
    "word2vec-binary": binary_file,
    "glove": glove_file,
    "fasttext": text_file,
    "fasttext-binary": plain_fasttext_file,
    "saved": saved_file,
}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def assert_has(embeddings: Embeddings, words: list[str], vectors: np.ndarray) -> None:
    assert embeddings.words == tuple(words)
    assert embeddings.vectors.dtype == embeddings.dtype == vectors.dtype
    assert np.array_equal(embeddings.vectors, vectors, equal_nan=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("format", WRITERS)
def test_formats(format: str, dtype: str, vectors: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "e", WRITERS[format](WORDS, vectors))
    for chosen in (None, format):
        embeddings = load(str(path), format=chosen, dtype=dtype)
        assert_has(embeddings, WORDS, vectors.astype(dtype))
        assert type(embeddings) is Embeddings
        assert not embeddings.vectors.flags.writeable
    if format == "fasttext-binary":
        return
    for limit in (0, 1, 5, len(WORDS), 99):
        embeddings = load(path, limit=limit, dtype=dtype)
        assert_has(embeddings, WORDS[:limit], vectors[:limit].astype(dtype))


@pytest.mark.parametrize("format", ["word2vec", "word2vec-binary", "glove"])
def test_gzip(format: str, vectors: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "e", gzip.compress(WRITERS[format](WORDS, vectors)))
    assert_has(load(path), WORDS, vectors)
    assert_has(load(path, limit=3), WORDS[:3], vectors[:3])


@pytest.mark.parametrize("format", ["saved", "fasttext-binary"])
def test_what_is_mapped_is_not_compressed(format: str, vectors: np.ndarray, tmp_path: Path) -> None:
    data = WRITERS[format](WORDS, vectors)
    path = write(tmp_path / "e", data)
    base: Any = load(path).vectors
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(getattr(base, "obj", base), mmap.mmap)
    path.unlink()
    with pytest.raises(ValueError, match="decompress the file first"):
        load(write(path, gzip.compress(data)))


# More lines than are read at a time.
@pytest.mark.parametrize("format", ["word2vec", "word2vec-binary", "glove", "saved"])
def test_large(format: str, rng: np.random.Generator, tmp_path: Path) -> None:
    words = [f"word{n}" for n in range(30_000)]
    vectors = rng.standard_normal((len(words), 20)).astype(np.float32)
    path = write(tmp_path / "e", WRITERS[format](words, vectors))
    assert_has(load(path), words, vectors)
    assert_has(load(path, limit=29_000), words[:29_000], vectors[:29_000])


# What text can hold: spaces, tabs and the ends of lines are between words.
texts = st.text(
    st.characters(exclude_characters=" \t\r\n\0", exclude_categories=["Cs"]), min_size=1, max_size=5
)


@given(data=st.data(), format=st.sampled_from(sorted(WRITERS)), dim=st.integers(1, 4))
def test_any_words_and_numbers(
    data: st.DataObject, format: str, dim: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    words = data.draw(st.lists(texts, min_size=1, max_size=5))
    assume("." not in words[0])  # a first word of "0.5" would be a number without a word
    number = st.floats(width=32)
    rows = data.draw(st.lists(st.lists(number, min_size=dim, max_size=dim), min_size=len(words)))
    vectors = np.array(rows[: len(words)], np.float32)
    path = write(tmp_path_factory.mktemp("e") / "e", WRITERS[format](words, vectors))
    embeddings = load(path, format=format)
    assert_has(embeddings, words, vectors)
    for word in words:
        assert np.array_equal(embeddings[word], vectors[words.index(word)], equal_nan=True)


def test_text_as_others_write_it(tmp_path: Path) -> None:
    expected = np.array([[1, -2], [0.5, 3e-5]], np.float32)
    for data in (
        b"2 2\na 1 -2 \nb .5 3e-5 \n",  # a space after the last number, as Word2Vec and FastText
        b"2 2\r\na 1 -2\r\nb 0.5 0.00003\r\n",
        b" 2  2 \na 1 -2\nb +5E-1 3e-05\n",
        b"a 1 -2\nb 0.5 0.3e-4\n",
    ):
        assert_has(load(write(tmp_path / "e", data)), ["a", "b"], expected)
    data = b"at name@domain.com 1 -2\n. . . 0.5 3e-5\n"  # GloVe has words with spaces
    words = ["at name@domain.com", ". . ."]
    assert_has(load(write(tmp_path / "e", data)), words, expected)
    assert_has(load(write(tmp_path / "e", b"2 2\n" + data)), words, expected)
    assert_has(load(write(tmp_path / "e", b"a nan -inf\n")), ["a"], np.float32([[np.nan, -np.inf]]))


def test_binary_without_line_feeds(vectors: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "e", binary_file(WORDS, vectors, end=b""))
    assert_has(load(path), WORDS, vectors)


def test_words_that_come_twice(vectors: np.ndarray, tmp_path: Path) -> None:
    words = ["a", "b", "a", "a"]
    for format, writer in WRITERS.items():
        embeddings = load(write(tmp_path / format, writer(words, vectors[:4])))
        assert_has(embeddings, words, vectors[:4])
        assert len(embeddings) == 4
        assert np.array_equal(embeddings["a"], vectors[0])
        assert embeddings.indices(["b", "a"]).tolist() == [1, 0]


@pytest.mark.parametrize("format", ["word2vec", "word2vec-binary", "glove", "fasttext-binary"])
def test_encodings(format: str, tmp_path: Path) -> None:
    vectors = np.float32([[1, 2], [3, 4]])
    data = WRITERS[format](["the", "été"], vectors).replace("été".encode(), b"\xe9t\xe9")
    path = write(tmp_path / "e", data)
    place = {"word2vec": "line 3", "glove": "line 2"}.get(format, r"byte \d+")
    with pytest.raises(ValueError, match=f"e: {place}: a word that is not utf-8: .*0xe9"):
        load(path)
    assert load(path, encoding="latin-1").words == ("the", "été")
    assert load(path, errors="replace").words == ("the", "\ufffdt\ufffd")
    assert load(path, errors="ignore").words == ("the", "t")
    saved = tmp_path / "saved"
    surrogates = load(path, errors="surrogateescape")
    surrogates.save(saved)
    assert_has(load(saved), list(surrogates.words), vectors)
    for wrong in ({"encoding": "utf-9"}, {"errors": "leave"}):
        with pytest.raises(ValueError, match="encoding, errors: unknown"):
            load(path, **wrong)


# --- gensim ---------------------------------------------------------------------------------------


@pytest.fixture
def keyed_vectors(gensim: Any, vectors: np.ndarray) -> Any:
    from gensim.models import KeyedVectors

    keyed = KeyedVectors(vectors.shape[1])
    keyed.add_vectors(WORDS, vectors)
    return keyed


@pytest.mark.parametrize("header", [True, False])
def test_text_of_gensim(
    keyed_vectors: Any, header: bool, vectors: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "e"
    keyed_vectors.save_word2vec_format(path, write_header=header)
    assert_has(load(path), WORDS, vectors)


def test_binary_of_gensim(keyed_vectors: Any, vectors: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "e"
    keyed_vectors.save_word2vec_format(path, binary=True)
    assert_has(load(path), WORDS, vectors)


@pytest.mark.parametrize("format", ["word2vec", "word2vec-binary"])
def test_gensim_reads_the_same(
    gensim: Any, format: str, vectors: np.ndarray, tmp_path: Path
) -> None:
    path = write(tmp_path / "e", WRITERS[format](WORDS, vectors))
    keyed = gensim.models.KeyedVectors.load_word2vec_format(path, binary=format != "word2vec")
    assert_has(load(path), keyed.index_to_key, keyed.vectors)


def compare_with_gensim(path: Path, gensim: Any) -> Embeddings:
    embeddings = load(path)
    keyed = gensim.models.fasttext.load_facebook_vectors(str(path))
    assert list(embeddings.words) == keyed.index_to_key
    words = [*embeddings.words, *OTHERS]
    expected = np.array([keyed.get_vector(word) for word in words])
    x, _ = embeddings.lookup([words], unknown="error", batch_first=True)
    scale = np.abs(expected).max()
    assert np.abs(x[0] - expected).max() <= 1e-6 * scale  # gensim adds in another order
    assert np.array_equal(embeddings.vectors, x[0, : len(embeddings)])
    return embeddings


@pytest.mark.parametrize(("minn", "maxn"), [(3, 6), (1, 1), (1, 4), (2, 2), (0, 3)])
def test_subwords_as_gensim_composes_them(
    gensim: Any, minn: int, maxn: int, rng: np.random.Generator, tmp_path: Path
) -> None:
    matrix = rng.standard_normal((len(WORDS) + 50, 7)).astype(np.float32)
    words = WORDS[:-1]  # gensim gives n-grams to </s>, too, FastText none
    data = fasttext_file(words, matrix[: len(words) + 50], minn=minn, maxn=maxn)
    compare_with_gensim(write(tmp_path / "e", data), gensim)


def test_model_that_gensim_trained(gensim: Any, tmp_path: Path) -> None:
    model = gensim.models.FastText(
        [WORDS, WORDS[::2]] * 5, vector_size=5, min_count=1, bucket=100, seed=1, workers=1, epochs=1
    )
    path = tmp_path / "e"
    gensim.models.fasttext.save_facebook_model(model, str(path))
    embeddings = load(path)
    words = [word for word in WORDS + OTHERS if word != "</s>"]
    expected = np.array([model.wv.get_vector(word) for word in words])
    x, _ = embeddings.lookup([words], unknown="error", batch_first=True)
    assert np.abs(x[0] - expected).max() <= 1e-6 * np.abs(expected).max()


# --- subwords -------------------------------------------------------------------------------------


def test_ngrams() -> None:
    def fnv(text: str) -> int:
        value = 0x811C9DC5
        for byte in text.encode():
            value = ((value ^ (byte - 256 if byte > 127 else byte)) * 0x01000193) % 2**32
        return value

    assert fnv("foobar") == 0xBF9CF968  # of the authors' test vectors
    expected = ["<é", "<éa", "éa", "éa>", "a>"]
    assert list(hashes_of_ngrams("éa".encode(), 2, 3)) == [fnv(n) for n in expected]
    assert list(hashes_of_ngrams(b"ab", 0, 1)) == [fnv("a"), fnv("b")]
    assert list(hashes_of_ngrams(b"", 1, 9)) == [fnv("<>")]
    assert list(hashes_of_ngrams(b"", 3, 9)) == []
    # Bytes that no letter begins with go with what is before them.
    assert len(hashes_of_ngrams(b"\x80\x80a", 1, 1)) == 1


def test_vectors_of_subwords(rng: np.random.Generator, tmp_path: Path) -> None:
    matrix = rng.standard_normal((3 + 10, 4)).astype(np.float32)
    words = ["cat", "</s>", b"\xff"]
    data = fasttext_file(words, matrix, minn=2, maxn=3)
    path = write(tmp_path / "e", data)

    def expected(word: bytes, *own: int) -> np.ndarray:
        rows = [*own, *(3 + h % 10 for h in hashes_of_ngrams(word, 2, 3))]
        total = np.zeros(4, np.float32)
        for row in rows:
            total += matrix[row]
        return total * np.float32(1 / len(rows))

    for dtype in ("float32", "float64"):
        embeddings = load(path, dtype=dtype, errors="replace")
        assert repr(embeddings) == f"FastTextEmbeddings(3 words, dim=4, dtype={dtype})"
        assert embeddings.dtype == dtype
        assert "cats" not in embeddings
        vectors = [expected(b"cat", 0), matrix[1], expected(b"\xff", 2)]
        assert_has(embeddings, ["cat", "</s>", "\ufffd"], np.array(vectors, dtype))
        assert np.array_equal(embeddings["cat"], vectors[0])
        assert np.array_equal(embeddings["cats"], expected(b"cats"))
        # Enough for several parts of a sum.
        assert np.array_equal(embeddings["cats" * 2000], expected(b"cats" * 2000))
        assert embeddings["cats"].dtype == dtype
        assert not embeddings["cats"].flags.writeable
    embeddings = load(path, encoding="latin-1")
    assert np.array_equal(embeddings["ÿa"], expected(b"\xffa"))

    saved = tmp_path / "saved"
    embeddings.save(saved)
    assert_has(load(saved), ["cat", "</s>", "ÿ"], embeddings.vectors)


def test_words_without_subwords(tmp_path: Path) -> None:
    matrix = np.ones((2 + 10, 4), np.float32)
    path = write(tmp_path / "e", fasttext_file(["cat", "dog"], matrix, minn=5))
    embeddings = load(path)
    assert embeddings["cow!"].tolist() == [1, 1, 1, 1]
    with pytest.raises(KeyError, match="ox"):
        embeddings["ox"]
    with pytest.raises(KeyError, match="no vectors for 'ox'"):
        embeddings.lookup([["cow!", "ox"]], unknown="error")
    assert embeddings.lookup([["ox"]], unknown=[1, 2, 3, 4])[0].tolist() == [[[1, 2, 3, 4]]]
    # Classifiers of version 11 had subwords among their options, but did not use them.
    old = fasttext_file(["cat", "dog"], matrix, version=11, model=3, labels=2)
    assert type(load(write(path, old))) is Embeddings
    old = fasttext_file(["cat", "dog"], matrix, version=11)
    assert type(load(write(path, old))) is not Embeddings


# --- lookups --------------------------------------------------------------------------------------


@pytest.fixture
def small() -> Embeddings:
    return Embeddings(["yes", "no", "so"], np.float32([[1, 2], [3, 4], [5, 6]]))


def test_vocabulary(small: Embeddings) -> None:
    assert (len(small), small.dim, list(small)) == (3, 2, ["yes", "no", "so"])
    assert "no" in small
    assert "perhaps" not in small
    assert 1 not in small
    assert small["no"].tolist() == [3, 4]
    with pytest.raises(KeyError, match="perhaps"):
        small["perhaps"]
    with pytest.raises(TypeError, match="word: expected words as str, got int"):
        small[0]  # type: ignore[index]
    with pytest.raises(ValueError, match="read-only"):
        small["no"][0] = 1
    with pytest.raises(ValueError, match="read-only"):
        small.vectors[0] = 1


def test_indices(small: Embeddings) -> None:
    indices = small.indices(["so", "yes", "so"])
    assert indices.dtype == np.int64
    assert indices.tolist() == [2, 0, 2]
    assert small.indices(["so", "perhaps"], unknown=3).tolist() == [2, 3]
    assert small.indices([]).shape == (0,)
    with pytest.raises(KeyError, match="no vectors for 'a', 'b', 'c', 'd', 'e' and 2 more"):
        small.indices(["yes", *"abcdefga"])
    with pytest.raises(TypeError, match="tokens: expected a list of words, got text"):
        small.indices("yes no")
    with pytest.raises(TypeError, match="unknown: expected an integer, got str"):
        small.indices(["a"], unknown="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_lookup(small: Embeddings, batch_first: bool, dtype: str) -> None:
    embeddings = Embeddings(small.words, small.vectors.astype(dtype))
    sentences = [["no", "perhaps", "no"], [], ("so", "yes")]
    x, lengths = embeddings.lookup(sentences, batch_first=batch_first)
    assert x.dtype == dtype
    expected = [
        [[3, 4], [0, 0], [3, 4]],
        [[0, 0], [0, 0], [0, 0]],
        [[5, 6], [1, 2], [0, 0]],
    ]
    assert (x if batch_first else x.swapaxes(0, 1)).tolist() == expected
    assert x.flags.c_contiguous
    assert lengths.tolist() == [3, 0, 2]

    layer = fastlstm.LSTM(2, 3, batch_first=batch_first, dtype=dtype, seed=0)
    output, _ = layer(x, lengths=lengths)
    single, _ = fastlstm.LSTM(2, 3, dtype=dtype, seed=0)(embeddings.vectors[[2, 0]])
    rows = output if batch_first else output.swapaxes(0, 1)
    assert np.array_equal(rows[2, :2], single)

    x, lengths = embeddings.lookup([], batch_first=batch_first)
    assert x.shape == ((0, 0, 2))
    assert lengths.shape == (0,)
    x, _ = embeddings.lookup([[], []], batch_first=batch_first)
    assert x.shape == ((2, 0, 2) if batch_first else (0, 2, 2))


def test_unknown_words(small: Embeddings) -> None:
    sentences = [["no", "perhaps", "hm"], ["perhaps"]]
    x, _ = small.lookup(sentences, unknown=small["yes"])
    assert x.tolist() == [[[3, 4], [1, 2]], [[1, 2], [0, 0]], [[1, 2], [0, 0]]]
    with pytest.raises(KeyError, match=r"no vectors for 'perhaps', 'hm'\""):
        small.lookup(sentences, unknown="error")
    with pytest.raises(ValueError, match=r"unknown: expected 'zeros', 'error' or .* got 'no'; for"):
        small.lookup(sentences, unknown="no")
    with pytest.raises(ValueError, match=r"unknown: expected \(2,\), got \(3,\)"):
        small.lookup(sentences, unknown=[1, 2, 3])


def test_wrong_sentences(small: Embeddings) -> None:
    for wrong in ("yes no", ["yes no"], [b"yes"]):
        with pytest.raises(TypeError, match=r"sentences: expected lists? .* got text|split it"):
            small.lookup(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sentences: expected words as str, got int"):
        small.lookup([[1]])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="sentences: expected a list of words, got int"):
        small.lookup([1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="batch_first: expected True or False"):
        small.lookup([["yes"]], batch_first=1)  # type: ignore[arg-type]


def test_making_them() -> None:
    with pytest.raises(ValueError, match=r"vectors: expected \(2, dim\), got \(3, 4\)"):
        Embeddings(["a", "b"], np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"vectors: expected \(2, dim\), got \(2,\)"):
        Embeddings(["a", "b"], [1, 2])
    with pytest.raises(TypeError, match="words: expected a list of words, got text"):
        Embeddings("ab", np.zeros((2, 2)))
    assert Embeddings(["a"], [[1, 2]]).dtype == np.float32
    vectors = np.zeros((2, 2))
    assert np.shares_memory(Embeddings(["a", "b"], vectors).vectors, vectors)
    assert vectors.flags.writeable


# --- saved files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_save(dtype: str, vectors: np.ndarray, tmp_path: Path) -> None:
    vectors = vectors.astype(dtype)
    path = tmp_path / "e"
    Embeddings(WORDS, np.asfortranarray(vectors)).save(path)
    embeddings = load(path, dtype=dtype)
    assert_has(embeddings, WORDS, vectors)
    assert embeddings.vectors.flags.aligned
    # Over itself: what was mapped remains.
    embeddings.save(path)
    assert_has(embeddings, WORDS, vectors)
    assert_has(load(path, dtype=dtype), WORDS, vectors)
    assert [p.name for p in tmp_path.iterdir()] == ["e"]
    assert np.array_equal(safetensors.numpy.load_file(path)["vectors"], vectors)
    with pytest.raises(ValueError, match="not one that fastlstm saved"):
        fastlstm.load(path)


def test_save_nothing(tmp_path: Path) -> None:
    Embeddings([], np.zeros((0, 3), np.float32)).save(tmp_path / "e")
    assert_has(load(tmp_path / "e"), [], np.zeros((0, 3), np.float32))


def test_other_safetensors_files(small: Embeddings, tmp_path: Path) -> None:
    path = tmp_path / "e"
    fastlstm.LSTM(3, 4).save(path)
    with pytest.raises(ValueError, match=r"none that Embeddings\.save wrote"):
        load(path)
    tensors = {
        "vectors": np.zeros((2, 3), np.float32),
        "word_ends": np.array([1, 2]),
        "words": np.frombuffer(b"ab", np.uint8),
    }
    for name, wrong, message in (
        ("vectors", np.zeros((2, 3), np.float16), "expected F32 or F64"),
        ("vectors", np.zeros(6, np.float32), r"vectors: expected \(words, dim\)"),
        ("vectors", np.zeros((3, 3), np.float32), r"word_ends: expected \(3,\)"),
        ("word_ends", np.array([1.0, 2.0]), "expected I64"),
        ("word_ends", np.array([2, 1]), "one after the other"),
        ("word_ends", np.array([-1, 2]), "one after the other"),
        ("word_ends", np.array([1, 3]), "one after the other"),
        ("words", np.frombuffer(b"a\xff", np.uint8), "can't decode"),
    ):
        safetensors.numpy.save_file(
            {**tensors, name: wrong}, path, metadata={"fastlstm.embeddings": "1"}
        )
        with pytest.raises(ValueError, match=message):
            load(path)
    for missing in ("word_ends", "words", "vectors"):
        others = {name: value for name, value in tensors.items() if name != missing}
        safetensors.numpy.save_file(others, path, metadata={"fastlstm.embeddings": "1"})
        with pytest.raises(ValueError, match="expected the tensors vectors, word_ends and words"):
            load(path)


# --- errors and damage ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a 1 2\nb 3\nc 4 5\n", "line 2: expected a word and 2 numbers, got 1"),
        (b"a 1 2\nb 3 4 5\n", "line 2: expected a word and 2 numbers, got more"),
        (b"a 1 2\n\nb 3 4\n", "line 2: expected a word and 2 numbers, got 0"),
        (b"a 1 2\n" + b"\n" * 600_000 + b"b 3 4\n", "line 2: expected a word and numbers, got n"),
        (b"a 1 2\nb 3 4\nc 5 6x\n", "line 3: expected a number, got '6x'"),
        (b"a 1 2\nb  4\n", "line 2: expected a word and 2 numbers, got 1"),
        (b"a 1 2\n b 3 4\n", "line 2: expected a word, got a tab within it or a space before"),
        (b"a 1 2\n 3 4\n", "line 2: expected a word, got a tab within it or a space before"),
        (b"2 2\n 1 2\na 3 4\n", "line 2: expected a word, got a tab within it or a space before"),
        (b"a 1 2\n\t3\t4\n", "line 2: expected a word, got a tab within it or a space before"),
        (b"a 1 2\nb\tc 3 4\n", "line 2: expected a word, got a tab within it or a space before"),
        (b"a 1 2\rb 3 4\r\n", "line 1: expected a word and 2 numbers, got more: '1'"),
        (b"a\rb 3 4\n", "line 1: expected a word, got a carriage return within"),
        (b"a 1 2\nb\0 3 4\n", "line 2: expected a word, got a NUL byte"),
        (b"a 1 2\nb 3 1_0\n", "line 2: expected a number, got '1_0'"),
        (b"a 1 2\nb 3 \xff\n", r"line 2: expected a number, got '\\xff'"),
        (b"a 1 2\nb 1-2 3\n", "line 2: expected a number, got '1-2'"),
        (b"a 1 2\nb 1\t2 3\n", "line 2: expected a word and 2 numbers, got more: '1'"),
        (b"a, 1, 2\nb, 3, 4\n", "line 1: expected a word and 1 numbers, got more: '1,'"),
        (b"a 0,5 2\nb 0,5 4\n", "line 1: expected a word and 1 numbers, got more: '0,5'"),
        (b"a 0x1p3 2\nb 1 4\n", "line 1: expected a word and 1 numbers, got more: '0x1p3'"),
        (b"a 1\xc2\xa02 3\n", "line 1: expected a word and 1 numbers, got more: "),
        (b"a 1 2\nb 3 0x1p3\n", "line 2: expected a number, got '0x1p3'"),
        (b"a 1 2\nb 3 4f\n", "line 2: expected a number, got '4f'"),
        (b"a 1 2\nb 3 -1e39\n", "line 2: '-1e39' is beyond float32's range"),
        (b"2 2\na 1 2\nb 3 4\nc 5 6\n", "line 4: the first line says 2 words, there are more"),
        (b"3 2\na 1 2\nb 3 4\n", "line 3: the file ends after 2 of the 3 words"),
        (b"3 2\n", "line 1: the file ends after 0 of the 3 words"),
        (b"2 3\na 1 2\nb 3 4\n", "line 2: expected a word and 3 numbers, got 2"),
        (b"2 0\na 1 2\nb 3 4\n", "line 1: expected from 1 to 65536 dimensions, got 0"),
        (b"2 99999999\na 1 2\n", "line 1: expected from 1 to 65536 dimensions, got 99999999"),
        (b"999999999999999999 2\na 1 2\n", "line 2: the file ends after 1 of the 9999"),
        (b"a" * 3_000_000, "line 1: longer than 2097152 bytes"),
        (b"", "an empty file"),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else "",
)
def test_damaged_text(data: bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "e", data)
    header = data[:1].isdigit()
    with pytest.raises(ValueError, match=f"^{path}: {message}"):
        load(path, format="word2vec" if header else "glove")
    with pytest.raises(ValueError, match=f"^{path}: "):
        load(path)


def test_limit_reads_no_further(tmp_path: Path) -> None:
    path = write(tmp_path / "e", b"a 1 2\nb 3 4\nc 5\n")
    assert_has(load(path, limit=2), ["a", "b"], np.float32([[1, 2], [3, 4]]))


@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize("errors", ["strict", "replace"])
def test_a_space_in_a_word_of_binary(end: bytes, errors: str, tmp_path: Path) -> None:
    words = ["new york", "b", "c"]
    vectors = np.float32([[1, 2], [0.5, 4], [5, 6]])
    path = write(tmp_path / "e", binary_file(words, vectors, end))
    with pytest.raises(ValueError, match=f"^{path}: byte 16: expected a word, got .*space within"):
        load(path, errors=errors)
    read = load(write(path, binary_file(["new\u00a0york", "b", "c"], vectors, end)))
    assert_has(read, ["new\u00a0york", "b", "c"], vectors)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"2 2\na 12345678b 12345", "line 1: 2 words of 2 numbers are more than the file's"),
        (b"2 2\na 12345678\nbcdefgh 1234567", "byte 30: the file ends after 1 of the 2 words"),
        (b"1 2\na 12345678\nb", "byte 14: expected the end of the file after 1 words"),
        (b"1 2\n" + b"a" * 70_000, "byte 4: expected a word, got more than 65536 bytes"),
        (b"999999999999999999 300\na 1", "line 1: 999999999999999999 words of 300 numbers"),
        (b"1 99999999\na 1", "line 1: expected from 1 to 65536 dimensions"),
        (b"a 1 2\n", "line 1: expected the numbers of words and of dimensions"),
        (b"", "an empty file"),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else "",
)
def test_damaged_binary(data: bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "e", data)
    with pytest.raises(ValueError, match=f"^{path}: {message}"):
        load(path, format="word2vec-binary")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 13}, "byte 4: expected version 11 or 12 of FastText's models, got 13"),
        ({"dim": 0}, "byte 8: expected from 1 to 65536 dimensions, got 0"),
        ({"dim": 3}, r"byte \d+: expected \(12, 3\) numbers, got \(12, 4\)"),
        ({"bucket": -1}, "byte 8: unlikely options: bucket=-1"),
        ({"maxn": 2**30}, "byte 8: unlikely options: .* maxn=1073741824"),
        ({"pruned": 0}, r"a pruned model \(.ftz\)"),
        ({"quantised": True}, r"a quantised model \(.ftz\)"),
        ({"count": -1}, "byte 64: -1 entries, but -1 words and 0 labels"),
        ({"count": 3}, r"byte 118: expected 3 words, then 0 labels"),
        ({"count": 2**31 - 1}, "expected a word|expected .* words, then"),
        ({"entries": [("a", 1), ("b", 0)]}, "byte 92: expected 2 words, then 0 labels"),
        ({"entries": [("a" * 70_000, 0)]}, "byte 92: expected a word, but it has over 65536 bytes"),
        ({"shape": (-12, -4)}, "an? input matrix of -12 rows, -4 columns"),
        ({"shape": (2**62, 2**62)}, "the file was truncated"),
        ({"shape": (13, 4)}, "expected|truncated"),
        ({"rest": b"x"}, "expected the end of the file"),
    ],
    ids=str,
)
def test_damaged_fasttext(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    matrix = np.ones((12, 4), np.float32)
    path = write(tmp_path / "e", fasttext_file(["cat", "dog"], matrix, **changes))
    with pytest.raises(ValueError, match=f"^{path}: .*({message})"):
        load(path)


def test_wrong_arguments(vectors: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "e", fasttext_file(WORDS, np.ones((99, 4), np.float32)))
    with pytest.raises(ValueError, match="cannot be loaded with a limit"):
        load(path, limit=3)
    with pytest.raises(ValueError, match=r"format: expected one of word2vec, .*, got 'bin'"):
        load(path, format="bin")
    with pytest.raises(ValueError, match="limit: expected an integer from 0"):
        load(path, limit=-1)
    with pytest.raises(ValueError, match="dtype: expected float32 or float64"):
        load(path, dtype="float16")
    with pytest.raises(ValueError, match="byte 0: no FastText model"):
        load(write(path, b"a 1\n"), format="fasttext-binary")


def load_or_refuse(path: Path, **options: Any) -> Embeddings:
    """What comes with a warning counts as refused."""
    try:
        return load(path, **options)
    except UserWarning as warning:
        raise ValueError(str(warning)) from None


def read(path: Path) -> np.ndarray:
    embeddings = load_or_refuse(path)
    embeddings.lookup([["cats", *embeddings.words]])
    return embeddings.vectors


@pytest.mark.parametrize("format", WRITERS)
def test_damage(format: str, vectors: np.ndarray, tmp_path: Path) -> None:
    data = WRITERS[format](WORDS, vectors)
    if format == "word2vec-binary":
        data = data.removesuffix(b"\n")  # which may be missing
    check_reader(read, tmp_path / "e", data, cut_is_an_error=format != "glove")


def test_damage_of_subwords(rng: np.random.Generator, tmp_path: Path) -> None:
    data = fasttext_file(WORDS, rng.standard_normal((30, 3)).astype(np.float32), labels=2)
    check_reader(read, tmp_path / "e", data, count=600)


@pytest.mark.parametrize("format", ["word2vec-binary", "glove"])
def test_damage_of_gzip(format: str, vectors: np.ndarray, tmp_path: Path) -> None:
    check_reader(read, tmp_path / "e", gzip.compress(WRITERS[format](WORDS, vectors), mtime=0))


@pytest.mark.parametrize("format", ["word2vec", "word2vec-binary", "glove"])
def test_damage_of_what_is_not_recognised(format: str, vectors: np.ndarray, tmp_path: Path) -> None:
    """The reader that a caller asks for gets anything."""
    for other in ("word2vec-binary", "fasttext-binary", "glove", "saved"):
        data = WRITERS[other](WORDS, vectors)
        for cut in cuts(data):
            assert_reads_or_refuses(
                lambda path: load_or_refuse(path, format=format), tmp_path / "e", cut
            )


def test_glove_is_cut_between_lines_or_refused(vectors: np.ndarray, tmp_path: Path) -> None:
    data = glove_file(WORDS[:4], vectors[:4])
    for end in range(len(data)):
        path = write(tmp_path / "e", data[:end])
        if end and data[end - 1 : end] == b"\n":
            count = data[:end].count(b"\n")
            assert_has(load(path), WORDS[:count], vectors[:count])
        else:
            with pytest.raises(ValueError, match=r"an empty|no end|no word|expected"):
                load_or_refuse(path)


@pytest.mark.parametrize("format", [None, "word2vec", "word2vec-binary", "glove"])
@pytest.mark.parametrize("start", [b"", b"9999999 9\n", b"9999999 65536\nword "])
def test_bombs(start: bytes, format: str | None, tmp_path: Path) -> None:
    """A hundred megabytes of zeros in a hundred kilobytes."""
    data = gzip.compress(start) + gzip.compress(bytes(1 << 20)) * 100

    def read(path: Path) -> Any:
        return load(path, format=format)

    assert not assert_reads_or_refuses(read, tmp_path / "e", data)


def test_numbers_in_words_before_a_tab(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(b"2 2\nroute 66\t1\t2\ncatch 22 a\t3\t4\n")
    loaded = load(tmp_path / "v")
    assert loaded.words == ("route 66", "catch 22 a")
    assert loaded.vectors.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            gzip.compress(b"a 1 2\n", mtime=0) + b"more",
            "what follows its compressed data is not gzip's",
        ),
        (gzip.compress(gzip.compress(b"a 1 2\n", mtime=0), mtime=0), "compressed by gzip twice"),
        (b"f".ljust(257, b"\0") + b"ustar\0" + bytes(249), r"an archive \(tar\)"),
        (
            gzip.compress(b"f".ljust(257, b"\0") + b"ustar\0" + bytes(249), mtime=0),
            r"an archive \(tar\)",
        ),
        (b"5 1\na 1\nb 2\n", 'says; if its first line is a word .* pass format="glove"'),
        (b"1 1\na 1\nb 2\n", 'are more; if its first line is a word .* pass format="glove"'),
    ],
)
def test_what_the_reader_of_text_is_told(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "e", data))
