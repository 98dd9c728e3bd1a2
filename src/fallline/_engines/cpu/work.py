"""A job's arrays: the table of leaves, cut into chunks of equal size and packets of enough work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fallline._arrays.memory import address
from fallline._engines.llvm.layout import JOB
from fallline._engines.llvm.text import CHUNK

__all__ = ["Job"]


class Job:
    """Leaves of these lengths; fill `table` (see `jobs.JOB`), say what to `run` and to `check`, then perform `where`.

    `kinds` tells leaves of several kernels apart, by a number for each leaf: no packet holds leaves of two kinds.
    """

    def __init__(self, lengths: Sequence[int], width: int, kinds: Sequence[int] | None = None) -> None:
        self.size = sum(lengths)
        self.table = np.zeros((len(lengths), width), np.int64)
        self.table[:, 0] = lengths
        self._cut(np.asarray(lengths, np.int64), kinds)
        self.fields = np.zeros(len(JOB), np.int64)
        self._point(table=self.table, leaf_of=self._leaf_of, offset_of=self._offset_of, packets=self._packets)
        self.fields[JOB["width"]] = width
        self.fields[JOB["n"]] = len(lengths)
        self.fields[JOB["n_packets"]] = len(self._packets) - 1
        self.where = address(self.fields)
        self.chunks = (*map(address, (self.table, self._leaf_of, self._offset_of)), 0, len(self._leaf_of))

    def _cut(self, lengths: np.ndarray, kinds: Sequence[int] | None) -> None:
        if len(lengths) == 1 and lengths[0] <= CHUNK:
            self._leaf_of, self._offset_of, self._packets = _NOUGHT, _NOUGHT, _ONE
            self._kind_of = _NOUGHT if kinds is None else np.array(kinds, np.int64)
            return
        kind = np.zeros(len(lengths), np.int64) if kinds is None else np.asarray(kinds, np.int64)
        order = np.argsort(kind, kind="stable")
        per_leaf = -(-lengths[order] // CHUNK)
        first = np.repeat(np.cumsum(per_leaf) - per_leaf, per_leaf)
        self._leaf_of = np.repeat(order, per_leaf)
        self._offset_of = (np.arange(len(self._leaf_of)) - first) * CHUNK
        sizes = np.minimum(lengths[self._leaf_of] - self._offset_of, CHUNK)
        kind = kind[self._leaf_of]
        before = np.cumsum(sizes) - sizes
        turns = np.diff(kind, prepend=-1) != 0
        packet = (before - np.maximum.accumulate(np.where(turns, before, 0))) // CHUNK  # small leaves share a packet
        starts = np.flatnonzero(turns | (np.diff(packet, prepend=-1) != 0))
        self._packets = np.append(starts, len(self._leaf_of)).astype(np.int64)
        self._kind_of = kind[starts]

    def _point(self, **arrays: np.ndarray) -> None:
        """Have fields hold the addresses of arrays."""
        for name, array in arrays.items():
            self.fields[JOB[name]] = address(array)

    def run(self, *kernels: int) -> None:
        """Have these kernels step the leaves, one for each kind."""
        self._kernels = np.array(kernels, np.int64)[self._kind_of]
        self._point(kernels=self._kernels)

    def check(self, column: int, *checks: int) -> None:
        """Have the arrays of this column checked for finite numbers before anything is stepped, by kind."""
        self._checks = np.array(checks, np.int64)[self._kind_of]
        self._point(checks=self._checks)
        self.fields[JOB["column"]] = column

    def count(self, where: np.ndarray, missed: np.ndarray | None = None) -> None:
        """Have a number (int64) increased whenever the leaves were stepped, and one for each leaf that was absent."""
        self._count, self._missed = where, missed
        self._point(count=where)
        if missed is not None:
            self._point(missed=missed)

    def renew(self, numbers: np.ndarray, fresh: np.ndarray) -> None:
        """Have numbers (float64) replaced by fresh ones whenever the leaves were stepped."""
        self._numbers, self._fresh = numbers, fresh
        self._point(numbers=numbers, fresh=fresh)
        self.fields[JOB["n_numbers"]] = len(numbers)


_NOUGHT, _ONE = np.array([0], np.int64), np.array([0, 1], np.int64)
