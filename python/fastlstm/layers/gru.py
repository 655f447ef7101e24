"""The gated recurrent unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy.typing as npt

from fastlstm._activations import ActivationName, as_activations
from fastlstm._checks import FloatArray, as_bool

from .layer import RecurrentLayer
from .options import CLIP, RECURRENT_DROPOUT, WEIGHT_DROPOUT, ZONEOUT, Option, core_functions
from .public import public


@public
class GRUTrace(NamedTuple):
    """What one layer and direction of a GRU computed at every step; zero past a sequence's end.

    All arrays are (T, B, H), or laid out as the layer's inputs are: batch first, or without the
    batch axis.
    """

    r: FloatArray
    """Reset gate."""
    z: FloatArray
    """Update gate."""
    n: FloatArray
    """Candidate."""
    h: FloatArray
    """Hidden state."""
    d_h: FloatArray | None = None
    """With gradients: that of h, as it comes from the steps that follow."""


@public
class GRU(RecurrentLayer[FloatArray, GRUTrace]):
    r"""A stack of gated recurrent unit layers with PyTorch's parameters and semantics.

    For each step, with x the input and h' the hidden state of the step before:

    .. code-block:: text

        r = sigmoid(W_ir x + b_ir + W_hr h' + b_hr)     reset gate
        z = sigmoid(W_iz x + b_iz + W_hz h' + b_hz)     update gate
        n = tanh(W_in x + b_in + r (W_hn h' + b_hn))    candidate
        h = (1 - z) n + z h'

    and without ``reset_after``, as Cho et al. first wrote it:

    .. code-block:: text

        n = tanh(W_in x + b_in + W_hn (r h') + b_hn)

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, the numbers of features of an input and of hidden units.
    num_layers : int
        L; each layer above the first reads the outputs of the one below.
    bias : bool
        Whether there are biases.
    batch_first : bool
        Sequences are (B, T, I) and (B, T, D * H). States keep their shapes.
    dropout : float
        The part of the values between layers that becomes zero in training, 0 to 1; the others are
        scaled by 1 / (1 - dropout).
    bidirectional : bool
        A second direction reads each sequence from its end; D is 2 then, and 1 otherwise.
    reset_after : bool
        Whether the reset gate acts after the product with W_hn, as in PyTorch and by default in
        Keras, or before it, as by default in ONNX.
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
        The sums in the brackets of r, z and n are bounded to -clip and clip, as in ONNX Runtime.
    activations : tuple
        Instead of sigmoid (of r and z) and tanh: ONNX's names, ``"HardSigmoid"``, or with their
        parameters, ``("HardSigmoid", 0.2, 0.5)``.
    recurrent_dropout : float
        The part of h that becomes zero in training where R reads it, with one mask for all steps of
        a sequence (Gal and Ghahramani 2016); the other values are scaled by 1 / (1 - p). The h
        that z keeps, and the output, are not changed.
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
    The state is h alone, (L * D, B, H). Gates are stacked in the order r, z, n. The initial values
    are PyTorch's: uniform in +-1/sqrt(H). docs/options.md has the equations with all options,
    docs/regularisation.md those in training, and both the sources.

    References
    ----------
    Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder for statistical
    machine translation".

    Examples
    --------
    >>> gru = fastlstm.GRU(8, 16, num_layers=2, seed=0)
    >>> x = np.zeros((5, 3, 8), dtype=np.float32)  # T = 5 steps of B = 3 sequences
    >>> output, h_n = gru(x)
    >>> output.shape, h_n.shape
    ((5, 3, 16), (2, 3, 16))
    """

    _trace_type = GRUTrace

    reset_after = Option[bool](
        as_bool,
        "Whether the reset gate acts after the product with the hidden state.",
        core=lambda _, after: {"cell": "gru" if after else "gru_reset_before"},
    )
    clip = CLIP
    activations = Option[tuple[ActivationName, ...]](
        lambda name, value: as_activations(name, value, 2),
        "The cell's functions, in the order of the option.",
        core=lambda name, functions: {name: core_functions((*functions, "Tanh"))},
    )
    recurrent_dropout = RECURRENT_DROPOUT
    zoneout = ZONEOUT
    weight_dropout = WEIGHT_DROPOUT

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reset_after: bool = True,
        reverse: bool = False,
        merge: str | None = "concat",
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
        clip: float | None = None,
        activations: Sequence[ActivationName] = ("Sigmoid", "Tanh"),
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        weight_dropout: float = 0.0,
    ) -> None:
        super().__init__(locals())
