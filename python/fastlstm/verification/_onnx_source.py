"""A recurrent node of an ONNX model, run by ONNX Runtime: by itself, and where it stands.

By itself it takes any inputs. Where it stands it takes what the model makes of the model's own, and
shows what else the model does with it: its initial states and lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from fastlstm.interchange import onnx_import as onnx_reader
from fastlstm.interchange._description import Description
from fastlstm.interchange._onnx.file import load
from fastlstm.interchange._onnx.graphs import Scope, names_around
from fastlstm.interchange._onnx.values import Depends

from ._results import Array, Inputs, Results

_X, _LENGTHS, _Y = "fastlstm_x", "fastlstm_lengths", "fastlstm_y"


class OnnxSource:
    """A recurrent node of an ONNX model.

    It is taken out of the model, with the nodes that compute its weights. Initial states and
    lengths become inputs, and the layout is time first: ONNX Runtime has no other.
    """

    takes_lengths = True
    ulps = 64  # its approximations of functions: 52 measured, with ScaledTanh
    not_looked_at: tuple[str, ...] = ()

    def __init__(self, source: Any, node: str | None) -> None:
        import onnxruntime

        self._model = load(source)
        self._reader = onnx_reader.reader_of(self._model, node)
        self._description, self._call = self._reader.read()
        self.dtype = np.dtype(next(iter(self._description.params.values())).dtype)
        self._states = ("h", "c") if self._description.cell == "LSTM" else ("h",)
        self._sessions: dict[bool, Any] = {}
        self._onnxruntime = onnxruntime
        found = self._reader.found
        self.title = (
            f"{found.node.op_type} node {found.path!r} (ONNX Runtime {onnxruntime.__version__})"
        )

    def describe(self) -> Description:
        return self._description

    def __call__(self, inputs: Inputs) -> Results:
        feeds = {_X: inputs.x, **dict(zip(map(_initial, self._states), inputs.state, strict=True))}
        feeds = {name: np.ascontiguousarray(value, self.dtype) for name, value in feeds.items()}
        if inputs.lengths is not None:
            feeds[_LENGTHS] = inputs.lengths.astype(np.int32)
        try:
            output, *state = self._alone(inputs.lengths is not None).run(None, feeds)
        except Exception as error:  # its classes have no common base
            raise ValueError(f"{self.title} cannot be run: {error}") from error
        return Results(output, tuple(state))

    def _alone(self, lengths: bool) -> Any:
        if lengths not in self._sessions:
            self._sessions[lengths] = self._session(self._node_alone(lengths))
        return self._sessions[lengths]

    def _session(self, model: Any) -> Any:
        options = self._onnxruntime.SessionOptions()
        options.log_severity_level = 4
        return self._onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    # --- by itself --------------------------------------------------------------------------------

    def _node_alone(self, lengths: bool) -> Any:
        """A model of the node and of what its weights are computed from."""
        from onnx import ModelProto, TensorProto, helper

        proto, found = self._model.proto, self._reader.found
        result = ModelProto(ir_version=proto.ir_version)
        result.opset_import.extend(proto.opset_import)
        result.functions.extend(proto.functions)
        graph = result.graph
        graph.name = "node"
        names = [*found.node.input, *[""] * 8][: max(len(found.node.input), 7)]
        needed = [found.scope.home(name) for k, name in enumerate(names) if k not in (0, 4, 5, 6)]
        parts = _Parts(needed)
        parts.add_to(graph)
        _load_data(result, self._model.folder)

        initial = [_initial(state) for state in self._states]
        given = [_X, *[parts.name_of(*found.scope.home(name)) for name in names[1:4]]]
        given += [_LENGTHS if lengths else "", *initial, *[""] * (2 - len(initial))]
        given += [parts.name_of(*found.scope.home(name)) for name in names[7:]]
        outputs = [_Y, *map(_final, self._states)]
        node = graph.node.add()
        node.CopyFrom(found.node)
        del node.input[:], node.output[:], node.attribute[:]
        node.input.extend(given if self._description.cell == "LSTM" else given[:6])
        node.output.extend(outputs)
        for name, attribute in found.scope.attributes(found.node).items():
            if name not in ("layout", "output_sequence"):
                node.attribute.append(_renamed(attribute, name))

        floats = TensorProto.DOUBLE if self.dtype == np.float64 else TensorProto.FLOAT
        for name in (_X, *initial):
            graph.input.append(helper.make_tensor_value_info(name, floats, ["a", "b", "c"]))
        if lengths:
            graph.input.append(helper.make_tensor_value_info(_LENGTHS, TensorProto.INT32, ["b"]))
        graph.output.extend(helper.make_tensor_value_info(o, floats, None) for o in outputs)
        return result

    # --- where it stands --------------------------------------------------------------------------

    def in_place(self, seed: int) -> Iterator[tuple[Inputs, Results]]:
        """Run the model as it is, and yield what its node takes and gives there.

        States and lengths that are constants are as they were read.
        """
        if self._reader.found.scope.outer is not None:
            self.not_looked_at = ("the model around the node, which is inside another node",)
            return
        try:
            there = self._run_in_place(np.random.default_rng(seed))
        except Exception as error:  # ONNX Runtime's classes have no common base
            first = str(error).strip().partition("\n")[0]
            self.not_looked_at = (f"the model around the node, which cannot be run: {first}",)
            return
        if self._description.options["batch_first"]:
            there = {name: a.swapaxes(0, 1) if a.ndim > 1 else a for name, a in there.items()}
            there[_Y] = there[_Y].swapaxes(1, 2)
        results = [there[_final(state)] for state in self._states]
        yield self._inputs_of(there), Results(there[_Y], tuple(results))

    def _run_in_place(self, rng: np.random.Generator) -> dict[str, Array]:
        """All that the node takes and gives, by the names of its inputs and our outputs."""
        from onnx import ModelProto, ValueInfoProto

        found = self._reader.found
        model = ModelProto()
        model.CopyFrom(self._model.proto)
        _load_data(model, self._model.folder)
        node = next(n for n in model.graph.node if n == found.node)
        wanted = {name: value for name, value in self._reader.inputs.items() if name in _TAKEN}
        for k, name in enumerate((_Y, *map(_final, self._states))):
            if k == len(node.output):
                node.output.append("")
            node.output[k] = node.output[k] or name
            wanted[name] = node.output[k]
        outputs = {output.name for output in model.graph.output}
        model.graph.output.extend(ValueInfoProto(name=n) for n in {*wanted.values()} - outputs)
        session = self._session(model)
        try:
            feeds = _feeds(session, rng, wanted.get("sequence_lens"))
            values = session.run([*wanted.values()], feeds)
        except Exception:  # perhaps some of the sizes must be the same
            feeds = _feeds(session, rng, wanted.get("sequence_lens"), size=4)
            values = session.run([*wanted.values()], feeds)
        return dict(zip(wanted, values, strict=True))

    def _inputs_of(self, there: Mapping[str, Array]) -> Inputs:
        B = there["X"].shape[1]
        shape = there[_final("h")].shape
        constant = self._call.get("state")
        constants = constant if isinstance(constant, tuple) else (constant,)
        state = []
        for k, name in enumerate(self._states):
            computed = self._computed(f"initial_{name}", there)
            part = constants[k] if constant is not None else computed
            state.append(np.broadcast_to(np.zeros((), self.dtype) if part is None else part, shape))
        lengths = self._call.get("lengths")
        lengths = self._computed("sequence_lens", there) if lengths is None else lengths
        return Inputs(
            "the model",
            there["X"],
            tuple(state),
            None if lengths is None else np.broadcast_to(lengths, (B,)).astype(np.int64),
        )

    def _computed(self, name: str, there: Mapping[str, Array]) -> Array | None:
        """What the model makes of its inputs' values; None for what it does not."""
        value = self._reader.inputs.get(name)
        depends = Depends.NOTHING if value is None else self._reader.depends(value)
        return there[name] if depends == Depends.VALUES else None


