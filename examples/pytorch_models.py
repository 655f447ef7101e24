"""Seven jobs on real data, each a small PyTorch model as its user would write it.

`pytorch_jobs.py` trains these models as they are, and again after ``fastlstm.torch.accelerate``.
No model has dropout, so that the same seed gives the same losses whoever computes.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import data
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

PADDING, UNKNOWN = 0, 1
MOST_WORDS = 10_000  # of texts
IGNORED = -100  # the label of a padded step: functional.cross_entropy leaves it out

# How recurrent layers get sequences of uneven lengths: as a PackedSequence; padded with zeros,
# which they take for steps like any other; or padded, with lengths=, which accelerated layers know.
Form = Literal["packed", "padded", "lengths"]


class Example(NamedTuple):
    x: Tensor  # (T,) symbols or (T, I) features
    y: Tensor  # a label, or one for each step, or a sequence of another length


class Batch(NamedTuple):
    x: Tensor  # (B, T) or (B, T, I), padded with zeros
    lengths: Tensor  # (B,)
    y: Tensor  # (B,) or (B, U), padded with IGNORED
    y_lengths: Tensor  # (B,)


def collate(examples: Sequence[Example]) -> Batch:
    """Make a batch, padded to its longest sequence."""
    x = pad_sequence([example.x for example in examples], batch_first=True)
    targets = [torch.atleast_1d(example.y) for example in examples]
    y = pad_sequence(targets, batch_first=True, padding_value=IGNORED)
    lengths = torch.tensor([len(example.x) for example in examples])
    y_lengths = torch.tensor([len(target) for target in targets])
    return Batch(x, lengths, y.squeeze(1) if examples[0].y.ndim == 0 else y, y_lengths)


class Data(NamedTuple):
    """Examples of a job, and what its model must know of them."""

    train: list[Example]
    test: list[Example]
    sizes: dict[str, Any]  # arguments of its model


class Job(nn.Module):
    """A model, its data, its loss and its measure."""

    title: ClassVar[str]
    measure: ClassVar[str]
    epochs: ClassVar[int]  # until the measure says something; more make it better

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form

    @staticmethod
    def load() -> Data:
        """The data, always in the same order."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        """Scores of what the targets may be."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Tensor:
        """What training makes small: the cross entropy, where a model has no other."""
        scores = self(batch)  # (B, C) or (B, T, C)
        return functional.cross_entropy(scores.flatten(0, -2), batch.y.flatten())

    def answer(self, batch: Batch) -> Any:
        """What a request gets: the best label, of the sequence or of each step."""
        return self(batch).argmax(-1)

    def score(self, batches: Iterable[Batch]) -> float:
        """The measure over all batches: the share of right labels, where a job has no other."""
        right = total = 0
        for batch in batches:
            right += int((self.answer(batch) == batch.y).sum())
            total += len(batch.y)
        return right / total

    def run(
        self, rnn: nn.LSTM, x: Tensor, lengths: Tensor, state: Any = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """A recurrent layer's output (B, T, D*H) and final state."""
        if self.form == "padded":
            return rnn(x, state)
        if self.form == "lengths":
            return rnn(x, state, lengths=lengths)
        sequences = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, state = rnn(sequences, state)
        padded, _ = pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])
        return padded, state


def is_padding(lengths: Tensor, T: int) -> Tensor:
    """(B, T): which steps are behind the end of their sequence."""
    return torch.arange(T) >= lengths[:, None]


def vocabulary(texts: Iterable[Iterable[str]], size: int) -> dict[str, int]:
    """Number the most frequent symbols, above PADDING and UNKNOWN."""
    counts = Counter(itertools.chain.from_iterable(texts))
    return {symbol: number for number, (symbol, _) in enumerate(counts.most_common(size), 2)}


def numbers(symbols: Iterable[str], known: dict[str, int]) -> Tensor:
    return torch.tensor([known.get(symbol, UNKNOWN) for symbol in symbols])


