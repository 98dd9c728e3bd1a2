"""Sums of blocks of leaves that are cut anywhere: with the bits that one process finds.

A block is of 4,096 coordinates of the whole leaf, and is summed by the rank that has the first of them: whoever has
others sends the values there. The sums of all blocks then go to all ranks, which add them up as one process does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from mpi4py import MPI

from fallline._engines import reference
from fallline._engines.blocks import BLOCK, Blocks, block_count
from fallline._formula.program import Program
from fallline.mpi.layout import Leaf

__all__ = ["Straddling", "Sums"]


class Straddling(NamedTuple):
    """A block of leaf k of a group that several ranks have: for each of them, in order of the coordinates, the first
    and how many of its own are in it."""

    k: int
    parts: tuple[tuple[int, int, int], ...]

    @property
    def owner(self) -> int:
        """The rank that has the first coordinate."""
        return self.parts[0][0]


class Sums:
    """How the sums of blocks of a group's leaves are put together; each leaf with the reals that make a coordinate."""

    def __init__(self, leaves: Sequence[tuple[Leaf, int]], size: int) -> None:
        self.leaves = [leaf for leaf, _ in leaves]
        self.straddling = [block for k, (leaf, factor) in enumerate(leaves) for block in _straddling(k, leaf, factor)]
        shared = np.array([[0 if leaf.everywhere else _begun(leaf, factor, r) for leaf, factor in leaves]
                           for r in range(size)], np.int64).reshape(size, len(leaves))
        self._by_rank = shared.sum(1)
        self._counts = [block_count(int(np.prod(leaf.shape)) * factor) for leaf, factor in leaves]
        first = np.cumsum([0, *self._counts])
        ends = np.cumsum(shared.ravel()).reshape(shared.shape)
        found = [np.zeros(0, np.int64)]  # where in what is gathered the rows are that follow each other
        for k, leaf in enumerate(self.leaves):
            found += [np.arange(ends[r, k] - shared[r, k], ends[r, k]) for r in leaf.order if not leaf.everywhere]
        self._from = np.concatenate(found)
        self._to = np.concatenate([np.zeros(0, np.int64), *(
            np.arange(first[k], first[k + 1]) for k, leaf in enumerate(self.leaves) if not leaf.everywhere)])

    def complete(self, comm: MPI.Comm, group: Any, program: Program, own: Blocks,
                 values: Iterable[tuple[Straddling, np.ndarray]]) -> None:
        """Have the sums of blocks that several ranks have where they begin, from this rank's `values` in each."""
        requests, coming = [], []
        for block, mine in values:
            if block.owner != comm.rank:
                requests.append(comm.Isend([mine, mine.nbytes, MPI.BYTE], block.owner))
                continue
            parts = [mine, *(np.empty((len(mine), count), mine.dtype) for _, _, count in block.parts[1:])]
            for part, (rank, _, _) in zip(parts[1:], block.parts[1:]):
                requests.append(comm.Irecv([part, part.nbytes, MPI.BYTE], rank))
            coming.append((block, parts))
        MPI.Request.Waitall(requests)
        for block, parts in coming:
            kernel = reference.reading_of(program, group.computed[block.k])
            kernel.sum([*np.concatenate(parts, axis=1)], own.leaf(block.k)[-1:])

    def gathered(self, comm: MPI.Comm, own: Blocks) -> Blocks:
        """The sums of all blocks, from those that begin here."""
        width = own.sums.shape[1]
        going = [own.leaf(k) for k, leaf in enumerate(self.leaves) if not leaf.everywhere]
        every = np.empty((len(self._from), width))
        comm.Allgatherv(np.concatenate([np.zeros((0, width)), *going]), [every, self._by_rank * width])
        found = Blocks.of(self._counts, width)
        found.sums[self._to] = every[self._from]
        for k, leaf in enumerate(self.leaves):
            if leaf.everywhere:
                found.leaf(k)[:] = own.leaf(k)
        return found


def _straddling(k: int, leaf: Leaf, factor: int) -> Iterator[Straddling]:
    order = leaf.order
    starts = [leaf.starts[r] * factor for r in order]
    for block in sorted({start // BLOCK for start in starts if start % BLOCK}):
        parts = []
        for r, start in zip(order, starts):
            low = max(start, block * BLOCK)
            high = min(start + leaf.sizes[r] * factor, (block + 1) * BLOCK)
            if low < high:
                parts.append((r, low - start, high - low))
        yield Straddling(k, tuple(parts))


def _begun(leaf: Leaf, factor: int, rank: int) -> int:
    """How many blocks of a leaf begin on a rank."""
    start = leaf.starts[rank] * factor
    stop = start + leaf.sizes[rank] * factor
    return block_count(stop) - block_count(start)
