"""A program as the text of a native kernel, which takes one pass through memory.

The kernel is an inner loop over one contiguous run of coordinates and an outer loop over chunks of leaves, each of
which has a row (see `layout`), so one call steps any number of arrays. No fast-math: every operation is the IEEE one,
in the program's order.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from fallline._arrays.dtypes import computed
from fallline._engines.llvm.numbers import FLOATS, STORED, Stored, conversions, load, store
from fallline._engines.llvm.sums import buffered, reading_part, sum_functions
from fallline._engines.llvm.text import chunk, field, pinned
from fallline._formula.program import OUTSIDE, Instruction, Program

__all__ = ["inner_loop", "kernel_ir", "outer_loop", "reading_values"]

_BINARY = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_COMPARE = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}


def kernel_ir(program: Program, dtype: np.dtype, by_coordinate: tuple[int, ...], columns: Mapping[str, int]) -> str:
    """The program as the text of an LLVM module, for parameters stored in a dtype that lie contiguously.

    `by_coordinate` are the scalars, by place, that differ by coordinate, `columns` where a row has the kernel's arrays
    (see `layout.pass_columns`). The function is `chunks(row_of, offset_of, first, last)`.
    """
    kinds = _kinds(program, dtype, by_coordinate)
    if program.totals:
        read = [*kinds[: len(program.inputs)], *kinds[len(program.arrays) :]]
        return "\n".join([reading_values(program, dtype, by_coordinate),
                          reading_part(program, read, computed(dtype), columns, by_coordinate), outer_loop()])
    return "\n".join([inner_loop(program, dtype, by_coordinate), _part(program, kinds, by_coordinate, columns),
                      outer_loop()])


def reading_values(program: Program, dtype: np.dtype, columns: tuple[int, ...]) -> str:
    """The functions that the parts of a program that only reads are made of."""
    inside = computed(dtype)
    buffers = buffered(program, _kinds(program, dtype, ()), FLOATS[inside.name][0])
    values = program._replace(outputs=tuple((name, v) for v, name in buffers.items()), totals=())
    return (inner_loop(values, dtype, columns) if buffers else "") + sum_functions(inside)


def _kinds(program: Program, dtype: np.dtype, columns: tuple[int, ...]) -> list[Stored]:
    """How the numbers of each of a kernel's arrays are stored: those of the caller in `dtype`."""
    inside = STORED[computed(dtype).name]
    return [STORED[dtype.name] if name in OUTSIDE else inside for name in program.arrays] + [inside] * len(columns)


def inner_loop(program: Program, dtype: np.dtype, columns: tuple[int, ...]) -> str:
    """The function `run`, over n coordinates of contiguous arrays."""
    real, suffix = FLOATS[computed(dtype).name]
    kinds = dict(zip((f"%a{k}" for k in itertools.count()), _kinds(program, dtype, columns)))
    pointers = list(kinds)
    name_of = dict(zip(program.arrays, pointers))
    values: list[str] = []
    head, body = [], []
    for k, name in enumerate(program.inputs):
        body.append(load(f"%i{k}", f"{name_of[name]}.i", kinds[name_of[name]], real))
        values.append(f"%i{k}")
    for k in range(len(program.scalars)):
        if k in columns:
            place = pointers[len(program.arrays) + columns.index(k)]
            body.append(load(f"%s{k}", f"{place}.i", kinds[place], real))
        else:
            head.append(f"%s{k}.p = getelementptr inbounds {real}, ptr %constants, i64 {k}")
            head.append(f"%s{k} = load {real}, ptr %s{k}.p")
        values.append(f"%s{k}")
    for k, instruction in enumerate(program.code):
        lines, result = _instruction(instruction, [values[v] for v in instruction.operands], f"%v{k}", real, suffix)
        body += lines
        values.append(result)
    body += [store(values[v], f"{name_of[name]}.i", kinds[name_of[name]], real) for name, v in program.outputs]
    addresses = [f"{p}.i = getelementptr inbounds {kind.type}, ptr {p}, i64 %k" for p, kind in kinds.items()]
    arguments = ", ".join([*(f"ptr noalias {p}" for p in pointers), "ptr noalias %constants", "i64 %n"])
    join = "\n  ".join
    return f"""{conversions(dtype)}
declare {real} @llvm.sqrt.{suffix}({real})
declare {real} @llvm.fabs.{suffix}({real})
define internal void @run({arguments}) noinline {{
entry:
  {join(head)}
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %loop, label %end
loop:
  %k = phi i64 [ 0, %entry ], [ %next, %loop ]
  {join(addresses)}
  {join(body)}
  %next = add nuw nsw i64 %k, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %end
end:
  ret void
}}"""


def _instruction(instruction: Instruction, operands: list[str], result: str, real: str,
                 suffix: str) -> tuple[list[str], str]:
    """The lines that compute one instruction, and the name of its value."""
    op, (a, *rest) = instruction.op, operands
    if op == "fill":
        return [], a
    if op in _BINARY:
        return [f"{result} = {_BINARY[op]} {real} {a}, {rest[0]}"], result
    if op in _COMPARE:
        return [f"{result} = fcmp {_COMPARE[op]} {real} {a}, {rest[0]}"], result
    if op == "neg":
        return [f"{result} = fneg {real} {a}"], result
    if op in ("sqrt", "abs"):
        intrinsic = {"sqrt": "sqrt", "abs": "fabs"}[op]
        return [f"{result} = call {real} @llvm.{intrinsic}.{suffix}({real} {a})"], result
    if op == "choose":
        return [f"{result}.c = fcmp une {real} {a}, 0.0",
                f"{result} = select i1 {result}.c, {real} {rest[0]}, {real} {rest[1]}"], result
    return [f"{result} = select i1 {a}, {real} {rest[0]}, {real} {rest[1]}"], result  # where


def _part(program: Program, kinds: Sequence[Stored], by_coordinate: Sequence[int], columns: Mapping[str, int]) -> str:
    """Run n coordinates of a row from an offset on, where they lie."""
    names = [*program.arrays, *(f"scalar {k}" for k in by_coordinate)]
    loads = [field(f"c{k}", "%row", 8 * columns[name], "ptr") for k, name in enumerate([*names, "constants"])]
    loads += [f"%a{k} = getelementptr inbounds {kind.type}, ptr %c{k}, i64 %offset" for k, kind in enumerate(kinds)]
    arguments = ", ".join([*(f"ptr %a{k}" for k in range(len(names))), f"ptr %c{len(names)}", "i64 %n"])
    lines = "\n  ".join(loads)
    return f"""
define internal void @part(ptr %row, i64 %offset, i64 %n) {{
  {lines}
  call void @run({arguments})
  ret void
}}"""


def outer_loop() -> str:
    """A loop over chunks: of each its leaf's row, and a part of that to run."""
    declare, pin, unpin = pinned()
    return f"""{declare}
define void @chunks(ptr %row_of, ptr %offset_of, i64 %first, i64 %last) {{
entry:{pin}
  br label %loop
loop:
  %c = phi i64 [ %first, %entry ], [ %next, %loop ]
  {chunk()}
  call void @part(ptr %row, i64 %offset, i64 %n)
  %next = add i64 %c, 1
  %more = icmp slt i64 %next, %last
  br i1 %more, label %loop, label %end
end:{unpin}
  ret void
}}"""
