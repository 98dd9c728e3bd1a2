"""The quick look: whether a call is like the last one, in one native call that may do it, too.

It compares the caller's lists and arrays with what a plan expects of them, notes where the arrays lie, evaluates the
scalars, and does a small job at once. For a thousand arrays that takes what one takes in Python. What lists and arrays
look like in memory is CPython's and NumPy's public struct layout; `readable` tries it out on real arrays before it is
relied on, and elsewhere every call is checked in Python.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from fallline._arrays.memory import address
from fallline._engines.cpu.jobs import functions
from fallline._engines.llvm.compiler import compiled
from fallline._engines.llvm.function import Function, Value, module
from fallline._engines.llvm.layout import ABSENT, CLASS, EXPECTED, LAYOUT, LOOK, ROW
from fallline._engines.llvm.scalars import LAST
from fallline._formula.program import INCREMENT

__all__ = ["ALIGNED", "CONTIGUOUS", "WRITEABLE", "evaluate", "looking", "readable"]

CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400  # NumPy's flags

_HEAD = object.__basicsize__  # bytes before the fields of a list (length, items) and of an array (data, nd, ...)


def looking(look: np.ndarray) -> Callable[[Any, Any, Any], bool | None]:
    """The function (parameters, gradients, outputs) of a record of the fields of `layout.LOOK`.

    Each argument is a list of arrays, or one array if the record is for a single one, or None if it has no such.
    Returns None, having done nothing, if they are unlike what is expected, else True; but False, having stepped
    nothing, if it does the job at once and a gradient is not finite. The interpreter's lock is held, so nothing changes
    lists or arrays meanwhile.
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
    return module(_call(), _answer(), _take(), _gather(), _overlap(), _scalars())


def _call() -> str:
    """The answer to a call, as a method of Python's returns it: owned by whoever called."""
    f = Function("ptr @call(ptr, ptr, i64)")
    look, given, _ = f.arguments
    answer = f.call("ptr", "answer", _of(look, _OWNER, "look"), given)
    own = ctypes.cast(ctypes.pythonapi.Py_IncRef, ctypes.c_void_p).value or 0
    f.call("void", f.value(own, "ptr"), answer)
    f.ret(answer)
    return f.text()


def _answer() -> str:
    """None if the arguments are unlike what is expected, or it is another thread's turn; else see `looking`."""
    f = Function("internal ptr @answer(ptr, ptr)")
    look, given = f.arguments
    busy, out_taken, may_miss = look.words(LOOK, "*busy out_taken may_miss")
    with f.when(busy.differs(0)):
        f.ret_if(busy.load().differs(0), id(None))
    compares, misses, no = out_taken.equals(0), may_miss.differs(0), f.value(False, "i1")
    for place, name, flags, word, *how in (
            (0, "x", look.load(index=LOOK["x_flags"]), ROW["x"], f.value(True, "i1"), no),
            (2, "out", look.load(index=LOOK["out_flags"]), ROW[INCREMENT], compares, no),
            (1, "g", ALIGNED, ROW["g"], no, misses)):  # fmt: skip
        alike = f.call("i1", "take", look, given.at(place, "ptr"), look.load(index=LOOK[name]), flags, word, *how)
        f.ret_if(~alike, id(None))
    f.ret_if(f.call("i1", "overlap", look), id(None))
    classes, n_classes, job, at_once = look.words(LOOK, "*classes n_classes *job at_once")
    f.ret_if(f.call("i64", "evaluate", classes, n_classes).differs(0), id(None))
    with f.when(at_once.differs(0)):
        f.ret_if(f.call("i64", f.value(functions().alone_at, "ptr"), job).differs(0), id(False))
    f.ret(id(True))
    return f.text()


def _scalars() -> str:
    """See `evaluate`."""
    f = Function("i64 @evaluate(ptr, i64)")
    classes, n = f.arguments
    with f.loop(n) as k:
        own = classes.at(k * len(CLASS))
        scalars, count, missed, hyper, constants = own.words(CLASS, "*scalars *count *missed *hyper *constants")
        completed = count.load()
        f.ret_if(completed >= LAST, 1)
        step = completed - missed.load() + 1
        too_large = f.call("i64", scalars, step, own.load("double", CLASS["tiny"]), hyper, constants)
        f.ret_if(too_large.differs(0), 1)
    f.ret(0)
    return f.text()


def _take() -> str:
    """Whether an argument is as expected: None if there is to be none, one array, or a list of arrays."""
    f = Function("internal i1 @take(ptr, ptr, i64, i64, i64, i1, i1)")
    look, where, given, *how = f.arguments
    argument = where.load("ptr")
    with f.when(given.equals(0)):
        f.ret(argument.equals(id(None)))
    items = f.variable(where)
    single, n = look.words(LOOK, "single n")
    with f.when(single.equals(0)):
        f.ret_if(_of(argument, _OBJECT, "type").differs(id(list)), False)
        f.ret_if(_of(argument, _LIST, "length").differs(n), False)
        items.now = _of(argument, _LIST, "items")
    f.ret(f.call("i1", "gather", look, items.now, *how))
    return f.text()


