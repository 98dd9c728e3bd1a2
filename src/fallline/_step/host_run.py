"""Run a program over leaves in host memory: contiguous ones as they lie, any other layout through buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fallline._arrays.memory import address, byte_range, is_direct, overlapping
from fallline._engines.blocks import BLOCK, block_count, halved
from fallline._engines.host import HostEngine
from fallline._engines.rows import Kernel, Row
from fallline._formula.program import Program

__all__ = ["Leaf", "detach", "is_strided", "run"]

BUFFER = 65536  # coordinates that a strided leaf passes through at a time


class Leaf(NamedTuple):
    """One leaf's part of a call.

    `arrays` stand in the order of `Program.arrays`; those named by `outside` came from the caller and may lie in any
    way, and are of `dtype`; the state is contiguous. `columns` are the scalars that differ by coordinate, by place.
    """

    arrays: tuple[np.ndarray, ...]
    outside: tuple[np.ndarray, ...]
    dtype: np.dtype
    constants: np.ndarray
    columns: dict[int, np.ndarray]


def run(program: Program, leaves: Sequence[Leaf], kernel_for: Callable[[np.dtype, tuple[int, ...]], Kernel],
        engine: HostEngine, threads: int, count: np.ndarray) -> None:
    """Run the program over the leaves, in place, and count that; all contiguous leaves in one call, if it can be."""
    groups: dict[tuple[np.dtype, tuple[int, ...]], list[Row]] = {}
    strided = []
    for leaf in leaves:
        if is_strided(leaf):
            strided.append(leaf)
        else:
            row = Row(leaf.arrays, leaf.constants, tuple(leaf.columns.values()))
            groups.setdefault((leaf.dtype, tuple(leaf.columns)), []).append(row)
    for leaf in strided:
        _run_strided(program, leaf, kernel_for(leaf.dtype, tuple(leaf.columns)), threads)
    if not engine.run([(kernel_for(*key), rows) for key, rows in groups.items()], threads, count):
        count += 1


def read(program: Program, leaves: Sequence[Leaf], kernel_for: Callable[[np.dtype, tuple[int, ...]], Kernel],
         engine: HostEngine, threads: int) -> np.ndarray:
    """The totals of a program that only reads: a row for each leaf."""
    groups: dict[tuple[np.dtype, tuple[int, ...]], list[Row]] = {}
    sums = [np.zeros((block_count(leaf.arrays[0].size), len(program.totals))) for leaf in leaves]
    for leaf, own in zip(leaves, sums):
        kernel = kernel_for(leaf.dtype, tuple(leaf.columns))
        if is_strided(leaf):
            for row in _in_parts(leaf, own):
                kernel([row], threads)
        else:
            row = Row((*leaf.arrays, own), leaf.constants, tuple(leaf.columns.values()))
            groups.setdefault((leaf.dtype, tuple(leaf.columns)), []).append(row)
    engine.run([(kernel_for(*key), rows) for key, rows in groups.items()], threads, None)
    return np.array([halved(own) for own in sums]).reshape(len(leaves), len(program.totals))


def _in_parts(leaf: Leaf, sums: np.ndarray) -> Iterator[Row]:
    """A leaf of any layout as rows of copies, in C order."""
    for start in range(0, leaf.arrays[0].size, BUFFER):
        part = slice(start, start + BUFFER)
        arrays, columns = ([np.asarray(a.flat[part], a.dtype.newbyteorder("=")) for a in some]
                           for some in (leaf.arrays, leaf.columns.values()))
        yield Row((*arrays, sums[start // BLOCK :]), leaf.constants, tuple(columns))


def is_strided(leaf: Leaf) -> bool:
    """Whether kernels cannot run on the leaf's arrays as they lie."""
    return leaf.arrays[0].size > 0 and not all(map(is_direct, leaf.outside))


def _run_strided(program: Program, leaf: Leaf, kernel: Kernel, threads: int) -> None:
    """Pass the leaf through buffers, in C order, which is how its state lies."""
    written = {name for name, _ in program.outputs}
    arrays = [*leaf.arrays, *leaf.columns.values()]
    access = [["readwrite" if name in program.inputs else "writeonly"] if name in written else ["readonly"]
              for name in program.arrays] + [["readonly"]] * len(leaf.columns)
    parts = np.nditer(  # type: ignore[call-overload]  # the stubs do not know "contig"
        arrays,
        flags=["external_loop", "buffered", "delay_bufalloc"],
        op_flags=[[*a, "contig", "aligned", "nbo"] for a in access],
        op_dtypes=[a.dtype.newbyteorder("=") for a in arrays],
        order="C",
        casting="equiv",
        buffersize=BUFFER,
    )
    n = len(program.arrays)
    with parts:
        parts.reset()
        for buffers in parts:
            kernel([Row(tuple(buffers[:n]), leaf.constants, tuple(buffers[n:]))], threads)


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