class TextClassifier(Job):
    """Words, both directions, the largest value of each unit over time, a linear layer."""

    title, measure, epochs = "text: topic of news (Reuters R8)", "accuracy", 1

    def __init__(self, words: int, labels: int, form: Form) -> None:
        super().__init__(form)
        self.embedding = nn.Embedding(words, 64, padding_idx=PADDING)
        self.rnn = nn.LSTM(64, 128, batch_first=True, bidirectional=True)
        self.head = nn.Linear(256, labels)

    @staticmethod
    def load() -> Data:
        return _labelled(data.shuffled(data.reuters("train")), data.reuters("test"))

    def forward(self, batch: Batch) -> Tensor:
        output, _ = self.run(self.rnn, self.embedding(batch.x), batch.lengths)
        padding = is_padding(batch.lengths, batch.x.shape[1])
        return self.head(output.masked_fill(padding[:, :, None], -torch.inf).amax(1))


class Sentiment(TextClassifier):
    title, measure, epochs = "sentiment: film reviews", "accuracy", 1

    @staticmethod
    def load() -> Data:
        return _labelled(*_snippets())


def _snippets() -> tuple[list[data.Text], list[data.Text]]:
    texts = data.shuffled([text for text in data.snippets() if text.words])
    return texts[2000:], texts[:2000]


class GloveSentiment(Sentiment):
    """The same, whose vectors of words begin as GloVe's, where there are such."""

    def __init__(self, words: int, labels: int, vectors: Tensor, form: Form) -> None:
        super().__init__(words, labels, form)
        self.embedding = nn.Embedding.from_pretrained(vectors.clone(), False, PADDING)
        self.rnn = nn.LSTM(vectors.shape[1], 128, batch_first=True, bidirectional=True)

    @staticmethod
    def load() -> Data:
        train, test = _snippets()
        made, glove = _labelled(train, test), data.glove()
        vectors = torch.randn(made.sizes["words"], glove.dim) * float(glove.vectors.std())
        vectors[[PADDING, UNKNOWN]] = 0
        for word, number in vocabulary((text.words for text in train), MOST_WORDS).items():
            if word in glove:
                vectors[number] = torch.tensor(glove[word])
        return made._replace(sizes={**made.sizes, "vectors": vectors})


def _labelled(train: list[data.Text], test: list[data.Text]) -> Data:
    """Texts of at most 150 words, from the most frequent ones."""
    known = vocabulary((text.words for text in train), MOST_WORDS)
    labels = sorted({text.label for text in train})
    made = [
        [
            Example(numbers(text.words[:150], known), torch.tensor(labels.index(text.label)))
            for text in texts
        ]
        for texts in (train, test)
    ]
    return Data(made[0], made[1], {"words": len(known) + 2, "labels": len(labels)})


class DigitClassifier(Job):
    """MFCC, two layers, the mean over time, a linear layer."""

    title, measure, epochs = "speech: spoken digits", "accuracy", 5

    def __init__(self, features: int, labels: int, form: Form) -> None:
        super().__init__(form)
        self.rnn = nn.LSTM(features, 128, 2, batch_first=True)
        self.head = nn.Linear(128, labels)

    @staticmethod
    def load() -> Data:
        made = [Example(torch.from_numpy(s.mfcc), torch.tensor(s.digit)) for s in _spoken()]
        return Data(made[600:], made[:600], {"features": made[0].x.shape[1], "labels": 10})

    def forward(self, batch: Batch) -> Tensor:
        output, _ = self.run(self.rnn, batch.x, batch.lengths)
        padding = is_padding(batch.lengths, batch.x.shape[1])
        total = output.masked_fill(padding[:, :, None], 0).sum(1)
        return self.head(total / batch.lengths[:, None])


def _spoken() -> list[data.Spoken]:
    """All recordings, each coefficient with mean 0 and deviation 1."""
    spoken = data.shuffled(data.digits())
    frames = torch.cat([torch.from_numpy(s.mfcc) for s in spoken])
    mean, scale = frames.mean(0).numpy(), frames.std(0).numpy()
    return [data.Spoken((s.mfcc - mean) / scale, s.digit) for s in spoken]


