"""Forecasts of series."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from fastlstm._checks import MOST_SIZE, IndexArray, as_bool, as_int, as_real, check_shape
from fastlstm.nn import Linear

from ._backtest import Backtest, simple_forecasts
from ._baselines import Ahead, fit_linear, linear, naive, seasonal_naive
from ._estimator import Estimator
from ._inputs import moments
from ._network import Network, make_network
from ._options import (
    as_count,
    as_count_or_zero,
    as_fraction,
    estimator,
    one_of,
    option,
    or_none,
)
from ._series import (
    Form,
    Series,
    are_several,
    as_exog,
    as_series,
    exog_names,
    of_pandas,
    with_columns,
)
from ._windows import Correction, ForecastProblem, Windows

SelfT = TypeVar("SelfT", bound="Forecaster")
Array = npt.NDArray[np.float64]


def _as_period(name: str, value: Any) -> int:
    return as_int(name, value, 2, MOST_SIZE)


def _as_quantiles(name: str, value: Any) -> list[float]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected numbers between 0 and 1, got {type(value).__name__}")
    quantiles = [as_real(name, q, 0.0, 1.0) for q in value]
    if 0.5 not in quantiles or sorted({*quantiles, 0.0, 1.0}) != [0.0, *quantiles, 1.0]:
        raise ValueError(
            f"{name}: expected rising numbers between 0 and 1, 0.5 among them, got {quantiles}"
        )
    return quantiles


def _as_known(name: str, value: Any) -> bool | list[Any]:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected True, False or columns, got {type(value).__name__}")
    return list(value)


class _Placed(NamedTuple):
    """A series, and how it stands to those of ``fit``."""

    series: Series
    mean: Array
    deviation: Array
    position: int
    """The step of its first value, counted from the first of ``fit``: for seasons."""
    future: Array
    """(horizon, K of the known columns), or zeros where it is not looked at."""

    def end(self, n: int) -> _Placed:
        """Return its last n steps."""
        before = len(self.series.y) - n
        return self._replace(
            series=self.series.part(slice(before, None)), position=self.position + before
        )


@estimator
class Forecaster(Estimator):
    """Forecasts of a series, or of several: their next values, all at once.

    A recurrent layer reads the last `window` values, and a linear layer makes of its last output
    the next `horizon` ones, as a correction to a simple forecast. That is where it begins, since
    the linear layer is zero at first; and where no epoch is better than the simple forecast in what
    is held out, the end of each series, that is what remains.

    Parameters
    ----------
    {options}

    Attributes
    ----------
    network_ : fastlstm.nn.Module
        With the parts ``layer``, ``pool``, ``drop`` and ``out``, and with known columns ``ahead``.
    loss_curve_, validation_loss_curve_ : list of float
        By epoch, of values in units of the simple forecast's error.
    baseline_loss_ : float
        That of the simple forecast in the held-out windows; NaN where nothing is held out.
    n_iter_, best_epoch_ : int
        Epochs, and that whose parameters were kept: 0 where it is the simple forecast.
    n_features_in_ : int
        S, the columns of y.
    factors_, constants_ : ndarray
        With ``residual="linear"``, of scaled values: the factors of a window's values in each
        forecast, (S, horizon, window), the oldest first; and each forecast's constant, by the first
        one's time in the season, (S, period, horizon), or (S, 1, horizon).

    Notes
    -----
    Values are scaled by each series' mean and standard deviation. The linear forecast is an
    autoregression of each column on itself, fitted by least squares, its order chosen by AIC, which
    goes on step by step. With a ``period`` it is the mean of that and of one that has a constant
    for each step of the season, of up to six harmonics, with weights by least squares of all
    forecasts. With several series there is one for all.

    Examples
    --------
    >>> t = np.arange(303)
    >>> y = np.sin(t / 5) + 0.01 * t
    >>> forecaster = Forecaster(window=30, horizon=3, epochs=2, random_state=0).fit(y[:300])
    >>> bool(np.allclose(forecaster.predict(), y[300:], atol=0.01))
    True
    """

    window: int = option(24, as_count, "int", "How many values a forecast looks back.")
    horizon: int = option(12, as_count, "int", "How many values it looks ahead.")
    residual: str | None = option(
        "linear",
        or_none(one_of("linear", "seasonal")),
        '{"linear", "seasonal"} or None',
        "The simple forecast: an autoregression, the value of a period before, or with None the "
        "last value (with relative=False the series' mean).",
    )
    period: int | None = option(
        None,
        or_none(_as_period),
        "int or None",
        "Steps of a season of fixed length, say 12 of months. The network reads the time of the "
        "season, too. None: there is none.",
    )
    relative: bool = option(
        True,
        as_bool,
        "bool",
        "Whether windows are read relative to their last value: for series that drift to where "
        "they have never been. False: relative to the series' mean.",
    )
    quantiles: Any = option(
        None,
        or_none(_as_quantiles),
        "sequence of float or None",
        "What is forecast, 0.5 among them, say (0.05, 0.5, 0.95); None: the mean alone.",
    )
    known: Any = option(
        False,
        _as_known,
        "bool or sequence",
        "Which columns of exog are known ahead, say a calendar or prices of one's own: all, none, "
        "or those of these names (of pandas) or numbers.",
    )
    hidden_size: int = option(32, as_count, "int", "H, the hidden units of a layer.")
    epochs: int = option(100, as_count, "int", "How often training sees all windows, at most.")
    early_stopping: int | None = option(
        10,
        or_none(as_count_or_zero),
        "int or None",
        "Training ends after so many epochs in which the loss of the held-out windows has not "
        "fallen; the parameters of the best epoch are kept. None or 0: nothing is held out.",
    )
    validation_fraction: float = option(
        0.15,
        as_fraction,
        "float",
        "The part of each series that is held out for that, at its end; at least `horizon`.",
    )

    # --- fit -----------------------------------------------------------------------------------

    def fit(self: SelfT, y: Any, exog: Any = None) -> SelfT:
        """Fit the forecaster.

        Parameters
        ----------
        y : array_like, pandas Series or DataFrame, or list of these
            (n,), or (n, S): values in order of time, without gaps. A list of such is several series
            of one kind, which one network learns.
        exog : the same, optional
            (n, K): other columns, which are read and not forecast.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            An option or an argument has another shape, value or type than stated: a value is NaN,
            a series is too short, or its index is irregular.
        """
        options = self._checked()
        if options.residual == "seasonal":
            if options.period is None:
                raise ValueError("period: expected one for residual='seasonal', got None")
            as_int("window", options.window, options.period, MOST_SIZE)
        series = as_series(y, exog)
        cuts = [_cut(k, one, options) for k, one in enumerate(series)]
        with self._attributes_unless_an_error(forget=True), self._threads():
            random = self._new_random()
            self.is_list_: bool = are_several(y)
            self._learn_series(series, options)
            self._learn_exog(series, exog_names(exog), options)
            placed = self._as_trained(series)
            # What is held out is compared with a simple forecast that does not know it, either.
            self._learn_baseline(
                [
                    one._replace(series=one.series.part(slice(cut)))
                    for one, cut in zip(placed, cuts, strict=True)
                ],
                options,
            )
            windows = self._windows(placed)
            training, held_out = _origins(series, cuts, options)
            self.unit_: Array = windows.baseline_error(training)
            network = self._new_network(options, random)
            problem = ForecastProblem(
                windows, np.concatenate([training, held_out]), self._correction(network)
            )
            self._train_from_baseline(problem, len(held_out), options)
            self._learn_baseline(placed, options)
        return self

    def _learn_series(self, series: list[Series], options: SimpleNamespace) -> None:
        """Scales, and what is needed to go on after the end of each series."""
        self.n_features_in_: int = series[0].y.shape[1]
        means, deviations = zip(*(moments(one.y) for one in series), strict=True)
        self.means_: Array = np.stack(means)
        self.deviations_: Array = np.stack(deviations)
        self.lengths_: list[int] = [len(one.y) for one in series]
        self.forms_: list[Any] = [one.form for one in series]
        self.last_: list[Array] = [one.y[-options.window :] for one in series]
        self.last_exog_: list[Array] = [one.exog[-options.window :] for one in series]

    def _learn_exog(
        self, series: list[Series], names: list[Any] | None, options: SimpleNamespace
    ) -> None:
        """The scales of other columns, and which are known ahead."""
        exog = np.concatenate([one.exog for one in series])
        K = exog.shape[1]
        self.exog_mean_: Array
        self.exog_deviation_: Array
        self.exog_mean_, self.exog_deviation_ = moments(exog)
        self.exog_names_: list[Any] | None = names
        if isinstance(options.known, bool):
            self.known_: list[int] = list(range(K)) if options.known else []
        else:
            columns = list(range(K)) if names is None else names
            for column in options.known:
                if column not in columns:
                    raise ValueError(
                        f"known: expected columns of exog ({', '.join(map(str, columns))}), "
                        f"got {column!r}"
                    )
            self.known_ = [columns.index(column) for column in options.known]

    def _learn_baseline(self, placed: list[_Placed], options: SimpleNamespace) -> None:
        if options.residual == "linear":
            scaled = [(one.series.y - one.mean) / one.deviation for one in placed]
            fitted = [
                fit_linear(
                    [of_one[:, s] for of_one in scaled],
                    [one.position for one in placed],
                    options.window,
                    options.horizon,
                    options.period,
                )
                for s in range(self.n_features_in_)
            ]
            self.factors_: Array = np.stack([one.factors for one in fitted])
            self.constants_: Array = np.stack([one.constants for one in fitted])

    def _new_network(self, options: SimpleNamespace, random: np.random.Generator) -> Network:
        S, K, known = self.n_features_in_, len(self.exog_mean_), len(self.known_)
        n_in = S + (2 if options.period else 0) + K + known
        n_out = options.horizon * S * max(len(options.quantiles or ()), 1)
        parts: dict[str, Any] = {}
        if known:
            parts["ahead"] = Linear(options.horizon * known, n_out, bias=False, dtype=options.dtype)
        network = make_network(options, n_in, n_out, random, pooling="last", **parts)
        # The first forecasts are the baseline.
        last = [name for name in network.params if name.startswith(("out.", "ahead."))]
        network.update({name: np.zeros_like(network.params[name]) for name in last})
        return network

    def _train_from_baseline(
        self, problem: ForecastProblem, held_out: int, options: SimpleNamespace
    ) -> None:
        """Train, and go back to the baseline where that is not worse in what is held out."""
        network, n = problem.network, len(problem.lengths)
        at_first = network.state_dict()
        self.baseline_loss_: float = math.nan
        if held_out:
            self.baseline_loss_ = problem.mean_loss(np.arange(n - held_out, n))
        self._train(problem, options, held_out=held_out)
        if held_out and not min(self.validation_loss_curve_) < self.baseline_loss_:
            network.load_state_dict(at_first)
            self.best_epoch_ = 0

    def _loaded(self) -> None:
        options, network = self._checked(), self.network_
        N, S, K = len(self.lengths_), self.n_features_in_, len(self.exog_mean_)
        W, H, known = options.window, options.horizon, len(self.known_)
        width = H * S * max(len(options.quantiles or ()), 1)
        steps = S + (2 if options.period else 0) + K + known
        if (network.layer.input_size, network.out.n_out) != (steps, width):
            raise ValueError(f"{steps} numbers a step and {width} scores, and another network")
        if known and network.ahead.n_in != H * known:
            raise ValueError(f"{known} known columns, and another network")
        shapes: dict[str, tuple[int, ...]] = {
            "means_": (N, S),
            "deviations_": (N, S),
            "exog_mean_": (K,),
            "exog_deviation_": (K,),
            "unit_": (S,),
            "last_": (N, W, S),
            "last_exog_": (N, W, K),
        }
        if options.residual == "linear":
            shapes.update(factors_=(S, H, W), constants_=(S, options.period or 1, H))
        for name, shape in shapes.items():
            check_shape(name, np.asarray(getattr(self, name)), shape)
        if len(self.forms_) != N or not set(self.known_) <= set(range(K)):
            raise ValueError("other series or columns than there are")
        for form in self.forms_:
            Form.of_plain(form)

    def _no_future(self) -> Array:
        return np.zeros((self.horizon, len(self.known_)))

    # --- windows -------------------------------------------------------------------------------

    def _as_trained(self, series: list[Series]) -> list[_Placed]:
        return [
            _Placed(one, mean, deviation, 0, self._no_future())
            for one, mean, deviation in zip(series, self.means_, self.deviations_, strict=True)
        ]

    def _windows(self, placed: list[_Placed]) -> Windows:
        """All series, each with `horizon` rows after its end."""
        y, others, known, phases = [], [], [], []
        unknown = [k for k in range(len(self.exog_mean_)) if k not in self.known_]
        for one in placed:
            rows = len(one.series.y) + self.horizon
            end = ((0, self.horizon), (0, 0))
            y.append(np.pad((one.series.y - one.mean) / one.deviation, end))
            exog = (one.series.exog - self.exog_mean_) / self.exog_deviation_
            others.append(np.pad(exog[:, unknown], end))
            phases.append((one.position + np.arange(rows)) % (self.period or 1))
            future = (one.future - self.exog_mean_[self.known_]) / self.exog_deviation_[self.known_]
            known.append(np.concatenate([exog[:, self.known_], future]))
        phase = np.concatenate(phases)
        if self.period is not None:
            angle = 2 * np.pi / self.period * phase
            season = np.column_stack([np.sin(angle), np.cos(angle)])
            others = [np.concatenate([np.concatenate(others), season], axis=1)]
        return Windows(
            np.concatenate(y),
            np.concatenate(others).astype(self.dtype),
            np.concatenate(known).astype(self.dtype),
            phase,
            self.window,
            self.horizon,
            self.relative,
            self._baseline(),
        )

    def _baseline(self) -> Callable[[Array, IndexArray], Array]:
        H = self.horizon
        if self.residual == "linear":
            ahead = [*map(Ahead, self.factors_, self.constants_)]
            return lambda windows, phases: linear(windows, phases, ahead)
        if self.residual == "seasonal":
            assert self.period is not None  # as fit has checked
            period = self.period
            return lambda windows, _: seasonal_naive(windows, H, period)
        if self.relative:
            return lambda windows, _: naive(windows, H)
        return lambda windows, _: np.zeros((len(windows), H, windows.shape[2]))

    def _correction(self, network: Network) -> Correction:
        return Correction(network, self.unit_, np.array(self.quantiles or (), np.float64))

    def _forecasts(self, placed: list[_Placed], origins: IndexArray) -> Array:
        """The forecasts of windows of one series, or one of each: (n, horizon, S, Q or 1)."""
        with self._threads():
            scaled = self._correction(self.network_).forecast(self._windows(placed), origins)
        mean = np.stack([one.mean for one in placed])[:, None, :, None]
        deviation = np.stack([one.deviation for one in placed])[:, None, :, None]
        forecasts: Array = np.sort(scaled, axis=3) * deviation + mean  # quantiles do not cross
        return forecasts

    # --- predictions ---------------------------------------------------------------------------

    def predict(
        self,
        y: Any = None,
        exog: Any = None,
        future_exog: Any = None,
        *,
        series: int | None = None,
        start: int | None = None,
    ) -> Any:
        """Return the next `horizon` values: the means, or with ``quantiles`` the medians.

        Parameters
        ----------
        y : array_like, pandas Series or DataFrame, or list of these, optional
            The series to go on from, of at least `window` values. By default that of ``fit``, or
            those of it, from their ends.
        exog : the same, optional
            Its other columns, where ``fit`` had such.
        future_exog : the same, optional
            (horizon, K): the columns that are ``known`` ahead, in the time that is forecast; a
            DataFrame may have others, too. A list for several series.
        series : int, optional
            Which series of ``fit`` y belongs to: whose mean and deviation it is scaled by. By
            default the only one; where there were several, none: y's own are taken.
        start : int, optional
            Of a series with a ``period``: the step of y's first value, counted from the first one
            of ``fit``. By default what pandas' index says, or 0.

        Returns
        -------
        ndarray, Series or DataFrame, or list of these
            (horizon,), or (horizon, S), like y, with the index that comes next.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There was no ``fit``.
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        found, forms, several = self._ahead(y, exog, future_exog, series, start)
        middle = self._middle()
        shown = [form.shown(one[..., middle]) for form, one in zip(forms, found, strict=True)]
        return shown if several else shown[0]

    def predict_quantiles(
        self,
        y: Any = None,
        exog: Any = None,
        future_exog: Any = None,
        *,
        series: int | None = None,
        start: int | None = None,
    ) -> Any:
        """Return all quantiles of the next `horizon` values.

        Parameters
        ----------
        y, exog, future_exog, series, start
            As of :meth:`predict`.

        Returns
        -------
        ndarray or DataFrame, or list of these
            (horizon, Q), or (horizon, S, Q); of pandas a column for each quantile, with those of
            several columns of y under their names.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There was no ``fit``.
        ValueError, TypeError
            It was without ``quantiles``, or an argument has another shape, value or type than
            stated.
        """
        quantiles = self._quantiles()
        found, forms, several = self._ahead(y, exog, future_exog, series, start)
        shown = [
            form.shown_quantiles(one, quantiles) for form, one in zip(forms, found, strict=True)
        ]
        return shown if several else shown[0]

    def predict_interval(
        self,
        y: Any = None,
        exog: Any = None,
        future_exog: Any = None,
        *,
        coverage: float | None = None,
        series: int | None = None,
        start: int | None = None,
    ) -> tuple[Any, Any]:
        """Return the ends of an interval for each of the next `horizon` values.

        Parameters
        ----------
        y, exog, future_exog, series, start
            As of :meth:`predict`.
        coverage : float, optional
            The probability between both ends: 0.9 needs the quantiles 0.05 and 0.95. By default the
            outermost quantiles are taken.

        Returns
        -------
        lower, upper : ndarray, Series or DataFrame, or list of these
            As :meth:`predict` returns them.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There was no ``fit``.
        ValueError, TypeError
            It was without these ``quantiles``, or an argument has another shape, value or type than
            stated.
        """
        ends = self._ends(coverage)
        found, forms, several = self._ahead(y, exog, future_exog, series, start)
        lower, upper = (
            [form.shown(one[..., q]) for form, one in zip(forms, found, strict=True)] for q in ends
        )
        return (lower, upper) if several else (lower[0], upper[0])

    def score(
        self, y: Any, exog: Any = None, *, series: int | None = None, start: int | None = None
    ) -> float:
        """Return R² of the forecasts of all windows of a series.

        Parameters
        ----------
        y, exog, series, start
            As of :meth:`predict`; y has at least `window` + `horizon` values.

        Returns
        -------
        float
            1 is perfect, 0 as good as the mean of y. The mean over columns, and over several
            series.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There was no ``fit``.
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        scores = []
        for one in self._given(y, exog, series, start, self.window + self.horizon):
            forecasts, actual = self._rolling(one, self.window)
            S = self.n_features_in_
            scores.append(
                r2_score(actual.reshape(-1, S), forecasts[..., self._middle()].reshape(-1, S))
            )
        return float(np.mean(scores))

    def backtest(
        self, y: Any, exog: Any = None, *, folds: int = 5, size: int | None = None
    ) -> Backtest:
        """Forecast the last part of a series from its past, and compare with simple forecasts.

        For each fold a copy of this estimator is fitted to all that comes before; so are the
        simple forecasts: the last value, the value of a period before (with ``period``), an
        autoregression (with the season's constants), and with ``residual="linear"`` the forecast
        that the network corrects. Then each of the fold's values is in turn the first that is
        forecast, from the true values before it. This estimator stays as it is.

        Parameters
        ----------
        y, exog
            As of :meth:`fit`, one series.
        folds : int
            How often everything is fitted.
        size : int, optional
            The values of a fold; by default `horizon`.

        Returns
        -------
        Backtest

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated, or the series is too short.
        """
        if are_several(y):
            raise ValueError("y: expected one series, got a list")
        (series,) = as_series(y, exog)
        n, W, H = len(series.y), self.window, self.horizon
        folds = as_int("folds", folds, 1, MOST_SIZE)
        size = H if size is None else as_int("size", size, 1, MOST_SIZE)
        first = n - H + 1 - folds * size  # the last forecast ends where the series does
        actual: list[Array] = []
        found: list[dict[str, Array]] = []
        quantiles: list[Array] = []
        for cut in range(first, n - H + 1, size):
            if cut < W:
                raise ValueError(f"y: expected more values for {folds} folds of {size}, got {n}")
            fitted = clone(self).fit(_head(y, cut), None if exog is None else _head(exog, cut))
            (one,) = fitted._as_trained([series.part(slice(cut - W, cut + size - 1 + H))])
            one = one._replace(position=cut - W)
            forecasts, came = fitted._rolling(one, W)
            origins = cut + np.arange(size)
            windows = series.y[origins[:, None] + np.arange(-W, 0)]
            found.append(
                {
                    "forecaster": forecasts[..., self._middle()],
                    **simple_forecasts(series.y[:cut], windows, origins, H, self.period),
                }
            )
            if self.residual == "linear":
                _, _, corrected = fitted._windows([one]).read(W + np.arange(size))
                found[-1]["linear"] = corrected * one.deviation + one.mean
            actual.append(came)
            quantiles.append(forecasts)
        return Backtest(
            np.concatenate(actual),
            {name: np.concatenate([of[name] for of in found]) for name in found[0]},
            first + np.arange(folds * size),
            np.repeat(np.arange(folds), size),
            None if self.quantiles is None else np.concatenate(quantiles),
        )

    def trace(
        self,
        y: Any = None,
        exog: Any = None,
        future_exog: Any = None,
        *,
        series: int | None = None,
        start: int | None = None,
    ) -> list[list[Any]]:
        """Return every gate, cell and hidden value while the last window of a series is read.

        Parameters
        ----------
        y, exog, future_exog, series, start
            As of :meth:`predict`, one series.

        Returns
        -------
        list of list
            By layer and direction, as a layer's ``trace`` returns them, for
            :func:`fastlstm.plot.gates`: (window, H) values.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There was no ``fit``.
        ValueError, TypeError
            An argument has another shape, value or type than stated, or there are several series.
        """
        placed, _ = self._placed_ahead(y, exog, future_exog, series, start)
        if len(placed) > 1:
            raise ValueError(f"y: expected one series, got {len(placed)}")
        with self._threads():
            x, _, _ = self._windows(placed).read(np.array([len(placed[0].series.y)]))
            traces: list[list[Any]] = self.network_.layer.trace(x[:, 0])
        return traces

    def _quantiles(self) -> list[float]:
        check_is_fitted(self)
        if self.quantiles is None:
            raise ValueError("quantiles: expected some, say (0.05, 0.5, 0.95), got None")
        return list(self.quantiles)

    def _middle(self) -> int:
        return 0 if self.quantiles is None else list(self.quantiles).index(0.5)

    def _ends(self, coverage: float | None) -> tuple[int, int]:
        """The places of an interval's ends among the quantiles."""
        quantiles = np.array(self._quantiles())
        if coverage is None:
            return 0, len(quantiles) - 1
        coverage = as_real("coverage", coverage, 0.0, 1.0)
        places = []
        for q in ((1 - coverage) / 2, (1 + coverage) / 2):
            place = int(np.abs(quantiles - q).argmin())
            if abs(quantiles[place] - q) > 1e-9:
                raise ValueError(
                    f"coverage: {coverage:g} needs the quantile {q:g}, and there are "
                    f"{', '.join(f'{known:g}' for known in quantiles)}"
                )
            places.append(place)
        return places[0], places[1]

    def _placed_ahead(
        self, y: Any, exog: Any, future_exog: Any, series: int | None, start: int | None
    ) -> tuple[list[_Placed], bool]:
        """The series that are gone on from, and whether these are a list."""
        check_is_fitted(self)
        if y is None:
            for name, value in (("exog", exog), ("series", series), ("start", start)):
                if value is not None:
                    raise ValueError(f"{name}: expected None without y")
            placed, several = self._ends_of_fit(), self.is_list_
        else:
            several = are_several(y)
            placed = [
                one.end(self.window) for one in self._given(y, exog, series, start, self.window)
            ]
        futures = self._futures(future_exog, len(placed), several)
        return [
            one._replace(future=future) for one, future in zip(placed, futures, strict=True)
        ], several

    def _ahead(
        self, y: Any, exog: Any, future_exog: Any, series: int | None, start: int | None
    ) -> tuple[list[Array], list[Form], bool]:
        """The (horizon, S, Q or 1) values after the end of each series; whether it is a list."""
        placed, several = self._placed_ahead(y, exog, future_exog, series, start)
        rows = np.cumsum([len(one.series.y) + self.horizon for one in placed])
        found = self._forecasts(placed, rows - self.horizon)
        return list(found), [one.series.form for one in placed], several

    def _ends_of_fit(self) -> list[_Placed]:
        ends = [
            Series(y, exog, Form.of_plain(form))
            for y, exog, form in zip(self.last_, self.last_exog_, self.forms_, strict=True)
        ]
        return [
            one._replace(position=n - self.window)
            for one, n in zip(self._as_trained(ends), self.lengths_, strict=True)
        ]

    def _given(
        self, y: Any, exog: Any, series: int | None, start: int | None, least: int
    ) -> list[_Placed]:
        """Series of at least so many values that are to be forecast."""
        check_is_fitted(self)
        S, K = self.n_features_in_, len(self.exog_mean_)
        names = exog_names(exog)
        if names is not None and self.exog_names_ is not None and names != self.exog_names_:
            raise ValueError(
                f"exog: expected the columns {self.exog_names_}, as in fit, got {names}"
            )
        of = 0 if len(self.means_) == 1 else None
        if series is not None:
            of = as_int("series", series, 0, len(self.means_) - 1)
        if start is not None:
            start = as_int("start", start, -MOST_SIZE, MOST_SIZE)
        placed = []
        form = Form.of_plain(self.forms_[0])
        for one in as_series(y, exog, S, K, form.columns if form.of_frame else None):
            if len(one.y) < least:
                raise ValueError(f"y: expected at least {least} values, got {len(one.y)}")
            mean, deviation = (
                moments(one.y) if of is None else (self.means_[of], self.deviations_[of])
            )
            position = self._position(one, of or 0) if start is None else start
            placed.append(_Placed(one, mean, deviation, position, self._no_future()))
        return placed

    def _position(self, one: Series, of: int) -> int:
        """The step of a series' first value, counted from the first of a series of ``fit``."""
        fitted = Form.of_plain(self.forms_[of]).continuation
        if self.period is None or fitted is None or one.form.continuation is None:
            return 0
        last = self.lengths_[of] - 1 + one.form.continuation.steps_after(fitted)
        return last - (len(one.y) - 1)

    def _futures(self, future_exog: Any, n: int, several: bool) -> list[Array]:
        K = len(self.known_)
        if not several:
            names, futures = ["future_exog"], [future_exog]
        elif future_exog is None:
            names, futures = ["future_exog"] * n, [None] * n
        elif not isinstance(future_exog, (list, tuple)) or len(future_exog) != n:
            raise ValueError(f"future_exog: expected a list of {n}, one for each series")
        else:
            names, futures = [f"future_exog[{k}]" for k in range(n)], list(future_exog)
        if self.exog_names_ is not None:
            known = [self.exog_names_[k] for k in self.known_]
            futures = [
                with_columns(name, one, known) for name, one in zip(names, futures, strict=True)
            ]
        return [
            as_exog(name, one, self.horizon, K) for name, one in zip(names, futures, strict=True)
        ]

    def _rolling(self, one: _Placed, first: int) -> tuple[Array, Array]:
        """The forecasts of all windows of a series from an origin on, and what came.

        (n, horizon, S, Q or 1), and (n, horizon, S).
        """
        origins = np.arange(first, len(one.series.y) - self.horizon + 1)
        steps = origins[:, None] + np.arange(self.horizon)
        return self._forecasts([one], origins), one.series.y[steps]


def _head(values: Any, n: int) -> Any:
    """The first n times of what a user passes."""
    return values.iloc[:n] if of_pandas(values) else np.asarray(values)[:n]


def _cut(k: int, series: Series, options: SimpleNamespace) -> int:
    """The first step of a series that is held out, or its end."""
    n, H = len(series.y), options.horizon
    held_out = 0
    if options.early_stopping and options.validation_fraction:
        held_out = max(round(n * options.validation_fraction), H)
    if n - held_out < options.window + H:
        raise ValueError(
            f"y: expected at least {options.window + H + held_out} values in each series for "
            f"window={options.window} and horizon={H}, got {n} in series {k}"
        )
    return n - held_out


def _origins(
    series: list[Series], cuts: list[int], options: SimpleNamespace
) -> tuple[IndexArray, IndexArray]:
    """The origins of windows to learn from, none of which reach over a cut, and of others."""
    training, held_out, start = [], [], 0
    for one, cut in zip(series, cuts, strict=True):
        n, H = len(one.y), options.horizon
        training.append(start + np.arange(options.window, cut - H + 1))
        held_out.append(start + np.arange(cut, n - H + 1))
        start += n + H
    return np.concatenate(training), np.concatenate(held_out)
