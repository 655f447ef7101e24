"""Recordings of speech, and the same in noise: from the tests of pocketsphinx (BSD).

One long recording of 16 utterances by several speakers at 16 kHz, with a second of silence after
each.
"""

from __future__ import annotations

import io
import tarfile
import wave
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from . import data

PACKAGE = data.Package(
    "pocketsphinx==5.1.1",
    "pocketsphinx-5.1.1.tar.gz",
    "675778b309a22dfc9b7d37f7621976bba491d2a5f8c59696bd77fd6d07271355",
)
RATE = 16_000
FRAME = 512  # samples
UTTERANCES = (
    *(f"cards/00{k}.wav" for k in range(1, 6)),
    *(f"librivox/sense_and_sensibility_01_austen_64kb-0{k}.wav" for k in (870, 880, 890, 920, 930)),
    *("forever/input_2_16k.wav", "forever/input_4_16k.wav"),
    *("goforward.raw", "numbers.raw", "something.raw", "tidigits/dhd.2934z.raw"),
)
# Decibels below an utterance's loudest frame where speech is said to end.
QUIET = 35.0
# Decibels of speech above the noise, and how the noise's power falls with the frequency.
NOISES = tuple((snr, slope) for snr in (20, 10, 5, 0) for slope in (0, 1))


class Speech(NamedTuple):
    clean: Any  # (N,), a number of frames
    noisy: Any  # (M, N): in each of NOISES
    spoken: Any  # (N / FRAME,) bool: frames that have speech


@cache
def load() -> Speech:
    parts, spoken = [], []
    for samples in _utterances():
        frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
        power = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
        silence = RATE // FRAME
        parts += [frames / np.sqrt(10 ** (power.max() / 10)), np.zeros((silence, FRAME))]
        spoken += [power > power.max() - QUIET, np.zeros(silence, bool)]
    frames, said = np.concatenate(parts), np.concatenate(spoken)
    clean = 0.1 * frames.reshape(-1)
    level = np.sqrt(np.mean(clean.reshape(-1, FRAME)[said] ** 2))
    rng = np.random.default_rng(0)
    noisy = [clean + level * 10 ** (-snr / 20) * _noise(rng, len(clean), s) for snr, s in NOISES]
    return Speech(clean.astype(np.float32), np.stack(noisy).astype(np.float32), said)


def _utterances() -> list[Any]:
    found = []
    with tarfile.open(data.archive(PACKAGE)) as source:  # opened once: it is packed as a whole
        for name in UTTERANCES:
            file = source.extractfile(f"pocketsphinx-5.1.1/test/data/{name}")
            assert file is not None
            content = file.read()
            if name.endswith(".wav"):
                with wave.open(io.BytesIO(content)) as wav:
                    content = wav.readframes(wav.getnframes())
            found.append(np.frombuffer(content, "<i2").astype(np.float64) / 2**15)
    return found


def _noise(rng: np.random.Generator, N: int, slope: int) -> Any:
    """Gaussian noise of power 1, which falls as 1 / f^slope."""
    spectrum = np.fft.rfft(rng.standard_normal(N))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** (slope / 2)
    noise = np.fft.irfft(spectrum, N)
    return noise / noise.std()
