"""Check a list of arrays and take down their addresses, natively: for a thousand arrays in the time of one in Python.

What Python objects look like in memory is CPython's and NumPy's public struct layout; `readable` tries it out on real
arrays before it is relied on, and elsewhere the caller goes the long way.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from fallline.engines.compiler import compiled
from fallline.memory import address

__all__ = ["ALIGNED", "COMPARE", "CONTIGUOUS", "FIELDS", "TAKE", "WRITEABLE", "functions", "readable"]

CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400  # NumPy's flags
TAKE, COMPARE = 0, 1

_HEAD = object.__basicsize__  # bytes before the fields of a list (length, items) and of an array (data, nd, ...)


FIELDS = {name: place for place, name in enumerate(
    ("n", "type", "expected", "table", "width", "itemsize", "x", "x_flags", "g", "starts", "furthest", "ranges"))}
"""What `fits` compares with: the number of leaves; the id of ndarray; per leaf the id of its dtype, its number of
dimensions and the address of its shape; the table, its width, the size of an element; the parameter's column (0: it is
not read) and the flags it must have; the gradient's column; where the step writes: ranges sorted by start, the running
maximum of their ends, their number."""


class Functions(NamedTuple):
    """The functions, callable. The interpreter's lock is held, so nothing changes the list or the arrays meanwhile."""

    gather: Callable[..., int]
    """(list, n, expected, flags, type, table, width, column, mode) -> 0 if all fit.

    `list` is the id of a list of n arrays, which must be of exactly this type, with these flags, and as `expected`
    says. Their addresses are stored in the table's column (TAKE) or must be there (COMPARE).
    """
    fits: Callable[..., int]
    """(fields, list of parameters, list of gradients) -> 0 if the parameters lie where they lay, and the gradients,
    which are taken down, lie apart from what the step writes."""


@cache
def functions() -> Functions:
    """The functions, compiled on first use."""
    gathers, fit = compiled(_ir(), "gather", "fits", effort=0)
    number, call = ctypes.c_int64, ctypes.PYFUNCTYPE
    return Functions(call(number, *[number] * 9)(gathers), call(number, *[number] * 3)(fit))


@cache
def readable() -> bool:
    """Whether lists and arrays look in memory as expected."""
    if sys.implementation.name != "cpython" or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return False
    arrays = [np.zeros((3, 4), np.float32), np.zeros(0, np.float32), np.zeros((2, 3, 4), np.float32)[:, 1]]
    shapes = [np.array(a.shape, np.int64) for a in arrays]
    expected = np.array([[id(a.dtype), a.ndim, address(s)] for a, s in zip(arrays, shapes)], np.int64)
    table = np.zeros((3, 2), np.int64)

    def try_out(flags: int, mode: int, n: int = 3) -> int:
        return functions().gather(id(arrays), n, address(expected), flags, id(np.ndarray), address(table), 2, 1, mode)

    if try_out(ALIGNED, TAKE) or table[:, 1].tolist() != [a.ctypes.data for a in arrays] or try_out(WRITEABLE, COMPARE):
        return False
    refused = [try_out(CONTIGUOUS, TAKE), try_out(ALIGNED, TAKE, 2)]
    expected[0, 1] = 1
    refused.append(try_out(ALIGNED, TAKE))
    expected[0] = id(np.dtype(np.float64)), 2, address(shapes[0])
    refused.append(try_out(ALIGNED, TAKE))
    expected[0] = id(np.dtype(np.float32)), 2, address(shapes[2])
    refused.append(try_out(ALIGNED, TAKE))
    return all(refused)


def _at(name: str, base: str, offset: int, kind: str) -> str:
    return (f"%{name}.p = getelementptr inbounds i8, ptr {base}, i64 {offset}\n"
            f"  %{name} = load {kind}, ptr %{name}.p")


