"""What the values of an ONNX model are, as far as they do not depend on its inputs' values.

A value is a constant, or made of constants and of the inputs' sizes (a batch of equal states, say),
or made of the inputs' values. Nothing here calls itself: what a value needs is put on a stack, so
that no file is too deep.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm.interchange._tensors import DAMAGE

from .call import Call
from .file import Tensors, elements
from .graphs import Graphs, Scope, domain_of, graphs_in, names_around
from .operators import operator_of
from .quantised import PARTS
from .room import Room
from .shapes import (
    ITS_OWN,
    MOST_AXES,
    TAKE_NUMBERS,
    Dim,
    Inputs,
    Shape,
    has_rule,
    shape_after,
    shape_of_type,
)

Array = npt.NDArray[Any]

# Axes of something whose number of axes is not known: as many as anything asks for.
_ANY_AXES = 8
# Of the operators that ONNX Runtime has under its own name: they take what ONNX's newest take.
_NEWEST = 25
_BOOL = 9  # in ONNX's types
_OF_A_NUMBER = 100  # what an object of Python costs, in bytes that are read

# What only the shape of comes from all inputs but the first, or from all of them.
_SHAPED = {"Expand": 1, "Tile": 1, "Reshape": 1, "ConstantOfShape": 0}
# What makes nothing but shapes of shapes.
_KEEP_SHAPE = frozenset(
    {"Identity", "Cast", "CastLike", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Concat"}
    | {"Split", "Slice", "Gather", "Dropout", "Add", "Sub", "Mul", "Div", "Pow", "Neg", "Abs"}
    | {"Exp", "Log", "Sqrt", "Relu", "Tanh", "Sigmoid", "Erf", "Clip", "Min", "Max", "Where"}
    | {"Reciprocal", "Softplus", "LeakyRelu", "Elu", "Gelu"}
)
# What may make of all sizes up to one something else than of those above, which no trial finds.
_DIVIDE = frozenset(
    {
        "Add",
        "Sub",
        "Div",
        "Cast",
        "Min",
        "Max",
        "Clip",
        "Relu",
        "Abs",
        "Sign",
        "Mod",
        "Floor",
        "Ceil",
        "Round",
    }
    | {"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"}
)


class Depends(enum.IntEnum):
    """On what of a model's inputs a value depends."""

    NOTHING = 0
    SHAPE = 1
    """On sizes, but only for its own shape."""
    SIZES = 2
    VALUES = 3


class _Question(NamedTuple):
    about: str
    """What is asked: a method's name."""
    scope: Scope
    name: str
    """Of a value; where it is about a node, of its first output."""


_Steps = Generator[_Question, Any, Any]
"""How an answer is found: other questions are yielded, and their answers sent."""


