"""How much faster whole PyTorch jobs are with ``fastlstm.torch.accelerate(model)``.

    python examples/pytorch_jobs.py             # all jobs, on 1 and 2 threads: about six minutes
    python examples/pytorch_jobs.py --train     # to the end, and what the models have learned
    python examples/pytorch_jobs.py --jobs music --epochs 30 --threads 1

Every job of `pytorch_models.py` is trained five times from the same seed, turn by turn on the same
batches: `torch.nn.LSTM` with packed sequences and with padded batches, both again after
``accelerate``, and then with ``lengths=`` instead of packing. A step is forward, loss, backward,
clipping and Adam; making batches is not timed. Before anything is timed, losses must agree.
The tables are Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import fastlstm.torch
import torch
from pytorch_models import JOBS, Batch, Data, Form, Job, collate

BATCH_SIZE = 32
TURN = 4  # batches that each way trains on before the next has its turn
LEARNING_RATE = 2e-3
MAX_NORM = 1.0
REQUESTS = 60
# Losses of the first steps, relative: float32 in another order of sums.
TOLERANCE = 1e-4


class Way(NamedTuple):
    """How a model's recurrent layers are computed."""

    accelerated: bool
    form: Form


PACKED, PADDED = Way(False, "packed"), Way(False, "padded")
OUR_PACKED, OUR_PADDED, OUR_LENGTHS = Way(True, "packed"), Way(True, "padded"), Way(True, "lengths")
WAYS = (PACKED, PADDED, OUR_PACKED, OUR_PADDED, OUR_LENGTHS)
HEADS = ("nn.LSTM packed", "padded", "accelerated packed", "padded", "`lengths=`")
# What computes the same, and which the tables compare: slower, faster.
ONE_LINE = ((PACKED, OUR_PACKED), (PADDED, OUR_PADDED))
BY_LENGTHS = (PACKED, OUR_LENGTHS)


class Trained:
    """A model and its optimiser."""

    def __init__(self, job: type[Job], data: Data, way: Way, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = job(**data.sizes, form=way.form)
        if way.accelerated:
            fastlstm.torch.accelerate(self.model)
        # Fused: one pass over each parameter, which is faster than the default.
        self.optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE, fused=True)

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
    scores: dict[Way, float]  # empty: not trained to the end


def turns(data: Data, seed: int) -> Iterator[list[Batch]]:
    """Batches in turns, epoch after epoch without end, shuffled anew in each."""
    order = random.Random(seed)
    while True:
        examples = order.sample(data.train, len(data.train))
        for batches in split(split(examples, BATCH_SIZE), TURN):
            yield [collate(batch) for batch in batches]


