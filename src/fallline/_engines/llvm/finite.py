"""The check of gradients as native code."""

from __future__ import annotations

from functools import cache

from fallline._engines.llvm.compiler import compiled
from fallline._engines.llvm.function import Function, Value, module
from fallline._engines.llvm.layout import ROW
from fallline._engines.llvm.numbers import STORED, Stored
from fallline._engines.llvm.strided import PART, move
from fallline._engines.llvm.text import chunks, moving, parts

__all__ = ["finite_check"]


@cache
def finite_check(name: str, strided: bool) -> int:
    """The address of the check of gradients of a dtype, by its name, that lie contiguously or in any way, for a job."""
    kind = STORED[name]
    fetch = [move("fetch", kind.integer)] if strided else []
    passes = 3 if strided else 0  # to copy is a loop that they make faster; the rest is written as it should run
    return compiled(module(*fetch, _largest(kind), _finite(kind, strided)), "finite", passes=passes)[0]


def _finite(kind: Stored, strided: bool) -> str:
    """Whether a gradient has an entry that is not finite: as integers, these are the magnitudes from infinity's on."""
    f = Function("i64 @finite(ptr, ptr, i64, i64)")

    def look(at: Value, n: Value) -> None:
        f.ret_if(f.call(kind.integer, "largest", at, n).compare("uge", kind.infinity), 1)

    buffer = f.room(kind.integer, PART) if strided else None
    with chunks(f) as (row, offset, n):
        f.skip(n <= 0)
        g = row.load("ptr", ROW["g"])
        if buffer is None:
            look(g.at(offset, kind.integer), n)
        else:
            move = moving(f, row)
            with parts(f, offset, n, PART) as (start, m):
                move("fetch", "g", g, start, m, buffer)
                look(buffer, m)
    f.ret(0)
    return f.text()


def _largest(kind: Stored) -> str:
    """The largest magnitude of n numbers.

    Vectors are written out, of 64 bytes: they are cut to what the processor has without the optimiser, which takes
    longer to start.
    """
    integer, lanes = kind.integer, 64 // kind.size
    vector = f"<{lanes} x {integer}>"
    f = Function(f"internal {integer} @largest(ptr noalias, i64) noinline")
    numbers, n = f.arguments
    largest, end = f.variable(0, integer), n & -lanes
    with f.when(end > 0):
        each = f.variable(0, vector)
        with f.loop(end, step=lanes) as k:
            size = numbers.at(k, integer).load(vector, align=kind.size) & kind.magnitude
            each.now = f.intrinsic(vector, f"umax.v{lanes}{integer}", each.now, size)
        largest.now = f.intrinsic(integer, f"vector.reduce.umax.v{lanes}{integer}", each.now)
    with f.loop(n, start=end) as k:
        largest.now = f.intrinsic(integer, f"umax.{integer}", largest.now, numbers.load(integer, k) & kind.magnitude)
    f.ret(largest.now)
    return f.text()
