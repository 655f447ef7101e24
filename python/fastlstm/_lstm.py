"""The long short-term memory layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ._activations import ActivationName, as_activations, as_clip, core_functions
from ._checks import MOST_SIZE, FloatArray, as_bool, as_int, as_real
from ._layer import LAYERS, RecurrentLayer

LSTMState: TypeAlias = tuple[FloatArray, FloatArray]


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

    _gates = 4
    _trace_type = LSTMTrace
    _defaults: ClassVar[dict[str, Any]] = {
        "num_layers": 1,
        "bias": True,
        "batch_first": False,
        "dropout": 0.0,
        "bidirectional": False,
        "proj_size": 0,
        "reverse": False,
        "merge": "concat",
        "dtype": "float32",
        "peepholes": False,
        "input_forget": False,
        "clip": None,
        "activations": ("Sigmoid", "Tanh", "Tanh"),
        "layer_norm": False,
        "recurrent_dropout": 0.0,
        "zoneout": (0.0, 0.0),
        "weight_dropout": 0.0,
    }

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
        proj_size = as_int("proj_size", proj_size, 0, MOST_SIZE)
        if proj_size >= as_int("hidden_size", hidden_size, 1, MOST_SIZE):
            raise ValueError(
                f"proj_size: expected less than hidden_size ({hidden_size}), got {proj_size}"
            )
        functions = as_activations("activations", activations, 3)
        if as_bool("layer_norm", layer_norm):
            others = {
                "peepholes": peepholes,
                "input_forget": input_forget,
                "clip": clip is not None,
                "activations": functions != self._defaults["activations"],
            }
            given = [name for name, is_given in others.items() if is_given]
            if given:
                raise ValueError(f"layer_norm: expected False together with {', '.join(given)}")
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            reverse,
            dtype,
            seed,
            merge=merge,
            proj_size=proj_size,
            peepholes=as_bool("peepholes", peepholes),
            input_forget=as_bool("input_forget", input_forget),
            clip=as_clip(clip),
            activations=functions,
            layer_norm=layer_norm,
            recurrent_dropout=as_real("recurrent_dropout", recurrent_dropout, 0.0, 1.0),
            zoneout=_as_zoneout(zoneout),
            weight_dropout=as_real("weight_dropout", weight_dropout, 0.0, 1.0),
        )
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

    @property
    def proj_size(self) -> int:
        """The width that h is projected to; 0 without a projection."""
        return int(self._options["proj_size"])

    @property
    def peepholes(self) -> bool:
        """Whether the gates see the cell state."""
        return bool(self._options["peepholes"])

    @property
    def input_forget(self) -> bool:
        """Whether the forget gate is 1 - i."""
        return bool(self._options["input_forget"])

    @property
    def layer_norm(self) -> bool:
        """Whether the gates' sums and the cell state are normalised."""
        return bool(self._options["layer_norm"])

    @property
    def zoneout(self) -> tuple[float, float]:
        """The probabilities that units of h and of c keep their values."""
        p_h, p_c = self._options["zoneout"]
        return p_h, p_c

    @property
    def _output_size(self) -> int:
        return self.proj_size or self.hidden_size

    def _state_sizes(self) -> tuple[int, ...]:
        return (self._output_size, self.hidden_size)

    def _parameter_shapes(self, input_size: int) -> dict[str, tuple[int, ...]]:
        shapes = super()._parameter_shapes(input_size)
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        if self.peepholes:
            shapes["weight_peephole"] = (3 * self.hidden_size,)
        if self.layer_norm:
            shapes["weight_ln_ih"] = shapes["weight_ln_hh"] = (4 * self.hidden_size,)
            shapes["weight_ln_c"] = (self.hidden_size,)
            if self.bias:
                shapes["bias_ln_c"] = (self.hidden_size,)
        return shapes

    def _initial_values(self) -> dict[str, FloatArray]:
        values = super()._initial_values()
        for name, array in values.items():  # normalisation alone, to begin with
            if name.startswith(("weight_ln", "bias_ln")):
                array[:] = 1.0 if name.startswith("weight") else 0.0
        return values

    def _core_options(self) -> dict[str, Any]:
        return super()._core_options() | {
            "cell": "lstm",
            "proj_size": self.proj_size,
            **core_functions(self.activations, self.clip),
            "input_forget": self.input_forget,
            "peepholes": self.peepholes,
            "layer_norm": self.layer_norm,
            "zoneout_h": self.zoneout[0],
            "zoneout_c": self.zoneout[1],
        }


def _as_zoneout(value: Any) -> tuple[float, float]:
    """The probabilities for h and c."""
    if not isinstance(value, (tuple, list)):
        value = (value, value)
    if len(value) != 2:
        raise ValueError(f"zoneout: expected p or (p_h, p_c), got {value!r}")
    return as_real("zoneout", value[0], 0.0, 1.0), as_real("zoneout", value[1], 0.0, 1.0)


LAYERS["LSTM"] = LSTM
