"""What a training call leaves: a tape for back-propagation, and the gradients that it gives."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic

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
        Like the input of the call.
    state : tuple of ndarray, or ndarray
        Of ``(h_0, c_0)``, or of ``h_0`` where the cell has no c.
    params : dict of str to ndarray
        By the names of the layer's parameters.
    """

    x: FloatArray
    state: StateT
    params: dict[str, FloatArray]
    _tape: int = field(repr=False)  # the number of the tape it came from


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

    def backward(
        self,
        d_output: Any = None,
        d_state: Any = None,
        *,
        accumulate: Gradients[StateT] | None = None,
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

        Returns
        -------
        Gradients
        """
        params = self._parameter_gradients(accumulate)
        grads = self._backward(d_output, d_state, params)
        if accumulate is not None and accumulate._tape == self._number:
            grads.x += accumulate.x
            for d, earlier in zip(as_tuple(grads.state), as_tuple(accumulate.state), strict=True):
                d += earlier
        return grads

    def _backward(
        self,
        d_output: Any,
        d_state: Any,
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

        d_x = np.empty(layout.shape(layer.input_size), layer.dtype)
        d_initial = tuple(np.empty(shape, layer.dtype) for shape in layer._state_shapes(layout))
        self._core.backward(
            d_output=d_output,
            **core_states("d_h_n", "d_c_n", d_final, layout),
            d_x=d_x.reshape(layout.core_shape(layer.input_size)),
            **core_states("d_h_0", "d_c_0", d_initial, layout),
            d_params=[layer._cell_arrays(params, k) for k in range(layer._cells)],
            **dict(zip(("d_h_steps", "d_c_steps"), steps or (), strict=False)),
        )
        return Gradients(d_x, layer._from_tuple(d_initial), params, self._number)

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

    def _parameter_gradients(self, accumulate: Gradients[StateT] | None) -> dict[str, FloatArray]:
        """The arrays that gradients of parameters are added to."""
        shapes = self._layer._shapes()
        if accumulate is None:
            return {name: np.zeros(shape, self._layer.dtype) for name, shape in shapes.items()}
        if not isinstance(accumulate, Gradients):
            raise TypeError(f"accumulate: expected Gradients, got {type(accumulate).__name__}")
        if list(accumulate.params) != list(shapes):
            raise ValueError("accumulate: expected gradients of this layer's parameters")
        for name, array in accumulate.params.items():
            check_out(f"accumulate.params[{name!r}]", array, self._layer.dtype, shapes[name])
        return accumulate.params
