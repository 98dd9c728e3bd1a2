"""The reference engine: a program run by NumPy's ufuncs, tile by tile. Every other engine is checked against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fallline._arrays.dtypes import computed
from fallline._engines.blocks import BLOCK, block_count, block_sums
from fallline._engines.rows import Row
from fallline._formula.program import Program

__all__ = ["all_finite", "kernel_of", "reading_of"]

TILE = 16384  # coordinates; a handful of float32 buffers of this length stay in a second-level cache

_UFUNCS: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative,
    "sqrt": np.sqrt, "abs": np.abs,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
}  # fmt: skip


def _where(condition: Any, a: Any, b: Any, out: np.ndarray) -> None:
    np.copyto(out, b)
    np.copyto(out, a, where=condition)


def _choose(condition: Any, a: Any, b: Any, out: np.ndarray) -> None:
    if np.ndim(condition):  # a condition on settings that differ by coordinate
        _where(condition != 0, a, b, out)
    else:
        np.copyto(out, a if condition else b)


def _fill(value: Any, out: np.ndarray) -> None:
    np.copyto(out, value)


_OPERATIONS: dict[str, Callable[..., Any]] = {**_UFUNCS, "where": _where, "choose": _choose, "fill": _fill}
_TRUTHS = ("lt", "le", "gt", "ge", "eq", "ne")


def kernel_of(program: Program, dtype: np.dtype, columns: tuple[int, ...] = ()) -> _Reference:
    """The kernel of a program for parameters stored in a dtype; `columns` are the scalars (by place) that differ by
    coordinate."""
    return reading_of(program, dtype, columns) if program.totals else _stepping_of(program, dtype, columns)


@lru_cache(maxsize=256)
def _stepping_of(program: Program, dtype: np.dtype, columns: tuple[int, ...]) -> _Reference:
    return _Reference(program, computed(dtype), columns)


@lru_cache(maxsize=256)
def reading_of(program: Program, dtype: np.dtype, columns: tuple[int, ...] = ()) -> _Reading:
    """The same of a program that only reads, which also gives the values that it sums."""
    return _Reading(program, computed(dtype), columns)


class _Reference:
    tile = TILE

    def __init__(self, program: Program, dtype: np.dtype, columns: tuple[int, ...]) -> None:
        self._program, self._dtype, self._columns = program, dtype, columns
        self._buffer_of, self._buffer_dtypes = self._assign_buffers()

    def _assign_buffers(self) -> tuple[list[int], list[np.dtype]]:
        """A buffer for each instruction, used again once its value is read no more (never by its own operands)."""
        program = self._program
        first = len(program.inputs) + len(program.scalars)
        last_use = {v: len(program.code) for _, v in program.outputs}
        for k, instruction in enumerate(program.code):
            for v in instruction.operands:
                last_use[v] = max(last_use.get(v, 0), k)
        dtypes: list[np.dtype] = []
        taken: dict[int, int] = {}  # buffer -> the instruction after which it is free
        assigned = []
        for k, instruction in enumerate(program.code):
            dtype = np.dtype(bool) if instruction.op in _TRUTHS else self._dtype
            free = [b for b, until in taken.items() if until < k and dtypes[b] == dtype]
            if not free:
                dtypes.append(dtype)
            buffer = free[0] if free else len(dtypes) - 1
            taken[buffer] = last_use.get(first + k, k)
            assigned.append(buffer)
        return assigned, dtypes

    def __call__(self, row: Row) -> None:
        """Run the program over a row, in place."""
        size = row.arrays[0].size
        buffers = [np.empty(min(size, self.tile), d) for d in self._buffer_dtypes]
        flat = Row(tuple(a.reshape(-1) for a in row.arrays), row.constants, tuple(c.reshape(-1) for c in row.columns))
        with np.errstate(all="ignore"):
            for start in range(0, size, self.tile):
                self._tile(flat, slice(start, start + self.tile), buffers)

    def _tile(self, row: Row, part: slice, buffers: list[np.ndarray]) -> None:
        arrays = dict(zip(self._program.arrays, (a[part] for a in row.arrays)))
        values = self._values(arrays, row, part, buffers)
        for name, v in self._program.outputs:
            np.copyto(arrays[name], values[v])

    def _values(self, arrays: Mapping[str, np.ndarray], row: Row, part: slice, buffers: list[np.ndarray]) -> list[Any]:
        """The values of the program over a part of a row."""
        program = self._program
        n = len(row.arrays[0][part])
        values: list[Any] = [arrays[name].astype(self._dtype, copy=False) for name in program.inputs]
        values += list(row.constants)
        for place, column in zip(self._columns, row.columns):
            values[len(program.inputs) + place] = column[part]
        for instruction, buffer in zip(program.code, self._buffer_of):
            out = buffers[buffer][:n]
            _OPERATIONS[instruction.op](*[values[v] for v in instruction.operands], out=out)
            values.append(out)
        return values


class _Reading(_Reference):
    """The kernel of a program that only reads: its rows end with an array of the sums, by block and total."""

    tile = 64 * BLOCK

    def _tile(self, row: Row, part: slice, buffers: list[np.ndarray]) -> None:
        program, sums = self._program, row.arrays[-1].reshape(-1, len(self._program.totals))
        values = self._values(dict(zip(program.inputs, (a[part] for a in row.arrays))), row, part, buffers)
        first = part.start // BLOCK  # (the sums may go on behind this part of a leaf)
        self.sum([values[v] for v in self._summed], sums[first : first + block_count(len(row.arrays[0][part]))])

    @property
    def _summed(self) -> list[int]:
        """The values that are summed, by number, each once."""
        return list(dict.fromkeys(v for _, v in self._program.outputs))

    def values(self, row: Row) -> np.ndarray:
        """The values that are summed, of a row without an array of sums: each once, by coordinate."""
        size = row.arrays[0].size
        buffers = [np.empty(size, d) for d in self._buffer_dtypes]
        with np.errstate(all="ignore"):
            values = self._values(dict(zip(self._program.inputs, row.arrays)), row, slice(0, size), buffers)
        return np.array([values[v] for v in self._summed], self._dtype).reshape(-1, size)

    def sum(self, values: Sequence[np.ndarray], into: np.ndarray) -> None:
        """The sums of these values, by block."""
        for v, own_values in zip(self._summed, values):
            own = [k for k, (_, other) in enumerate(self._program.outputs) if other == v]
            found = np.empty((len(into), len(own)))
            with np.errstate(all="ignore"):
                block_sums(own_values, [self._program.totals[k] for k in own], found)
            into[:, own] = found


def all_finite(arrays: Sequence[np.ndarray]) -> bool:
    """Whether every entry of arrays in host memory, of any layout, is finite."""
    return all(map(_finite, arrays))


def _finite(array: np.ndarray) -> bool:
    if array.size <= 1 << 16:
        return bool(np.isfinite(array).all())
    with np.errstate(all="ignore"):  # maximum and minimum pass NaN on, and need no temporary array
        return bool(np.isfinite(array.max()) and np.isfinite(array.min()))
