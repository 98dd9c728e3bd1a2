"""What numbers are computed in: low precision in float32, so that a step rounds once; complex ones as two reals."""

from __future__ import annotations

from functools import cache

import numpy as np

__all__ = ["COMPLEX", "HALVES", "bfloat16", "computed", "kept", "real", "reals", "whole"]

HALVES = ("float16", "bfloat16")
COMPLEX = ("complex64", "complex128")

_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
_REAL: dict[str, np.dtype] = {"complex64": _SINGLE, "complex128": _DOUBLE}


@cache  # a dtype's name takes microseconds
def real(dtype: np.dtype) -> np.dtype:
    """The dtype of the reals that numbers of a dtype consist of.

    >>> real(np.dtype(np.complex64)), real(np.dtype(np.float16))
    (dtype('float32'), dtype('float16'))
    """
    return _REAL.get(dtype.name, dtype)


@cache
def computed(dtype: np.dtype) -> np.dtype:
    """The dtype of the reals that numbers of a dtype are computed in, and that their scalars have.

    >>> computed(np.dtype(np.float16)), computed(np.dtype(np.complex128))
    (dtype('float32'), dtype('float64'))
    """
    return _SINGLE if dtype.name in HALVES else real(dtype)


@cache
def kept(dtype: np.dtype) -> np.dtype:
    """The dtype of the state of numbers of a dtype.

    >>> kept(np.dtype(np.float16)), kept(np.dtype(np.complex128))
    (dtype('float32'), dtype('complex128'))
    """
    return _SINGLE if dtype.name in HALVES else dtype


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


def bfloat16() -> np.dtype:
    """NumPy's bfloat16, which is ml_dtypes'."""
    import ml_dtypes  # not before a bfloat16 array shows up

    return np.dtype(ml_dtypes.bfloat16)
