"""What the reference engine runs over: rows, each one contiguous run of coordinates with its constants."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """One contiguous run of coordinates.

    arrays: C-contiguous, aligned, of equal size, in the order of `Program.arrays`: those from OUTSIDE of the kernel's
        dtype, the state of the dtype that is computed in.
    constants: the program's scalars in the computed dtype, 1-D; the places of `columns` are not read.
    columns: the scalars that differ by coordinate, one array each, in the order of the kernel's `columns`.
    """

    arrays: tuple[np.ndarray, ...]
    constants: np.ndarray
    columns: tuple[np.ndarray, ...] = ()
