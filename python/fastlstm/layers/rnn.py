"""The simple recurrent layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy.typing as npt

from fastlstm._activations import ActivationName, as_activations
from fastlstm._checks import FloatArray

from .layer import RecurrentLayer
from .options import CLIP, RECURRENT_DROPOUT, WEIGHT_DROPOUT, ZONEOUT, Option, core_functions
from .public import public


@public
class RNNTrace(NamedTuple):
    """What one layer and direction of an RNN computed at every step; zero past a sequence's end."""

    h: FloatArray
    """Hidden state, (T, B, H) or laid out as the layer's inputs are."""
    d_h: FloatArray | None = None
    """With gradients: that of h, as it comes from the steps that follow."""


def _as_nonlinearity(name: str, value: Any) -> str:
    """The name of a function that PyTorch has."""
    if not isinstance(value, str) or value not in ("tanh", "relu"):
        raise ValueError(f"{name}: expected 'tanh' or 'relu', got {value!r}")
    return value


def _as_function(name: str, value: Any) -> tuple[ActivationName, ...] | None:
    """Another function; None: that of the nonlinearity."""
    return None if value is None else as_activations(name, value, 1)


def _functions(options: Mapping[str, Any]) -> tuple[ActivationName, ...]:
    """The function that a layer has."""
    return tuple(options["activations"] or (options["nonlinearity"].capitalize(),))


@public
class RNN(RecurrentLayer[FloatArray, RNNTrace]):
    r"""A stack of simple recurrent layers with PyTorch's parameters and semantics.

    For each step, with x the input and h' the hidden state of the step before:

    .. code-block:: text

        h = tanh(W_ih x + b_ih + W_hh h' + b_hh), or relu of it

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, the numbers of features of an input and of hidden units.
    num_layers : int
        L; each layer above the first reads the outputs of the one below.
    nonlinearity : {"tanh", "relu"}
        The function.
    bias : bool
        Whether there are biases.
    batch_first : bool
        Sequences are (B, T, I) and (B, T, D * H). States keep their shapes.
    dropout : float
        The part of the values between layers that becomes zero in training, 0 to 1; the others are
        scaled by 1 / (1 - dropout).
    bidirectional : bool
        A second direction reads each sequence from its end; D is 2 then, and 1 otherwise.
    reverse : bool
        The only direction reads each sequence from its end; outputs stay at their inputs' places.
    merge : {"concat", "sum", "mul", "ave"} or None
        How the output is made of those of two directions: side by side, (T, B, 2 * H); their sum,
        product or mean, (T, B, H); or None: separate, (2, T, B, H). Between layers they are side by
        side.
    dtype : {"float32", "float64"}
        The type of parameters and results. Inputs of other types are converted.
    seed : int, optional
        Makes the initial values, and the dropout of the layer's training calls, reproducible.
    clip : float, optional
        The sum is bounded to -clip and clip before its function, as in ONNX Runtime.
    activations : tuple, optional
        Another function than ``nonlinearity`` has: one of ONNX's names, ``("Softsign",)``, or with
        its parameters, ``(("LeakyRelu", 0.1),)``.
    recurrent_dropout : float
        The part of h that becomes zero in training where R reads it, with one mask for all steps of
        a sequence (Gal and Ghahramani 2016); the other values are scaled by 1 / (1 - p). The
        output is not changed.
    zoneout : float
        The probability that in training a unit of h keeps the value of the step before (Krueger et
        al. 2017). In inference each keeps that part of it.
    weight_dropout : float
        The part of the values of R that becomes zero in training, the others are scaled (Merity,
        Keskar and Socher 2018).

    Raises
    ------
    ValueError, TypeError
        An argument has another value or type than stated, or two do not go together.

    Notes
    -----
    The state is h alone, (L * D, B, H). The initial values are PyTorch's: uniform in +-1/sqrt(H).
    docs/options.md and docs/regularisation.md have all equations and sources.

    References
    ----------
    Elman 1990, "Finding structure in time".

    Examples
    --------
    >>> rnn = fastlstm.RNN(8, 16, nonlinearity="relu", seed=0)
    >>> output, h_n = rnn(np.zeros((5, 3, 8), dtype=np.float32))
    >>> output.shape, h_n.shape
    ((5, 3, 16), (1, 3, 16))
    """

    _trace_type = RNNTrace

    nonlinearity = Option[str](_as_nonlinearity, "The function: ``tanh`` or ``relu``.")
    clip = CLIP
    activations = Option[tuple[ActivationName, ...]](
        _as_function, "The function, by ONNX's name.", read=_functions
    )
    recurrent_dropout = RECURRENT_DROPOUT
    zoneout = ZONEOUT
    weight_dropout = WEIGHT_DROPOUT

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reverse: bool = False,
        merge: str | None = "concat",
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
        clip: float | None = None,
        activations: Sequence[ActivationName] | None = None,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        weight_dropout: float = 0.0,
    ) -> None:
        super().__init__(locals())

    @classmethod
    def _check_together(cls, options: Mapping[str, Any]) -> None:
        if options["activations"] is not None and options["nonlinearity"] != "tanh":
            raise ValueError("activations: expected None with a nonlinearity")
        super()._check_together(options)

    @classmethod
    def _config(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        config = super()._config(options)
        if options["activations"] is None and options["clip"] is None:
            return {"cell": f"rnn_{options['nonlinearity']}", **config}
        functions = core_functions(("Sigmoid", *_functions(options), "Tanh"))
        return {"cell": "rnn_tanh", **config, "activations": functions}
