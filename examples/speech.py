"""Speech: which digit was spoken, and which ones in a row, where nobody says when.

Data: 3,000 recordings of six speakers as MFCC (Free Spoken Digit Dataset, Jackson; CC BY-SA 4.0),
and numbers of three to seven digits that are spliced of them.
What comes out: the accuracy of digits, and which are confused; 1 - the label error of numbers;
beside a support vector machine that hears eight steps of a digit, or of equal parts of a number.
"""

import random

import common
import data
import numpy as np
from fastlstm import plot
from fastlstm.sklearn import SequenceClassifier, SequenceTranscriber, edit_distance
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC


def eight_steps(X: list[np.ndarray]) -> list[np.ndarray]:
    return [x[np.linspace(0, len(x) - 1, 8).round().astype(int)].ravel() for x in X]


def splice(spoken: list[data.Spoken], count: int) -> tuple[list[np.ndarray], list[str]]:
    chance = random.Random(0)
    numbers = [chance.sample(spoken, chance.randint(3, 7)) for _ in range(count)]
    X = [np.concatenate([one.mfcc for one in number]) for number in numbers]
    return X, ["".join(str(one.digit) for one in number) for number in numbers]


def main(use: common.Use) -> None:
    spoken = data.shuffled(data.digits())
    test, train = use.few(spoken[:600]), use.few(spoken[600:], 400)
    X, X_test = ([one.mfcc for one in of] for of in (train, test))
    y, y_test = ([str(one.digit) for one in of] for of in (train, test))
    svm = make_pipeline(FunctionTransformer(eight_steps), StandardScaler(), SVC(C=10)).fit(X, y)
    options = {"hidden_size": 128, "epochs": use.epochs, "random_state": use.seed}
    digit = SequenceClassifier(num_layers=2, bidirectional=False, pooling="mean", **options)
    with common.stopwatch() as training:
        digit.fit(X, y)
    values = {"chance": 0.1, "SVM": svm.score(X_test, y_test), "LSTM": digit.score(X_test, y_test)}
    one = common.seconds_of_request(lambda x: digit.predict([x]), X_test)
    use.report("accuracy", values, training=training.seconds, request=one, twin="digits")
    use.save(plot.confusion(digit, X_test, y_test))

    usual = np.mean([len(x) for x in X])  # of a digit: into such parts the SVM's numbers are cut
    (X, y), (X_test, y_test) = splice(train, 400 if use.quick else 1600), splice(test, 400)
    number = SequenceTranscriber(**options)
    with common.stopwatch() as training:
        number.fit(X, y)
    heard = [svm.predict(np.array_split(x, round(len(x) / usual))) for x in X_test]
    errors = sum(map(edit_distance, heard, y_test)) / len("".join(y_test))
    values = {"nothing": 0.0, "SVM": 1 - errors, "LSTM": number.score(X_test, y_test)}
    one = common.seconds_of_request(lambda x: number.predict([x]), X_test)
    use.report("1 - label error", values, training=training.seconds, request=one, twin="numbers")


if __name__ == "__main__":
    common.run(main, __doc__, epochs=12)
