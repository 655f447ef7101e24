"""A decoder that looks at the states of an encoder: translation, captions, spelling to sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm._checks import MOST_SIZE, FloatArray, IndexArray, as_int, check_shape
from fastlstm.layers import RecurrentLayer, spec_of

from ._attention import Attention
from ._block import Gradients, random_of
from ._decode import Hypothesis, beam_search, greedy
from ._embedding import Embedding
from ._linear import Linear, weights_of
from ._losses import linear_cross_entropy
from ._module import Module, in_files
from ._pool import How, Pool
from ._sequences import Sequences, as_indices, as_sequences


@dataclass(eq=False)
class DecoderGradients:
    """What the backward pass of an :class:`AttentionDecoder` returns.

    Attributes
    ----------
    states : ndarray
        Of the encoder's states, in their shape; zeros past a sequence's end.
    params : dict
        By the names of the decoder's parameters, as :meth:`Module.step` takes them.
    """

    states: FloatArray
    params: dict[str, Any]


class _Inside:
    """A call up to what ``out`` reads, `mixed`, and the way back from there."""

    def __init__(
        self,
        decoder: AttentionDecoder,
        states: Sequences,
        tokens: IndexArray,
        token_lengths: Any,
        training: bool,
    ) -> None:
        self._spec = spec_of(decoder.layer)
        tapes = self._tapes = dict[str, Any]()
        pooled, tapes["pool"] = decoder.pool.forward(states.values, states.lengths)
        first, tapes["start"] = decoder.start.forward(pooled)
        self._h_0 = np.tanh(first)
        x, tapes["words"] = decoder.words.forward(tokens)
        h, _, tapes["layer"] = decoder.layer.forward(
            x,
            _first_state(decoder, self._h_0),
            lengths=token_lengths,
            training=training,
        )
        query, tapes["query"] = decoder.query.forward(h)
        context, tapes["attention"] = decoder.attention.forward(
            query, states.values, states.lengths
        )
        both = np.concatenate([h, context], axis=-1)
        mixed, tapes["mix"] = decoder.mix.forward(both)
        self.mixed: FloatArray = np.tanh(mixed)
        self.weights: FloatArray = tapes["attention"].weights

    def backward(self, of_out: Gradients) -> DecoderGradients:
        """Return all gradients from those of ``out`` and of `mixed`."""
        tapes, P = self._tapes, self._spec.output_size
        of_mix = tapes["mix"].backward(of_out.x * (1 - self.mixed * self.mixed))
        of_attention = tapes["attention"].backward(of_mix.x[..., P:])
        of_query = tapes["query"].backward(of_attention.query)
        of_layer = tapes["layer"].backward(of_mix.x[..., :P] + of_query.x)
        of_words = tapes["words"].backward(of_layer.x)
        h_0 = of_layer.state[0] if len(self._spec.state_parts) > 1 else of_layer.state
        d_h_0 = h_0.swapaxes(0, 1).reshape(self._h_0.shape)  # (L, B, P) to (B, L * P)
        of_start = tapes["start"].backward(d_h_0 * (1 - self._h_0 * self._h_0))
        d_states = of_attention.states + tapes["pool"].backward(of_start.x).x
        parts = {"words": of_words, "layer": of_layer, "start": of_start}
        parts |= {"query": of_query, "mix": of_mix, "out": of_out}
        params = {
            f"{part}.{name}": value
            for part, grads in parts.items()
            for name, value in grads.params.items()
        }
        return DecoderGradients(d_states, params)


class DecoderTape:
    """What :meth:`AttentionDecoder.forward` saved.

    Attributes
    ----------
    weights : ndarray
        (U, B, T), or (B, U, T) with ``batch_first``: how much each token's decoder looks at each
        state. Zero past the states' end.
    """

    def __init__(self, inside: _Inside, out: Any) -> None:
        self._inside = inside
        self._out = out
        self.weights = inside.weights

    def backward(self, d_logits: Any) -> DecoderGradients:
        """Return the gradients of the encoder's states and of all parameters.

        Parameters
        ----------
        d_logits : array_like
            The gradient with respect to the logits, in their shape.

        Raises
        ------
        ValueError, TypeError
            `d_logits` has another shape or type than stated.
        """
        return self._inside.backward(self._out.backward(d_logits))


class DecoderStream:
    """A decoder that runs token by token: what ``greedy``, ``sample`` and ``beam_search`` call.

    Made by :meth:`AttentionDecoder.stream`. It keeps the parameters that the decoder had then, but
    for the vectors of tokens, which are the decoder's own.

    Attributes
    ----------
    batch_size : int
        B, the number of sources; of each there are ``beam_size`` rows, R in all.
    """

    def __init__(self, decoder: AttentionDecoder, states: Sequences, beam_size: int) -> None:
        dtype, K = states.values.dtype, beam_size
        values, inside = states.values, states.inside()
        if not states.batch_first:
            values, inside = values.swapaxes(0, 1), inside.T
        # Padding is left out of all sums, whatever stands there.
        self._states = np.where(inside[:, :, None], values, dtype.type(0))  # (B, T, S)
        self._keys = np.ascontiguousarray(self._states.swapaxes(1, 2))
        self.batch_size = states.B
        self._sources = np.repeat(np.arange(states.B), K)
        self._words = decoder.words
        self._query, self._mix, self._out = (
            weights_of(linear) for linear in (decoder.query, decoder.mix, decoder.out)
        )
        self._kept = inside[:, None]
        self._mask = None
        if not inside.all():
            # Of a source without states all sums are zero, whatever its weights.
            seen = self._kept.any(axis=2, keepdims=True)
            self._mask = np.where(self._kept | ~seen, dtype.type(0), dtype.type(-np.inf))
        self._weights = np.zeros((states.B, K, states.T), dtype)
        self._layer = decoder.layer.stream(batch_size=len(self._sources))
        pooled = decoder.pool(states.values, states.lengths)
        h_0 = np.repeat(np.tanh(decoder.start(pooled)), K, axis=0)
        self._layer.state = _first_state(decoder, h_0)

    @property
    def weights(self) -> FloatArray:
        """(R, T): how much the last step looked at each state."""
        kept: FloatArray = np.where(self._kept, self._weights, self._weights.dtype.type(0))
        return kept.reshape(len(self._sources), -1)

    def step(self, tokens: Any, rows: Any = None) -> FloatArray:
        """Return the logits of what comes next.

        Parameters
        ----------
        tokens : array_like of int
            (R,): the last token of each row, of which each source has ``beam_size``.
        rows : array_like of int, optional
            (R,): which row each goes on from, of the same source. By default from itself.

        Returns
        -------
        ndarray
            (R, V).

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        B, K, _ = self._weights.shape
        tokens = as_indices("tokens", tokens)
        check_shape("tokens", tokens, (B * K,))
        x = self._words(tokens)
        if rows is not None:
            rows = as_indices("rows", rows)
            check_shape("rows", rows, (B * K,))
            if (rows // K != self._sources).any():
                raise ValueError("rows: expected that each goes on from one of its own source")
            if K > 1:
                self._layer.reorder(rows)
        h = self._layer.step(x)
        scores = np.matmul(self._query.multiply(h).reshape(B, K, -1), self._keys)
        if self._mask is not None:
            scores += self._mask
        scores -= scores.max(axis=-1, keepdims=True, initial=-np.inf)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        self._weights = scores
        context = np.matmul(scores, self._states).reshape(B * K, -1)
        mixed = self._mix.multiply(np.concatenate([h, context], axis=1))
        return self._out.multiply(np.tanh(mixed, out=mixed))


@in_files
class AttentionDecoder(Module):
    """A recurrent layer that says a sequence, token by token, and looks at an encoder's states.

    .. code-block:: text

        h[0] = tanh(start(pool(states)))                         the layer's first state
        h[u] = layer(words(tokens[u]), h[u - 1])
        weights[u] = softmax over t of (query(h[u]) . states[t])
        context[u] = sum_t weights[u, t] states[t]
        logits[u] = out(tanh(mix([h[u], context[u]])))

    That is the global attention of Luong, Pham and Manning 2015, "Effective approaches to
    attention-based neural machine translation", with their score "general". The names are those of
    its parts; other parts of a layer's state than h begin with zeros.

    Parameters
    ----------
    V : int
        The number of tokens.
    layer : LSTM, GRU or RNN
        Of one direction; tokens have vectors of its ``input_size``. With its ``batch_first`` tokens
        are (B, U), and states (B, T, S).
    n_states : int
        S, the width of a state: 2H of a bidirectional encoder.
    pooling : "ends", "last", "mean" or "max"
        What the first state is made of: what :class:`Pool` makes of the encoder's states. "ends" is
        for bidirectional encoders.
    seed : int, optional
        Of the initial values, but the layer's.

    Raises
    ------
    ValueError, TypeError
        An argument has another value or type than stated.

    Examples
    --------
    >>> encoder = fastlstm.LSTM(8, 16, bidirectional=True, seed=0)
    >>> decoder = fastlstm.nn.AttentionDecoder(10, fastlstm.LSTM(4, 16, seed=1), 32, seed=2)
    >>> states, _, tape = encoder.forward(np.ones((5, 2, 8), dtype=np.float32))

    Training: tokens from a start, here 0, to an end, here 1.

    >>> tokens, lengths = fastlstm.nn.pad([[0, 7, 5, 1], [0, 9, 1]])
    >>> loss, grads = decoder.loss(states, None, tokens, lengths)
    >>> of_encoder = tape.backward(grads.states)

    An answer for each of the two:

    >>> found = decoder.decode(states, start=0, end=1, max_length=9, beam_size=3)
    >>> len(found), found[0].tokens.dtype
    (2, dtype('int64'))
    """

    def __init__(
        self,
        V: int,
        layer: RecurrentLayer[Any, Any],
        n_states: int,
        *,
        pooling: How = "ends",
        seed: int | None = None,
    ) -> None:
        if not isinstance(layer, RecurrentLayer):
            raise TypeError(f"layer: expected a layer, got {type(layer).__name__}")
        spec = spec_of(layer)
        if spec.reads_from_the_end:
            raise ValueError("layer: expected one that reads from the beginning alone")
        S, P = as_int("n_states", n_states, 1, MOST_SIZE), spec.output_size
        seeds = random_of(seed).integers(2**63, size=5).tolist()
        dtype, first = spec.dtype, spec.batch_first
        super().__init__(
            words=Embedding(V, spec.input_size, dtype=dtype, seed=seeds[0]),
            layer=layer,
            pool=Pool(pooling, batch_first=first),
            start=Linear(S, spec.num_layers * P, dtype=dtype, seed=seeds[1]),
            query=Linear(P, S, bias=False, dtype=dtype, seed=seeds[2]),
            attention=Attention(batch_first=first),
            mix=Linear(P + S, P, dtype=dtype, seed=seeds[3]),
            out=Linear(P, V, dtype=dtype, seed=seeds[4]),
        )

    def _check_parts(self) -> None:
        made = AttentionDecoder(
            self.words.V, self.layer, self.query.n_out, pooling=self.pool.how, seed=0
        )
        found, expected = repr(dict(self.parts)), repr(dict(made.parts))
        if found != expected:
            raise ValueError(f"expected the parts of a decoder, {expected}, got {found}")

    def __call__(
        self, states: Any, lengths: Any, tokens: Any, token_lengths: Any = None
    ) -> FloatArray:
        """Return the logits of what comes after each token, in inference.

        Parameters
        ----------
        states : array_like
            (T, B, S): of the encoder.
        lengths : array_like of int, or None
            (B,): how many states each sequence has; None: all.
        tokens : array_like of int
            (U, B).
        token_lengths : array_like of int, optional
            (B,): how many tokens each has. What comes after them means nothing.

        Returns
        -------
        ndarray
            (U, B, V).

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        source, indices = self._checked(states, lengths, tokens)
        inside = _Inside(self, source, indices, token_lengths, training=False)
        logits: FloatArray = self.out(inside.mixed)
        return logits

    def forward(
        self, states: Any, lengths: Any, tokens: Any, token_lengths: Any = None
    ) -> tuple[FloatArray, DecoderTape]:
        """Return the logits of what comes after each token, and a tape for the backward pass.

        The layer has its dropout unless :meth:`eval` was called.

        Parameters
        ----------
        states, lengths, tokens, token_lengths
            As in a call. The tape keeps the arrays, without a copy.

        Returns
        -------
        logits : ndarray
            (U, B, V).
        tape : DecoderTape

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        source, indices = self._checked(states, lengths, tokens)
        inside = _Inside(self, source, indices, token_lengths, self.training)
        logits, out = self.out.forward(inside.mixed)
        return logits, DecoderTape(inside, out)

    def loss(
        self,
        states: Any,
        lengths: Any,
        tokens: Any,
        token_lengths: Any = None,
        *,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> tuple[float, DecoderGradients]:
        """Return the cross-entropy of each token after the first, and its gradients.

        Each is predicted from those before it, so tokens are whole sequences: a start, what is to
        be said, an end. Logits of large vocabularies are never whole in memory
        (:func:`linear_cross_entropy`).

        Parameters
        ----------
        states, lengths
            As in a call.
        tokens : array_like of int
            (U, B), U of at least 1; padding may be any tokens.
        token_lengths : array_like of int, optional
            (B,): how many tokens each has, the first and the last among them.
        label_smoothing, reduction
            As of :func:`cross_entropy`.

        Returns
        -------
        loss : float
        grads : DecoderGradients

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        source, indices = self._checked(states, lengths, tokens)
        first = source.batch_first
        U, B = indices.T.shape if first else indices.shape
        if U == 0:
            raise ValueError("tokens: expected sequences of at least one, the start")
        if token_lengths is not None:
            token_lengths = as_indices("token_lengths", token_lengths)
            check_shape("token_lengths", token_lengths, (B,))
            if token_lengths.size and not 0 <= token_lengths.min() <= token_lengths.max() <= U:
                raise ValueError(f"token_lengths: expected 0 to {U}, got {token_lengths.tolist()}")
            token_lengths = np.maximum(token_lengths - 1, 0)
        before = indices[:, :-1] if first else indices[:-1]
        after = indices[:, 1:] if first else indices[1:]
        inside = _Inside(self, source, before, token_lengths, self.training)
        loss, of_out = linear_cross_entropy(
            self.out,
            inside.mixed,
            after,
            token_lengths,
            batch_first=first,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )
        return loss, inside.backward(of_out)

    def decode(
        self,
        states: Any,
        lengths: Any = None,
        *,
        start: Any,
        end: int,
        max_length: int,
        beam_size: int = 1,
        length_penalty: float = 0.0,
    ) -> list[Hypothesis]:
        """Return what the decoder says of each sequence.

        Parameters
        ----------
        states, lengths
            As in a call.
        start, end, max_length, length_penalty
            As of :func:`beam_search`.
        beam_size : int
            1: the likeliest token each time (:func:`greedy`). Above: :func:`beam_search`.

        Returns
        -------
        list of Hypothesis
            The best of each.

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        stream = self.stream(states, lengths, beam_size=beam_size)
        how = {"start": start, "end": end, "max_length": max_length}
        if beam_size == 1:
            return greedy(stream.step, stream.batch_size, **how)
        found = beam_search(
            stream.step, stream.batch_size, beam_size, length_penalty=length_penalty, **how
        )
        return [of_source[0] for of_source in found]

    def stream(self, states: Any, lengths: Any = None, *, beam_size: int = 1) -> DecoderStream:
        """Return the decoder at its beginning, to run token by token.

        Its ``step`` is what :func:`greedy`, :func:`sample` and :func:`beam_search` call:
        :meth:`decode` does, for the best answers.

        Parameters
        ----------
        states : array_like
            (T, B, S): of the encoder.
        lengths : array_like of int, optional
            (B,): how many states each sequence has.
        beam_size : int
            How many rows each source has.

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        source = self._source(states, lengths)
        return DecoderStream(self, source, as_int("beam_size", beam_size, 1, MOST_SIZE))

    def _source(self, states: Any, lengths: Any) -> Sequences:
        S, spec = self.query.n_out, spec_of(self.layer)
        return as_sequences("states", states, S, lengths, spec.batch_first, spec.dtype)

    def _checked(self, states: Any, lengths: Any, tokens: Any) -> tuple[Sequences, IndexArray]:
        source, indices = self._source(states, lengths), as_indices("tokens", tokens)
        check_shape("tokens", indices, (source.B, "U") if source.batch_first else ("U", source.B))
        return source, indices


def _first_state(decoder: AttentionDecoder, h_0: FloatArray) -> Any:
    """The layer's state (L, B, .) of (B, L * P) values of h: all else is zero."""
    spec = spec_of(decoder.layer)
    B, L = len(h_0), spec.num_layers
    h = np.ascontiguousarray(h_0.reshape(B, L, -1).swapaxes(0, 1))
    rest = [np.zeros((L, B, width), spec.dtype) for _, width in spec.state_parts[1:]]
    return (h, *rest) if rest else h
