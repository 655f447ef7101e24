"""What comes next in sequences: the examples of a generator, its losses and likelihoods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._checks import FloatArray, IndexArray
from fastlstm.nn import (
    Gradients,
    binary_cross_entropy,
    draw,
    gaussian,
    linear_cross_entropy,
)

from ._inputs import UNKNOWN, Sequences
from ._network import Network
from ._training import Problem

Float64Array = npt.NDArray[np.float64]
# Of the scores of all steps that are in memory at once, for likelihoods.
_MOST_SCORES = 1 << 22


class Steps(ABC):
    """A kind of steps: what the network reads of one, and how it says which comes next."""

    n_in: int
    """The numbers that the layer reads of a step, or of tokens how many there are."""
    n_out: int
    """Scores of a step."""
    ends: bool
    """Whether sequences say where they end."""

    @abstractmethod
    def boundary(self) -> Any:
        """Return what stands before the first step; and after the last one, where it `ends`."""

    def first_bias(self, values: npt.NDArray[Any]) -> FloatArray | None:
        """Return what the bias of ``out`` begins with, of what is learned from; None: as ever."""
        return None

    @abstractmethod
    def loss(
        self, network: Network, h: FloatArray, y: npt.NDArray[Any], lengths: IndexArray
    ) -> tuple[float, Gradients]:
        """Return the mean loss of (T, B, H) outputs, and gradients of these and of ``out``."""

    @abstractmethod
    def log_likelihood(self, scores: FloatArray, y: npt.NDArray[Any]) -> Float64Array:
        """Return the logarithm of each step's probability, (R,), of (R, n_out) scores."""

    @abstractmethod
    def draw(
        self,
        scores: FloatArray,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        random: np.random.Generator,
    ) -> npt.NDArray[Any]:
        """Return the next step of each row at random."""


class Tokens(Steps):
    """Tokens by their place; the last place is the boundary."""

    ends = True

    def __init__(self, V: int) -> None:
        self.n_in = self.n_out = V

    def boundary(self) -> Any:
        """As :meth:`Steps.boundary`."""
        return self.n_in - 1

    def loss(
        self, network: Network, h: FloatArray, y: npt.NDArray[Any], lengths: IndexArray
    ) -> tuple[float, Gradients]:
        """As :meth:`Steps.loss`: cross-entropy, whose logits are never whole in memory."""
        return linear_cross_entropy(network.out, h, y, lengths)

    def log_likelihood(self, scores: FloatArray, y: npt.NDArray[Any]) -> Float64Array:
        """As :meth:`Steps.log_likelihood`."""
        most = scores.max(axis=1)
        total = np.exp(scores - most[:, None]).sum(axis=1, dtype=np.float64)
        found: Float64Array = scores[np.arange(len(y)), y].astype(np.float64) - most - np.log(total)
        return found

    def draw(
        self,
        scores: FloatArray,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        random: np.random.Generator,
    ) -> npt.NDArray[Any]:
        """As :meth:`Steps.draw`, never an unknown token."""
        scores[:, UNKNOWN] = -np.inf
        if top_k is not None or top_p is not None:
            return draw(scores, temperature=temperature, top_k=top_k, top_p=top_p, seed=random)
        # The same in fewer calls: the largest of scores with Gumbel noise.
        noise = random.gumbel(0.0, temperature, scores.shape)
        tokens: IndexArray = (scores + noise).argmax(axis=1)
        return tokens


class Frames(Steps):
    """Frames of F numbers."""

    ends = False

    def __init__(self, F: int, n_out: int) -> None:
        self.n_in = F
        self.n_out = n_out

    def boundary(self) -> Any:
        """As :meth:`Steps.boundary`: a frame of zeros."""
        return 0

    def loss(
        self, network: Network, h: FloatArray, y: npt.NDArray[Any], lengths: IndexArray
    ) -> tuple[float, Gradients]:
        """As :meth:`Steps.loss`."""
        scores, tape = network.out.forward(h)
        loss, d_scores = self.loss_of_scores(scores, y, lengths)
        return loss, tape.backward(d_scores)

    @abstractmethod
    def loss_of_scores(
        self, scores: FloatArray, y: npt.NDArray[Any], lengths: IndexArray
    ) -> tuple[float, FloatArray]:
        """Return the mean loss of a value, and the gradient of scores, (T, B, n_out)."""


