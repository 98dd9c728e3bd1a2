"""A program as the text of a native kernel, which takes one pass through memory.

The kernel is an inner loop over one contiguous run of coordinates and an outer loop over chunks of leaves, each of
which has a row (see `layout`), so one call steps any number of arrays. No fast-math: every operation is the IEEE one,
in the program's order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fallline._arrays.dtypes import computed
from fallline._engines.llvm.function import Function, Value, module
from fallline._engines.llvm.numbers import REAL, STORED, Stored, conversions, load, operate, store
from fallline._engines.llvm.sums import buffered, reading_part, sum_functions
from fallline._engines.llvm.text import chunks, pinned
from fallline._formula.program import OUTSIDE, Program

__all__ = ["inner_loop", "kernel_ir", "outer_loop", "reading_values"]


def kernel_ir(program: Program, dtype: np.dtype, by_coordinate: tuple[int, ...], columns: Mapping[str, int]) -> str:
    """The program as the text of an LLVM module, for parameters stored in a dtype that lie contiguously.

    `by_coordinate` are the scalars, by place, that differ by coordinate, `columns` where a row has the kernel's arrays
    (see `layout.pass_columns`). The function is `chunks(row_of, offset_of, first, last)`.
    """
    kinds = _kinds(program, dtype, by_coordinate)
    if program.totals:
        read = [*kinds[: len(program.inputs)], *kinds[len(program.arrays) :]]
        return module(reading_values(program, dtype, by_coordinate),
                      reading_part(program, read, computed(dtype), columns, by_coordinate), outer_loop())
    return module(inner_loop(program, dtype, by_coordinate), _part(program, kinds, by_coordinate, columns),
                  outer_loop())


def reading_values(program: Program, dtype: np.dtype, columns: tuple[int, ...]) -> str:
    """The functions that the parts of a program that only reads are made of."""
    inside = computed(dtype)
    buffers = buffered(program, _kinds(program, dtype, ()), REAL[inside.name])
    values = program._replace(outputs=tuple((name, v) for v, name in buffers.items()), totals=())
    return (inner_loop(values, dtype, columns) if buffers else "") + sum_functions(inside)


def _kinds(program: Program, dtype: np.dtype, columns: tuple[int, ...]) -> list[Stored]:
    """How the numbers of each of a kernel's arrays are stored: those of the caller in `dtype`."""
    inside = STORED[computed(dtype).name]
    return [STORED[dtype.name] if name in OUTSIDE else inside for name in program.arrays] + [inside] * len(columns)


def inner_loop(program: Program, dtype: np.dtype, columns: tuple[int, ...]) -> str:
    """The function `run`, over n coordinates of contiguous arrays."""
    real = REAL[computed(dtype).name]
    kinds = _kinds(program, dtype, columns)
    f = Function(f"internal void @run({'ptr noalias, ' * (len(kinds) + 1)}i64) noinline")
    *pointers, constants, n = f.arguments
    arrays = list(zip(pointers, kinds))
    place = dict(zip([*program.arrays, *columns], arrays))  # an array's by name, a scalar's by number
    shared = {k: constants.load(real, k) for k in range(len(program.scalars)) if k not in columns}
    with f.loop(n) as k:
        values = [load(f, pointer, k, kind, real) for pointer, kind in (place[name] for name in program.inputs)]
        for scalar in range(len(program.scalars)):
            values.append(shared[scalar] if scalar in shared else load(f, place[scalar][0], k, place[scalar][1], real))
        for instruction in program.code:
            values.append(_value(f, instruction.op, [values[v] for v in instruction.operands]))
        for name, v in program.outputs:
            store(f, values[v], place[name][0], k, place[name][1])
    return conversions(dtype) + f.text()


def _value(f: Function, op: str, operands: list[Value]) -> Value:
    """What an instruction comes to."""
    if op == "fill":
        return operands[0]
    if op == "choose":
        return operands[0].differs(0.0).choose(operands[1], operands[2])
    return operate(f, op, operands)


def _part(program: Program, kinds: Sequence[Stored], by_coordinate: Sequence[int], columns: Mapping[str, int]) -> str:
    """Run n coordinates of a row from an offset on, where they lie."""
    f = Function("internal void @part(ptr, i64, i64)")
    row, offset, n = f.arguments
    names = [*program.arrays, *(f"scalar {k}" for k in by_coordinate)]
    places = [row.load("ptr", columns[name]).at(offset, kind.type) for name, kind in zip(names, kinds)]
    f.call("void", "run", *places, row.load("ptr", columns["constants"]), n)
    return f.text()


def outer_loop() -> str:
    """A loop over chunks: of each its leaf's row, and a part of that to run."""
    f = Function("void @chunks(ptr, ptr, i64, i64)")
    with pinned(f), chunks(f) as chunk:
        f.call("void", "part", *chunk)
    return f.text()
