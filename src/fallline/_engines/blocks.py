"""Sums in a fixed order: blocks of 4,096 coordinates, in each 16 lanes of double precision, then a tree.

Whoever sums, with any vectors, any number of threads and any chunks, gets the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fallline._formula.program import Total
from fallline._formula.words import SCALES

__all__ = ["BLOCK", "LANES", "Blocks", "block_count", "block_sums", "halved"]

BLOCK = 4096
LANES = 16


def block_count(size: int) -> int:
    """How many blocks so many coordinates have.

    >>> block_count(0), block_count(4096), block_count(4097)
    (0, 1, 2)
    """
    return -(-size // BLOCK)


def halved(parts: np.ndarray) -> np.ndarray:
    """The sum along the first axis: the second half is added to the first, until one is left; 0 if there is none.

    >>> halved(np.array([1.0, 2.0, 3.0]))
    np.float64(6.0)
    """
    while len(parts) > 1:
        half = (len(parts) + 1) // 2
        first = parts[:half].copy()
        first[: len(parts) - half] += parts[half:]
        parts = first
    return parts[0] if len(parts) else np.zeros(parts.shape[1:])[()]


class Blocks(NamedTuple):
    """Sums of the blocks of several leaves: rows, those of leaf k from first[k] to first[k + 1]; one is left over."""

    sums: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, counts: Sequence[int], width: int) -> Blocks:
        """Zeros for leaves of so many blocks, each with so many sums."""
        first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(np.zeros((int(first[-1]) + 1, width)), first)

    def leaf(self, k: int) -> np.ndarray:
        """Those of leaf k, live."""
        return self.sums[self.first[k] : self.first[k + 1]]

    def totals(self) -> np.ndarray:
        """A row for each leaf."""
        found = [halved(self.leaf(k)) for k in range(len(self.first) - 1)]
        return np.array(found).reshape(len(found), self.sums.shape[1])


def block_sums(values: np.ndarray, totals: Sequence[Total], out: np.ndarray) -> None:
    """The sums of values (1-D, from a block's start on) by block and total, into `out`."""
    blocks = block_count(values.size)
    padded = np.zeros((blocks, BLOCK // LANES, LANES))
    padded.reshape(-1)[: values.size] = values
    used = min(BLOCK // LANES, -(-values.size // LANES))
    sums: dict[str, np.ndarray] = {}
    for k, total in enumerate(totals):
        if values.dtype == np.float64 or total.kind == "sum":
            out[:, k] = _lanes(padded if total.kind == "sum" else np.square(padded * SCALES[total.kind]), used)
            continue
        if "squares" not in sums:
            sums["squares"] = _lanes(np.square(padded), used)
        out[:, k] = sums["squares"] * SCALES[total.kind] * SCALES[total.kind]  # which cannot overflow where it is used


def _lanes(padded: np.ndarray, used: int) -> np.ndarray:
    lanes = padded[:, 0].copy()
    for k in range(1, used):  # one after the other, as no sum of NumPy's own promises to
        lanes += padded[:, k]
    return halved(lanes.T)