_TAKEN = ("X", "sequence_lens", "initial_h", "initial_c")


def _initial(state: str) -> str:
    return f"fastlstm_{state}"


def _final(state: str) -> str:
    return f"fastlstm_{state}_n"


def _feeds(session: Any, rng: np.random.Generator, lengths: str | None, size: int = 0) -> Any:
    """Random inputs of a model. Sizes that it leaves open are all the same, or all different."""
    sizes: dict[Any, int] = {}
    feeds = {}
    for value in session.get_inputs():
        shape = [
            n if isinstance(n, int) else size or sizes.setdefault(n or k, 4 + len(sizes))
            for k, n in enumerate(value.shape)
        ]
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        if value.name == lengths:
            feeds[value.name] = rng.integers(1, 5 if not size else 2, shape).astype(kind)
        elif "int" in kind or kind == "bool":
            feeds[value.name] = rng.integers(0, 2, shape).astype(kind)
        else:
            kinds = {"float": np.float32, "double": np.float64, "float16": np.float16}
            if kind not in kinds:
                raise ValueError(f"its input {value.name} is a {value.type}")
            feeds[value.name] = rng.standard_normal(shape).astype(kinds[kind])
    return feeds


def _load_data(model: Any, folder: str | None) -> None:
    """Bring what lies beside a model into it."""
    from onnx.external_data_helper import load_external_data_for_model

    if folder is not None:
        load_external_data_for_model(model, folder)


