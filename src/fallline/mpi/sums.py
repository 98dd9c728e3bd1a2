"""Sums of blocks of leaves that are cut anywhere: with the bits that one process finds.

A block is of 4,096 coordinates of the whole leaf, and is summed by the rank that has the first of them: whoever has
others sends the values there. The sums of all blocks then go to all ranks, which add them up as one process does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mpi4py import MPI

from fallline._engines import reference
from fallline._engines.blocks import BLOCK, Blocks, block_count
from fallline.mpi.layout import Leaf

__all__ = ["gathered", "straddling"]


class Straddling(NamedTuple):
    """A block of leaf k of a call that several ranks have: its first coordinate in the leaf, and for each of those
    ranks, in order, the first and how many of its own coordinates are in it."""

    call: int
    k: int
    start: int
    parts: tuple[tuple[int, int, int], ...]

    @property
    def owner(self) -> int:
        """The rank that has the first coordinate."""
        return self.parts[0][0]


def straddling(call: int, leaves: Sequence[tuple[Leaf, int]]) -> Iterator[Straddling]:
    """The blocks of leaves, each with the number of reals that make a coordinate, that several ranks have."""
    for k, (leaf, factor) in enumerate(leaves):
        order = leaf.order
        starts = [leaf.starts[r] * factor for r in order]
        for block in sorted({start // BLOCK for start in starts if start % BLOCK}):
            begin, end = block * BLOCK, (block + 1) * BLOCK
            parts = []
            for r, start in zip(order, starts):
                low, high = max(start, begin), min(start + leaf.sizes[r] * factor, end)
                if low < high:
                    parts.append((r, low - start, high - low))
            yield Straddling(call, k, begin, tuple(parts))


def complete(comm: MPI.Comm, calls: Sequence[Any], found: Mapping[int, Blocks], blocks: Sequence[Straddling],
             values: Mapping[Straddling, np.ndarray], level: int) -> None:
    """Have the sums of blocks that several ranks have where they begin; `values` are this rank's own of each."""
    requests, coming = [], []
    for block in blocks:
        if block not in values:
            continue
        own = values[block]
        if block.owner != comm.rank:
            requests.append(comm.Isend([own, own.nbytes, MPI.BYTE], block.owner))
            continue
        parts = [own, *(np.empty((len(own), count), own.dtype) for _, _, count in block.parts[1:])]
        for part, (rank, _, _) in zip(parts[1:], block.parts[1:]):
            requests.append(comm.Irecv([part, part.nbytes, MPI.BYTE], rank))
        coming.append((block, parts))
    MPI.Request.Waitall(requests)
    for block, parts in coming:
        group, program = calls[block.call].group, calls[block.call].readings[level]
        kernel = reference.reading_of(program, group.computed[block.k])
        kernel.sum([*np.concatenate(parts, axis=1)], found[block.call].leaf(block.k)[-1:])


def gathered(comm: MPI.Comm, own: Blocks, leaves: Sequence[tuple[Leaf, int]]) -> Blocks:
    """The sums of all blocks of leaves, of which each rank has those that begin there."""
    counts = np.array([[_begun(leaf, factor, r) for leaf, factor in leaves] for r in range(comm.size)]
                      ).reshape(comm.size, len(leaves))
    width = own.sums.shape[1]
    everywhere = np.array([leaf.everywhere for leaf, _ in leaves], bool)
    shared = np.where(everywhere, 0, counts)  # that go over the wire
    going = [own.leaf(k) for k, (leaf, _) in enumerate(leaves) if not leaf.everywhere]
    mine = np.concatenate([np.zeros((0, width)), *going])
    every = np.empty((int(shared.sum()), width))
    comm.Allgatherv(mine, [every, shared.sum(1) * width])
    found = Blocks.of([block_count(leaf.sizes[0] * factor if leaf.everywhere else sum(leaf.sizes) * factor)
                       for leaf, factor in leaves], width)
    ends = np.cumsum(shared.ravel()).reshape(shared.shape)
    for k, (leaf, _) in enumerate(leaves):
        if leaf.everywhere:
            found.leaf(k)[:] = own.leaf(k)
            continue
        at = int(found.first[k])
        for r in leaf.order:
            n = int(shared[r, k])
            found.sums[at : at + n] = every[ends[r, k] - n : ends[r, k]]
            at += n
    return found


def _begun(leaf: Leaf, factor: int, rank: int) -> int:
    """How many blocks of a leaf begin on a rank."""
    start = leaf.starts[rank] * factor
    stop = start + leaf.sizes[rank] * factor
    return block_count(stop) - block_count(start)
