"""What a training call leaves: a tape for back-propagation, and the gradients that it gives."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, cast

import numpy as np

from ._blas import require_blas
from ._calls import Layout, States, StateT, as_tuple, core_states
from ._checks import FloatArray, as_float_array, check_out, check_shape

if TYPE_CHECKING:
    from ._layer import RecurrentLayer


@dataclass(eq=False)
class Gradients(Generic[StateT]):
    """What :meth:`Tape.backward` returns: gradients of the loss.

    Attributes
    ----------
    x : ndarray
        Like the input of the call. None where ``needs`` did not ask for it.
    state : tuple of ndarray, or ndarray
        Of ``(h_0, c_0)``, or of ``h_0`` where the cell has no c. None where not asked for.
    params : dict of str to ndarray
        By the names of the layer's parameters: those asked for.
    """

    # Typed as what they are by default; None would be in the way of everybody who asks for them.
    x: FloatArray
    state: StateT
    params: dict[str, FloatArray]
    _tape: int = field(repr=False)  # the number of the tape it came from


class _Needs(NamedTuple):
    """Which gradients are asked for."""

    x: bool
    state: bool
    params: list[str]


def as_names(needs: str | Iterable[str]) -> list[str]:
    """The argument `needs` as a list."""
    if not isinstance(needs, Iterable):
        raise TypeError(f"needs: expected names, got {type(needs).__name__}")
    return [needs] if isinstance(needs, str) else list(needs)


class Tape(Generic[StateT]):
    """What a layer's ``forward`` saved for its backward pass.

    It keeps the parameters of its call: a later ``update`` of the layer does not change it.
    """

    _numbers = itertools.count()

    def __init__(self, layer: RecurrentLayer[StateT, Any], layout: Layout, core: Any) -> None:
        self._layer = layer
        self._layout = layout
        self._core = core
        self._number = next(self._numbers)

    def __reduce__(self) -> str:
        raise TypeError(
            "cannot pickle or copy a tape: pickle the layer and the arguments of its call, the "
            "seed among them, and call forward again"
        )

    def backward(
        self,
        d_output: Any = None,
        d_state: Any = None,
        *,
        accumulate: Gradients[StateT] | None = None,
        needs: str | Iterable[str] = ("x", "state", "params"),
    ) -> Gradients[StateT]:
        """Back-propagate through time. May be called again, with other gradients.

        Parameters
        ----------
        d_output : array_like, optional
            Gradient of the loss with respect to ``output``, in its shape; zeros by default. What it
            says past a sequence's end is not read.
        d_state : tuple of array_like, or array_like, optional
            Gradients with respect to the final state, ``(h_n, c_n)`` or ``h_n``; zeros by default,
            and either of two may be None.
        accumulate : Gradients, optional
            An earlier result. The gradients of the parameters are added into its arrays, which the
            result shares. Those of the input and the state are added if it came from this tape (the
            result has new arrays); for another call's, which had another input, they are this
            call's alone.
        needs : str or iterable of str, optional
            What gradients are asked for: "x", "state", "params", or names of single parameters; by
            default all. The others are not computed, nor are layers below the lowest that is asked
            for: with one layer and I = H, gradients of x are a fourth of the products of the
            backward pass. The bits of the others do not depend on it.

        Returns
        -------
        Gradients
            With None for ``x`` or ``state`` that are not asked for.

        Raises
        ------
        ValueError
            An array has another shape than stated, `needs` has an unknown name, or `accumulate`
            lacks a gradient that is to be added to, or has others of parameters.
        TypeError
            An argument has another type than stated.

        Examples
        --------
        >>> lstm = fastlstm.LSTM(8, 16, num_layers=2, seed=0)
        >>> output, _, tape = lstm.forward(np.ones((5, 3, 8), dtype=np.float32))
        >>> grads = tape.backward(output, needs=["params"])
        >>> grads.x is None, len(grads.params)
        (True, 8)
        >>> list(tape.backward(output, needs=["weight_hh_l1", "bias_hh_l1"]).params)
        ['weight_hh_l1', 'bias_hh_l1']
        """
        needed = self._needs(needs)
        params = self._parameter_gradients(accumulate, needed)
        again = accumulate is not None and accumulate._tape == self._number
        grads = self._backward(d_output, d_state, needed, params)
        if accumulate is not None and again:
            if needed.x:
                grads.x += accumulate.x
            if needed.state:
                states = zip(as_tuple(grads.state), as_tuple(accumulate.state), strict=True)
                for d, earlier in states:
                    d += earlier
        return grads

    def _needs(self, needs: str | Iterable[str]) -> _Needs:
        names = list(self._layer._shapes())
        known = ("x", "state", "params", *names)
        asked = as_names(needs)
        for name in asked:
            if name not in known:
                raise ValueError(f"needs: expected names of {', '.join(known)}, got {name!r}")
        return _Needs(
            "x" in asked,
            "state" in asked,
            [name for name in names if "params" in asked or name in asked],
        )

    def _backward(
        self,
        d_output: Any,
        d_state: Any,
        needs: _Needs,
        params: dict[str, FloatArray],
        steps: States | None = None,
    ) -> Gradients[StateT]:
        """params: gradients are added to them. steps: those of the state after each step, out,
        (L * D, T, B, width) each."""
        require_blas()
        layer, layout = self._layer, self._layout
        if d_output is not None:
            d_output = as_float_array("d_output", d_output, layer.dtype)
            check_shape("d_output", d_output, layer._output_shape(layout))
            if layer.merge is None:
                d_output = np.concatenate(d_output, axis=-1)
            d_output = d_output.reshape(layout.core_shape(d_output.shape[-1]))
        d_final = self._state_gradients(d_state)

        d_x = np.empty(layout.shape(layer.input_size), layer.dtype) if needs.x else None
        d_initial: States | None = None
        if needs.state:
            d_initial = tuple(np.empty(shape, layer.dtype) for shape in layer._state_shapes(layout))
        self._core.backward(
            d_output=d_output,
            **core_states("d_h_n", "d_c_n", d_final, layout),
            d_x=None if d_x is None else d_x.reshape(layout.core_shape(layer.input_size)),
            **core_states("d_h_0", "d_c_0", d_initial, layout),
            d_params=[layer._cell_arrays(params, k) for k in range(layer._cells)],
            **dict(zip(("d_h_steps", "d_c_steps"), steps or (), strict=False)),
        )
        d_first = None if d_initial is None else layer._from_tuple(d_initial)
        return Gradients(cast(FloatArray, d_x), cast(StateT, d_first), params, self._number)

    def _state_gradients(self, d_state: Any) -> tuple[FloatArray | None, ...] | None:
        if d_state is None:
            return None
        layer = self._layer
        gradients: list[FloatArray | None] = []
        for name, value, shape in layer._state_items("d_state", d_state, self._layout):
            if value is None:
                gradients.append(None)
                continue
            array = as_float_array(name, value, layer.dtype)
            check_shape(name, array, shape)
            gradients.append(array)
        return tuple(gradients)

    def _parameter_gradients(
        self, accumulate: Gradients[StateT] | None, needs: _Needs
    ) -> dict[str, FloatArray]:
        """The arrays that gradients of parameters are added to. Checks all of `accumulate`."""
        shapes = {n: shape for n, shape in self._layer._shapes().items() if n in needs.params}
        if accumulate is None:
            return {name: np.zeros(shape, self._layer.dtype) for name, shape in shapes.items()}
        if not isinstance(accumulate, Gradients):
            raise TypeError(f"accumulate: expected Gradients, got {type(accumulate).__name__}")
        if list(accumulate.params) != list(shapes):
            raise ValueError(
                f"accumulate: expected gradients of the parameters that are asked for "
                f"({', '.join(shapes) or 'none'}), got {', '.join(accumulate.params) or 'none'}"
            )
        for name in ("x", "state") if accumulate._tape == self._number else ():
            if getattr(needs, name) and getattr(accumulate, name) is None:
                raise ValueError(f"accumulate: expected a gradient of {name}, which is asked for")
        for name, array in accumulate.params.items():
            check_out(f"accumulate.params[{name!r}]", array, self._layer.dtype, shapes[name])
        return accumulate.params
