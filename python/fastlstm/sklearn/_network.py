"""A network over sequences: its parts in one order, forward and backward."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from fastlstm._checks import FloatArray, IndexArray
from fastlstm.layers import LAYERS, table_of
from fastlstm.nn import Dropout, Embedding, Gradients, Linear, Module, Pool

CELLS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}


class NetworkTape:
    """What :meth:`Network.forward` saved."""

    def __init__(self, network: Network, tapes: dict[str, Any]) -> None:
        self.out: Any = None
        """That of ``out``, once scores were computed."""
        self._tapes = tapes
        self._learns_words = "words" in tapes and network.fine_tune

    def backward(self, d_scores: FloatArray) -> dict[str, Any]:
        """Return the gradients of all parts by name, as ``Module.step`` takes them.

        Parameters
        ----------
        d_scores : ndarray
            In the shape of the scores.
        """
        return self.backward_below(self.out.backward(d_scores))

    def backward_below(self, of_out: Gradients) -> dict[str, Any]:
        """Return the same, of the gradients of ``out`` and of what it reads."""
        tapes = self._tapes
        d = tapes["drop"].backward(of_out.x).x
        if "pool" in tapes:
            d = tapes["pool"].backward(d).x
        needs = ["x", "params"] if self._learns_words else ["params"]
        grads = {"out": of_out, "layer": tapes["layer"].backward(d, needs=needs)}
        if self._learns_words:
            grads["words"] = tapes["words"].backward(grads["layer"].x)
        return grads


class Network(Module):
    """Vectors of tokens where X is tokens, a layer, a vector for each sequence or not, and scores.

    Parts: ``words`` (Embedding, of tokens), ``layer``, ``pool`` (not where each step has scores),
    ``drop`` and ``out`` (Linear). Others are somebody else's.

    Attributes
    ----------
    fine_tune : bool
        Whether ``words`` are learned.
    """

    fine_tune = True

    def __call__(self, x: FloatArray | IndexArray, lengths: IndexArray) -> FloatArray:
        """Return scores in inference.

        Parameters
        ----------
        x : ndarray
            (T, B, F), or (T, B) tokens.
        lengths : ndarray of int64
            (B,).

        Returns
        -------
        ndarray
            (B, n), or (T, B, n) without ``pool``.
        """
        output, _ = self.layer(self.read(x), lengths=lengths)
        if "pool" in self.parts:
            output = self.pool(output, lengths)
        scores: FloatArray = self.out(output)
        return scores

    def read(self, x: Any) -> FloatArray:
        """Return what the layer reads: numbers as they are, of tokens their vectors."""
        steps: FloatArray = self.words(x) if "words" in self.parts else x
        return steps

    def forward(
        self, x: FloatArray | IndexArray, lengths: IndexArray, random: np.random.Generator
    ) -> tuple[FloatArray, NetworkTape]:
        """Return scores in training, and a tape for the backward pass.

        Parameters
        ----------
        x, lengths
            As in a call.
        random : Generator
            Of dropout: two seeds are drawn.
        """
        h, tape = self.forward_below(x, None, lengths, random)
        scores, tape.out = self.out.forward(h)
        return scores, tape

    def forward_below(
        self,
        x: FloatArray | IndexArray,
        state: Any,
        lengths: IndexArray,
        random: np.random.Generator,
    ) -> tuple[FloatArray, NetworkTape]:
        """Return what ``out`` reads, from a state of the layer on, for a loss that computes scores.

        The tape is for :meth:`NetworkTape.backward_below`.
        """
        of_layer, of_drop = random.integers(2**63, size=2).tolist()
        tapes: dict[str, Any] = {}
        if "words" in self.parts:
            x, tapes["words"] = self.words.forward(x)
        h, _, tapes["layer"] = self.layer.forward(x, state, lengths=lengths, seed=of_layer)
        if "pool" in self.parts:
            h, tapes["pool"] = self.pool.forward(h, lengths)
        h, tapes["drop"] = self.drop.forward(h, seed=of_drop)
        return h, NetworkTape(self, tapes)


def make_network(
    options: SimpleNamespace,
    n_in: int,
    n_out: int,
    random: np.random.Generator,
    *,
    words: Embedding | None = None,
    pooling: str | None = None,
    bidirectional: bool = False,
    fine_tune: bool = True,
    **parts: Any,
) -> Network:
    """Make a network with new parameters.

    Parameters
    ----------
    options : SimpleNamespace
        An estimator's checked options, of which those of layers count.
    n_in, n_out : int
        The features of a step, and the scores.
    random : Generator
        Of the initial values.
    words : Embedding, optional
        Of tokens.
    pooling : str, optional
        What becomes of the steps; None: each has scores.
    bidirectional, fine_tune : bool
        Whether there are two directions, and whether `words` are learned.
    **parts
        Others, after these.

    Raises
    ------
    ValueError
        Options do not go together.
    """
    of_layer, of_out = random.integers(2**63, size=2).tolist()
    if pooling == "ends" and not bidirectional:
        raise ValueError("pooling: expected max, mean or last for one direction, got 'ends'")
    made: dict[str, Any] = {} if words is None else {"words": words}
    made["layer"] = _make_layer(options, n_in, bidirectional, of_layer)
    if pooling is not None:
        made["pool"] = Pool(pooling)  # type: ignore[arg-type]
    made["drop"] = Dropout(options.dropout)
    width = options.hidden_size * (2 if bidirectional else 1)
    made["out"] = Linear(width, n_out, dtype=options.dtype, seed=of_out)
    network = Network(**made, **parts)
    network.fine_tune = fine_tune
    return network


def _make_layer(options: SimpleNamespace, n_in: int, bidirectional: bool, seed: int) -> Any:
    cls = LAYERS[CELLS[options.cell]]
    of_cell = {}
    for name in ("recurrent_dropout", "zoneout", "weight_dropout", "layer_norm"):
        value = getattr(options, name)
        if value:
            if name not in table_of(cls).options:
                raise ValueError(f"{name}: expected none for cell={options.cell!r}, got {value!r}")
            of_cell[name] = value
    return cls(
        n_in,
        options.hidden_size,
        options.num_layers,
        bidirectional=bidirectional,
        dropout=options.dropout if options.num_layers > 1 else 0.0,
        dtype=options.dtype,
        seed=seed,
        **of_cell,
    )
