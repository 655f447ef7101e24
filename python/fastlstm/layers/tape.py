"""What a training call leaves: a tape for back-propagation, and the gradients that it gives."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Generic

import numpy as np

from fastlstm._checks import FloatArray, as_float_array, check_out, check_shape

from . import core
from .backward import back_propagate, label
from .layouts import Layout, StateT
from .public import public
from .spec import Spec
from .states import as_states, as_tuple, names


@public
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
    _tape: bytes = field(repr=False)  # the mark of the tape it came from


# The mark of no tape: of gradients from several.
OF_NO_TAPE = b""


def as_names(needs: str | Iterable[str]) -> list[str]:
    """The argument `needs` as a list."""
    if not isinstance(needs, Iterable):
        raise TypeError(f"needs: expected names, got {type(needs).__name__}")
    return [needs] if isinstance(needs, str) else list(needs)


@public
class Tape(Generic[StateT]):
    """What a layer's ``forward`` saved for its backward pass.

    It keeps the parameters of its call: a later ``update`` of the layer does not change it.
    """

    def __init__(self, spec: Spec, layout: Layout, core_tape: core.Tape) -> None:
        self._spec = spec
        self._layout = layout
        self._core = core_tape
        # No other tape has it, in whatever thread or process: gradients can be pickled.
        self._mark = os.urandom(16)

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
            result shares, and which share no memory with other arguments or each other. Those of
            the input and the state are added if it came from this tape (the result has new arrays);
            for another call's, which had another input, they are this call's alone. A call that is
            interrupted, or runs out of memory, may have added a part: use its arrays no more.
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
            lacks a gradient that is to be added to, has others of parameters, or shares memory.
            Nothing has been added then.
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
        spec, asked = self._spec, self._asked(needs)
        shapes = {n: s for n, s in spec.shapes.items() if "params" in asked or n in asked}
        params = self._parameter_gradients(accumulate, asked, shapes)
        earlier = {} if accumulate is None else self._earlier(accumulate, asked)
        d_x, d_first = back_propagate(
            spec,
            self._layout,
            self._core,
            d_output,
            d_state,
            params,
            needs_x="x" in asked,
            needs_state="state" in asked,
            others=None if accumulate is None else earlier,
        )
        new = {"accumulate.x": d_x}
        new |= zip(names(spec, "accumulate.state"), as_tuple(d_first), strict=False)
        for name, array in earlier.items():
            new[name] += array
        return Gradients(d_x, d_first, params, self._mark)

    def _asked(self, needs: str | Iterable[str]) -> list[str]:
        known = ("x", "state", "params", *self._spec.shapes)
        asked = as_names(needs)
        for name in asked:
            if name not in known:
                raise ValueError(f"needs: expected names of {', '.join(known)}, got {name!r}")
        return asked

    def _parameter_gradients(
        self,
        accumulate: Gradients[StateT] | None,
        asked: list[str],
        shapes: dict[str, tuple[int, ...]],
    ) -> dict[str, FloatArray]:
        """The arrays that gradients of parameters are added to."""
        if accumulate is None:
            return {name: np.zeros(shape, self._spec.dtype) for name, shape in shapes.items()}
        if not isinstance(accumulate, Gradients):
            raise TypeError(f"accumulate: expected Gradients, got {type(accumulate).__name__}")
        if list(accumulate.params) != list(shapes):
            raise ValueError(
                f"accumulate: expected gradients of the parameters that are asked for "
                f"({', '.join(shapes) or 'none'}), got {', '.join(accumulate.params) or 'none'}"
            )
        for name, array in accumulate.params.items():
            check_out(label(name), array, self._spec.dtype, shapes[name])
        return accumulate.params

    def _earlier(self, accumulate: Gradients[StateT], asked: list[str]) -> dict[str, FloatArray]:
        """The gradients of input and state that new ones are added to: those of this tape."""
        if accumulate._tape != self._mark:
            return {}
        for name in ("x", "state"):
            if name in asked and getattr(accumulate, name) is None:
                raise ValueError(f"accumulate: expected a gradient of {name}, which is asked for")
        spec, layout = self._spec, self._layout
        earlier = {}
        if "x" in asked:
            x = as_float_array("accumulate.x", accumulate.x, spec.dtype)
            check_shape("accumulate.x", x, layout.shape(spec.input_size))
            earlier["accumulate.x"] = x
        if "state" in asked:
            states = as_states(spec, "accumulate.state", accumulate.state, layout)
            earlier |= zip(names(spec, "accumulate.state"), states, strict=True)
        return earlier