class BinaryFrames(Frames):
    """Each value is 0 or 1 by itself: the score is its logit."""

    def __init__(self, F: int) -> None:
        super().__init__(F, F)

    def first_bias(self, values: npt.NDArray[Any]) -> FloatArray | None:
        """As :meth:`Steps.first_bias`: how often each value is 1 need not be learned.

        Most keys of a piano are never touched.
        """
        p = (values.sum(axis=0, dtype=np.float64) + 0.5) / (len(values) + 1)
        bias: FloatArray = np.log(p / (1 - p)).astype(values.dtype)
        return bias

    def loss_of_scores(
        self, scores: FloatArray, y: npt.NDArray[Any], lengths: IndexArray
    ) -> tuple[float, FloatArray]:
        """As :meth:`Frames.loss_of_scores`."""
        return binary_cross_entropy(scores, y, lengths)

    def log_likelihood(self, scores: FloatArray, y: npt.NDArray[Any]) -> Float64Array:
        """As :meth:`Steps.log_likelihood`."""
        against = np.where(y > 0, -scores, scores).astype(np.float64)
        found: Float64Array = -np.logaddexp(0, against).sum(axis=1)
        return found

    def draw(
        self,
        scores: FloatArray,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        random: np.random.Generator,
    ) -> npt.NDArray[Any]:
        """As :meth:`Steps.draw`."""
        drawn: npt.NDArray[Any] = scores > random.logistic(0.0, temperature, scores.shape)
        return drawn.astype(scores.dtype)


class GaussianFrames(Frames):
    """Each value is normally distributed: scores are the means, and the log deviations."""

    def __init__(self, F: int) -> None:
        super().__init__(F, 2 * F)

    def loss_of_scores(
        self, scores: FloatArray, y: npt.NDArray[Any], lengths: IndexArray
    ) -> tuple[float, FloatArray]:
        """As :meth:`Frames.loss_of_scores`."""
        mean, log_std = np.split(scores, 2, axis=2)
        loss, *d = gaussian(mean, log_std, y, lengths)
        return loss, np.concatenate(d, axis=2)

    def log_likelihood(self, scores: FloatArray, y: npt.NDArray[Any]) -> Float64Array:
        """As :meth:`Steps.log_likelihood`."""
        mean, log_std = np.split(scores.astype(np.float64), 2, axis=1)
        z = (y - mean) * np.exp(-log_std)
        found: Float64Array = -(log_std + z**2 / 2 + np.log(2 * np.pi) / 2).sum(axis=1)
        return found

    def draw(
        self,
        scores: FloatArray,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        random: np.random.Generator,
    ) -> npt.NDArray[Any]:
        """As :meth:`Steps.draw`."""
        mean, log_std = np.split(scores, 2, axis=1)
        z = random.standard_normal(mean.shape, scores.dtype)
        return mean + temperature * np.exp(log_std) * z


