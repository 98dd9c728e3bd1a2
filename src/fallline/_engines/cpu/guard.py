"""The quick look: whether a call is like the last one, in one native call that may do it, too.

It compares the caller's lists and arrays with what a plan expects of them, notes where the arrays lie, evaluates the
scalars, and does a small job at once. For a thousand arrays that takes what one takes in Python. What lists and arrays
look like in memory is CPython's and NumPy's public struct layout; `readable` tries it out on real arrays before it is
relied on, and elsewhere every call is checked in Python.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from fallline._arrays.memory import address
from fallline._engines.cpu.jobs import functions
from fallline._engines.llvm.compiler import compiled
from fallline._engines.llvm.layout import ABSENT, CLASS, EXPECTED, LAYOUT, LOOK, ROW
from fallline._engines.llvm.scalars import LAST
from fallline._engines.llvm.text import field, fields
from fallline._formula.program import INCREMENT

__all__ = ["ALIGNED", "CONTIGUOUS", "WRITEABLE", "evaluate", "looking", "readable"]

CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400  # NumPy's flags

_HEAD = object.__basicsize__  # bytes before the fields of a list (length, items) and of an array (data, nd, ...)


def looking(look: np.ndarray) -> Callable[[Any, Any, Any], bool | None]:
    """The function (parameters, gradients, outputs) of a record of the fields of `layout.LOOK`.

    Each argument is a list of arrays, or one array if the record is for a single one, or None if it has no such.
    Returns None, having done nothing, if they are unlike what is expected, else True; but False, having stepped
    nothing, if it does the job at once and a gradient is not finite. The interpreter's lock is held, so nothing
    changes lists or arrays meanwhile.
    """
    return _new_function(ctypes.addressof(_definition()), look, None)


def evaluate() -> Callable[[int, int], int]:
    """The function (address, n) that evaluates the scalars of n records of `layout.CLASS`: 0, or 1 if their dtype
    cannot hold one that is finite, or more steps were taken than it counts exactly."""
    return _evaluate()


@cache
def _evaluate() -> Callable[[int, int], int]:
    return ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(_addresses()[1])


@cache
def _addresses() -> tuple[int, ...]:
    return compiled(_ir(), "call", "evaluate", passes=0)


class _Definition(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (("name", ctypes.c_char_p), ("method", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p))  # fmt: skip


_FASTCALL = 0x80  # (self, address of the arguments, their number)


@cache  # which keeps it alive: functions refer to it
def _definition() -> _Definition:
    return _Definition(b"call", _addresses()[0], _FASTCALL, None)


def _new_function(definition: int, owner: np.ndarray, module: None) -> Any:
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
    return new(definition, owner, module)


@cache
def readable() -> bool:
    """Whether lists and arrays look in memory as expected."""
    if sys.implementation.name != "cpython" or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return False
    if ctypes.sizeof(ctypes.c_void_p) != 8:  # the fields are read as of 64 bits
        return False
    arrays = [np.zeros((3, 4), np.float32), np.zeros(0, np.float32), np.zeros((2, 3, 4), np.float32)[:, 1]]
    shapes, table = [np.array(a.shape, np.int64) for a in arrays], np.zeros((3, len(ROW)), np.int64)
    known = [{"row": address(row), "begun": 1, "dtype": id(a.dtype), "scalar": id(np.float32), "nd": a.ndim,
              "shape": address(s), "size": a.size, "itemsize": a.itemsize} for a, s, row in zip(arrays, shapes, table)]
    expected = np.array([[own.get(name, 0) for name in EXPECTED] for own in known], np.int64)
    place = ROW[INCREMENT]

    def try_out(given: Any = arrays, **changed: int) -> bool | None:
        record = {"n": 3, "type": id(np.ndarray), "expected": address(expected), "out": 1, **changed}
        return looking(np.array([record.get(name, 0) for name in LOOK], np.int64))(None, None, given)

    if not try_out(out_flags=ALIGNED, out_taken=1) or table[:, place].tolist() != [a.ctypes.data for a in arrays]:
        return False
    if not try_out(out_flags=WRITEABLE) or not try_out(arrays[0], single=1, n=1):
        return False
    strides = np.zeros(2, np.int64)
    layout = np.zeros(len(LAYOUT), np.int64)
    layout[[LAYOUT["nd"], LAYOUT["shape"], LAYOUT[INCREMENT]]] = 2, address(shapes[2]), address(strides)
    expected[2, EXPECTED["layout"]] = address(layout)
    if not try_out() or tuple(strides) != arrays[2].strides:
        return False
    layout[LAYOUT[f"expected {INCREMENT}"]] = address(strides)
    if not try_out():
        return False
    strides[0] += 4
    single, its_own = np.dtype(np.float32), np.dtype(np.float32, metadata={"an": "object of its own"})
    if not try_out(arrays[0].view(its_own), single=1, n=1):
        return False
    refused = [try_out(), try_out(out_flags=CONTIGUOUS), try_out(n=2), try_out(tuple(arrays)),
               try_out(arrays, single=1, n=1), try_out(arrays[0].view(single.newbyteorder()), single=1, n=1)]
    expected[2, EXPECTED["layout"]] = 0
    shape, other, first = expected[0, EXPECTED["shape"]], np.dtype(np.float64), EXPECTED["dtype"]
    for wrong in ((id(single), id(np.float32), 1, shape), (id(other), id(np.float64), 2, shape),
                  (id(single), id(np.float32), 2, expected[2, EXPECTED["shape"]])):  # fmt: skip
        expected[0, first : first + 4] = wrong
        refused.append(try_out())
    return all(result is None for result in refused)


def _ir() -> str:
    return f"""
