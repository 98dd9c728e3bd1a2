"""A program's scalars as machine code: the same operations as `Program.numbers`, in float64, without Python."""

from __future__ import annotations

from functools import cache

import numpy as np

from fallline._engines.llvm.compiler import compiled
from fallline._engines.llvm.text import literal, pinned
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
    real = "float" if dtype.itemsize == 4 else "double"
    lines = [_line(k, step, steps) for k, step in enumerate(steps)]
    lines += [_store(place, f"%s{k}", steps[k].op in _COMPARE, real) for place, k in enumerate(wanted)]
    declare, pin, unpin = pinned()
    body = "\n  ".join(lines)
    return compiled(f"""{declare}
declare double @llvm.sqrt.f64(double)
declare double @llvm.fabs.f64(double)
{_POWER}
define i64 @scalars(i64 %t, double %tiny, ptr %hyper, ptr %constants) {{
entry:{pin}
  %bad0 = icmp sgt i64 0, 0
  {body}
  %result = zext i1 %bad{len(wanted)} to i64{unpin}
  ret i64 %result
}}""", "scalars", passes=0, codegen=0)[0]


_BINARY = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_COMPARE = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}


def _line(k: int, step: Instruction, steps: tuple[Instruction, ...]) -> str:
    """The lines that compute step k into %s<k>: a double, or an i1 if it is a comparison."""
    result, operands = f"%s{k}", [f"%s{o}" for o in step.operands] if step.op not in ("constant", "hyper") else []
    if step.op == "constant":
        return f"{result} = fadd double {literal(step.operands[0])}, -0.0"  # which changes nothing
    if step.op == "hyper":
        return (f"%h{k} = getelementptr inbounds double, ptr %hyper, i64 {step.operands[0]}\n"
                f"  {result} = load double, ptr %h{k}")
    if step.op == "t":
        return f"{result} = sitofp i64 %t to double"
    if step.op == "tiny":
        return f"{result} = fadd double %tiny, -0.0"
    if step.op == "power":
        exponent = steps[step.operands[1]]
        n = "%t" if exponent.op == "t" else str(int(exponent.operands[0]))
        return f"{result} = call double @power(double {operands[0]}, i64 {n})"
    if step.op in _BINARY:
        return f"{result} = {_BINARY[step.op]} double {operands[0]}, {operands[1]}"
    if step.op in _COMPARE:
        return f"{result} = fcmp {_COMPARE[step.op]} double {operands[0]}, {operands[1]}"
    if step.op == "neg":
        return f"{result} = fneg double {operands[0]}"
    if step.op == "where":
        return f"{result} = select i1 {operands[0]}, double {operands[1]}, double {operands[2]}"
    return f"{result} = call double @llvm.{ {'sqrt': 'sqrt', 'abs': 'fabs'}[step.op]}.f64(double {operands[0]})"


def _store(place: int, value: str, truth: bool, real: str) -> str:
    """Store a scalar in the dtype; %bad<place + 1> is whether this or one before was finite and is too large for it."""
    lines = [f"%d{place} = uitofp i1 {value} to double" if truth else f"%d{place} = fadd double {value}, -0.0",
             f"%n{place} = fptrunc double %d{place} to float" if real == "float" else "",
             f"%p{place} = getelementptr inbounds {real}, ptr %constants, i64 {place}",
             f"store {real} %{'n' if real == 'float' else 'd'}{place}, ptr %p{place}",
             f"%a{place} = call double @llvm.fabs.f64(double %d{place})",
             f"%l{place} = fcmp ogt double %a{place}, {literal(_LARGEST[real])}",
             f"%f{place} = fcmp olt double %a{place}, {literal(float('inf'))}",
             f"%o{place} = and i1 %l{place}, %f{place}",
             f"%bad{place + 1} = or i1 %bad{place}, %o{place}"]
    return "\n  ".join(filter(None, lines))


_LARGEST = {"float": float(np.finfo(np.float32).max), "double": float(np.finfo(np.float64).max)}


# b**n as `program.power` computes it: (b**256)**(n >> 8) * b**(n & 255) from 256 on, each by repeated squaring
_POWER = """
declare i64 @llvm.abs.i64(i64, i1)
define internal double @whole(double %base, i64 %exponent) {
entry:
  br label %loop
loop:
  %n = phi i64 [ %exponent, %entry ], [ %half, %next ]
  %result = phi double [ 1.0, %entry ], [ %taken, %next ]
  %square = phi double [ %base, %entry ], [ %squared, %next ]
  %more = icmp ne i64 %n, 0
  br i1 %more, label %next, label %end
next:
  %low = and i64 %n, 1
  %odd = icmp ne i64 %low, 0
  %product = fmul double %result, %square
  %taken = select i1 %odd, double %product, double %result
  %squared = fmul double %square, %square
  %half = lshr i64 %n, 1
  br label %loop
end:
  ret double %result
}
define internal double @power(double %base, i64 %exponent) {
entry:
  %n = call i64 @llvm.abs.i64(i64 %exponent, i1 0)
  %negative = icmp slt i64 %exponent, 0
  %small = icmp ult i64 %n, 256
  br i1 %small, label %once, label %twice
once:
  %direct = call double @whole(double %base, i64 %n)
  br label %end
twice:
  %by256 = call double @whole(double %base, i64 256)
  %high = lshr i64 %n, 8
  %coarse = call double @whole(double %by256, i64 %high)
  %low = and i64 %n, 255
  %fine = call double @whole(double %base, i64 %low)
  %product = fmul double %coarse, %fine
  br label %end
end:
  %result = phi double [ %direct, %once ], [ %product, %twice ]
  %inverse = fdiv double 1.0, %result
  %power = select i1 %negative, double %inverse, double %result
  ret double %power
}"""
