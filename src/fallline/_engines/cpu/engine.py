"""The native engine: kernels compiled by LLVM, run over rows on as many threads as pay."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from fallline._arrays.memory import address, is_direct
from fallline._engines.cpu.pool import WORTH_SHARING, perform
from fallline._engines.cpu.work import Job
from fallline._engines.llvm.compiler import compiled
from fallline._engines.llvm.finite import finite_check
from fallline._engines.llvm.kernel import kernel_ir
from fallline._engines.llvm.layout import EXTRA
from fallline._engines.reference import all_finite
from fallline._engines.rows import Kernel, Row
from fallline._formula.program import Program

__all__ = ["native_all_finite", "native_kernel", "native_run"]


@cache
def native_kernel(program: Program, dtype: np.dtype, columns: tuple[int, ...] = ()) -> Kernel:
    """The kernel of a program for parameters stored in a dtype; `columns` are the scalars (by place) that differ by
    coordinate."""
    return _kernel_of(kernel_ir(program, dtype, columns))


@cache  # programs that differ in their scalars only share a kernel
def _kernel_of(ir: str) -> Kernel:
    return _Native(*compiled(ir, "chunks", "once"))


class _Native:
    def __init__(self, chunks: int, once: int) -> None:
        self.chunks = chunks
        self.once = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 2, ctypes.c_void_p)(once)

    def __call__(self, rows: list[Row], threads: int) -> None:
        native_run([(self, rows)], threads, None)


def native_run(work: Sequence[tuple[Any, list[Row]]], threads: int, count: np.ndarray | None) -> bool:
    """Run kernels over rows; in one native call, which increases `count`, if they take as many arrays each.

    Returns whether they do: then an interrupt finds all of it done and counted, or nothing.
    """
    work = [(kernel, some) for kernel, rows in work if (some := [row for row in rows if row.arrays[0].size])]
    widths = {len(rows[0].arrays) + len(rows[0].columns) + EXTRA for _, rows in work}
    if len(widths) != 1:
        for kernel, rows in work:
            kernel(rows, threads)
        return False
    every = [row for _, rows in work for row in rows]
    kinds = [k for k, (_, rows) in enumerate(work) for _ in rows]
    job = Job([row.arrays[0].size for row in every], widths.pop(), kinds)
    job.table[:, 1:-1] = [[*map(address, row.arrays), *map(address, row.columns), address(row.constants)]
                          for row in every]
    if job.size < WORTH_SHARING and len(work) == 1:  # not worth to compile what shares it
        work[0][0].once(*job.chunks, None if count is None else address(count))
    else:
        job.run(*(kernel.chunks for kernel, _ in work))
        if count is not None:
            job.count(count)
        perform(job.where, job.size, threads)
    return count is not None


def native_all_finite(arrays: Sequence[np.ndarray], threads: int) -> bool:
    """Whether every entry of arrays in host memory, of any layout, is finite."""
    large = [a for a in arrays if is_direct(a) and a.size]
    if sum(a.size for a in large) < WORTH_SHARING:  # where NumPy is done before a job is compiled
        return all_finite(arrays, threads)
    names = sorted({a.dtype.name for a in large})
    job = Job([a.size for a in large], 2, [names.index(a.dtype.name) for a in large])
    job.table[:, 1] = [address(a) for a in large]
    job.check(1, *map(finite_check, names))
    return not perform(job.where, job.size, threads) and all_finite([a for a in arrays if not is_direct(a)], threads)
