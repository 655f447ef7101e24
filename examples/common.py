"""What all uses share: their arguments, the table of what they measured, and PyTorch beside them.

A use is a function that takes a `Use` and reports to it. `run` makes one of the command line::

    def main(use: common.Use) -> None:
        X, y = ...  # use.few(examples) for --quick
        with common.stopwatch() as training:
            model = SequenceClassifier(epochs=use.epochs, random_state=use.seed).fit(X, y)
        use.report("accuracy", {"always the same": 0.5, "LSTM": model.score(...)}, ...)

    if __name__ == "__main__":
        common.run(main, __doc__, epochs=5)
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import data
import fastlstm
import fastlstm.nn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Item = TypeVar("Item")


class Report(NamedTuple):
    """What a use has measured."""

    measure: str
    less_is_better: bool
    values: dict[str, float]  # by method: first what needs no learning, last ours
    training: float  # seconds
    request: float  # seconds
    pytorch: dict[str, Times]  # by the form that its sequences have; empty without --compare


class Times(NamedTuple):
    """The same, of one model of PyTorch's."""

    value: float
    training: float
    request: float


@dataclass
class Stopwatch:
    seconds: float = 0.0


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Time a block: ``with stopwatch() as training: ...``, then ``training.seconds``."""
    watch, start = Stopwatch(), time.perf_counter()
    yield watch
    watch.seconds = time.perf_counter() - start


def seconds_of_request(answer: Callable[[Item], Any], items: Sequence[Item]) -> float:
    """Time an answer to one item after the other: the median of at most 100, in seconds."""
    seconds = []
    for item in items[:100]:
        answer(item)  # memory and caches are as after many requests
        start = time.perf_counter()
        answer(item)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@dataclass
class Use:
    """A run of a use: what the user asked for, and what came of it."""

    name: str
    epochs: int
    seed: int
    out: Path
    quick: bool
    compare: bool
    threads: int | None

    def few(self, items: list[Item], count: int = 64) -> list[Item]:
        """All items, or with --quick the first of them."""
        return items[:count] if self.quick else items

    def report(
        self,
        measure: str,
        values: dict[str, float],
        *,
        training: float,
        request: float,
        less_is_better: bool = False,
        twin: str | None = None,
        epochs: int | None = None,
        lr: float | Sequence[float] = 2e-3,
        batch_size: int = 32,
    ) -> None:
        """Print what was measured, with --compare beside PyTorch.

        Parameters
        ----------
        measure : str
            Its name.
        values : dict of str to float
            By method: first what needs no learning, last ours.
        training, request : float
            Seconds that ours took to be trained, and for a single answer.
        less_is_better : bool
            As of errors.
        twin : str, optional
            The same model in PyTorch, of those in `pytorch_models.py`.
        epochs, lr, batch_size : int, float, int
            How the twin is trained, as ours was; epochs as the user asked for by default, and one
            learning rate, or one for each epoch.
        """
        pytorch = {}
        if self.compare and twin is not None:
            epochs = epochs or self.epochs
            rates = [lr] * epochs if isinstance(lr, float) else lr
            pytorch = self._train_twin(twin, rates, batch_size)
        print(_described(Report(measure, less_is_better, values, training, request, pytorch)))

    def save(self, figure: Figure, name: str | None = None) -> None:
        """Save a picture, NAME.png in the folder that the user chose."""
        path = self.path(f"{name or self.name}.png")
        figure.savefig(path, dpi=100)
        print(f"The picture is {path}.")

    def path(self, file: str) -> Path:
        """Where a file is to be written."""
        return self.out / file

    def _train_twin(self, twin: str, rates: Sequence[float], batch_size: int) -> dict[str, Times]:
        """PyTorch's model with packed sequences and with padded ones, on the batches of ours."""
        import torch
        from pytorch_jobs import PACKED, PADDED, Trained, split
        from pytorch_models import TWINS, Data, collate

        torch.set_num_threads(self.threads or fastlstm.get_num_threads())
        job = TWINS[twin]
        examples = job.load()
        examples = Data(self.few(examples.train), self.few(examples.test), examples.sizes)
        lengths = [len(example.x) for example in examples.train]
        found = {}
        for way in (PACKED, PADDED):
            its = Trained(job, examples, way, self.seed)
            with stopwatch() as training:
                for epoch, rate in enumerate(rates):
                    its.optimizer.param_groups[0]["lr"] = float(rate)
                    seed = self.seed + epoch
                    for rows in fastlstm.nn.bucket_batches(lengths, batch_size, seed=seed):
                        its.step(collate([examples.train[row] for row in rows]))
            its.model.eval()
            with torch.inference_mode():
                value = its.model.score(collate(some) for some in split(examples.test, 100))
                requests = [collate([example]) for example in examples.test[:100]]
                request = seconds_of_request(its.model.answer, requests)
            found[way.form] = Times(value, training.seconds, request)
        return found


def _described(report: Report) -> str:
    """The tables, in words."""
    lines = [f"\n{report.measure}{' (less is better)' if report.less_is_better else ''}"]
    lines += [f"  {method:<40}{value:8.3f}" for method, value in report.values.items()]
    lines.append(f"\n{'':<42}training   one request  {report.measure}")
    ours = Times([*report.values.values()][-1], report.training, report.request)
    systems = {"fastlstm": ours}
    systems |= {f"PyTorch, {form}": times for form, times in report.pytorch.items()}
    for system, its in systems.items():
        lines.append(
            f"  {system:<40}{its.training:6.1f} s   {1e3 * its.request:8.2f} ms  {its.value:.3f}"
        )
    for form, its in report.pytorch.items():
        faster = its.training / ours.training, its.request / ours.request
        lines.append(f"  {f'times as fast as {form}':<40}{faster[0]:6.1f}     {faster[1]:8.1f}")
    return "\n".join(lines)


def arguments(doc: str, epochs: int) -> Use:
    """Parse the command line of a use that trains so many epochs by default."""
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(
        prog=f"fastlstm demo {name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seed", type=_count(0), default=0, help="of weights and batches (default: 0)"
    )
    parser.add_argument("--epochs", type=_count(1), help=f"of training (default: {epochs})")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("fastlstm-demo"),
        metavar="DIR",
        help="folder for the picture (default: ./fastlstm-demo)",
    )
    parser.add_argument(
        "--threads", type=_count(1), help="of all computations (default: one for each core)"
    )
    parser.add_argument("--compare", action="store_true", help="train PyTorch's model, too")
    parser.add_argument(
        "--quick", action="store_true", help="a few examples and epochs: whether all works"
    )
    options = parser.parse_args()
    try:  # before anything is trained
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(str(error))
    if options.epochs is None:
        options.epochs = min(epochs, 3) if options.quick else epochs
    return Use(name, **vars(options))


def _count(least: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a number from {least} on, got {text}")
        return int(text)

    return check


def run(main: Callable[[Use], None], doc: str, *, epochs: int) -> None:
    """Run a use as the command line says. Where its data cannot be had the exit code is 2."""
    use = arguments(doc, epochs)
    if use.compare:  # before anything is trained
        try:
            importlib.import_module("fastlstm.torch")
        except ModuleNotFoundError as error:
            sys.exit(_error(f"--compare: {error}"))
    try:
        with fastlstm.num_threads(use.threads or fastlstm.get_num_threads()):
            main(use)
    except data.DataError as error:
        sys.exit(_error(str(error)))


def _error(message: str) -> int:
    print(message, file=sys.stderr)
    return 2
