"""Kernels for arrays that do not lie contiguously: they pass through buffers, a part at a time, in C order.

A row of the table then has a layout: the number of dimensions, the address of the shape, and from STRIDES on, for each
of the kernel's arrays, the address of its strides, as NumPy has them, in bytes.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from fallline._arrays.dtypes import computed
from fallline._engines.llvm.compiler import compiled
from fallline._engines.llvm.kernel import inner_loop, outer_loop, reading_values
from fallline._engines.llvm.layout import EXTRA, STRIDES
from fallline._engines.llvm.numbers import STORED, Stored
from fallline._engines.llvm.sums import reading_part
from fallline._engines.llvm.text import chunk, field, in_parts
from fallline._formula.program import OUTSIDE, Program

__all__ = ["Strided", "strided_kernel"]

PART = 1024  # coordinates that are in the buffers at a time


class Strided(NamedTuple):
    """The addresses of a kernel's functions, for a job."""

    chunks: int
    finite: int


@cache
def strided_kernel(program: Program, dtype: np.dtype) -> Strided:
    """The kernel of a program whose parameters, gradients and outputs, of a dtype, are strided; the state is
    contiguous."""
    kind, inside = STORED[dtype.name], STORED[computed(dtype).name]
    move = [_move("fetch", kind.type), _move("store", kind.type), _finite(kind)]
    if program.totals:
        names = program.inputs
        strided = [k for k, name in enumerate(names) if name in OUTSIDE]
        kinds = [kind if k in strided else inside for k in range(len(names))]
        parts = [reading_values(program, dtype, ()), reading_part(program, kinds, computed(dtype), strided),
                 outer_loop(len(names) + 1 + EXTRA), *move]
    else:
        parts = [inner_loop(program, dtype, ()), _part(program, kind.type, inside.type),
                 outer_loop(len(program.arrays) + EXTRA), *move]
    return Strided(*compiled("\n".join(parts), "chunks", "finite"))


def _part(program: Program, stored: str, real: str) -> str:
    """Run n coordinates of a row from an offset on, those of strided arrays through buffers."""
    names = program.arrays
    strided = [k for k, name in enumerate(names) if name in OUTSIDE]
    written = {name for name, _ in program.outputs}
    loads = [field(f"c{k}", "%row", 8 * (k + 1), "ptr") for k in range(len(names) + 1)]
    loads += [field("layout", "%row", 8 * (len(names) + 2), "ptr"), field("nd", "%layout", 0),
              field("shape", "%layout", 8, "ptr")]
    loads += [field(f"s{k}", "%layout", 8 * (STRIDES + k), "ptr") for k in strided]
    loads += [f"%b{k} = alloca [{PART} x {stored}], align 64" for k in strided]
    move = {k: f"(i64 %nd, ptr %shape, ptr %s{k}, ptr %c{k}, i64 %start, i64 %m, ptr %b{k})" for k in strided}
    fetch = [f"call void @fetch{move[k]}" for k in strided if names[k] in program.inputs]
    store = [f"call void @store{move[k]}" for k in strided if names[k] in written]
    places = [f"%a{k} = getelementptr inbounds {real}, ptr %c{k}, i64 %start"
              for k in range(len(names)) if k not in strided]
    arguments = ", ".join([*(f"ptr %{'b' if k in strided else 'a'}{k}" for k in range(len(names))),
                           f"ptr %c{len(names)}", "i64 %m"])
    return in_parts(PART, loads, [*fetch, *places, f"call void @run({arguments})", *store])


