"""Arrays of other libraries as NumPy's: with their values, or refused; none is imported here."""

from __future__ import annotations

import sys
from collections import UserList, deque
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

_PAD = "pad sequences to one length and pass their lengths as lengths="
# What NumPy reads as nested lists; more axes than these nothing here has.
_LISTS = (list, tuple, deque, UserList)
_MOST_AXES = 8
# What in a list needs no look.
_PLAIN = {bool, int, float, complex, str, np.ndarray, np.float32, np.float64, np.int64}


class RefusedError(TypeError):
    """What must not be read, though NumPy might: says what was expected, and what came."""


def read_array(value: Any) -> npt.NDArray[Any]:
    """Return the values of an array, a DLPack or ``__array__`` object, or nested lists.

    bfloat16, which NumPy does not have, becomes float32.

    Raises
    ------
    RefusedError
        The values that NumPy would find are not those of the object.
    Exception
        Any: of NumPy or the object's library, which cannot read it.
    """
    if isinstance(value, np.ndarray):
        # np.ma is imported when it is first asked for: a fork by another thread in the meantime
        # would leave the child with the import's lock.
        if type(value) is not np.ndarray and np.ma.is_masked(value):
            raise RefusedError("an array without masked values; fill them first")
        return _without_bfloat16(value)
    if _is_of(value, "torch", "Tensor"):
        return _read_tensor(value)
    _refuse_packed(value)
    if isinstance(value, _LISTS):
        parts = _read_parts(value, 1)
        try:
            return _without_bfloat16(_read_by_protocol(parts))
        except ValueError:
            if _are_x_and_lengths(parts):
                raise RefusedError("an array, got two: pass lengths as lengths=") from None
            raise
    if _is_of(value, "pandas", "DataFrame", "Series", "Index"):
        return _read_pandas(value)
    if _is_of(value, "pandas.api.extensions", "ExtensionArray"):
        return _read_pandas(sys.modules["pandas"].Series(value))
    if hasattr(value, "toarray"):  # SciPy's, which NumPy takes for one object
        raise RefusedError(
            f"an array, got {type(value).__name__}, a sparse one: pass its toarray()"
        )
    if hasattr(value, "null_count"):  # of Arrow and Polars
        _refuse_nulls(value.null_count)
    if _is_of(value, "pyarrow", "Table", "RecordBatch"):
        _refuse_nulls([column.null_count for column in value.columns])
    return _without_bfloat16(_read_by_protocol(value))


def _is_of(value: Any, module: str, *classes: str) -> bool:
    """Whether an object is of a library's classes, which is imported where there are any."""
    library = sys.modules.get(module)
    kinds = (getattr(library, name, None) for name in classes if library is not None)
    return any(isinstance(kind, type) and isinstance(value, kind) for kind in kinds)


def _read_tensor(tensor: Any) -> npt.NDArray[Any]:
    if tensor.is_nested:
        raise RefusedError(
            f"an array, got a nested tensor: {_PAD}; see torch.nested.to_padded_tensor"
        )
    if _is_freed(tensor):
        raise RefusedError(
            "an array, got a tensor whose memory was freed, as FSDP does with parameters: gather "
            "them first"
        )
    # Bits that say that values are another's, negated or conjugated: DLPack loses them.
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    # Not by DLPack, which takes the values of subclasses for all that they are: of masked tensors.
    values: npt.NDArray[Any] = tensor.numpy()
    return values


def _is_freed(tensor: Any) -> bool:
    """Whether a tensor's storage ends before its last value: NumPy would take what lies there."""
    try:
        held = tensor.untyped_storage().nbytes()
    except Exception:  # of a kind that has none, which no NumPy reads, or before PyTorch 2.0
        return False
    if tensor.device.type != "cpu" or not tensor.numel():
        return False
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = tensor.storage_offset() + sum((size - 1) * stride for size, stride in steps)
    return bool((last + 1) * tensor.element_size() > held)


def _read_pandas(value: Any) -> npt.NDArray[Any]:
    frame = value if value.ndim == 2 else value.to_frame()
    own = [n for n, dtype in enumerate(frame.dtypes) if hasattr(dtype, "numpy_dtype")]
    dtypes = [getattr(dtype, "numpy_dtype", dtype) for dtype in frame.dtypes]
    _refuse_nulls(frame.iloc[:, own].isna())
    if dtypes and all(isinstance(dtype, np.dtype) and dtype.kind in "fiub" for dtype in dtypes):
        # Of several types, and of pandas' own, NumPy would make an array of objects.
        values: npt.NDArray[Any] = value.to_numpy(dtype=np.result_type(*dtypes))
        return values
    return np.asarray(value)


def _refuse_nulls(nulls: Any) -> None:
    """Refuse missing values, by their number or where they are: NumPy would make NaN of them."""
    if np.any(np.asarray(nulls() if callable(nulls) else nulls)):
        raise RefusedError("an array without missing values (NA); fill them first")


def _refuse_packed(value: Any) -> None:
    if _is_of(value, "torch.nn.utils.rnn", "PackedSequence"):
        raise RefusedError(
            "an array, got PackedSequence: unpack it by torch.nn.utils.rnn.pad_packed_sequence, "
            "which gives the array and what goes as lengths="
        )


def _read_parts(values: Collection[Any], axes: int) -> list[Any]:
    """Return nested lists with NumPy's arrays for those of others, which NumPy reads otherwise."""
    if axes > _MOST_AXES:
        raise RefusedError(f"an array, got lists in lists of more than {_MOST_AXES} axes")
    if _PLAIN.issuperset(map(type, values)):
        return list(values)
    return [_read_part(value, axes) for value in values]


def _read_part(value: Any, axes: int) -> Any:
    _refuse_packed(value)
    if isinstance(value, _LISTS):
        return _read_parts(value, axes + 1)
    is_own = type(value) is np.ndarray or isinstance(value, np.generic)
    if not is_own and any(hasattr(value, name) for name in ("__array__", "toarray", "null_count")):
        return read_array(value)
    return value


def _are_x_and_lengths(parts: list[Any]) -> bool:
    if len(parts) != 2:
        return False
    x, lengths = parts
    of_integers = isinstance(lengths, list) and all(type(length) is int for length in lengths)
    return getattr(x, "ndim", 0) > 1 and (of_integers or getattr(lengths, "ndim", 0) == 1)


def _read_by_protocol(value: Any) -> npt.NDArray[Any]:
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except MemoryError:
            raise
        except Exception:  # a type that DLPack or NumPy lacks, or a device
            if not hasattr(value, "__array__"):
                raise
    try:
        return np.asarray(value)
    except ValueError as error:
        if "inhomogeneous" in str(error):
            raise ValueError(f"its parts differ in length; {_PAD}") from None
        raise


def _without_bfloat16(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same, and the bfloat16 of ml_dtypes, to NumPy bytes without a meaning, as float32."""
    is_one = array.dtype.kind == "V" and array.dtype.name == "bfloat16"
    return array.astype(np.float32) if is_one else array
