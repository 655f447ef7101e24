"""The blocks around a recurrent layer, as a textbook has them.

Sequences are (T, B, .), and ``lengths`` the number of steps that each of the B has.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Array

Indices = npt.NDArray[np.int64]


def linear(x: Array, W: Array, b: Array) -> Array:
    """y = x W^T + b, of rows x: (n, n_in), W: (n_out, n_in)."""
    return x @ W.T + b


def linear_backward(d_y: Array, x: Array, W: Array) -> tuple[Array, Array, Array]:
    """Gradients of x, W and b: a sum over the rows for those that all rows share."""
    return d_y @ W, d_y.T @ x, d_y.sum(axis=0)


def embedding_backward(d_y: Array, indices: Indices, V: int, padding: int | None = None) -> Array:
    """The gradient of all V vectors, from that of weight[indices]."""
    d_weight = np.zeros((V, d_y.shape[-1]))
    for place in np.ndindex(indices.shape):
        if indices[place] != padding:
            d_weight[indices[place]] += d_y[place]
    return d_weight


def pool(x: Array, lengths: Indices, how: str) -> Array:
    """One vector for each sequence: (B, n) of (T, B, n). Zeros for a sequence without steps."""
    y = np.zeros(x.shape[1:])
    for b, n in enumerate(lengths):
        if n > 0:
            steps = x[:n, b]
            y[b] = {
                "max": steps.max(axis=0),
                "mean": steps.mean(axis=0),
                "last": steps[-1],
                "ends": _ends(steps[-1], steps[0]),
            }[how]
    return y


def pool_backward(d_y: Array, x: Array, lengths: Indices, how: str) -> Array:
    """The gradient of x. Of equal largest values the first has it."""
    d_x = np.zeros(x.shape)
    for b, n in enumerate(lengths):
        half = x.shape[2] // 2
        if n == 0:
            continue
        if how == "max":
            d_x[x[:n, b].argmax(axis=0), b, np.arange(x.shape[2])] = d_y[b]
        elif how == "mean":
            d_x[:n, b] = d_y[b] / n
        elif how == "last":
            d_x[n - 1, b] = d_y[b]
        else:
            d_x[n - 1, b, :half] = d_y[b, :half]
            d_x[0, b, half:] = d_y[b, half:]
    return d_x


def _ends(last: Array, first: Array) -> Array:
    """Where each of two directions has read the whole sequence: the last step, and the first."""
    half = len(last) // 2
    return np.concatenate([last[:half], first[half:]])


def softmax(x: Array) -> Array:
    """exp(x) as a part of its sum, along the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def attention(query: Array, states: Array, lengths: Indices, scale: float) -> tuple[Array, Array]:
    """Means of states, weighted by how well they match each query (Luong et al. 2015, "dot").

    Returns
    -------
    context : (T_q, B, H)
        Of (T_q, B, H) queries and (T, B, H) states.
    weights : (T_q, B, T)
        Zero past a sequence's end.
    """
    context = np.zeros(query.shape)
    weights = np.zeros((*query.shape[:2], len(states)))
    for b, n in enumerate(lengths):
        if n > 0:
            weights[:, b, :n] = softmax(scale * query[:, b] @ states[:n, b].T)
            context[:, b] = weights[:, b, :n] @ states[:n, b]
    return context, weights


def attention_backward(
    d_context: Array, query: Array, states: Array, lengths: Indices, scale: float
) -> tuple[Array, Array]:
    """Gradients of queries and states."""
    d_query, d_states = np.zeros(query.shape), np.zeros(states.shape)
    _, weights = attention(query, states, lengths, scale)
    for b, n in enumerate(lengths):
        p, s, d = weights[:, b, :n], states[:n, b], d_context[:, b]
        d_p = d @ s.T
        d_scores = scale * p * (d_p - np.sum(p * d_p, axis=-1, keepdims=True))
        d_query[:, b] = d_scores @ s
        d_states[:n, b] = p.T @ d + d_scores.T @ query[:, b]
    return d_query, d_states


def attend(
    h: Array, states: Array, lengths: Indices, W_query: Array, W_mix: Array, b_mix: Array
) -> tuple[Array, Array]:
    """What a decoder makes of its outputs and of what it looks at (Luong et al. 2015, "general").

    Returns
    -------
    mixed : (T_q, B, P)
        tanh(W_mix [h; context] + b_mix), of (T_q, B, P) outputs h and (T, B, S) states.
    weights : (T_q, B, T)
        Zero past a sequence's end.
    """
    context, weights = attention(h @ W_query.T, states, lengths, 1.0)
    return np.tanh(np.concatenate([h, context], axis=-1) @ W_mix.T + b_mix), weights


def attend_backward(
    d_mixed: Array,
    h: Array,
    states: Array,
    lengths: Indices,
    W_query: Array,
    W_mix: Array,
    b_mix: Array,
) -> tuple[Array, Array, Array, Array, Array]:
    """Gradients of h, states, W_query, W_mix and b_mix."""
    P, query = h.shape[-1], h @ W_query.T
    mixed, _ = attend(h, states, lengths, W_query, W_mix, b_mix)
    context, _ = attention(query, states, lengths, 1.0)
    both = np.concatenate([h, context], axis=-1)
    d_sum = d_mixed * (1 - mixed**2)
    d_both = d_sum @ W_mix
    d_query, d_states = attention_backward(d_both[..., P:], query, states, lengths, 1.0)
    d_W_query = np.einsum("tbs,tbp->sp", d_query, h)
    d_W_mix = np.einsum("tbp,tbk->pk", d_sum, both)
    return d_both[..., :P] + d_query @ W_query, d_states, d_W_query, d_W_mix, d_sum.sum((0, 1))