def _gather() -> str:
    """Whether objects are arrays as expected, one after the other.

    Their addresses are noted in a word of the leaves' rows, or compared with what stands there, and their strides in
    the leaves' layouts. If it misses, None may stand for one, and must where the state has not begun, and the lengths
    are noted.
    """
    f = Function("internal i1 @gather(ptr, ptr, i64, i64, i1, i1)")
    look, items, need, word, compares, misses = f.arguments
    n, expected, ndarray = look.words(LOOK, "n *expected type")
    with f.loop(n) as k:
        leaf = expected.at(k * len(EXPECTED))
        row, begun, size = leaf.words(EXPECTED, "*row begun size")
        f.skip(row.equals(0))  # it may be anything
        item = items.load("ptr", k)
        with f.when(~(_of(item, _OBJECT, "type").equals(ndarray) & (begun.differs(0) | ~misses))):
            f.ret_if(~(item.equals(id(None)) & misses), False)
            row.store(ABSENT, ROW["length"])
            f.skip()
        _compare_kind(f, item, leaf, need)
        data = _of(item, _ARRAY, "data")
        f.ret_if(compares & row.load(index=word).differs(data), False)
        row.store(data, word)
        _compare_strides(f, item, leaf, word)
        f.skip(~misses)
        row.store(size, ROW["length"])
    f.ret(True)
    return f.text()


def _compare_kind(f: Function, array: Value, leaf: Value, need: Value) -> None:
    """Return that it is not alike if its flags, dtype or shape differ from what is expected of a leaf."""
    flags, nd, dtype, scalar, shape = leaf.words(EXPECTED, "flags nd dtype scalar *shape")
    need = need | flags
    has_flags = (_of(array, _ARRAY, "flags") & need).equals(need)
    f.ret_if(~(has_flags & _of(array, _ARRAY, "nd").equals(nd)), False)
    found, its_shape = _of(array, _ARRAY, "dtype"), _of(array, _ARRAY, "shape")
    with f.when(found.cast("ptrtoint", "i64").differs(dtype)):  # an object of its own, but of the same numbers
        same = _of(found, _DTYPE, "scalar").equals(scalar) & _of(found, _DTYPE, "order").equals(ord("="))
        f.ret_if(~same, False)
    with f.loop(nd) as axis:
        f.ret_if(its_shape.load(index=axis).differs(shape.load(index=axis)), False)


def _compare_strides(f: Function, array: Value, leaf: Value, word: Value) -> None:
    """Of a leaf with a layout, note an array's strides, or return that it is not alike if others are expected."""
    nd, layout = leaf.words(EXPECTED, "nd *layout")
    with f.when(layout.differs(0)):
        # a word of a layout is that of a row, and what is expected stands behind
        noted = layout.load("ptr", word)
        wanted = layout.load("ptr", word + (LAYOUT["expected g"] - LAYOUT["g"]))
        strides, all_will_do = _of(array, _ARRAY, "strides"), wanted.equals(0)
        with f.loop(nd) as axis:
            stride = strides.load(index=axis)
            with f.when(all_will_do):
                noted.store(stride, axis)
                f.skip()
            f.ret_if(stride.differs(wanted.load(index=axis)), False)


def _overlap() -> str:
    """Whether a gradient shares a byte with what the step writes."""
    f = Function("internal i1 @overlap(ptr)")
    n, expected, starts, furthest, ranges = f.arguments[0].words(LOOK, "n *expected *starts *furthest ranges")
    with f.loop(n) as k:
        leaf = expected.at(k * len(EXPECTED))
        row = leaf.load("ptr", EXPECTED["row"])
        f.skip(row.equals(0))
        length = row.load(index=ROW["length"])
        f.skip(length <= 0)
        low, high = _bounds(f, leaf, row.load(index=ROW["g"]), length)
        from_, to = f.variable(0), f.variable(ranges)  # how many ranges start below its end
        with f.loop():
            f.stop(from_.now >= to.now)
            middle = (from_.now + to.now) >> 1
            below = starts.load(index=middle).compare("ult", high)
            from_.now, to.now = below.choose(middle + 1, from_.now), below.choose(to.now, middle)
        f.skip(from_.now.equals(0))
        f.ret_if(furthest.load(index=from_.now - 1).compare("ugt", low), True)
    f.ret(False)
    return f.text()


def _bounds(f: Function, leaf: Value, start: Value, length: Value) -> tuple[Value, Value]:
    """The first byte of a leaf's gradient, which starts there, and the one behind its last."""
    nd, shape, itemsize, layout = leaf.words(EXPECTED, "nd *shape itemsize *layout")
    low, high = f.variable(start), f.variable(start + length * itemsize)
    with f.when(layout.differs(0)):
        strides = layout.load("ptr", LAYOUT["g"])
        high.now = start + itemsize
        with f.loop(nd) as axis:
            reach = (shape.load(index=axis) - 1) * strides.load(index=axis)
            down = reach < 0
            low.now += down.choose(reach, 0)
            high.now += down.choose(f.value(0), reach)
    return low.now, high.now


# CPython's and NumPy's structs: of each field its offset in bytes and its type
_OBJECT = {"type": (_HEAD - 8, "i64")}
_LIST = {"length": (_HEAD, "i64"), "items": (_HEAD + 8, "ptr")}
_ARRAY = {"data": (_HEAD, "i64"), "nd": (_HEAD + 8, "i32"), "shape": (_HEAD + 16, "ptr"),
          "strides": (_HEAD + 24, "ptr"), "dtype": (_HEAD + 40, "ptr"), "flags": (_HEAD + 48, "i32")}  # fmt: skip
_DTYPE = {"scalar": (_HEAD, "i64"), "order": (_HEAD + 10, "i8")}
_OWNER = {"look": (_HEAD, "ptr")}  # an array's data, as an address


def _of(object: Value, struct: Mapping[str, tuple[int, str]], name: str) -> Value:
    """A field of a struct, a number of 32 bits as one of 64."""
    offset, kind = struct[name]
    value = object.at(offset, "i8").load(kind)
    return value.cast("sext", "i64") if kind == "i32" else value
