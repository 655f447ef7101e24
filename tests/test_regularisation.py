"""Recurrent dropout, zoneout and weight dropout: the reference's results with the same masks."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from philox import masked_parameters, masks_of, weight_masks
from support import (
    DTYPES,
    Case,
    Problem,
    assert_gradients_close,
    assert_same_bits,
    assert_same_states,
    assert_states_close,
    gradient_arrays,
    make_layer,
    make_problem,
    map_state,
    named_states,
    reference_backward,
    reference_forward,
    time_major,
)
from tolerances import (
    BACKWARD,
    FORWARD,
    NORMALISED_BACKWARD,
    NORMALISED_FORWARD,
    Tolerance,
    assert_close,
)

pytestmark = pytest.mark.every_isa

SEED = 0xFEDCBA9876543210
MIXED: dict[str, Any] = {
    "recurrent_dropout": 0.3,
    "zoneout": (0.2, 0.4),
    "weight_dropout": 0.25,
}
# The same for cells without c.
MIXED_H: dict[str, Any] = {**MIXED, "zoneout": 0.2}
FUNCTIONS: dict[str, Any] = {"clip": 1.1, "activations": ("HardSigmoid", "Softsign")}
# Name -> class and options.
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "GRU": ("GRU", {}),
    "GRU with functions": ("GRU", FUNCTIONS),
    "GRU before": ("GRU", {"reset_after": False}),
    "GRU before with functions": ("GRU", {"reset_after": False, **FUNCTIONS}),
    "RNN": ("RNN", {}),
    "RNN relu": ("RNN", {"nonlinearity": "relu"}),
    "RNN with functions": ("RNN", {"clip": 1.1, "activations": ("Softsign",)}),
}


def cases_of(name: str) -> dict[str, Case]:
    cell, own = OTHERS[name]

    def case(*, B: int = 3, H: int = 7, T: int = 6, I: int = 5, **options: Any) -> Case:
        more = {key: options.pop(key) for key in ("lengths", "batched") if key in options}
        return Case(T, B, I, H, options={**own, **options}, cell=cell, **more)

    lengths = (3, 0, 6, 1, 6, 2)
    both = {"num_layers": 2, "bidirectional": True, "dropout": 0.2}
    cases = {
        "recurrent_dropout": case(recurrent_dropout=0.4),
        "recurrent_dropout of everything": case(recurrent_dropout=1.0),
        "zoneout": case(zoneout=0.3),
        "zoneout of everything": case(zoneout=1.0),
        "weight_dropout": case(weight_dropout=0.4),
        "weight_dropout, no bias": case(weight_dropout=0.4, bias=False),
        **{f"mixed, H={n}": case(H=n, T=4, **MIXED_H) for n in (1, 4, 9, 17, 70)},
        "mixed, everything": case(B=6, H=10, lengths=lengths, **both, merge="sum", **MIXED_H),
        "mixed, batch first": case(B=6, lengths=lengths, batch_first=True, **MIXED_H),
        "mixed, reverse": case(B=6, lengths=lengths, reverse=True, **MIXED_H),
        "mixed, unbatched": case(batched=False, **MIXED_H),
        "mixed, blocks": case(
            T=50, B=40, I=3, H=5, lengths=tuple((37 * b) % 51 for b in range(40)), **MIXED_H
        ),
    }
    return {f"{name}, {key}": value for key, value in cases.items()}


CASES: dict[str, Case] = {
    "recurrent_dropout": Case(options={"recurrent_dropout": 0.4}),
    "recurrent_dropout, projection": Case(options={"recurrent_dropout": 0.4, "proj_size": 6}),
    "recurrent_dropout of everything": Case(options={"recurrent_dropout": 1.0}),
    "zoneout": Case(options={"zoneout": 0.3}),
    "zoneout of h": Case(options={"zoneout": (0.3, 0)}),
    "zoneout of c": Case(options={"zoneout": (0, 0.3)}),
    "zoneout of everything": Case(options={"zoneout": 1.0}),
    "zoneout, projection": Case(options={"zoneout": 0.3, "proj_size": 6}),
    "weight_dropout": Case(options={"weight_dropout": 0.4}),
    "weight_dropout, no bias": Case(options={"weight_dropout": 0.4, "bias": False}),
    "weight_dropout, projection": Case(options={"weight_dropout": 0.4, "proj_size": 5}),
    **{f"mixed, H={n}": Case(H=n, T=4, options=MIXED) for n in (1, 4, 8, 9, 17, 29)},
    "mixed, lengths, layers, directions": Case(
        B=6,
        H=10,
        lengths=(3, 0, 6, 1, 6, 2),
        options={"num_layers": 2, "bidirectional": True, "dropout": 0.2, **MIXED},
    ),
    "mixed, everything": Case(
        B=5,
        H=11,
        lengths=(3, 0, 6, 1, 2),
        options={
            "num_layers": 2,
            "bidirectional": True,
            "proj_size": 5,
            "batch_first": True,
            "dropout": 0.2,
            "merge": "sum",
            "peepholes": True,
            "input_forget": True,
            "clip": 2.0,
            "activations": ("HardSigmoid", "Softsign", "Tanh"),
            **MIXED,
        },
    ),
    **{
        f"mixed, layer norm, H={n}": Case(H=n, T=4, options={"layer_norm": True, **MIXED})
        for n in (8, 17)
    },
    "mixed, layer norm, everything": Case(
        B=5,
        H=11,
        lengths=(3, 0, 6, 1, 2),
        options={
            "num_layers": 2,
            "bidirectional": True,
            "proj_size": 5,
            "dropout": 0.2,
            "layer_norm": True,
            **MIXED,
        },
    ),
    "mixed, reverse": Case(B=4, lengths=(3, 0, 6, 1), options={"reverse": True, **MIXED}),
    "mixed, unbatched": Case(batched=False, options=MIXED),
    "mixed, blocks": Case(
        T=50, B=40, I=3, H=5, lengths=tuple((37 * b) % 51 for b in range(40)), options=MIXED
    ),
}
for other in OTHERS:
    CASES |= cases_of(other)
every_case = pytest.mark.parametrize("name", CASES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_mixed_cell = pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("LSTM", MIXED),
        ("LSTM", {"proj_size": 9, **MIXED}),
        *((cell, {**own, **MIXED_H}) for cell, own in OTHERS.values()),
    ],
    ids=["LSTM", "LSTM, projection", *OTHERS],
)


def tolerances_of(layer: Any) -> tuple[dict[str, Tolerance], dict[str, Tolerance]]:
    """Those of values and of gradients."""
    if isinstance(layer, fastlstm.LSTM) and layer.layer_norm:
        return NORMALISED_FORWARD, NORMALISED_BACKWARD
    return FORWARD, BACKWARD


@every_dtype
@every_case
def test_results_and_gradients_are_the_references(name: str, dtype: str) -> None:
    case = CASES[name]
    p = make_problem(case, dtype)
    forward, backward = tolerances_of(p.layer)
    expected, state, tape = reference_forward(
        p.layer,
        p.x,
        p.state,
        lengths=p.lengths,
        params=masked_parameters(p.layer, SEED),
        **masks_of(p.layer, SEED, case.T, case.B if case.batched else 1),
    )
    expected_grads = reference_backward(p.layer, tape, p.d_output, p.d_state)
    for key, mask in weight_masks(p.layer, SEED).items():
        expected_grads.params[key] *= mask

    output, final, tape = p.layer.forward(p.x, p.state, lengths=p.lengths, seed=SEED)
    assert_close(output, expected, forward[dtype], "output")
    assert_states_close(final, state, forward[dtype])
    grads = tape.backward(p.d_output, p.d_state)
    assert_gradients_close(grads, expected_grads, backward[dtype])
    again = gradient_arrays(tape.backward(p.d_output, p.d_state))
    for key, array in gradient_arrays(grads).items():
        assert_same_bits(again[key], array, key)


@every_dtype
@every_case
def test_inference_has_the_mean_of_zoneout_and_nothing_else(name: str, dtype: str) -> None:
    p = make_problem(CASES[name], dtype)
    forward, _ = tolerances_of(p.layer)
    means = named_states(p.layer.zoneout, "")
    expected, state, tape = reference_forward(
        p.layer, p.x, p.state, lengths=p.lengths, **{f"keep_{s}": q for s, q in means.items()}
    )
    output, final = p.layer(p.x, p.state, lengths=p.lengths)
    assert_close(output, expected, forward[dtype], "output")
    assert_states_close(final, state, forward[dtype])
    exact = tape.traces[-1][-1]
    trace = p.layer.trace(p.x, p.state, lengths=p.lengths)[-1][-1]
    for field in exact._fields:
        values = time_major(p.layer, getattr(trace, field))
        assert_close(values, getattr(exact, field), forward[dtype], f"{field} of the trace")


@every_dtype
@every_mixed_cell
def test_a_tape_of_inference(dtype: str, cell: str, options: dict[str, Any]) -> None:
    p = make_problem(Case(T=7, B=4, I=5, H=20, options=options, cell=cell), dtype)
    random = p.layer.__getstate__()["_random"]
    before = random.bit_generator.state
    expected, expected_state = p.layer(p.x, p.state, lengths=p.lengths)
    output, state, tape = p.layer.forward(p.x, p.state, lengths=p.lengths, training=False)
    assert_same_bits(output, expected, "output")
    assert_same_states(state, expected_state)
    assert p.layer.__getstate__()["_random"].bit_generator.state == before  # nothing is drawn
    grads = tape.backward(p.d_output, p.d_state)
    # Those of the reference, whose masks are the means.
    means = {f"keep_{s}": q for s, q in named_states(p.layer.zoneout, "").items()}
    _, _, exact = reference_forward(p.layer, p.x, p.state, lengths=p.lengths, **means)
    _, backward = tolerances_of(p.layer)
    wanted = reference_backward(p.layer, exact, p.d_output, p.d_state)
    assert_gradients_close(grads, wanted, backward[dtype])
    with pytest.raises(TypeError, match="training: expected"):
        p.layer.forward(p.x, training="no")


def training_results(p: Problem) -> dict[str, np.ndarray]:
    output, state, tape = p.layer.forward(p.x, p.state, lengths=p.lengths, seed=SEED)
    grads = gradient_arrays(tape.backward(p.d_output, p.d_state))
    return {"output": output, **named_states(state)} | {
        f"d_{key}": array for key, array in grads.items()
    }


# Threads divide the rows of a batch, and the units where there are few rows.
@every_dtype
@every_mixed_cell
@pytest.mark.parametrize(("B", "H"), [(70, 40), (3, 150)])
def test_masks_do_not_depend_on_threads(
    dtype: str, cell: str, options: dict[str, Any], B: int, H: int
) -> None:
    p = make_problem(Case(T=15, B=B, I=20, H=H, options=options, cell=cell), dtype)
    results = []
    for n in (1, 2, 3, 4):
        with fastlstm.num_threads(n):
            results.append(training_results(p))
    for result in results[1:]:
        for key, array in results[0].items():
            assert_same_bits(result[key], array, key)


@every_dtype
@every_mixed_cell
def test_a_row_alone_has_the_masks_of_its_place(
    dtype: str, cell: str, options: dict[str, Any]
) -> None:
    """The first rows of a batch are a smaller batch, whatever the lengths of the others."""
    p = make_problem(Case(B=7, H=13, options=options, cell=cell), dtype)
    whole, _, _ = p.layer.forward(p.x, p.state, lengths=[4, 6, 2, 6, 1, 5, 6], seed=SEED)
    part, _, _ = p.layer.forward(
        p.x[:, :3], map_state(lambda s: s[:, :3], p.state), lengths=[4, 6, 2], seed=SEED
    )
    assert_same_bits(part, whole[:, :3])


@every_dtype
@every_mixed_cell
def test_a_stream_is_inference(dtype: str, cell: str, options: dict[str, Any]) -> None:
    p = make_problem(Case(H=11, options={"num_layers": 2, **options}, cell=cell), dtype)
    output, state = p.layer(p.x, p.state)
    stream = p.layer.stream(3)
    stream.state = p.state
    assert_same_bits(np.stack([stream.step(x_t) for x_t in p.x]), output)
    assert_same_states(stream.state, state)


@pytest.mark.parametrize(("cell", "zoneout"), [("LSTM", (0.3, 0.1)), ("GRU", 0.3), ("RNN", 0.3)])
def test_zoneout_keeps_the_right_part_of_the_values(cell: str, zoneout: Any) -> None:
    p = make_problem(Case(T=40, B=50, H=30, options={"zoneout": zoneout}, cell=cell), "float64")
    output, _, _ = p.layer.forward(p.x, p.state, seed=SEED)
    kept = np.mean(output[1:] == output[:-1])
    spread = np.sqrt(0.3 * 0.7 / output[1:].size)
    assert abs(kept - 0.3) < 5 * spread


def test_copies_and_files_keep_the_options(tmp_path: Path) -> None:
    layer = fastlstm.LSTM(3, 4, **MIXED)
    assert repr(layer) == (
        "LSTM(3, 4, recurrent_dropout=0.3, zoneout=(0.2, 0.4), weight_dropout=0.25)"
    )
    layer.save(tmp_path / "layer.safetensors")
    for other in (pickle.loads(pickle.dumps(layer)), fastlstm.load(tmp_path / "layer.safetensors")):
        assert repr(other) == repr(layer)
    assert fastlstm.LSTM(3, 4, zoneout=0.1).zoneout == (0.1, 0.1)
    for cell in ("GRU", "RNN"):
        layer = make_layer(Case(I=3, H=4, options=MIXED_H, cell=cell), "float32")
        layer.save(tmp_path / "layer.safetensors")
        other = fastlstm.load(tmp_path / "layer.safetensors")
        shown = f"{cell}(3, 4, recurrent_dropout=0.3, zoneout=0.2, weight_dropout=0.25)"
        assert repr(other) == repr(pickle.loads(pickle.dumps(layer))) == shown


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"recurrent_dropout": 1.1}, ValueError, "recurrent_dropout: expected a number from 0 to"),
        ({"recurrent_dropout": None}, TypeError, "recurrent_dropout: expected a number, got None"),
        ({"weight_dropout": -0.1}, ValueError, "weight_dropout: expected a number from 0 to 1"),
        ({"zoneout": 2}, ValueError, "zoneout: expected a number from 0 to 1, got 2"),
        ({"zoneout": (0.1, float("nan"))}, ValueError, "zoneout: expected a number .* got nan"),
        ({"zoneout": (0.1,)}, ValueError, r"zoneout: expected p or \(p_h, p_c\), got \(0.1,\)"),
        ({"zoneout": "0.1"}, TypeError, "zoneout: expected a number, got str"),
    ],
)
def test_errors(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^{message}"):
        fastlstm.LSTM(3, 4, **options)


@pytest.mark.parametrize("cell", ["GRU", "RNN"])
@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"recurrent_dropout": 1.1}, ValueError, "recurrent_dropout: expected a number from 0 to"),
        ({"weight_dropout": "1"}, TypeError, "weight_dropout: expected a number, got str"),
        ({"zoneout": -1}, ValueError, "zoneout: expected a number from 0 to 1, got -1"),
        ({"zoneout": (0.1, 0.1)}, TypeError, "zoneout: expected a number, got tuple"),
    ],
)
def test_errors_of_cells_without_c(
    cell: str, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"^{message}"):
        getattr(fastlstm, cell)(3, 4, **options)
