"""Kernels for arrays that do not lie contiguously: they pass through buffers, a part at a time, in C order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fallline._arrays.dtypes import computed
from fallline._engines.llvm.kernel import inner_loop, outer_loop, reading_values
from fallline._engines.llvm.layout import ROW, STRIDED
from fallline._engines.llvm.numbers import STORED, Stored
from fallline._engines.llvm.sums import reading_part, strides_of
from fallline._engines.llvm.text import chunk, field, fields, in_parts
from fallline._formula.program import Program

__all__ = ["strided_finite_ir", "strided_ir"]

PART = 1024  # coordinates that are in the buffers at a time


def strided_ir(program: Program, dtype: np.dtype, by_coordinate: tuple[int, ...], columns: Mapping[str, int]) -> str:
    """As `kernel_ir`, for parameters, gradients and outputs of any strides; the state is contiguous."""
    kind, inside = STORED[dtype.name], STORED[computed(dtype).name]
    move = [_move("fetch", kind.type), _move("store", kind.type)]
    if program.totals:
        kinds = [kind if name in STRIDED else inside for name in program.inputs] + [inside] * len(by_coordinate)
        parts = [reading_values(program, dtype, by_coordinate),
                 reading_part(program, kinds, computed(dtype), columns, by_coordinate, strided=True)]
    else:
        parts = [inner_loop(program, dtype, by_coordinate), _part(program, by_coordinate, columns, kind, inside)]
    return "\n".join([*parts, outer_loop(), *move])


def _part(program: Program, by_coordinate: tuple[int, ...], columns: Mapping[str, int], kind: Stored, inside: Stored
          ) -> str:
    """Run n coordinates of a row from an offset on, those of strided arrays through buffers."""
    names = [*program.arrays, *(f"scalar {k}" for k in by_coordinate)]
    strided = [k for k, name in enumerate(names) if name in STRIDED]
    written = {name for name, _ in program.outputs}
    loads = [field(f"c{k}", "%row", 8 * columns[name], "ptr") for k, name in enumerate([*names, "constants"])]
    loads += strides_of({f"s{k}": names[k] for k in strided})
    loads += [f"%b{k} = alloca [{PART} x {kind.type}], align 64" for k in strided]
    move = {k: f"(i64 %nd, ptr %shape, ptr %s{k}, ptr %c{k}, i64 %start, i64 %m, ptr %b{k})" for k in strided}
    fetch = [f"call void @fetch{move[k]}" for k in strided if names[k] in program.inputs]
    store = [f"call void @store{move[k]}" for k in strided if names[k] in written]
    places = [f"%a{k} = getelementptr inbounds {inside.type}, ptr %c{k}, i64 %start"
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


def strided_finite_ir(kind: Stored) -> str:
    """As the check of `finite`, for strided gradients."""
    whole, infinity = kind.whole, kind.infinity
    lines = "\n  ".join(strides_of({"strides": "g"}))
    return _move("fetch", kind.whole) + f"""
define i64 @finite(ptr %row_of, ptr %offset_of, i64 %first, i64 %last) {{
entry:
  %buffer = alloca [{PART} x {whole}], align 64
  br label %chunks_loop
chunks_loop:
  %c = phi i64 [ %first, %entry ], [ %c1, %chunk.end ]
  %more = icmp slt i64 %c, %last
  br i1 %more, label %chunk, label %good
chunk:
  {chunk()}
  {fields("%row", ROW, "*g")}
  {lines}
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
