"""Jobs in PyTorch as its users write them, and what its own blocks take.

Layers are given packed sequences; or padded ones as they are, which is what most code does and
another thing for who reads backwards: what stands behind a sequence's end is then read first.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fastlstm_bench.cases import BETAS, BLOCKS, EPSILON, JOBS, LEARNING_RATE, MAX_NORM, Case
from fastlstm_bench.oracle_jobs import labels_of
from fastlstm_bench.problem import BLANK, IGNORED, QUANTILES, Arrays, Problem
from fastlstm_bench.systems import Call, UnsupportedError

USES = (*JOBS, *BLOCKS)


def prepare(case: Case, problem: Problem) -> Call:
    if case.use in BLOCKS:
        return _BlockCall(case, problem)
    return _TrainingStep(case, problem) if case.trains else _Request(case, problem)


def _crf(n: int) -> Any:
    try:
        from torchcrf import CRF
    except ImportError:
        raise UnsupportedError("PyTorch has no CRF, and pytorch-crf is not installed") from None
    return CRF(n)


def _tensor(array: Any) -> Any:
    return None if array is None else torch.from_numpy(array)


class _Batch:
    """A problem's arrays as tensors."""

    def __init__(self, case: Case, problem: Problem) -> None:
        self.x, self.targets = _tensor(problem.x), _tensor(problem.targets)
        self.target_lengths = _tensor(problem.target_lengths)
        lengths = _tensor(problem.lengths)
        self.packed = lengths is not None and not problem.padded
        self.lengths = torch.full((case.B,), case.T) if lengths is None else lengths
        self.mask = torch.arange(case.T)[:, None] < self.lengths  # (T, B)


class _Job(nn.Module):  # type: ignore[misc]
    """All parts that jobs have: those that are None are not this one's."""

    def __init__(self, case: Case, problem: Problem) -> None:
        super().__init__()
        self.use = case.use
        n_in = case.input_size(0)
        words = problem.params.get("words.weight")
        self.words = None if words is None else nn.Embedding(len(words), n_in, padding_idx=0)
        self.lstm = nn.LSTM(n_in, case.H, bidirectional=case.bidirectional)
        self.out = nn.Linear(case.directions * case.H, case.V)
        self.crf = _crf(case.V) if case.use == "tagger" else None
        self.quantiles = torch.tensor(QUANTILES, dtype=getattr(torch, case.dtype))

    def hidden(self, batch: _Batch) -> Any:
        x = batch.x if self.words is None else self.words(batch.x)
        if not batch.packed:
            return self.lstm(x)[0]
        packed = pack_padded_sequence(x, batch.lengths, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0])[0]

    def scores(self, batch: _Batch) -> Any:
        hidden = self.hidden(batch)
        if self.use == "classifier":
            hidden = hidden.masked_fill(~batch.mask[:, :, None], -torch.inf).amax(0)
        if self.use == "forecaster":
            hidden = hidden[-1]
        if self.use == "language" and not self.training:
            hidden = hidden[-1]
        return self.out(hidden)

    def loss(self, batch: _Batch) -> Any:
        scores, y = self.scores(batch), batch.targets
        if self.crf is not None:
            return -self.crf(scores, y, mask=batch.mask, reduction="sum")
        if self.use == "transcriber":
            return _ctc(scores, batch)
        if self.use == "forecaster":
            above = y[:, :, None] - scores.unflatten(1, (-1, len(QUANTILES)))
            return torch.maximum(self.quantiles * above, (self.quantiles - 1) * above).sum()
        return _cross_entropy(scores, y)

    def answer(self, batch: _Batch) -> Any:
        scores = self.scores(batch)
        if self.crf is not None:
            return torch.tensor(self.crf.decode(scores, batch.mask)[0])
        if self.use == "transcriber":
            labels = torch.unique_consecutive(scores[:, 0].argmax(-1))
            return labels[labels != BLANK]
        return scores


def _ctc(logits: Any, batch: _Batch) -> Any:
    return functional.ctc_loss(
        logits.log_softmax(-1),
        batch.targets,
        batch.lengths,
        batch.target_lengths,
        blank=BLANK,
        reduction="sum",
    )


