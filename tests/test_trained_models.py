"""What tests/trained measures with, on what is known; the models themselves are not for CI."""

import importlib
import itertools
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of tests/trained, by name; the folder's parents are no packages."""
    for package in ("onnx", "onnxruntime", "PIL"):
        pytest.importorskip(package)
    return lambda name: importlib.import_module(f"trained.{name}")


@pytest.mark.parametrize(
    ("a", "b", "expected"), [("", "", 0), ("abc", "abc", 0), ("abc", "axc", 1), ("ab", "bcd", 3)]
)
def test_distance(trained: Any, a: str, b: str, expected: int) -> None:
    assert trained("g2p").distance(a, b) == trained("g2p").distance(b, a) == expected


def test_area_under_roc_counts_pairs(trained: Any) -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.normal(size=30), rng.random(30) < 0.4
    pairs = [*itertools.product(scores[positive], scores[~positive])]
    expected = sum(a > b for a, b in pairs) / len(pairs)
    assert trained("silero").area_under_roc(scores, positive) == pytest.approx(expected)


def test_columns_that_go_on_are_one_letter(trained: Any) -> None:
    assert trained("ddddocr").text_of(np.array([8, 8, 0, 5, 12, 0, 12, 15, 0])) == "hello"


def test_quality_is_of_any_loudness(trained: Any) -> None:
    clean, noise = np.array([1.0, 1, -1, -1]), np.array([0.1, -0.1, 0.1, -0.1])
    assert trained("nsnet").quality(3 * (clean + noise), clean) == pytest.approx(20)


def test_a_sound_comes_back_from_its_spectra(trained: Any) -> None:
    nsnet = trained("nsnet")
    window = np.sqrt(np.hanning(nsnet.WINDOW + 1)[:-1])  # squares that add up to one
    samples = np.random.default_rng(0).normal(size=10 * nsnet.HOP)
    back = nsnet.samples_of(nsnet.spectra_of(samples, window), window)
    np.testing.assert_allclose(back, samples[nsnet.HOP : -nsnet.HOP], atol=1e-12)
