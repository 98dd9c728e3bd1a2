"""A program run by kernels over leaves in host memory: contiguous ones as they lie, others by copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fallline._arrays.memory import address, byte_range, is_direct, overlapping
from fallline._engines import reference
from fallline._engines.blocks import BLOCK
from fallline._engines.engine import KernelOf
from fallline._engines.rows import Row
from fallline._formula.program import Program

__all__ = ["Leaf", "detach", "read", "run", "values"]

BUFFER = 65536  # coordinates of a strided leaf that are copied at a time


class Leaf(NamedTuple):
    """One leaf's part of a call.

    `arrays` stand in the order of `Program.arrays` and may lie in any way; those from outside are of `dtype`. `columns`
    are the scalars that differ by coordinate, by place.
    """

    arrays: tuple[np.ndarray, ...]
    dtype: np.dtype
    constants: np.ndarray
    columns: dict[int, np.ndarray]


def run(program: Program, leaves: Sequence[Leaf], kernel_of: KernelOf) -> None:
    """Run the program over the leaves, in place."""
    written = {name for name, _ in program.outputs}
    for leaf in leaves:
        kernel = kernel_of(program, leaf.dtype, tuple(leaf.columns))
        arrays = _turned((*leaf.arrays, *leaf.columns.values()))
        for part in _parts(arrays):
            _run_part(kernel, leaf, arrays, part, [k for k, name in enumerate(program.arrays) if name in written])


def _run_part(kernel: Callable[[Row], None], leaf: Leaf, arrays: tuple[np.ndarray, ...], part: slice | None,
              written: Sequence[int]) -> None:
    """Run a kernel over a part of a leaf; copies are gone before those of the next are made."""
    own = _copied(arrays, part)
    kernel(Row(own[: len(leaf.arrays)], leaf.constants, own[len(leaf.arrays) :]))
    for k in written:
        if part is not None:
            arrays[k].flat[part] = own[k]


def read(program: Program, leaf: Leaf, kernel_of: KernelOf, head: int, into: np.ndarray) -> None:
    """Put the sums of a program that only reads, of the blocks of a leaf that lie behind its head, where they go."""
    kernel = kernel_of(program, leaf.dtype, tuple(leaf.columns))
    arrays = (*leaf.arrays, *leaf.columns.values())  # which are summed in C's order
    for part in _parts(arrays, head):
        own = _copied(arrays, part)
        behind = into if part is None else into[(part.start - head) // BLOCK :]
        kernel(Row((*own[: len(leaf.arrays)], behind), leaf.constants, own[len(leaf.arrays) :]))


def values(program: Program, leaf: Leaf, part: slice) -> np.ndarray:
    """What a program that only reads sums, each of its values once, by coordinate of a part of a leaf in C's order."""
    own = _copied((*leaf.arrays, *leaf.columns.values()), part)
    kernel = reference.reading_of(program, leaf.dtype, tuple(leaf.columns))
    return kernel.values(Row(own[: len(leaf.arrays)], leaf.constants, own[len(leaf.arrays) :]))


def _turned(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """The arrays of a leaf with their axes in the order in which those of the first one lie in memory."""
    first = arrays[0]
    if first.ndim < 2 or first.flags.c_contiguous:
        return arrays
    order = tuple(np.argsort([-abs(stride) for stride in first.strides], kind="stable"))
    return tuple(array.transpose(order) for array in arrays)


def _parts(arrays: tuple[np.ndarray, ...], head: int = 0) -> Iterable[slice | None]:
    """Where to run, behind a head: everywhere at once (None) if kernels can run over the arrays as they lie, else part
    by part."""
    if head == 0 and all(map(is_direct, arrays)):
        return (None,)
    return (slice(start, start + BUFFER) for start in range(head, arrays[0].size, BUFFER))


def _copied(arrays: tuple[np.ndarray, ...], part: slice | None) -> tuple[np.ndarray, ...]:
    """Copies of a part of arrays of any layout, in C's order."""
    return arrays if part is None else tuple(np.asarray(a.flat[part], a.dtype.newbyteorder("=")) for a in arrays)


Range = tuple[int, int, np.ndarray]


def detach(gradients: Sequence[np.ndarray], written: Sequence[Range]) -> Sequence[np.ndarray]:
    """The gradients, copied where they share memory with what the step writes (arrays with their byte ranges)."""
    if len(written) <= 8:  # most calls step few arrays: no need to sort
        return [g.copy() if overlapping(g, written) else g for g in gradients]
    ordered = sorted(written, key=lambda r: r[:2])
    starts, stops = np.array([r[:2] for r in ordered], np.uintp).T
    low, high = np.array([byte_range(g) for g in gradients], np.uintp).reshape(-1, 2).T
    first = np.searchsorted(np.maximum.accumulate(stops), low, side="right")
    before = np.searchsorted(starts, high)
    places = {_place(array) for *_, array in written}  # parameters that are their own gradients are found at once
    result = list(gradients)
    for k in np.flatnonzero((first < before) & (low < high)):
        near = first[k] + np.flatnonzero(stops[first[k] : before[k]] > low[k])
        if near.size and (_place(result[k]) in places or overlapping(result[k], [ordered[i] for i in near])):
            result[k] = result[k].copy()
    return result


def _place(array: np.ndarray) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    return address(array), array.shape, array.strides
