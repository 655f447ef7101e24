"""The least time that a case can take on this machine, from limits measured in the same run.

A layer's time is bounded by its products, at the peak of fused multiply-adds, and by reading its
weights, which every step of the recurrence needs anew. docs/benchmark.md states the model in words.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastlstm_bench.cases import BLOCKS, FEATURES, JOBS, Case
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
    gradient of x: of the first layer's, one less; an embedding does. A job's last linear layer
    counts, too. Gates are not counted, nor is the optimiser, nor what else a model has. Of blocks
    only "linear" is products.
    """
    lengths = make_lengths(case)
    steps = case.T * case.B if lengths is None else int(lengths.sum())
    passes = 3 if case.trains else 1
    if case.use in BLOCKS:
        return 2.0 * steps * case.H * case.V * passes if case.use == "linear" else 0.0
    widths = sum(case.input_size(layer) + case.H for layer in range(case.layers))
    products = passes * widths
    if case.task == "optimiser" and case.use in ("layer", *FEATURES):
        products -= case.input_size(0)
    layers = 2.0 * steps * case.directions * case.gates * case.H * products
    if case.use not in JOBS:
        return layers
    of_sequences = case.use in ("classifier", "forecaster")
    of_sequences |= case.use == "language" and not case.trains
    rows = case.B if of_sequences else steps
    return layers + 2.0 * rows * case.directions * case.H * case.V * passes


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
    """Bound the time of one call. None: the peak was not measured, or there is no layer.

    Each thread keeps its share of the weights; they come from the smallest level where the share
    fits, at the speed of that level with all threads reading. What the level before has room for
    comes from there, as it does for who reads the weights there and back.
    """
    peak = limits.flops.get(case.dtype)
    if not peak or case.use in BLOCKS:
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
