"""Times two versions of fastlstm in turns: the command `speed` of tools/compare_versions.py.

A worker process for each version does what it is told, one at a time, in short turns A B B A: what
slows the machine for longer than a turn slows both. Each neighbouring pair of turns gives a ratio.
Workers are started anew several times: where its memory lies makes a process faster or slower.
What looks slower is timed again, longer, and only that second look can call it slower: of a hundred
points that do not differ some always look so at first.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SLOWER = 1.03  # a ratio of times above this is a point that became slower
SUSPICIOUS = 1.015  # above this in the first look: it is timed again
TURN = 0.04  # seconds of a turn; a call that takes longer is a turn by itself
STARTS = 3  # of the workers, in each look
ROUNDS_AGAIN, TURN_AGAIN = 4, 0.1  # of the second look, for each start
PAUSE = 0.002  # between turns, for the other worker's threads to fall asleep


# --- what is timed -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """A call to time. I = H, as everywhere in benchmarks of recurrent layers."""

    task: str  # a key of TASKS
    cell: str
    T: int
    B: int
    H: int
    options: dict[str, Any] = field(default_factory=dict)
    lengths: bool = False

    @property
    def name(self) -> str:
        options = [
            key if value is True else f"{key}={value}" for key, value in self.options.items()
        ]
        sizes = f"T{self.T}-B{self.B}-H{self.H}"
        parts = [self.cell.lower(), self.task, sizes, *options, *["lengths"] * self.lengths]
        return "-".join(parts)


def _points() -> list[Point]:
    both = ("inference", "training")
    wide: dict[str, Any] = {"dtype": "float64"}
    points = [Point("step", "LSTM", 1, 1, H) for H in (16, 32, 64, 128, 256, 512)]
    points += [
        Point("step", "LSTM", 1, 1, 128, {"num_layers": 2}),
        Point("step", "LSTM", 1, 64, 128),
    ]
    points += [Point("step", cell, 1, 1, H) for cell in ("GRU", "RNN") for H in (64, 256)]
    points += [Point("step", "LSTM", 1, 1, 64, wide)]
    for task in both:
        for sizes in ((20, 1, 8), (100, 1, 64), (100, 1, 256), (100, 8, 128), (50, 32, 256)):
            points.append(Point(task, "LSTM", *sizes))
        points += [Point(task, "LSTM", 20, 64, 512), Point(task, "LSTM", 5, 32, 1024)]
        for cell in ("GRU", "RNN"):
            points += [Point(task, cell, *s) for s in ((100, 1, 128), (100, 8, 128), (30, 32, 256))]
        points += [Point(task, "GRU", 100, 8, 128, {"reset_after": False})]
        points += [Point(task, cell, 50, 8, 128, wide) for cell in ("LSTM", "GRU")]
        points += [Point(task, "LSTM", 100, 16, 96, lengths=True)]
        options: tuple[dict[str, Any], ...] = (
            {"num_layers": 3},
            {"num_layers": 2, "bidirectional": True},
            {"proj_size": 48},
            {"peepholes": True},
            {"clip": 3.0, "activations": ("HardSigmoid", "Softsign", "Tanh")},
            {"layer_norm": True},
        )
        points += [Point(task, "LSTM", 50, 8, 96, o) for o in options]
    noise = {"recurrent_dropout": 0.3, "zoneout": 0.1}
    points += [Point("training", "LSTM", 50, 8, 96, o) for o in (noise, {"weight_dropout": 0.3})]
    points += [Point("training", "GRU", 50, 8, 96, noise)]
    points += [Point("update", "LSTM", 1, 1, H) for H in (8, 64, 256, 1024)]
    points += [Point("update", cell, 1, 1, 256) for cell in ("GRU", "RNN")]
    return points


POINTS = {point.name: point for point in _points()}


def _make_call(point: Point) -> Callable[[], Any]:
    """The call with all that it needs, made once."""
    import fastlstm
    import numpy as np

    T, B, H = point.T, point.B, point.H
    rng = np.random.default_rng(0)
    layer = getattr(fastlstm, point.cell)(H, H, seed=0, **point.options)
    x = rng.standard_normal((T, B, H)).astype(layer.dtype)
    lengths = rng.integers(T // 5, T, size=B, endpoint=True) if point.lengths else None
    output, _ = layer(x, lengths=lengths)

    def inference() -> None:
        layer(x, lengths=lengths)

    def training() -> None:
        layer.forward(x, lengths=lengths, seed=1)[2].backward(output)

    if point.task == "step":
        step, x_t, out = layer.stream(B).step, x[0], np.empty_like(output[0])
        return lambda: step(x_t, out)
    if point.task == "update":
        values = layer.state_dict()
        return lambda: layer.update(values)
    return inference if point.task == "inference" else training


# --- a worker ------------------------------------------------------------------------------------


def about_this_process() -> dict[str, str]:
    """Which version runs here, on what."""
    import fastlstm
    import numpy as np

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].partition(":")[2].strip() if models else cpu
    return {
        "fastlstm": fastlstm.__version__,
        "path": str(Path(fastlstm.__file__).parent),
        "isa": fastlstm.isa(),
        "cpu": cpu,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _turn(call: Callable[[], Any], repeats: int, seconds: float) -> float:
    """The median time of a call, over batches of so many, for so long."""
    clock = time.perf_counter
    times: list[float] = []
    end = clock() + seconds
    while not times or clock() < end:
        start = clock()
        for _ in range(repeats):
            call()
        times.append((clock() - start) / repeats)
    return statistics.median(times)


def work(args: argparse.Namespace) -> int:
    """Answer requests, a line of JSON each, until there are no more."""
    import fastlstm

    calls: dict[str, tuple[Callable[[], Any], int]] = {}
    print(json.dumps(about_this_process()), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        name = request["point"]
        with fastlstm.num_threads(request["threads"]):
            if name not in calls:
                call = _make_call(POINTS[name])
                call()
                calls[name] = call, max(1, int(5e-4 / _turn(call, 1, 0.01)))
            call, repeats = calls[name]
            # The other worker has had the caches: that is not timed, unless it is nothing.
            quick = _turn(call, 1, 0.0) < 5e-3
            if quick:
                _turn(call, repeats, 1e-3)
            print(json.dumps(_turn(call, repeats, request["seconds"])), flush=True)
    return 0


class _Worker:
    def __init__(self, python: str, path: str | None) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        if path:
            environment["PYTHONPATH"] = str(Path(path).resolve())
        script = Path(__file__).with_name("compare_versions.py")
        self._process = subprocess.Popen(
            [python, str(script), "work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.about: dict[str, str] = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with status {self._process.wait()}")
        return json.loads(line)

    def turn(self, point: str, threads: int, seconds: float) -> float:
        assert self._process.stdin is not None
        time.sleep(PAUSE)
        request = {"point": point, "threads": threads, "seconds": seconds}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return float(self._answer())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


# --- the comparison ------------------------------------------------------------------------------

Key = tuple[str, int]  # a point and threads


@dataclass
class Turns:
    """Times of A and B in seconds: the k-th of both are neighbours in time."""

    a: list[float] = field(default_factory=list)
    b: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> tuple[float, float, float]:
        """The median of B / A, and an interval for it of about 95 %, by order statistics."""
        ratios = sorted(b / a for a, b in zip(self.a, self.b, strict=True))
        n = len(ratios)
        low = max(0, math.floor(n / 2 - 0.98 * math.sqrt(n)))
        return statistics.median(ratios), ratios[low], ratios[n - 1 - low]


def _show(turns: dict[Key, Turns]) -> None:
    print(f"{'B / A':>6}  {'95 %':^15} {'A, us':>12} {'B, us':>12}  threads  point")
    for (name, threads), t in sorted(turns.items(), key=lambda item: -item[1].ratio[0]):
        ratio, low, high = t.ratio
        a, b = (statistics.median(times) * 1e6 for times in (t.a, t.b))
        print(f"{ratio:6.3f}  {low:.3f} to {high:.3f} {a:12.2f} {b:12.2f}  {threads:7}  {name}")


def speed(args: argparse.Namespace) -> int:
    unknown = [name for name in args.exact or () if name not in POINTS]
    if unknown:
        print(f"--exact: no point {unknown[0]!r}; there are:", *POINTS, sep="\n  ")
        return 2
    keys = [(name, n) for name in args.exact or POINTS for n in args.threads]
    first, about = _look(args, keys, 1, 60 * args.minutes / STARTS, TURN)
    for letter, worker in about.items():
        print(f"{letter}:", ", ".join(f"{key} {value}" for key, value in worker.items()))
    suspects = [key for key, turns in first.items() if turns.ratio[0] > SUSPICIOUS]
    again, _ = _look(args, suspects, ROUNDS_AGAIN, 0.0, TURN_AGAIN) if suspects else ({}, about)
    if args.out:
        found = [
            {"look": look, "point": key[0], "threads": key[1], "a": turns.a, "b": turns.b}
            for look, group in ((1, first), (2, again))
            for key, turns in group.items()
        ]
        args.out.write_text(json.dumps({"about": about, "turns": found}))
    final = first | again
    _show(final)
    ratios = [turns.ratio[0] for turns in final.values()]
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(f"{len(final)} points, geometric mean of B / A {mean:.3f}; timed again: {len(again)}.")
    slower = [key for key, turns in again.items() if turns.ratio[0] > SLOWER]
    print(f"Slower by more than {SLOWER - 1:.0%}: {len(slower) or 'none'}")
    for name, threads in slower:
        print(f"  {name}, {threads} threads")
    return int(bool(slower))


def _look(
    args: argparse.Namespace, keys: Sequence[Key], rounds: int, seconds: float, turn: float
) -> tuple[dict[Key, Turns], dict[str, dict[str, str]]]:
    """The turns of all points, and what the workers say of themselves.

    For each start of the workers so many rounds, and more until so many seconds have gone.
    """
    found = {key: Turns() for key in keys}
    about: dict[str, dict[str, str]] = {}
    for _ in range(STARTS):
        a = _Worker(args.a, args.a_path)
        b = _Worker(args.b or args.a, args.b_path if args.b else args.b_path or args.a_path)
        about = {"A": a.about, "B": b.about}
        for key in keys:  # made, and not timed
            a.turn(*key, 0.0)
            b.turn(*key, 0.0)
        end, done = time.monotonic() + seconds, 0
        while done < rounds or time.monotonic() < end:
            for key in keys:
                found[key].a.append(a.turn(*key, turn))
                found[key].b += [b.turn(*key, turn), b.turn(*key, turn)]
                found[key].a.append(a.turn(*key, turn))
            done += 1
        a.close()
        b.close()
    return found, about


def add_commands(commands: Any) -> None:
    """Add `speed`, and `work`, which it starts and no help shows, to the commands of a parser."""
    command = commands.add_parser("speed", help="time two versions in turns; status 1: B is slower")
    command.add_argument("--a", required=True, metavar="PYTHON", help="that has the one version")
    command.add_argument("--b", metavar="PYTHON", help="the other; by default A again: the noise")
    command.add_argument("--a-path", metavar="PATH", help="PYTHONPATH of A, empty by default")
    command.add_argument("--b-path", metavar="PATH", help="of B")
    command.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    command.add_argument(
        "--minutes", type=float, default=5.0, metavar="M", help="of the first look"
    )
    command.add_argument("--exact", nargs="+", metavar="NAME", help="these points alone")
    command.add_argument(
        "--out", type=Path, metavar="FILE.json", help="keep the times of all turns"
    )
    command.set_defaults(run=speed)
    commands.add_parser("work").set_defaults(run=work)
