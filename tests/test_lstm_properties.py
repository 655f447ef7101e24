"""Properties that hold for any shape, lengths and state, by Hypothesis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fastlstm
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support import (
    Case,
    Problem,
    assert_promised,
    assert_same_bits,
    gradient_arrays,
    make_problem,
    solve,
)
from tolerances import BACKWARD, FORWARD, REORDERED, assert_close

# A few sizes beyond the widest vector (16) and beyond a tile of rows, most of them small.
sizes = st.one_of(st.integers(1, 9), st.integers(1, 40))


# Functions that are bounded, and as smooth as rounding errors want it where they stand.
cell_options = st.fixed_dictionaries(
    {
        "peepholes": st.booleans(),
        "input_forget": st.booleans(),
        "clip": st.sampled_from([None, 0.7, 3.0]),
        "activations": st.tuples(
            st.sampled_from(["Sigmoid", "HardSigmoid"]),
            st.sampled_from(["Tanh", "Softsign", ("ScaledTanh", 0.8, 1.3)]),
            st.sampled_from(["Tanh", "Softsign", "Elu"]),
        ),
    }
)


@dataclass
class Drawn:
    """A problem, and how it was made."""

    case: Case
    dtype: str
    problem: Problem


@st.composite
def problems(draw: st.DrawFn, one_way: bool = False, batched: bool = False) -> Drawn:
    T, B, I, H = draw(st.integers(1, 12)), draw(st.integers(0, 12)), draw(sizes), draw(sizes)
    if one_way:
        B = max(B, 1)
    options: dict[str, Any] = {
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "proj_size": draw(st.integers(0, H - 1)),
    }
    if draw(st.booleans()):
        options |= draw(cell_options)
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
        scale=draw(st.sampled_from([1.0, 3.0])),
    )
    dtype = draw(st.sampled_from(["float32", "float64"]))
    return Drawn(case, dtype, make_problem(case, dtype, seed=draw(st.integers(0, 2**16))))


def rows_of(p: Problem, rows: np.ndarray) -> dict[str, Any]:
    """The arguments of a call with some rows of the batch."""
    axis = 0 if p.layer.batch_first else 1
    return {
        "x": p.x.take(rows, axis=axis),
        "state": None if p.state is None else tuple(s[:, rows] for s in p.state),
        "lengths": None if p.lengths is None else p.lengths[rows],
    }


@given(problems())
def test_results_and_gradients_are_the_references(drawn: Drawn) -> None:
    p, dtype = drawn.problem, drawn.dtype
    expected = solve(p)
    output, (h_n, c_n), tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    assert_close(output, expected.output, FORWARD[dtype], "output")
    assert_close(h_n, expected.state[0], FORWARD[dtype], "h_n")
    assert_close(c_n, expected.state[1], FORWARD[dtype], "c_n")
    grads = tape.backward(p.d_output, p.d_state)
    actual, exact = gradient_arrays(grads), gradient_arrays(expected.grads)
    # All gradients by one scale: parts of a single unit's may cancel, above all with options.
    scale = max((np.max(np.abs(array), initial=0.0) for array in exact.values()), default=0.0)
    assert actual.keys() == exact.keys()
    for name, array in exact.items():
        error = np.max(np.abs(actual[name] - array), initial=0.0)
        assert error <= BACKWARD[dtype].bound * scale, name


@given(problems())
def test_training_and_inference_agree(drawn: Drawn) -> None:
    p = drawn.problem
    output, (h_n, c_n) = p.layer(p.x, p.state, lengths=p.lengths)
    trained, (trained_h, trained_c), _ = p.layer.forward(p.x, p.state, lengths=p.lengths)
    assert_promised(trained, output, "output")
    assert_promised(trained_h, h_n, "h_n")
    assert_promised(trained_c, c_n, "c_n")


@given(problems(batched=True), st.randoms(use_true_random=False))
def test_a_row_does_not_depend_on_its_batch(drawn: Drawn, random: Any) -> None:
    """Any selection of rows, in any order and repeated, gives the rows of the whole."""
    p, B = drawn.problem, drawn.case.B
    if B == 0:
        return
    rows = np.array([random.randrange(B) for _ in range(random.randrange(1, 2 * B + 1))])
    output, (h_n, c_n) = p.layer(p.x, p.state, lengths=p.lengths)
    part, (part_h, part_c) = p.layer(**rows_of(p, rows))
    axis = 0 if p.layer.batch_first else 1
    assert_promised(part, output.take(rows, axis=axis), "output")
    assert_promised(part_h, h_n[:, rows], "h_n")
    assert_promised(part_c, c_n[:, rows], "c_n")


@given(problems(batched=True), st.integers(1, 5))
def test_padding_changes_nothing(drawn: Drawn, more: int) -> None:
    """Longer padding, of anything, gives the same output followed by zeros."""
    p, case = drawn.problem, drawn.case
    lengths = np.full(case.B, case.T) if p.lengths is None else p.lengths
    axis = 1 if p.layer.batch_first else 0
    shape = list(p.x.shape)
    shape[axis] = more
    padded = np.concatenate([p.x, np.full(shape, np.nan, drawn.dtype)], axis=axis)
    output, (h_n, c_n) = p.layer(p.x, p.state, lengths=p.lengths)
    result, (result_h, result_c) = p.layer(padded, p.state, lengths=lengths)
    inside, outside = np.split(result, [case.T], axis=axis)
    assert_promised(inside, output, "output")
    assert not outside.any()
    assert_promised(result_h, h_n, "h_n")
    assert_promised(result_c, c_n, "c_n")


@given(problems(batched=True))
def test_a_sequence_alone_is_a_batch_of_one_without_padding(drawn: Drawn) -> None:
    p, case = drawn.problem, drawn.case
    output, (h_n, c_n) = p.layer(p.x, p.state, lengths=p.lengths)
    for b in range(case.B):
        length = case.T if p.lengths is None else int(p.lengths[b])
        if length == 0:
            continue
        x, expected = (a[b] if p.layer.batch_first else a[:, b] for a in (p.x, output))
        state = None if p.state is None else tuple(s[:, b] for s in p.state)
        alone, (alone_h, alone_c) = p.layer(x[:length], state)
        assert_promised(alone, expected[:length], "output")
        assert_promised(alone_h, h_n[:, b], "h_n")
        assert_promised(alone_c, c_n[:, b], "c_n")


@given(problems(one_way=True), st.lists(st.integers(0, 12), max_size=4))
def test_chunks_with_the_state_passed_on_are_the_whole(drawn: Drawn, cuts: list[int]) -> None:
    p, case = drawn.problem, drawn.case
    axis = 1 if p.layer.batch_first else 0
    output, (h_n, c_n) = p.layer(p.x, p.state)
    places = sorted(min(cut, case.T) for cut in cuts)
    chunks = np.split(p.x, places, axis=axis)

    stream = p.layer.stream(case.B)
    if p.state is not None:
        stream.state = p.state
    streamed = np.concatenate([stream.run(chunk) for chunk in chunks], axis=axis)
    assert_promised(streamed, output, "run")
    assert_promised(stream.state[0], h_n, "h of the stream")
    assert_promised(stream.state[1], c_n, "c of the stream")

    state, parts = p.state, []
    for chunk in chunks:
        if chunk.shape[axis] > 0:
            part, state = p.layer(chunk, state)
            parts.append(part)
    assert_promised(np.concatenate(parts, axis=axis), output, "calls")
    assert_promised(state[0], h_n, "h_n")

    steps = p.layer.stream(case.B)
    if p.state is not None:
        steps.state = p.state
    for t in range(case.T):
        assert_promised(steps.step(p.x.take(t, axis)), output.take(t, axis), f"step {t}")
        if t % 3 == 0:
            steps.state = steps.state  # reading and writing the state changes nothing
    assert_promised(steps.state[0], h_n, "h after steps")
    assert_promised(steps.state[1], c_n, "c after steps")


@given(problems(), st.integers(1, 4))
def test_forward_results_do_not_depend_on_the_number_of_threads(drawn: Drawn, n: int) -> None:
    p = drawn.problem
    with fastlstm.num_threads(1):
        output, (h_n, c_n) = p.layer(p.x, p.state, lengths=p.lengths)
    with fastlstm.num_threads(n):
        result, (result_h, result_c) = p.layer(p.x, p.state, lengths=p.lengths)
    assert_promised(result, output, "output")
    assert_promised(result_h, h_n, "h_n")
    assert_promised(result_c, c_n, "c_n")


@given(problems())
def test_gradients_have_the_same_bits_again(drawn: Drawn) -> None:
    p = drawn.problem
    results = []
    for _ in range(2):
        _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
        results.append(gradient_arrays(tape.backward(p.d_output, p.d_state)))
    for name, array in results[0].items():
        assert_same_bits(results[1][name], array, name)


@given(problems())
def test_backward_is_linear(drawn: Drawn) -> None:
    p, dtype = drawn.problem, drawn.dtype
    _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    both = gradient_arrays(tape.backward(p.d_output, p.d_state))
    one = gradient_arrays(tape.backward(p.d_output))
    other = gradient_arrays(tape.backward(None, p.d_state))
    scaled = gradient_arrays(tape.backward(4 * p.d_output, (4 * p.d_state[0], 4 * p.d_state[1])))
    for name, array in both.items():
        terms = np.abs(one[name]) + np.abs(other[name])
        # Relative to the terms: their sum may be nearly zero.
        difference = np.max(np.abs(array - (one[name] + other[name])), initial=0.0)
        assert difference <= BACKWARD[dtype].bound * np.max(terms, initial=0.0), name
        assert_close(scaled[name], 4 * array, REORDERED[dtype], name)


@given(problems(batched=True))
def test_batch_first_is_a_change_of_layout_alone(drawn: Drawn) -> None:
    p, case = drawn.problem, drawn.case
    options = {**case.options, "batch_first": not p.layer.batch_first, "dtype": drawn.dtype}
    turned = fastlstm.LSTM(case.I, case.H, **options)
    turned.update(p.layer.params)
    output, (h_n, _) = p.layer(p.x, p.state, lengths=p.lengths)
    result, (result_h, _) = turned(p.x.swapaxes(0, 1), p.state, lengths=p.lengths)
    assert_promised(result.swapaxes(0, 1), output, "output")
    assert_promised(result_h, h_n, "h_n")


@given(problems())
def test_reverse_is_forward_on_reversed_sequences(drawn: Drawn) -> None:
    p, case = drawn.problem, drawn.case
    if p.layer.bidirectional or p.layer.num_layers > 1 or p.lengths is not None:
        return
    options = {**case.options, "reverse": not p.layer.reverse, "dtype": drawn.dtype}
    other = fastlstm.LSTM(case.I, case.H, **options)
    other.update(p.layer.params)
    axis = 1 if case.batched and p.layer.batch_first else 0
    output, (h_n, c_n) = p.layer(p.x, p.state)
    result, (result_h, result_c) = other(np.flip(p.x, axis), p.state)
    assert_promised(np.flip(result, axis), output, "output")
    assert_promised(result_h, h_n, "h_n")
    assert_promised(result_c, c_n, "c_n")
