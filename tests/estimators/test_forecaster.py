"""Forecasts: values by hand, what they may know, pandas, simple forecasts, and errors."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest

pytest.importorskip("sklearn")

from fastlstm.sklearn import Forecaster, _baselines
from fastlstm.sklearn._windows import Correction, ForecastProblem, Windows
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit

SMALL: dict[str, Any] = {
    "window": 8,
    "horizon": 3,
    "hidden_size": 8,
    "epochs": 3,
    "random_state": 0,
}


def noisy(n: int = 160, columns: int | None = None, seed: int = 0) -> np.ndarray:
    """Waves with a trend and noise."""
    random = np.random.default_rng(seed)
    t = np.arange(n)
    waves = [np.sin(t / (3 + k)) + 0.02 * t + 5 * k for k in range(columns or 1)]
    y = np.stack(waves, axis=1) + 0.1 * random.standard_normal((n, columns or 1))
    return y[:, 0] if columns is None else y


def by_hand(forecaster: Forecaster, y: np.ndarray, window: int) -> np.ndarray:
    """A forecast of one column by the blocks."""
    mean, deviation = forecaster.means_[0, 0], forecaster.deviations_[0, 0]
    z = (y[-window:] - mean) / deviation
    baseline = forecaster.factors_[0] @ z + forecaster.constants_[0, 0]
    network = forecaster.network_
    x = (z - z[-1]).astype(np.float32)[:, None, None]
    scores = network.out(network.layer(x)[0][-1])[0]
    return (baseline + scores * forecaster.unit_[0]) * deviation + mean


# --- values ---------------------------------------------------------------------------------------


def test_a_forecast_is_that_of_the_blocks() -> None:
    y = noisy()
    forecaster = Forecaster(**{**SMALL, "early_stopping": None}).fit(y)
    assert np.abs(forecaster.network_.params["out.weight"]).max() > 0
    np.testing.assert_allclose(forecaster.predict(), by_hand(forecaster, y, 8), rtol=1e-6)
    other = noisy(50, seed=1)
    np.testing.assert_allclose(forecaster.predict(other), by_hand(forecaster, other, 8), rtol=1e-6)


@pytest.mark.parametrize("period", [None, 12, 5])
def test_the_autoregression_is_statsmodels(period: int | None) -> None:
    ar_model = pytest.importorskip("statsmodels.tsa.ar_model")
    y = noisy(200) + np.tile([0, 0, 3, 0, 1, 0, 0, -2, 0, 0, 0, 0][: period or 1], 200)[:200]
    season = {} if period is None else {"seasonal": True, "period": period}
    trend = "c"
    order = ar_model.ar_select_order(y, 8, ic="aic", trend=trend, **season).ar_lags[-1]
    want = ar_model.AutoReg(y, order, trend=trend, **season).fit().forecast(6)
    fitted = _baselines.fit_autoregression([y], [0], 8, period)
    assert np.flatnonzero(fitted.lags)[-1] + 1 == order
    ahead = _baselines.steps_ahead(fitted, 6)
    phases = np.array([200 % (period or 1)])
    found = _baselines.linear(y[None, -8:, None], phases, [ahead])
    np.testing.assert_allclose(found[0, :, 0], want, rtol=1e-6)


def test_one_autoregression_for_several_series() -> None:
    random = np.random.default_rng(0)
    series = []
    for _ in range(30):
        one = [0.0, 0.0]
        for _ in range(60):
            one.append(0.5 + 0.6 * one[-1] - 0.3 * one[-2] + 0.1 * random.standard_normal())
        series.append(np.array(one[2:]))
    fitted = _baselines.fit_autoregression(series, [0] * 30, 6, None)
    np.testing.assert_allclose(fitted.lags[:2], [0.6, -0.3], atol=0.05)
    assert np.count_nonzero(fitted.lags) < 6  # more than the true order, by chance, but not all
    np.testing.assert_allclose(fitted.constants, 0.5, atol=0.1)


def waves(period: int, n: int = 400) -> np.ndarray:
    """A season that grows and shrinks, and noise."""
    t = np.arange(n)
    season = (1 + 0.5 * np.sin(t / 40)) * np.sin(2 * np.pi * t / period)
    return season + 0.1 * np.random.default_rng(0).standard_normal(n)


def test_autoregressions_with_and_without_a_season_are_mixed() -> None:
    y, W, H = waves(6), 12, 4
    past, targets, times = _baselines._examples([y], [3], W, H)
    assert times[0] == 3 + W
    np.testing.assert_array_equal(past[5], y[5 : 5 + W])
    np.testing.assert_array_equal(targets[5], y[5 + W : 5 + W + H])
    a, b = (
        _baselines.steps_ahead(_baselines.fit_autoregression([y], [3], W, period), H)
        for period in (6, None)
    )
    mixed = _baselines._mixed(a, b, past, targets, times % 6)
    weight = (mixed.factors - b.factors)[0, -1] / (a.factors - b.factors)[0, -1]
    assert 0 < weight < 1

    def error(ahead: _baselines.Ahead) -> float:
        forecasts = _baselines.linear(past[..., None], times % 6, [ahead])[..., 0]
        return float(((forecasts - targets) ** 2).sum())

    for other in (weight - 0.01, weight + 0.01):
        pair = zip(a, b, strict=True)
        beside = _baselines.Ahead(*(other * of_a + (1 - other) * of_b for of_a, of_b in pair))
        assert error(mixed) < error(beside)
    # Two that are the same.
    assert np.array_equal(_baselines._mixed(b, b, past, targets, 0 * times).factors, b.factors)


def test_naive_forecasts() -> None:
    windows = np.arange(12.0).reshape(1, 6, 2)
    np.testing.assert_array_equal(_baselines.naive(windows, 2)[0], [[10, 11], [10, 11]])
    found = _baselines.seasonal_naive(windows, 5, 3)[0, :, 0]
    np.testing.assert_array_equal(found, [6, 8, 10, 6, 8])


@pytest.mark.parametrize("quantiles", [(), (0.1, 0.5)])
@pytest.mark.parametrize("known", [0, 2])
def test_gradients(quantiles: tuple[float, ...], known: int) -> None:
    """Those of all parameters against finite differences."""
    options = {**SMALL, "dtype": "float64", "dropout": 0.0, "epochs": 1}
    exog = np.random.default_rng(1).standard_normal((160, 2)) if known else None
    forecaster = Forecaster(
        **options, quantiles=quantiles or None, known=bool(known), lr=0.05, early_stopping=None
    ).fit(noisy(columns=2), exog)
    random = np.random.default_rng(0)
    windows = Windows(
        random.standard_normal((40, 2)),
        np.zeros((40, 0)),
        random.standard_normal((40, known)),
        np.zeros(40, np.int64),
        8,
        3,
        True,
        lambda past, _: _baselines.naive(past, 3),
    )
    network = forecaster.network_
    unit = np.array([0.5, 2.0])
    correction = Correction(network, unit, np.array(quantiles))
    problem = ForecastProblem(windows, np.arange(8, 30), correction)
    rows = np.array([0, 5, 9])
    loss, grads = problem.gradients(rows, np.random.default_rng(0))
    assert loss == pytest.approx(problem.loss(rows))
    flat = dict(network._flat(grads))
    assert set(flat) == set(network.params)
    for name, gradient in flat.items():
        value = np.array(network.params[name])
        direction = random.standard_normal(value.shape)
        losses = []
        for step in (1e-6, -1e-6):
            network.update({name: value + step * direction})
            losses.append(problem.loss(rows))
        network.update({name: value})
        want = (losses[0] - losses[1]) / 2e-6
        assert (gradient * direction).sum() == pytest.approx(want, rel=1e-5, abs=1e-8), name


# --- what may be known ----------------------------------------------------------------------------


def test_what_is_held_out_is_the_end() -> None:
    """What comes after the cut changes the held-out loss, and not what is learned from."""
    y = noisy(100)
    changed = y.copy()
    changed[90:] += np.linspace(0, 1, 10)
    options = {**SMALL, "epochs": 1, "validation_fraction": 0.2, "relative": True}
    first, second = Forecaster(**options).fit(y), Forecaster(**options).fit(changed)
    assert first.validation_loss_curve_ != second.validation_loss_curve_
    # Scales are of the whole series; what is learned is not, but for these.
    assert first.loss_curve_ == pytest.approx(second.loss_curve_, rel=0.05)
    from fastlstm.sklearn._forecaster import _cut, _origins
    from fastlstm.sklearn._series import as_series

    checked = first._checked()
    series = as_series([y, y[:60]], None)
    cuts = [_cut(k, one, checked) for k, one in enumerate(series)]
    assert cuts == [80, 48]
    training, held_out = _origins(series, cuts, checked)
    second_starts = 100 + checked.horizon
    want = [*range(8, 78), *range(second_starts + 8, second_starts + 46)]
    assert training.tolist() == want
    want = [*range(80, 98), *range(second_starts + 48, second_starts + 58)]
    assert held_out.tolist() == want


def test_where_training_does_not_help_the_baseline_remains() -> None:
    random = np.random.default_rng(3)
    y = np.cumsum(random.standard_normal(120))
    forecaster = Forecaster(**{**SMALL, "lr": 1.0, "clip": None, "epochs": 2}).fit(y)
    assert forecaster.best_epoch_ == 0
    assert min(forecaster.validation_loss_curve_) >= forecaster.baseline_loss_
    assert not forecaster.network_.params["out.weight"].any()
    scaled = (y - forecaster.means_[0]) / forecaster.deviations_[0]
    fitted = _baselines.fit_linear([scaled], [0], 8, 3, None)
    np.testing.assert_allclose(forecaster.factors_[0], fitted.factors)  # of all values in the end


def test_columns_that_are_known_ahead() -> None:
    random = np.random.default_rng(0)
    exog = random.standard_normal((400, 2))
    y = 3 * exog[:, 0] + 0.1 * random.standard_normal(400) + 10
    options: dict[str, Any] = {**SMALL, "epochs": 60, "lr": 0.01, "dropout": 0.0}
    future = np.array([[1.0, 0], [-1, 0], [2, 0]])
    known = Forecaster(**options, known=[0]).fit(y, exog)
    np.testing.assert_allclose(known.predict(future_exog=future[:, :1]), [13, 7, 16], atol=0.7)
    unknown = Forecaster(**options).fit(y, exog)
    assert known.score(y[-100:], exog[-100:]) > 0.9 > 0.3 > unknown.score(y[-100:], exog[-100:])
    # A whole series from its end, or those values as a series of their own.
    again = known.predict(y[-20:], exog[-20:], future[:, :1])
    np.testing.assert_allclose(again, known.predict(future_exog=future[:, :1]))


def test_what_a_window_reads() -> None:
    rows = np.arange(20.0)[:, None]
    phases = np.arange(20)
    windows = Windows(
        rows**2,
        rows,
        100 + rows,
        phases,
        4,
        3,
        True,
        lambda past, at: past[:, -3:] + at[:, None, None],
    )
    x, ahead, baseline = windows.read(np.array([6, 10]))
    assert x.shape == (4, 2, 4)
    np.testing.assert_array_equal(x[:, 0, 0], [4 - 25, 9 - 25, 16 - 25, 0])
    np.testing.assert_array_equal(x[:, 0, 1], [2, 3, 4, 5])
    np.testing.assert_array_equal(x[:, 0, 2], [102, 103, 104, 105])
    np.testing.assert_array_equal(x[:, 0, 3], [105, 106, 107, 108])  # three steps later
    np.testing.assert_array_equal(ahead, [[106, 107, 108], [110, 111, 112]])
    np.testing.assert_array_equal(baseline[1, :, 0], np.array([49, 64, 81]) + 10)
    np.testing.assert_array_equal(windows.targets(np.array([6]))[0, :, 0], [36, 49, 64])


def test_a_column_that_is_known_until_now_only() -> None:
    random = np.random.default_rng(0)
    exog = random.standard_normal(500)
    y = np.roll(exog, 1) * 2 + 0.1 * random.standard_normal(500)  # the next value is known
    options: dict[str, Any] = {**SMALL, "horizon": 1, "epochs": 40, "lr": 0.01, "dropout": 0.0}
    assert Forecaster(**options).fit(y, exog).score(y, exog) > 0.8
    assert Forecaster(**options).fit(y).score(y) < 0.3


def test_the_time_of_the_season() -> None:
    """A forecast of the values before the season's peak knows where they are in it."""
    random = np.random.default_rng(0)
    y = np.tile([0.0, 0, 0, 0, 0, 0, 5], 60) + 0.1 * random.standard_normal(420)
    forecaster = Forecaster(**{**SMALL, "window": 4, "horizon": 7}, period=7).fit(y)
    np.testing.assert_allclose(forecaster.predict(), [0, 0, 0, 0, 0, 0, 5], atol=0.6)
    for last in range(400, 407):
        found = forecaster.predict(y[last - 4 : last], start=last - 4)
        np.testing.assert_allclose(found, np.roll([0, 0, 0, 0, 0, 0, 5], -last % 7), atol=0.6)


