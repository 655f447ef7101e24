"""What a layer is compared with: PyTorch, Keras and ONNX Runtime behind one call each.

Every source takes inputs and gives results as a layer of fastlstm does (:mod:`._results`), with
what its own framework computes. The readers of ``fastlstm.interchange`` only say which layer of a
model is meant, and for a PyTorch file without a module what sizes it has.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastlstm.interchange import onnx_import as onnx_reader
from fastlstm.interchange import torch as torch_reader
from fastlstm.interchange._description import Description, choose

from ._keras_source import KerasSource
from ._results import Array, Inputs, Results, as_results


class Source(Protocol):
    """A recurrent layer of another framework."""

    title: str
    """What it is, with the framework's version."""
    takes_lengths: bool
    ulps: int
    """How exact a step is: its functions and sums, in ULP of the largest value."""
    dtype: np.dtype[Any]
    """What it computes in."""
    not_looked_at: tuple[str, ...]
    """What of the source does not run here: a line for each thing, without a full stop."""

    def __call__(self, inputs: Inputs) -> Results:
        """Run it."""

    def describe(self) -> Description:
        """What the reader of fastlstm makes of it."""


def find_source(source: Any, which: str | None, nonlinearity: str | None) -> Source:
    """Recognise what a source is.

    Raises
    ------
    ModuleNotFoundError
        Its framework is not installed.
    ValueError, TypeError
        As the readers' (``from_torch``, ``from_keras``, ``from_onnx``).
    """
    kind = kind_of(source)
    if kind != "torch" and nonlinearity is not None:
        raise ValueError("nonlinearity: expected None, as the source says it")
    if kind == "onnx":
        return OnnxSource(source, which)
    if kind == "keras":
        return KerasSource(source, which)
    return TorchSource(source, which, nonlinearity)


def kind_of(source: Any) -> str:
    """Return ``"torch"``, ``"keras"`` or ``"onnx"``."""
    if isinstance(source, (str, os.PathLike)):
        suffix = Path(source).suffix.lower()
        if suffix == ".onnx":
            return "onnx"
        return "keras" if suffix in (".keras", ".h5", ".hdf5") else "torch"
    if hasattr(source, "graph") and hasattr(source, "opset_import"):
        return "onnx"
    if hasattr(source, "get_config"):
        return "keras"
    if hasattr(source, "named_modules") or isinstance(source, Mapping):
        return "torch"
    raise TypeError(
        "source: expected a module or state_dict of PyTorch, a layer or model of Keras, a model of "
        f"ONNX, or a path, got {type(source).__name__}"
    )


# --- PyTorch --------------------------------------------------------------------------------------


# Options that change nothing in the results that are compared.
_NOT_NEEDED = ("batch_first", "dropout")


