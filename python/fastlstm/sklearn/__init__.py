"""Estimators over sequences, with scikit-learn's conventions: ``fit``, ``predict``, ``score``.

- :mod:`._classifier`, :mod:`._regressor`, :mod:`._tagger`, :mod:`._transcriber`: what is predicted.
- :mod:`._forecaster`: series, over :mod:`._windows` of them, with pandas in :mod:`._series`, simple
  forecasts in :mod:`._baselines`, and a comparison with these in :mod:`._backtest`.
- :mod:`._generator`: what comes next, over :mod:`._steps`, the kinds of steps that sequences have.
- :mod:`._files`: all of them by name, for files.
- :mod:`._sequences`: what these share: X, a network over it, its parts of scores.
- :mod:`._estimator`: what all estimators share: threads, seeds, training, files.
- :mod:`._training`: the loop over epochs and batches. It knows no estimator.
- :mod:`._labels`: labels and their numbers.
- :mod:`._onnx`: ONNX models of them.
- :mod:`._network`: layers and blocks in one order, forward and backward.
- :mod:`._inputs`: sequences of numbers or tokens, as they are passed.
- :mod:`._options`: the arguments of estimators, each declared once.
- :mod:`._plain`: values as JSON has them.
"""

from fastlstm._extras import needs_extra

with needs_extra("fastlstm.sklearn", "sklearn"):
    import sklearn  # noqa: F401

from ._classifier import SequenceClassifier
from ._files import ESTIMATORS
from ._forecaster import Forecaster
from ._generator import SequenceGenerator
from ._regressor import SequenceRegressor
from ._tagger import SequenceTagger
from ._transcriber import SequenceTranscriber, edit_distance

__all__ = [
    "Forecaster",
    "SequenceClassifier",
    "SequenceGenerator",
    "SequenceRegressor",
    "SequenceTagger",
    "SequenceTranscriber",
    "edit_distance",
]

# Where users find them: pickles and messages do not name the modules.
for _cls in ESTIMATORS.values():
    _cls.__module__ = __name__