@pytest.mark.parametrize("residual", ["linear", "seasonal", None])
@pytest.mark.parametrize("relative", [True, False])
def test_all_kinds_of_baselines(residual: str | None, relative: bool) -> None:
    y = noisy(200)
    options = {**SMALL, "period": 8, "residual": residual, "relative": relative}
    forecaster = Forecaster(**options).fit(y)
    baseline = clone(forecaster).set_params(lr=1e-9, epochs=1).fit(y).predict()
    if residual == "seasonal":
        np.testing.assert_allclose(baseline, y[-8:-5], rtol=1e-5)
    elif residual is None:
        np.testing.assert_allclose(baseline, y[-1] if relative else y.mean(), rtol=1e-5)
    assert np.isfinite(forecaster.predict()).all()
    assert forecaster.predict().shape == (3,)


# --- forms ----------------------------------------------------------------------------------------


def test_shapes() -> None:
    one = Forecaster(**SMALL).fit(noisy())
    assert one.predict().shape == (3,)
    several = Forecaster(**SMALL).fit(noisy(columns=2))
    assert several.predict().shape == (3, 2)
    assert several.n_features_in_ == 2
    assert several.predict(noisy(columns=2)[:30]).shape == (3, 2)
    of_list = Forecaster(**SMALL, quantiles=[0.2, 0.5, 0.8]).fit([noisy(), 100 * noisy(90)])
    first, second = of_list.predict()
    assert first.shape == second.shape == (3,)
    assert np.abs(second / 100 - noisy(93)[-3:]).max() < 1
    assert [q.shape for q in of_list.predict_quantiles()] == [(3, 3)] * 2
    np.testing.assert_allclose(of_list.predict(100 * noisy(90), series=1), second)
    # A series of its own scale.
    alone = of_list.predict(noisy(90))
    np.testing.assert_allclose(of_list.predict(1000 * noisy(90)), 1000 * alone, rtol=1e-4)


