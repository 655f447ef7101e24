"""Arrays of other libraries as NumPy's: with their values, or refused; none is imported here."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

_PAD = "pad sequences to one length and pass their lengths as lengths="


class Refused(TypeError):
    """What must not be read, though NumPy might: says what was expected, and what came."""


def read_array(value: Any) -> npt.NDArray[Any]:
    """Return the values of an array, a DLPack or ``__array__`` object, or nested lists.

    bfloat16, which NumPy does not have, becomes float32.

    Raises
    ------
    Refused
        The values that NumPy would find are not those of the object.
    Exception
        Any: of NumPy or the object's library, which cannot read it.
    """
    if isinstance(value, np.ndarray):
        if np.ma.is_masked(value):
            raise Refused("an array without masked values; fill them first")
        return _without_bfloat16(value)
    if isinstance(value, _kinds("torch", "Tensor")):
        return _read_tensor(value)
    if isinstance(value, _kinds("torch.nn.utils.rnn", "PackedSequence")):
        raise Refused(
            "an array, got PackedSequence: unpack it by torch.nn.utils.rnn.pad_packed_sequence, "
            "which gives the array and what goes as lengths="
        )
    if isinstance(value, _kinds("pandas", "DataFrame", "Series", "Index")):
        return _read_pandas(value)
    if hasattr(value, "toarray"):  # SciPy's, which NumPy takes for one object
        raise Refused(f"an array, got {type(value).__name__}, a sparse one: pass its toarray()")
    _refuse_nulls(getattr(value, "null_count", 0))
    if isinstance(value, (list, tuple)):
        value = [read_array(v) if _is_array_of_others(v) else v for v in value]
    return _without_bfloat16(_read_by_protocol(value))


def _kinds(module: str, *names: str) -> tuple[type, ...]:
    """Classes of a module, which has to be imported where there is an object of them."""
    found = (getattr(sys.modules.get(module), name, None) for name in names)
    return tuple(cls for cls in found if isinstance(cls, type))


def _read_tensor(tensor: Any) -> npt.NDArray[Any]:
    if tensor.is_nested:
        raise Refused(f"an array, got a nested tensor: {_PAD}; see torch.nested.to_padded_tensor")
    # Bits that say that values are another's, negated or conjugated: DLPack loses them.
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    # Not by DLPack, which takes the values of subclasses for all that they are: of masked tensors.
    values: npt.NDArray[Any] = tensor.numpy()
    return values


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
        raise Refused("an array without missing values (NA); fill them first")


def _is_array_of_others(value: Any) -> bool:
    return hasattr(value, "__array__") and not (
        type(value) is np.ndarray or isinstance(value, np.generic)
    )


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
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