class TorchSource:
    """An LSTM, GRU or RNN of torch.nn, or a cell of these, run step by step."""

    ulps = 8
    not_looked_at: tuple[str, ...]

    def __init__(self, source: Any, prefix: str | None, nonlinearity: str | None) -> None:
        import torch

        self._torch = torch
        self._arguments = (source, prefix, None, None, nonlinearity)
        if isinstance(source, (str, os.PathLike)):
            torch_reader.find_layers(source)  # has clear errors for other files
            source = self._load(os.fspath(source))
        self.not_looked_at = ()
        if isinstance(source, Mapping):
            module = self._module_of(dict(_flat(source)), prefix)
        else:
            module = self._module_in(source, prefix)
            if next(module.parameters()).dtype in (torch.float16, torch.bfloat16):
                module = copy.deepcopy(module).float()  # exact, as its conversion is
        self._module = module
        self._cell = isinstance(module, torch.nn.RNNCellBase)
        self._weight = next(module.parameters())
        self.title = f"torch.nn.{type(module).__name__} (PyTorch {torch.__version__})"
        self.takes_lengths = not self._cell
        self.dtype = np.dtype(str(self._weight.dtype).removeprefix("torch."))

    def describe(self) -> Description:
        return torch_reader.describe(*self._arguments)

    def _load(self, path: str) -> Any:
        """The mapping or module of a file, read by PyTorch."""
        with open(path, "rb") as file:
            beginning = file.read(9)
        if beginning[8:] == b"{":
            from safetensors.torch import load_file

            return load_file(path)
        nn = self._torch.nn
        classes = [nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell]
        import pickle

        try:
            with self._torch.serialization.safe_globals(classes):
                return self._torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{path}: has more than weights; PyTorch would run its code to load it. Load it "
                "where you trust it and pass the module to fastlstm.verify, or save its state_dict"
            ) from error

    def _module_in(self, source: Any, prefix: str | None) -> Any:
        nn = self._torch.nn
        kinds = (nn.RNNBase, nn.RNNCellBase)
        found = {name: m for name, m in source.named_modules() if isinstance(m, kinds)}
        return torch_reader.choose_below(found, prefix, type(source).__name__)[1]

    def _module_of(self, tensors: Mapping[str, Any], prefix: str | None) -> Any:
        """A module of PyTorch with these weights; their sizes are the reader's."""
        torch = self._torch
        found = torch_reader.group_layers(tensors)
        _, chosen = torch_reader.choose_below(found, prefix, "state_dict")
        values = {
            name if "_l" in name else f"{name}_l0": torch.as_tensor(tensor)
            for name, tensor in chosen.tensors.items()
        }
        description = self.describe()
        self.not_looked_at = (
            "what the model does with these weights: a torch.nn."
            f"{description.cell} was made of them",
        )
        options = {n: v for n, v in description.options.items() if n not in _NOT_NEEDED}
        double = values["weight_ih_l0"].dtype == torch.float64
        dtype = torch.float64 if double else torch.float32
        module = getattr(torch.nn, description.cell)(**options, dtype=dtype)
        module.load_state_dict(values)
        return module

    def __call__(self, inputs: Inputs) -> Results:
        torch, module = self._torch, self._module

        def tensor(array: Array) -> Any:
            return torch.tensor(array, dtype=self._weight.dtype, device=self._weight.device)

        def numpy(value: Any) -> Array:
            return np.asarray(value.cpu().numpy())

        with torch.inference_mode(), _evaluating(module):
            x, state = tensor(inputs.x), tuple(tensor(s) for s in inputs.state)
            if self._cell:
                output, state = self._run_cell(x, state)
            else:
                output, state = self._run_layers(x, state, inputs.lengths)
        return as_results(numpy(output), [numpy(s) for s in state])

    def _run_cell(self, x: Any, state: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        torch = self._torch
        states, outputs = tuple(s[0] for s in state), []
        for x_t in x:
            new = self._module(x_t, states if len(states) > 1 else states[0])
            states = new if isinstance(new, tuple) else (new,)
            outputs.append(states[0])
        return torch.stack(outputs), tuple(s[None] for s in states)

    def _run_layers(
        self, x: Any, state: tuple[Any, ...], lengths: Array | None
    ) -> tuple[Any, tuple[Any, ...]]:
        rnn = self._torch.nn.utils.rnn
        given = state if len(state) > 1 else state[0]
        if lengths is None:
            batch_first = self._module.batch_first
            output, final = self._module(x.transpose(0, 1) if batch_first else x, given)
            output = output.transpose(0, 1) if batch_first else output
        else:
            n = self._torch.tensor(lengths)
            packed, final = self._module(
                rnn.pack_padded_sequence(x, n, enforce_sorted=False), given
            )
            output, _ = rnn.pad_packed_sequence(packed, total_length=len(x))
        return output, final if isinstance(final, tuple) else (final,)


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Without dropout."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _flat(mapping: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Tensors in nested dictionaries, by their dotted names."""
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# --- ONNX Runtime ---------------------------------------------------------------------------------


class OnnxSource:
    """A recurrent node of an ONNX model, taken out of it and run by ONNX Runtime.

    The nodes that compute its weights come with it. Initial states and lengths become inputs, and
    the layout is time first: ONNX Runtime has no other.
    """

    takes_lengths = True
    ulps = 64  # its approximations of functions: 52 measured, with ScaledTanh
    not_looked_at: tuple[str, ...] = ()

    def __init__(self, source: Any, node: str | None) -> None:
        import onnxruntime

        self._arguments = (source, node)
        where, model = onnx_reader.load(source)
        name, chosen = choose(onnx_reader.find_nodes(model), node, where, "node")
        description = self.describe()
        self.dtype = np.dtype(next(iter(description.params.values())).dtype)
        self._D = 2 if description.options["bidirectional"] else 1
        self._sessions: dict[bool, Any] = {}
        self._make: Callable[[bool], Any] = lambda lengths: _node_alone(
            model, chosen, description.cell, self.dtype, lengths
        )
        self._onnxruntime = onnxruntime
        self.title = f"{chosen.op_type} node {name!r} (ONNX Runtime {onnxruntime.__version__})"

    def describe(self) -> Description:
        return onnx_reader.describe(*self._arguments)[0]

    def __call__(self, inputs: Inputs) -> Results:
        feeds = {"fastlstm_x": inputs.x}
        feeds |= dict(zip(("fastlstm_h", "fastlstm_c"), inputs.state, strict=False))
        feeds = {name: np.ascontiguousarray(value, self.dtype) for name, value in feeds.items()}
        if inputs.lengths is not None:
            feeds["fastlstm_lengths"] = inputs.lengths.astype(np.int32)
        try:
            output, *state = self._session(inputs.lengths is not None).run(None, feeds)
        except Exception as error:  # its classes have no common base
            raise ValueError(f"{self.title} cannot be run: {error}") from error
        return Results(output, tuple(state))

    def _session(self, lengths: bool) -> Any:
        if lengths not in self._sessions:
            options = self._onnxruntime.SessionOptions()
            options.log_severity_level = 4
            self._sessions[lengths] = self._onnxruntime.InferenceSession(
                self._make(lengths).SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
            )
        return self._sessions[lengths]


def _node_alone(model: Any, chosen: Any, cell: str, dtype: np.dtype[Any], lengths: bool) -> Any:
    """A model of one node and of what its weights are computed from."""
    from onnx import TensorProto, helper

    result = copy.deepcopy(model)
    graph = result.graph
    node = copy.deepcopy(chosen)
    kept = [a for a in node.attribute if a.name not in ("layout", "output_sequence")]
    del node.attribute[:]
    node.attribute.extend(kept)
    states = ["fastlstm_h", "fastlstm_c"] if cell == "LSTM" else ["fastlstm_h"]
    names = [*node.input, *[""] * (5 + len(states) - len(node.input))]
    names[0] = "fastlstm_x"
    names[4 : 5 + len(states)] = ["fastlstm_lengths" if lengths else "", *states]
    outputs = ["fastlstm_y", *[f"{name}_n" for name in states]]
    del node.input[:], node.output[:]
    node.input.extend(names)
    node.output.extend(outputs)

    needed = set(names)
    before: list[Any] = []
    for other in reversed(graph.node):  # nodes stand in the order of their use
        if needed & {name for name in other.output if name}:
            before.insert(0, copy.deepcopy(other))
            needed |= set(other.input)
    weights = [copy.deepcopy(t) for t in graph.initializer if t.name in needed]
    del graph.node[:], graph.initializer[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend([*before, node])
    graph.initializer.extend(weights)
    floats = TensorProto.DOUBLE if dtype == np.float64 else TensorProto.FLOAT
    for name in ("fastlstm_x", *states):
        graph.input.append(helper.make_tensor_value_info(name, floats, ["a", "b", "c"]))
    if lengths:
        graph.input.append(
            helper.make_tensor_value_info("fastlstm_lengths", TensorProto.INT32, ["b"])
        )
    graph.output.extend(helper.make_tensor_value_info(o, floats, None) for o in outputs)
    return result