def test_pandas() -> None:
    pd = pytest.importorskip("pandas")
    y = pd.Series(noisy(), pd.date_range("2001-01-31", periods=160, freq="ME"), name="sales")
    forecaster = Forecaster(**SMALL, period=12, quantiles=(0.1, 0.5, 0.9)).fit(y)
    found = forecaster.predict()
    want = pd.date_range("2014-05-31", periods=3, freq="ME")
    assert found.name == "sales"
    assert (found.index == want).all()
    quantiles = forecaster.predict_quantiles()
    assert list(quantiles.columns) == [0.1, 0.5, 0.9]
    pd.testing.assert_series_equal(quantiles[0.5], found, check_names=False)
    lower, upper = forecaster.predict_interval()
    assert (lower <= found).all()
    assert (found <= upper).all()
    # The index says where in the season a part of the series is.
    part = y.iloc[25:100]
    np.testing.assert_allclose(
        forecaster.predict(part), forecaster.predict(part.to_numpy(), start=25)
    )
    assert forecaster.predict(part).index[0] == y.index[100]
    before = pd.Series(
        y.to_numpy()[:20], pd.date_range("1999-06-30", periods=20, freq="ME"), name="sales"
    )
    np.testing.assert_allclose(
        forecaster.predict(before), forecaster.predict(before.to_numpy(), start=-19)
    )


