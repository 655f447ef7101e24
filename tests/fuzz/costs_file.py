"""Files of costs that `fastlstm tune` wrote: calls divided by them take some time, and not less."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

import fastlstm
from fastlstm import _core, _costs

NUMBERS = ("0", "-1", "1", "1e3", "1e-3", "5e-324", "1e308", "1e999", "nan", "-inf", "1_0", "0x1")
LAYER = fastlstm.LSTM(64, 256, num_layers=2, seed=0)


def originals(folder: Path) -> None:
    found = {}
    for name, value, _ in _core.tuning():
        try:
            _core.set_costs([(name, value)])
        except ValueError:  # no cost
            continue
        found[name] = value
    _costs.write(str(folder / "costs.txt"), found)


def read(path: str) -> None:
    usual = [*_costs.read(path.replace("case", "originals/costs"))]
    try:
        _core.set_costs(_costs.read(path))
        before = _core.plan_for_cpus(16)
        for threads in (1, 16):
            plan = LAYER.plan(50, 8, threads=threads, training=True)
            for work in (plan, *plan.backward):
                assert 0 < work.seconds < math.inf
                assert min(work.parts.values()) >= -1e-9 * work.seconds
        _core.plan_for_cpus(before)
    finally:
        _core.set_costs(usual)


def mutated(random: Random, data: bytes) -> bytes:
    """With another number, or the same one multiplied."""
    lines = data.decode().splitlines()
    k = random.randrange(2, len(lines))
    name, value = lines[k].split()
    times = random.choice((1e-3, 1e-2, 0.5, 2.0, 1e2, 1e3))
    new = random.choice((*NUMBERS, repr(float(value) * times)))
    lines[k] = f"{name} {new}"
    return "\n".join(lines).encode()
