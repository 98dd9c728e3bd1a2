"""The dtypes of leaves, a row for each, and what follows from the rows.

Low precision is computed in float32, so that a step rounds once; complex numbers as two reals.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

__all__ = ["CASTABLE", "COMPLEX", "DTYPES", "LACKED", "STEPPED", "SUPPORTED", "Dtype", "computed", "dtype_named",
           "kept", "real", "reals", "whole"]  # fmt: skip


class Dtype(NamedTuple):
    """A dtype that can be stepped. Other dtypes stand in it by name."""

    name: str
    real: str  # of the reals that its numbers consist of, two each if it is complex (of NumPy's kind "c")
    size: int  # of such a real, in bytes
    computed: str  # of the reals that it is computed in, and that its scalars have
    kept: str  # of its state
    code: str  # of its reals in files of the safetensors format


DTYPES = {row.name: row for row in (
    Dtype("float16", "float16", 2, "float32", "float32", "F16"),
    Dtype("bfloat16", "bfloat16", 2, "float32", "float32", "BF16"),
    Dtype("float32", "float32", 4, "float32", "float32", "F32"),
    Dtype("float64", "float64", 8, "float64", "float64", "F64"),
    Dtype("complex64", "float32", 4, "float32", "complex64", "F32"),
    Dtype("complex128", "float64", 8, "float64", "complex128", "F64"),
)}  # fmt: skip

_WIDE, _WIDE_COMPLEX = ("longdouble", "float96", "float128"), ("clongdouble", "complex192", "complex256")

STEPPED = tuple(DTYPES)
CASTABLE = (*STEPPED, *_WIDE, *_WIDE_COMPLEX)  # which gradients may have
COMPLEX = (*(row.name for row in DTYPES.values() if row.real != row.name), *_WIDE_COMPLEX)
LACKED = tuple(name for name in DTYPES if not hasattr(np, name))  # by NumPy, which has them of ml_dtypes
SUPPORTED = f"{', '.join(STEPPED[:-1])} or {STEPPED[-1]}"  # in messages


def dtype_named(name: str) -> np.dtype:
    """NumPy's dtype of that name."""
    if name not in LACKED:
        return np.dtype(name)
    import ml_dtypes  # not before an array of such a dtype shows up

    return np.dtype(getattr(ml_dtypes, name))


@cache  # a dtype's name takes microseconds
def real(dtype: np.dtype) -> np.dtype:
    """The dtype of the reals that numbers of a dtype consist of.

    >>> real(np.dtype(np.complex64)), real(np.dtype(np.float16))
    (dtype('float32'), dtype('float16'))
    """
    return _in_row(dtype, "real")


@cache
def computed(dtype: np.dtype) -> np.dtype:
    """The dtype of the reals that numbers of a dtype are computed in, and that their scalars have.

    >>> computed(np.dtype(np.float16)), computed(np.dtype(np.complex128))
    (dtype('float32'), dtype('float64'))
    """
    return _in_row(dtype, "computed")


@cache
def kept(dtype: np.dtype) -> np.dtype:
    """The dtype of the state of numbers of a dtype.

    >>> kept(np.dtype(np.float16)), kept(np.dtype(np.complex128))
    (dtype('float32'), dtype('complex128'))
    """
    return _in_row(dtype, "kept")


def _in_row(dtype: np.dtype, column: str) -> np.dtype:
    """What stands in the row of a dtype; the dtype itself if it has none."""
    name = getattr(DTYPES.get(dtype.name), column, dtype.name)
    return dtype if name == dtype.name else dtype_named(name)


def reals(array: np.ndarray) -> np.ndarray:
    """An array's numbers as reals in the same memory: of complex ones the two parts, along one more axis.

    >>> reals(np.array([1 + 2j, 3 - 1j]))
    array([[ 1.,  2.],
           [ 3., -1.]])
    """
    return array[..., None].view(array.real.dtype) if array.dtype.kind == "c" else array


def whole(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Reals as numbers of a dtype in the same memory, which undoes `reals`; complex ones must be contiguous."""
    return array.view(dtype)[..., 0] if dtype.kind == "c" else array
