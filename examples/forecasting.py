"""Forecasts: temperatures of El Niño, sunspots and CO2, from every step of their last fifth.

Data: statsmodels' elnino (NOAA), sunspots (SIDC) and co2 (Mauna Loa; Keeling et al.), all public.
What comes out: the error of an LSTM alone, of one that corrects a linear forecast, and of simple
forecasts, by how many steps they look ahead. All are fitted to what is before, four times.
"""

from __future__ import annotations

from collections.abc import Iterator

import common
import pandas as pd
from fastlstm.sklearn import Forecaster
from matplotlib.figure import Figure
from sklearn.base import clone
from statsmodels.datasets import co2, elnino, sunspots


def series() -> Iterator[tuple[str, pd.Series, dict[str, int], bool]]:
    """Name, values, how they are forecast, and whether they drift to where they never were."""
    years = elnino.load_pandas().data.set_index("YEAR")
    months = pd.date_range("1950-01", periods=years.size, freq="MS")
    monthly = {"window": 24, "horizon": 12, "period": 12}
    yield "El Niño, °C", pd.Series(years.to_numpy().ravel(), months), monthly, False
    weekly = co2.load_pandas().data["co2"]
    yield "CO2, ppm", weekly.resample("MS").mean().interpolate(), monthly, True
    yearly = sunspots.load_pandas().data["SUNACTIVITY"]
    yield "sunspots", yearly, {"window": 22, "horizon": 5}, False


def main(use: common.Use) -> None:
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    for axes, (name, y, options, drifts) in zip(figure.subplots(1, 3), series(), strict=True):
        model = Forecaster(**options, dropout=0.7, epochs=use.epochs, random_state=use.seed)
        test, H = len(y) // 5, model.horizon
        with common.stopwatch() as training:
            model.fit(y[:-test])
        request = common.seconds_of_request(model.predict, [y.to_numpy()] * 20)

        folds = 1 if use.quick else 4
        how = {"folds": folds, "size": (test - H + 1) // folds}
        result = model.backtest(y, **how)
        alone = clone(model).set_params(residual=None, relative=drifts, dropout=0.3)
        result.forecasts["LSTM alone"] = alone.backtest(y, **how).forecasts["forecaster"]
        result.forecasts["linear and LSTM"] = result.forecasts.pop("forecaster")
        rmse = {method: float(of[0]) for method, of in result.rmse().items()}
        times = {"training": training.seconds, "request": request, "epochs": model.n_iter_}
        times |= {"less_is_better": True, "twin": "months" if "Niño" in name else None}
        use.report(f"RMSE, {name}", rmse, **times)
        for method, errors in list(result.rmse_by_step().items())[-4:]:  # not the naive ones
            axes.plot(range(1, H + 1), errors, label=method)
        axes.set(title=name, xlabel="steps ahead", ylim=(0, None))
    axes.legend()
    use.save(figure)


if __name__ == "__main__":
    common.run(main, __doc__, epochs=100)
