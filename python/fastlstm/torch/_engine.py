"""Calls of the core on the memory of tensors, once it is known what that memory is."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from operator import attrgetter, itemgetter
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fastlstm._blas import require_blas
from fastlstm._runtime import begin_threads, end_threads
from fastlstm.layers.core import (
    Order,
    can_collect,
    make_borrowed,
    make_collected,
    set_tensor_classes,
)
from fastlstm.layers.spec import Spec

from ._internals import dispatch_keys, is_batched
from ._openmp import share_openmp

States: TypeAlias = Sequence[Tensor]
Shape: TypeAlias = tuple[int, ...]

TIME_FIRST, BATCH_FIRST, PACKED = map(int, Order)

# What PyTorch dispatches by says all at once: a CPU tensor whose memory is its values, not sparse,
# nested, quantised, negated lazily, nor something of a transformation or a mode.
_TYPES = frozenset({Tensor, nn.Parameter})
_KEYS = {dispatch_keys(torch.empty(0, device="cpu")).raw_repr()}
with torch.inference_mode():
    _KEYS.add(dispatch_keys(torch.empty(0, device="cpu")).raw_repr())
_MOST_CALLS = 64
_address = Tensor.data_ptr
_is_contiguous = Tensor.is_contiguous
_is_neg = Tensor.is_neg
_empty_like = torch.empty_like
kind_of = attrgetter("dtype", "shape")

set_tensor_classes(Tensor, nn.Parameter)
share_openmp()


class UnreadableError(RuntimeError):
    """The core cannot read a tensor as it lies there."""


def are_tensors(values: Sequence[Any]) -> bool:
    """Whether all are of PyTorch's own classes."""
    return _TYPES.issuperset(map(type, values))


def is_plain(tensor: Any) -> bool:
    """Whether it is a tensor of PyTorch's own class in the CPU's memory, value by value."""
    return type(tensor) in _TYPES and dispatch_keys(tensor).raw_repr() in _KEYS


def resolved(value: Any) -> Any:
    """The value; of a tensor that is to be negated when it is read, the negation."""
    if type(value) in _TYPES and value.layout is torch.strided and value.is_neg():
        return value.resolve_neg()
    return value


