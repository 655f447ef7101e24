"""Keras on TensorFlow: its layers in a tf.function, compiled by XLA, batch-major as Keras has them.

XLA is what Keras picks by itself for training where it can; here it is 1.2 to 9 times faster.

Uneven lengths are a mask, as documented. A stream calls the cells, which is one step without the
loop.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import Array, Arrays, Problem, parameter_names
from fastlstm_bench.systems import Call, UnsupportedError

_LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}
_CELLS = {
    "lstm": keras.layers.LSTMCell,
    "gru": keras.layers.GRUCell,
    "rnn": keras.layers.SimpleRNNCell,
}
# Keras's gates (LSTM i f c o, GRU z r h) by their place in PyTorch's (i f g o, r z n), and the way
# back. Both orders are their own inverse.
_GATE_ORDER = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "rnn": (0,)}


def start(threads: int) -> dict[str, str]:
    if keras.backend.backend() != "tensorflow":
        raise ImportError(f"Keras runs on {keras.backend.backend()}, not on TensorFlow")
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return {"keras": keras.__version__, "tensorflow": tf.__version__, "jit_compile": "True"}


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    if case.task == "step":
        return _Steps(case, problem)
    if case.task == "optimiser":
        raise UnsupportedError("one bias instead of two: the norm of the gradients is another")
    return _Training(case, problem) if case.task == "training" else _Sequence(case, problem)


def _reorder(case: Case, array: Array) -> Array:
    """Reorder the gates, which are stacked along the last axis."""
    blocks = np.split(array, case.gates, axis=-1)
    return np.concatenate([blocks[gate] for gate in _GATE_ORDER[case.cell]], axis=-1)


def _weights(case: Case, problem: Problem, layer: int, direction: int) -> list[Array]:
    W, R, b_W, b_R = (problem.params[name] for name in parameter_names(layer, direction))
    bias = np.stack([b_W, b_R]) if case.cell == "gru" else b_W + b_R
    return [_reorder(case, W.T), _reorder(case, R.T), _reorder(case, bias)]


class _Sequence(Call):
    def __init__(self, case: Case, problem: Problem) -> None:
        self.case = case
        self.layers: list[Any] = []
        for layer in range(case.layers):
            made = _LAYERS[case.cell](
                case.H, return_sequences=True, return_state=True, dtype=case.dtype
            )
            made.zero_output_for_mask = True
            if case.bidirectional:
                made = keras.layers.Bidirectional(made, dtype=case.dtype)
            made.build((case.B, case.T, case.input_size(layer)))
            weights = (_weights(case, problem, layer, d) for d in range(case.directions))
            made.set_weights([array for group in weights for array in group])
            self.layers.append(made)
        self.x = tf.constant(np.ascontiguousarray(problem.x.transpose(1, 0, 2)))
        self.mask: Any = None
        if problem.lengths is not None:
            self.mask = tf.sequence_mask(tf.constant(problem.lengths), case.T)
        self.function = tf.function(self._forward, jit_compile=True)
        self.results: Any = None

    def _forward(self, x: Any, mask: Any) -> Any:
        states: list[Any] = []
        for layer in self.layers:
            x, *state = layer(x, mask=mask)
            states += state
        return x, states

    def run(self) -> None:
        self.results = self.function(self.x, self.mask)

    def fetch(self) -> Arrays:
        output, states = self.results
        results = {"output": output.numpy().transpose(1, 0, 2)}
        names = ("h_n", "c_n") if self.case.cell == "lstm" else ("h_n",)
        for i, name in enumerate(names):
            results[name] = np.stack([state.numpy() for state in states[i :: len(names)]])
        return results


class _Training(_Sequence):
    def __init__(self, case: Case, problem: Problem) -> None:
        super().__init__(case, problem)
        self.d_output = tf.constant(np.ascontiguousarray(problem.d_output.transpose(1, 0, 2)))
        self.variables = [v.value for layer in self.layers for v in layer.trainable_variables]
        self.function = tf.function(self._forward_backward, jit_compile=True)
        self.gradients: Any = None

    def _forward_backward(self, x: Any, mask: Any, d_output: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            output, states = self._forward(x, mask)
        gradients = tape.gradient(output, [x, *self.variables], output_gradients=d_output)
        return (output, states), gradients

    def run(self) -> None:
        self.results, self.gradients = self.function(self.x, self.mask, self.d_output)

    def fetch(self) -> Arrays:
        case = self.case
        d_x, *rest = (gradient.numpy() for gradient in self.gradients)
        results = super().fetch() | {"d_x": d_x.transpose(1, 0, 2)}
        for index in range(case.layers * case.directions):
            names = parameter_names(*divmod(index, case.directions))
            d_W, d_R, d_b = (_reorder(case, a) for a in rest[3 * index : 3 * index + 3])
            # One bias, the sum of PyTorch's two: its gradient is that of each.
            d_b_W, d_b_R = d_b if case.cell == "gru" else (d_b, d_b)
            values = (d_W.T, d_R.T, d_b_W, d_b_R)
            results |= {f"d_{n}": value for n, value in zip(names, values, strict=True)}
        return results


class _Steps(Call):
    def __init__(self, case: Case, problem: Problem) -> None:
        self.cells: list[Any] = []
        for layer in range(case.layers):
            cell = _CELLS[case.cell](case.H, dtype=case.dtype)
            cell.build((case.B, case.H))
            cell.set_weights(_weights(case, problem, layer, 0))
            self.cells.append(cell)
        zeros = tf.zeros((case.B, case.H), case.dtype)
        parts = 2 if case.cell == "lstm" else 1
        self.states: Any = [[zeros] * parts for _ in self.cells]
        self.x = tf.constant(problem.x[0])
        self.output: Any = None
        self.function = tf.function(self._step, jit_compile=True)

    def _step(self, x: Any, states: Any) -> Any:
        new_states = []
        for cell, state in zip(self.cells, states, strict=True):
            x, new = cell(x, state)
            new_states.append(new if isinstance(new, list) else [new])
        return x, new_states

    def feed(self, x: Array) -> None:
        self.x = tf.constant(x)

    def run(self) -> None:
        self.output, self.states = self.function(self.x, self.states)

    def fetch(self) -> Arrays:
        return {"output": self.output.numpy()}
