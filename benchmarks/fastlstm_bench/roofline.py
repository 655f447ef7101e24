"""The least time that a case can take on this machine, from limits measured in the same run.

A layer's time is bounded by its products, at the peak of fused multiply-adds, and by reading its
weights, which every step of the recurrence needs anew. docs/benchmark.md states the model in words.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastlstm_bench.cases import Case
from fastlstm_bench.limits import Limits
from fastlstm_bench.problem import make_lengths


@dataclass(frozen=True)
class Roofline:
    """Bounds of one case on one number of threads.

    Attributes
    ----------
    seconds : float
        The longer of the two bounds.
    level : str
        What binds: "products", or the level that the weights come from: "L1", "L2", "L3", "memory".
    """

    seconds: float
    level: str


def flop(case: Case) -> float:
    """Operations of the matrix products in one call: 2 * steps * G*H*(I+H) per layer and direction.

    `steps` counts what is not padding: T*B, or the sum of the lengths. Training counts three times
    that: the backward pass has two products for each of the forward pass. An optimiser needs no
    gradient of x: of the first layer's, one less; a model's embedding does. Gates are not counted,
    nor is the optimiser, nor what a model has besides its layers.
    """
    lengths = make_lengths(case)
    steps = case.T * case.B if lengths is None else int(lengths.sum())
    widths = sum(case.input_size(layer) + case.H for layer in range(case.layers))
    products = (3 if case.trains else 1) * widths
    if case.task == "optimiser" and case.use == "layer":
        products -= case.input_size(0)
    return 2.0 * steps * case.directions * case.gates * case.H * products


def weights_read(case: Case) -> tuple[float, float]:
    """Size of the weights that are read again and again, and the bytes that this reads in all.

    Returns
    -------
    size : float
        Bytes of the weights that are cycled through: they come from the cache that holds them.
    traffic : float
        Bytes of weights read in one call at least.

    Notes
    -----
    In a sequence, layer after layer, each step reads the recurrent weights R of one layer and
    direction; the input weights W serve many steps at once. Training reads R once more in the
    backward pass. In a stream one step reads W and R of all layers.
    """
    H, G = case.H, case.gates
    R = float(G * H * H * case.itemsize)
    if case.task == "step":
        W = (
            sum(float(G * H * case.input_size(layer)) for layer in range(case.layers))
            * case.itemsize
        )
        everything = W + case.layers * R
        return everything, everything
    passes = 2 if case.trains else 1
    return R, R * case.T * case.layers * case.directions * passes


def roofline(case: Case, threads: int, limits: Limits) -> Roofline | None:
    """Bound the time of one call. None: the peak was not measured.

    Each thread keeps its share of the weights; they come from the smallest level where the share
    fits, at the speed of that level with all threads reading. What the level before has room for
    comes from there, as it does for who reads the weights there and back.
    """
    peak = limits.flops.get(case.dtype)
    if not peak:
        return None
    products = flop(case) / peak
    size, traffic = weights_read(case)
    held = 0.0  # bytes that the level before has room for,
    nearer = 0.0  # and seconds to read them once
    for level in limits.levels:
        # A shared level holds the shares of all threads together.
        room = level.size * (1 if level.shared else threads)
        if size <= room:
            reading = traffic / size * (nearer + (size - held) / level.bandwidth)
            return (
                Roofline(reading, level.name)
                if reading > products
                else Roofline(products, "products")
            )
        nearer, held = room / level.bandwidth, room
    return Roofline(products, "products")