class Values:
    """Answers questions about values.

    Parameters
    ----------
    graphs, tensors : Graphs, Tensors
        Of the model.
    room : Room
        What may be used to compute values.
    sizes : mapping, optional
        Sizes that only a run of the model knows, with which what depends on them can be computed.
    other : int
        All sizes that are not among them.
    part : str, optional
        What stands for the results of DequantizeLinear: one of PARTS of :mod:`.quantised`.

    Attributes
    ----------
    unknown : list of str
        Values whose number of axes is not known, but was asked for, for any sizes.
    """

    def __init__(
        self,
        graphs: Graphs,
        tensors: Tensors,
        room: Room,
        sizes: Mapping[Dim, int] | None = None,
        other: int = 0,
        part: str | None = None,
    ) -> None:
        self._graphs = graphs
        self._tensors = tensors
        self._room = room
        self._sizes = sizes
        self._other = other
        self._part = part
        self.unknown: list[str] = []
        self._known: dict[_Question, Any] = {}

    def with_sizes(self, sizes: Mapping[Dim, int], other: int) -> Values:
        """The same model's values for some sizes. What was made for others is free again."""
        self._room.keep(0)
        values = Values(self._graphs, self._tensors, self._room, sizes, other)
        values.unknown = self.unknown
        return values

    def of_part(self, part: str) -> Values:
        """The same model's values, of which those that are dequantised have a part only."""
        return Values(self._graphs, self._tensors, self._room, part=part)

    def depends(self, scope: Scope, name: str) -> Depends:
        """Return on what a value depends."""
        return Depends(self._answer(_Question("depends", *scope.home(name))))

    def value(self, scope: Scope, name: str) -> Array:
        """Return a value that does not depend on the inputs' values.

        Raises
        ------
        ValueError
            An operator is not known, or more room is needed than the model's size explains.
        """
        array: Array = self._answer(_Question("value", *scope.home(name)))
        # What comes next has its own: only small things are remembered.
        self._known = {q: a for q, a in self._known.items() if q.about not in ("value", "outputs")}
        self._room.keep(array.nbytes)
        return array

    def shape(self, scope: Scope, name: str) -> Shape | None:
        """Return the shape of a value, as far as it is known."""
        shape: Shape | None = self._answer(_Question("shape", *scope.home(name)))
        return shape

    def _answer(self, question: _Question) -> Any:
        methods: dict[str, Callable[[Scope, str], _Steps]] = {
            "depends": self._depends,
            "node depends": self._node_depends,
            "value": self._value,
            "outputs": self._outputs,
            "shape": self._shape,
        }
        asked: set[_Question] = set()
        stack: list[tuple[_Question, _Steps]] = []
        while True:
            if question in self._known:
                answer = self._known[question]
                if not stack:
                    return answer
            elif question in asked:
                raise ValueError(f"{question.name}: is made of itself")
            else:
                self._room.step()
                asked.add(question)
                stack.append((question, methods[question.about](question.scope, question.name)))
                answer = None
            last, steps = stack[-1]
            try:
                question = steps.send(answer)
            except StopIteration as done:
                stack.pop()
                self._known[last] = done.value
                question = last

    # --- on what it depends -----------------------------------------------------------------------

    def _depends(self, scope: Scope, name: str) -> _Steps:
        if not name or name in scope.body.tensors:
            return Depends.NOTHING
        if name not in scope.body.makers:  # an input, or nobody's
            return Depends.VALUES
        other = yield from self._same_as(scope, name)
        if other is not None:
            return (yield _Question("depends", *other))
        node, _ = scope.body.makers[name]
        return (yield _Question("node depends", scope, _first_output(node)))

    def _node_depends(self, scope: Scope, name: str) -> _Steps:
        node, _ = scope.body.makers[name]
        kind = "" if domain_of(node) else node.op_type
        count = 1 if kind in ("Shape", "Size", "CastLike") else len(node.input)
        numbers = _SHAPED.get(kind, count)
        # By source: whether it says the shape only.
        sources = dict.fromkeys(map(scope.home, node.input[numbers:count]), True)
        sources |= dict.fromkeys(map(scope.home, node.input[:numbers]), False)
        for source in names_around(scope, node):
            self._room.step()
            sources[source] = False
        worst = Depends.NOTHING
        for source, shape_only in sources.items():
            depends = yield _Question("depends", *source)
            if shape_only and depends == Depends.SIZES:
                depends = Depends.SHAPE
            worst = max(worst, depends)
            if worst == Depends.VALUES:
                break
        if kind in ("Shape", "Size"):
            return Depends.SIZES if worst else Depends.NOTHING
        if worst == Depends.SHAPE and kind not in _SHAPED and kind not in _KEEP_SHAPE:
            return Depends.SIZES
        return worst

    def _same_as(self, scope: Scope, name: str) -> Generator[_Question, Any, Any]:
        """The value inside a function, or a branch whose condition is known, that this one is."""
        node, k = scope.body.makers[name]
        inner = None
        if self._graphs.function_of(node) is not None:
            inner = self._graphs.called(scope, node)
        elif node.op_type == "If" and domain_of(node) == "" and len(node.input) == 1:
            condition = scope.home(node.input[0])
            depends = yield _Question("depends", *condition)
            if depends == Depends.NOTHING or (depends < Depends.VALUES and self._sizes):
                holds = np.all((yield _Question("value", *condition)))
                branch = "then_branch" if holds else "else_branch"
                graph = dict(graphs_in(node)).get(branch)
                if graph is not None:
                    inner = self._graphs.inner(scope, node, branch, graph)
        if inner is None:
            return None
        if k >= len(inner.body.outputs):
            raise ValueError(f"{name}: {node.op_type} has no such output")
        return inner.home(inner.body.outputs[k])

    # --- its value --------------------------------------------------------------------------------

    def _value(self, scope: Scope, name: str) -> _Steps:
        if not name:
            return None
        if name in scope.body.tensors:
            return self._stored(scope.body.tensors[name])
        if name not in scope.body.makers:
            raise ValueError(f"{name}: nothing in the model makes it")
        other = yield from self._same_as(scope, name)
        if other is not None:
            return (yield _Question("value", *other))
        node, k = scope.body.makers[name]
        outputs = yield _Question("outputs", scope, _first_output(node))
        if k >= len(outputs):
            raise ValueError(f"{name}: output {k} of {node.op_type} is not computed here")
        return outputs[k]

    def _stored(self, tensor: Any) -> Array:
        if hasattr(tensor, "indices"):
            return self._dense(tensor)
        array = self._tensors.read(tensor)
        self._room.take(array.nbytes)
        return array

    def _dense(self, sparse: Any) -> Array:
        values = self._tensors.read(sparse.values).ravel()
        indices = self._tensors.read(sparse.indices)
        self._room.take(elements(sparse.dims) * values.itemsize)
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        if indices.ndim == 1:
            dense.reshape(-1)[indices] = values
        else:
            dense[tuple(indices.T)] = values
        return dense

    def _outputs(self, scope: Scope, name: str) -> _Steps:
        """All outputs of a node that is neither a call of a function nor a branch."""
        node, _ = scope.body.makers[name]
        domain, kind = domain_of(node), node.op_type
        attributes = self._attributes(scope, node)
        inputs = [scope.home(i) for i in node.input]
        if domain == "" and kind == "Constant":
            return [_constant(attributes)]
        if domain == "" and kind in ("Shape", "Size"):
            sizes = yield from self._sizes_of(*inputs[0])
            if kind == "Size":
                return [np.array(elements(sizes), np.int64)]
            return [np.array(sizes[attributes.get("start") : attributes.get("end")], np.int64)]
        operator = operator_of(domain, kind)
        if operator is not None and self._part is not None and kind == "DequantizeLinear":
            operator = PARTS[self._part]
        if operator is None:
            raise ValueError(f"{name}: a constant that is made by {kind}, which is not known here")
        if domain == "" and kind == "CastLike":
            attributes["to"] = yield from self._type_of(*inputs.pop())
        arrays: list[Array | None] = []
        for source in inputs:
            array = yield _Question("value", *source)
            arrays.append(array)
            self._room.work(_OF_A_NUMBER if array is None else _OF_A_NUMBER + array.nbytes)
        if kind in _DIVIDE:
            yield from self._check_sizes(kind, name, inputs, arrays, attributes)
        version = scope.opsets.get("", 1) if domain == "" else _NEWEST
        call = Call(kind, arrays, attributes, version, len(node.output), self._room)
        try:
            with np.errstate(all="ignore"):
                made = operator(call)
        except DAMAGE as error:
            raise ValueError(f"{name}: {error}") from error
        return made if isinstance(made, list) else [made]

    def _check_sizes(
        self,
        kind: str,
        name: str,
        inputs: list[tuple[Scope, str]],
        given: list[Array | None],
        attributes: dict[str, Any],
    ) -> _Steps:
        """Refuse what may tell some sizes from others, unless these are 1 and all above."""
        if self._sizes is None:
            return
        of_sizes = False
        for source in inputs:
            of_sizes |= (yield _Question("depends", *source)) == Depends.SIZES
        operands = [*given, *(attributes.values() if kind == "Clip" else ())]
        arrays = [np.asarray(operand) for operand in operands if operand is not None]
        if not of_sizes or (kind == "Div" and arrays[0].dtype.kind == "f"):
            return
        if kind == "Cast" and attributes.get("to") != _BOOL:
            return
        if kind in ("Floor", "Ceil", "Round") and np.all(arrays[0] == np.rint(arrays[0])):
            return
        large = sum(not np.all(np.abs(array) <= 1) for array in arrays)
        if large > (len(arrays) > 1):
            raise ValueError(f"{name}: made of the model's sizes by {kind}")

    def _attributes(self, scope: Scope, node: Any) -> dict[str, Any]:
        return {name: self._plain(a) for name, a in scope.attributes(node).items()}

    def _plain(self, attribute: Any) -> Any:
        """An attribute as Python has it; None for graphs and what else no operator here takes."""
        kind = attribute.DESCRIPTOR.enum_types_by_name["AttributeType"].values_by_number
        name = kind[attribute.type].name if attribute.type in kind else ""
        if name == "STRING":
            return attribute.s.decode()
        if name == "TENSOR":
            return self._stored(attribute.t)
        if name == "SPARSE_TENSOR":
            return self._stored(attribute.sparse_tensor)
        if name in ("FLOATS", "INTS"):
            numbers = getattr(attribute, name.lower())
            self._room.work(_OF_A_NUMBER * len(numbers))
            return list(numbers)
        return {"FLOAT": attribute.f, "INT": attribute.i}.get(name)

    def _sizes_of(self, scope: Scope, name: str) -> Generator[_Question, Any, list[int]]:
        """The shape of a value, in numbers."""
        depends = yield _Question("depends", scope, name)
        if depends == Depends.NOTHING or (depends < Depends.VALUES and self._sizes):
            array = yield _Question("value", scope, name)
            return list(array.shape)
        shape = yield _Question("shape", scope, name)
        if self._sizes is None:
            raise ValueError(f"{name}: its shape is known in a run only")
        if shape is None:
            self.unknown.append(name)
            shape = tuple((name, k) for k in range(_ANY_AXES))
        return [d if isinstance(d, int) else self._sizes.get(d, self._other) for d in shape]

    def _type_of(self, scope: Scope, name: str) -> Generator[_Question, Any, int]:
        """The number of a value's type."""
        from onnx import helper

        depends = yield _Question("depends", scope, name)
        if depends == Depends.NOTHING or (depends < Depends.VALUES and self._sizes):
            array = yield _Question("value", scope, name)
            return int(helper.np_dtype_to_tensor_dtype(array.dtype))
        declared = _declared(scope, name)
        if declared is None or not declared.tensor_type.elem_type:
            raise ValueError(f"{name}: its type is not known")
        return int(declared.tensor_type.elem_type)

    # --- its shape --------------------------------------------------------------------------------

    def _shape(self, scope: Scope, name: str) -> _Steps:
        shape = None
        if name in scope.body.tensors:
            shape = tuple(scope.body.tensors[name].dims)
        elif name in scope.body.makers:
            other = yield from self._same_as(scope, name)
            if other is not None:
                return (yield _Question("shape", *other))
            shape = yield from self._shape_made(scope, name)
        declared = _declared(scope, name)
        if shape is None and declared is not None:
            shape = shape_of_type(declared, name)
        return None if shape is not None and len(shape) > MOST_AXES else shape

    def _shape_made(self, scope: Scope, name: str) -> Generator[_Question, Any, Shape | None]:
        """What follows from the operator that makes a value, and its inputs."""
        node, k = scope.body.makers[name]
        kind = "" if domain_of(node) or (k > 0 and node.op_type != "Split") else node.op_type
        given = [*map(scope.home, node.input)]
        if kind == "Constant":
            array: Array = yield _Question("value", scope, name)
            return array.shape
        if not has_rule(kind):
            return None
        shapes: list[Shape | None] = []
        for source in given:
            shape = yield _Question("shape", *source)
            shapes.append(shape)
        numbers: list[Any] = []
        if kind in TAKE_NUMBERS:
            for source in given[1:]:
                if (yield _Question("depends", *source)) != Depends.NOTHING:
                    return None
                numbers.append((yield _Question("value", *source)))
        made = shape_after(kind, Inputs(shapes, numbers, self._attributes(scope, node)))
        if made is None:
            return None
        return tuple((scope, name, axis) if d is ITS_OWN else d for axis, d in enumerate(made))


def _first_output(node: Any) -> str:
    return str(next(filter(None, node.output)))


def _declared(scope: Scope, name: str) -> Any:
    """The type that a graph states, or None."""
    return scope.body.inputs.get(name) or scope.body.infos.get(name)


def _constant(attributes: dict[str, Any]) -> Array:
    """The value of a Constant. Its numbers are ONNX's: float32 and int64."""
    for name, value in attributes.items():
        dtype = {"value_float": np.float32, "value_int": np.int64}.get(name.removesuffix("s"))
        if dtype is not None:
            return np.array(value, dtype)
        if name in ("value", "sparse_value") and value is not None:
            return np.asarray(value)
    raise ValueError(f"Constant: expected numbers, got {', '.join(attributes) or 'nothing'}")
