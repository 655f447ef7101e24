"""Series as they are passed to a forecaster, and forecasts in the form of these.

pandas is imported where its objects come only: whoever passes them has it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm._checks import shape_text, to_numpy

Array = npt.NDArray[np.float64]
# Of the steps between an index's numbers, relative.
_TOLERANCE = 1e-6


class Continuation(NamedTuple):
    """How the index of a pandas series goes on, in values that files can hold."""

    kind: str
    """"dates", "periods" or "numbers"."""
    last: Any
    """The last label: text, or a number."""
    step: Any
    """The frequency as pandas writes it, or a number."""
    zone: str | None
    """The time zone of dates."""
    name: Any

    def labels(self, n: int) -> Any:
        """Return the next n labels, a pandas index."""
        import pandas as pd

        if self.kind == "dates":
            return pd.date_range(self._date(), periods=n + 1, freq=self.step, name=self.name)[1:]
        if self.kind == "periods":
            first = pd.Period(self.last, freq=self.step) + 1
            return pd.period_range(first, periods=n, freq=self.step, name=self.name)
        return pd.Index(self.last + self.step * np.arange(1, n + 1), name=self.name)

    def _date(self) -> Any:
        import pandas as pd

        date = pd.Timestamp(self.last)
        return date if self.zone is None else date.tz_convert(self.zone)

    def steps_after(self, other: Continuation) -> int:
        """Return how many steps after another's last label this one's is, or before (negative).

        Raises
        ------
        ValueError
            They are of different kinds or steps.
        """
        numbers = self.kind == other.kind == "numbers"
        if numbers and math.isclose(self.step, other.step, rel_tol=_TOLERANCE):
            steps: int = round((self.last - other.last) / self.step)
            return steps
        if not numbers and (self.kind, self.step) == (other.kind, other.step):
            import pandas as pd

            if self.kind == "periods":
                here, there = (pd.Period(one.last, freq=self.step) for one in (self, other))
                return int(here.ordinal - there.ordinal)
            first, last = sorted([self._date(), other._date()])
            steps = len(pd.date_range(first, last, freq=self.step)) - 1
            return steps if self._date() == last else -steps
        raise ValueError(
            f"y: expected an index of {other.kind} by {other.step}, as in fit, got one of "
            f"{self.kind} by {self.step}"
        )


def _continuation(name: str, index: Any) -> Continuation:
    """Look how a pandas index goes on.

    Raises
    ------
    ValueError
        It is not regular.
    """
    import pandas as pd

    if isinstance(index, pd.DatetimeIndex) and len(index) > 0:
        freq = index.freqstr or pd.DatetimeIndex(index, freq="infer").freqstr
        if freq is not None:
            zone = None if index.tz is None else str(index.tz)
            return Continuation("dates", index[-1].isoformat(), freq, zone, index.name)
    elif isinstance(index, pd.PeriodIndex) and len(index) > 0:
        return Continuation("periods", str(index[-1]), index.freqstr, None, index.name)
    elif pd.api.types.is_numeric_dtype(index.dtype) and len(index) > 1:
        numbers = index.to_numpy()
        steps = np.diff(numbers)
        if steps[0] != 0 and np.allclose(steps, steps[0], rtol=_TOLERANCE, atol=0):
            return Continuation("numbers", numbers[-1].item(), steps[0].item(), None, index.name)
    raise ValueError(
        f"{name}: expected an index of dates with a frequency, of periods, or of evenly spaced "
        f"numbers, got {type(index).__name__}"
    )


class Form(NamedTuple):
    """What a caller's series looks like, so that forecasts look the same."""

    one: bool
    """Whether it has one axis."""
    columns: list[Any] | None
    """The names of a DataFrame's columns, or of a Series [its name]; None of NumPy."""
    continuation: Continuation | None
    """Of pandas."""

    @property
    def of_frame(self) -> bool:
        """Whether it is a DataFrame's, whose columns have names to go by."""
        return self.columns is not None and not self.one

    @classmethod
    def of_plain(cls, plain: Any) -> Form:
        """Return what was a form before it was in a file."""
        one, columns, continuation = plain
        return cls(one, columns, None if continuation is None else Continuation(*continuation))

    def shown(self, forecast: Array) -> Any:
        """Return (H, S) values as the caller has them."""
        if self.continuation is None or self.columns is None:
            return forecast[:, 0] if self.one else forecast
        import pandas as pd

        index = self.continuation.labels(len(forecast))
        if self.one:
            return pd.Series(forecast[:, 0], index=index, name=self.columns[0])
        return pd.DataFrame(forecast, index=index, columns=self.columns)

    def shown_quantiles(self, forecast: Array, quantiles: Sequence[float]) -> Any:
        """Return (H, S, Q) values: of pandas a DataFrame with a column for each quantile."""
        if self.continuation is None or self.columns is None:
            return forecast[:, 0] if self.one else forecast
        import pandas as pd

        index = self.continuation.labels(len(forecast))
        if self.one:
            return pd.DataFrame(forecast[:, 0], index=index, columns=list(quantiles))
        columns = pd.MultiIndex.from_product([self.columns, list(quantiles)])
        return pd.DataFrame(forecast.reshape(len(forecast), -1), index=index, columns=columns)


@dataclass
class Series:
    """One series: values of each time, and what else is known of each."""

    y: Array
    """(n, S)."""
    exog: Array
    """(n, K)."""
    form: Form

    def part(self, steps: slice) -> Series:
        """Return some of its times."""
        return Series(self.y[steps], self.exog[steps], self.form)


