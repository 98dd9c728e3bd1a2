"""Kernels for arrays that do not lie contiguously: they pass through buffers, a part at a time, in C order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fallline._arrays.dtypes import computed
from fallline._engines.llvm.function import Function, module
from fallline._engines.llvm.kernel import inner_loop, outer_loop, reading_values
from fallline._engines.llvm.layout import STRIDED
from fallline._engines.llvm.numbers import STORED, Stored
from fallline._engines.llvm.sums import reading_part
from fallline._engines.llvm.text import moving, parts
from fallline._formula.program import Program

__all__ = ["PART", "move", "strided_ir"]

PART = 1024  # coordinates that are in the buffers at a time


def strided_ir(program: Program, dtype: np.dtype, by_coordinate: tuple[int, ...], columns: Mapping[str, int]) -> str:
    """As `kernel_ir`, for parameters, gradients and outputs of any strides; the state is contiguous."""
    kind, inside = STORED[dtype.name], STORED[computed(dtype).name]
    if program.totals:
        kinds = [kind if name in STRIDED else inside for name in program.inputs] + [inside] * len(by_coordinate)
        own = [reading_values(program, dtype, by_coordinate),
               reading_part(program, kinds, computed(dtype), columns, by_coordinate, strided=True)]
    else:
        own = [inner_loop(program, dtype, by_coordinate), _part(program, by_coordinate, columns, kind, inside)]
    return module(*own, outer_loop(), move("fetch", kind.type), move("store", kind.type))


def _part(program: Program, by_coordinate: tuple[int, ...], columns: Mapping[str, int], kind: Stored, inside: Stored
          ) -> str:
    """Run n coordinates of a row from an offset on, those of strided arrays through buffers."""
    f = Function("internal void @part(ptr, i64, i64)")
    row, offset, n = f.arguments
    names = [*program.arrays, *(f"scalar {k}" for k in by_coordinate)]
    bases = {name: row.load("ptr", columns[name]) for name in [*names, "constants"]}
    buffers = {name: f.room(kind.type, PART) for name in names if name in STRIDED}
    written = {name for name, _ in program.outputs}
    move = moving(f, row)
    with parts(f, offset, n, PART) as (start, m):
        for name, buffer in buffers.items():
            if name in program.inputs:
                move("fetch", name, bases[name], start, m, buffer)
        places = [buffers[name] if name in buffers else bases[name].at(start, inside.type) for name in names]
        f.call("void", "run", *places, bases["constants"], m)
        for name, buffer in buffers.items():
            if name in written:
                move("store", name, bases[name], start, m, buffer)
    return f.text()


def move(which: str, stored: str) -> str:
    """The function that copies n coordinates of an array, from the start-th in C order on, into a buffer (fetch) or out
    of it (store): (nd, shape, strides, base, start, n, buffer)."""
    f = Function(f"internal void @{which}(i64, ptr, ptr, ptr, i64, i64, ptr noalias) noinline")
    nd, shape, strides, base, start, n, buffer = f.arguments
    last = nd - 1
    size, stride = shape.load(index=last), strides.load(index=last)
    done = f.variable(0)
    with f.loop():  # along the last axis, as far as it goes
        f.stop(done.now >= n)
        along = (start + done.now) % size
        rest, offset = f.variable((start + done.now) // size), f.variable(along * stride)
        with f.loop(last) as k:
            axis = last - 1 - k
            length = shape.load(index=axis)
            offset.now += rest.now % length * strides.load(index=axis)
            rest.now //= length
        m = (n - done.now).least(size - along)
        origin, into = base.at(offset.now, "i8"), buffer.at(done.now, stored)
        with f.loop(m) as k:
            element, place = origin.at(k * stride, "i8"), into.at(k, stored)
            source, target = (element, place) if which == "fetch" else (place, element)
            target.store(source.load(stored))
        done.now += m
    return f.text()