def _cross_entropy(scores: Any, y: Any) -> Any:
    return functional.cross_entropy(
        scores.flatten(0, -2), y.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def _make(case: Case, problem: Problem) -> Any:
    job = _Job(case, problem)
    params = {name.removeprefix("lstm."): param for name, param in job.named_parameters()}
    for name, param in params.items():
        param.data = torch.from_numpy(problem.params[name].copy())
    return job, params


class _TrainingStep(Call):
    def __init__(self, case: Case, problem: Problem) -> None:
        self.problem, self.batch = problem, _Batch(case, problem)
        self.job, self.params = _make(case, problem)
        self.optimizer = torch.optim.Adam(
            self.params.values(), LEARNING_RATE, BETAS, EPSILON, fused=True
        )
        self.loss: Any = None

    def mode(self) -> AbstractContextManager[object]:
        mode: AbstractContextManager[object] = torch.enable_grad()
        return mode

    def run(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss = self.job.loss(self.batch)
        self.loss.backward()
        nn.utils.clip_grad_norm_(self.params.values(), MAX_NORM)
        self.optimizer.step()

    def fetch(self) -> Arrays:
        start = self.problem.params
        moved = {f"moved_{n}": p.detach().numpy() - start[n] for n, p in self.params.items()}
        return {"loss": self.loss.detach().numpy(), **moved}


class _Request(Call):
    def __init__(self, case: Case, problem: Problem) -> None:
        self.case, self.batch = case, _Batch(case, problem)
        self.job, _ = _make(case, problem)
        self.job.eval()
        self.answer: Any = None

    def mode(self) -> AbstractContextManager[object]:
        mode: AbstractContextManager[object] = torch.inference_mode()
        return mode

    def run(self) -> None:
        self.answer = self.job.answer(self.batch)

    def fetch(self) -> Arrays:
        answer = self.answer.numpy()
        if self.case.use == "transcriber":
            answer = labels_of(answer, self.case.T)
        return {"output": answer.astype(self.case.dtype)}


class _BlockCall(Call):
    """A block forward and backward."""

    def __init__(self, case: Case, problem: Problem) -> None:
        self.case, self.batch = case, _Batch(case, problem)
        self.d_output = torch.from_numpy(problem.d_output)
        if case.use == "embedding":
            # Its gradient has the rows that were looked up, as ours has: summed in `run`.
            self.block: Any = nn.Embedding(case.V, case.H, sparse=True)
        elif case.use == "linear":
            self.block = nn.Linear(case.H, case.V)
        elif case.use == "crf":
            self.block = _crf(case.H)
        else:
            self.block = nn.ParameterDict()
            self.block.update({name: nn.Parameter(torch.empty(0)) for name in problem.params})
        self.params = dict(self.block.named_parameters())
        for name, param in self.params.items():
            param.data = torch.from_numpy(problem.params[name].copy())
        if case.use != "embedding":
            self.batch.x.requires_grad_()
        self.result: Any = None

    def mode(self) -> AbstractContextManager[object]:
        mode: AbstractContextManager[object] = torch.enable_grad()
        return mode

    def run(self) -> None:
        batch, use = self.batch, self.case.use
        batch.x.grad = None
        for param in self.params.values():
            param.grad = None
        if use in ("linear", "embedding"):
            self.result = self.block(batch.x)
        elif use == "attention":
            states = batch.x.transpose(0, 1)  # (B, T, H)
            query = self.block["query"][:, None]
            mask = batch.mask.T[:, None]
            self.result = functional.scaled_dot_product_attention(query, states, states, mask)[:, 0]
        elif use == "crf":
            self.result = -self.block(batch.x, batch.targets, mask=batch.mask, reduction="sum")
        elif use == "ctc":
            self.result = _ctc(batch.x, batch)
        else:
            self.result = _cross_entropy(batch.x, batch.targets)
        self.result.backward(None if self.result.ndim == 0 else self.d_output)
        if use == "embedding":
            self.block.weight.grad = self.block.weight.grad.coalesce()

    def fetch(self) -> Arrays:
        of_params = {f"d_{name}": param.grad.to_dense() for name, param in self.params.items()}
        tensors = {"output" if self.result.ndim else "loss": self.result, **of_params}
        if self.batch.x.grad is not None:
            tensors["d_x"] = self.batch.x.grad
        return {name: tensor.detach().numpy() for name, tensor in tensors.items()}
