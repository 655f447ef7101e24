"""Jobs on `fastlstm.nn`, written as in its documentation, and its blocks by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastlstm
import numpy as np
from fastlstm import nn, optim

from fastlstm_bench.cases import BETAS, BLOCKS, EPSILON, JOBS, LEARNING_RATE, MAX_NORM, Case
from fastlstm_bench.oracle_jobs import labels_of
from fastlstm_bench.problem import BLANK, QUANTILES, Array, Arrays, Problem
from fastlstm_bench.systems import Call

USES = (*JOBS, *BLOCKS)


def prepare(case: Case, problem: Problem) -> Call:
    if case.use in BLOCKS:
        return _BlockCall(case, problem)
    return _TrainingStep(case, problem) if case.trains else _Request(case, problem)


# --- jobs: the loss and the gradients of a batch, and the answer to a request ---------------------


class _Job(nn.Module):
    def gradients(self, p: Problem) -> tuple[float, dict[str, Any]]:
        raise NotImplementedError

    def answer(self, p: Problem) -> Any:
        raise NotImplementedError


class _Classifier(_Job):
    def gradients(self, p: Problem) -> tuple[float, dict[str, Any]]:
        x, words = self.words.forward(p.x)
        hidden, _, lstm = self.lstm.forward(x, lengths=p.lengths)
        pooled, pool = self.pool.forward(hidden, p.lengths)
        logits, out = self.out.forward(pooled)
        loss, d_logits = nn.cross_entropy(logits, p.targets, reduction="sum")
        of_out = out.backward(d_logits)
        of_lstm = lstm.backward(pool.backward(of_out.x).x, needs=("x", "params"))
        return loss, {"words": words.backward(of_lstm.x), "lstm": of_lstm, "out": of_out}

    def answer(self, p: Problem) -> Any:
        hidden, _ = self.lstm(self.words(p.x))
        return self.out(self.pool(hidden))


class _Tagger(_Job):
    def gradients(self, p: Problem) -> tuple[float, dict[str, Any]]:
        x, words = self.words.forward(p.x)
        hidden, _, lstm = self.lstm.forward(x, lengths=p.lengths)
        emissions, out = self.out.forward(hidden)
        loss, of_crf = self.crf.loss(emissions, p.targets, p.lengths, reduction="sum")
        of_out = out.backward(of_crf.x)
        of_lstm = lstm.backward(of_out.x, needs=("x", "params"))
        of_words = words.backward(of_lstm.x)
        return loss, {"words": of_words, "lstm": of_lstm, "out": of_out, "crf": of_crf}

    def answer(self, p: Problem) -> Any:
        hidden, _ = self.lstm(self.words(p.x))
        return self.crf.decode(self.out(hidden))[:, 0]


class _Transcriber(_Job):
    def gradients(self, p: Problem) -> tuple[float, dict[str, Any]]:
        hidden, _, lstm = self.lstm.forward(p.x, lengths=p.lengths)
        logits, out = self.out.forward(hidden)
        loss, d_logits = _ctc(logits, p)
        of_out = out.backward(d_logits)
        return loss, {"lstm": lstm.backward(of_out.x, needs="params"), "out": of_out}

    def answer(self, p: Problem) -> Any:
        hidden, _ = self.lstm(p.x)
        return nn.ctc_decode(self.out(hidden), blank=BLANK)[0].tokens


class _Forecaster(_Job):
    def gradients(self, p: Problem) -> tuple[float, dict[str, Any]]:
        hidden, _, lstm = self.lstm.forward(p.x)
        last, pool = self.pool.forward(hidden)
        y, out = self.out.forward(last)
        by_quantile = y.reshape(len(y), -1, len(QUANTILES))
        loss, d_y = nn.quantile(by_quantile, p.targets, QUANTILES, reduction="sum")
        of_out = out.backward(d_y.reshape(y.shape))
        of_lstm = lstm.backward(pool.backward(of_out.x).x, needs="params")
        return loss, {"lstm": of_lstm, "out": of_out}

    def answer(self, p: Problem) -> Any:
        hidden, _ = self.lstm(p.x)
        return self.out(self.pool(hidden))


class _Language(_Job):
    def gradients(self, p: Problem) -> tuple[float, dict[str, Any]]:
        x, words = self.words.forward(p.x)
        hidden, _, lstm = self.lstm.forward(x, lengths=p.lengths)
        loss, of_out = nn.linear_cross_entropy(
            self.out, hidden, p.targets, p.lengths, reduction="sum"
        )
        of_lstm = lstm.backward(of_out.x, needs=("x", "params"))
        return loss, {"words": words.backward(of_lstm.x), "lstm": of_lstm, "out": of_out}

    def answer(self, p: Problem) -> Any:
        hidden, _ = self.lstm(self.words(p.x))
        return self.out(hidden[-1])


def _ctc(logits: Array, p: Problem) -> tuple[float, Array]:
    targets = (p.targets, p.target_lengths)
    return nn.ctc(logits, p.lengths, *targets, blank=BLANK, reduction="sum")


_JOBS: dict[str, type[_Job]] = {
    "classifier": _Classifier,
    "tagger": _Tagger,
    "transcriber": _Transcriber,
    "forecaster": _Forecaster,
    "language": _Language,
}


def _make(case: Case, problem: Problem) -> _Job:
    n_in, n_out, dtype = case.input_size(0), case.directions * case.H, case.dtype
    parts: dict[str, Any] = {
        "lstm": fastlstm.LSTM(n_in, case.H, bidirectional=case.bidirectional, dtype=dtype),
        "out": nn.Linear(n_out, case.V, dtype=dtype),
    }
    if "words.weight" in problem.params:
        vectors = problem.params["words.weight"]
        parts["words"] = nn.Embedding(len(vectors), n_in, vectors, padding=0, dtype=dtype)
    if case.use == "tagger":
        parts["crf"] = nn.CRF(case.V, dtype=dtype)
    if case.use == "classifier":
        parts["pool"] = nn.Pool("max")
    if case.use == "forecaster":
        parts["pool"] = nn.Pool("last")
    job = _JOBS[case.use](**parts)
    job.load_state_dict({_own_name(name): value for name, value in problem.params.items()})
    return job


def _own_name(name: str) -> str:
    return name if "." in name else f"lstm.{name}"


class _TrainingStep(Call):
    def __init__(self, case: Case, problem: Problem) -> None:
        self.case, self.problem, self.job = case, problem, _make(case, problem)
        self.optimizer = optim.Adam(LEARNING_RATE, BETAS, EPSILON)
        self.loss = 0.0

    def run(self) -> None:
        self.loss, gradients = self.job.gradients(self.problem)
        self.job.step(self.optimizer, gradients, clip=MAX_NORM)

    def fetch(self) -> Arrays:
        params, start = self.job.params, self.problem.params
        moved = {f"moved_{name}": params[_own_name(name)] - start[name] for name in start}
        return {"loss": np.array(self.loss, self.case.dtype), **moved}


class _Request(Call):
    def __init__(self, case: Case, problem: Problem) -> None:
        self.case, self.problem, self.job = case, problem, _make(case, problem)
        self.answer: Any = None

    def run(self) -> None:
        self.answer = self.job.answer(self.problem)

    def fetch(self) -> Arrays:
        answer = self.answer
        if self.case.use == "transcriber":
            answer = labels_of(answer, self.case.T)
        return {"output": answer.astype(self.case.dtype)}


# --- blocks ---------------------------------------------------------------------------------------


class _BlockCall(Call):
    """A block forward and backward."""

    def __init__(self, case: Case, problem: Problem) -> None:
        self.case, self.p = case, problem
        self.results: Arrays = {}
        self.run_block = {
            "linear": self._linear,
            "embedding": self._embedding,
            "cross-entropy": self._cross_entropy,
            "ctc": self._ctc,
            "crf": self._crf,
            "attention": self._attention,
        }[case.use]
        makers: dict[str, Callable[[], Any]] = {
            "linear": lambda: _loaded(nn.Linear(case.H, case.V, dtype=case.dtype), problem),
            "embedding": lambda: _loaded(nn.Embedding(case.V, case.H, dtype=case.dtype), problem),
            "crf": lambda: _loaded(nn.CRF(case.H, dtype=case.dtype), problem),
            "attention": lambda: nn.Attention(scaled=True),
        }
        self.block: Any = makers[case.use]() if case.use in makers else None

    def run(self) -> None:
        self.results = self.run_block()

    def _linear(self) -> Arrays:
        y, tape = self.block.forward(self.p.x)
        grads = tape.backward(self.p.d_output)
        return {"output": y, "d_x": grads.x, **_named(grads.params)}

    def _embedding(self) -> Arrays:
        y, tape = self.block.forward(self.p.x)
        return {"output": y, **_named(tape.backward(self.p.d_output).params)}

    def _cross_entropy(self) -> Arrays:
        p = self.p
        loss, d_x = nn.cross_entropy(p.x, p.targets, p.lengths, reduction="sum")
        return {"loss": self._array(loss), "d_x": d_x}

    def _ctc(self) -> Arrays:
        loss, d_x = _ctc(self.p.x, self.p)
        return {"loss": self._array(loss), "d_x": d_x}

    def _crf(self) -> Arrays:
        p = self.p
        loss, grads = self.block.loss(p.x, p.targets, p.lengths, reduction="sum")
        return {"loss": self._array(loss), "d_x": grads.x, **_named(grads.params)}

    def _attention(self) -> Arrays:
        y, tape = self.block.forward(self.p.params["query"], self.p.x, self.p.lengths)
        grads = tape.backward(self.p.d_output)
        return {"output": y, "d_query": grads.query, "d_x": grads.states}

    def _array(self, loss: float) -> Array:
        return np.array(loss, self.case.dtype)

    def fetch(self) -> Arrays:
        return {
            name: value.to_dense() if isinstance(value, optim.SparseRows) else value
            for name, value in self.results.items()
        }


def _loaded(block: Any, problem: Problem) -> Any:
    block.load_state_dict(problem.params)
    return block


def _named(params: dict[str, Any]) -> dict[str, Any]:
    return {f"d_{name}": value for name, value in params.items()}
