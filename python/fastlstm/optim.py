"""Optimisers over named arrays, with PyTorch's arithmetic and defaults.

An optimiser takes parameters and gradients as mappings from names to arrays and returns new
parameters. It changes nothing that it is given, and it keeps its moments by name, so it fits any
layer, or the parameters of several layers in one mapping.

>>> params = {"w": np.array([1.0, -2.0])}
>>> optimizer = SGD(lr=0.1)
>>> for _ in range(3):
...     grads = {"w": 2 * params["w"]}  # of the loss sum(w**2)
...     grads, norm = clip_by_global_norm(grads, max_norm=10.0)
...     params = optimizer.step(params, grads)
>>> params["w"]
array([ 0.512, -1.024])

With a layer of this library: ``layer.update(optimizer.step(layer.params, grads.params))``. Of
several layers and blocks :class:`fastlstm.nn.Module` makes one step.

A gradient may be :class:`SparseRows`, as a :class:`fastlstm.nn.Embedding` has it. Rows that are
not in it stay as they are, and so do their moments: they do not go on by momentum and do not decay.
The corrections of Adam's first steps count all steps, as in ``torch.optim.SparseAdam``.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _core
from ._checks import as_bool, as_float, check_mapping
from ._pieces import copied, pieces_of
from ._sparse import SparseRows

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "SparseRows", "clip_by_global_norm"]

Array = npt.NDArray[Any]  # of float32 or float64


class _State(NamedTuple):
    """What an optimiser knows of one parameter: how many steps it has made, and its moments."""

    step: int
    moments: dict[str, Array]


class Optimizer(ABC):
    """What `SGD`, `Adam` and `AdamW` share: the checks, the moments by name, and resuming."""

    # The arguments of the constructor; each is an attribute.
    _options: tuple[str, ...]

    def __init__(self, lr: float, weight_decay: float) -> None:
        self.lr = lr
        self.weight_decay = _number("weight_decay", weight_decay)
        self._state: dict[str, _State] = {}
        self._in_use: dict[int, object] = {}

    @property
    def lr(self) -> float:
        """The learning rate. Assign to it between steps to follow a schedule."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = _number("lr", value)

    def __repr__(self) -> str:
        options = (f"{name}={getattr(self, name)!r}" for name in self._options)
        return f"{type(self).__name__}({', '.join(options)})"

    def step(
        self,
        params: Mapping[str, npt.ArrayLike],
        grads: Mapping[str, npt.ArrayLike | SparseRows],
    ) -> dict[str, Array]:
        """Return the parameters after one step.

        Parameters
        ----------
        params : mapping of str to array_like
            Values in float32 or float64. Moments have the same dtype.
        grads : mapping of str to array_like or SparseRows
            Gradients of the loss, with the names and shapes of `params`. To train a part of a
            model, pass that part in both mappings.

        Returns
        -------
        dict of str to ndarray
            New arrays with the names, shapes and dtypes of `params`. Where only some rows of a
            large array change, `step_rows` does without the copy of the others.

        Raises
        ------
        ValueError
            A name is missing or unknown, a shape does not fit, or a parameter differs in shape or
            dtype from its earlier steps. The optimiser is as it was.
        TypeError
            `params` or `grads` is no mapping (of a layer's gradients pass ``grads.params``), or an
            array is not of floating-point numbers. The optimiser is as it was.
        RuntimeError
            Another call is in the middle of a step. The optimiser is as it was.

        Notes
        -----
        A step that is interrupted (by Ctrl-C, or where memory runs out) may have changed some of
        the moments: go on from an earlier `state_dict`. So may one that another thread is in the
        middle of when the process forks, for the child.
        """
        new = self.step_rows(params, grads)
        return {
            name: _with_rows(np.asarray(params[name]), value)
            if isinstance(value, SparseRows)
            else value
            for name, value in new.items()
        }

    def step_rows(
        self,
        params: Mapping[str, npt.ArrayLike],
        grads: Mapping[str, npt.ArrayLike | SparseRows],
    ) -> dict[str, Any]:
        """Make one step, and return new values alone: of sparse gradients only the rows they have.

        Parameters
        ----------
        params, grads
            As for `step`.

        Returns
        -------
        dict of str to ndarray or SparseRows
            What ``update`` of an :class:`fastlstm.nn.Embedding` takes.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As `step`.
        """
        # Refuses what comes in the middle of a step, from another thread or a signal's handler. One
        # that raises may do so after any call: `finally` makes none. The child of a fork has a key
        # of its own, as a step of its parent's other threads never ends there.
        this, process = object(), os.getpid()
        try:
            if self._in_use.setdefault(process, this) is not this:  # one operation of a dictionary
                raise RuntimeError(
                    "optimizer: in use by another call (one thread at a time may step)"
                )
            return self._step(params, grads)
        finally:
            try:  # another thread may end its step at any time
                ours = self._in_use[process] is this
            except KeyError:
                ours = False
            if ours:
                del self._in_use[process]

    def _step(
        self,
        params: Mapping[str, npt.ArrayLike],
        grads: Mapping[str, npt.ArrayLike | SparseRows],
    ) -> dict[str, Any]:
        check_mapping("params", params)
        check_mapping("grads", grads)
        missing = sorted(set(params) - set(grads), key=str)
        unknown = sorted(set(grads) - set(params), key=str)
        if missing or unknown:
            raise ValueError(f"grads: missing {missing}, unknown {unknown}")
        checked: dict[str, tuple[Array, Array | SparseRows, _State]] = {}
        for name in params:
            p = _float_array(f"params[{name!r}]", params[name])
            g = _gradient(f"grads[{name!r}]", grads[name])
            if g.shape != p.shape:
                raise ValueError(f"grads[{name!r}]: expected {p.shape}, got {g.shape}")
            state = self._state.get(name, _State(0, {}))
            for moment in state.moments.values():
                if (moment.shape, moment.dtype) != (p.shape, p.dtype):
                    raise ValueError(
                        f"params[{name!r}]: expected {moment.dtype} {moment.shape} as in earlier "
                        f"steps, got {p.dtype} {p.shape}"
                    )
            if isinstance(g, SparseRows):
                g = g.with_values(g.values.astype(p.dtype, copy=False))
            else:
                g = g.astype(p.dtype, copy=False)
            checked[name] = (p, g, state)
        new_params: dict[str, Any] = {}
        for name, (p, g, (step, moments)) in checked.items():
            if isinstance(g, SparseRows):
                new_params[name], moments = self._update_rows(p, g, step + 1, moments)
                self._state[name] = _State(step + 1, moments)
                continue
            p_new, moments = self._update(p, g, step + 1, moments)
            # NumPy turns operations on arrays without axes into scalars, and NumPy 1 into float64.
            new_params[name] = np.asarray(p_new, dtype=p.dtype)
            moments = {key: np.asarray(value, dtype=p.dtype) for key, value in moments.items()}
            self._state[name] = _State(step + 1, moments)
        return new_params

    def _update_rows(
        self, p: Array, g: SparseRows, step: int, moments: dict[str, Array]
    ) -> tuple[SparseRows, dict[str, Array]]:
        """The same of some rows, which are taken out of moments of the whole."""
        rows = g.indices
        whole = moments or {name: np.zeros(p.shape, p.dtype) for name in self._moment_names()}
        # In step 1 zeros are what moments begin with, whenever a row is first met.
        some = {name: np.take(value, rows, axis=0) for name, value in whole.items()}
        p_new, some = self._update(np.take(p, rows, axis=0), g.values, step, some)
        for name, value in some.items():
            whole[name][rows] = value
        return g.with_values(p_new), whole

    @abstractmethod
    def _update(
        self, p: Array, g: Array, step: int, moments: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """Return new values of p and of its moments, which may be the same arrays.

        In step 1, `moments` is empty.
        """

    @abstractmethod
    def _moment_names(self) -> tuple[str, ...]:
        """Return the keys of the moments that `_update` returns."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to resume: the hyperparameters and, by name, the moments.

        Returns
        -------
        dict
            The arguments of the constructor, and ``"state"``, which maps the name of a parameter to
            ``"step"``, the number of its steps, and its moments. Arrays are copies.
        """
        state = {
            name: {"step": s.step, **{key: copied(value) for key, value in s.moments.items()}}
            for name, s in dict(self._state).items()  # a step may add names meanwhile
        }
        return {**{name: getattr(self, name) for name in self._options}, "state": state}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where the optimiser that wrote `state_dict` stopped, with its hyperparameters.

        Parameters
        ----------
        state_dict : mapping
            From `state_dict` of an optimiser of the same class. Arrays are copied.

        Raises
        ------
        ValueError, TypeError
            The keys, hyperparameters or moments are not those of this class. The optimiser is as it
            was.
        """
        _check_keys("state_dict", state_dict, {*self._options, "state"})
        loaded = type(self)(**{name: state_dict[name] for name in self._options})
        check_mapping("state_dict['state']", state_dict["state"])
        for name, entry in state_dict["state"].items():
            label = f"state_dict['state'][{name!r}]"
            _check_keys(label, entry, {"step", *loaded._moment_names()})
            step = entry["step"]
            if not isinstance(step, Integral) or step < 1:
                raise ValueError(f"{label}['step']: expected a positive integer, got {step!r}")
            moments = {
                key: copied(_float_array(f"{label}[{key!r}]", entry[key]))
                for key in loaded._moment_names()
            }
            if len({(value.shape, value.dtype) for value in moments.values()}) > 1:
                raise ValueError(f"{label}: expected moments of one shape and dtype")
            loaded._state[name] = _State(int(step), moments)
        self.__dict__.update(loaded.__dict__)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if wanted, as ``torch.optim.SGD``.

    .. code-block:: text

        g = g + weight_decay p
        v = momentum v + g
        p = p - lr v                       with nesterov: p = p - lr (g + momentum v)

    Parameters
    ----------
    lr : float
        Learning rate.
    momentum : float
        How much of the last step's velocity v is kept.
    nesterov : bool
        Take the gradient one step ahead (Sutskever et al., ICML 2013). Needs a momentum.
    weight_decay : float
        Factor of the L2 penalty, 0.5 weight_decay p**2, whose gradient is added.

    Raises
    ------
    ValueError, TypeError
        A hyperparameter is not a finite number of at least 0, or `nesterov` without momentum.
    """

    _options = ("lr", "momentum", "nesterov", "weight_decay")

    def __init__(
        self,
        lr: float = 1e-3,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay)
        self.momentum = _number("momentum", momentum)
        self.nesterov = as_bool("nesterov", nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected a momentum above 0 with it, got 0")

    def _moment_names(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def _update(
        self, p: Array, g: Array, step: int, moments: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        p_new, v_new = np.empty(p.shape, p.dtype), np.empty(p.shape, p.dtype)
        for rows in pieces_of(p):
            v = g[rows]
            if self.weight_decay:
                v = v + self.weight_decay * p[rows]
            direction = v
            if self.momentum:
                v_new[rows] = v = self.momentum * moments["velocity"][rows] + v if moments else v
                direction = direction + self.momentum * v if self.nesterov else v
            p_new[rows] = p[rows] - self.lr * direction
        return p_new, {"velocity": v_new} if self.momentum else {}


class Adam(Optimizer):
    """Steps scaled by running moments of the gradient, as ``torch.optim.Adam``.

    .. code-block:: text

        g = g + weight_decay p
        m = beta1 m + (1 - beta1) g        running mean of the gradient
        v = beta2 v + (1 - beta2) g**2     and of its square
        p = p - lr m' / (sqrt(v') + eps)

    After step t, m' = m / (1 - beta1**t) and v' = v / (1 - beta2**t) are the means without their
    bias towards the zeros that they start from. Kingma and Ba: Adam: A Method for Stochastic
    Optimization, ICLR 2015.

    Parameters
    ----------
    lr : float
        Learning rate: about the length of a step in each coordinate.
    betas : (float, float)
        beta1 and beta2, each at least 0 and below 1.
    eps : float
        Keeps the division finite where gradients are tiny.
    weight_decay : float
        Factor of the L2 penalty, 0.5 weight_decay p**2, whose gradient is added.

    Raises
    ------
    ValueError, TypeError
        A hyperparameter is not a finite number of at least 0, or a beta is not below 1.
    """

    _options = ("lr", "betas", "eps", "weight_decay")

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay)
        try:
            beta1, beta2 = betas
        except (TypeError, ValueError) as error:
            raise type(error)(f"betas: expected two numbers, got {betas!r}") from None
        self.betas = (_number("betas[0]", beta1), _number("betas[1]", beta2))
        if max(self.betas) >= 1:
            raise ValueError(f"betas: expected numbers below 1, got {betas!r}")
        self.eps = _number("eps", eps)

    def _moment_names(self) -> tuple[str, ...]:
        return ("m", "v")

    def _update(
        self, p: Array, g: Array, step: int, moments: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        return self._adam(p, g, step, moments, decay=self.weight_decay, shrink=1.0)

    def _adam(
        self,
        p: Array,
        g: Array,
        step: int,
        moments: dict[str, Array],
        *,
        decay: float,
        shrink: float,
    ) -> tuple[Array, dict[str, Array]]:
        beta1, beta2 = self.betas
        moments = moments or {name: np.zeros(p.shape, p.dtype) for name in ("m", "v")}
        p_new = np.empty(p.shape, p.dtype)
        _core.adam(
            np.asarray(p, order="C"),
            np.asarray(g, order="C"),
            moments["m"],
            moments["v"],
            p_new,
            beta1,
            beta2,
            self.eps,
            decay,
            shrink,
            # The corrections are applied in PyTorch's order, to agree with it to the last digits.
            math.sqrt(1 - beta2**step),
            self.lr / (1 - beta1**step),
        )
        return p_new, moments


class AdamW(Adam):
    """Adam with decoupled weight decay, as ``torch.optim.AdamW``.

    Before the step of `Adam` each parameter shrinks, p = p (1 - lr weight_decay), whatever the size
    of its gradients. Loshchilov and Hutter: Decoupled Weight Decay Regularization, ICLR 2019.

    Parameters
    ----------
    lr, betas, eps : float
        As for `Adam`.
    weight_decay : float
        How fast parameters shrink.

    Raises
    ------
    ValueError, TypeError
        As for `Adam`.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay)

    def _update(
        self, p: Array, g: Array, step: int, moments: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        shrink = 1 - self.lr * self.weight_decay
        return self._adam(p, g, step, moments, decay=0.0, shrink=shrink)


def clip_by_global_norm(
    grads: Mapping[str, npt.ArrayLike | SparseRows], max_norm: float
) -> tuple[dict[str, Any], float]:
    """Scale all gradients by one factor so that their common Euclidean norm is at most `max_norm`.

    The direction of the step stays what it was. Pascanu, Mikolov, Bengio: On the difficulty of
    training recurrent neural networks, ICML 2013.

    Parameters
    ----------
    grads : mapping of str to array_like or SparseRows
        Gradients in float32 or float64.
    max_norm : float
        At least 0; infinity measures without clipping.

    Returns
    -------
    clipped : dict of str to ndarray or SparseRows
        New arrays with the shapes and dtypes of `grads`.
    norm : float
        The norm before clipping, computed in float64. Where it is infinite or NaN, no factor means
        anything and `clipped` holds the gradients as they came: test ``math.isfinite(norm)`` to
        skip such a step.

    Raises
    ------
    ValueError, TypeError
        `max_norm` is NaN, negative or no number, `grads` is no mapping, or an array is not of
        floating-point numbers.

    Examples
    --------
    >>> clipped, norm = clip_by_global_norm({"a": np.array([3.0]), "b": np.array([4.0])}, 1.0)
    >>> clipped["a"], clipped["b"], norm
    (array([0.6]), array([0.8]), 5.0)
    """
    check_mapping("grads", grads)
    max_norm = _number("max_norm", max_norm, finite=False)
    checked = {name: _gradient(f"grads[{name!r}]", grads[name]) for name in grads}
    arrays = {
        name: g.values if isinstance(g, SparseRows) else np.asarray(g, order="C")
        for name, g in checked.items()
    }
    total = sum(_core.sum_of_squares(g) for g in arrays.values())
    norm = math.sqrt(total)
    if not 1e-200 < total < math.inf:
        norm = _norm_of_extremes(list(arrays.values()))
    clipped = {name: np.empty(g.shape, g.dtype) for name, g in arrays.items()}
    for name, g in arrays.items():
        if norm <= max_norm or not math.isfinite(norm):
            clipped[name][...] = g
        elif norm > 1e-300:
            _core.scale(g, max_norm / norm, clipped[name])
        else:  # the factor may be beyond float64's range, or have lost its digits
            clipped[name][...] = np.divide(g, norm, dtype=np.float64) * max_norm
    results = {
        name: g.with_values(clipped[name]) if isinstance(g, SparseRows) else clipped[name]
        for name, g in checked.items()
    }
    return results, norm


def _norm_of_extremes(arrays: list[Array]) -> float:
    """The norm where squares leave float64's range, so that the largest is divided out first."""
    largest = float(np.max([np.max(np.abs(g), initial=0) for g in arrays], initial=0))
    if not 0 < largest < math.inf:
        return largest
    scaled = (np.divide(g, largest, dtype=np.float64) for g in arrays)
    return largest * math.sqrt(sum(np.sum(g**2) for g in scaled))


def _number(name: str, value: float, *, finite: bool = True) -> float:
    """Check a hyperparameter."""
    number = as_float(name, value)
    if not number >= 0 or (finite and math.isinf(number)):
        kind = "finite number" if finite else "number"
        raise ValueError(f"{name}: expected a {kind} of at least 0, got {number!r}")
    return number


def _float_array(name: str, value: npt.ArrayLike) -> Array:
    array = np.asarray(value)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
    return array


def _gradient(name: str, value: Any) -> Array | SparseRows:
    return value if isinstance(value, SparseRows) else _float_array(name, value)


def _with_rows(p: Array, rows: SparseRows) -> Array:
    """Return a copy of a parameter with other values of some rows."""
    new = copied(p)
    new[rows.indices] = rows.values
    return new


def _check_keys(name: str, mapping: Mapping[str, Any], expected: set[str]) -> None:
    check_mapping(name, mapping)
    if set(mapping) != expected:
        got = sorted(mapping, key=str)
        raise ValueError(f"{name}: expected the keys {sorted(expected)}, got {got}")