@dataclass
class Pieces:
    """Pieces of sequences: at each step the next one is to be said."""

    values: npt.NDArray[Any]
    """(N, ...): all sequences, each after a boundary, and before one where they end."""
    starts: IndexArray
    """(n,): the place that each piece's first step is said from: the one before it."""
    lengths: IndexArray
    """(n,): the steps that are said."""
    before: IndexArray
    """(n,): how many places before the start are read first, to have a state."""

    def some(self, rows: IndexArray) -> Pieces:
        """Return some of the pieces."""
        return Pieces(self.values, self.starts[rows], self.lengths[rows], self.before[rows])

    def batch(self, rows: IndexArray) -> tuple[npt.NDArray[Any], npt.NDArray[Any], IndexArray]:
        """Return what is read, (T, B, ...), what comes next, and lengths."""
        x, lengths = Sequences(self.values, self.starts, self.lengths).batch(rows)
        y, _ = Sequences(self.values, self.starts + 1, self.lengths).batch(rows)
        return x, y, lengths

    def context(self, rows: IndexArray) -> tuple[npt.NDArray[Any], IndexArray]:
        """Return what is read before."""
        return Sequences(self.values, self.starts - self.before, self.before).batch(rows)


def cut(sequences: Sequences, steps: Steps, length: int | None) -> tuple[Pieces, IndexArray]:
    """Cut sequences into pieces of some steps at most (None: whole), and say whose each is."""
    ends = int(steps.ends)
    n, total = len(sequences.lengths), int(sequences.lengths.sum())
    shape = (total + n * (1 + ends), *sequences.values.shape[1:])
    values = np.full(shape, steps.boundary(), sequences.values.dtype)
    starts, place = [], 0
    for steps_of_one in sequences.one_by_one():
        starts.append(place)
        values[place + 1 : place + 1 + len(steps_of_one)] = steps_of_one
        place += 1 + len(steps_of_one) + ends
    said = sequences.lengths + ends
    most = max(int(said.max()), 1) if length is None else length
    counts = -(-said // most)
    owners = np.repeat(np.arange(n), counts)
    offsets = (np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)) * most
    return (
        Pieces(
            values,
            np.array(starts, np.int64)[owners] + offsets,
            np.minimum(said[owners] - offsets, most),
            np.minimum(offsets, most),
        ),
        owners,
    )


class NextStep(Problem):
    """To say what comes next."""

    def __init__(self, network: Network, pieces: Pieces, steps: Steps) -> None:
        self.network: Network = network
        self.lengths = pieces.lengths
        self._pieces = pieces
        self._steps = steps

    def gradients(self, rows: IndexArray, random: np.random.Generator) -> tuple[float, Any]:
        """As :meth:`Problem.gradients`."""
        x, y, lengths = self._pieces.batch(rows)
        h, tape = self.network.forward_below(x, self._state(rows), lengths, random)
        loss, of_out = self._steps.loss(self.network, h, y, lengths)
        return loss, tape.backward_below(of_out)

    def loss(self, rows: IndexArray) -> float:
        """As :meth:`Problem.loss`."""
        x, y, lengths = self._pieces.batch(rows)
        h, _ = self.network.layer(self.network.read(x), self._state(rows), lengths=lengths)
        return self._steps.loss(self.network, h, y, lengths)[0]

    def _state(self, rows: IndexArray) -> Any:
        """The state that a piece begins with: that after the steps before, without gradients."""
        x, lengths = self._pieces.context(rows)
        return self.network.layer(self.network.read(x), lengths=lengths)[1] if len(x) else None


def log_likelihoods(network: Network, pieces: Pieces, steps: Steps) -> Float64Array:
    """Return the log probability of each of a few sequences that are one piece each.

    As many steps at a time as bound the memory, however long they are.
    """
    rows = np.arange(len(pieces.lengths))
    x, y, lengths = pieces.batch(rows)
    total = np.zeros(len(rows))
    state = None
    at_once = max(_MOST_SCORES // (len(rows) * steps.n_out), 1)
    for first in range(0, len(x), at_once):
        part = slice(first, first + at_once)
        here = np.clip(lengths - first, 0, len(x[part]))
        h, state = network.layer(network.read(x[part]), state, lengths=here)
        inside = np.arange(len(h))[:, None] < here
        found = np.zeros(inside.shape)
        found[inside] = steps.log_likelihood(network.out(h[inside]), y[part][inside])
        total += found.sum(axis=0)
    return total
