"""``fastlstm tune``: measure this machine's costs, for the model that divides calls among threads.

Each experiment is a call, divided in a given way, that one cost takes much of the time of. The
model says how much it expects that to be; what the call takes more or less is the cost's error.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from . import _core
from ._runtime import divided, num_threads
from .layers import LSTM

_PASSES = 2  # each cost is measured with the others as they were found before


class Experiment(NamedTuple):
    """A call, and what is found by it."""

    cost: str
    part: str
    """The name in a plan's `parts` of what the cost is of."""
    I: int
    H: int
    T: int
    B: int
    rows: int = 1
    units: int = 1
    asleep: bool = False
    """Whether the threads have gone to sleep before each call."""
    quantized: tuple[str, str] | None = None
    """As what; None: not."""

    @property
    def threads(self) -> int:
        return self.rows * self.units


def experiments(cpus: int, L2: float, L3: float) -> Iterator[Experiment]:
    """The experiments for a machine, in the order of their use.

    Parameters
    ----------
    cpus : int
    L2, L3 : float
        Bytes of a core's second cache, and of the third.
    """

    def square(of_bytes: float) -> int:  # the H of an R [4H, H] in float32
        return max(16, int(math.sqrt(of_bytes / 16)) // 16 * 16)

    yield Experiment("products_per_us", "products", 256, 256, 20, 96)
    for weights in ("bfloat16", "int8"):
        small = Experiment(f"{weights}_weights_speed", "products", 256, 256, 20, 96)
        yield small._replace(quantized=(weights, "float32"))
        yield small._replace(cost=f"{weights}_speed", quantized=(weights, weights))
    yield Experiment("gates_us", "gates", 1, 16, 200, 64)
    yield Experiment("step_us", "gates", 1, 16, 2000, 1)
    yield Experiment("L2_bytes_per_us", "L2", 1, square(L2 / 2), 200, 1)
    in_L3 = square(min(6 * L2, L3 / 2))
    yield Experiment("L3_bytes_per_us", "L3", 1, in_L3, 40, 1)
    if L3 <= 2**26:  # of a larger one weights would take gigabytes
        yield Experiment("memory_bytes_per_us", "memory", 1, square(2 * L3), 6, 1)
    if cpus == 1:
        return
    yield Experiment("thread_slows_products", "products", 256, 256, 20, 24 * cpus, rows=cpus)
    yield Experiment("thread_slows_L3", "L3", 1, in_L3, 40, cpus, rows=cpus)
    yield Experiment("meeting_us", "meetings", 1, 128, 500, 1, units=2)
    if cpus > 2:
        units = min(cpus, 8)
        yield Experiment("meeting_us_per_thread", "meetings", 1, 16 * units, 500, 1, units=units)
    yield Experiment("wake_us", "waking", 16, 16, 2, 2, rows=2, asleep=True)
    if cpus > 2:
        yield Experiment("wake_us_per_thread", "waking", 16, 16, 2, cpus, rows=cpus, asleep=True)


def _shortest(call: Callable[[], object], seconds: float, asleep: bool) -> float:
    """Of calls for so long, the time of the shortest; of sleepers the median."""
    times: list[float] = []
    call()
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        if asleep:
            time.sleep(0.002)
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) if asleep else min(times)


# How a part of the time follows its cost: of a speed, inversely; of
# what slows with each further thread, as 1 + cost * (threads - 1); others in proportion.
def corrected(cost: str, value: float, threads: int, expected: float, measured: float) -> float:
    """The cost with which the model would expect what was measured of its part of a call.

    Parameters
    ----------
    cost : str
    value : float
        What it was.
    threads : int
        Of the call.
    expected, measured : float
        Seconds of the part; measured: at least a hundredth of what was expected.
    """
    ratio = max(measured / expected, 0.01)
    if cost.endswith(("_per_us", "_speed")):
        return value / ratio
    if cost.startswith("thread_slows"):
        others = threads - 1
        return max(0.0, (ratio * (1 + value * others) - 1) / others)
    return value * ratio


def measure(
    seconds: float = 0.6, report: Callable[[str], None] = lambda text: None
) -> dict[str, float]:
    """Measure the costs of this machine, which should have nothing else to do.

    From then on, calls of this process are divided by them.

    Parameters
    ----------
    seconds : float
        Of each experiment; there are up to 32 of them.
    report : callable
        Told of each cost that is found.
    """
    L2, L3, cpus = _core.hardware()
    found: dict[str, float] = {}
    for number in range(_PASSES):
        for experiment in experiments(cpus, L2, L3):
            cost, value = experiment.cost, _costs()[experiment.cost]
            layer = LSTM(experiment.I, experiment.H, seed=0)
            if experiment.quantized is not None:
                layer = layer.quantize(*experiment.quantized)
            x = np.zeros((experiment.T, experiment.B, experiment.I), np.float32)
            division = divided(experiment.rows, 1, 1, experiment.units)
            with division, num_threads(experiment.threads):
                taken = _shortest(lambda: layer(x), seconds, experiment.asleep)  # noqa: B023
                plan = layer.plan(experiment.T, experiment.B, threads=experiment.threads)
            expected = plan.parts[experiment.part]
            if expected == 0:  # so large an L2 cache that what is to be in L3 fits: nothing to see
                continue
            measured = taken - (plan.seconds - expected)
            new = corrected(cost, value, experiment.threads, expected, measured)
            try:
                _core.set_costs([(cost, new)])
            except ValueError:  # something else was going on: what is usual stays
                continue
            found[cost] = new
            report(f"{number + 1}/{_PASSES}  {cost:<24} {new:.4g}")
    return found


def _costs() -> dict[str, float]:
    return {name: value for name, value, _ in _core.tuning()}