class NumberTranscriber(Job):
    """Spoken numbers of three to seven digits, by connectionist temporal classification."""

    title, measure, epochs = "speech: spoken numbers (CTC)", "1 - label error", 4
    blank = 10

    def __init__(self, features: int, labels: int, form: Form) -> None:
        super().__init__(form)
        self.rnn = nn.LSTM(features, 128, batch_first=True, bidirectional=True)
        self.head = nn.Linear(256, labels)

    @staticmethod
    def load() -> Data:
        spoken = _spoken()
        chance = random.Random(0)
        train, test = (
            [_splice(chance.sample(some, chance.randint(3, 7))) for _ in range(count)]
            for some, count in ((spoken[600:], 1600), (spoken[:600], 400))
        )
        return Data(train, test, {"features": train[0].x.shape[1], "labels": 11})

    def forward(self, batch: Batch) -> Tensor:
        output, _ = self.run(self.rnn, batch.x, batch.lengths)
        return self.head(output)

    def loss(self, batch: Batch) -> Tensor:
        scores = self(batch).log_softmax(-1).transpose(0, 1)  # (T, B, C)
        y = batch.y.clamp(min=0)  # what lies behind y_lengths is not read
        return functional.ctc_loss(scores, y, batch.lengths, batch.y_lengths, blank=self.blank)

    def answer(self, batch: Batch) -> list[list[int]]:
        """The best label of each step, repetitions and blanks left out."""
        best = self(batch).argmax(-1).tolist()
        return [
            [label for label, _ in itertools.groupby(steps[:length]) if label != self.blank]
            for steps, length in zip(best, batch.lengths.tolist(), strict=True)
        ]

    def score(self, batches: Iterable[Batch]) -> float:
        wrong = total = 0
        for batch in batches:
            for got, y, length in zip(self.answer(batch), batch.y, batch.y_lengths, strict=True):
                wrong += edit_distance(got, y[:length].tolist())
                total += int(length)
        return 1 - wrong / total


def _splice(spoken: list[data.Spoken]) -> Example:
    return Example(
        torch.cat([torch.from_numpy(s.mfcc) for s in spoken]),
        torch.tensor([s.digit for s in spoken]),
    )


