"""Music: what comes next in Bach's chorales, and a chorale that he did not write.

Data: 364 chorales for four voices, 88 keys of a piano each quarter (J. S. Bach, out of copyright;
from music21's corpus, encoded by M. Greentree).
What comes out: nats a frame, how surprising each is after those before; a chorale that begins with
eight quarters of Bach's, ``music.mid``, and its piano roll.
"""

from __future__ import annotations

import common
import data
import midi
import numpy as np
from fastlstm.sklearn import SequenceGenerator
from matplotlib.figure import Figure
from sklearn.neural_network import MLPClassifier


def nats(chances: np.ndarray, frames: np.ndarray) -> float:
    return float(-np.log(np.where(frames, chances, 1 - chances)).sum(axis=1).mean())


def main(use: common.Use) -> None:
    rolls = data.shuffled(data.chorales())
    test, train = use.few(rolls[:72]), use.few(rolls[72:])
    train = [np.roll(roll, keys, axis=1) for roll in train for keys in range(-3, 4)]  # transposed
    how = {"batch_size": 8, "lr": 5e-3}
    model = SequenceGenerator(frames="binary", hidden_size=200, dropout=0.5, **how)
    model.set_params(epochs=use.epochs, random_state=use.seed)
    with common.stopwatch() as training:
        model.fit(train)
    request = common.seconds_of_request(lambda roll: model.log_prob([roll]), test)

    before, before_test = (np.concatenate([roll[:-1] for roll in of]) for of in (train, test))
    after, after_test = (np.concatenate([roll[1:] for roll in of]) for of in (train, test))
    linear = MLPClassifier((), batch_size=min(1000, len(after)), learning_rate_init=0.01, tol=0.01)
    linear.set_params(max_iter=1000, random_state=use.seed).fit(before, after)
    of_first = model.log_prob([roll[:1] for roll in test])  # is not counted
    values = {
        "each key as often as ever": nats(after.mean(0).clip(1e-4), after_test),
        "linear in the frame before": nats(linear.predict_proba(before_test), after_test),
        "LSTM": -(model.log_prob(test) - of_first).sum() / len(after_test),
    }
    times = {"training": training.seconds, "request": request, "twin": "music, transposed"}
    use.report("nats a frame", values, less_is_better=True, **times, **how)

    (roll,) = model.sample(max_length=56, prime=test[0][:8], random_state=use.seed)
    midi.of_roll(roll).save(use.path("music.mid"))
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(roll.T, aspect="auto", origin="lower", cmap="Greys")
    axes.axvline(7.5, color="C1")  # where Bach ends
    axes.set(ylim=(15, 65), xlabel="quarter", ylabel="key of a piano")
    use.save(figure)


if __name__ == "__main__":
    common.run(main, __doc__, epochs=8)
