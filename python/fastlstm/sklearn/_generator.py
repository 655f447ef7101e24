"""Sequences like those of the training data."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from fastlstm._checks import MOST_SIZE, FloatArray, IndexArray, as_int, as_real
from fastlstm.nn import Embedding, bucket_batches

from ._estimator import Estimator, held_out_of, new_random
from ._inputs import (
    Sequences,
    as_tokenize,
    encode,
    make_vocabulary,
    moments,
    read_numbers,
    read_tokens,
    scaled,
)
from ._network import Network, make_network
from ._options import as_count, estimator, one_of, option, or_none
from ._steps import (
    BinaryFrames,
    GaussianFrames,
    NextStep,
    Steps,
    Tokens,
    cut,
    log_likelihoods,
)

SelfT = TypeVar("SelfT", bound="SequenceGenerator")
# What joins the tokens of a text that one of these has split.
_JOINED_BY: dict[str | None, str] = {"characters": "", "space": " ", "words": " "}


@estimator
class SequenceGenerator(Estimator):
    """A model of what comes next in sequences, which can be sampled: text, music, events.

    A recurrent layer reads each step, and a linear layer says what the next one is: which token, or
    which values a frame has. Sequences of tokens say where they end, too.

    Parameters
    ----------
    {options}

    Attributes
    ----------
    network_ : fastlstm.nn.Module
        With the parts ``words`` (of tokens), ``layer``, ``drop`` and ``out``.
    loss_curve_, validation_loss_curve_ : list of float
        By epoch: the mean of a token, or of a value of a frame.
    n_iter_, best_epoch_ : int
        Epochs, and that whose parameters were kept.
    vocabulary_ : dict
        Of tokens.
    n_features_in_ : int
        F, of frames.

    Examples
    --------
    >>> generator = SequenceGenerator(hidden_size=16, epochs=100, lr=0.02, random_state=0)
    >>> generator = generator.fit(["red green blue", "yellow"] * 20)
    >>> generator.sample(2, prime="red", temperature=0.1, random_state=0)
    ['red green blue', 'red green blue']
    """

    frames: str | None = option(
        None,
        or_none(one_of("binary", "gaussian")),
        '{"binary", "gaussian"} or None',
        "None: sequences are of tokens. Otherwise each step is a frame of F numbers: of 0 and 1 "
        "(keys of a piano), or of any, each normally distributed.",
    )
    embedding: int = option(64, as_count, "int", "The size of a token's vector.")
    tokenize: Any = option(
        "characters",
        as_tokenize,
        '{"characters", "words", "space"}, callable or None',
        "What makes tokens of a text, where X is texts. A function is not saved: it is None then.",
    )
    min_count: int = option(
        1, as_count, "int", "Tokens that come less often in the training data are unknown."
    )
    bptt: int | None = option(
        None,
        or_none(as_count),
        "int or None",
        "Truncated back-propagation: sequences are learned in pieces of so many steps, each from "
        "the state after the steps before it (as many, without gradients). None: whole.",
    )

    # --- fit -----------------------------------------------------------------------------------

    def fit(self: SelfT, X: Any, y: Any = None, lengths: Any = None) -> SelfT:
        """Fit the model.

        Parameters
        ----------
        X : list, str or array_like
            n sequences: texts or one text, lists of tokens (text or integers), or an array (n, T)
            of integers. With ``frames`` (T_i, F) arrays, or an array (n, T, F).
        y : None
            Not looked at.
        lengths : array_like of int, optional
            (n,): the steps that sequences of one array have.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            An option or an argument has another shape, value or type than stated.
        """
        options = self._checked()
        with self._attributes_unless_an_error(forget=True), self._threads():
            random = self._new_random()
            sequences = self._learn_inputs(X, lengths, options)
            steps = self._kind()
            pieces, owners = cut(sequences, steps, options.bptt)
            order, held_out = self._held_out(owners, options, random)
            network = self._new_network(steps, sequences, options, random)
            self._train(NextStep(network, pieces.some(order), steps), options, held_out=held_out)
        return self

    def partial_fit(self: SelfT, X: Any, y: Any = None, lengths: Any = None) -> SelfT:
        """Learn from some more sequences: one epoch, in which nothing is held out.

        Vocabulary and scales are those of the first call, or of ``fit``.

        Parameters
        ----------
        X, y, lengths
            As of :meth:`fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As of :meth:`fit`.
        """
        options = self._checked()
        with self._attributes_unless_an_error(), self._threads():
            first = self._begin_partial()
            if first:
                sequences = self._learn_inputs(X, lengths, options)
            else:
                sequences = self._read_inputs(X, lengths)
            steps = self._kind()
            pieces, _ = cut(sequences, steps, options.bptt)
            if first:
                network = self._new_network(steps, sequences, options, self._random)
            else:
                network = self.network_
            self._train(NextStep(network, pieces, steps), options, one_epoch=True)
        return self

    def _held_out(
        self, owners: IndexArray, options: SimpleNamespace, random: np.random.Generator
    ) -> tuple[IndexArray, int]:
        """An order in which pieces that are held out are last, and how many these are.

        They are whole sequences, or of a single one its end.
        """
        n = int(owners[-1]) + 1
        if n == 1:
            return np.arange(len(owners)), held_out_of(len(owners), options)
        count = held_out_of(n, options)
        chosen = random.permutation(n)[:count] if count else np.arange(0)
        is_held_out = np.isin(owners, chosen)
        return np.argsort(is_held_out, kind="stable"), int(is_held_out.sum())

    def _new_network(
        self,
        steps: Steps,
        sequences: Sequences,
        options: SimpleNamespace,
        random: np.random.Generator,
    ) -> Network:
        words = None
        if options.frames is None:
            seed = int(random.integers(2**63))
            words = Embedding(steps.n_in, options.embedding, dtype=options.dtype, seed=seed)
        n_in = steps.n_in if words is None else options.embedding
        network = make_network(options, n_in, steps.n_out, random, words=words)
        bias = steps.first_bias(sequences.values)
        if bias is not None:
            network.update({"out.bias": bias})
        return network

    def _loaded(self) -> None:
        self.tokenize = self.split_by_
        steps, network = self._kind(), self.network_
        reads = network.words.V if self.frames is None else network.layer.input_size
        if (reads, network.out.n_out) != (steps.n_in, steps.n_out):
            raise ValueError(f"{steps.n_in} tokens or numbers, and a network of {reads}")

    # --- X -------------------------------------------------------------------------------------

    def _kind(self) -> Steps:
        """What a step is."""
        if self.frames is None:
            return Tokens(len(self.vocabulary_) + 2)  # unknown ones, and the boundary
        cls = BinaryFrames if self.frames == "binary" else GaussianFrames
        return cls(self.n_features_in_)

    def _learn_inputs(self, X: Any, lengths: Any, options: SimpleNamespace) -> Sequences:
        """Read sequences, and learn their vocabulary, or features and scales."""
        self.is_text_: bool = False
        self.split_by_: str | None = None if callable(options.tokenize) else options.tokenize
        self.mean_: FloatArray | None = None
        self.scale_: FloatArray | None = None
        if options.frames is None:
            X = [X] if isinstance(X, str) else X
            tokens = read_tokens(X, lengths, options.tokenize)
            self.is_text_ = isinstance(next(iter(X)), str) and self.split_by_ is not None
            self.vocabulary_: dict[Any, int] = make_vocabulary(tokens, options.min_count)
            return encode(tokens, self.vocabulary_)
        sequences = read_numbers(X, lengths, self)
        self.n_features_in_: int = sequences.values.shape[1]
        if options.frames == "gaussian":
            self.mean_, self.scale_ = moments(sequences.values)
        return self._scaled(sequences)

    def _read_inputs(self, X: Any, lengths: Any) -> Sequences:
        """Read sequences as they were learned."""
        if self.frames is None:
            X = [X] if isinstance(X, str) else X
            return encode(read_tokens(X, lengths, self.tokenize), self.vocabulary_)
        sequences = read_numbers(X, lengths, self)
        features = sequences.values.shape[1]
        if features != self.n_features_in_:
            raise ValueError(f"X: expected frames of {self.n_features_in_} numbers, got {features}")
        return self._scaled(sequences)

    def _scaled(self, sequences: Sequences) -> Sequences:
        if self.frames == "binary" and not np.isin(sequences.values, (0, 1)).all():
            raise ValueError("X: expected frames of 0 and 1 for frames='binary'")
        return scaled(sequences, self.mean_, self.scale_, self.dtype)

    # --- samples -------------------------------------------------------------------------------

    def sample(
        self,
        n: int = 1,
        *,
        max_length: int = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        prime: Any = None,
        random_state: Any = None,
    ) -> list[Any]:
        """Draw sequences, step by step.

        Parameters
        ----------
        n : int
            How many.
        max_length : int
            The most steps of each, beside `prime`; of frames, which do not say where they end, all
            have so many.
        temperature : float
            Above 0. Below 1 likely steps are likelier, and frames nearer to their mean.
        top_k, top_p : int and float, optional
            Of tokens: only the likeliest ones, as of :func:`fastlstm.nn.draw`.
        prime : str, list of tokens, or array_like, optional
            What all begin with: one sequence, as X had them, which may be without steps.
        random_state : int, RandomState or None
            Makes the draws reproducible.

        Returns
        -------
        list
            Of n sequences, as X had them: texts (lists of tokens where a function has split them),
            lists of tokens, or arrays (T_i, F). Unknown tokens are none of them.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There was no ``fit``.
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        check_is_fitted(self)
        n = as_int("n", n, 1, MOST_SIZE)
        max_length = as_int("max_length", max_length, 1, MOST_SIZE)
        if as_real("temperature", temperature, 0.0, sys.float_info.max) == 0:
            raise ValueError("temperature: expected a number above 0, got 0")
        if self.frames is not None and (top_k is not None or top_p is not None):
            raise ValueError("top_k, top_p: expected None for frames")
        random = new_random(random_state)
        steps, network = self._kind(), self.network_
        begin = self._begin(prime, steps)
        drawn: list[npt.NDArray[Any]] = []
        with self._threads():
            stream = network.layer.stream(n)
            x = np.repeat(begin[:, None], n, axis=1)
            h = stream.run(network.read(x))[-1]
            going = np.ones(n, np.bool_)
            while len(drawn) < max_length:
                step = steps.draw(network.out(h), temperature, top_k, top_p, random)
                drawn.append(step)
                if steps.ends:
                    going &= step != steps.boundary()
                    if not going.any():
                        break
                stream.step(network.read(step), h)
        return self._shown(np.concatenate([x[1:], drawn]), steps)

    def _begin(self, prime: Any, steps: Steps) -> npt.NDArray[Any]:
        """What all sequences begin with: the boundary, and the first steps."""
        if prime is None or len(prime) == 0:
            shape = (1,) if self.frames is None else (1, steps.n_in)
            dtype = np.int64 if self.frames is None else self.dtype
            return np.full(shape, steps.boundary(), dtype)
        pieces, _ = cut(self._read_inputs([prime], None), steps, None)
        return pieces.values[:-1] if steps.ends else pieces.values

    def _shown(self, drawn: npt.NDArray[Any], steps: Steps) -> list[Any]:
        """(T, n, ...) steps as X had them."""
        if self.frames == "binary":
            return list(drawn.swapaxes(0, 1).astype(np.uint8))
        if self.mean_ is not None and self.scale_ is not None:
            return list(drawn.swapaxes(0, 1) * self.scale_ + self.mean_)
        tokens = ["?", *self.vocabulary_]
        shown = []
        for places in drawn.T.tolist():
            end = places.index(steps.boundary()) if steps.boundary() in places else len(places)
            of_one = [tokens[place] for place in places[:end]]
            shown.append(_JOINED_BY[self.split_by_].join(of_one) if self.is_text_ else of_one)
        return shown

    def trace(self, x: Any) -> list[list[Any]]:
        """Return every gate, cell and hidden value while a sequence is read.

        Parameters
        ----------
        x : str, list of tokens, or array_like
            One sequence, as X has them.

        Returns
        -------
        list of list
            By layer and direction, as a layer's ``trace`` returns them, for
            :func:`fastlstm.plot.gates`: (T + 1, H) values, since what stands before the first step
            is read, too.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There was no ``fit``.
        ValueError, TypeError
            The sequence has another shape, value or type than stated.
        """
        check_is_fitted(self)
        with self._threads():
            begin = self.network_.read(self._begin(x, self._kind()))
            traces: list[list[Any]] = self.network_.layer.trace(begin)
        return traces

    # --- likelihoods ---------------------------------------------------------------------------

    def log_prob(self, X: Any, lengths: Any = None) -> FloatArray:
        """Return the logarithm of the probability of each sequence, its end included.

        Parameters
        ----------
        X, lengths
            As of :meth:`fit`.

        Returns
        -------
        ndarray of float64
            (n,), in nats. Of Gaussian frames it is a density's.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There was no ``fit``.
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        return self._log_prob(X, lengths)[0]

    def score(self, X: Any, y: Any = None, lengths: Any = None) -> float:
        """Return the mean of the logarithm of a step's probability, in nats: the more the better.

        Parameters
        ----------
        X, y, lengths
            As of :meth:`fit`. The ends of sequences of tokens are steps, too.
        """
        found, steps = self._log_prob(X, lengths)
        return float(found.sum() / steps)

    def perplexity(self, X: Any, lengths: Any = None) -> float:
        """Return exp(-score): among how many equally likely tokens a step would be as open.

        Parameters
        ----------
        X, lengths
            As of :meth:`fit`.
        """
        return math.exp(-self.score(X, lengths=lengths))

    def _log_prob(self, X: Any, lengths: Any) -> tuple[FloatArray, int]:
        """The log probability of each sequence, and the number of all steps."""
        check_is_fitted(self)
        steps = self._kind()
        with self._threads():
            pieces, _ = cut(self._read_inputs(X, lengths), steps, None)
            found = np.empty(len(pieces.lengths))
            for rows in bucket_batches(pieces.lengths, self.batch_size, shuffle=False):
                found[rows] = log_likelihoods(self.network_, pieces.some(rows), steps)
        if self.scale_ is not None:  # of the values, and not of scaled ones
            found -= pieces.lengths * np.log(self.scale_).sum()
        return found, int(pieces.lengths.sum())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = self.frames is not None
        tags.input_tags.string = self.frames is None
        tags.target_tags.required = False
        return tags