def _renamed(attribute: Any, name: str) -> Any:
    """An attribute, which may be that of a function around the node, under a node's own name."""
    from onnx import AttributeProto

    result = AttributeProto()
    result.CopyFrom(attribute)
    result.name = name
    return result


class _Parts:
    """Initialisers and nodes that values are made of, from all graphs that they stand in."""

    def __init__(self, needed: Iterable[tuple[Scope, str]]) -> None:
        self._names: dict[tuple[Scope, str], str] = {}
        self._tensors: dict[tuple[Scope, str], Any] = {}
        self._nodes: dict[tuple[Scope, int], Any] = {}
        todo = [(scope, name, False) for scope, name in needed]
        while todo:  # what a node needs comes before it
            scope, name, ready = todo.pop()
            body = scope.body
            if name in body.tensors:
                self._tensors[scope, name] = body.tensors[name]
            elif name in body.makers:
                node, _ = body.makers[name]
                if ready:
                    self._nodes.setdefault((scope, id(node)), node)
                elif (scope, id(node)) not in self._nodes:
                    todo.append((scope, name, True))
                    before = {*map(scope.home, node.input), *names_around(scope, node)}
                    todo += [(*value, False) for value in before]

    def name_of(self, scope: Scope, name: str) -> str:
        """The name of a value among these parts: in a function's call it is one of its own."""
        if not name or not any(s.body.is_function for s in scope.chain()):
            return name
        return self._names.setdefault((scope, name), f"fastlstm_{len(self._names)}_{name}")

    def add_to(self, graph: Any) -> None:
        """Add them to a graph."""
        for (scope, name), tensor in self._tensors.items():
            sparse = hasattr(tensor, "indices")
            added = (graph.sparse_initializer if sparse else graph.initializer).add()
            added.CopyFrom(tensor)
            (added.values if sparse else added).name = self.name_of(scope, name)
        for (scope, _), node in self._nodes.items():
            added = graph.node.add()
            added.CopyFrom(node)
            del added.input[:], added.output[:], added.attribute[:]
            added.input.extend(self.name_of(*scope.home(name)) for name in node.input)
            added.output.extend(self.name_of(scope, name) for name in node.output)
            for name, attribute in scope.attributes(node).items():
                added.attribute.append(_renamed(attribute, name))
