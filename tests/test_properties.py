"""Properties that hold for any cell, shape, lengths and state, by Hypothesis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fastlstm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from philox import masked_parameters, masks_of, weight_masks
from support import (
    Case,
    Problem,
    assert_same_bits,
    assert_same_states,
    gradient_arrays,
    make_problem,
    map_state,
    named_states,
    reference_backward,
    reference_forward,
    solve,
)
from tolerances import BACKWARD, FORWARD, REORDERED, assert_close

pytestmark = pytest.mark.every_isa

# A few sizes beyond the widest vector (16) and beyond a tile of rows, most of them small.
sizes = st.one_of(st.integers(1, 9), st.integers(1, 40))
batches = st.one_of(st.integers(0, 12), st.integers(1, 70))

# Functions that are bounded, and as smooth as rounding errors want it where they stand.
gates = st.sampled_from(["Sigmoid", "HardSigmoid"])
candidates = st.sampled_from(["Tanh", "Softsign", ("ScaledTanh", 0.8, 1.3)])
clips = st.sampled_from([None, 0.7, 3.0])
GRU_OPTIONS = {"clip": clips, "activations": st.tuples(gates, candidates)}

# Name -> class, its fixed options, and options that are drawn together or not at all.
CELLS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "LSTM": (
        "LSTM",
        {},
        {
            "peepholes": st.booleans(),
            "input_forget": st.booleans(),
            "clip": clips,
            "activations": st.tuples(
                gates, candidates, st.sampled_from(["Tanh", "Softsign", "Elu"])
            ),
        },
    ),
    "GRU": ("GRU", {}, GRU_OPTIONS),
    "GRU, reset before": ("GRU", {"reset_after": False}, GRU_OPTIONS),
    "RNN": ("RNN", {}, {"clip": clips, "activations": st.tuples(candidates)}),
    "RNN, relu": ("RNN", {"nonlinearity": "relu"}, {"clip": clips}),
}
every_cell = pytest.mark.parametrize("cell", CELLS)

probabilities = st.sampled_from([0.0, 0.2, 0.5, 1.0])


@dataclass
class Drawn:
    """A problem, and how it was made."""

    case: Case
    dtype: str
    problem: Problem


@st.composite
def problems(
    draw: st.DrawFn,
    cell: str,
    one_way: bool = False,
    batched: bool = False,
    regularised: bool = False,
    sizes: st.SearchStrategy[int] = sizes,
) -> Drawn:
    name, fixed, own_options = CELLS[cell]
    T, B, I, H = draw(st.integers(1, 12)), draw(batches), draw(sizes), draw(sizes)
    if one_way:
        B = max(B, 1)
    options: dict[str, Any] = {
        **fixed,
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
    }
    if name == "LSTM":
        options["proj_size"] = draw(st.integers(0, H - 1))
    if draw(st.booleans()):
        options |= draw(st.fixed_dictionaries(own_options))
    if regularised:
        zoneout = probabilities if name != "LSTM" else st.tuples(probabilities, probabilities)
        options |= {
            "recurrent_dropout": draw(probabilities),
            "zoneout": draw(zoneout),
            "weight_dropout": draw(probabilities),
        }
    if not one_way:
        direction = draw(
            st.sampled_from(
                [
                    {},
                    {"reverse": True},
                    *({"bidirectional": True, "merge": m} for m in ("concat", "sum", "mul", "ave")),
                ]
            )
        )
        options |= direction
    has_batch = batched or one_way or draw(st.booleans())
    lengths = None
    if has_batch and not one_way and draw(st.booleans()):
        lengths = tuple(draw(st.lists(st.integers(0, T), min_size=B, max_size=B)))
    case = Case(
        T=T,
        B=B,
        I=I,
        H=H,
        options=options,
        lengths=lengths,
        state=draw(st.booleans()),
        batched=has_batch,
        # Large weights make an RNN multiply its rounding errors from step to step.
        scale=1.0 if name == "RNN" else draw(st.sampled_from([1.0, 3.0])),
        cell=name,
    )
    dtype = draw(st.sampled_from(["float32", "float64"]))
    return Drawn(case, dtype, make_problem(case, dtype, seed=draw(st.integers(0, 2**16))))


def rows_of(p: Problem, rows: np.ndarray) -> dict[str, Any]:
    """The arguments of a call with some rows of the batch."""
    axis = 0 if p.layer.batch_first else 1
    return {
        "x": p.x.take(rows, axis=axis),
        "state": map_state(lambda s: s[:, rows], p.state),
        "lengths": None if p.lengths is None else p.lengths[rows],
    }


def assert_results_close(
    output: np.ndarray, final: Any, expected: np.ndarray, expected_final: Any, dtype: str
) -> None:
    """By one scale, of 0.1 at least: the one unit of a small layer may be nearly zero."""
    found = {"output": output, **named_states(final)}
    exact = {"output": expected, **named_states(expected_final)}
    assert found.keys() == exact.keys()
    scale = max(np.max(np.abs(array), initial=0.1) for array in exact.values())
    for name, array in exact.items():
        assert found[name].shape == array.shape, name
        error = np.max(np.abs(found[name] - array), initial=0.0)
        assert error <= FORWARD[dtype].bound * scale, name


def assert_gradients_close_by_one_scale(actual: Any, expected: Any, dtype: str) -> None:
    """All gradients by one scale: parts of a single unit's may cancel, above all with options."""
    found, exact = gradient_arrays(actual), gradient_arrays(expected)
    scale = max((np.max(np.abs(array), initial=0.0) for array in exact.values()), default=0.0)
    assert found.keys() == exact.keys()
    for name, array in exact.items():
        error = np.max(np.abs(found[name] - array), initial=0.0)
        assert error <= BACKWARD[dtype].bound * scale, name


