"""The long short-term memory layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fastlstm._activations import ActivationName, as_activations
from fastlstm._checks import FloatArray, as_bool, as_real

from .layer import RecurrentLayer
from .options import (
    CLIP,
    RECURRENT_DROPOUT,
    WEIGHT_DROPOUT,
    Option,
    as_it_is,
    as_probability,
    as_width,
    core_functions,
)
from .public import public

LSTMState: TypeAlias = tuple[FloatArray, FloatArray]


@public
class LSTMTrace(NamedTuple):
    """What one layer and direction of an LSTM computed at every step; zero past a sequence's end.

    All arrays are (T, B, H) - h is (T, B, P) - or laid out as the layer's inputs are: batch first,
    or without the batch axis.
    """

    i: FloatArray
    """Input gate."""
    f: FloatArray
    """Forget gate."""
    g: FloatArray
    """Candidate."""
    o: FloatArray
    """Output gate."""
    c: FloatArray
    """Cell state."""
    h: FloatArray
    """Hidden state."""
    d_h: FloatArray | None = None
    """With gradients: that of h, as it comes from the steps that follow."""
    d_c: FloatArray | None = None
    """The same of c."""


def _as_zoneout(name: str, value: Any) -> tuple[float, float]:
    """The probabilities for h and c."""
    if not isinstance(value, (tuple, list)):
        value = (value, value)
    if len(value) != 2:
        raise ValueError(f"{name}: expected p or (p_h, p_c), got {value!r}")
    return as_probability(name, value[0]), as_probability(name, value[1])


@public
class LSTM(RecurrentLayer[LSTMState, LSTMTrace]):
    r"""A stack of long short-term memory layers with PyTorch's parameters and semantics.

    For each step, with x the input, h' and c' the hidden and cell state of the step before:

    .. code-block:: text

        i = sigmoid(W_ii x + b_ii + W_hi h' + b_hi)     input gate
        f = sigmoid(W_if x + b_if + W_hf h' + b_hf)     forget gate
        g = tanh   (W_ig x + b_ig + W_hg h' + b_hg)     candidate
        o = sigmoid(W_io x + b_io + W_ho h' + b_ho)     output gate
        c = f c' + i g                                  cell state
        h = o tanh(c), or W_hr (o tanh(c)) with a projection

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, the numbers of features of an input and of hidden units.
    num_layers : int
        L; each layer above the first reads the outputs of the one below.
    bias : bool
        Whether there are biases.
    batch_first : bool
        Sequences are (B, T, I) and (B, T, D * P). States keep their shapes.
    dropout : float
        The part of the values between layers that becomes zero in training, 0 to 1; the others are
        scaled by 1 / (1 - dropout).
    bidirectional : bool
        A second direction reads each sequence from its end; D is 2 then, and 1 otherwise.
    proj_size : int
        The width P that h is projected to, below hidden_size; 0: none, and P is H.
    reverse : bool
        The only direction reads each sequence from its end; outputs stay at their inputs' places.
    merge : {"concat", "sum", "mul", "ave"} or None
        How the output is made of those of two directions: side by side, (T, B, 2 * P); their sum,
        product or mean, (T, B, P); or None: separate, (2, T, B, P). Between layers they are side by
        side.
    dtype : {"float32", "float64"}
        The type of parameters and results. Inputs of other types are converted.
    seed : int, optional
        Makes the initial values, and the dropout of the layer's training calls, reproducible.
    forget_bias : float, optional
        The initial sum of the forget gate's two biases in every layer and direction, instead of
        random values. 1.0 helps to learn long dependencies (Jozefowicz, Zaremba and Sutskever
        2015). Only with ``bias``.
    peepholes : bool
        The gates see the cell state: p_i c' is added in i, p_f c' in f, and p_o c in o (Gers and
        Schmidhuber 2000). The parameters are ``weight_peephole_l0`` (3H,), in the order i, f, o.
    input_forget : bool
        f = 1 - i: what is not written is kept. The parameters of f are there, but without effect.
    clip : float, optional
        The sums in the brackets are bounded to -clip and clip, as ONNX Runtime does.
    activations : tuple
        Instead of sigmoid (of i, f, o), tanh (of g) and tanh (of c): ONNX's names,
        ``"HardSigmoid"``, or with their parameters, ``("HardSigmoid", 0.2, 0.5)``.
    layer_norm : bool
        Layer normalisation inside the gates (Ba, Kiros and Hinton 2016): their sums, all 4H side by
        side, are gain_ih N(W x) + gain_hh N(R h') + b, and h = o tanh(gain_c N(c) + bias_c), where
        N subtracts from a vector the mean of its values and divides by sqrt(variance + 1e-5). The
        parameters are ``weight_ln_ih_l0`` and ``weight_ln_hh_l0`` (4H,), ``weight_ln_c_l0`` (H,),
        initially 1, and with ``bias`` ``bias_ln_c_l0`` (H,), initially 0. Not together with
        ``peepholes``, ``input_forget``, ``clip`` or other ``activations``.
    recurrent_dropout : float
        The part of h that becomes zero in training where R reads it, with one mask for all steps of
        a sequence (Gal and Ghahramani 2016); the other values are scaled by 1 / (1 - p). The output
        is not changed.
    zoneout : float or tuple of float
        The probability, or those for h and for c, that in training a unit keeps the value of the
        step before (Krueger et al. 2017). In inference each keeps that part of it.
    weight_dropout : float
        The part of the values of R that becomes zero in a training call, the others are scaled
        (Merity, Keskar and Socher 2018).

    Raises
    ------
    ValueError, TypeError
        An argument has another value or type than stated, or two do not go together.

    Notes
    -----
    The initial values are PyTorch's: uniform in +-1/sqrt(H). A layer can be pickled, copied and
    saved. Calls from several threads at once are safe. docs/options.md has the equations with all
    options, docs/regularisation.md those in training, and both the sources.

    References
    ----------
    Hochreiter and Schmidhuber 1997, "Long short-term memory"; Gers, Schmidhuber and Cummins 2000,
    "Learning to forget"; for the projection Sak, Senior and Beaufays 2014, "Long short-term memory
    based recurrent neural network architectures for large scale acoustic modeling".

    Examples
    --------
    >>> lstm = fastlstm.LSTM(8, 16, num_layers=2, seed=0)
    >>> x = np.zeros((5, 3, 8), dtype=np.float32)  # T = 5 steps of B = 3 sequences
    >>> output, (h_n, c_n) = lstm(x)
    >>> output.shape, h_n.shape, c_n.shape
    ((5, 3, 16), (2, 3, 16), (2, 3, 16))
    """

    _trace_type = LSTMTrace

    proj_size = Option[int](
        as_width, "The width that h is projected to; 0 without a projection.", core=as_it_is
    )
    peepholes = Option[bool](as_bool, "Whether the gates see the cell state.", core=as_it_is)
    input_forget = Option[bool](as_bool, "Whether the forget gate is 1 - i.", core=as_it_is)
    clip = CLIP
    activations = Option[tuple[ActivationName, ...]](
        lambda name, value: as_activations(name, value, 3),
        "The cell's functions, in the order of the option.",
        core=lambda name, functions: {name: core_functions(functions)},
    )
    layer_norm = Option[bool](
        as_bool, "Whether the gates' sums and the cell state are normalised.", core=as_it_is
    )
    recurrent_dropout = RECURRENT_DROPOUT
    zoneout = Option[tuple[float, float]](
        _as_zoneout,
        "The probabilities that units of h and of c keep their values.",
        core=lambda _, p: {"zoneout_h": p[0], "zoneout_c": p[1]},
    )
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
        proj_size: int = 0,
        *,
        reverse: bool = False,
        merge: str | None = "concat",
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
        forget_bias: float | None = None,
        peepholes: bool = False,
        input_forget: bool = False,
        clip: float | None = None,
        activations: Sequence[ActivationName] = ("Sigmoid", "Tanh", "Tanh"),
        layer_norm: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        weight_dropout: float = 0.0,
    ) -> None:
        super().__init__(locals())
        if forget_bias is not None:
            self._set_forget_bias(as_real("forget_bias", forget_bias, -np.inf, np.inf))

    def _set_forget_bias(self, value: float) -> None:
        if not self.bias:
            raise ValueError("forget_bias: expected None for a layer without biases")
        forget = slice(self.hidden_size, 2 * self.hidden_size)
        biases = {
            name: b.copy()
            for name, b in self.params.items()
            if name.startswith(("bias_ih", "bias_hh"))
        }
        for name, b in biases.items():
            b[forget] = value if name.startswith("bias_ih") else 0.0
        self.update(biases)

    @classmethod
    def _check_together(cls, options: Mapping[str, Any]) -> None:
        proj_size, hidden_size = options["proj_size"], options["hidden_size"]
        if proj_size >= hidden_size:
            raise ValueError(
                f"proj_size: expected less than hidden_size ({hidden_size}), got {proj_size}"
            )
        if options["layer_norm"]:
            others = ("peepholes", "input_forget", "clip", "activations")
            given = [name for name in others if options[name] != cls._table.defaults[name]]
            if given:
                raise ValueError(f"layer_norm: expected False together with {', '.join(given)}")
        super()._check_together(options)

    @classmethod
    def _config(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        return {"cell": "lstm", **super()._config(options)}