def _ir() -> str:
    array = {"data": 0, "nd": 8, "shape": 16, "dtype": 40, "flags": 48}  # behind the head
    fields = "\n  ".join(_at(name, "%fields", 8 * place, kind) for name, place, kind in (
        (name, place, "ptr" if name in ("expected", "table", "starts", "furthest") else "i64")
        for name, place in FIELDS.items()))
    plain = CONTIGUOUS | ALIGNED
    return f"""
define i64 @fits(ptr %fields, ptr %xs, ptr %gs) {{
entry:
  {fields}
  %reads_x = icmp ne i64 %x, 0
  br i1 %reads_x, label %parameters, label %gradients
parameters:
  %moved = call i64 @gather(ptr %xs, i64 %n, ptr %expected, i64 %x_flags, i64 %type, ptr %table, i64 %width, i64 %x,
                            i64 {COMPARE})
  %lies = icmp eq i64 %moved, 0
  br i1 %lies, label %gradients, label %bad
gradients:
  %other = call i64 @gather(ptr %gs, i64 %n, ptr %expected, i64 {plain}, i64 %type, ptr %table, i64 %width, i64 %g,
                            i64 {TAKE})
  %taken = icmp eq i64 %other, 0
  br i1 %taken, label %apart, label %bad
apart:
  %meets = call i64 @overlap(ptr %table, i64 %width, i64 %n, i64 %g, i64 %itemsize, ptr %starts, ptr %furthest,
                             i64 %ranges)
  ret i64 %meets
bad:
  ret i64 1
}}
define i64 @gather(ptr %list, i64 %n, ptr %expected, i64 %need, i64 %type, ptr %table, i64 %width, i64 %column,
                   i64 %mode) {{
entry:
  {_at("count", "%list", _HEAD, "i64")}
  {_at("items", "%list", _HEAD + 8, "ptr")}
  %fits = icmp eq i64 %count, %n
  br i1 %fits, label %loop, label %bad
loop:
  %k = phi i64 [ 0, %entry ], [ %next, %good ]
  %more = icmp slt i64 %k, %n
  br i1 %more, label %look, label %end
look:
  %item = getelementptr inbounds ptr, ptr %items, i64 %k
  %o = load ptr, ptr %item
  {_at("its_type", "%o", 8, "i64")}
  %t = icmp eq i64 %its_type, %type
  br i1 %t, label %an_array, label %bad
an_array:
  {_at("data", "%o", _HEAD + array["data"], "i64")}
  {_at("nd", "%o", _HEAD + array["nd"], "i32")}
  {_at("shape", "%o", _HEAD + array["shape"], "ptr")}
  {_at("dtype", "%o", _HEAD + array["dtype"], "i64")}
  {_at("flags", "%o", _HEAD + array["flags"], "i32")}
  %e = mul i64 %k, 24
  %x = getelementptr inbounds i8, ptr %expected, i64 %e
  %x_dtype = load i64, ptr %x
  {_at("x_nd", "%x", 8, "i64")}
  {_at("x_shape", "%x", 16, "ptr")}
  %flags64 = zext i32 %flags to i64
  %have = and i64 %flags64, %need
  %f = icmp eq i64 %have, %need
  %d = icmp eq i64 %dtype, %x_dtype
  %nd64 = sext i32 %nd to i64
  %s = icmp eq i64 %nd64, %x_nd
  %fd = and i1 %f, %d
  %fds = and i1 %fd, %s
  br i1 %fds, label %dims, label %bad
dims:
  %j = phi i64 [ 0, %an_array ], [ %j1, %dim ]
  %left = icmp slt i64 %j, %x_nd
  br i1 %left, label %dim, label %address
dim:
  %a.p = getelementptr inbounds i64, ptr %shape, i64 %j
  %b.p = getelementptr inbounds i64, ptr %x_shape, i64 %j
  %a = load i64, ptr %a.p
  %b = load i64, ptr %b.p
  %j1 = add i64 %j, 1
  %same = icmp eq i64 %a, %b
  br i1 %same, label %dims, label %bad
address:
  %row = mul i64 %k, %width
  %place = add i64 %row, %column
  %cell = getelementptr inbounds i64, ptr %table, i64 %place
  %old = load i64, ptr %cell
  %unchanged = icmp eq i64 %old, %data
  %taking = icmp eq i64 %mode, {TAKE}
  %ok = or i1 %unchanged, %taking
  br i1 %ok, label %good, label %bad
good:
  store i64 %data, ptr %cell
  %next = add i64 %k, 1
  br label %loop
end:
  ret i64 0
bad:
  ret i64 1
}}
define internal i64 @overlap(ptr %table, i64 %width, i64 %n, i64 %column, i64 %itemsize, ptr %starts, ptr %furthest,
                    i64 %ranges) {{
entry:
  br label %loop
loop:
  %k = phi i64 [ 0, %entry ], [ %next, %apart ]
  %more = icmp slt i64 %k, %n
  br i1 %more, label %look, label %end
look:
  %at = mul i64 %k, %width
  %row = getelementptr inbounds i64, ptr %table, i64 %at
  %length = load i64, ptr %row
  %low.p = getelementptr inbounds i64, ptr %row, i64 %column
  %low = load i64, ptr %low.p
  %bytes = mul i64 %length, %itemsize
  %high = add i64 %low, %bytes
  br label %search
search:  ; how many ranges start below our end
  %from = phi i64 [ 0, %look ], [ %from1, %halve ]
  %to = phi i64 [ %ranges, %look ], [ %to1, %halve ]
  %open = icmp slt i64 %from, %to
  br i1 %open, label %halve, label %found
halve:
  %sum = add i64 %from, %to
  %mid = lshr i64 %sum, 1
  %start.p = getelementptr inbounds i64, ptr %starts, i64 %mid
  %start = load i64, ptr %start.p
  %below = icmp ult i64 %start, %high
  %mid1 = add i64 %mid, 1
  %from1 = select i1 %below, i64 %mid1, i64 %from
  %to1 = select i1 %below, i64 %to, i64 %mid
  br label %search
found:
  %none = icmp eq i64 %from, 0
  br i1 %none, label %apart, label %compare
compare:
  %last = sub i64 %from, 1
  %stop.p = getelementptr inbounds i64, ptr %furthest, i64 %last
  %stop = load i64, ptr %stop.p
  %clear = icmp ule i64 %stop, %low
  br i1 %clear, label %apart, label %meet
apart:
  %next = add i64 %k, 1
  br label %loop
meet:
  %empty = icmp eq i64 %length, 0
  br i1 %empty, label %apart, label %bad
end:
  ret i64 0
bad:
  ret i64 1
}}"""
