"""Calls by address: packed sequences, and parameters that change where they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import fastlstm
import numpy as np
import pytest
from fastlstm._blas import require_blas
from fastlstm.layers import core
from fastlstm.layers.layer import spec_of
from fastlstm.layers.states import as_tuple
from support import DTYPES, assert_same_bits

pytestmark = pytest.mark.every_isa

T, B = 40, 4
LENGTHS = np.array([40, 33, 33, 1])
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "LSTM": ("LSTM", {}),
    "LSTM, everything": (
        "LSTM",
        {
            "num_layers": 2,
            "bidirectional": True,
            "proj_size": 5,
            "dropout": 0.3,
            "peepholes": True,
            "zoneout": 0.1,
            "recurrent_dropout": 0.2,
            "weight_dropout": 0.2,
        },
    ),
    "normalised LSTM": ("LSTM", {"layer_norm": True, "num_layers": 2}),
    "summed": ("LSTM", {"bidirectional": True, "merge": "sum", "num_layers": 2}),
    "multiplied": ("GRU", {"bidirectional": True, "merge": "mul"}),
    "one GRU": ("GRU", {}),
    "GRU": ("GRU", {"num_layers": 2, "reverse": True}),
    "GRU before": ("GRU", {"reset_after": False, "bidirectional": True}),
    "RNN": ("RNN", {"num_layers": 2, "dropout": 0.4}),
}
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_order = pytest.mark.parametrize("order", list(core.Order))


def address(array: np.ndarray) -> int:
    return array.ctypes.data


class Arrays(NamedTuple):
    """What a call by address reads and writes, in its order."""

    x: np.ndarray
    state: list[np.ndarray]
    output: np.ndarray
    final: list[np.ndarray]

    def arguments(
        self, order: int, lengths: np.ndarray | None, state: bool = True
    ) -> tuple[int, int, int, int, int, list[int] | None, int, list[int]]:
        initial = [address(part) for part in self.state] if state else None
        at = 0 if lengths is None else address(lengths)
        final = [address(part) for part in self.final]
        return address(self.x), T, B, int(order), at, initial, address(self.output), final


class Lent:
    """A layer, and its parameters in memory that anybody may write to."""

    def __init__(self, name: str, dtype: str, **options: Any) -> None:
        kind, of_kind = LAYERS[name]
        self.layer = getattr(fastlstm, kind)(6, 11, dtype=dtype, seed=3, **of_kind, **options)
        self.spec = spec_of(self.layer)
        self.params = self.layer.state_dict()
        self.borrowed = core.make_borrowed(self.spec.dtype, self.spec.config)
        self.random = np.random.default_rng(0)

    def draw(self, *shape: int) -> np.ndarray:
        return self.random.normal(size=shape).astype(self.spec.dtype)

    def stack(self, version: int) -> core.Stack:
        return self.borrowed.stack([address(p) for p in self.params.values()], version)

    def state(self) -> list[np.ndarray]:
        return [self.draw(self.spec.cells, B, width) for _, width in self.spec.state_parts]

    def arrays(self, x: np.ndarray, order: core.Order, state: list[np.ndarray]) -> Arrays:
        rows = laid_out(x, order)
        width = self.spec.output_shape(self.spec.layout(x))[-1]
        output = np.full((*rows.shape[:-1], width), np.nan, self.spec.dtype)
        return Arrays(rows, state, output, [np.full_like(part, np.nan) for part in state])


def laid_out(sequence: np.ndarray, order: core.Order) -> np.ndarray:
    """A (T, B, .) sequence with the rows in this order."""
    if order is core.Order.PACKED:
        return np.concatenate([sequence[t, : (t < LENGTHS).sum()] for t in range(T)])
    return np.ascontiguousarray(
        sequence.swapaxes(0, 1) if order is core.Order.BATCH_FIRST else sequence
    )


@every_dtype
@every_order
@pytest.mark.parametrize("name", LAYERS)
def test_calls_by_address_have_the_bits_of_others(name: str, order: core.Order, dtype: str) -> None:
    lent = Lent(name, dtype)
    x, state = lent.draw(T, B, 6), lent.state()
    initial = tuple(state) if len(state) > 1 else state[0]
    arrays = lent.arrays(x, order, state)
    stack = lent.stack(0)

    output, final = lent.layer(x, initial, lengths=LENGTHS)
    stack.forward_at(*arrays.arguments(order, LENGTHS))
    assert_same_bits(arrays.output, laid_out(output, order), "output")
    for part, want in zip(arrays.final, as_tuple(final), strict=True):
        assert_same_bits(part, want, "final state")

    output, final, tape = lent.layer.forward(x, initial, lengths=LENGTHS, seed=5)
    d_output, d_state = lent.draw(*output.shape), lent.state()
    grads = tape.backward(d_output, tuple(d_state) if len(d_state) > 1 else d_state[0])
    regularisation = {**lent.spec.training, "seed": 5, "zoneout": True}
    core_tape = stack.forward_train_at(*arrays.arguments(order, LENGTHS), regularisation, 0)
    assert_same_bits(arrays.output, laid_out(output, order), "output in training")
    for part, want in zip(arrays.final, as_tuple(final), strict=True):
        assert_same_bits(part, want, "final state in training")
    d_rows = laid_out(d_output, order)
    for _ in range(2):  # written, not added to
        d_x = np.full_like(arrays.x, np.nan)
        d_initial = [np.full_like(part, np.nan) for part in state]
        d_params = {n: np.full_like(p, np.nan) for n, p in lent.params.items()}
        core_tape.backward_at(
            address(d_rows),
            [address(part) for part in d_state],
            address(d_x),
            [address(part) for part in d_initial],
            [address(p) for p in d_params.values()],
        )
        assert_same_bits(d_x, laid_out(grads.x, order), "d_x")
        for part, want in zip(d_initial, as_tuple(grads.state), strict=True):
            assert_same_bits(part, want, "d_state")
        for parameter, d in d_params.items():
            assert_same_bits(d, grads.params[parameter], parameter)


@every_dtype
def test_what_is_left_out_is_zero_or_not_computed(dtype: str) -> None:
    lent = Lent("LSTM", dtype)
    x, zeros = lent.draw(T, B, 6), [np.zeros_like(part) for part in lent.state()]
    arrays = lent.arrays(x, core.Order.TIME_FIRST, zeros)
    output, _, tape = lent.layer.forward(x)
    grads = tape.backward(None, tuple(np.ones_like(part) for part in zeros), needs="bias_hh_l0")
    arguments = arrays.arguments(core.Order.TIME_FIRST, None, state=False)
    core_tape = lent.stack(0).forward_train_at(*arguments, {}, 0)
    assert_same_bits(arrays.output, output, "output")
    d_final = [np.ones_like(part) for part in zeros]
    d_bias = np.full_like(lent.params["bias_hh_l0"], np.nan)
    d_params = [address(d_bias) if name == "bias_hh_l0" else 0 for name in lent.params]
    core_tape.backward_at(0, [address(part) for part in d_final], 0, None, d_params)
    assert_same_bits(d_bias, grads.params["bias_hh_l0"], "bias_hh_l0")


def test_calls_by_address_check_their_numbers() -> None:
    lent = Lent("LSTM", "float64")
    stack, state = lent.stack(0), lent.state()
    arrays = lent.arrays(lent.draw(T, B, 6), core.Order.PACKED, state)
    good = arrays.arguments(core.Order.PACKED, LENGTHS)

    def refuses(message: str, arguments: Sequence[Any]) -> None:
        with pytest.raises(ValueError, match=message):
            stack.forward_at(*arguments)
        with pytest.raises(ValueError, match=message):
            stack.forward_train_at(*arguments, {}, 0)

    kept = []  # whose addresses are given

    def with_lengths(lengths: np.ndarray) -> tuple[Any, ...]:
        kept.append(lengths)
        return arrays.arguments(core.Order.PACKED, lengths)

    refuses("lengths, which increase", with_lengths(LENGTHS[::-1].copy()))
    for wrong in (T + 1, -1):
        refuses("lengths", with_lengths(np.full(B, wrong)))
    for place, wrong, message in [
        (0, 0, "x or output"),
        (1, -1, "x"),
        (2, -1, "x"),
        (3, 3, "order"),
        (3, -1, "order"),
        (5, good[5][:1] if good[5] else (), "initial"),
        (6, 0, "x or output"),
        (7, good[7][:1], "final"),
        (7, [0, good[7][1]], "final"),
    ]:
        refuses(message, [*good[:place], wrong, *good[place + 1 :]])
    addresses = [address(p) for p in lent.params.values()]
    for wrong in (addresses[:-1], [*addresses, addresses[0]], [0, *addresses[1:]]):
        with pytest.raises(ValueError, match=r"parameters|CellParams"):
            lent.borrowed.stack(wrong, 0)
    tape = stack.forward_train_at(*good, {}, 0)
    with pytest.raises(ValueError, match="number of parameters"):
        tape.backward_at(0, None, 0, None, addresses[:-1])
    with pytest.raises(ValueError, match="d_final"):
        tape.backward_at(0, [0], 0, None, addresses)
    with pytest.raises(ValueError, match="d_initial"):
        tape.backward_at(0, None, 0, [0, 0], addresses)
    with pytest.raises(ValueError, match="unknown option"):
        core.make_borrowed(lent.spec.dtype, {**lent.spec.config, "no": 1})


def changes() -> Iterator[tuple[str, Callable[[np.ndarray], None]]]:
    """Ways of writing into a parameter."""

    def one_bit(p: np.ndarray) -> None:
        p.view(np.uint8).reshape(-1)[-2] ^= 8  # of the last value's mantissa

    def swap(p: np.ndarray) -> None:
        p[[0, 1]] = p[[1, 0]]

    yield "one bit", one_bit
    yield "two rows", swap
    yield "signs", lambda p: np.negative(p, out=p)
    yield "scale", lambda p: np.multiply(p, 1.5, out=p)


@every_dtype
@pytest.mark.parametrize("version", [0, -1])
@pytest.mark.parametrize("change", [name for name, _ in changes()])
def test_every_change_is_found(change: str, version: int, dtype: str) -> None:
    write = dict(changes())[change]
    lent = Lent("LSTM, everything", dtype)
    x, state = lent.draw(T, B, 6), lent.state()
    arrays = lent.arrays(x, core.Order.TIME_FIRST, state)

    def check(version: int) -> None:
        lent.layer.update(lent.params)
        output, _ = lent.layer(x, tuple(state))
        lent.stack(version).forward_at(*arrays.arguments(core.Order.TIME_FIRST, None))
        assert_same_bits(arrays.output, output, "output")

    for _ in range(3):
        check(version)
    for parameter in lent.params.values():
        write(parameter)
        check(version)
        check(version)
    lent.borrowed.frozen = True
    check(version)
    write(lent.params["weight_hh_l0"])
    if version < 0:  # nothing is known, so all is compared
        check(version)
    else:
        with pytest.raises(AssertionError):
            check(version)
    check(1)  # another version
    lent.params = {name: p.copy() for name, p in lent.params.items()}
    lent.params["bias_hh_l0"] += 1
    check(1)  # other addresses


def test_a_tape_keeps_the_values_of_its_call() -> None:
    lent = Lent("LSTM", "float64")
    arrays = lent.arrays(lent.draw(T, B, 6), core.Order.TIME_FIRST, lent.state())
    d_output = np.ones_like(arrays.output)
    require_blas()

    def gradient(tape: core.Tape) -> np.ndarray:
        d_x = np.empty_like(arrays.x)
        tape.backward_at(address(d_output), None, address(d_x), None, [0] * len(lent.params))
        return d_x

    def record(version: int) -> core.Tape:
        arguments = arrays.arguments(core.Order.TIME_FIRST, None)
        return lent.stack(version).forward_train_at(*arguments, {}, 0)

    want = gradient(record(0))
    tapes = [record(0)]
    for version in range(1, 5):
        for parameter in lent.params.values():
            parameter *= 1.1
        tapes.append(record(version))
    assert_same_bits(gradient(tapes[0]), want, "after four steps")
    assert not np.array_equal(gradient(tapes[-1]), want)


@every_dtype
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("bias", [True, False])
def test_collected_gradients_are_the_sums_of_those_of_all_calls(
    kind: str, bias: bool, dtype: str
) -> None:
    layer = getattr(fastlstm, kind)(6, 11, dtype=dtype, bias=bias, seed=3)
    spec, params = spec_of(layer), layer.state_dict()
    borrowed = core.make_borrowed(spec.dtype, spec.config)
    random = np.random.default_rng(0)
    expected = {name: np.zeros_like(p) for name, p in params.items()}
    grads = {name: np.full_like(p, 2) for name, p in params.items()}  # which are added to
    collected = core.make_collected(spec.dtype, spec.config, [address(d) for d in grads.values()])
    for rows in (3, 1, 100, 300, 7, 60):  # some times more than are multiplied at once
        x = random.normal(size=(1, rows, 6)).astype(dtype)
        state = [random.normal(size=(1, rows, 11)).astype(dtype) for _ in spec.state_parts]
        d_final = [random.normal(size=part.shape).astype(dtype) for part in state]
        output, final = np.empty_like(state[0]), [np.empty_like(part) for part in state]
        arguments = (address(x), 1, rows, 0, 0, [address(part) for part in state])
        stack = borrowed.stack([address(p) for p in params.values()], 0)
        tape = stack.forward_train_at(
            *arguments, address(output), [address(part) for part in final], {}, 0
        )
        require_blas()
        d_x, alone = np.empty_like(x), [np.empty_like(p) for p in params.values()]
        at = [address(part) for part in d_final]
        tape.backward_at(0, at, address(d_x), None, [address(d) for d in alone])
        want = d_x.copy()
        tape.backward_at(0, at, address(d_x), None, [], collected)
        assert_same_bits(d_x, want, "x")
        for name, d in zip(expected, alone, strict=True):
            expected[name] += d
    collected.finish()
    collected.finish()  # there is nothing more
    for name, d in grads.items():
        error = np.abs(d - 2 - expected[name]).max()
        assert error <= 1e3 * np.finfo(dtype).eps * max(1, np.abs(expected[name]).max()), name


def test_gradients_that_cannot_be_collected() -> None:
    for name in LAYERS:
        lent = Lent(name, "float64")
        if name not in ("LSTM", "one GRU"):
            addresses = [0] * len(lent.params)
            with pytest.raises(ValueError, match="one cell"):
                core.make_collected(lent.spec.dtype, lent.spec.config, addresses)
    lent = Lent("LSTM", "float64")
    with pytest.raises(ValueError, match="number of parameters"):
        core.make_collected(lent.spec.dtype, lent.spec.config, [0])
    collected = core.make_collected(lent.spec.dtype, lent.spec.config, [0] * 4)
    for name in ("one GRU", "GRU", "LSTM, everything"):  # tapes of others
        other = Lent(name, "float64")
        arrays = other.arrays(other.draw(T, B, 6), core.Order.TIME_FIRST, other.state())
        arguments = arrays.arguments(core.Order.TIME_FIRST, None)
        tape = other.stack(0).forward_train_at(*arguments, {}, 0)
        require_blas()
        with pytest.raises(ValueError, match="this single cell"):
            tape.backward_at(0, None, 0, None, [], collected)
