"""What numbers are computed in: low precision in float32, so that a step rounds once; anything else in itself."""

from __future__ import annotations

import numpy as np

__all__ = ["HALVES", "bfloat16", "computed"]

HALVES = ("float16", "bfloat16")

_SINGLE = np.dtype(np.float32)


def computed(dtype: np.dtype) -> np.dtype:
    """The dtype that numbers of a dtype are computed in, and that their state and scalars have.

    >>> computed(np.dtype(np.float16)), computed(np.dtype(np.float64))
    (dtype('float32'), dtype('float64'))
    """
    return _SINGLE if dtype.name in HALVES else dtype


def bfloat16() -> np.dtype:
    """NumPy's bfloat16, which is ml_dtypes'."""
    import ml_dtypes  # not before a bfloat16 array shows up

    return np.dtype(ml_dtypes.bfloat16)