def of_pandas(value: Any) -> bool:
    """Whether a value is a pandas Series or DataFrame."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, (pandas.Series, pandas.DataFrame))


def are_several(value: Any) -> bool:
    """Whether a value is a list of series, and not one of numbers."""
    return isinstance(value, (list, tuple)) and any(
        of_pandas(item) or np.ndim(item) > 0 for item in value
    )


def _numbers(name: str, value: Any) -> Any:
    """The values of a pandas object; missing ones are NaN."""
    try:
        return value.to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected columns of numbers: {error}") from None


def _as_columns(name: str, value: Any) -> tuple[Array, bool]:
    """Numbers by time as (n, columns) of float64, and whether they had one axis."""
    array = to_numpy(name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got an array of {array.dtype}")
    if array.ndim not in (1, 2):
        raise ValueError(f"{name}: expected (n,) or (n, columns), got {shape_text(array.shape)}")
    one = array.ndim == 1
    array = np.array(array[:, None] if one else array, np.float64, order="C")
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        where = f"row {row}" if one else f"row {row}, column {column}"
        raise ValueError(
            f"{name}: expected finite numbers, got {array[row, column]} in {where}. Fill gaps "
            "before, say with pandas' interpolate()"
        )
    return array, one


def as_target(name: str, value: Any) -> tuple[Array, Form]:
    """Return a series as (n, S) of float64, and what it looked like.

    Raises
    ------
    ValueError, TypeError
        It is no array of numbers of one or two axes, not finite, or of an irregular index.
    """
    if not of_pandas(value):
        array, one = _as_columns(name, value)
        return array, Form(one, None, None)
    columns = [value.name] if value.ndim == 1 else list(value.columns)
    array, one = _as_columns(name, _numbers(name, value))
    return array, Form(one, columns, _continuation(name, value.index))


def as_exog(name: str, value: Any, n: int, columns: int | None) -> Array:
    """Return columns that go with a series as (n, K); those of None are (n, 0).

    Raises
    ------
    ValueError, TypeError
        They are no numbers, of other times, or of another number of columns (None: any).
    """
    if value is None:
        if columns:
            raise ValueError(f"{name}: expected {shape_text((n, columns))}, got None")
        return np.empty((n, 0))
    array, _ = _as_columns(name, _numbers(name, value) if of_pandas(value) else value)
    if len(array) != n or array.shape[1] != (array.shape[1] if columns is None else columns):
        expected = shape_text((n, "columns" if columns is None else columns))
        raise ValueError(f"{name}: expected {expected}, got {shape_text(array.shape)}")
    return array


def as_series(
    y: Any,
    exog: Any,
    targets: int | None = None,
    K: int | None = None,
    columns: list[Any] | None = None,
) -> list[Series]:
    """Return one series or several, with their other columns.

    Parameters
    ----------
    y, exog
        As passed: an object, or for several series a list.
    targets, K : int, optional
        The number of columns that is expected of each.
    columns : list, optional
        The names of the columns of DataFrames; by default those of the first.

    Raises
    ------
    ValueError, TypeError
        They are not as stated.
    """
    if not are_several(y):
        y, names = [y], ["y"]
        exog, exog_names = [exog], ["exog"]
    else:
        names = [f"y[{k}]" for k in range(len(y))]
        exog_names = [f"exog[{k}]" for k in range(len(y))]
        if exog is None:
            exog = [None] * len(y)
        elif not isinstance(exog, (list, tuple)) or len(exog) != len(y):
            raise ValueError(f"exog: expected a list of {len(y)}, one for each series of y")
    series = []
    for one, name, of_one, exog_name in zip(y, names, exog, exog_names, strict=True):
        values, form = as_target(name, one)
        if values.shape[1] != (values.shape[1] if targets is None else targets):
            raise ValueError(f"{name}: expected {targets} columns, got {values.shape[1]}")
        if form.of_frame:
            if columns is not None and form.columns != columns:
                raise ValueError(f"{name}: expected the columns {columns}, got {form.columns}")
            columns = form.columns
        if of_pandas(one) and of_pandas(of_one) and not one.index.equals(of_one.index):
            raise ValueError(f"{exog_name}: expected the index of {name}")
        others = as_exog(exog_name, of_one, len(values), K)
        targets, K = values.shape[1], others.shape[1]
        series.append(Series(values, others, form))
    return series


def exog_names(exog: Any) -> list[Any] | None:
    """Return the names of columns; None of NumPy.

    Raises
    ------
    ValueError
        Those of several series differ.
    """
    if isinstance(exog, (list, tuple)) and len(exog) > 0:
        first, *others = map(exog_names, exog)
        for k, names in enumerate(others, 1):
            if None not in (names, first) and names != first:
                raise ValueError(f"exog[{k}]: expected the columns {first}, got {names}")
        return first
    if not of_pandas(exog):
        return None
    return [exog.name] if exog.ndim == 1 else list(exog.columns)


def with_columns(name: str, value: Any, columns: list[Any]) -> Any:
    """Return a DataFrame with these columns of it; anything else as it is.

    Raises
    ------
    ValueError
        It has not all of them.
    """
    if not of_pandas(value) or value.ndim == 1:
        return value
    missing = [column for column in columns if column not in value.columns]
    if missing:
        raise ValueError(f"{name}: expected the columns {columns}, got {list(value.columns)}")
    return value[columns]
