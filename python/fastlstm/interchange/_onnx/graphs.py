"""The graphs of an ONNX model: its main one, those inside nodes, and those of its functions.

Names in a graph inside a node may be those of the graphs around it; a function knows only what it
is called with. A :class:`Scope` is a graph, or one call of a function, in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

CELLS = {"LSTM": "LSTM", "GRU": "GRU", "RNN": "RNN", "DynamicQuantizeLSTM": "LSTM"}
_DOMAINS = {"DynamicQuantizeLSTM": "com.microsoft"}

# Calls of functions multiply, and the names of graphs inside graphs grow: a few nodes can stand for
# any number, and a long name can be part of many.
_MOST_CALLS = 10_000
_MOST_WORK = 1 << 22


class Body:
    """What a graph or a function has, wherever it stands.

    Attributes
    ----------
    makers : dict
        By the name of a value: the node that makes it, and which of its outputs it is.
    tensors, inputs, infos : dict
        Initialisers, the types of inputs, and those of other values, by name.
    """

    def __init__(self, graph: Any, is_inner: bool = False) -> None:
        # Kept, as the objects that protobuf shows us are known by their identity.
        self.graph = graph
        self.nodes = [node for node in graph.node if node.op_type]
        self.makers = {
            name: (node, k) for node in self.nodes for k, name in enumerate(node.output) if name
        }
        self.infos = {info.name: info.type for info in getattr(graph, "value_info", ())}
        self.is_function = not hasattr(graph, "initializer")
        if self.is_function:  # its inputs and outputs are names only
            self.parameters = {name: k for k, name in enumerate(graph.input)}
            self.defaults = {a.name: a for a in getattr(graph, "attribute_proto", ())}
            self.outputs = list(graph.output)
            self.opsets = opsets_of(graph)
            self.inputs, self.tensors = {}, {}
        else:
            self.outputs = [value.name for value in graph.output]
            self.inputs = {value.name: value.type for value in graph.input}
            self.tensors = {tensor.name: tensor for tensor in graph.initializer}
            self.tensors |= {tensor.values.name: tensor for tensor in graph.sparse_initializer}
            if is_inner:  # each input is given in each run: no initialiser stands for it
                self.tensors = {n: t for n, t in self.tensors.items() if n not in self.inputs}

    def gives(self, name: str) -> bool:
        """Whether a node, a tensor or an input gives a name its value."""
        return name in self.makers or name in self.tensors or name in self.inputs


@dataclass(frozen=True, eq=False)
class Scope:
    """A graph in its place, or a call of a function."""

    body: Body
    opsets: Mapping[str, int]
    """Versions of the operators by domain."""
    outer: Scope | None = None
    """The graph around it, or of a function the one that calls it."""
    call: Any = None
    """The node that calls the function."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """This node's attributes by name."""

    def chain(self) -> Iterator[Scope]:
        """This one, and those around it."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer

    def home(self, name: str) -> tuple[Scope, str]:
        """Where a name is given its value, and its name there; "" is what a caller leaves out.

        Where nothing gives it one, the graph or function that knows no other around it.
        """
        scope: Scope = self
        while name:
            body = scope.body
            if body.gives(name):
                break
            if scope.outer is None or (body.is_function and name not in body.parameters):
                break
            if body.is_function:
                given, k = scope.call.input, body.parameters[name]
                name = given[k] if k < len(given) else ""
            scope = scope.outer
        return scope, name

    def knows(self, name: str) -> bool:
        """Whether anything gives a name its value, or a caller leaves it out."""
        scope, name = self.home(name)
        return not name or scope.body.gives(name)

    def attributes(self, node: Any) -> dict[str, Any]:
        """The attributes of a node, those of the functions around it in their place."""
        resolved = {a.name: self._resolved(a) for a in node.attribute}
        return {name: a for name, a in resolved.items() if a is not None}

    def _resolved(self, attribute: Any) -> Any:
        scope: Scope | None = self
        while attribute is not None and attribute.ref_attr_name:
            while scope is not None and not scope.body.is_function:
                scope = scope.outer
            if scope is None:
                raise ValueError(f"{attribute.name}: is a function's, but stands in none")
            name = attribute.ref_attr_name
            attribute = scope.given.get(name, scope.body.defaults.get(name))
            scope = scope.outer
        return attribute


class Found(NamedTuple):
    """A recurrent node, and where it stands."""

    path: str
    """The names of the nodes around it, and its own."""
    name: str
    node: Any
    scope: Scope


class Graphs:
    """The graphs of a model."""

    def __init__(self, proto: Any) -> None:
        self._bodies: dict[int, Body] = {}
        self._inner: dict[tuple[Scope, int, str], Scope] = {}
        self._calls: dict[tuple[Scope, int], Scope] = {}
        self._given: dict[int, dict[str, Any]] = {}
        self.functions = {
            (domain_of(f), f.name, getattr(f, "overload", "")): f for f in proto.functions
        }
        self.main = Scope(self._body(proto.graph), opsets_of(proto))

    def _body(self, graph: Any, is_inner: bool = False) -> Body:
        if id(graph) not in self._bodies:
            self._bodies[id(graph)] = Body(graph, is_inner)
        return self._bodies[id(graph)]

    def function_of(self, node: Any) -> Any:
        """The function that a node calls, or None."""
        return self.functions.get((domain_of(node), node.op_type, getattr(node, "overload", "")))

    def called(self, scope: Scope, node: Any) -> Scope:
        """The call that a node in a scope is, of a function of the model."""
        key = scope, id(node)
        if key not in self._calls:
            if len(self._calls) > _MOST_CALLS:
                raise ValueError(f"{node.op_type}: functions are called too often")
            body = self._body(self.function_of(node))
            if id(node) not in self._given:
                self._given[id(node)] = {a.name: a for a in node.attribute}
            self._calls[key] = Scope(body, body.opsets, scope, node, self._given[id(node)])
        return self._calls[key]

    def inner(self, scope: Scope, node: Any, name: str, graph: Any) -> Scope:
        """A graph that an attribute of a node has, in its place."""
        key = scope, id(node), name
        if key not in self._inner:
            self._inner[key] = Scope(self._body(graph, is_inner=True), scope.opsets, scope)
        return self._inner[key]

    def kinds(self) -> Iterator[str]:
        """The operators of all nodes, those of functions once."""
        for graph in (self.main.body.graph, *self.functions.values()):
            yield from (node.op_type for node in nodes_within(graph))

    def recurrent(self) -> dict[str, Found]:
        """All recurrent nodes, by the names of the nodes around them and their own."""
        worth = self._functions_with_layers()
        found: dict[str, Found] = {}
        counts: dict[str, int] = {}
        work = 0
        # A scope, the names around it, and the functions whose calls they are.
        todo: list[tuple[Scope, str, tuple[int, ...]]] = [(self.main, "", ())]
        while todo:
            scope, around, callers = todo.pop()
            inside: list[tuple[Scope, str, tuple[int, ...]]] = []
            for node in scope.body.nodes:
                own = node.name or next(filter(None, node.output), node.op_type)
                path, function = f"{around}{own}", self.function_of(node)
                if function is not None and id(function) in worth:
                    if id(function) in callers:
                        raise ValueError(f"{path}: a function that calls itself")
                    call = self.called(scope, node)
                    inside.append((call, f"{path}/", (*callers, id(function))))
                elif function is None and is_recurrent(node):
                    name = _unused(path, found, counts)
                    found[name] = Found(name, own, node, scope)
                for attribute, graph in graphs_in(node):
                    inner = self.inner(scope, node, attribute, graph)
                    inside.append((inner, f"{path}/{attribute}/", callers))
                    work += len(path)
                work += len(path) if around else 1
                if work > _MOST_WORK:
                    raise ValueError("too many graphs inside graphs, or with too long names")
            todo += reversed(inside)
        return found

    def _functions_with_layers(self) -> set[int]:
        """The functions, by identity, in which a recurrent node stands, or in what they call."""
        users: dict[int, list[int]] = {}
        todo = []
        for function in self.functions.values():
            for node in nodes_within(function):
                called = self.function_of(node)
                if called is not None:
                    users.setdefault(id(called), []).append(id(function))
                elif is_recurrent(node):
                    todo.append(id(function))
        worth: set[int] = set()
        while todo:
            function = todo.pop()
            if function not in worth:
                worth.add(function)
                todo += users.get(function, [])
        return worth


def _unused(name: str, taken: Mapping[str, Any], counts: dict[str, int]) -> str:
    """A name, or with a number where others have it, too."""
    while True:
        count = counts[name] = counts.get(name, 0) + 1
        numbered = name if count == 1 else f"{name}#{count}"
        if numbered not in taken:
            return numbered


def is_recurrent(node: Any) -> bool:
    """Whether a node is one of the operators that become layers."""
    return node.op_type in CELLS and domain_of(node) == _DOMAINS.get(node.op_type, "")


def domain_of(thing: Any) -> str:
    """The domain of a node or function; that of ONNX itself is ""."""
    return "" if thing.domain == "ai.onnx" else str(thing.domain)


def opsets_of(thing: Any) -> dict[str, int]:
    """The versions of operators of a model or function, by domain."""
    return {domain_of(opset): opset.version for opset in thing.opset_import}


def graphs_in(node: Any) -> Iterator[tuple[str, Any]]:
    """The graphs that a node has as attributes, by name."""
    for attribute in node.attribute:
        if attribute.type == attribute.GRAPH:
            yield attribute.name, attribute.g
        for k, graph in enumerate(attribute.graphs):
            yield f"{attribute.name}{k}", graph


def nodes_within(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of all graphs inside it."""
    todo = [graph]
    while todo:
        for node in todo.pop().node:
            yield node
            todo += [inner for _, inner in graphs_in(node)]


def names_around(scope: Scope, node: Any) -> Iterator[tuple[Scope, str]]:
    """Values outside of the graphs in a node that these use."""
    for _, graph in graphs_in(node):
        for inner in nodes_within(graph):
            for name in inner.input:
                home, known = scope.home(name)
                if home.body.gives(known):
                    yield home, known