class Engine:
    """What a module is to the core: its spec, and packed weights that follow those of tensors.

    Attributes
    ----------
    spec : Spec
        Of the layer that computes the same.
    dtype : torch.dtype
        Of the tensors.
    names : tuple of str
        Of the weights, in the core's order.
    pick : callable
        Takes the weights, in the core's order, from a mapping by their names.
    inference : dict
        What the core is told of a training call without dropout and noise.
    noisy : bool
        Whether training calls have more noise than dropout between layers.
    last_projections : list of int
        The places of the weights which project the last layer's h.
    collects : bool
        Whether the core can collect the gradients of several backward passes.
    run : callable
        Computes a call with the values that its weights have now: :meth:`.core.Borrowed.run`.
    calls : dict
        Calls without lengths and noise, by what they have in common; see :meth:`remember`.
    loop : callable
        Returns the last loop of a cell's steps (:mod:`._steps`), or None.
    """

    def __init__(self, spec: Spec, names: Sequence[str] | None = None) -> None:
        self.spec = spec
        self.dtype = getattr(torch, spec.dtype.name)
        self.inference = {**dict.fromkeys(spec.training, 0.0), "seed": 0, "zoneout": False}
        others = {**spec.training, "dropout": 0.0}
        zoneout = [p for name, p in spec.config.items() if name.startswith("zoneout")]
        self.noisy = any(others.values()) or any(zoneout)
        self.names = tuple(names or spec.shapes)
        self.pick: Callable[[Any], tuple[Any, ...]] = itemgetter(*self.names)
        self._kinds = [(self.dtype, torch.Size(shape)) for shape in spec.shapes.values()]
        last = [
            p["weight_hr"].name for p in spec.parameters[-spec.directions :] if "weight_hr" in p
        ]
        self.last_projections = [*map([*spec.shapes].index, last)]
        self.collects = can_collect(spec.dtype, spec.config, len(spec.shapes))
        self.calls: dict[Any, Call] = {}
        self.loop: Callable[[], Any] = type(None)  # of a cell's steps: the last one, or None
        self._seen: tuple[int, ...] = ()  # addresses of weights that were plain
        self._known: tuple[weakref.ref[Tensor], ...] = ()  # the weights of the last frozen call
        self._frozen = False
        self._borrowed = make_borrowed(spec.dtype, spec.config)
        self.run: Callable[..., Any] = self._borrowed.run

    def remember(self, key: Any, call: Call) -> None:
        """Keep a call for others with the same input but for its values."""
        if len(self.calls) >= _MOST_CALLS:
            self.calls.clear()
        self.calls[key] = call

    def state_shapes(self, batch: int) -> list[Shape]:
        """Of the parts of a state: (L * D, B, width)."""
        cells = self.spec.cells
        return [(cells, batch, width) for _, width in self.spec.state_parts]

    def __reduce__(self) -> Any:  # copies of a module pack their own weights
        return Engine, (self.spec, self.names)

    @property
    def frozen(self) -> bool:
        """Whether weights are taken to be as they were while addresses and versions are."""
        return self._frozen

    @frozen.setter
    def frozen(self, value: bool) -> None:
        self._known = ()
        self._frozen = self._borrowed.frozen = value
        self.run = self._run_frozen if value else self._borrowed.run

    def readable(self, weights: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """The weights as the core can read them; None if they are not those of such a layer."""
        if not are_tensors(weights):
            return None
        addresses = tuple(map(_address, weights))
        if addresses != self._seen:
            if not all(map(is_plain, weights)):
                return None
            self._seen = addresses
        if [*map(kind_of, weights)] != self._kinds or any(map(_is_neg, weights)):
            return None
        if all(map(_is_contiguous, weights)):
            return weights
        return tuple([weight.contiguous() for weight in weights])

    def _are_known(self, weights: Sequence[Tensor]) -> bool:
        """Whether these are the tensors of the last frozen call: the same objects.

        Only of them do addresses and counts say that nothing has changed. Copies that are made for
        each call come to lie at the same places.
        """
        return len(self._known) == len(weights) and all(
            known() is weight for known, weight in zip(self._known, weights, strict=True)
        )

    def _run_frozen(self, x: Tensor, *arguments: Any) -> Any:
        weights = arguments[5]
        if self._are_known(weights):
            return self._borrowed.run(x, *arguments)
        self._borrowed.frozen = False  # this once, their values are looked at
        try:
            result = self._borrowed.run(x, *arguments)
        finally:
            self._borrowed.frozen = self._frozen
        if result is not None:  # else x could not be read, and nobody has looked at them
            self._known = tuple(map(weakref.ref, weights))
        return result

    def collected(self, gradients: Sequence[Tensor | None]) -> Any:
        """What takes the gradients of a cell's steps, and adds them to these of the weights."""
        addresses = tuple(map(address, gradients))
        return make_collected(self.spec.dtype, self.spec.config, addresses)


class Call:
    """What stays the same in the forward and the backward pass of one call.

    Attributes
    ----------
    steps, batch : int
        T and B.
    order : int
        How `x` and the output lie: TIME_FIRST, BATCH_FIRST or PACKED. The axis of the batch may be
        missing where B is 1, and that of time where T is.
    lengths : Tensor or None
        (B,) int64; of packed rows they do not increase.
    regularisation : dict or None
        What the core is told of a training call; None: as in inference.
    shapes : sequence of tuple
        Of the parts of the final state.
    single : bool
        Whether it is a cell's one step, whose output is its h.
    """

    __slots__ = (
        "batch",
        "engine",
        "lengths",
        "order",
        "regularisation",
        "shapes",
        "single",
        "steps",
    )

    def __init__(
        self,
        engine: Engine,
        steps: int,
        batch: int,
        order: int,
        lengths: Tensor | None,
        regularisation: dict[str, Any] | None,
        shapes: Sequence[Shape] | None = None,
        *,
        single: bool = False,
    ) -> None:
        self.engine = engine
        self.steps, self.batch, self.order = steps, batch, order
        self.lengths = lengths
        self.regularisation = regularisation
        self.shapes = shapes or engine.state_shapes(batch)
        self.single = single

    def forward(
        self, x: Tensor, states: States, weights: Sequence[Tensor], *, taped: bool
    ) -> tuple[Tensor, list[Tensor], Any]:
        """The output, the final state, and a tape for :meth:`backward` if asked for.

        x, states: of the engine's dtype; no states are zeros.

        Raises
        ------
        UnreadableError
            The core cannot read one of the tensors, or it has another shape.
        """
        engine = self.engine
        if states and all(map(_is_contiguous, states)):  # quicker than by a shape
            final = [*map(_empty_like, states)]
        else:
            final = [x.new_empty(part) for part in self.shapes]
        if self.single:
            output = final[0]
        else:
            output = x.new_empty((*x.shape[:-1], engine.spec.core_output_size))
        regularisation = self.regularisation
        if taped and regularisation is None:
            regularisation = engine.inference
        threads = begin_threads(torch.get_num_threads())
        try:
            arguments = (self.steps, self.batch, self.order, address(self.lengths))
            results = (tuple(weights), output, tuple(final), regularisation)
            tape = engine.run(x, *arguments, tuple(states), *results)
            if tape is None:
                x, *states = [tensor.resolve_neg().contiguous() for tensor in (x, *states)]
                tape = engine.run(x, *arguments, tuple(states), *results)
        finally:
            end_threads(threads)
        if tape is None:
            raise UnreadableError("expected tensors with values, got one whose memory was freed")
        return output, final, tape if taped else None

    def again(self, x: Tensor, states: States, weights: Sequence[Tensor]) -> Any:
        """The tape of the same call, computed once more of what autograd gave back."""
        readable = self.engine.readable(tuple(weights))
        if readable is None or not all(map(is_plain, (x, *states))):
            raise changed()
        return self.forward(x, states, readable, taped=True)[2]

    def backward(
        self,
        tape: Any,
        x: Tensor,
        states: States,
        weights: Sequence[Tensor],
        d_output: Tensor | None,
        d_final: Sequence[Tensor | None],
        needs: Sequence[bool],
        collected: Any = None,
    ) -> list[Tensor | None]:
        """Gradients of x, the states and the weights, of those that `needs` asks for, in order.

        The tensors have the types and shapes of the forward pass; `weights` may be none, and
        `collected` takes what their gradients are made of. d_output, d_final: None is zeros.
        """
        tensors = (x, *states, *weights)
        wanted = [
            torch.empty_like(tensor, memory_format=torch.contiguous_format) if needed else None
            for tensor, needed in zip(tensors, needs, strict=True)
        ]
        first_weight = 1 + len(states)
        d_initial: Sequence[Tensor | None] = ()
        if any(needs[1:first_weight]):  # the core writes all parts or none
            d_initial = [
                torch.empty_like(state, memory_format=torch.contiguous_format) if d is None else d
                for state, d in zip(states, wanted[1:first_weight], strict=True)
            ]
        written = (wanted[0], tuple(d_initial), tuple(wanted[first_weight:]), collected)
        require_blas()
        threads = begin_threads(torch.get_num_threads())
        try:
            if not tape.backward_of(d_output, tuple(d_final), *written):
                d_output, *d_final = map(_readable_gradient, (d_output, *d_final))
                tape.backward_of(d_output, tuple(d_final), *written)
        finally:
            end_threads(threads)
        return wanted


def address(tensor: Tensor | None) -> int:
    """Where a tensor's values are; 0: nowhere."""
    return 0 if tensor is None else tensor.data_ptr()


def changed() -> RuntimeError:
    return RuntimeError(
        "fastlstm.torch: expected saved tensors to come back as they were, got others: weights, "
        "inputs and states keep their type and shape until the backward pass"
    )


def _readable_gradient(gradient: Tensor | None) -> Tensor | None:
    if gradient is None:
        return None
    if not is_plain(gradient):  # zeros without memory, a negation not done yet
        refuse_batched([gradient])
        gradient = torch.zeros(gradient.shape, dtype=gradient.dtype, device="cpu").add_(gradient)
    return gradient.contiguous()


def refuse_batched(gradients: Sequence[Tensor | None]) -> None:
    """Raise RuntimeError if gradients are those of a backward pass for several at once."""
    if any(is_batched(gradient) for gradient in gradients if gradient is not None):
        raise no_transform("several gradients at once (is_grads_batched, or vmap around it)")


def no_transform(which: str) -> RuntimeError:
    """The error for what would have to see into a call."""
    return RuntimeError(
        f"fastlstm.torch: expected a call without {which}, which do not see into it; torch's own "
        "modules have them: fastlstm.torch.restore(model)"
    )
