"""The programs of docs/distributed.md that answer for large data, with two workers each."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import fastlstm
import numpy as np
import pytest
from distributed_inference import KILLED
from support import assert_same_bits

HERE = Path(__file__).parent
PAGE = (HERE.parent / "docs" / "distributed.md").read_text()
# What a program imports that the extra `distributed` has; not every Python has all of it.
NEEDED = {
    "ray": ("sklearn", "ray", "pyarrow"),
    "dask": ("sklearn", "distributed", "pyarrow"),
}
SECONDS = 500
TEXTS, WINDOWS, PARTS = 600, 600, 6

pytestmark = pytest.mark.slow


class Expected(NamedTuple):
    """What one process answers."""

    labels: dict[str, tuple[str, float]]
    vectors: np.ndarray


def program(engine: str) -> str:
    """The text of one of the page's programs."""
    (text,) = re.findall(rf'^```py\n("""answer_{engine}\.py.*?)^```$', PAGE, re.M | re.S)
    return str(text)


def make_data(folder: Path) -> Expected:
    """Write a classifier, an encoder and their data; say what is right, computed all at once."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from fastlstm.sklearn import SequenceClassifier

    rng = np.random.default_rng(0)
    words = np.array(["profit", "loss", "wheat", "harvest", "ship", "oil", "rate", "bank"])
    texts = [
        " ".join([str(k), *rng.choice(words, rng.integers(1, 20))]) for k in range(TEXTS)
    ]  # the number makes each text another
    classifier = SequenceClassifier(
        hidden_size=8, embedding=8, tokenize="words", epochs=2, random_state=0
    )
    classifier.fit(texts[:100], ["wheat" if "wheat" in text else "other" for text in texts[:100]])
    classifier.save(folder / "classifier.safetensors")
    encoder = fastlstm.LSTM(3, 16, num_layers=2, batch_first=True, seed=0)
    encoder.save(folder / "encoder.safetensors")
    windows = rng.normal(size=(WINDOWS, 20, 3)).astype(np.float32)
    (folder / "texts").mkdir()
    (folder / "windows").mkdir()
    for part in range(PARTS):
        rows = pa.table({"text": texts[part::PARTS]})
        pq.write_table(rows, folder / "texts" / f"{part}.parquet")
        count = WINDOWS // PARTS
        np.save(folder / "windows" / f"{part}.npy", windows[part * count : (part + 1) * count])
    found = classifier.predict_proba(texts)
    labels = classifier.classes_[found.argmax(1)]
    answers = dict(zip(texts, zip(labels, found.max(1), strict=True), strict=True))
    return Expected(answers, encoder(windows)[1][0][-1])


@pytest.mark.parametrize("engine", ["ray", "dask"])
def test_answers_are_those_of_one_process_though_a_worker_dies(engine: str, tmp_path: Path) -> None:
    for module in NEEDED[engine]:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install 'fastlstm[distributed,sklearn]'")
    import pyarrow.parquet as pq

    expected = make_data(tmp_path)
    (tmp_path / f"answer_{engine}.py").write_text(program(engine))
    done = subprocess.run(
        [sys.executable, str(HERE / "distributed_inference.py"), engine, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
            "RAY_USAGE_STATS_ENABLED": "0",
        },
    )
    if "node timed out during startup" in done.stderr:
        pytest.skip("Ray gave up its own start, for which it allows 30 s: the machine is too busy")
    assert done.returncode == 0, done.stderr
    got = pq.read_table(tmp_path / "labels")
    texts = got["text"].to_pylist()
    assert sorted(texts) == sorted(expected.labels)
    answers = [expected.labels[text] for text in texts]
    assert got["label"].to_pylist() == [label for label, _ in answers]
    probabilities = np.array([probability for _, probability in answers])
    assert_same_bits(got["probability"].to_numpy(), probabilities)
    vectors = np.concatenate([np.load(f) for f in sorted((tmp_path / "vectors").iterdir())])
    assert_same_bits(vectors, expected.vectors)

    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    killed = [process for job, process, _ in lines if job == KILLED]
    assert killed[2] not in killed[3:]
    assert {threads for *_, threads in lines} == {"1"}
