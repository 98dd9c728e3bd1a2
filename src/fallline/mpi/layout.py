"""Who has which part of a leaf: contiguous ranges of its coordinates in C order, by rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fallline._engines.blocks import BLOCK
from fallline._step.leaves import leaf_name

__all__ = ["Layout", "Leaf", "Seen", "laid_out"]


class Seen(NamedTuple):
    """What one rank has of a leaf: an array of this shape and dtype, from that coordinate on if it says so. A leaf that
    is `everywhere` is the same on all ranks."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    start: int | None
    everywhere: bool


class Leaf(NamedTuple):
    """A leaf of this shape; rank r has `sizes[r]` coordinates from `starts[r]` on. What is `everywhere` starts at 0 on
    all, and counts as rank 0's."""

    path: str
    shape: tuple[int, ...]
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    everywhere: bool

    @property
    def order(self) -> list[int]:
        """The ranks that have some of it, in the order of its coordinates; of what is everywhere the first."""
        if self.everywhere:
            return [0]
        return sorted((r for r, size in enumerate(self.sizes) if size), key=self.starts.__getitem__)

    @property
    def owner(self) -> int:
        """The first rank that has some of it."""
        return next(iter(self.order), 0)

    @property
    def is_whole(self) -> bool:
        """Whether no two ranks have different parts of it."""
        return len(self.order) < 2


class Layout(NamedTuple):
    """The leaves of a tree, as the ranks have them."""

    leaves: tuple[Leaf, ...]
    factors: tuple[int, ...]  # reals that make a coordinate: 2 of a complex leaf

    def heads(self, rank: int) -> list[int]:
        """Of each leaf how many reals of this rank's part are of a block that begins on another."""
        return [-leaf.starts[rank] * factor % BLOCK if leaf.sizes[rank] else 0
                for leaf, factor in zip(self.leaves, self.factors)]

    def by_path(self) -> dict[str, Leaf]:
        """The leaves by path."""
        return {leaf.path: leaf for leaf in self.leaves}


def laid_out(every: Sequence[Sequence[Seen]], wholes: Mapping[str, tuple[int, ...]]) -> Layout:
    """The layout of what all ranks have seen; `wholes` are shapes of leaves, where they are known.

    Raises ValueError, naming leaf and rank, for parts that are not those of one tree.
    """
    for rank, seen in enumerate(every):
        for ours, theirs in zip(every[0], seen):
            if ours.path != theirs.path:
                raise ValueError(f"All ranks must have the same leaves. Got {ours.path!r} on rank 0 and {theirs.path!r}"
                                 f" on rank {rank}.")
            for what in ("dtype", "everywhere"):
                if getattr(ours, what) != getattr(theirs, what):
                    raise ValueError(f"{_name(ours)} must be the same on all ranks. Got {ours.dtype} on rank 0 and "
                                     f"{theirs.dtype} on rank {rank}.")
        if len(seen) != len(every[0]):
            raise ValueError(f"All ranks must have the same leaves. Got {len(every[0])} on rank 0 and {len(seen)} on "
                             f"rank {rank}.")
    leaves = [_leaf(own, wholes.get(own[0].path)) for own in zip(*every)]
    return Layout(tuple(leaves), tuple(2 if seen.dtype.startswith("complex") else 1 for seen in every[0]))


def _leaf(seen: Sequence[Seen], whole: tuple[int, ...] | None) -> Leaf:
    first, sizes = seen[0], [math.prod(own.shape) for own in seen]
    if first.everywhere:
        other = next((r for r, own in enumerate(seen) if own.shape != first.shape), None)
        if other is not None:
            raise ValueError(f"{_name(first)} is replicated and must have one shape on all ranks. Got {first.shape} on "
                             f"rank 0 and {seen[other].shape} on rank {other}.")
        return Leaf(first.path, first.shape, (0,) * len(seen), tuple(sizes), True)
    has = [r for r, size in enumerate(sizes) if size]
    if len(has) > 1 and any(not seen[r].shape for r in has):
        raise ValueError(f"{_name(first)} is one number on several ranks: say that it is the same on all, "
                         f"domain_parallel(..., replicated=[{first.path!r}]), or give it an axis.")
    stacked = np.cumsum(sizes) - sizes
    starts = [int(stacked[r]) if own.start is None else own.start for r, own in enumerate(seen)]
    _check_ranges(first, starts, sizes, sorted(has, key=starts.__getitem__))
    total = sum(sizes)
    if whole is None or math.prod(whole) != total:
        whole = _whole([(seen[r].shape, starts[r]) for r in has], total) if has else first.shape
    return Leaf(first.path, whole, tuple(starts), tuple(sizes), False)


def _check_ranges(leaf: Seen, starts: Sequence[int], sizes: Sequence[int], order: Sequence[int]) -> None:
    """Raise ValueError unless each range begins where the one before it ends, and the first at 0."""
    end, before = 0, ""
    for r in order:
        if starts[r] != end:
            raise ValueError(f"The ranges of {_name(leaf)} must follow each other without gap or overlap. Got one of "
                             f"{sizes[r]} coordinates from {starts[r]} on, on rank {r}, where "
                             f"{before or 'the first begins at 0'}.")
        end, before = starts[r] + sizes[r], f"that before it, on rank {r}, ends at {starts[r] + sizes[r]}"


def _whole(parts: Sequence[tuple[tuple[int, ...], int]], total: int) -> tuple[int, ...]:
    """The shape of a leaf of these parts (shape, start): slabs of one grid are stacked along the first axis, of all
    others the coordinates are what is known."""
    rows = parts[0][0][1:]
    slabs = len(parts) == 1 or all(shape[1:] == rows and start % math.prod(rows) == 0 for shape, start in parts)
    if len(parts) == 1:
        return parts[0][0]
    return (total // math.prod(rows), *rows) if slabs else (total,)


def _name(leaf: Seen) -> str:
    return leaf_name(leaf.path, "parameter")
