"""Trained models of packages, each judged by its own measure: what small weights cost them.

A module for each model has a class with ``title``, the name of its measure, and
``measure(quantize)``. Making it reads the package and computes all that comes before the recurrent
layers; ``measure`` gives each of these to ``quantize`` and runs what comes back. Archives are
downloaded, kept and checked by the examples' loader; no code of theirs is run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).parents[2] / "examples"))

import data as data  # the examples' loader

# A layer as it shall be measured, from the trained one.
Quantize = Callable[[Any], Any]


class Result(NamedTuple):
    """What a model is worth with some layers."""

    value: float  # more is better
    answers: list[Any]  # what it decided, to count what changes; empty where it decides nothing
