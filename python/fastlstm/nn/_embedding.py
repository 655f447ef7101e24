"""Vectors of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._checks import FloatArray, IndexArray, as_float_array, as_int, check_shape
from fastlstm._sparse import SparseRows, sum_of_rows
from fastlstm.embeddings import Embeddings
from fastlstm.layers.options import Option, as_size, table_of

from ._block import DTYPE, Block, Gradients, Shapes, as_accumulated, as_needs, random_of
from ._sequences import as_indices


class EmbeddingTape:
    """What :meth:`Embedding.forward` saved: the indices."""

    def __init__(self, indices: IndexArray, embedding: Embedding) -> None:
        self._indices = indices
        self._padding = embedding.padding
        self._shape = (embedding.V, embedding.D)
        self._dtype = embedding.dtype

    def backward(
        self,
        d_y: Any,
        *,
        needs: str | Iterable[str] = ("params",),
        accumulate: Gradients | None = None,
    ) -> Gradients:
        """Return the gradient of the vectors: of the rows that were looked up.

        Parameters
        ----------
        d_y : array_like
            (..., D), the gradient with respect to the result.
        needs : str or iterable of str
            "params" or "weight"; without, nothing is computed.
        accumulate : Gradients, optional
            An earlier result. This one has the sums of both.

        Returns
        -------
        Gradients
            ``params["weight"]`` is a :class:`~fastlstm.optim.SparseRows`, which the optimisers and
            ``clip_by_global_norm`` take; ``x`` is None.

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        _, asked = as_needs(needs, ["weight"])
        V, D = self._shape
        array = as_float_array("d_y", d_y, self._dtype)
        check_shape("d_y", array, (*self._indices.shape, D))
        earlier = as_accumulated(accumulate, asked)
        params: dict[str, Any] = {}
        if asked:
            indices, rows = self._indices.ravel(), array.reshape(-1, D)
            if self._padding is not None and (indices == self._padding).any():
                kept = indices != self._padding
                indices, rows = indices[kept], rows[kept]
            params["weight"] = sum_of_rows(indices, rows, V)
            if earlier:
                params["weight"] = earlier["weight"] + params["weight"]
        nothing: Any = None
        return Gradients(nothing, params)


class Embedding(Block):
    """A vector for each token: y = weight[indices].

    Its gradient has the rows of the tokens that were looked up and no others, as
    :class:`~fastlstm.optim.SparseRows`; a step of an optimiser takes as long as there are such
    rows, however large the vocabulary is. An update with such rows changes them in place: what
    ``params["weight"]`` gave earlier shows the new values, too, as opposed to other blocks'.

    Parameters
    ----------
    V, D : int
        The number of tokens, and of the values of a vector.
    weight : array_like or Embeddings, optional
        (V, D): the vectors, say of :func:`fastlstm.embeddings.load`, which are copied. By default
        they are drawn from a normal distribution, as ``torch.nn.Embedding`` does.
    padding : int, optional
        The token that stands for none: its vector is zero, and has no gradient.
    dtype : "float32" or "float64"
        Of the vectors.
    seed : int, optional
        Of the initial values.

    Raises
    ------
    ValueError, TypeError
        An argument has another value, shape or type than stated.

    Examples
    --------
    >>> embedding = fastlstm.nn.Embedding(1000, 8, padding=0, seed=0)
    >>> y, tape = embedding.forward([[3, 5], [3, 0]])
    >>> y.shape
    (2, 2, 8)
    >>> tape.backward(np.ones_like(y)).params["weight"]
    SparseRows(2 of 1000 rows, 8 columns, float32)
    """

    dtype = DTYPE
    V = Option[int](as_size, "The number of tokens.")
    D = Option[int](as_size, "The number of values of a vector.")
    padding = Option[int | None](
        lambda name, value: None if value is None else as_int(name, value, 0, 2**31 - 1),
        "The token that stands for none.",
    )
    _vectors: FloatArray

    def __init__(
        self,
        V: int,
        D: int,
        weight: npt.ArrayLike | Embeddings | None = None,
        padding: int | None = None,
        *,
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        options = table_of(Embedding).checked(locals())
        random = random_of(seed)
        if weight is None:
            shape = (options["V"], options["D"])
            weight = random.standard_normal(shape, dtype=np.dtype(options["dtype"]).type)
        super().__init__(
            options, {"weight": weight.vectors if isinstance(weight, Embeddings) else weight}
        )

    @classmethod
    def _shapes(cls, options: Mapping[str, Any]) -> Shapes:
        V, padding = options["V"], options["padding"]
        if padding is not None and padding >= V:
            raise ValueError(f"padding: expected a token below {V}, got {padding}")
        return {"weight": (V, options["D"])}

    def _derived(
        self, values: Mapping[str, FloatArray], params: Mapping[str, FloatArray]
    ) -> dict[str, Any]:
        if "weight" not in values:
            return {}
        vectors = values["weight"]  # of which there is a read-only view among params
        if self.padding is not None:
            vectors[self.padding] = 0
        return {"_vectors": vectors}

    def update(self, values: Mapping[str, Any]) -> None:
        """Give the vectors new values: all of them, or some rows.

        Parameters
        ----------
        values : mapping of str to array_like or SparseRows
            With the key "weight". Rows are written into the array that is there.

        Raises
        ------
        ValueError, TypeError
            As in :meth:`Block.update`. After an error the block is as it was.
        """
        rows = values.get("weight") if isinstance(values, Mapping) and len(values) == 1 else None
        if not isinstance(rows, SparseRows):
            super().update(values)
            return
        if (rows.shape, rows.dtype) != (self._vectors.shape, self.dtype):
            raise ValueError(
                f"weight: expected rows of {self.dtype} {self._vectors.shape}, "
                f"got {rows.dtype} {rows.shape}"
            )
        self._vectors[rows.indices] = rows.values
        if self.padding is not None:
            self._vectors[self.padding] = 0

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["_vectors"]
        return state

    def _indices(self, indices: Any) -> IndexArray:
        array = as_indices("indices", indices)
        if array.size and not 0 <= array.min() <= array.max() < self.V:
            raise ValueError(
                f"indices: expected tokens from 0 to {self.V - 1}, got {array.min()} to "
                f"{array.max()}"
            )
        return array

    def __call__(self, indices: Any) -> FloatArray:
        """Return the vectors of tokens.

        Parameters
        ----------
        indices : array_like of int
            (...), tokens below V.

        Returns
        -------
        ndarray
            (..., D).

        Raises
        ------
        ValueError, TypeError
            `indices` are no such integers.
        """
        return np.take(self._vectors, self._indices(indices), axis=0)

    def forward(self, indices: Any) -> tuple[FloatArray, EmbeddingTape]:
        """Return the vectors of tokens, and a tape for the backward pass.

        Parameters
        ----------
        indices : array_like of int
            (...), tokens below V.

        Returns
        -------
        y : ndarray
            (..., D).
        tape : EmbeddingTape

        Raises
        ------
        ValueError, TypeError
            `indices` are no such integers.
        """
        places = self._indices(indices)
        return np.take(self._vectors, places, axis=0), EmbeddingTape(places, self)
