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
from fastlstm.layers.core import Order, make_borrowed
from fastlstm.layers.spec import Spec

from ._internals import dispatch_keys

States: TypeAlias = Sequence[Tensor]
Shape: TypeAlias = tuple[int, ...]

TIME_FIRST, BATCH_FIRST, PACKED = map(int, Order)

# What PyTorch dispatches by says all at once: a CPU tensor whose memory is its values, not sparse,
# nested, quantised, negated lazily, nor something of a transformation or a mode.
_TYPES = frozenset({Tensor, nn.Parameter})
_KEYS = {dispatch_keys(torch.empty(0, device="cpu")).raw_repr()}
with torch.inference_mode():
    _KEYS.add(dispatch_keys(torch.empty(0, device="cpu")).raw_repr())
_address = Tensor.data_ptr
_is_contiguous = Tensor.is_contiguous
_is_neg = Tensor.is_neg
_kind = attrgetter("dtype", "shape")
_version = attrgetter("_version")


def is_plain(tensor: Any) -> bool:
    """Whether it is a tensor of PyTorch's own class in the CPU's memory, value by value."""
    return type(tensor) in _TYPES and dispatch_keys(tensor).raw_repr() in _KEYS


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
        self._seen: tuple[int, ...] = ()  # addresses of weights that were plain
        self._known: tuple[weakref.ref[Tensor], ...] = ()  # the weights of the last frozen call
        self._frozen = False
        self._borrowed = make_borrowed(spec.dtype, spec.config)

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

    def readable(self, weights: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """The weights as the core can read them; None if they are not those of such a layer."""
        if not _TYPES.issuperset(map(type, weights)):
            return None
        addresses = tuple(map(_address, weights))
        if addresses != self._seen:
            if not all(map(is_plain, weights)):
                return None
            self._seen = addresses
        if [*map(_kind, weights)] != self._kinds or any(map(_is_neg, weights)):
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

    def stack(self, weights: Sequence[Tensor]) -> Any:
        """The stack of the weights' values now. weights: readable."""
        try:
            version = sum(map(_version, weights))
        except RuntimeError:  # inference tensors have none
            version = -1
        addresses = list(map(_address, weights))
        if not self._frozen or self._are_known(weights):
            return self._borrowed.stack(addresses, version)
        self._known = tuple(map(weakref.ref, weights))
        self._borrowed.frozen = False  # this once, their values are looked at
        try:
            return self._borrowed.stack(addresses, version)
        finally:
            self._borrowed.frozen = self._frozen


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
    """

    __slots__ = (
        "_kinds",
        "batch",
        "engine",
        "lengths",
        "order",
        "regularisation",
        "shapes",
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
    ) -> None:
        self.engine = engine
        self.steps, self.batch, self.order = steps, batch, order
        self.lengths = lengths
        self.regularisation = regularisation
        self.shapes = shapes or engine.state_shapes(batch)
        self._kinds: list[Any] = []  # types and shapes of what a taped call was given

    def forward(
        self, x: Tensor, states: States, weights: Sequence[Tensor], *, taped: bool
    ) -> tuple[Tensor, list[Tensor], Any]:
        """The output, the final state, and a tape for :meth:`backward` if asked for.

        x, states: of the engine's dtype; no states are zeros. weights: readable.
        """
        if taped:
            self._kinds = [*map(_kind, (x, *states, *weights))]
        engine = self.engine
        x = x.contiguous()
        states = [state.contiguous() for state in states]
        output = x.new_empty((*x.shape[:-1], engine.spec.core_output_size))
        final = [x.new_empty(part) for part in self.shapes]
        threads = begin_threads(torch.get_num_threads())
        try:
            arguments = (
                x.data_ptr(),
                self.steps,
                self.batch,
                self.order,
                address(self.lengths),
                tuple(map(_address, states)) or None,
                output.data_ptr(),
                tuple(map(_address, final)),
            )
            stack = engine.stack(weights)
            if not taped and self.regularisation is None:
                stack.forward_at(*arguments)
                return output, final, None
            tape = stack.forward_train_at(*arguments, self.regularisation or engine.inference, 0)
            return output, final, tape
        finally:
            end_threads(threads)

    def again(self, x: Tensor, states: States, weights: Sequence[Tensor]) -> Any:
        """The tape of the same call, computed once more of what autograd gave back."""
        self._check_saved(x, states, weights)
        readable = self.engine.readable(tuple(weights))
        if readable is None or not all(map(is_plain, (x, *states))):
            raise _changed()
        return self.forward(x, states, readable, taped=True)[2]

    def _check_saved(self, x: Tensor, states: States, weights: Sequence[Tensor]) -> None:
        """Raise RuntimeError for other types or shapes: by ``p.data = ...``, or a hook's.

        Of the operators, whose calls have not seen a forward pass, they are checked there.
        """
        if self._kinds and self._kinds != [*map(_kind, (x, *states, *weights))]:
            raise _changed()

    def backward(
        self,
        tape: Any,
        x: Tensor,
        states: States,
        weights: Sequence[Tensor],
        d_output: Tensor | None,
        d_final: Sequence[Tensor | None],
        needs: Sequence[bool],
    ) -> list[Tensor | None]:
        """Gradients of x, the states and the weights, of those that `needs` asks for, in order.

        d_output, d_final: None is zeros.
        """
        self._check_saved(x, states, weights)
        contiguous = torch.contiguous_format
        wanted = [
            torch.empty_like(tensor, memory_format=contiguous) if needed else None
            for tensor, needed in zip((x, *states, *weights), needs, strict=True)
        ]
        first_weight = 1 + len(states)
        d_initial: Any = None
        if any(needs[1:first_weight]):  # the core writes all parts or none
            d_initial = [
                torch.empty_like(state, memory_format=contiguous) if part is None else part
                for state, part in zip(states, wanted[1:first_weight], strict=True)
            ]
        d_output = _readable_gradient(d_output)
        d_final = [_readable_gradient(part) for part in d_final]
        require_blas()
        threads = begin_threads(torch.get_num_threads())
        try:
            tape.backward_at(
                address(d_output),
                tuple(map(address, d_final)),
                address(wanted[0]),
                None if d_initial is None else tuple(map(_address, d_initial)),
                tuple(map(address, wanted[first_weight:])),
            )
        finally:
            end_threads(threads)
        return wanted


def address(tensor: Tensor | None) -> int:
    """Where a tensor's values are; 0: nowhere."""
    return 0 if tensor is None else tensor.data_ptr()


def _changed() -> RuntimeError:
    return RuntimeError(
        "fastlstm.torch: expected saved tensors to come back as they were, got others: weights, "
        "inputs and states keep their type and shape until the backward pass"
    )


def _readable_gradient(gradient: Tensor | None) -> Tensor | None:
    if gradient is None:
        return None
    if not is_plain(gradient):  # zeros without memory, a negation not done yet
        plain = torch.zeros(gradient.shape, dtype=gradient.dtype, device="cpu")
        try:
            gradient = plain.add_(gradient)
        except RuntimeError as error:  # is_grads_batched, torch.func.vmap around a backward pass
            raise no_transform("several gradients at once (vmap over a backward pass)") from error
    return gradient.contiguous()


def no_transform(which: str) -> RuntimeError:
    """The error for what would have to see into a call."""
    return RuntimeError(
        f"fastlstm.torch: expected a call without {which}, which do not see into it; torch's own "
        "modules have them: fastlstm.torch.restore(model)"
    )