@pytest.mark.parametrize(
    ("index", "following"),
    [
        (lambda pd: pd.period_range("2000Q1", periods=160, freq="Q"), "2040Q1"),
        (lambda pd: pd.RangeIndex(10, 330, 2), 330),
        (lambda pd: pd.Index(np.arange(1800.0, 1960.0)), 1960.0),
        (lambda pd: pd.date_range("2024-03-01", periods=160, freq="h", tz="Europe/Berlin"), None),
        (
            lambda pd: pd.DatetimeIndex(pd.date_range("2024-01-07", periods=160, freq="W")._data),
            None,
        ),
    ],
    ids=["periods", "range", "floats", "zone", "inferred"],
)
def test_indexes(index: Any, following: Any, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    labels = index(pd)
    frame = pd.DataFrame(noisy(columns=2), labels, ["a", "b"])
    forecaster = Forecaster(**SMALL, quantiles=[0.5], period=4).fit(frame.iloc[:150])
    found = forecaster.predict()
    assert list(found.columns) == ["a", "b"]
    assert (found.index == labels[150:153]).all()
    assert found.index.dtype == labels.dtype
    assert forecaster._position(forecaster._given(frame, None, None, None, 1)[0].series, 0) == 0
    if following is not None:
        assert str(forecaster.predict(frame).index[0]) == str(following)
    assert forecaster.predict_quantiles().columns.tolist() == [("a", 0.5), ("b", 0.5)]
    forecaster.save(tmp_path / "f.safetensors")
    again = fastlstm.load(tmp_path / "f.safetensors").predict()
    pd.testing.assert_frame_equal(again, found)


def test_exog_of_pandas() -> None:
    pd = pytest.importorskip("pandas")
    index = pd.date_range("2024-01-01", periods=160, freq="D")
    y = pd.Series(noisy(), index)
    random = np.random.default_rng(0)
    exog = pd.DataFrame(random.standard_normal((160, 2)), index, ["price", "weather"])
    forecaster = Forecaster(**SMALL, known=["price"]).fit(y, exog)
    later = pd.DataFrame({"other": [7, 8, 9], "price": [1.0, 2.0, 3.0]})
    found = forecaster.predict(future_exog=later)
    np.testing.assert_array_equal(
        found, forecaster.predict(y, exog, np.array([[1.0], [2.0], [3.0]]))
    )
    with pytest.raises(ValueError, match=r"exog: expected the columns \['price', 'weather'\]"):
        forecaster.predict(y, exog[["weather", "price"]], later)
    with pytest.raises(ValueError, match=r"future_exog: expected the columns \['price'\], got"):
        forecaster.predict(future_exog=later[["other"]])
    with pytest.raises(ValueError, match="exog: expected the index of y"):
        forecaster.fit(y, exog.iloc[::-1])
    with pytest.raises(ValueError, match=r"known: expected columns of exog \(price, weather\)"):
        clone(forecaster).set_params(known=["cost"]).fit(y, exog)


# --- quantiles ------------------------------------------------------------------------------------


def test_quantiles_cover() -> None:
    random = np.random.default_rng(0)
    y = random.standard_normal(600)
    forecaster = Forecaster(
        **{**SMALL, "epochs": 30, "lr": 0.01}, quantiles=(0.05, 0.25, 0.5, 0.75, 0.95)
    ).fit(y)
    lower, upper = forecaster.predict_interval()
    np.testing.assert_allclose(upper - lower, 2 * 1.645, rtol=0.3)
    lower, upper = forecaster.predict_interval(coverage=0.5)
    np.testing.assert_allclose(upper - lower, 2 * 0.674, rtol=0.4)
    found = forecaster.predict_quantiles()
    assert (np.diff(found, axis=1) >= 0).all()
    np.testing.assert_array_equal(found[:, 2], forecaster.predict())
    result = forecaster.set_params(epochs=20).backtest(y, folds=1, size=100)
    assert result.coverage() == pytest.approx(0.9, abs=0.07)
    with pytest.raises(ValueError, match=r"coverage: 0.8 needs the quantile 0.1, and there are"):
        forecaster.predict_interval(coverage=0.8)


def test_quantiles_do_not_cross() -> None:
    forecaster = Forecaster(**SMALL, quantiles=(0.1, 0.5, 0.9)).fit(noisy())
    network = forecaster.network_
    falling = np.tile([1.0, 0.0, -1.0], 3)
    network.update({"out.weight": np.zeros((9, 8)), "out.bias": falling})
    found = forecaster.predict_quantiles()
    network.update({"out.bias": -falling})
    assert (np.diff(found, axis=1) > 0).all()
    np.testing.assert_array_equal(found, forecaster.predict_quantiles())


# --- backtest -------------------------------------------------------------------------------------


def test_backtest() -> None:
    y = noisy()
    forecaster = Forecaster(**SMALL, period=4)
    result = forecaster.backtest(y, folds=2, size=5)
    assert not hasattr(forecaster, "network_")
    assert result.origins.tolist() == list(range(148, 158))
    assert result.fold.tolist() == [0] * 5 + [1] * 5
    steps = result.origins[:, None] + np.arange(3)
    np.testing.assert_array_equal(result.actual[..., 0], y[steps])
    np.testing.assert_array_equal(
        result.forecasts["naive"][..., 0], y[steps[:, :1] - 1 + 0 * steps]
    )
    np.testing.assert_array_equal(result.forecasts["seasonal naive"][..., 0], y[steps - 4])
    for fold, cut in ((0, 148), (1, 153)):
        fitted = clone(forecaster).fit(y[:cut])
        want = [fitted.predict(y[:origin]) for origin in range(cut, cut + 5)]
        found = result.forecasts["forecaster"][result.fold == fold, :, 0]
        np.testing.assert_allclose(found, want, rtol=1e-6)
        fitted.network_.update({"out.weight": np.zeros((3, 8)), "out.bias": np.zeros(3)})
        want = [fitted.predict(y[:origin]) for origin in range(cut, cut + 5)]
        found = result.forecasts["linear"][result.fold == fold, :, 0]
        np.testing.assert_allclose(found, want, rtol=1e-6)
        mean, deviation = y[:cut].mean(), y[:cut].std()
        of_past = _baselines.fit_autoregression([(y[:cut] - mean) / deviation], [0], 8, 4)
        ahead = _baselines.steps_ahead(of_past, 3)
        window = (y[cut - 8 : cut] - mean) / deviation
        want = (ahead.factors @ window + ahead.constants[cut % 4]) * deviation + mean
        found = result.forecasts["autoregression"][result.fold == fold, :, 0]
        np.testing.assert_allclose(found[0], want, rtol=1e-6)
    errors = result.forecasts["naive"] - result.actual
    assert result.rmse()["naive"] == pytest.approx(np.sqrt((errors**2).mean()))
    assert result.mae()["naive"] == pytest.approx(np.abs(errors).mean())
    assert result.rmse_by_step()["naive"].shape == (3, 1)
    assert f"{result.rmse()['forecaster'][0]:.4g}" in repr(result)
    with pytest.raises(ValueError, match="quantiles: expected a forecaster with some, got None"):
        result.coverage()


def test_backtest_of_pandas_with_exog() -> None:
    pd = pytest.importorskip("pandas")
    index = pd.period_range("2001-01", periods=160, freq="M")
    y = pd.DataFrame(noisy(columns=2), index, ["a", "b"])
    exog = pd.DataFrame({"holiday": np.arange(160) % 7 == 0}, index)
    result = Forecaster(**SMALL, known=["holiday"]).backtest(y, exog, folds=2)
    assert result.actual.shape == (6, 3, 2)
    assert "seasonal naive" not in result.forecasts
    assert "2 folds" in repr(result)


# --- an estimator ---------------------------------------------------------------------------------


def test_files_pickles_and_clones(tmp_path: Path) -> None:
    y, exog = noisy(columns=2), np.random.default_rng(0).standard_normal((160, 3))
    forecaster = Forecaster(**SMALL, known=[2, 0], period=6, quantiles=(0.1, 0.5)).fit(y, exog)
    future = np.ones((3, 2))
    want = forecaster.predict(future_exog=future)
    forecaster.save(tmp_path / "f.safetensors")
    for again in (
        fastlstm.load(tmp_path / "f.safetensors"),
        pickle.loads(pickle.dumps(forecaster)),
    ):
        assert type(again) is Forecaster
        assert again.get_params() == forecaster.get_params()
        np.testing.assert_array_equal(again.predict(future_exog=future), want)
        np.testing.assert_array_equal(
            again.predict_quantiles(y, exog, future), forecaster.predict_quantiles(y, exog, future)
        )
    copy = clone(forecaster)
    assert not hasattr(copy, "network_")
    np.testing.assert_array_equal(copy.fit(y, exog).predict(future_exog=future), want)


def test_files_that_say_something_else(tmp_path: Path) -> None:
    y, exog = noisy(columns=2), np.ones((160, 3))
    forecaster = Forecaster(**SMALL, known=[2, 0], period=6, quantiles=(0.1, 0.5)).fit(y, exog)
    path = tmp_path / "f.safetensors"
    for name, value in {
        "means_": np.ones((1, 3)),
        "last_": [np.ones((7, 2))],
        "last_exog_": [],
        "lengths_": [160, 160],
        "factors_": np.ones((2, 3, 9)),
        "constants_": np.ones((2, 1, 3)),
        "known_": [0, 3],
        "forms_": [(True, None)],
        "unit_": np.ones(3),
        "exog_mean_": np.ones(4),
        "horizon": 10**9,
        "window": 10**9,
        "period": 5,
        "quantiles": (0.5,),
        "residual": "trend",
    }.items():
        other = copy.deepcopy(forecaster)
        setattr(other, name, value)
        other.save(path)
        with pytest.raises(ValueError, match="damaged, or of another version"):
            fastlstm.load(path)
    other = copy.deepcopy(forecaster)
    del other.unit_
    other.save(path)
    with pytest.raises(ValueError, match="damaged, or of another version"):
        fastlstm.load(path)


def test_the_same_bits_for_any_number_of_threads() -> None:
    y = noisy()
    first, second = (Forecaster(**SMALL, n_threads=n, batch_size=64).fit(y) for n in (1, 2))
    np.testing.assert_array_equal(first.predict(), second.predict())
    assert first.loss_curve_ == second.loss_curve_
    assert not np.array_equal(
        first.predict(), Forecaster(**{**SMALL, "random_state": 1}).fit(y).predict()
    )


def test_a_search_over_splits_in_time() -> None:
    y = noisy(200)
    splits = TimeSeriesSplit(2, test_size=30)
    search = GridSearchCV(Forecaster(**{**SMALL, "epochs": 1}), {"window": [4, 8]}, cv=splits)
    search.fit(y)
    assert search.best_estimator_.predict().shape == (3,)
    assert search.best_score_ > 0


def test_score_is_r2_of_all_forecasts() -> None:
    y = noisy()
    forecaster = Forecaster(**SMALL).fit(y)
    origins = range(8, 158)
    found = np.array([forecaster.predict(y[:origin]) for origin in origins])
    actual = np.array([y[origin : origin + 3] for origin in origins])
    want = 1 - ((found - actual) ** 2).sum() / ((actual - actual.mean()) ** 2).sum()
    assert forecaster.score(y) == pytest.approx(want, rel=1e-6)


def test_a_trace_is_of_the_last_window() -> None:
    forecaster = Forecaster(**SMALL).fit(noisy())
    ((trace,),) = forecaster.trace()
    assert trace.h.shape == (8, 8)
    ((again,),) = forecaster.trace(noisy())
    np.testing.assert_array_equal(trace.h, again.h)
    with pytest.raises(ValueError, match="y: expected one series, got 2"):
        forecaster.trace([noisy(), noisy()])


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "y", "message"),
    [
        ({}, np.r_[noisy(), np.nan], r"y: expected finite numbers, got nan in row 160. Fill gaps"),
        ({}, np.full((50, 2), np.inf), "y: expected finite numbers, got inf in row 0, column 0"),
        (
            {},
            noisy(13),
            r"y: expected at least 14 values in each series for window=8 and horizon=3",
        ),
        ({}, [noisy(), noisy(9)], "got 9 in series 1"),
        ({}, np.zeros((50, 2, 2)), r"y: expected \(n,\) or \(n, columns\), got \(50, 2, 2\)"),
        ({}, [noisy(), noisy(columns=2)], r"y\[1\]: expected 1 columns, got 2"),
        ({"residual": "seasonal"}, noisy(), "period: expected one for residual='seasonal'"),
        ({"residual": "seasonal", "period": 9}, noisy(), "window: expected an integer from 9"),
        ({"residual": "ar"}, noisy(), "residual: expected one of 'linear', 'seasonal', got 'ar'"),
        (
            {"quantiles": [0.1, 0.9]},
            noisy(),
            "quantiles: expected rising numbers .* 0.5 among them",
        ),
        ({"quantiles": [0.5, 0.1]}, noisy(), "quantiles: expected rising numbers"),
        ({"quantiles": [0.5, 1]}, noisy(), "quantiles: expected rising numbers"),
        ({"window": 0}, noisy(), "window: expected an integer from 1"),
        ({"period": 1}, noisy(), "period: expected an integer from 2"),
        ({"known": [1]}, noisy(), r"known: expected columns of exog \(\), got 1"),
    ],
)
def test_values_that_are_refused(options: dict[str, Any], y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Forecaster(**{**SMALL, **options}).fit(y)


@pytest.mark.parametrize(
    ("options", "y", "message"),
    [
        ({}, ["a", "b"], "y: expected real numbers, got an array of <U1"),
        ({"quantiles": 0.5}, noisy(), "quantiles: expected numbers between 0 and 1, got float"),
        ({"known": "price"}, noisy(), "known: expected True, False or columns, got str"),
    ],
)
def test_types_that_are_refused(options: dict[str, Any], y: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Forecaster(**{**SMALL, **options}).fit(y)


def test_calls_that_are_refused() -> None:
    y, exog = noisy(), np.ones((160, 2))
    forecaster = Forecaster(**SMALL, known=True)
    with pytest.raises(Exception, match="not fitted yet"):
        forecaster.predict()
    forecaster.fit(y, exog)
    with pytest.raises(ValueError, match=r"future_exog: expected \(3, 2\), got None"):
        forecaster.predict()
    with pytest.raises(ValueError, match=r"future_exog: expected \(3, 2\), got \(3, 1\)"):
        forecaster.predict(future_exog=np.ones(3))
    with pytest.raises(ValueError, match=r"exog: expected \(160, 2\), got None"):
        forecaster.predict(y, future_exog=exog[:3])
    with pytest.raises(ValueError, match=r"exog: expected \(160, columns\), got \(159, 2\)"):
        forecaster.fit(y, exog[1:])
    with pytest.raises(ValueError, match="exog: expected None without y"):
        forecaster.predict(exog=exog)
    with pytest.raises(ValueError, match="y: expected at least 8 values, got 5"):
        forecaster.predict(y[:5], exog[:5], exog[:3])
    with pytest.raises(ValueError, match="y: expected at least 11 values, got 10"):
        forecaster.score(y[:10], exog[:10])
    with pytest.raises(ValueError, match="quantiles: expected some, say"):
        forecaster.predict_interval()
    with pytest.raises(ValueError, match="series: expected an integer from 0 to 0, got 1"):
        forecaster.predict(y, exog, exog[:3], series=1)
    with pytest.raises(TypeError, match="start: expected an integer, got float"):
        forecaster.predict(y, exog, exog[:3], start=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="y: expected one series, got a list"):
        forecaster.backtest([y, y])
    with pytest.raises(ValueError, match="y: expected more values for 60 folds of 3, got 160"):
        forecaster.backtest(y, exog, folds=60)
    with pytest.raises(ValueError, match="exog: expected a list of 2"):
        forecaster.fit([y, y], exog)


def test_after_an_error_a_forecaster_is_as_it_was() -> None:
    forecaster = Forecaster(**SMALL).fit(noisy())
    want = forecaster.predict()
    with pytest.raises(ValueError, match="known: expected columns of exog"):
        forecaster.set_params(known=[5]).fit(noisy(seed=1), noisy(seed=2))
    np.testing.assert_array_equal(forecaster.set_params(known=False).predict(), want)
    forecaster.set_params(residual=None).fit(noisy())
    assert not hasattr(forecaster, "factors_")  # of another fit


def test_irregular_indexes_are_refused() -> None:
    pd = pytest.importorskip("pandas")
    for labels in (
        pd.DatetimeIndex(["2024-01-01", "2024-01-02", "2024-01-09"]),
        pd.Index(["a", "b", "c"]),
        pd.Index([0, 1, 5]),
    ):
        with pytest.raises(ValueError, match="y: expected an index of dates with a frequency"):
            Forecaster(**SMALL).fit(pd.Series([1.0, 2.0, 3.0], labels))
    y = pd.Series(noisy(), pd.date_range("2001-01-31", periods=160, freq="ME"))
    forecaster = Forecaster(**SMALL, period=12).fit(y)
    with pytest.raises(ValueError, match="y: expected an index of dates by ME, as in fit, got one"):
        forecaster.predict(pd.Series(noisy(), pd.RangeIndex(160)))
    with pytest.raises(TypeError, match="y: expected columns of numbers"):
        forecaster.fit(pd.Series(["a"] * 160, y.index))


def test_columns_of_frames_go_by_their_names() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(noisy(columns=2), columns=["a", "b"])
    forecaster = Forecaster(**SMALL).fit(frame)
    with pytest.raises(ValueError, match=r"y: expected the columns \['a', 'b'\], got \['b', 'a'\]"):
        forecaster.predict(frame[["b", "a"]])
    with pytest.raises(ValueError, match=r"y\[1\]: expected the columns \['a', 'b'\]"):
        Forecaster(**SMALL).fit([frame, frame[["b", "a"]]])
    forecaster.predict(frame.to_numpy())  # NumPy has no names
    forecaster.predict(frame)
    y = frame["a"]
    with pytest.raises(ValueError, match=r"exog\[1\]: expected the columns \['a', 'b'\]"):
        Forecaster(**SMALL).fit([y, y], [frame, frame[["b", "a"]]])


def test_steps_of_an_index_differ_by_rounding() -> None:
    pd = pytest.importorskip("pandas")
    y = pd.Series(noisy(400), np.arange(400) * 0.1)
    forecaster = Forecaster(**SMALL, period=4).fit(y[:300])
    later = y[300:360]
    assert forecaster.predict(later).equals(forecaster.predict(later, start=300))


def test_a_table_of_many_columns_has_gaps() -> None:
    result = Forecaster(**SMALL).backtest(1e6 * noisy(columns=5), folds=1)
    head, *rows = repr(result).splitlines()[1:]
    assert head.split() == ["RMSE", "MAE"]
    assert all(len(row.split()) == 11 for row in rows)
    assert len({len(row) for row in (head, *rows)}) == 1
