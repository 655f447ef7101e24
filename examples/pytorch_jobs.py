"""How much faster whole PyTorch jobs are with ``fastlstm.torch.accelerate(model)``.

    python examples/pytorch_jobs.py                          # all jobs, on 1 and 2 threads
    python examples/pytorch_jobs.py --jobs music --epochs 30 --threads 1

Every job of `pytorch_models.py` is trained four times from the same seed, turn by turn on the same
batches: `torch.nn.LSTM` with packed sequences and with padded batches, and both again after
``accelerate``. A step is forward, loss, backward, clipping and Adam; making batches is not timed.
Before anything is timed, three losses of both kinds must agree. The tables are Markdown.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import fastlstm.torch
import torch
from pytorch_models import JOBS, Batch, Data, Job, collate

BATCH_SIZE = 32
TURN = 8  # batches that each way trains on before the next has its turn
LEARNING_RATE = 2e-3
MAX_NORM = 1.0
REQUESTS = 60
# Losses of the first steps, relative: float32 in another order of sums.
TOLERANCE = 1e-4


class Way(NamedTuple):
    """How a model's recurrent layers are computed."""

    packed: bool
    accelerated: bool


WAYS = [Way(packed, accelerated) for accelerated in (False, True) for packed in (True, False)]


class Trained:
    """A model and its optimiser."""

    def __init__(self, job: type[Job], data: Data, way: Way, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = job(**data.sizes, packed=way.packed)
        if way.accelerated:
            fastlstm.torch.accelerate(self.model)
        self.optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE)

    def step(self, batch: Batch) -> float:
        self.optimizer.zero_grad()
        loss = self.model.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
        self.optimizer.step()
        return float(loss.detach())


class Result(NamedTuple):
    """One job on one number of threads."""

    job: type[Job]
    longest: int  # T of the batches, their median
    steps: dict[Way, list[float]]  # seconds of a training step, turn by turn
    requests: dict[Way, list[float]]  # seconds of one answer
    scores: dict[Way, float]  # after training; empty: not trained to the end


def turns(data: Data, epochs: int, seed: int) -> Iterator[list[Batch]]:
    """Batches in turns, shuffled anew in each epoch."""
    order = random.Random(seed)
    for _ in range(epochs):
        examples = order.sample(data.train, len(data.train))
        batches = [
            collate(examples[i : i + BATCH_SIZE]) for i in range(0, len(examples), BATCH_SIZE)
        ]
        for i in range(0, len(batches), TURN):
            yield batches[i : i + TURN]


def check(job: type[Job], data: Data, seed: int) -> None:
    """Refuse to time what does not compute the same.

    Raises
    ------
    RuntimeError
        The losses of three steps differ.
    """
    batches = next(turns(data, 1, seed))[:3]
    for packed in (True, False):
        losses = []
        for accelerated in (False, True):
            trained = Trained(job, data, Way(packed, accelerated), seed)
            losses.append([trained.step(batch) for batch in batches])
        for theirs, ours in zip(*losses, strict=True):
            if not math.isclose(theirs, ours, rel_tol=TOLERANCE):
                raise RuntimeError(f"{job.title}: the losses differ: {losses}")


def measure(
    job: type[Job], data: Data, seed: int, *, epochs: int, rounds: int, score: bool
) -> Result:
    """Train all ways in turns; `rounds` ends it early, 0 does not."""
    check(job, data, seed)
    trained = {way: Trained(job, data, way, seed) for way in WAYS}
    steps: dict[Way, list[float]] = {way: [] for way in WAYS}
    T = []
    for turn, batches in enumerate(turns(data, epochs, seed)):
        if rounds and turn == rounds:
            break
        # Another order each time, so that nobody always follows the same neighbour.
        for way in random.Random(turn).sample(WAYS, len(WAYS)):
            start = time.perf_counter()
            for batch in batches:
                trained[way].step(batch)
            steps[way].append((time.perf_counter() - start) / len(batches))
        T += [batch.x.shape[1] for batch in batches]
    scores = {}
    with torch.inference_mode():
        if score:
            test = [collate(data.test[i : i + 100]) for i in range(0, len(data.test), 100)]
            scores = {way: trained[way].model.eval().score(test) for way in WAYS}
        requests = time_requests({w: t.model for w, t in trained.items() if not w.packed}, data)
    return Result(job, int(statistics.median(T)), steps, requests, scores)


def time_requests(models: dict[Way, Job], data: Data) -> dict[Way, list[float]]:
    """Seconds of an answer to one example after the other: nothing is padded, nothing packed."""
    seconds: dict[Way, list[float]] = {way: [] for way in models}
    for example in data.test[:REQUESTS]:
        batch = collate([example])
        for way, model in models.items():
            model.eval().answer(batch)
            start = time.perf_counter()
            model.answer(batch)
            seconds[way].append(time.perf_counter() - start)
    return seconds


def ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """How many times faster, as the median over turns."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


PACKED, PADDED, OUR_PACKED, OUR_PADDED = WAYS


def speed_table(results: Sequence[Result]) -> str:
    head = ["job", "T", "nn.LSTM packed", "padded", "accelerated packed", "padded"]
    head += ["packed", "padded", "padded to packed", "one request"]
    rows = []
    columns: list[list[float]] = []
    for result in results:
        ratios = [
            ratio(result.steps[PACKED], result.steps[OUR_PACKED]),
            ratio(result.steps[PADDED], result.steps[OUR_PADDED]),
            ratio(result.steps[PADDED], result.steps[OUR_PACKED]),
            ratio(result.requests[PADDED], result.requests[OUR_PADDED]),
        ]
        columns.append(ratios)
        times = [f"{1e3 * statistics.median(result.steps[way]):.3g} ms" for way in WAYS]
        shown = [f"{value:.2f}x" for value in ratios]
        rows.append([result.job.title, str(result.longest), *times, *shown])
    means = [statistics.geometric_mean(column) for column in zip(*columns, strict=True)]
    shown = [f"**{value:.2f}x**" for value in means]
    rows.append(["geometric mean", *[""] * 5, *shown])
    return table(head, rows)


def score_table(results: Sequence[Result]) -> str:
    head = ["job", "measure", "nn.LSTM packed", "padded", "accelerated packed", "padded"]
    rows = [
        [r.job.title, r.job.measure, *(f"{r.scores[way]:.3f}" for way in WAYS)] for r in results
    ]
    return table(head, rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), metavar="JOB")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--epochs", type=int, help="of the training; default: each job's own")
    parser.add_argument("--rounds", type=int, default=6, help="turns on further numbers of threads")
    parser.add_argument("--quick", action="store_true", help="a few batches: whether all works")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    results: dict[int, list[Result]] = {threads: [] for threads in options.threads}
    for name in options.jobs:
        job = JOBS[name]
        data = job.load()
        if options.quick:
            data = Data(data.train[: 2 * BATCH_SIZE], data.test[:BATCH_SIZE], data.sizes)
        for threads in options.threads:
            torch.set_num_threads(threads)
            first = threads == options.threads[0]
            start = time.perf_counter()
            results[threads].append(
                measure(
                    job,
                    data,
                    options.seed,
                    epochs=1 if options.quick else options.epochs or job.epochs,
                    rounds=0 if first else options.rounds,
                    score=first,
                )
            )
            took = time.perf_counter() - start
            print(f"{name}, threads: {threads}: {took:.0f} s", file=sys.stderr)
    for threads, found in results.items():
        print(f"\nA training step, threads: {threads}\n\n{speed_table(found)}")
    print(f"\nAfter training\n\n{score_table(results[options.threads[0]])}")


if __name__ == "__main__":
    main()
