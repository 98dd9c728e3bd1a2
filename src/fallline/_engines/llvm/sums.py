"""Native kernels that only read: the sums of a reading program's values, by block and total (see `blocks`).

The values of a block go through a buffer, from the same inner loop that a step has; what is an input as it lies in
memory is summed there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np

from fallline._engines.blocks import BLOCK, LANES
from fallline._engines.llvm.compiler import compiled
from fallline._engines.llvm.layout import STRIDES
from fallline._engines.llvm.numbers import FLOATS, Stored
from fallline._engines.llvm.text import field, in_parts, literal
from fallline._formula.program import Program
from fallline._formula.words import SCALES

__all__ = ["buffered", "halve", "reading_part", "sum_functions", "totals"]


def buffered(program: Program, kinds: Sequence[Stored], real: str) -> dict[int, str]:
    """The values that are to go through a buffer, by number, with its name: all but inputs that are so stored."""
    direct = {k for k, kind in enumerate(kinds[: len(program.inputs)]) if kind.type == real}
    return {v: f"buffer {v}" for v in dict.fromkeys(v for _, v in program.outputs) if v not in direct}


def reading_part(program: Program, kinds: Sequence[Stored], dtype: np.dtype, strided: Sequence[int] = ()) -> str:
    """Read n coordinates of a row from an offset on, where they lie: `part`, as other kernels have it.

    `kinds` are those of the inputs and of the scalars that differ by coordinate; behind the inputs the row has the
    address of the sums. The inputs of these numbers are `strided`: they are fetched as the layout says (see `strided`).
    """
    real, _ = FLOATS[dtype.name]
    buffers = buffered(program, kinds, real)
    inputs = len(program.inputs)
    loads = [field(f"c{k}", "%row", 8 * (k + 1), "ptr") for k in range(len(kinds) + 2)]
    place = [k + (k >= inputs) for k in range(len(kinds))]  # the sums stand between
    at = [f"%a{k} = getelementptr inbounds {kind.type}, ptr %c{place[k]}, i64 %start"
          for k, kind in enumerate(kinds) if k not in strided]
    room = [f"%b{v} = alloca [{BLOCK} x {real}], align 64" for v in buffers]
    if strided:
        room += [f"%a{k} = alloca [{BLOCK} x {kinds[k].type}], align 64" for k in strided]
        loads += [field("layout", "%row", 8 * (len(kinds) + 3), "ptr"), field("nd", "%layout", 0),
                  field("shape", "%layout", 8, "ptr")]
        loads += [field(f"s{k}", "%layout", 8 * (STRIDES + k), "ptr") for k in strided]
        at += [f"call void @fetch(i64 %nd, ptr %shape, ptr %s{k}, ptr %c{k}, i64 %start, i64 %m, ptr %a{k})"
               for k in strided]
    arguments = [f"ptr %a{k}" for k in range(inputs)] + [f"ptr %b{v}" for v in buffers]
    arguments += [f"ptr %a{k}" for k in range(inputs, len(kinds))] + [f"ptr %c{len(kinds) + 1}", "i64 %m"]
    run = [f"call void @run({', '.join(arguments)})"] if buffers else []
    width = 8 * len(program.totals)
    sums = _sums(program, {v: f"%{'b' if v in buffers else 'a'}{v}" for _, v in program.outputs}, real)
    return in_parts(BLOCK, [*room, *loads], [*at, *run, f"%block = sdiv i64 %start, {BLOCK}",
                                             f"%bytes = mul i64 %block, {width}",
                                             f"%sums = getelementptr inbounds i8, ptr %c{inputs}, i64 %bytes", *sums])


def _sums(program: Program, pointers: Mapping[int, str], real: str) -> list[str]:
    """The lines that store the sums of a block; those of squares of float32, which neither overflow nor vanish in
    double precision, are scaled when they are made."""
    lines: list[str] = []
    made: dict[tuple[int, str], str] = {}
    for k, (total, (_, v)) in enumerate(zip(program.totals, program.outputs)):
        kind = "squares" if real == "float" and total.kind in SCALES else total.kind
        if (v, kind) not in made:
            made[v, kind] = f"%q{k}"
            more = "" if kind == "sum" else f", double {literal(SCALES[kind])}"
            lines.append(f"%q{k} = call double @{'squares' if more else 'sum'}(ptr {pointers[v]}, i64 %m{more})")
        result = made[v, kind]
        if kind != total.kind:
            scale = literal(SCALES[total.kind])
            lines += [f"%r{k} = fmul double {result}, {scale}", f"%t{k} = fmul double %r{k}, {scale}"]
            result = f"%t{k}"
        lines += [f"%p{k} = getelementptr inbounds double, ptr %sums, i64 {k}", f"store double {result}, ptr %p{k}"]
    return lines


def sum_functions(dtype: np.dtype) -> str:
    """`sum` and `squares`, of n reals of a dtype, in lanes of double precision."""
    real, _ = FLOATS[dtype.name]
    return _sum_function("sum", real) + _sum_function("squares", real)


def _sum_function(name: str, real: str) -> str:
    wide = f"<{LANES} x double>"
    scaled = name == "squares"
    head = ", double %scale" if scaled else ""
    spread = f"""%scale1 = insertelement {wide} poison, double %scale, i32 0
  %scales = shufflevector {wide} %scale1, {wide} poison, <{LANES} x i32> zeroinitializer""" if scaled else ""

    def added(suffix: str, to: str) -> str:
        lines = [f"%w{suffix} = fadd {wide} %v{suffix}, zeroinitializer" if real == "double" else
                 f"%w{suffix} = fpext <{LANES} x {real}> %v{suffix} to {wide}"]
        if scaled:
            lines += [f"%z{suffix} = fmul {wide} %w{suffix}, %scales",
                      f"%y{suffix} = fmul {wide} %z{suffix}, %z{suffix}"]
        return "\n  ".join([*lines, f"%a{suffix} = fadd {wide} {to}, %{'y' if scaled else 'w'}{suffix}"])

    tree, value, lanes = [], "%f", LANES
    while lanes > 1:
        half = lanes // 2
        low, high = (", ".join(f"i32 {k}" for k in range(start, start + half)) for start in (0, half))
        vector = f"<{lanes} x double>"
        tree += [f"%l{half} = shufflevector {vector} {value}, {vector} poison, <{half} x i32> <{low}>",
                 f"%h{half} = shufflevector {vector} {value}, {vector} poison, <{half} x i32> <{high}>",
                 f"%s{half} = fadd <{half} x double> %l{half}, %h{half}"]
        value, lanes = f"%s{half}", half
    join = "\n  ".join
    return f"""
