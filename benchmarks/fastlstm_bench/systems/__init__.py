"""The systems that are compared: one adapter file each.

An adapter is a module with two functions. The worker imports it in a process of its own, pinned and
with its thread settings already in the environment:

``start(threads) -> dict[str, str]``
    Imports the library, sets its threads, and returns versions and settings for the record.
    ImportError: the system is not installed.

``prepare(case, problem, threads) -> Call``
    Loads the weights and inputs. `UnsupportedError`: the system cannot do this case, and why.

``USES``, if it has more than ``("layer",)``: which uses of a layer (`Case.use`) it knows.
``DTYPES``, if it has others than float32 and float64: which it knows (`Case.dtype`).

To add a system, write such a file and name it in `SYSTEMS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext

from fastlstm_bench.problem import Array, Arrays

SUBJECT = "fastlstm"
MODULES = "fastlstm-torch"
COMPILED = "fastlstm-torch-compiled"
WEIGHTS = "fastlstm-weights"
# What is ours, from what is compared with the peers to what stands beside it.
OWN = (MODULES, SUBJECT, COMPILED, WEIGHTS)
REFERENCE = "reference"
PADDED = "torch-padded"
SYSTEMS = {
    SUBJECT: "fastlstm_bench.systems.run_fastlstm",
    MODULES: "fastlstm_bench.systems.run_modules",
    COMPILED: "fastlstm_bench.systems.run_modules_compiled",
    WEIGHTS: "fastlstm_bench.systems.run_weights",
    "torch": "fastlstm_bench.systems.run_torch",
    "torch-compiled": "fastlstm_bench.systems.run_torch_compiled",
    PADDED: "fastlstm_bench.systems.run_torch_padded",
    "onnxruntime": "fastlstm_bench.systems.run_onnxruntime",
    "openvino": "fastlstm_bench.systems.run_openvino",
    "jax": "fastlstm_bench.systems.run_jax",
    "keras": "fastlstm_bench.systems.run_keras",
    REFERENCE: "fastlstm_bench.systems.run_reference",
}


# Who takes part in the suite of that name, and who in all others, if nobody says otherwise.
BY_SUITE = {
    "torch": (SUBJECT, MODULES, COMPILED, "torch", "torch-compiled"),
    "jobs": (SUBJECT, "torch", PADDED),
}
_ASKED_FOR = (MODULES, COMPILED, WEIGHTS, "torch-compiled", PADDED)
EVERYWHERE = tuple(name for name in SYSTEMS if name not in _ASKED_FOR)


class UnsupportedError(Exception):
    """A system cannot do a case. The message says why; it stands in the report."""


class Call(ABC):
    """A case, prepared in one system: what is timed, and what it gave."""

    def mode(self) -> AbstractContextManager[object]:
        """What a user would enter once around many calls, such as torch.inference_mode."""
        return nullcontext()

    def feed(self, x: Array) -> None:
        """For a stream: put the input (B, I) of the next steps in place. Not timed."""
        raise NotImplementedError

    @abstractmethod
    def run(self) -> None:
        """What is timed: one step, one sequence forward, one forward and backward, or these with
        an optimiser's step.

        The results stay in the system's own arrays, complete when this returns.
        """

    @abstractmethod
    def fetch(self) -> Arrays:
        """The results of the last run, in PyTorch's names and layout. Not timed.

        A step gives output (B, H); a sequence output, h_n and, for the LSTM, c_n; training also d_x
        and d_<parameter>, an optimiser moved_<parameter>: what it is now minus what it was before
        the first run. A job that trains gives its loss and moved_<parameter>, a request its answer
        as output. The arrays may be views that the next run changes.
        """
