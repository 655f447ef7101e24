"""Calls of layers of any sizes and options: right by the reference and by bits, or refused."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from random import Random
from typing import Any

import fastlstm
import numpy as np
from fastlstm import _core
from support import (
    Case,
    Problem,
    assert_gradients_close,
    assert_same_bits,
    assert_same_states,
    assert_states_close,
    gradient_arrays,
    make_problem,
    map_state,
    solve,
    time_major,
)
from tolerances import BACKWARD, FORWARD, Tolerance, assert_close

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 65)
BATCHES = (1, 1, 2, 3, 5, 8, 13, 16, 33, 64, 300)
THREADS = (1, 2, 3, 4, 7, 16, 64)
MOST_WORK = 2_000_000  # products of a call; the reference is NumPy

ACTIVATIONS: dict[str, list[list[Any]]] = {
    "LSTM": [["Sigmoid", "HardSigmoid"], ["Tanh", "Softsign"], ["Tanh", ("ScaledTanh", 0.8, 1.3)]],
    "GRU": [["Sigmoid", "HardSigmoid"], ["Tanh", "Softsign"]],
    "RNN": [["Tanh", "Softsign"]],
}


def case(random: Random) -> bool:
    """One layer, and some of what may be done with it."""
    with fastlstm.num_threads(random.choice(THREADS)):
        problem = drawn_problem(random)
        for operation in random.sample(OPERATIONS, random.randrange(1, len(OPERATIONS) + 1)):
            operation(random, problem)
    return True


def drawn_problem(random: Random) -> Problem:
    cell = random.choice(("LSTM", "GRU", "RNN"))
    I, H, B = random.choice(SIZES), random.choice(SIZES), random.choice(BATCHES)
    options: dict[str, Any] = {
        "num_layers": random.choice((1, 1, 2, 3)),
        "bias": random.random() < 0.8,
        "batch_first": random.random() < 0.5,
    }
    options |= random.choice(
        (
            {},
            {},
            {"reverse": True},
            *({"bidirectional": True, "merge": m} for m in ("concat", "sum")),
        )
    )
    if random.random() < 0.3:
        options["clip"] = random.choice((0.5, 3.0))
    if random.random() < 0.3:
        options["activations"] = tuple(map(random.choice, ACTIVATIONS[cell]))
    if cell == "GRU":
        options["reset_after"] = random.random() < 0.5
    if cell == "LSTM":
        if H > 1 and random.random() < 0.3:
            options["proj_size"] = random.randrange(1, H)
        for name in ("peepholes", "input_forget"):
            options[name] = random.random() < 0.2
        # Deviations of one or two units are small by chance: no bound on errors would hold.
        if H > 4 and not (options["input_forget"] or options["peepholes"]):
            plain = not options.keys() & {"activations", "clip"}
            options["layer_norm"] = plain and random.random() < 0.2
    work = B * options["num_layers"] * 4 * H * (I + H)
    T = max(1, min(random.choice((1, 2, 3, 7, 20, 60)), MOST_WORK // work))
    lengths = [random.randrange(T + 1) for _ in range(B)] if random.random() < 0.4 else None
    dtype = random.choice(("float32", "float64"))
    drawn = Case(T, B, I, H, options, lengths, state=random.random() < 0.5, cell=cell)
    return make_problem(drawn, dtype, seed=random.getrandbits(16))


# --- what may be done -----------------------------------------------------------------------------


def call(random: Random, p: Problem) -> None:
    """The reference's values; and a row has the same bits alone."""
    output, state = p.layer(p.x, p.state, lengths=p.lengths)
    exact = solve(p)
    assert_close(output, exact.output, widened(p, FORWARD), "output")
    assert_states_close(state, exact.state, widened(p, FORWARD))
    row = random.randrange(len(time_major(p.layer, p.x)[0]))
    axis = 0 if p.layer.batch_first else 1
    alone, state_alone = p.layer(
        p.x.take([row], axis),
        map_state(lambda part: part[:, [row]], p.state),
        lengths=None if p.lengths is None else p.lengths[[row]],
    )
    assert_same_bits(alone, output.take([row], axis), "one row")
    assert_same_states(state_alone, map_state(lambda part: part[:, [row]], state), "one row")


def train(random: Random, p: Problem) -> None:
    """The reference's gradients; the same bits with a limit of memory, and in parts."""
    output, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    assert_same_bits(output, p.layer(p.x, p.state, lengths=p.lengths)[0], "training")
    grads = tape.backward(p.d_output, p.d_state)
    # Where a function has a corner, rounding decides on which side of it a gradient is.
    if p.layer.clip is None and "HardSigmoid" not in str(p.layer.activations):
        assert_gradients_close(grads, solve(p).grads, widened(p, BACKWARD))
    T, B = time_major(p.layer, p.x).shape[:2]
    most = p.layer.training_memory(T, B, lengths=p.lengths).bytes
    limit = random.randrange(most // 4, 2 * most)
    try:
        tape = p.layer.forward(p.x, p.state, lengths=p.lengths, memory_limit=limit)[2]
    except ValueError:
        return  # below the least possible
    for (name, a), b in zip(
        gradient_arrays(tape.backward(p.d_output, p.d_state)).items(),
        gradient_arrays(grads).values(),
        strict=True,
    ):
        assert_same_bits(a, b, name)


def stream(random: Random, p: Problem) -> None:
    """Steps and chunks have the bits of the whole."""
    if p.layer.bidirectional or p.layer.reverse:
        return
    x = time_major(p.layer, p.x)
    stream = p.layer.stream(x.shape[1])
    if p.state is not None:
        stream.state = p.state
    whole, last = p.layer(p.x, p.state)
    parts, t = [], 0
    while t < len(x):
        n = random.choice((1, 1, 2, 5))
        chunk = x[t : t + n]
        if len(chunk) == 1:
            parts.append(stream.step(np.ascontiguousarray(chunk[0]))[np.newaxis])
        else:
            part = stream.run(np.ascontiguousarray(time_major(p.layer, chunk)))
            parts.append(time_major(p.layer, part))
        t += n
    assert_same_bits(np.concatenate(parts), time_major(p.layer, whole), "stream")
    assert_same_states(stream.state, last, "stream")


def copies(random: Random, p: Problem) -> None:
    """A copy computes the same, before and after a change of the layer."""
    before = p.layer(p.x, p.state, lengths=p.lengths)[0]
    how: Callable[[Any], Any] = random.choice(
        (copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)))
    )
    other = how(p.layer)
    p.layer.update({name: 0.5 * value for name, value in p.layer.params.items()})
    assert_same_bits(other(p.x, p.state, lengths=p.lengths)[0], before, "a copy")
    p.layer.load_state_dict(other.params)
    assert_same_bits(p.layer(p.x, p.state, lengths=p.lengths)[0], before, "loaded")


