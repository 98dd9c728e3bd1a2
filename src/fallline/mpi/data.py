"""Data parallel: all ranks have all parameters, each has a part of the state, and mini-batches are shared out.

The gradients of a step's batches are added up one binary tree, whatever the number of ranks: each sums the complete
subtrees that it has, sends everybody the part of these that is theirs, and finishes the tree for its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from mpi4py import MPI

from fallline._arrays.dtypes import computed, dtype_named
from fallline._arrays.trees import Treedef, flatten, paths
from fallline._messages.values import brief
from fallline._optimizer.keeping import take
from fallline._optimizer.optimizer import Optimizer
from fallline._step.leaves import leaf_name, leaves_of
from fallline.mpi.keeping import Part, leaf_shapes, localized, read

__all__ = ["DataParallel"]

Subtree = tuple[int, int]  # of the batches: the first, and how many, a power of two that divides the first


class DataParallel:
    """What `data_parallel` makes: `batches` in all, of which `mine`, a range of their numbers, are this rank's;
    `optimizer` steps this rank's part of the parameters (a stretch of all their coordinates, end to end)."""

    def __init__(self, optimizer: Optimizer, batches: int) -> None:
        others: Any = optimizer._stepper.others
        self.optimizer, self.batches, self._others, self._comm = optimizer, batches, others, others.comm
        self._ranks = [range(batches * r // others.size, batches * (r + 1) // others.size) for r in range(others.size)]
        self.mine = self._ranks[others.rank]

    def __repr__(self) -> str:
        return f"data_parallel({self.optimizer!r}, batches={self.batches})"

    @property
    def t(self) -> int:
        """Steps taken."""
        return self.optimizer.t

    def step(self, params: Any, grads: Iterable[Any]) -> Any:
        """Step the parameters, in place, against the mean of the gradients of all batches.

        Parameters
        ----------
        params: a tree of NumPy arrays, C-contiguous and writable, the same on all ranks.
        grads: the gradients of this rank's batches (`mine`), in order, each a tree like the parameters: a list, or a
            generator, which is asked for one at a time. A leaf has a gradient in all batches, or None in all.

        Returns the parameters. Raises what `Optimizer.step` raises, on all ranks alike; then nothing was changed.
        """
        return self._others.together(self._step, params, grads)

    def _step(self, params: Any, grads: Iterable[Any]) -> Any:
        leaves, treedef = flatten(params)
        names = paths(treedef)
        for name, leaf in zip(names, leaves):
            _check(leaf, leaf_name(name, "parameter"))
        cuts = self._cuts({name: leaf.shape for name, leaf in zip(names, leaves)})
        sums = self._sums(treedef, leaves, names, grads)
        absent = [name for name, total in zip(names, next(iter(sums.values()))) if total is None]
        kinds = [(name, leaf.shape, leaf.dtype.name) for name, leaf in zip(names, leaves)]
        self._others.confirm((("call", "a step of batches"), ("step count t", self.t), ("parameters", kinds),
                              ("leaves without a gradient", absent)))
        self._others.known = {name: (cuts[k][self._others.rank].start, leaf.shape)
                              for k, (name, leaf) in enumerate(zip(names, leaves))}
        means = self._scattered(sums, leaves, cuts)
        own = self._own(leaves, cuts)
        self.optimizer.step(treedef.unflatten(own), treedef.unflatten(means))
        self._gather(leaves, cuts)
        return params

    # ---- who has what ------------------------------------------------------------------------------------------------

    def _cuts(self, shapes: Mapping[str, tuple[int, ...]]) -> list[list[Part]]:
        """Each rank's part of each leaf: of all coordinates, end to end, so many are a rank's."""
        ends = np.cumsum([0, *map(prod, shapes.values())]).tolist()
        marks = [ends[-1] * r // self._others.size for r in range(self._others.size + 1)]
        found = []
        for first, last in pairwise(ends):
            at = [min(max(mark, first), last) - first for mark in marks]
            found.append([Part(start, stop, (stop - start,)) for start, stop in pairwise(at)])
        return found

    def _own(self, leaves: Sequence[np.ndarray], cuts: Sequence[Sequence[Part]]) -> list[np.ndarray]:
        """This rank's parts of the leaves, where they lie."""
        mine = [own[self._others.rank] for own in cuts]
        return [leaf.reshape(-1)[part.start : part.stop] for leaf, part in zip(leaves, mine)]

    # ---- sums --------------------------------------------------------------------------------------------------------

    def _sums(self, treedef: Treedef, leaves: Sequence[np.ndarray], names: Sequence[str], grads: Iterable[Any]
              ) -> dict[Subtree, list[Any]]:
        """The sums of this rank's gradients over the largest subtrees of all batches that it has whole."""
        stack: list[tuple[Subtree, list[Any]]] = []
        count = 0
        for number, tree in zip(self.mine, grads):
            stack.append(((number, 1), _gradient(leaves_of(treedef, tree, "gradient"), leaves, names)))
            count += 1
            while len(stack) > 1 and _are_siblings(stack[-2][0], stack[-1][0]):
                (start, n), right = stack.pop()
                (start, _), left = stack.pop()
                stack.append(((start, 2 * n), _added(left, right, names)))
        if count < len(self.mine):
            raise ValueError(f"step needs the gradients of this rank's {len(self.mine)} batches (`mine`). Got {count}.")
        if len({tuple(total is None for total in own) for _, own in stack}) > 1:
            raise ValueError("A leaf must have a gradient in all batches, or None in all.")
        return dict(stack)

    def _scattered(self, sums: Mapping[Subtree, Sequence[Any]], leaves: Sequence[np.ndarray],
                   cuts: Sequence[Sequence[Part]]) -> list[Any]:
        """The mean gradients of this rank's parts: every subtree's sums from who has them, and the tree above."""
        comm, requests, parts = self._comm, [], {}
        live = [k for k, total in enumerate(next(iter(sums.values()))) if total is not None]
        kinds = [_summed(leaf.dtype) for leaf in leaves]
        for rank, batches in enumerate(self._ranks):
            for subtree in subtrees(batches):
                if rank == comm.rank:
                    parts[subtree] = [sums[subtree][k].reshape(-1)[slice(*cuts[k][rank][:2])] for k in live]
                    continue
                mine = [np.empty(cuts[k][comm.rank].shape, kinds[k]) for k in live]
                requests += [comm.Irecv([part.view(np.uint8), MPI.BYTE], rank) for part in mine if part.size]
                parts[subtree] = mine
        for rank in range(comm.size):
            for subtree in subtrees(self.mine) if rank != comm.rank else ():
                going = [sums[subtree][k].reshape(-1)[slice(*cuts[k][rank][:2])] for k in live]
                requests += [comm.Isend([part.view(np.uint8), MPI.BYTE], rank) for part in going if part.size]
        MPI.Request.Waitall(requests)
        means: list[Any] = [None] * len(leaves)
        for k, total in zip(live, _joined(parts)):
            means[k] = total / kinds[k].type(self.batches)
        return means

    def _gather(self, leaves: Sequence[np.ndarray], cuts: Sequence[Sequence[Part]]) -> None:
        """Have the parts of all."""
        own = np.concatenate([np.zeros(0, np.uint8), *(part.view(np.uint8) for part in self._own(leaves, cuts))])
        sizes = [sum((own[r].stop - own[r].start) * leaf.itemsize for own, leaf in zip(cuts, leaves))
                 for r in range(self._comm.size)]
        every = np.empty(sum(sizes), np.uint8)
        self._comm.Allgatherv([own, MPI.BYTE], [every, sizes, MPI.BYTE])
        at = 0
        for r in range(self._comm.size):
            for leaf, cut in zip(leaves, cuts):
                length = (cut[r].stop - cut[r].start) * leaf.itemsize
                if r != self._comm.rank:
                    leaf.reshape(-1)[cut[r].start : cut[r].stop] = every[at : at + length].view(leaf.dtype)
                at += length

    # ---- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], params: Any) -> None:
        """Write one file, as `Optimizer.save` of one process does; each rank writes its own part."""
        self._others.together(self._save, path, params)

    def _save(self, path: Any, params: Any) -> None:
        leaves, treedef = flatten(params)
        cuts = self._cuts({name: np.shape(leaf) for name, leaf in zip(paths(treedef), leaves)})
        self.optimizer.save(path, treedef.unflatten(self._own(leaves, cuts)))

    def load(self, path: str | os.PathLike[str]) -> Any:
        """Take over the state of a file, this rank's part of it, as `Optimizer.load` does; returns its parameters, all
        of them."""
        return self._others.together(self._load, path)

    def _load(self, path: Any) -> Any:
        contents = read(self._others, path)
        shapes = leaf_shapes(contents)
        mine = {name: own[self._others.rank] for name, own in zip(shapes, self._cuts(shapes))}
        self._others.known = {name: (part.start, shapes[name]) for name, part in mine.items()}
        stepper = self.optimizer._stepper
        take(stepper, path, localized(contents, mine, {name: own.chain for name, own in stepper.holders.items()}))
        if contents.params is None:
            return None
        leaves, treedef = flatten(contents.params)
        return treedef.unflatten(np.array(leaf) for leaf in leaves)


def subtrees(batches: range) -> Iterator[Subtree]:
    """The largest subtrees that a range of batches is made of.

    >>> list(subtrees(range(2, 8)))
    [(2, 2), (4, 4)]
    """
    start = batches.start
    while start < batches.stop:
        n = start & -start or 1 << batches.stop.bit_length()
        while n > batches.stop - start:
            n //= 2
        yield start, n
        start += n


def _are_siblings(left: Subtree, right: Subtree) -> bool:
    return left[1] == right[1] and left[0] % (2 * left[1]) == 0


def _joined(parts: Mapping[Subtree, list[Any]]) -> list[Any]:
    """The sums at the top of the tree, from those of subtrees that are all of it."""
    stack: list[tuple[Subtree, list[Any]]] = []
    for subtree in sorted(parts):
        stack.append((subtree, parts[subtree]))
        while len(stack) > 1 and _are_siblings(stack[-2][0], stack[-1][0]):
            (_, n), right = stack.pop()
            (start, _), left = stack.pop()
            with np.errstate(all="ignore"):
                stack.append(((start, 2 * n), [a + b for a, b in zip(left, right)]))
    ((_, found),) = stack
    return found


def _added(left: list[Any], right: list[Any], names: Sequence[str]) -> list[Any]:
    for name, a, b in zip(names, left, right):
        if (a is None) != (b is None):
            raise ValueError(f"{leaf_name(name, 'gradient')} must be None in all batches, or in none.")
        if a is not None:
            with np.errstate(all="ignore"):  # the step judges what is not finite
                a += b
    return left


def _gradient(found: Sequence[Any], leaves: Sequence[np.ndarray], names: Sequence[str]) -> list[Any]:
    """A batch's gradients in memory of their own, in the dtypes that they are summed in."""
    result: list[Any] = []
    for name, g, leaf in zip(names, found, leaves):
        array = None if g is None else np.asarray(g)
        if array is not None and (array.shape != leaf.shape or array.dtype.kind not in "fcV"):
            raise ValueError(f"{leaf_name(name, 'gradient')} must be an array of shape {leaf.shape}. Got {brief(g)}.")
        if array is not None and array.dtype.kind == "c" and leaf.dtype.kind != "c":
            raise TypeError(f"{leaf_name(name, 'gradient')} must be real, as the parameter is {leaf.dtype}.")
        result.append(None if array is None else np.array(array, _summed(leaf.dtype), order="C"))
    return result


def _summed(dtype: np.dtype) -> np.dtype:
    """The dtype in which gradients of a parameter are summed."""
    return dtype if dtype.kind == "c" else computed(dtype)


def _check(leaf: Any, name: str) -> None:
    plain = type(leaf) is np.ndarray and leaf.flags.c_contiguous and leaf.flags.writeable
    if not plain or leaf.dtype not in _DTYPES:
        raise TypeError(f"{name} must be a NumPy array of floats, C-contiguous and writable, where parameters are on "
                        f"all ranks. Got {brief(leaf)}.")


_DTYPES = [dtype_named(name) for name in ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")]