def split(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Parts of `size` items; the last may be smaller."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def check(job: type[Job], data: Data, seed: int) -> None:
    """Refuse to time what does not compute the same.

    Raises
    ------
    RuntimeError
        The losses of the first steps differ.
    """
    batches = next(turns(data, seed))
    for pair in (*ONE_LINE, BY_LENGTHS):
        losses = []
        for way in pair:
            trained = Trained(job, data, way, seed)
            losses.append([trained.step(batch) for batch in batches])
        for theirs, ours in zip(*losses, strict=True):
            if not math.isclose(theirs, ours, rel_tol=TOLERANCE):
                raise RuntimeError(f"{job.title}: the losses of {pair} differ: {losses}")


def measure(job: type[Job], data: Data, seed: int, rounds: int, score: bool) -> Result:
    """Train all ways, each `rounds` turns."""
    check(job, data, seed)
    trained = {way: Trained(job, data, way, seed) for way in WAYS}
    steps: dict[Way, list[float]] = {way: [] for way in WAYS}
    T = []
    for turn, batches in enumerate(itertools.islice(turns(data, seed), rounds)):
        # Another order each time, so that nobody always follows the same neighbour.
        for way in random.Random(turn).sample(WAYS, len(WAYS)):
            start = time.perf_counter()
            for batch in batches:
                trained[way].step(batch)
            steps[way].append((time.perf_counter() - start) / len(batches))
        T += [batch.x.shape[1] for batch in batches]
    scores = {}
    with torch.inference_mode():
        for way, its in trained.items():
            its.model.eval()
            if score:
                scores[way] = its.model.score(collate(some) for some in split(data.test, 100))
        requests = time_requests({way: trained[way].model for way in (PADDED, OUR_PADDED)}, data)
    return Result(job, int(statistics.median(T)), steps, requests, scores)


def time_requests(models: dict[Way, Job], data: Data) -> dict[Way, list[float]]:
    """Seconds of an answer to one example after the other: nothing is padded, nothing packed."""
    seconds: dict[Way, list[float]] = {way: [] for way in models}
    for example in data.test[:REQUESTS]:
        batch = collate([example])
        for way, model in models.items():
            model.answer(batch)  # caches and memory are as after many requests
            start = time.perf_counter()
            model.answer(batch)
            seconds[way].append(time.perf_counter() - start)
    return seconds


def ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """How many times faster, as the median over turns."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def speed_table(results: Sequence[Result]) -> str:
    """Times of a step, and how many times faster the accelerated model is."""
    head = ["job", "T", *HEADS, "packed", "padded", "packed, `lengths=`", "padded, `lengths=`"]
    head.append("one request")
    rows = []
    columns: list[list[float]] = []
    for result in results:
        pairs = (*ONE_LINE, BY_LENGTHS, (PADDED, OUR_LENGTHS))
        ratios = [ratio(result.steps[slower], result.steps[faster]) for slower, faster in pairs]
        ratios.append(ratio(result.requests[PADDED], result.requests[OUR_PADDED]))
        columns.append(ratios)
        times = [f"{1e3 * statistics.median(result.steps[way]):.3g} ms" for way in WAYS]
        shown = [f"{value:.2f}x" for value in ratios]
        rows.append([result.job.title, str(result.longest), *times, *shown])
    means = [statistics.geometric_mean(column) for column in zip(*columns, strict=True)]
    shown = [f"**{value:.2f}x**" for value in means]
    rows.append(["geometric mean", "", *[""] * len(WAYS), *shown])
    return table(head, rows)


def score_table(results: Sequence[Result]) -> str:
    """What the models have learned, trained each way."""
    head = ["job", "measure", *HEADS]
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
    parser.add_argument("--rounds", type=int, default=16, help=f"turns of {TURN} batches")
    parser.add_argument(
        "--train",
        action="store_true",
        help="train to the end on the first number of threads, and measure what was learned",
    )
    parser.add_argument("--epochs", type=int, help="train so long; default: each job's own")
    parser.add_argument("--quick", action="store_true", help="a few examples: whether all works")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    results: dict[int, list[Result]] = {threads: [] for threads in options.threads}
    for name in options.jobs:
        job = JOBS[name]
        data = job.load()
        if options.quick:
            data = Data(data.train[: 2 * BATCH_SIZE], data.test[:BATCH_SIZE], data.sizes)
        for threads in options.threads:
            train = (options.train or options.epochs) and threads == options.threads[0]
            epoch = len(split(split(data.train, BATCH_SIZE), TURN))
            rounds = (options.epochs or job.epochs) * epoch if train else options.rounds
            torch.set_num_threads(threads)
            start = time.perf_counter()
            results[threads].append(measure(job, data, options.seed, rounds, train))
            took = time.perf_counter() - start
            print(f"{name}, threads: {threads}: {took:.0f} s", file=sys.stderr)
    for threads, found in results.items():
        print(f"\nA training step, threads: {threads}\n\n{speed_table(found)}")
        if found[0].scores:
            print(f"\nAfter training\n\n{score_table(found)}")


if __name__ == "__main__":
    main()