def edit_distance(a: Sequence[object], b: Sequence[object]) -> int:
    """The least number of insertions, deletions and changes from a to b."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            least = min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
            diagonal, row[j] = row[j], least
    return row[-1]


class Composer(Job):
    """The next quarter of a chorale, each key on or off, from all quarters before."""

    title, measure, epochs = "music: Bach's chorales", "nats a frame", 30

    def __init__(self, keys: int, form: Form) -> None:
        super().__init__(form)
        self.rnn = nn.LSTM(keys, 200, batch_first=True)
        self.head = nn.Linear(200, keys)

    @staticmethod
    def load() -> Data:
        rolls = data.shuffled([torch.from_numpy(roll) for roll in data.chorales()])
        made = [Example(roll[:-1], roll[1:]) for roll in rolls]
        return Data(made[72:], made[:72], {"keys": data.KEYS})

    def forward(self, batch: Batch) -> Tensor:
        output, _ = self.run(self.rnn, batch.x, batch.lengths)
        return self.head(output)

    def loss(self, batch: Batch) -> Tensor:
        heard = ~is_padding(batch.lengths, batch.x.shape[1])
        scores = self(batch)[heard]
        total = functional.binary_cross_entropy_with_logits(scores, batch.y[heard], reduction="sum")
        return total / len(scores)

    def answer(self, batch: Batch) -> Tensor:
        return self(batch) > 0

    def score(self, batches: Iterable[Batch]) -> float:
        losses = [(float(self.loss(batch)), int(batch.lengths.sum())) for batch in batches]
        return sum(loss * frames for loss, frames in losses) / sum(frames for _, frames in losses)


class TransposedComposer(Composer):
    """The same with dropout, which learns each chorale in seven keys."""

    def forward(self, batch: Batch) -> Tensor:
        output, _ = self.run(self.rnn, batch.x, batch.lengths)
        return self.head(functional.dropout(output, 0.5, self.training))

    @staticmethod
    def load() -> Data:
        made = Composer.load()
        train = [
            Example(example.x.roll(keys, 1), example.y.roll(keys, 1))
            for example in made.train
            for keys in range(-3, 4)
        ]
        return made._replace(train=train)


class MonthsAhead(Job):
    """Twelve months of El Niño from 24: what to add to a seasonal autoregression's forecast."""

    title, measure, epochs = "forecasting: El Niño", "RMSE, °C", 25
    window, horizon = 24, 12

    def __init__(self, features: int, form: Form) -> None:
        super().__init__(form)
        self.rnn = nn.LSTM(features, 32, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(32, self.horizon)
        nn.init.zeros_(self.head.weight)  # training begins with the autoregression
        nn.init.zeros_(self.head.bias)

    @staticmethod
    def load() -> Data:
        """The last fifth is the test; of what is before, 15 % are left out, as ours holds out."""
        from statsmodels.datasets import elnino
        from statsmodels.tsa.ar_model import AutoReg

        y = torch.from_numpy(elnino.load_pandas().data.to_numpy()[:, 1:].ravel())
        known = len(y) - len(y) // 5
        learned = known - round(0.15 * known)
        W, H = MonthsAhead.window, MonthsAhead.horizon
        fit = AutoReg(y[:learned].numpy(), W, trend="n", seasonal=True, period=12).fit()
        month, lags = torch.from_numpy(fit.params).split([12, W])
        angle = 2 * torch.pi * torch.arange(len(y)) / 12
        scaled = (y - y[:known].mean()) / y[:known].std()
        x = torch.stack([scaled, angle.sin(), angle.cos()], 1).float()

        def example(origin: int) -> Example:
            ahead = y[origin - W : origin]
            for t in range(origin, origin + H):
                ahead = torch.cat([ahead, (month[t % 12] + lags @ ahead[-W:].flip(0))[None]])
            left = y[origin : origin + H] - ahead[W:]
            return Example(x[origin - W : origin], left.float())

        train, test = range(W, learned - H + 1), range(known, len(y) - H + 1)
        return Data([*map(example, train)], [*map(example, test)], {"features": 3})

    def forward(self, batch: Batch) -> Tensor:
        _, (h, _) = self.run(self.rnn, batch.x, batch.lengths)
        return self.head(self.drop(h[-1]))

    def loss(self, batch: Batch) -> Tensor:
        return functional.mse_loss(self(batch), batch.y)

    def answer(self, batch: Batch) -> Tensor:
        return self(batch)

    def score(self, batches: Iterable[Batch]) -> float:
        squares = torch.cat([(self(batch) - batch.y).square() for batch in batches])
        return float(squares.mean().sqrt())


class Tagger(Job):
    """Characters, both directions, a tag for each: where names begin and go on."""

    title, measure, epochs = "tagging: names in Chinese news", "F1", 1
    tags: ClassVar = ("O", "B-nr", "I-nr", "B-ns", "I-ns", "B-nt", "I-nt")

    def __init__(self, characters: int, form: Form) -> None:
        super().__init__(form)
        self.embedding = nn.Embedding(characters, 64, padding_idx=PADDING)
        self.rnn = nn.LSTM(64, 128, batch_first=True, bidirectional=True)
        self.head = nn.Linear(256, len(self.tags))

    @staticmethod
    def load() -> Data:
        texts = data.shuffled(data.names())[:6000]
        known = vocabulary((text.characters for text in texts[1000:]), 4000)
        number = {tag: i for i, tag in enumerate(Tagger.tags)}
        made = [
            Example(
                numbers(text.characters[:100], known),
                torch.tensor([number[tag] for tag in text.tags[:100]]),
            )
            for text in texts
        ]
        return Data(made[1000:], made[:1000], {"characters": len(known) + 2})

    def forward(self, batch: Batch) -> Tensor:
        output, _ = self.run(self.rnn, self.embedding(batch.x), batch.lengths)
        return self.head(output)

    def score(self, batches: Iterable[Batch]) -> float:
        """F1 of whole names of the right kind."""
        right = found = there = 0
        for batch in batches:
            answers = zip(self.answer(batch).tolist(), batch.y.tolist(), batch.lengths, strict=True)
            for got, want, length in answers:
                ours, theirs = self._names(got[:length]), self._names(want[:length])
                right += len(ours & theirs)
                found += len(ours)
                there += len(theirs)
        return 2 * right / (found + there)

    def _names(self, tags: list[int]) -> set[tuple[int, int, int]]:
        """Beginning, end and kind of each name."""
        names, start = set(), 0
        for position, tag in enumerate([*tags, 0]):
            goes_on = tag and tag % 2 == 0 and position and tags[position - 1] in (tag, tag - 1)
            if not goes_on:
                if position and tags[position - 1]:
                    names.add((start, position, (tags[position - 1] + 1) // 2))
                start = position
        return names


class CrfTagger(Tagger):
    """The same, with a conditional random field over the tags: of the package pytorch-crf."""

    def __init__(self, characters: int, form: Form) -> None:
        from torchcrf import CRF

        super().__init__(characters, form)
        self.crf = CRF(len(self.tags), batch_first=True)

    def loss(self, batch: Batch) -> Tensor:
        heard = ~is_padding(batch.lengths, batch.x.shape[1])
        return -self.crf(self(batch), batch.y.clamp(min=0), heard, reduction="mean")

    def answer(self, batch: Batch) -> Tensor:
        heard = ~is_padding(batch.lengths, batch.x.shape[1])
        tags = [torch.tensor(path) for path in self.crf.decode(self(batch), heard)]
        return pad_sequence(tags, batch_first=True, padding_value=IGNORED)


class Speller(Job):
    """From letters to phonemes: an encoder, a decoder, and attention (Luong et al. 2015)."""

    title, measure, epochs = "translation: spelling to sound", "word error", 3
    longest = 20  # phonemes of an answer

    def __init__(self, letters: int, phonemes: int, form: Form) -> None:
        super().__init__(form)
        self.letters = nn.Embedding(letters, 64, padding_idx=PADDING)
        self.phonemes = nn.Embedding(phonemes, 64)
        self.encoder = nn.LSTM(64, 128, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(256, 128)
        self.decoder = nn.LSTM(64, 128, batch_first=True)
        self.query = nn.Linear(128, 256)
        self.mix = nn.Linear(128 + 256, 128)
        self.head = nn.Linear(128, phonemes)

    @staticmethod
    def load() -> Data:
        return _spelled(data.shuffled(data.pronunciations())[:13_000])

    def encode(self, batch: Batch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        memory, (h, _) = self.run(self.encoder, self.letters(batch.x), batch.lengths)
        h = self.bridge(torch.cat([h[0], h[1]], -1)).tanh()[None]
        return memory, (h, torch.zeros_like(h))

    def attend(self, output: Tensor, memory: Tensor, batch: Batch) -> Tensor:
        """Scores of the phonemes (B, U, C) from what the decoder gave and the encoder keeps."""
        likeness = self.query(output) @ memory.transpose(1, 2)  # (B, U, T)
        padding = is_padding(batch.lengths, memory.shape[1])[:, None]
        weights = likeness.masked_fill(padding, -torch.inf).softmax(-1)
        mixed = self.mix(torch.cat([output, weights @ memory], -1)).tanh()
        return self.head(mixed)

    def forward(self, batch: Batch) -> Tensor:
        memory, state = self.encode(batch)
        before = functional.pad(batch.y.clamp(min=0)[:, :-1], (1, 0), value=UNKNOWN)
        output, _ = self.run(self.decoder, self.phonemes(before), batch.y_lengths, state)
        return self.attend(output, memory, batch)

    def answer(self, batch: Batch) -> list[list[int]]:
        """Phoneme after phoneme, the likeliest each time."""
        memory, state = self.encode(batch)
        symbol = torch.full((len(batch.x), 1), UNKNOWN)
        steps = []
        for _ in range(self.longest):
            output, state = self.decoder(self.phonemes(symbol), state)
            symbol = self.attend(output, memory, batch).argmax(-1)
            steps.append(symbol)
            if len(batch.x) == 1 and symbol.item() == PADDING:
                break
        rows = torch.cat(steps, 1).tolist()
        return [list(itertools.takewhile(lambda s: s != PADDING, row)) for row in rows]

    def score(self, batches: Iterable[Batch]) -> float:
        wrong = total = 0
        for batch in batches:
            for got, y, length in zip(self.answer(batch), batch.y, batch.y_lengths, strict=True):
                wrong += got != y[: length - 1].tolist()
                total += 1
        return wrong / total


class DictionarySpeller(Speller):
    """The same, from all words of the dictionary."""

    @staticmethod
    def load() -> Data:
        return _spelled(data.shuffled(data.pronunciations()))


def _spelled(words: list[data.Pronunciation]) -> Data:
    letters = vocabulary((word.letters for word in words), 26)
    sounds = vocabulary((word.phonemes for word in words), 100)
    end = torch.tensor([PADDING])
    made = [
        Example(numbers(word.letters, letters), torch.cat([numbers(word.phonemes, sounds), end]))
        for word in words
    ]
    sizes = {"letters": len(letters) + 2, "phonemes": len(sounds) + 2}
    return Data(made[1000:], made[:1000], sizes)


class LanguageModel(Job):
    """The next word of a text: an LSTM, dropout, and a linear layer for all words."""

    title, measure, epochs = "language: words of news", "perplexity", 6

    def __init__(self, words: int, form: Form) -> None:
        super().__init__(form)
        self.embedding = nn.Embedding(words, 200, padding_idx=PADDING)
        self.rnn = nn.LSTM(200, 200, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(200, words)

    @staticmethod
    def load() -> Data:
        train, test = (
            [text.words[:100] for text in data.shuffled(data.reuters(part))]
            for part in ("train", "test")
        )
        counts = Counter(itertools.chain.from_iterable(train))
        known = vocabulary(train, sum(count > 1 for count in counts.values()))
        boundary = torch.tensor([len(known) + 2])
        made = []
        for texts in (train, test):
            whole = [torch.cat([boundary, numbers(text, known), boundary]) for text in texts]
            made.append([Example(text[:-1], text[1:]) for text in whole])
        return Data(made[0], made[1], {"words": len(known) + 3})

    def forward(self, batch: Batch) -> Tensor:
        output, _ = self.run(self.rnn, self.embedding(batch.x), batch.lengths)
        return self.head(self.drop(output))

    def answer(self, batch: Batch) -> Tensor:
        """The next word, after one text."""
        output, _ = self.rnn(self.embedding(batch.x))
        return self.head(output[:, -1]).argmax(-1)

    def score(self, batches: Iterable[Batch]) -> float:
        losses = [(float(self.loss(batch)), int(batch.lengths.sum())) for batch in batches]
        words = sum(count for _, count in losses)
        return math.exp(sum(loss * count for loss, count in losses) / words)


JOBS: dict[str, type[Job]] = {
    "text": TextClassifier,
    "sentiment": Sentiment,
    "digits": DigitClassifier,
    "numbers": NumberTranscriber,
    "music": Composer,
    "names": Tagger,
    "spelling": Speller,
}

# And those that only the uses are compared with.
TWINS: dict[str, type[Job]] = {
    **JOBS,
    "glove": GloveSentiment,
    "names, CRF": CrfTagger,
    "months": MonthsAhead,
    "music, transposed": TransposedComposer,
    "dictionary": DictionarySpeller,
    "language": LanguageModel,
}