@every_cell
@given(data=st.data())
def test_results_and_gradients_are_the_references(cell: str, data: st.DataObject) -> None:
    drawn = data.draw(problems(cell))
    p, dtype = drawn.problem, drawn.dtype
    expected = solve(p)
    output, final, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    assert_results_close(output, final, expected.output, expected.state, dtype)
    assert_gradients_close_by_one_scale(tape.backward(p.d_output, p.d_state), expected.grads, dtype)


@every_cell
@given(data=st.data(), seed=st.integers(0, 2**64 - 1))
def test_regularised_training_is_the_references(cell: str, data: st.DataObject, seed: int) -> None:
    drawn = data.draw(problems(cell, regularised=True))
    p, case, dtype = drawn.problem, drawn.case, drawn.dtype
    expected, expected_state, reference_tape = reference_forward(
        p.layer,
        p.x,
        p.state,
        lengths=p.lengths,
        params=masked_parameters(p.layer, seed),
        **masks_of(p.layer, seed, case.T, case.B if case.batched else 1),
    )
    exact = reference_backward(p.layer, reference_tape, p.d_output, p.d_state)
    for name, mask in weight_masks(p.layer, seed).items():
        exact.params[name] *= mask
    output, final, tape = p.layer.forward(p.x, p.state, lengths=p.lengths, seed=seed)
    assert_results_close(output, final, expected, expected_state, dtype)
    assert_gradients_close_by_one_scale(tape.backward(p.d_output, p.d_state), exact, dtype)


@every_cell
@given(data=st.data())
def test_training_and_inference_agree(cell: str, data: st.DataObject) -> None:
    drawn = data.draw(problems(cell))
    p = drawn.problem
    output, final = p.layer(p.x, p.state, lengths=p.lengths)
    trained, trained_state, _ = p.layer.forward(p.x, p.state, lengths=p.lengths)
    assert_same_bits(trained, output, "output")
    assert_same_states(trained_state, final)


@every_cell
@given(data=st.data(), random=st.randoms(use_true_random=False))
def test_a_row_does_not_depend_on_its_batch(cell: str, data: st.DataObject, random: Any) -> None:
    """Any selection of rows, in any order and repeated, gives the rows of the whole."""
    drawn = data.draw(problems(cell, batched=True, regularised=data.draw(st.booleans())))
    p, B = drawn.problem, drawn.case.B
    if B == 0:
        return
    rows = np.array([random.randrange(B) for _ in range(random.randrange(1, 2 * B + 1))])
    output, final = p.layer(p.x, p.state, lengths=p.lengths)
    part, part_state = p.layer(**rows_of(p, rows))
    axis = 0 if p.layer.batch_first else 1
    assert_same_bits(part, output.take(rows, axis=axis), "output")
    assert_same_states(part_state, map_state(lambda s: s[:, rows], final))


