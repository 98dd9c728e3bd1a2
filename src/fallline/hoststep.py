"""Run a program over leaves in host memory: contiguous ones as they lie, any other layout through buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fallline.arrays import byte_range, is_direct, overlapping
from fallline.engines import Kernel, Row
from fallline.trace import Program

__all__ = ["Leaf", "detach", "run"]

BUFFER = 65536  # coordinates that a strided leaf passes through at a time


class Leaf(NamedTuple):
    """One leaf's part of a call: its arrays by the program's names, and its scalars in the computed dtype.

    The state and the columns (scalars that differ by coordinate, by place) are contiguous; the other arrays may lie
    in any way.
    """

    arrays: Mapping[str, np.ndarray]
    constants: np.ndarray
    columns: Mapping[int, np.ndarray]


def run(program: Program, leaves: Sequence[Leaf], kernel_for: Callable[[np.dtype, tuple[int, ...]], Kernel]) -> None:
    """Run the program over the leaves, in place; one call of a kernel for all contiguous leaves of a dtype."""
    groups: dict[tuple[np.dtype, tuple[int, ...]], list[Leaf]] = {}
    for leaf in leaves:
        if leaf.arrays["g"].size:
            groups.setdefault((leaf.constants.dtype, tuple(leaf.columns)), []).append(leaf)
    for (dtype, columns), members in groups.items():
        kernel = kernel_for(dtype, columns)
        direct = [all(is_direct(leaf.arrays[name]) for name in program.arrays) for leaf in members]
        kernel([_row(program, leaf) for leaf, d in zip(members, direct) if d])
        for leaf, d in zip(members, direct):
            if not d:
                _run_strided(program, leaf, kernel)


def _row(program: Program, leaf: Leaf) -> Row:
    return Row(tuple(leaf.arrays[name].reshape(-1) for name in program.arrays), leaf.constants,
               tuple(c.reshape(-1) for c in leaf.columns.values()))


def _run_strided(program: Program, leaf: Leaf, kernel: Kernel) -> None:
    """Pass the leaf through buffers, in C order, which is how its state lies."""
    written = {name for name, _ in program.outputs}
    arrays = [leaf.arrays[name] for name in program.arrays] + list(leaf.columns.values())
    access = [["readwrite" if name in program.inputs else "writeonly"] if name in written else ["readonly"]
              for name in program.arrays] + [["readonly"]] * len(leaf.columns)
    parts = np.nditer(  # type: ignore[call-overload]  # the stubs do not know "contig"
        arrays,
        flags=["external_loop", "buffered", "delay_bufalloc"],
        op_flags=[[*a, "contig", "aligned", "nbo"] for a in access],
        op_dtypes=[leaf.constants.dtype] * len(arrays),
        order="C",
        casting="equiv",
        buffersize=BUFFER,
    )
    n = len(program.arrays)
    with parts:
        parts.reset()
        for buffers in parts:
            kernel([Row(tuple(buffers[:n]), leaf.constants, tuple(buffers[n:]))])


def detach(gradients: Sequence[np.ndarray], written: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The gradients, copied where they share memory with what the step writes."""
    ranges = sorted(((*byte_range(a), k) for k, a in enumerate(written) if a.size))
    starts = np.array([r[0] for r in ranges], np.uintp)
    furthest = np.maximum.accumulate(np.array([r[1] for r in ranges], np.uintp)) if ranges else starts
    result = []
    for g in gradients:
        low, high = byte_range(g)
        before = int(np.searchsorted(starts, high)) if ranges else 0
        near = before and low < furthest[before - 1]
        shares = near and overlapping(g, [(s, e, written[k]) for s, e, k in ranges[:before]])
        result.append(g.copy() if shares else g)
    return result
