"""A job's arrays: the table of leaves, cut into chunks of equal size and packets of enough work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from fallline.engines.jobs import CHUNK, JOB, functions
from fallline.engines.pool import WORTH_SHARING, perform
from fallline.memory import address

__all__ = ["Job"]


class Job:
    """A kernel over leaves of these lengths; fill `table` (see `jobs.JOB`), then call it.

    Columns of the table: 0 the length, then the addresses of the kernel's arrays, then that of the constants.
    """

    def __init__(self, kernel: int, lengths: Sequence[int], width: int) -> None:
        self.size = sum(lengths)
        self.table = np.zeros((len(lengths), width), np.int64)
        self.table[:, 0] = lengths
        self._cut(lengths)
        self.fields = np.zeros(len(JOB), np.int64)
        arrays = {"table": self.table, "leaf_of": self._leaf_of, "offset_of": self._offset_of, "packets": self._packets}
        for name, array in arrays.items():
            self.fields[JOB[name]] = address(array)
        self.fields[JOB["chunks"]] = kernel
        self.fields[JOB["width"]] = width
        self.fields[JOB["n_packets"]] = len(self._packets) - 1
        self.where = address(self.fields)
        self.chunks = (*map(address, (self.table, self._leaf_of, self._offset_of)), 0, len(self._leaf_of))

    def _cut(self, lengths: Sequence[int]) -> None:
        if len(lengths) == 1 and lengths[0] <= CHUNK:
            self._leaf_of, self._offset_of, self._packets = np.zeros(1, np.int64), np.zeros(1, np.int64), _ONE
            return
        per_leaf = -(-np.asarray(lengths, np.int64) // CHUNK)
        first = np.cumsum(per_leaf) - per_leaf
        self._leaf_of = np.repeat(np.arange(len(lengths)), per_leaf)
        self._offset_of = (np.arange(len(self._leaf_of)) - first[self._leaf_of]) * CHUNK
        sizes = np.minimum(np.asarray(lengths, np.int64)[self._leaf_of] - self._offset_of, CHUNK)
        packet = (np.cumsum(sizes) - sizes) // CHUNK  # small leaves share a packet
        starts = np.flatnonzero(np.diff(packet, prepend=-1))
        self._packets = np.append(starts, len(self._leaf_of)).astype(np.int64)

    def check(self, column: int | None, dtype: np.dtype) -> None:
        """Have the arrays of this column checked for finite numbers before anything is stepped; None: not."""
        checks = {4: functions().finite32, 8: functions().finite64}
        self.fields[JOB["finite"]] = 0 if column is None else checks[dtype.itemsize]
        self.fields[JOB["column"]] = column or 0

    def prepared(self) -> Callable[[], int]:
        """The call of this job by `num_threads()` threads, with what does not change bound already."""
        if self.size < WORTH_SHARING:
            return partial(functions().alone, self.where)
        return partial(perform, self.where, self.size, None)

    def __call__(self, threads: int | None) -> int:
        """Do it; 1 if an array that was to be checked is not finite (then nothing was stepped), else 0."""
        return perform(self.where, self.size, threads)


_ONE = np.array([0, 1], np.int64)
