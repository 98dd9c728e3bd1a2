"""A program's scalars as machine code: the same operations as `Program.numbers`, in float64, without Python."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from fallline._engines.llvm.compiler import compiled
from fallline._engines.llvm.function import Function, Value, module
from fallline._engines.llvm.numbers import REAL, operate
from fallline._engines.llvm.text import pinned
from fallline._formula.program import Instruction, Program

__all__ = ["LAST", "exact", "native_scalars"]

LAST = 2**52  # the last step number that is sure to be exact in every float64 that is made of it


def native_scalars(program: Program, dtype: np.dtype, wanted: tuple[int, ...]) -> int:
    """The address of scalars(t, tiny, hyper, constants) -> 0, or 1 if the dtype cannot hold one that is finite.

    It writes the wanted of the program's steps in the dtype for a step number up to LAST and values (float64) of the
    program's hyper-parameters. 0 if the program has logarithms, exponentials or powers that need not be whole, which
    need a library's function.
    """
    return _compiled(program.steps, wanted, dtype) if exact(program.steps) else 0


def exact(steps: tuple[Instruction, ...]) -> bool:
    """Whether float64 gives what Python gives, which computes with t as a whole number of any size."""
    whole: set[int] = set()
    for k, step in enumerate(steps):
        given = () if step.op in ("constant", "hyper") else step.operands[1:] if step.op == "where" else step.operands
        if step.op == "t" or (given and whole.issuperset(given) and step.op in ("neg", "abs", "where")):
            whole.add(k)
        elif step.op in ("add", "sub", "mul") and whole.issuperset(given):
            return False
        if step.op in ("log", "exp"):
            return False
        if step.op == "power" and (given[0] in whole or not _is_count(steps[given[1]])):
            return False
    return True


def _is_count(exponent: Instruction) -> bool:
    if exponent.op != "constant":
        return exponent.op == "t"
    return exponent.operands[0].is_integer() and abs(exponent.operands[0]) < LAST


@cache
def _compiled(steps: tuple[Instruction, ...], wanted: tuple[int, ...], dtype: np.dtype) -> int:
    return compiled(_scalars(steps, wanted, REAL[dtype.name]), "scalars", passes=0, codegen=0)[0]


@cache
def _power_at() -> int:
    """The address of `_power`, made by itself: the loops in it take more time than all else that scalars need."""
    return compiled(module(_whole(), _power()), "power", passes=0)[0]


def _scalars(steps: tuple[Instruction, ...], wanted: tuple[int, ...], real: str) -> str:
    """See `native_scalars`."""
    f = Function("i64 @scalars(i64, double, ptr, ptr)")
    values: list[Value] = []
    bad = f.value(False, "i1")
    with pinned(f):
        for step in steps:
            values.append(_value(f, step, steps, values))
        for place, k in enumerate(wanted):
            bad = bad | _store(f, values[k], place, real)
    f.ret(bad.cast("zext", "i64"))
    return f.text()


def _value(f: Function, step: Instruction, steps: tuple[Instruction, ...], values: list[Value]) -> Value:
    """What a step comes to: a double, or an i1 if it is a comparison."""
    t, tiny, hyper, _ = f.arguments
    if step.op == "constant":
        return f.value(step.operands[0], "double")
    if step.op == "hyper":
        return hyper.load("double", step.operands[0])
    if step.op == "t":
        return t.cast("sitofp", "double")
    if step.op == "tiny":
        return tiny
    if step.op == "power":
        exponent = steps[step.operands[1]]
        n = t if exponent.op == "t" else int(exponent.operands[0])
        return f.call("double", f.value(_power_at(), "ptr"), values[step.operands[0]], n)
    return operate(f, step.op, [values[k] for k in step.operands])


def _store(f: Function, value: Value, place: int, real: str) -> Value:
    """Store a scalar in the dtype; whether it is finite and too large for that."""
    value = value.cast("uitofp", "double") if value.kind == "i1" else value
    f.arguments[3].store(value.cast("fptrunc", "float") if real == "float" else value, place)
    size = operate(f, "abs", [value])
    return (size > _LARGEST[real]) & (size < math.inf)


_LARGEST = {"float": float(np.finfo(np.float32).max), "double": float(np.finfo(np.float64).max)}


def _whole() -> str:
    """b**n by repeated squaring."""
    f = Function("internal double @whole(double, i64)")
    base, exponent = f.arguments
    n, result, square = f.variable(exponent), f.variable(1.0, "double"), f.variable(base)
    with f.loop():
        f.stop(n.now.equals(0))
        result.now = (n.now & 1).differs(0).choose(result.now * square.now, result.now)
        square.now *= square.now
        n.now >>= 1
    f.ret(result.now)
    return f.text()


def _power() -> str:
    """b**n as `program.power` computes it: (b**256)**(n >> 8) * b**(n & 255) from 256 on."""
    f = Function("double @power(double, i64)")
    base, exponent = f.arguments
    n = f.intrinsic("i64", "abs.i64", exponent, f.value(False, "i1"))
    power = f.variable(f.call("double", "whole", base, n & 255))
    with f.when(n >= 256):
        power.now = f.call("double", "whole", f.call("double", "whole", base, 256), n >> 8) * power.now
    f.ret((exponent < 0).choose(f.value(1.0, "double") / power.now, power.now))
    return f.text()
