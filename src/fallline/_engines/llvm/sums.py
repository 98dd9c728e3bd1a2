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
from fallline._engines.llvm.function import Function, Value, module
from fallline._engines.llvm.layout import STRIDED
from fallline._engines.llvm.numbers import REAL, Stored
from fallline._engines.llvm.text import moving, parts
from fallline._formula.program import Program
from fallline._formula.words import SCALES

__all__ = ["buffered", "halve", "reading_part", "sum_functions", "totals"]


def buffered(program: Program, kinds: Sequence[Stored], real: str) -> dict[int, str]:
    """The values that are to go through a buffer, by number, with its name: all but inputs that are so stored."""
    direct = {k for k, kind in enumerate(kinds[: len(program.inputs)]) if kind.type == real}
    return {v: f"buffer {v}" for v in dict.fromkeys(v for _, v in program.outputs) if v not in direct}


def reading_part(program: Program, kinds: Sequence[Stored], dtype: np.dtype, columns: Mapping[str, int],
                 by_coordinate: Sequence[int] = (), strided: bool = False) -> str:
    """Read n coordinates of a row from an offset on: `part`, as other kernels have it.

    `kinds` are those of the inputs and of the scalars that differ by coordinate. What comes from outside is read where
    it lies, or if it is `strided` fetched as the layout says.
    """
    real = REAL[dtype.name]
    f = Function("internal void @part(ptr, i64, i64)")
    row, offset, n = f.arguments
    names = [*program.inputs, *(f"scalar {k}" for k in by_coordinate)]
    bases = [row.load("ptr", columns[name]) for name in names]
    constants, sums = row.load("ptr", columns["constants"]), row.load("ptr", columns["sums"])
    buffers = {v: f.room(real, BLOCK) for v in buffered(program, kinds, real)}
    fetched = {k: f.room(kinds[k].type, BLOCK) for k, name in enumerate(program.inputs) if strided and name in STRIDED}
    with parts(f, offset, n, BLOCK) as (start, m):
        for k, buffer in fetched.items():
            moving(f, row)("fetch", names[k], bases[k], start, m, buffer)
        places = [fetched[k] if k in fetched else base.at(start, kinds[k].type) for k, base in enumerate(bases)]
        if buffers:
            count = len(program.inputs)
            f.call("void", "run", *places[:count], *buffers.values(), *places[count:], constants, m)
        into = sums.at(start // BLOCK * len(program.totals))
        _store_sums(f, program, dict(enumerate(places)) | buffers, m, into, real)
    return f.text()


def _store_sums(f: Function, program: Program, values: Mapping[int, Value], m: Value, into: Value, real: str) -> None:
    """Store the sums of a block; those of squares of float32, which neither overflow nor vanish in double precision,
    are scaled when they are made."""
    made: dict[tuple[int, str], Value] = {}
    for k, (total, (_, v)) in enumerate(zip(program.totals, program.outputs)):
        kind = "squares" if real == "float" and total.kind in SCALES else total.kind
        if (v, kind) not in made:
            how = ("sum", values[v], m) if kind == "sum" else ("squares", values[v], m, f.value(SCALES[kind], "double"))
            made[v, kind] = f.call("double", *how)
        scale = SCALES[total.kind] if kind != total.kind else None
        into.store(made[v, kind] * scale * scale if scale else made[v, kind], k)


def sum_functions(dtype: np.dtype) -> str:
    """`sum` and `squares`, of n reals of a dtype, in lanes of double precision."""
    real = REAL[dtype.name]
    return _sum_function("double @sum(ptr, i64)", real) + _sum_function("double @squares(ptr, i64, double)", real)


def _sum_function(signature: str, real: str) -> str:
    f = Function(f"internal {signature} noinline")
    numbers, n, *scale = f.arguments
    narrow, wide, align = f"<{LANES} x {real}>", f"<{LANES} x double>", 4 if real == "float" else 8
    rest, total = f.room(real, LANES), f.variable(0.0, wide)
    scales = [_spread(f, one, wide) for one in scale]

    def add(lanes: Value) -> None:
        lanes = lanes if real == "double" else lanes.cast("fpext", wide)
        for each in scales:
            lanes *= each
            lanes *= lanes
        total.now += lanes

    end = n & -LANES
    with f.loop(end, step=LANES) as k:
        add(numbers.at(k, real).load(narrow, align=align))
    with f.when(end < n):
        rest.store(f.value(0.0, narrow), align=align)
        with f.loop(n, start=end) as k:
            rest.store(numbers.load(real, k), k - end)
        add(rest.load(narrow, align=align))
    f.ret(_halved(f, total.now))
    return f.text()


def _spread(f: Function, number: Value, wide: str) -> Value:
    """A number in every lane."""
    first = f.make(wide, f"insertelement {wide} poison, {number}, i32 0")
    return f.make(wide, f"shufflevector {first}, {wide} poison, <{LANES} x i32> zeroinitializer")


def _halved(f: Function, vector: Value) -> Value:
    """The sum of the lanes: the second half is added to the first, until one is left."""
    lanes = LANES
    while lanes > 1:
        lanes //= 2
        low, high = (f.make(f"<{lanes} x double>", f"shufflevector {vector}, {vector.kind} poison, <{lanes} x i32> <"
                            + ", ".join(f"i32 {k}" for k in range(start, start + lanes)) + ">") for start in (0, lanes))
        vector = low + high
    return f.make("double", f"extractelement {vector}, i32 0")


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
    return compiled(module(_halve(), _totals()), "totals", "halve", passes=0)


def _halve() -> str:
    """See `halve`."""
    f = Function("void @halve(ptr, i64, i64)")
    parts, count, width = f.arguments
    n = f.variable(count)
    with f.loop():
        f.stop(n.now <= 1)
        half = (n.now + 1) // 2
        behind = parts.at(half * width)
        with f.loop((n.now - half) * width) as k:
            parts.store(parts.load("double", k) + behind.load("double", k), k)
        n.now = half
    return f.text()


def _totals() -> str:
    """See `totals`."""
    f = Function("void @totals(ptr, ptr, i64, i64, ptr, ptr)")
    sums, first, leaves, width, by_leaf, tree = f.arguments
    with f.loop(leaves) as leaf:
        start = first.load(index=leaf)
        blocks, own = first.load(index=leaf + 1) - start, sums.at(start * width)
        f.call("void", "halve", own, blocks, width)
        with f.loop(width) as k:
            total = (blocks > 0).choose(own.load("double", k), 0.0)
            by_leaf.store(total, leaf * width + k)
            tree.store(total, leaf * width + k)
    f.call("void", "halve", tree, leaves, width)
    return f.text()
