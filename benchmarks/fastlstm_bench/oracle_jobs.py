"""The right results of jobs and blocks, in float64, by the functions of `fastlstm.reference`."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastlstm import reference
from fastlstm.reference import blocks, losses

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import BLANK, QUANTILES, Array, Arrays, Problem, ends

_TRANSITIONS = ("start_transitions", "end_transitions", "transitions")


def _lengths(case: Case, problem: Problem) -> Array:
    return ends(case.T, case.B, problem.lengths)


def _targets(problem: Problem) -> Array:
    assert problem.targets is not None
    return problem.targets


def labels_of(path: list[int], T: int) -> Array:
    """Labels as an array that any number of them fits: (T,), -1 behind the last."""
    return np.pad(np.asarray(path, np.int64), (0, T - len(path)), constant_values=-1)


def cross_entropy(logits: Array, y: Array, lengths: Array) -> tuple[float, Array]:
    """The sum over the steps that count, of logits (T, B, V)."""
    counts = np.arange(len(logits))[:, np.newaxis] < lengths
    d_logits = np.zeros_like(logits)
    ones = np.ones(logits.shape[-1])
    loss, d_logits[counts] = losses.cross_entropy(logits[counts], y[counts], ones)
    return loss, d_logits


def ctc(case: Case, logits: Array, problem: Problem) -> tuple[float, Array]:
    """The sum over sequences."""
    assert problem.target_lengths is not None
    loss, d_logits = 0.0, np.zeros_like(logits)
    for b, (n, labels) in enumerate(
        zip(_lengths(case, problem), problem.target_lengths, strict=True)
    ):
        target = _targets(problem)[b, :labels].tolist()
        of_one, d = reference.ctc_loss(logits[:n, b], target, BLANK)
        loss += of_one
        d_logits[:n, b] = d
    return loss, d_logits


def crf(
    case: Case, emissions: Array, problem: Problem, scores: list[Array]
) -> tuple[float, Array, list[Array]]:
    """The sum over sequences; gradients of emissions and of the scores (start, end, all)."""
    loss, d_emissions = 0.0, np.zeros_like(emissions)
    d_scores = [np.zeros_like(score) for score in scores]
    for b, n in enumerate(_lengths(case, problem)):
        of_one, d = reference.crf_loss(emissions[:n, b], _targets(problem)[:n, b], *scores)
        loss += of_one
        d_emissions[:n, b] = d.emissions
        for total, part in zip(d_scores, (d.start, d.end, d.transitions), strict=True):
            total += part
    return loss, d_emissions, d_scores


def job_pass(case: Case, problem: Problem) -> Arrays:
    """The loss and d_<parameter> of a job that trains, or its answer to a request."""
    params = {name: value.astype(np.float64) for name, value in problem.params.items()}
    lengths = _lengths(case, problem)
    words = params.get("words.weight")
    x = problem.x if words is None else words[problem.x]
    hidden, _, tape = reference.lstm_forward(
        {name: value for name, value in params.items() if "." not in name},
        x,
        None,
        lengths=problem.layer_lengths,
    )
    W, b = params["out.weight"], params["out.bias"]
    how = {"classifier": "max", "forecaster": "last"}.get(case.use)
    read = hidden if how is None else blocks.pool(hidden, lengths, how)
    if case.use == "language" and not case.trains:
        read = hidden[-1]
    scores = blocks.linear(read, W, b)
    transitions = [params[f"crf.{name}"] for name in _TRANSITIONS if f"crf.{name}" in params]
    if not case.trains:
        return {"output": _answer(case, scores, transitions)}
    results: Arrays = {}
    if case.use == "classifier":
        loss, d_scores = losses.cross_entropy(scores, _targets(problem), np.ones(case.V))
    elif case.use == "tagger":
        loss, d_scores, d_transitions = crf(case, scores, problem, transitions)
        results |= {f"d_crf.{n}": d for n, d in zip(_TRANSITIONS, d_transitions, strict=True)}
    elif case.use == "transcriber":
        loss, d_scores = ctc(case, scores, problem)
    elif case.use == "forecaster":
        y = scores.reshape(-1, len(QUANTILES))
        loss, d_scores = losses.quantile(y, _targets(problem).ravel(), np.array(QUANTILES))
    else:
        loss, d_scores = cross_entropy(scores, _targets(problem), lengths)
    rows = (d_scores.reshape(-1, case.V), read.reshape(-1, read.shape[-1]))
    d_read, results["d_out.weight"], results["d_out.bias"] = blocks.linear_backward(*rows, W)
    d_read = d_read.reshape(read.shape)
    d_hidden = d_read if how is None else blocks.pool_backward(d_read, hidden, lengths, how)
    gradients: Any = reference.lstm_backward(tape, d_hidden, None)
    results |= {f"d_{name}": gradient for name, gradient in gradients.params.items()}
    if words is not None:
        d_words = blocks.embedding_backward(gradients.x, problem.x, len(words), padding=0)
        results["d_words.weight"] = d_words
    return {"loss": np.array(loss), **results}


def _answer(case: Case, scores: Array, transitions: list[Array]) -> Array:
    """What a request gets, for one sequence: scores, tags, labels, quantiles."""
    if case.use == "tagger":
        return reference.crf_decode(scores[:, 0], *transitions).astype(np.float64)
    if case.use == "transcriber":
        labels = reference.ctc_greedy(scores[:, 0], BLANK)
        return labels_of(labels, case.T).astype(np.float64)
    return scores


def block_pass(case: Case, problem: Problem) -> Arrays:
    """The output or the loss of a block, and its gradients."""
    x: Array = problem.x if case.use == "embedding" else problem.x.astype(np.float64)
    params = {name: value.astype(np.float64) for name, value in problem.params.items()}
    d_y = problem.d_output.astype(np.float64)
    lengths = _lengths(case, problem)
    if case.use == "linear":
        d = blocks.linear_backward(d_y.reshape(-1, case.V), x.reshape(-1, case.H), params["weight"])
        return {
            "output": blocks.linear(x, params["weight"], params["bias"]),
            "d_x": d[0].reshape(x.shape),
            "d_weight": d[1],
            "d_bias": d[2],
        }
    if case.use == "embedding":
        d_weight = blocks.embedding_backward(d_y, x, case.V)
        return {"output": params["weight"][x], "d_weight": d_weight}
    if case.use == "attention":
        query, scale = params["query"][np.newaxis], case.H**-0.5
        context, _ = blocks.attention(query, x, lengths, scale)
        d_query, d_x = blocks.attention_backward(d_y[np.newaxis], query, x, lengths, scale)
        return {"output": context[0], "d_query": d_query[0], "d_x": d_x}
    if case.use == "cross-entropy":
        loss, d_x = cross_entropy(x, _targets(problem), lengths)
    elif case.use == "ctc":
        loss, d_x = ctc(case, x, problem)
    else:
        loss, d_x, d_scores = crf(case, x, problem, [params[name] for name in _TRANSITIONS])
        of_params = {f"d_{n}": d for n, d in zip(_TRANSITIONS, d_scores, strict=True)}
        return {"loss": np.array(loss), "d_x": d_x, **of_params}
    return {"loss": np.array(loss), "d_x": d_x}