def small(random: Random, p: Problem) -> None:
    """Of a quantized layer a row has the same bits alone, on any threads, in steps and in a copy;
    where only weights are small, it computes what a layer of theirs does."""
    if p.layer.dtype != np.float32:
        return
    pair = random.choice((("bfloat16",), ("bfloat16", "bfloat16"), ("int8",), ("int8", "int8")))
    layer = p.layer.quantize(*pair)
    output, state = layer(p.x, p.state, lengths=p.lengths)
    if len(pair) == 1:
        wide = copy.copy(p.layer)
        wide.load_state_dict(layer.params)
        expected = wide(p.x, p.state, lengths=p.lengths)[0]
        assert_close(output, expected, widened(p, FORWARD), str(pair))
    how = random.choice((copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))))
    with fastlstm.num_threads(random.choice(THREADS)):
        other, other_state = how(layer)(p.x, p.state, lengths=p.lengths)
    assert_same_bits(other, output, "a copy, other threads")
    assert_same_states(other_state, state, "a copy, other threads")
    axis = 0 if layer.batch_first else 1
    row = random.randrange(p.x.shape[axis])
    alone = layer(
        p.x.take([row], axis),
        map_state(lambda part: part[:, [row]], p.state),
        lengths=None if p.lengths is None else p.lengths[[row]],
    )[0]
    assert_same_bits(alone, output.take([row], axis), "one row")
    if p.lengths is None and not (layer.bidirectional or layer.reverse):
        x = time_major(layer, p.x)
        stream = layer.stream(x.shape[1])
        if p.state is not None:
            stream.state = p.state
        steps = np.stack([stream.step(np.ascontiguousarray(step)) for step in x])
        assert_same_bits(steps, time_major(layer, output), "steps")


def plan(random: Random, p: Problem) -> None:
    """What a call is expected to take is some time, on as many threads as may be."""
    T, B = time_major(p.layer, p.x).shape[:2]
    before = _core.plan_for_cpus(random.choice((0, 1, 2, 16, 300)))
    try:
        threads = random.choice(THREADS)
        planned = p.layer.plan(T, B, p.lengths, threads, training=random.random() < 0.5)
    finally:
        _core.plan_for_cpus(before)
    for work in (planned, *planned.backward):
        assert 1 <= work.threads <= threads
        assert 0 <= work.seconds < math.inf
        assert math.isclose(sum(work.parts.values()), work.seconds, abs_tol=1e-12)


def odd(random: Random, p: Problem) -> None:
    """Odd arguments are refused or mean what they say; afterwards the layer is as it was."""
    before = p.layer(p.x, p.state, lengths=p.lengths)[0]
    for _ in range(5):
        arguments = {"x": p.x, "state": p.state, "lengths": p.lengths, "out": None}
        for name in random.sample(sorted(arguments), random.choice((1, 1, 2))):
            arguments[name] = random.choice((odd_array, odd_thing))(random, arguments[name])
        try:
            p.layer(arguments.pop("x"), arguments.pop("state"), **arguments)
        except (ValueError, TypeError):
            continue
    assert_same_bits(p.layer(p.x, p.state, lengths=p.lengths)[0], before, "after odd calls")


OPERATIONS = [call, train, stream, copies, small, plan, odd]


def odd_array(random: Random, value: Any) -> Any:
    """An array like the right one, and yet not."""
    array = np.zeros((2, 3), np.float32) if value is None or isinstance(value, tuple) else value
    return random.choice(
        (
            [array, array],
            array[..., ::-1],
            array.T,
            array.astype(object),
            array.astype(">f8"),
            array.astype(np.float64) * 1e300,
            np.full_like(array, np.nan, dtype=np.float32),
            np.broadcast_to(np.float32(1), (random.randrange(9), 2**20, 3)),
            np.zeros([random.randrange(4) for _ in range(random.randrange(5))]),
            np.full(random.randrange(5), random.choice((-1, 0, 2**62, 2**31))),
        )
    )


def odd_thing(random: Random, _: Any) -> Any:
    return random.choice((None, 0, 1.5, True, "text", b"", {}, [], [[]], object()))


def widened(p: Problem, table: dict[str, Tolerance]) -> Tolerance:
    """The bound for what one call after another may add to it."""
    bound, reason = table[p.layer.dtype.name]
    return Tolerance(bound * WIDER, reason)


# Chance finds worse sums than those of the tests' cases: layer normalisation's, and relus'.
WIDER = 1000
