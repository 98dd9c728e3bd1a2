"""The check of gradients as native code."""

from __future__ import annotations

from functools import cache

from fallline._engines.llvm.compiler import compiled
from fallline._engines.llvm.layout import ROW
from fallline._engines.llvm.numbers import STORED, Stored
from fallline._engines.llvm.strided import strided_finite_ir
from fallline._engines.llvm.text import chunk, fields

__all__ = ["finite_check"]


@cache
def finite_check(name: str, strided: bool) -> int:
    """The address of the check of gradients of a dtype, by its name, that lie contiguously or in any way, for a job."""
    kind = STORED[name]
    if strided:
        return compiled(strided_finite_ir(kind), "finite")[0]
    return compiled(_finite(kind), "finite", passes=0)[0]


def _finite(kind: Stored) -> str:
    """Whether a gradient has an entry that is not finite: as integers, these are the magnitudes from infinity's on."""
    whole, size, infinity, magnitude = kind.whole, kind.size, kind.infinity, kind.magnitude
    # vectors written out, of 64 bytes: cut to what the processor has without the optimiser, which takes longer to start
    lanes = 64 // size
    vector = f"<{lanes} x {whole}>"
    mask = f"<{', '.join([f'{whole} {magnitude}'] * lanes)}>"
    return f"""
declare {vector} @llvm.umax.v{lanes}{whole}({vector}, {vector})
declare {whole} @llvm.vector.reduce.umax.v{lanes}{whole}({vector})
declare {whole} @llvm.umax.{whole}({whole}, {whole})
define internal {whole} @largest(ptr noalias %g, i64 %n) noinline {{
entry:
  %whole = and i64 %n, {-lanes}
  %some = icmp sgt i64 %whole, 0
  br i1 %some, label %wide, label %rest
wide:
  %k = phi i64 [ 0, %entry ], [ %next, %wide ]
  %m = phi {vector} [ zeroinitializer, %entry ], [ %larger, %wide ]
  %p = getelementptr inbounds {whole}, ptr %g, i64 %k
  %v = load {vector}, ptr %p, align {size}
  %a = and {vector} %v, {mask}
  %larger = call {vector} @llvm.umax.v{lanes}{whole}({vector} %m, {vector} %a)
  %next = add nuw nsw i64 %k, {lanes}
  %more = icmp slt i64 %next, %whole
  br i1 %more, label %wide, label %folded
folded:
  %fold = call {whole} @llvm.vector.reduce.umax.v{lanes}{whole}({vector} %larger)
  br label %rest
rest:
  %start = phi i64 [ 0, %entry ], [ %whole, %folded ]
  %m0 = phi {whole} [ 0, %entry ], [ %fold, %folded ]
  br label %loop
loop:
  %j = phi i64 [ %start, %rest ], [ %j1, %one ]
  %mj = phi {whole} [ %m0, %rest ], [ %larger1, %one ]
  %left = icmp slt i64 %j, %n
  br i1 %left, label %one, label %end
one:
  %p1 = getelementptr inbounds {whole}, ptr %g, i64 %j
  %v1 = load {whole}, ptr %p1, align {size}
  %a1 = and {whole} %v1, {magnitude}
  %larger1 = call {whole} @llvm.umax.{whole}({whole} %mj, {whole} %a1)
  %j1 = add i64 %j, 1
  br label %loop
end:
  ret {whole} %mj
}}
define i64 @finite(ptr %row_of, ptr %offset_of, i64 %first, i64 %last) {{
entry:
  %some = icmp slt i64 %first, %last
  br i1 %some, label %loop, label %good
loop:
  %c = phi i64 [ %first, %entry ], [ %next, %after ]
  {chunk()}
  {fields("%row", ROW, "*g")}
  %from = getelementptr inbounds {whole}, ptr %g, i64 %offset
  %any = icmp sgt i64 %n, 0
  br i1 %any, label %look, label %after
look:
  %m = call {whole} @largest(ptr %from, i64 %n)
  %bad = icmp uge {whole} %m, {infinity}
  br i1 %bad, label %found, label %after
after:
  %next = add i64 %c, 1
  %more = icmp slt i64 %next, %last
  br i1 %more, label %loop, label %good
found:
  ret i64 1
good:
  ret i64 0
}}"""
