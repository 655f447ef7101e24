"""Recurrent dropout, zoneout and weight dropout: the reference's results with the same masks."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from philox import (
    DROPOUT,
    RECURRENT_DROPOUT,
    WEIGHT_DROPOUT,
    dropout_mask,
    keep_mask,
)
from support import (
    DTYPES,
    Case,
    Problem,
    assert_gradients_close,
    assert_promised,
    assert_same_bits,
    gradient_arrays,
    make_problem,
    reference_backward,
    reference_forward,
)
from tolerances import (
    BACKWARD,
    FORWARD,
    NORMALISED_BACKWARD,
    NORMALISED_FORWARD,
    Tolerance,
    assert_close,
)

SEED = 0xFEDCBA9876543210
MIXED: dict[str, Any] = {
    "recurrent_dropout": 0.3,
    "zoneout": (0.2, 0.4),
    "weight_dropout": 0.25,
}
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
every_case = pytest.mark.parametrize("name", CASES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def masks_of(layer: fastlstm.LSTM, T: int, B: int) -> dict[str, Any]:
    """The reference's masks for a training call with SEED."""
    H, P = layer.hidden_size, layer.proj_size or layer.hidden_size
    D = 2 if layer.bidirectional else 1
    cells = range(layer.num_layers * D)
    p_h, p_c = layer.zoneout
    inverted = SEED ^ 0xFFFFFFFFFFFFFFFF
    places = np.arange(T)[:, np.newaxis] + T * np.arange(B)
    masks: dict[str, Any] = {
        "h_masks": np.stack(
            [
                dropout_mask(layer.recurrent_dropout, SEED, RECURRENT_DROPOUT, k, np.arange(B), P)
                for k in cells
            ]
        ),
        "keep_h": np.stack([keep_mask(p_h, inverted, k, T, B, P) for k in cells]),
        "keep_c": np.stack([keep_mask(p_c, SEED, k, T, B, H) for k in cells]),
    }
    if layer.dropout > 0:
        masks["masks"] = [
            dropout_mask(layer.dropout, SEED, DROPOUT, k, places, D * P)
            for k in range(layer.num_layers - 1)
        ]
    return masks


def weight_masks(layer: fastlstm.LSTM) -> dict[str, np.ndarray]:
    names = [name for name in layer.params if name.startswith("weight_hh")]
    return {
        name: dropout_mask(
            layer.weight_dropout,
            SEED,
            WEIGHT_DROPOUT,
            k,
            np.arange(4 * layer.hidden_size),
            layer.params[name].shape[1],
        )
        for k, name in enumerate(names)
    }


def tolerances_of(layer: fastlstm.LSTM) -> tuple[dict[str, Tolerance], dict[str, Tolerance]]:
    """Those of values and of gradients."""
    if layer.layer_norm:
        return NORMALISED_FORWARD, NORMALISED_BACKWARD
    return FORWARD, BACKWARD


@every_dtype
@every_case
def test_results_and_gradients_are_the_references(name: str, dtype: str) -> None:
    case = CASES[name]
    p = make_problem(case, dtype)
    forward, backward = tolerances_of(p.layer)
    dropped = {key: mask * p.layer.params[key] for key, mask in weight_masks(p.layer).items()}
    expected, state, tape = reference_forward(
        p.layer,
        p.x,
        p.state,
        lengths=p.lengths,
        params={**p.layer.params, **dropped},
        **masks_of(p.layer, case.T, case.B if case.batched else 1),
    )
    expected_grads = reference_backward(p.layer, tape, p.d_output, p.d_state)
    for key, mask in weight_masks(p.layer).items():
        expected_grads.params[key] *= mask

    output, (h_n, c_n), tape = p.layer.forward(p.x, p.state, lengths=p.lengths, seed=SEED)
    assert_close(output, expected, forward[dtype], "output")
    assert_close(h_n, state[0], forward[dtype], "h_n")
    assert_close(c_n, state[1], forward[dtype], "c_n")
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
    p_h, p_c = p.layer.zoneout
    expected, state, tape = reference_forward(
        p.layer, p.x, p.state, lengths=p.lengths, keep_h=p_h, keep_c=p_c
    )
    output, (h_n, c_n) = p.layer(p.x, p.state, lengths=p.lengths)
    assert_close(output, expected, forward[dtype], "output")
    assert_close(h_n, state[0], forward[dtype], "h_n")
    assert_close(c_n, state[1], forward[dtype], "c_n")
    trace = p.layer.trace(p.x, p.state, lengths=p.lengths)[-1][-1].c
    if p.layer.batch_first:
        trace = trace.swapaxes(0, 1)
    assert_close(trace, tape.traces[-1][-1].c, forward[dtype], "c of the trace")


def training_results(p: Problem) -> dict[str, np.ndarray]:
    output, state, tape = p.layer.forward(p.x, p.state, lengths=p.lengths, seed=SEED)
    grads = gradient_arrays(tape.backward(p.d_output, p.d_state))
    return {"output": output, "h_n": state[0], "c_n": state[1]} | {
        f"d_{key}": array for key, array in grads.items()
    }


@every_dtype
@pytest.mark.parametrize("proj_size", [0, 9])
def test_masks_do_not_depend_on_threads(dtype: str, proj_size: int) -> None:
    p = make_problem(Case(T=15, B=70, I=20, H=40, options={"proj_size": proj_size, **MIXED}), dtype)
    results = []
    for n in (1, 2, 3, 4):
        with fastlstm.num_threads(n):
            results.append(training_results(p))
    for result in results[1:]:
        for key, array in results[0].items():
            assert_same_bits(result[key], array, key)


@every_dtype
def test_a_row_alone_has_the_masks_of_its_place(dtype: str) -> None:
    """The first rows of a batch are a smaller batch, whatever the lengths of the others."""
    p = make_problem(Case(B=7, H=13, options=MIXED), dtype)
    whole, _, _ = p.layer.forward(p.x, p.state, lengths=[4, 6, 2, 6, 1, 5, 6], seed=SEED)
    part, _, _ = p.layer.forward(
        p.x[:, :3], tuple(s[:, :3] for s in p.state), lengths=[4, 6, 2], seed=SEED
    )
    assert_promised(part, whole[:, :3])


@every_dtype
@pytest.mark.parametrize("proj_size", [0, 5])
def test_a_stream_is_inference(dtype: str, proj_size: int) -> None:
    p = make_problem(Case(H=9, options={"num_layers": 2, "proj_size": proj_size, **MIXED}), dtype)
    output, state = p.layer(p.x, p.state)
    stream = p.layer.stream(3)
    stream.state = p.state
    assert_promised(np.stack([stream.step(x_t) for x_t in p.x]), output)
    assert_promised(stream.state[0], state[0])


def test_zoneout_keeps_the_right_part_of_the_values() -> None:
    p = make_problem(Case(T=40, B=50, H=30, options={"zoneout": (0.3, 0.1)}), "float64")
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
