"""What the host engines run over: rows, each one contiguous run of coordinates with its constants."""

from __future__ import annotations

from typing import NamedTuple, Protocol

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


class Kernel(Protocol):
    """A program made ready to run on rows whose parameters are of one dtype."""

    def __call__(self, rows: list[Row], threads: int) -> None:
        """Run the program over the rows, in place, on at most so many threads."""