def _move(name: str, stored: str) -> str:
    """Copy n coordinates, from the start-th in C order on, into a buffer (fetch) or out of it (store)."""
    source, target = ("%e", "%b") if name == "fetch" else ("%b", "%e")
    return f"""
define internal void @{name}(i64 %nd, ptr %shape, ptr %strides, ptr %base, i64 %start, i64 %n,
                             ptr noalias %buffer) noinline {{
entry:
  %last = sub i64 %nd, 1
  %size.p = getelementptr inbounds i64, ptr %shape, i64 %last
  %size = load i64, ptr %size.p
  %stride.p = getelementptr inbounds i64, ptr %strides, i64 %last
  %stride = load i64, ptr %stride.p
  br label %runs
runs:  ; along the last axis, as far as it goes
  %done = phi i64 [ 0, %entry ], [ %done1, %run.end ]
  %more = icmp slt i64 %done, %n
  br i1 %more, label %place, label %end
place:
  %index = add i64 %start, %done
  %rest0 = sdiv i64 %index, %size
  %in0 = srem i64 %index, %size
  %off0 = mul i64 %in0, %stride
  br label %axes
axes:
  %d = phi i64 [ %last, %place ], [ %d1, %axis ]
  %rest = phi i64 [ %rest0, %place ], [ %rest1, %axis ]
  %off = phi i64 [ %off0, %place ], [ %off1, %axis ]
  %outer = icmp sgt i64 %d, 0
  br i1 %outer, label %axis, label %run
axis:
  %d1 = sub i64 %d, 1
  %length.p = getelementptr inbounds i64, ptr %shape, i64 %d1
  %length = load i64, ptr %length.p
  %step.p = getelementptr inbounds i64, ptr %strides, i64 %d1
  %step = load i64, ptr %step.p
  %rest1 = sdiv i64 %rest, %length
  %in = srem i64 %rest, %length
  %by = mul i64 %in, %step
  %off1 = add i64 %off, %by
  br label %axes
run:
  %to_end = sub i64 %size, %in0
  %left = sub i64 %n, %done
  %short = icmp slt i64 %left, %to_end
  %m = select i1 %short, i64 %left, i64 %to_end
  %origin = getelementptr inbounds i8, ptr %base, i64 %off
  %into = getelementptr inbounds {stored}, ptr %buffer, i64 %done
  br label %each
each:
  %k = phi i64 [ 0, %run ], [ %k1, %each ]
  %far = mul i64 %k, %stride
  %e = getelementptr inbounds i8, ptr %origin, i64 %far
  %b = getelementptr inbounds {stored}, ptr %into, i64 %k
  %value = load {stored}, ptr {source}
  store {stored} %value, ptr {target}
  %k1 = add nuw nsw i64 %k, 1
  %again = icmp slt i64 %k1, %m
  br i1 %again, label %each, label %run.end
run.end:
  %done1 = add i64 %done, %m
  br label %runs
end:
  ret void
}}"""


def _finite(kind: Stored) -> str:
    """As the checks of jobs, for strided gradients."""
    whole, infinity = kind.whole, kind.infinity
    return f"""
define i64 @finite(ptr %table, ptr %leaf_of, ptr %offset_of, i64 %first, i64 %last, i64 %width, i64 %column) {{
entry:
  %buffer = alloca [{PART} x {whole}], align 64
  br label %chunks_loop
chunks_loop:
  %c = phi i64 [ %first, %entry ], [ %c1, %chunk.end ]
  %more = icmp slt i64 %c, %last
  br i1 %more, label %chunk, label %good
chunk:
  {chunk("%width")}
  %g.p = getelementptr inbounds i64, ptr %row, i64 %column
  %g = load ptr, ptr %g.p
  %end_of_row = sub i64 %width, 1
  %layout.p = getelementptr inbounds i64, ptr %row, i64 %end_of_row
  %layout = load ptr, ptr %layout.p
  {field("nd", "%layout", 0)}
  {field("shape", "%layout", 8, "ptr")}
  %which = add i64 %column, {STRIDES - 1}
  %strides.p = getelementptr inbounds i64, ptr %layout, i64 %which
  %strides = load ptr, ptr %strides.p
  br label %parts
parts:
  %done = phi i64 [ 0, %chunk ], [ %next, %next_part ]
  %some = icmp slt i64 %done, %n
  br i1 %some, label %part, label %chunk.end
part:
  %left = sub i64 %n, %done
  %few = icmp slt i64 %left, {PART}
  %m = select i1 %few, i64 %left, i64 {PART}
  %start = add i64 %offset, %done
  call void @fetch(i64 %nd, ptr %shape, ptr %strides, ptr %g, i64 %start, i64 %m, ptr %buffer)
  br label %each
each:
  %k = phi i64 [ 0, %part ], [ %k1, %each ]
  %largest = phi {whole} [ 0, %part ], [ %larger, %each ]
  %p = getelementptr inbounds {whole}, ptr %buffer, i64 %k
  %bits = load {whole}, ptr %p
  %size = and {whole} %bits, {kind.magnitude}
  %above = icmp ugt {whole} %size, %largest
  %larger = select i1 %above, {whole} %size, {whole} %largest
  %k1 = add nuw nsw i64 %k, 1
  %again = icmp slt i64 %k1, %m
  br i1 %again, label %each, label %look
look:
  %bad = icmp uge {whole} %larger, {infinity}
  br i1 %bad, label %found, label %next_part
next_part:
  %next = add i64 %done, %m
  br label %parts
chunk.end:
  %c1 = add i64 %c, 1
  br label %chunks_loop
found:
  ret i64 1
good:
  ret i64 0
}}"""