@every_cell
@given(data=st.data(), more=st.integers(1, 5))
def test_padding_changes_nothing(cell: str, data: st.DataObject, more: int) -> None:
    """Longer padding, of anything, gives the same output followed by zeros."""
    drawn = data.draw(problems(cell, batched=True))
    p, case = drawn.problem, drawn.case
    lengths = np.full(case.B, case.T) if p.lengths is None else p.lengths
    axis = 1 if p.layer.batch_first else 0
    shape = list(p.x.shape)
    shape[axis] = more
    padded = np.concatenate([p.x, np.full(shape, np.nan, drawn.dtype)], axis=axis)
    output, final = p.layer(p.x, p.state, lengths=p.lengths)
    result, result_state = p.layer(padded, p.state, lengths=lengths)
    inside, outside = np.split(result, [case.T], axis=axis)
    assert_same_bits(inside, output, "output")
    assert not outside.any()
    assert_same_states(result_state, final)


@every_cell
@given(data=st.data())
def test_a_sequence_alone_is_a_batch_of_one_without_padding(cell: str, data: st.DataObject) -> None:
    drawn = data.draw(problems(cell, batched=True, regularised=data.draw(st.booleans())))
    p, case = drawn.problem, drawn.case
    output, final = p.layer(p.x, p.state, lengths=p.lengths)
    for b in range(case.B):
        length = case.T if p.lengths is None else int(p.lengths[b])
        if length == 0:
            continue
        x, expected = (a[b] if p.layer.batch_first else a[:, b] for a in (p.x, output))
        state = map_state(lambda s, b=b: s[:, b], p.state)
        alone, alone_state = p.layer(x[:length], state)
        assert_same_bits(alone, expected[:length], "output")
        assert_same_states(alone_state, map_state(lambda s, b=b: s[:, b], final))


@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("I", [1, 64, 150, 401])
@pytest.mark.parametrize(
    "more", [{}, {"bidirectional": True, "num_layers": 2, "recurrent_dropout": 0.2}], ids=str
)
def test_wide_layers_give_a_sequence_alone_the_bits_of_its_row(
    cell: str, dtype: str, I: int, more: dict[str, Any]
) -> None:
    """Alone, and with many weights, each step projects inputs of later ones."""
    name, options, _ = CELLS[cell]
    options = {**options, **more, **({"proj_size": 131} if name == "LSTM" and more else {})}
    p = make_problem(Case(T=23, B=2, I=I, H=150, options=options, cell=name), dtype)
    output, final, _ = p.layer.forward(p.x, p.state, seed=1)
    inferred, _ = p.layer(p.x, p.state)
    first, row = map_state(lambda s: s[:, :1], p.state), slice(0, 1)
    for n in (1, 3):
        with fastlstm.num_threads(n):
            alone, alone_state, _ = p.layer.forward(p.x[:, row], first, seed=1)
            assert_same_bits(alone, output[:, row], "training")
            assert_same_states(alone_state, map_state(lambda s: s[:, row], final))
            assert_same_bits(p.layer(p.x[:, row], first)[0], inferred[:, row], "inference")


@every_cell
@given(data=st.data(), cuts=st.lists(st.integers(0, 12), max_size=4))
def test_chunks_with_the_state_passed_on_are_the_whole(
    cell: str, data: st.DataObject, cuts: list[int]
) -> None:
    drawn = data.draw(problems(cell, one_way=True, regularised=data.draw(st.booleans())))
    p, case = drawn.problem, drawn.case
    axis = 1 if p.layer.batch_first else 0
    output, final = p.layer(p.x, p.state)
    places = sorted(min(cut, case.T) for cut in cuts)
    chunks = np.split(p.x, places, axis=axis)

    stream = p.layer.stream(case.B)
    if p.state is not None:
        stream.state = p.state
    streamed = np.concatenate([stream.run(chunk) for chunk in chunks], axis=axis)
    assert_same_bits(streamed, output, "run")
    assert_same_states(stream.state, final, "of the stream")

    state, parts = p.state, []
    for chunk in chunks:
        if chunk.shape[axis] > 0:
            part, state = p.layer(chunk, state)
            parts.append(part)
    assert_same_bits(np.concatenate(parts, axis=axis), output, "calls")
    assert_same_states(state, final)

    steps = p.layer.stream(case.B)
    if p.state is not None:
        steps.state = p.state
    for t in range(case.T):
        assert_same_bits(steps.step(p.x.take(t, axis)), output.take(t, axis), f"step {t}")
        if t % 3 == 0:
            steps.state = steps.state  # reading and writing the state changes nothing
    assert_same_states(steps.state, final, "after steps")