define internal double @{name}(ptr %x, i64 %n{head}) noinline {{
entry:
  %rest = alloca [{LANES} x {real}], align 64
  {spread}
  %end = and i64 %n, -{LANES}
  %any = icmp sgt i64 %end, 0
  br i1 %any, label %loop, label %tail
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]
  %acc = phi {wide} [ zeroinitializer, %entry ], [ %aL, %loop ]
  %p = getelementptr inbounds {real}, ptr %x, i64 %i
  %vL = load <{LANES} x {real}>, ptr %p, align {4 if real == "float" else 8}
  {added("L", "%acc")}
  %i1 = add i64 %i, {LANES}
  %more = icmp slt i64 %i1, %end
  br i1 %more, label %loop, label %tail
tail:
  %so_far = phi {wide} [ zeroinitializer, %entry ], [ %aL, %loop ]
  %left = icmp slt i64 %end, %n
  br i1 %left, label %clear, label %tree
clear:
  store <{LANES} x {real}> zeroinitializer, ptr %rest
  br label %copy
copy:
  %k = phi i64 [ %end, %clear ], [ %k1, %copy ]
  %from = getelementptr inbounds {real}, ptr %x, i64 %k
  %one = load {real}, ptr %from
  %lane = sub i64 %k, %end
  %to = getelementptr inbounds {real}, ptr %rest, i64 %lane
  store {real} %one, ptr %to
  %k1 = add i64 %k, 1
  %further = icmp slt i64 %k1, %n
  br i1 %further, label %copy, label %last
last:
  %vT = load <{LANES} x {real}>, ptr %rest
  {added("T", "%so_far")}
  br label %tree
tree:
  %f = phi {wide} [ %so_far, %tail ], [ %aT, %last ]
  {join(tree)}
  %result = extractelement <1 x double> {value}, i32 0
  ret double %result
}}"""


@cache
def totals() -> Callable[..., None]:
    """The function (sums, first, n, width, by_leaf, tree): the totals of each of n leaves, and of all.

    The sums of leaf k, a row of `width` for each block, begin at row first[k] and are overwritten, as are those of
    `tree`, an array as `by_leaf`, whose first row is then the totals of the tree. All arguments but n and width are
    addresses.
    """
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    function = ctypes.PYFUNCTYPE(None, pointer, pointer, number, number, pointer, pointer)
    return function(_summing()[0])


@cache
def halve() -> Callable[..., None]:
    """The function (parts, n, width): the sum of n rows of doubles from an address on, as `blocks.halved` has it, which
    is then the first row; the others are overwritten."""
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    return ctypes.PYFUNCTYPE(None, pointer, number, number)(_summing()[1])


@cache
def _summing() -> Sequence[int]:
    return compiled(_TOTALS, "totals", "halve", passes=0)


_TOTALS = """
define void @halve(ptr %parts, i64 %count, i64 %width) {
entry:
  br label %loop
loop:
  %n = phi i64 [ %count, %entry ], [ %half, %added ]
  %more = icmp sgt i64 %n, 1
  br i1 %more, label %split, label %end
split:
  %n1 = add i64 %n, 1
  %half = sdiv i64 %n1, 2
  %behind = sub i64 %n, %half
  %size = mul i64 %behind, %width
  %from = mul i64 %half, %width
  br label %add
add:
  %i = phi i64 [ 0, %split ], [ %i1, %one ]
  %left = icmp slt i64 %i, %size
  br i1 %left, label %one, label %added
one:
  %a.p = getelementptr inbounds double, ptr %parts, i64 %i
  %j = add i64 %from, %i
  %b.p = getelementptr inbounds double, ptr %parts, i64 %j
  %a = load double, ptr %a.p
  %b = load double, ptr %b.p
  %s = fadd double %a, %b
  store double %s, ptr %a.p
  %i1 = add i64 %i, 1
  br label %add
added:
  br label %loop
end:
  ret void
}
define void @totals(ptr %sums, ptr %first, i64 %leaves, i64 %width, ptr %by_leaf, ptr %tree) {
entry:
  br label %loop
loop:
  %k = phi i64 [ 0, %entry ], [ %k1, %copied ]
  %more = icmp slt i64 %k, %leaves
  br i1 %more, label %leaf, label %end
leaf:
  %k1 = add i64 %k, 1
  %low.p = getelementptr inbounds i64, ptr %first, i64 %k
  %high.p = getelementptr inbounds i64, ptr %first, i64 %k1
  %low = load i64, ptr %low.p
  %high = load i64, ptr %high.p
  %blocks = sub i64 %high, %low
  %at = mul i64 %low, %width
  %own = getelementptr inbounds double, ptr %sums, i64 %at
  call void @halve(ptr %own, i64 %blocks, i64 %width)
  %some = icmp sgt i64 %blocks, 0
  %row = mul i64 %k, %width
  br label %copy
copy:
  %c = phi i64 [ 0, %leaf ], [ %c1, %one ]
  %left = icmp slt i64 %c, %width
  br i1 %left, label %one, label %copied
one:
  %v.p = getelementptr inbounds double, ptr %own, i64 %c
  %v = load double, ptr %v.p
  %value = select i1 %some, double %v, double 0.0
  %place = add i64 %row, %c
  %l.p = getelementptr inbounds double, ptr %by_leaf, i64 %place
  %t.p = getelementptr inbounds double, ptr %tree, i64 %place
  store double %value, ptr %l.p
  store double %value, ptr %t.p
  %c1 = add i64 %c, 1
  br label %copy
copied:
  br label %loop
end:
  call void @halve(ptr %tree, i64 %leaves, i64 %width)
  ret void
}"""
