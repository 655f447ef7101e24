"""A recurrent layer of PyTorch behind one call, run by PyTorch.

The readers of ``fastlstm.interchange`` only say which layer of a model is meant, and for weights
without a module what sizes it has: what utilities of PyTorch have put in the place of a parameter,
PyTorch computes here.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import os
import pickle
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from fastlstm.interchange._description import Description, listed
from fastlstm.interchange._torch.contents import choose_layer, contents_of_source, names_in
from fastlstm.interchange._torch.packed import holds_packed
from fastlstm.interchange.torch import describe

from ._results import Array, Inputs, Results, as_results

# What may stand in a file that PyTorch loads without running its code, beside its own list.
_SAFE = {
    "torch.nn": ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"),
    "torch.nn.utils.weight_norm": ("WeightNorm",),
    "torch.nn.utils.prune": ("CustomFromMask", "L1Unstructured", "RandomUnstructured"),
}
# Options that change nothing in the results that are compared.
_NOT_NEEDED = ("batch_first", "dropout")


class TorchSource:
    """An LSTM, GRU or RNN of torch.nn, or a cell of these, run step by step."""

    ulps = 8

    def __init__(self, source: Any, prefix: str | None, nonlinearity: str | None) -> None:
        import torch

        self._torch = torch
        self._description = describe(source, prefix, nonlinearity=nonlinearity)
        contents = contents_of_source(source)
        name = choose_layer(contents, prefix)
        if holds_packed(names_in(name, contents.tensors)):
            raise ValueError(
                "source: a quantised layer of PyTorch, which rounds what it multiplies in a way of "
                "its own, is not compared"
            )
        if isinstance(source, (str, os.PathLike)):
            contents = contents_of_source(self._load(os.fspath(source)))
            name = choose_layer(contents, prefix)
        module = contents.modules.get(name)
        if module is None:
            own = names_in(name, contents.tensors)
            module = self._module_of({n: contents.tensors[full] for n, full in own.items()})
            others = set(contents.tensors) - set(own.values())
            self.not_looked_at = (
                "what a model does with these weights: a layer of torch.nn was made of them",
                *([f"other tensors of the source: {listed(sorted(others))}"] if others else ()),
            )
        else:
            module = self._in_single(module)
            others = {n for n in contents.modules if not f"{name}.".startswith(f"{n}.")} - {""}
            around = f"what {contents.where} computes around {name}"
            around += f": {listed(sorted(others))}" if others else ""
            self.not_looked_at = (around,) if name else ()
        self._module = module
        self._cell = isinstance(module, torch.nn.RNNCellBase)
        self._weight = next(module.parameters())
        kind = self._description.cell + ("Cell" if self._cell else "")
        self.title = f"torch.nn.{kind} (PyTorch {torch.__version__})"
        self.takes_lengths = not self._cell
        self.dtype = np.dtype(str(self._weight.dtype).removeprefix("torch."))

    def in_place(self, seed: int) -> Iterable[tuple[Inputs, Results]]:
        return ()

    def describe(self) -> Description:
        return self._description

    def _load(self, path: str) -> Any:
        """The tensors or module of a file, read by PyTorch."""
        with open(path, "rb") as file:
            beginning = file.read(9)
        if beginning[8:] == b"{":
            from safetensors.torch import load_file

            return load_file(path)
        classes = [getattr(importlib.import_module(m), n) for m in _SAFE for n in _SAFE[m]]
        try:
            with self._torch.serialization.safe_globals(classes):
                return self._torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError) as error:  # the latter for TorchScript
            raise ValueError(
                f"{path}: has more than weights; PyTorch would run its code to load it. Load it "
                "where you trust it and pass the module to fastlstm.verify, or save its state_dict"
            ) from error

    def _in_single(self, module: Any) -> Any:
        """The module, or a copy of one in half precision, whose conversion is exact."""
        if next(module.parameters()).dtype not in (self._torch.float16, self._torch.bfloat16):
            return module
        try:
            return copy.deepcopy(module).float()
        except RuntimeError as error:  # of what hooks computed
            raise ValueError(f"source: cannot be copied, pass its .float(): {error}") from error

    def _module_of(self, own: Mapping[str, Any]) -> Any:
        """A module of PyTorch with these weights; their sizes are the reader's."""
        torch = self._torch
        values = {name: torch.as_tensor(value) for name, value in own.items()}
        description = self._description
        options = {n: v for n, v in description.options.items() if n not in _NOT_NEEDED}
        is_cell = not any("_l0" in name for name in values)
        if is_cell:
            sizes = ("input_size", "hidden_size", "bias", "nonlinearity")
            options = {n: v for n, v in options.items() if n in sizes}
        dtype = getattr(torch, next(iter(description.params.values())).dtype.name)
        cls = getattr(torch.nn, description.cell + ("Cell" if is_cell else ""))
        module = cls(**options, dtype=dtype)
        for name in description.params:
            self._parametrise(module, name.removesuffix("_l0") if is_cell else name, values)
        module.load_state_dict(values)
        return module

    def _parametrise(self, module: Any, name: str, values: Mapping[str, Any]) -> None:
        """Let PyTorch compute a parameter of what there is instead of it."""
        utils = self._torch.nn.utils
        new = f"parametrizations.{name}"
        if f"{name}_g" in values:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # it is the old one
                utils.weight_norm(module, name, _axis_of(values[f"{name}_g"].shape))
        elif f"{new}.original0" in values:
            dim = _axis_of(values[f"{new}.original0"].shape)
            utils.parametrizations.weight_norm(module, name, dim)
        elif f"{name}_mask" in values:
            prune = importlib.import_module("torch.nn.utils.prune")
            prune.custom_from_mask(module, name, values[f"{name}_mask"])
        elif f"{name}_u" in values:
            dim = int(values[f"{name}_u"].shape[0] != values[f"{name}_orig"].shape[0])
            utils.spectral_norm(module, name, dim=dim)
        elif f"{new}.0._u" in values:
            dim = int(values[f"{new}.0._u"].shape[0] != values[f"{new}.original"].shape[0])
            utils.parametrizations.spectral_norm(module, name, dim=dim)

    def __call__(self, inputs: Inputs) -> Results:
        torch, module = self._torch, self._module

        def tensor(array: Array) -> Any:
            return torch.tensor(array, dtype=self._weight.dtype, device=self._weight.device)

        def numpy(value: Any) -> Array:
            return np.asarray(value.cpu().numpy())

        with torch.no_grad(), _evaluating(module):
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


def _axis_of(lengths: tuple[int, ...]) -> int | None:
    """The axis that a norm's lengths have; None: there is one length of all."""
    longer = [axis for axis, size in enumerate(lengths) if size > 1]
    return (longer or [0])[0] if lengths else None


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Without dropout."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