@every_cell
@given(data=st.data(), n=st.integers(2, 4))
def test_results_do_not_depend_on_the_number_of_threads(
    cell: str, data: st.DataObject, n: int
) -> None:
    """In training, with any masks, as in inference."""
    drawn = data.draw(
        problems(cell, regularised=data.draw(st.booleans()), sizes=st.integers(1, 90))
    )
    p = drawn.problem
    outputs, states, grads = [], [], []
    for threads in (1, n):
        with fastlstm.num_threads(threads):
            for output, final in (
                p.layer(p.x, p.state, lengths=p.lengths),
                p.layer.forward(p.x, p.state, lengths=p.lengths, seed=1)[:2],
            ):
                outputs.append(output)
                states.append(final)
            _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths, seed=1)
            grads.append(gradient_arrays(tape.backward(p.d_output, p.d_state)))
    for k in (0, 1):
        assert_same_bits(outputs[k + 2], outputs[k], "output")
        assert_same_states(states[k + 2], states[k])
    for name, array in grads[0].items():
        assert_same_bits(grads[1][name], array, name)


@every_cell
@given(data=st.data())
def test_gradients_have_the_same_bits_again(cell: str, data: st.DataObject) -> None:
    drawn = data.draw(problems(cell))
    p = drawn.problem
    results = []
    for _ in range(2):
        _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
        results.append(gradient_arrays(tape.backward(p.d_output, p.d_state)))
    for name, array in results[0].items():
        assert_same_bits(results[1][name], array, name)


@every_cell
@given(data=st.data())
def test_backward_is_linear(cell: str, data: st.DataObject) -> None:
    drawn = data.draw(problems(cell))
    p, dtype = drawn.problem, drawn.dtype
    _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    both = gradient_arrays(tape.backward(p.d_output, p.d_state))
    one = gradient_arrays(tape.backward(p.d_output))
    other = gradient_arrays(tape.backward(None, p.d_state))
    scaled = gradient_arrays(tape.backward(4 * p.d_output, map_state(lambda s: 4 * s, p.d_state)))
    for name, array in both.items():
        terms = np.abs(one[name]) + np.abs(other[name])
        # Relative to the terms: their sum may be nearly zero.
        difference = np.max(np.abs(array - (one[name] + other[name])), initial=0.0)
        assert difference <= BACKWARD[dtype].bound * np.max(terms, initial=0.0), name
        assert_close(scaled[name], 4 * array, REORDERED[dtype], name)


@every_cell
@given(data=st.data())
def test_batch_first_is_a_change_of_layout_alone(cell: str, data: st.DataObject) -> None:
    drawn = data.draw(problems(cell, batched=True))
    p, case = drawn.problem, drawn.case
    options = {**case.options, "batch_first": not p.layer.batch_first, "dtype": drawn.dtype}
    turned = getattr(fastlstm, case.cell)(case.I, case.H, **options)
    turned.update(p.layer.params)
    output, final = p.layer(p.x, p.state, lengths=p.lengths)
    result, result_state = turned(p.x.swapaxes(0, 1), p.state, lengths=p.lengths)
    assert_same_bits(result.swapaxes(0, 1), output, "output")
    assert_same_states(result_state, final)


@every_cell
@given(data=st.data())
def test_reverse_is_forward_on_reversed_sequences(cell: str, data: st.DataObject) -> None:
    drawn = data.draw(problems(cell))
    p, case = drawn.problem, drawn.case
    if p.layer.bidirectional or p.layer.num_layers > 1 or p.lengths is not None:
        return
    options = {**case.options, "reverse": not p.layer.reverse, "dtype": drawn.dtype}
    other = getattr(fastlstm, case.cell)(case.I, case.H, **options)
    other.update(p.layer.params)
    axis = 1 if case.batched and p.layer.batch_first else 0
    output, final = p.layer(p.x, p.state)
    result, result_state = other(np.flip(p.x, axis), p.state)
    assert_same_bits(np.flip(result, axis), output, "output")
    assert_same_states(result_state, final)
