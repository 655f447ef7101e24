"""Words by the few words before them: the simple method beside `language.py`.

Kneser and Ney 1995, interpolated (Chen and Goodman 1999): a discount is taken from every count, and
given to what fewer words before say, where a word counts by how many others it has come after.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

DISCOUNT = 0.75
BOUNDARY, UNKNOWN = "<>", "<?>"


class Ngrams:
    """The probability of each word of a text, by the words before it.

    Parameters
    ----------
    texts : sequence of list of str
    order : int
        Words that are counted together: 1 is each by itself.
    min_count : int
        Words that come less often are unknown.
    """

    def __init__(self, texts: Sequence[list[str]], order: int = 3, min_count: int = 1) -> None:
        often = Counter(word for text in texts for word in text)
        self._known = {word for word, count in often.items() if count >= min_count}
        self._order = order
        # By words before: how often each word has come; then by fewer, after how many others.
        found = Counter(gram for text in texts for gram in self._grams(text))
        self._counts: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        while found:
            for (*before, word), count in found.items():
                self._counts[tuple(before)][word] += count
            found = Counter(gram[1:] for gram in found if len(gram) > 1)
        self._sums = {before: of_words.total() for before, of_words in self._counts.items()}

    def perplexity(self, texts: Iterable[list[str]]) -> float:
        """exp of the mean of -log p over all words and ends."""
        logs = [math.log(self._p(gram)) for text in texts for gram in self._grams(text)]
        return math.exp(-sum(logs) / len(logs))

    def _grams(self, text: list[str]) -> Iterator[tuple[str, ...]]:
        words = [word if word in self._known else UNKNOWN for word in text]
        words = [BOUNDARY] * (self._order - 1) + words + [BOUNDARY]
        for place in range(self._order - 1, len(words)):
            yield tuple(words[place - self._order + 1 : place + 1])

    def _p(self, gram: tuple[str, ...]) -> float:
        *before, word = gram
        counts = self._counts.get(tuple(before))
        below = self._p(gram[1:]) if before else 1 / (len(self._known) + 2)
        if counts is None:
            return below
        discounted = max(counts[word] - DISCOUNT, 0) + DISCOUNT * len(counts) * below
        return discounted / self._sums[tuple(before)]
