"""A job's arrays: the rows of leaves, cut into chunks of equal size and packets of enough work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fallline._arrays.memory import address
from fallline._engines.cpu.pool import perform
from fallline._engines.llvm.layout import JOB
from fallline._engines.llvm.text import CHUNK

__all__ = ["Cut", "Job"]


class Cut:
    """Leaves of these lengths, whose rows (`layout.ROW`) stand at these addresses, cut into chunks and packets.

    `kinds` tells leaves of several kernels apart, by a number for each leaf: no packet holds leaves of two kinds. Of
    each leaf so many coordinates at its head are left out.
    """

    def __init__(self, lengths: Sequence[int], rows: np.ndarray, kinds: Sequence[int], heads: Sequence[int] = ()
                 ) -> None:
        self.size, self.rows = sum(lengths), rows
        self._cut(np.asarray(lengths, np.int64), np.asarray(kinds, np.int64), np.asarray(heads, np.int64))
        self.row_of = rows[self._leaf_of]

    def _cut(self, lengths: np.ndarray, kind: np.ndarray, heads: np.ndarray) -> None:
        if heads.any():
            lengths = np.maximum(lengths - heads, 0)
        elif len(lengths) == 1 and lengths[0] <= CHUNK:
            self._leaf_of, self.offset_of, self.packets, self.kind_of = _NOUGHT, _NOUGHT, _ONE, kind
            return
        order = np.argsort(kind, kind="stable")
        per_leaf = -(-lengths[order] // CHUNK)
        first = np.repeat(np.cumsum(per_leaf) - per_leaf, per_leaf)
        self._leaf_of = np.repeat(order, per_leaf)
        self.offset_of = (np.arange(len(self._leaf_of)) - first) * CHUNK
        sizes = np.minimum(lengths[self._leaf_of] - self.offset_of, CHUNK)
        if heads.any():
            self.offset_of = self.offset_of + heads[self._leaf_of]
        kind = kind[self._leaf_of]
        before = np.cumsum(sizes) - sizes
        turns = np.diff(kind, prepend=-1) != 0
        packet = (before - np.maximum.accumulate(np.where(turns, before, 0))) // CHUNK  # small leaves share a packet
        starts = np.flatnonzero(turns | (np.diff(packet, prepend=-1) != 0))
        self.packets = np.append(starts, len(self._leaf_of)).astype(np.int64)
        self.kind_of = kind[starts]


class Job:
    """What is done with the rows of a cut: `checks` of their gradients, then a kernel, one of each for each kind; then
    what is given is counted and copied (see `layout.JOB`)."""

    def __init__(self, cut: Cut, kernels: Sequence[int] = (), checks: Sequence[int] = ()) -> None:
        self._cut, self._kept = cut, [np.asarray(cut.rows)]
        self.fields = np.zeros(len(JOB), np.int64)
        self._point(row_of=cut.row_of, offset_of=cut.offset_of, packets=cut.packets, rows=cut.rows)
        self.fields[JOB["n_packets"]] = len(cut.packets) - 1
        self.fields[JOB["n"]] = len(cut.rows)
        for name, functions in (("kernels", kernels), ("checks", checks)):
            if len(functions):
                self._point(**{name: np.array(functions, np.int64)[cut.kind_of]})
        self.where = address(self.fields)

    def _point(self, **arrays: np.ndarray) -> None:
        """Have fields hold the addresses of arrays, which are kept."""
        for name, array in arrays.items():
            self.fields[JOB[name]] = address(array)
            self._kept.append(array)

    def count(self, counts: Sequence[np.ndarray], missed: np.ndarray | None) -> None:
        """Have numbers (int64) increased whenever the leaves were stepped, and of each leaf that was absent the one at
        an address."""
        self._kept.extend(counts)
        self._point(counts=np.array([address(count) for count in counts], np.int64))
        self.fields[JOB["n_counts"]] = len(counts)
        if missed is not None:
            self._point(missed=missed)

    def copy(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Have arrays of 64-bit numbers replaced by others (to, from) whenever the leaves were stepped."""
        self._kept.extend(array for pair in pairs for array in pair)
        self._point(copies=np.array([[address(to), address(new), to.size] for to, new in pairs], np.int64))
        self.fields[JOB["n_copies"]] = len(pairs)

    def perform(self, threads: int | None) -> bool:
        """Do it, on at most so many threads; False, and nothing is done, if a gradient is not finite."""
        return not perform(self.where, self._cut.size, threads)


_NOUGHT, _ONE = np.array([0], np.int64), np.array([0, 1], np.int64)
