"""JAX: jitted lax.scan over time, with the input projection of all steps as one product before it.

Weights are transposed once, (I, G*H) as Flax has them. Uneven lengths keep the state of a finished
sequence with `where`: JAX has no other way.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fastlstm_bench.cases import BETAS, EPSILON, LEARNING_RATE, MAX_NORM, Case
from fastlstm_bench.problem import Array, Arrays, Problem, parameter_names
from fastlstm_bench.systems import Call


def start(threads: int) -> dict[str, str]:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)  # Allows float64; float32 arrays stay float32.
    # XLA's pool has a thread for each CPU in the process's affinity: there is nothing to set.
    return {"jax": jax.__version__}


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    if case.task == "step":
        return _Steps(case, problem)
    kinds = {"training": _Training, "optimiser": _Optimiser}
    return kinds.get(case.task, _Sequence)(case, problem)


def _lstm(xg: Any, R: Any, b_R: Any, state: Any) -> Any:
    h, c = state
    i, f, g, o = jnp.split(xg + h @ R + b_R, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(xg: Any, R: Any, b_R: Any, state: Any) -> Any:
    (h,) = state
    xr, xz, xn = jnp.split(xg, 3, axis=-1)
    hr, hz, hn = jnp.split(h @ R + b_R, 3, axis=-1)
    r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
    n = jnp.tanh(xn + r * hn)
    return ((1 - z) * n + z * h,)


def _rnn(xg: Any, R: Any, b_R: Any, state: Any) -> Any:
    (h,) = state
    return (jnp.tanh(xg + h @ R + b_R),)


_CELLS = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}


def _weights(case: Case, problem: Problem) -> Any:
    """[layer][direction] -> (W, R, b_W, b_R), the matrices transposed."""
    return [
        [
            tuple(
                jnp.asarray(np.ascontiguousarray(problem.params[name].T))
                for name in parameter_names(layer, d)
            )
            for d in range(case.directions)
        ]
        for layer in range(case.layers)
    ]


def _zero_state(case: Case) -> Any:
    zeros = jnp.zeros((case.B, case.H), case.dtype)
    return (zeros, zeros) if case.cell == "lstm" else (zeros,)


def _forward(case: Case, weights: Any, x: Any, live: Any) -> Any:
    """x (T, B, I) -> output (T, B, D*H), the final states by layer and direction."""
    cell = _CELLS[case.cell]
    finals = []
    for pair in weights:
        outputs = []
        for direction, (W, R, b_W, b_R) in enumerate(pair):

            def step(state: Any, at: Any, R: Any = R, b_R: Any = b_R) -> Any:
                xg, live_t = at
                new = cell(xg, R, b_R, state)
                if live_t is None:
                    return new, new[0]
                new = tuple(jnp.where(live_t, a, b) for a, b in zip(new, state, strict=True))
                return new, jnp.where(live_t, new[0], 0)

            final, output = lax.scan(
                step, _zero_state(case), (x @ W + b_W, live), reverse=direction == 1
            )
            finals.append(final)
            outputs.append(output)
        x = jnp.concatenate(outputs, axis=-1) if len(outputs) > 1 else outputs[0]
    return x, finals


class _Sequence(Call):
    def __init__(self, case: Case, problem: Problem) -> None:
        self.case = case
        self.weights = _weights(case, problem)
        self.x = jnp.asarray(problem.x)
        self.live: Any = None
        if problem.lengths is not None:
            live = np.arange(case.T)[:, np.newaxis] < problem.lengths
            self.live = jnp.asarray(live[:, :, np.newaxis])
        self.function = jax.jit(lambda weights, x, live: _forward(case, weights, x, live))
        self.results: Any = None

    def run(self) -> None:
        self.results = jax.block_until_ready(self.function(self.weights, self.x, self.live))

    def fetch(self) -> Arrays:
        output, finals = self.results
        names = ("h_n", "c_n") if self.case.cell == "lstm" else ("h_n",)
        states = (np.stack([np.asarray(f[i]) for f in finals]) for i in range(len(names)))
        return {"output": np.asarray(output), **dict(zip(names, states, strict=True))}


class _Training(_Sequence):
    def __init__(self, case: Case, problem: Problem) -> None:
        super().__init__(case, problem)
        self.d_output = jnp.asarray(problem.d_output)

        def forward_backward(weights: Any, x: Any, live: Any, d_output: Any) -> Any:
            def forward(weights: Any, x: Any) -> Any:
                return _forward(case, weights, x, live)

            output, backward, finals = jax.vjp(forward, weights, x, has_aux=True)
            return (output, finals), backward(d_output)

        self.step = jax.jit(forward_backward)
        self.gradients: Any = None

    def run(self) -> None:
        self.results, self.gradients = jax.block_until_ready(
            self.step(self.weights, self.x, self.live, self.d_output)
        )

    def fetch(self) -> Arrays:
        d_weights, d_x = self.gradients
        results = super().fetch() | {"d_x": np.asarray(d_x)}
        for layer, pair in enumerate(d_weights):
            for direction, gradients in enumerate(pair):
                for name, value in zip(parameter_names(layer, direction), gradients, strict=True):
                    results[f"d_{name}"] = np.asarray(value).T
        return results


def _clip(gradients: Any) -> Any:
    """Scale all gradients by one factor to a common norm of at most MAX_NORM."""
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradients)))
    return jax.tree.map(lambda g: g * jnp.minimum(1.0, MAX_NORM / norm), gradients)


def _adam(weights: Any, gradients: Any, moments: Any) -> Any:
    """Adam as optax has it: weights and moments (steps, m, v) after one step."""
    beta1, beta2 = BETAS
    steps, m, v = moments
    steps = steps + 1
    m = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, m, gradients)
    v = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g**2, v, gradients)

    def moved(w: Any, m: Any, v: Any) -> Any:
        m, v = m / (1 - beta1**steps), v / (1 - beta2**steps)
        return w - LEARNING_RATE * m / (jnp.sqrt(v) + EPSILON)

    return jax.tree.map(moved, weights, m, v), (steps, m, v)


class _Optimiser(_Sequence):
    """Weights and moments live in the arrays of the step before, which is what donation is for."""

    def __init__(self, case: Case, problem: Problem) -> None:
        super().__init__(case, problem)
        self.problem = problem
        zeros = jax.tree.map(jnp.zeros_like, self.weights)
        # Zeros of their own for each moment: a donated array can be given once.
        self.moments = (jnp.zeros((), case.dtype), zeros, jax.tree.map(jnp.copy, zeros))
        self.d_output = jnp.asarray(problem.d_output)

        def step(weights: Any, moments: Any, x: Any, live: Any, d_output: Any) -> Any:
            def forward(weights: Any) -> Any:
                return _forward(case, weights, x, live)

            output, backward, finals = jax.vjp(forward, weights, has_aux=True)
            (gradients,) = backward(d_output)
            weights, moments = _adam(weights, _clip(gradients), moments)
            return (output, finals), weights, moments

        self.step = jax.jit(step, donate_argnums=(0, 1))

    def run(self) -> None:
        self.results, self.weights, self.moments = jax.block_until_ready(
            self.step(self.weights, self.moments, self.x, self.live, self.d_output)
        )

    def fetch(self) -> Arrays:
        results = super().fetch()
        for layer, pair in enumerate(self.weights):
            for direction, weights in enumerate(pair):
                for name, value in zip(parameter_names(layer, direction), weights, strict=True):
                    results[f"moved_{name}"] = np.asarray(value).T - self.problem.params[name]
        return results


class _Steps(Call):
    def __init__(self, case: Case, problem: Problem) -> None:
        cell = _CELLS[case.cell]
        self.weights = _weights(case, problem)
        self.states = [_zero_state(case) for _ in range(case.layers)]
        self.x = jnp.asarray(problem.x[0])

        def step(weights: Any, x: Any, states: Any) -> Any:
            new_states = []
            for ((W, R, b_W, b_R),), state in zip(weights, states, strict=True):
                new = cell(x @ W + b_W, R, b_R, state)
                new_states.append(new)
                x = new[0]
            return new_states

        self.function = jax.jit(step)

    def feed(self, x: Array) -> None:
        self.x = jnp.asarray(x)

    def run(self) -> None:
        self.states = jax.block_until_ready(self.function(self.weights, self.x, self.states))

    def fetch(self) -> Arrays:
        return {"output": np.asarray(self.states[-1][0])}