define ptr @call(ptr %self, ptr %args, i64 %nargs) {{
entry:
  {field("look", "%self", _HEAD, "ptr")}
  {fields("%look", LOOK, "n single type *expected x x_flags g out out_flags out_taken may_miss")}
  {fields("%look", LOOK, "*starts *furthest ranges *classes n_classes *job at_once *busy")}
  %one = icmp ne i64 %single, 0
  %compares = icmp eq i64 %out_taken, 0
  %misses = icmp ne i64 %may_miss, 0
  %no_turns = icmp eq ptr %busy, null
  br i1 %no_turns, label %parameters, label %taken
taken:
  %turn = load i64, ptr %busy
  %free = icmp eq i64 %turn, 0
  br i1 %free, label %parameters, label %unlike
parameters:
  %x.ok = call i1 @take(ptr %args, i64 0, i1 %one, i64 %n, ptr %expected, i64 %x_flags, i64 %type, i64 %x,
                        i64 {ROW["x"]}, i1 1, i1 0)
  br i1 %x.ok, label %outputs, label %unlike
outputs:
  %out.ok = call i1 @take(ptr %args, i64 2, i1 %one, i64 %n, ptr %expected, i64 %out_flags, i64 %type, i64 %out,
                          i64 {ROW[INCREMENT]}, i1 %compares, i1 0)
  br i1 %out.ok, label %gradients, label %unlike
gradients:
  %g.ok = call i1 @take(ptr %args, i64 1, i1 %one, i64 %n, ptr %expected, i64 {ALIGNED}, i64 %type, i64 %g,
                        i64 {ROW["g"]}, i1 0, i1 %misses)
  br i1 %g.ok, label %apart, label %unlike
apart:
  %meet = call i1 @overlap(i64 %n, ptr %expected, ptr %starts, ptr %furthest, i64 %ranges)
  br i1 %meet, label %unlike, label %scalars
scalars:
  %too_large = call i64 @evaluate(ptr %classes, i64 %n_classes)
  %fits = icmp eq i64 %too_large, 0
  br i1 %fits, label %ready, label %unlike
ready:
  %wait = icmp eq i64 %at_once, 0
  br i1 %wait, label %end, label %do
do:
  %alone = inttoptr i64 {functions().alone_at} to ptr
  %bad = call i64 %alone(ptr %job)
  %is_bad = icmp ne i64 %bad, 0
  br i1 %is_bad, label %refuse, label %end
end:
  br label %answer
refuse:
  br label %answer
unlike:
  br label %answer
answer:
  %id = phi i64 [ {id(True)}, %end ], [ {id(False)}, %refuse ], [ {id(None)}, %unlike ]
  %object = inttoptr i64 %id to ptr
  %own = inttoptr i64 {ctypes.cast(ctypes.pythonapi.Py_IncRef, ctypes.c_void_p).value} to ptr
  call void %own(ptr %object)
  ret ptr %object
}}
define i64 @evaluate(ptr %classes, i64 %n) {{
entry:
  br label %loop
loop:
  %k = phi i64 [ 0, %entry ], [ %k1, %evaluated ]
  %more = icmp slt i64 %k, %n
  br i1 %more, label %class, label %good
class:
  %at = mul i64 %k, {8 * len(CLASS)}
  %own = getelementptr inbounds i8, ptr %classes, i64 %at
  {fields("%own", CLASS, "*scalars *count *missed *hyper *constants")}
  {field("tiny", "%own", 8 * CLASS["tiny"], "double")}
  %completed = load i64, ptr %count
  %far = icmp uge i64 %completed, {LAST}
  br i1 %far, label %bad, label %compute
compute:
  %missed_steps = load i64, ptr %missed
  %taken = sub i64 %completed, %missed_steps
  %t = add i64 %taken, 1
  %too_large = call i64 %scalars(i64 %t, double %tiny, ptr %hyper, ptr %constants)
  %fits = icmp eq i64 %too_large, 0
  br i1 %fits, label %evaluated, label %bad
evaluated:
  %k1 = add i64 %k, 1
  br label %loop
good:
  ret i64 0
bad:
  ret i64 1
}}
{_TAKE}
{_GATHER}
{_OVERLAP}"""


# Whether an argument is as expected: None if there is to be none, one array, or a list of arrays.
_TAKE = f"""
define internal i1 @take(ptr %args, i64 %place, i1 %one, i64 %n, ptr %expected, i64 %need, i64 %type, i64 %given,
                         i64 %word, i1 %compares, i1 %misses) {{
entry:
  %arg.p = getelementptr inbounds ptr, ptr %args, i64 %place
  %arg = load ptr, ptr %arg.p
  %absent = icmp eq i64 %given, 0
  br i1 %absent, label %none, label %some
none:
  %id = ptrtoint ptr %arg to i64
  %is_none = icmp eq i64 %id, {id(None)}
  ret i1 %is_none
some:
  br i1 %one, label %single, label %several
single:
  %alike1 = call i1 @gather(ptr %arg.p, i64 %n, ptr %expected, i64 %need, i64 %type, i64 %word, i1 %compares,
                            i1 %misses)
  ret i1 %alike1
several:
  {field("its_type", "%arg", _HEAD - 8, "i64")}
  %is_list = icmp eq i64 %its_type, {id(list)}
  br i1 %is_list, label %list, label %bad
list:
  {field("length", "%arg", _HEAD, "i64")}
  {field("items", "%arg", _HEAD + 8, "ptr")}
  %as_many = icmp eq i64 %length, %n
  br i1 %as_many, label %look, label %bad
look:
  %alike = call i1 @gather(ptr %items, i64 %n, ptr %expected, i64 %need, i64 %type, i64 %word, i1 %compares,
                           i1 %misses)
  ret i1 %alike
bad:
  ret i1 0
}}"""

_ARRAY = {"data": 0, "nd": 8, "shape": 16, "strides": 24, "dtype": 40, "flags": 48}  # behind the head
_DTYPE = {"scalar": 0, "order": 10}  # behind the head


def _of_leaf(names: str) -> str:
    """Load what is expected of leaf %k into %x_<name>; `*name` is an address."""
    return f"""%e = mul i64 %k, {8 * len(EXPECTED)}
  %x = getelementptr inbounds i8, ptr %expected, i64 %e
  {fields("%x", EXPECTED, names, "x_")}"""


# Whether n objects are arrays as expected. Their addresses are noted in a word of the leaves' rows, or compared with
# what stands there, and their strides in the leaves' layouts. If it %misses, None may stand for one, and must where the
# state has not begun, and the lengths are noted.
_GATHER = f"""
define internal i1 @gather(ptr %items, i64 %n, ptr %expected, i64 %need, i64 %type, i64 %word, i1 %compares,
                           i1 %misses) {{
entry:
  %taking = xor i1 %compares, 1
  br label %loop
loop:
  %k = phi i64 [ 0, %entry ], [ %next, %good ]
  %more = icmp slt i64 %k, %n
  br i1 %more, label %which, label %end
which:
  {_of_leaf("*row begun dtype scalar nd *shape size flags *layout")}
  %free = icmp eq ptr %x_row, null
  br i1 %free, label %good, label %look
look:
  %item = getelementptr inbounds ptr, ptr %items, i64 %k
  %o = load ptr, ptr %item
  {field("its_type", "%o", _HEAD - 8, "i64")}
  %t = icmp eq i64 %its_type, %type
  %unbegun = icmp eq i64 %x_begun, 0
  %may_not = and i1 %unbegun, %misses
  %may = xor i1 %may_not, 1
  %t_may = and i1 %t, %may
  br i1 %t_may, label %an_array, label %no_array
no_array:
  %id = ptrtoint ptr %o to i64
  %is_none = icmp eq i64 %id, {id(None)}
  %missing = and i1 %is_none, %misses
  br i1 %missing, label %absent, label %bad
absent:
  store i64 {ABSENT}, ptr %x_row
  br label %good
an_array:
  {field("data", "%o", _HEAD + _ARRAY["data"], "i64")}
  {field("nd", "%o", _HEAD + _ARRAY["nd"], "i32")}
  {field("shape", "%o", _HEAD + _ARRAY["shape"], "ptr")}
  {field("strides", "%o", _HEAD + _ARRAY["strides"], "ptr")}
  {field("dtype", "%o", _HEAD + _ARRAY["dtype"], "i64")}
  {field("flags", "%o", _HEAD + _ARRAY["flags"], "i32")}
  %flags64 = zext i32 %flags to i64
  %needed = or i64 %need, %x_flags
  %have = and i64 %flags64, %needed
  %f = icmp eq i64 %have, %needed
  %nd64 = sext i32 %nd to i64
  %s = icmp eq i64 %nd64, %x_nd
  %fs = and i1 %f, %s
  br i1 %fs, label %kind, label %bad
kind:
  %d = icmp eq i64 %dtype, %x_dtype
  br i1 %d, label %dims, label %another
another:
  %its_dtype = inttoptr i64 %dtype to ptr
  {field("scalar", "%its_dtype", _HEAD + _DTYPE["scalar"], "i64")}
  {field("order", "%its_dtype", _HEAD + _DTYPE["order"], "i8")}
  %numbers = icmp eq i64 %scalar, %x_scalar
  %native = icmp eq i8 %order, {ord("=")}
  %both = and i1 %numbers, %native
  br i1 %both, label %dims, label %bad
dims:
  %j = phi i64 [ 0, %kind ], [ 0, %another ], [ %j1, %dim ]
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
  %cell = getelementptr inbounds i64, ptr %x_row, i64 %word
  %old = load i64, ptr %cell
  %unchanged = icmp eq i64 %old, %data
  %ok = or i1 %unchanged, %taking
  br i1 %ok, label %lay_out, label %bad
lay_out:
  store i64 %data, ptr %cell
  %is_laid = icmp ne ptr %x_layout, null
  br i1 %is_laid, label %strided, label %measure
strided:  ; a word of a layout is that of a row, and what is expected stands behind
  %its.p = getelementptr inbounds ptr, ptr %x_layout, i64 %word
  %its = load ptr, ptr %its.p
  %wanted.p = getelementptr inbounds ptr, ptr %its.p, i64 {LAYOUT["expected g"] - LAYOUT["g"]}
  %wanted = load ptr, ptr %wanted.p
  %any = icmp eq ptr %wanted, null
  br label %strides_loop
strides_loop:
  %i = phi i64 [ 0, %strided ], [ %i1, %copy ], [ %i1, %compare ]
  %further = icmp slt i64 %i, %x_nd
  br i1 %further, label %stride, label %measure
stride:
  %u.p = getelementptr inbounds i64, ptr %strides, i64 %i
  %u = load i64, ptr %u.p
  %i1 = add i64 %i, 1
  br i1 %any, label %copy, label %compare
copy:
  %own.p = getelementptr inbounds i64, ptr %its, i64 %i
  store i64 %u, ptr %own.p
  br label %strides_loop
compare:
  %w.p = getelementptr inbounds i64, ptr %wanted, i64 %i
  %w = load i64, ptr %w.p
  %alike = icmp eq i64 %u, %w
  br i1 %alike, label %strides_loop, label %bad
measure:
  br i1 %misses, label %present, label %good
present:
  store i64 %x_size, ptr %x_row
  br label %good
good:
  %next = add i64 %k, 1
  br label %loop
end:
  ret i1 1
bad:
  ret i1 0
}}"""

# Whether a gradient shares a byte with what the step writes.
_OVERLAP = f"""
define internal i1 @overlap(i64 %n, ptr %expected, ptr %starts, ptr %furthest, i64 %ranges) {{
entry:
  br label %loop
loop:
  %k = phi i64 [ 0, %entry ], [ %next, %apart ]
  %more = icmp slt i64 %k, %n
  br i1 %more, label %look, label %end
look:
  {_of_leaf("*row nd *shape itemsize *layout")}
  %free = icmp eq ptr %x_row, null
  br i1 %free, label %apart, label %measure
measure:
  {fields("%x_row", ROW, "length g")}
  %some = icmp sgt i64 %length, 0
  br i1 %some, label %where, label %apart
where:
  %is_strided = icmp ne ptr %x_layout, null
  br i1 %is_strided, label %strided, label %plain
plain:
  %bytes = mul i64 %length, %x_itemsize
  %plain_high = add i64 %g, %bytes
  br label %search
strided:
  {field("strides", "%x_layout", 8 * LAYOUT["g"], "ptr")}
  %first_high = add i64 %g, %x_itemsize
  br label %axes
axes:
  %j = phi i64 [ 0, %strided ], [ %j1, %axis ]
  %axis_low = phi i64 [ %g, %strided ], [ %axis_low1, %axis ]
  %axis_high = phi i64 [ %first_high, %strided ], [ %axis_high1, %axis ]
  %further = icmp slt i64 %j, %x_nd
  br i1 %further, label %axis, label %search
axis:
  %size.p = getelementptr inbounds i64, ptr %x_shape, i64 %j
  %size = load i64, ptr %size.p
  %stride.p = getelementptr inbounds i64, ptr %strides, i64 %j
  %stride = load i64, ptr %stride.p
  %steps = sub i64 %size, 1
  %reach = mul i64 %steps, %stride
  %down = icmp slt i64 %reach, 0
  %below_by = select i1 %down, i64 %reach, i64 0
  %above_by = select i1 %down, i64 0, i64 %reach
  %axis_low1 = add i64 %axis_low, %below_by
  %axis_high1 = add i64 %axis_high, %above_by
  %j1 = add i64 %j, 1
  br label %axes
search:
  %low = phi i64 [ %g, %plain ], [ %axis_low, %axes ]
  %high = phi i64 [ %plain_high, %plain ], [ %axis_high, %axes ]
  br label %halves
halves:  ; how many ranges start below our end
  %from = phi i64 [ 0, %search ], [ %from1, %halve ]
  %to = phi i64 [ %ranges, %search ], [ %to1, %halve ]
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
  br label %halves
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
  ret i1 1
end:
  ret i1 0
}}"""
