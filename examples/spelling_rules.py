"""How a word sounds by rules that are counted: the simple method beside `translation.py`.

Each letter says none, one or two sounds. Which, is first learned of words with a sound for each
letter; then all words are divided among their letters by what is likeliest; and then each letter
says what it says most often between the same neighbours, of which there are as many as were seen.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

Said: TypeAlias = tuple[str, ...]  # by one letter
WIDEST = 4  # neighbours at each side
NEVER_SEEN = -9.0  # the logarithm of the probability of what no letter has said


class Rules:
    """What each letter says between its neighbours.

    Parameters
    ----------
    words : sequence of (letters, sounds)
    """

    def __init__(self, words: Sequence[tuple[str, Sequence[str]]]) -> None:
        counts: defaultdict[str, Counter[Said]] = defaultdict(Counter)
        for letters, sounds in words:
            if len(letters) == len(sounds):
                for letter, sound in zip(letters, sounds, strict=True):
                    counts[letter][(sound,)] += 1
        for _ in range(2):
            likely = _log_probabilities(counts)
            divided = [(letters, _divided(letters, sounds, likely)) for letters, sounds in words]
            counts = defaultdict(Counter)
            for letters, parts in divided:
                for letter, said in zip(letters, parts, strict=True):
                    counts[letter][said] += 1
        heard: defaultdict[str, Counter[Said]] = defaultdict(Counter)
        for letters, parts in divided:
            for place, said in enumerate(parts):
                for context in _contexts(letters, place):
                    heard[context][said] += 1
        self._rules = {context: said.most_common(1)[0][0] for context, said in heard.items()}

    def say(self, letters: str) -> list[str]:
        """Return the sounds of a word: what its letters say between the most known neighbours."""
        sounds: list[str] = []
        for place in range(len(letters)):
            known = (self._rules.get(context) for context in _contexts(letters, place))
            sounds += next((said for said in known if said is not None), ())
        return sounds


def _contexts(letters: str, place: int) -> Iterator[str]:
    """A letter with its neighbours, and its place among them, the most first."""
    padded = f"{'<' * WIDEST}{letters}{'>' * WIDEST}"
    for n in range(WIDEST, -1, -1):
        yield padded[place + WIDEST - n : place + WIDEST + n + 1]


def _log_probabilities(counts: dict[str, Counter[Said]]) -> dict[str, dict[Said, float]]:
    return {
        letter: {said: math.log(n / of_letter.total()) for said, n in of_letter.items()}
        for letter, of_letter in counts.items()
    }


def _divided(
    letters: str, sounds: Sequence[str], likely: dict[str, dict[Said, float]]
) -> Iterable[Said]:
    """The sounds of a word, divided among its letters in the likeliest way."""
    # best[j]: of ways in which the letters so far say the first j sounds, and their parts.
    best: dict[int, tuple[float, tuple[Said, ...]]] = {0: (0.0, ())}
    for place, letter in enumerate(letters):
        after: dict[int, tuple[float, tuple[Said, ...]]] = {}
        left = len(letters) - place - 1
        of_letter = likely.get(letter, {})
        for start, (score, parts) in best.items():
            for end in range(start, min(start + 2, len(sounds)) + 1):
                if len(sounds) - end <= 2 * left:
                    said = tuple(sounds[start:end])
                    total = score + of_letter.get(said, NEVER_SEEN)
                    if end not in after or total > after[end][0]:
                        after[end] = total, (*parts, said)
        best = after
    return best[len(sounds)][1] if len(sounds) in best else ((),) * len(letters)


def word_error(
    train: Sequence[tuple[str, Sequence[str]]], test: Sequence[tuple[str, Sequence[str]]]
) -> float:
    """Return the part of the words of `test` that the rules of `train` say wrong."""
    rules = Rules(train)
    return sum(rules.say(letters) != list(sounds) for letters, sounds in test) / len(test)
