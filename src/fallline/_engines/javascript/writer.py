"""A program as a JavaScript object, in terms of what `runtime.js` has."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from fallline._formula.program import Instruction, Program
from fallline._formula.words import SCALES

__all__ = ["RUNTIME", "literal", "written"]

RUNTIME = Path(__file__).with_name("runtime.js")
"""What runs programs: powers, sums in their fixed order, and optimizers."""

_CHOICES = {"lt": "{} < {}", "le": "{} <= {}", "gt": "{} > {}", "ge": "{} >= {}", "eq": "{} == {}", "ne": "{} != {}",
            "where": "{} ? {} : {}", "choose": "{} ? {} : {}", "neg": "-{}", "abs": "Math.abs({})",
            "fill": "{}"}  # fmt: skip
_ROUNDED = {"add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "div": "{} / {}", "sqrt": "Math.sqrt({})"}
_OF_SCALARS = {"power": "power({}, {})", "exp": "Math.exp({})", "log": "Math.log({})"}


def written(program: Program) -> str:
    """The program as an object with these fields.

    scalars(t, tiny, h): what it computes outside of the loop, of the step number and of what `h` has by name: a list
    of the scalars, and an object of the new `numbers`. run(A, c, n, f): the loop over the n coordinates of the arrays
    that `A` has by name, with the scalars `c`, in which `f` rounds to the dtype computed in; if the program makes
    totals, run gives them as an object by name.
    """
    return f"{{scalars: {_scalars(program)}, run: {_loop(program)}}}"


def literal(value: float) -> str:
    """A number as JavaScript."""
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _scalars(program: Program) -> str:
    def one(step: Instruction) -> str:
        if step.op == "constant":
            return literal(step.operands[0])
        if step.op == "hyper":
            return f"h[{json.dumps(program.hyper[step.operands[0]])}]"
        if step.op in ("t", "tiny"):
            return step.op
        return {**_CHOICES, **_ROUNDED, **_OF_SCALARS}[step.op].format(*(f"s{k}" for k in step.operands))

    lines = [f"const s{k} = {one(step)};" for k, step in enumerate(program.steps)]
    wanted = ", ".join(f"s{k}" for k in program.scalars)
    numbers = ", ".join(f"{json.dumps(name)}: s{k}" for name, k in program.numbers)
    return f"(t, tiny, h) => {{ {' '.join(lines)} return [[{wanted}], {{{numbers}}}]; }}"


def _loop(program: Program) -> str:
    """Arrays are read before they are written, each coordinate by itself; what rounds stands within f."""
    arrays = {name: f"a{k}" for k, name in enumerate(program.arrays)}
    values = [f"x{k}" for k in range(len(program.inputs))] + [f"c[{k}]" for k in range(len(program.scalars))]
    lines = [f"const x{k} = {arrays[name]}[i];" for k, name in enumerate(program.inputs)]
    for k, (op, operands) in enumerate(program.code):
        said = _CHOICES[op] if op in _CHOICES else f"f({_ROUNDED[op]})"
        lines.append(f"const v{k} = {said.format(*(values[v] for v in operands))};")
        values.append(f"v{k}")
    head = " ".join(f"const {a} = A[{json.dumps(name)}];" for name, a in arrays.items())
    write = _summed if program.totals else _stored
    return f"(A, c, n, f) => {{ {head} {write(program, arrays, values, ' '.join(lines))} }}"


def _stored(program: Program, arrays: dict[str, str], values: Sequence[str], lines: str) -> str:
    new = " ".join(f"{arrays[name]}[i] = {values[v]};" for name, v in program.outputs)
    return f"for (let i = 0; i < n; i++) {{ {lines} {new} }}"


def _summed(program: Program, arrays: dict[str, str], values: Sequence[str], lines: str) -> str:
    """The totals; of squares of numbers that are not double, the sum is scaled, as in `blocks.block_sums`."""
    names = {total.name: f"b{k}" for k, total in enumerate(program.totals)}
    head = " ".join(f"const {b} = new Float64Array(n);" for b in names.values())
    each, sums = [], []
    for (name, b), total, (_, v) in zip(names.items(), program.totals, program.outputs):
        scale = "" if total.kind == "sum" else f", {literal(SCALES[total.kind])}, f"
        each.append(f"{b}[i] = {f'square({values[v]}{scale})' if scale else values[v]};")
        sums.append(f"{json.dumps(name)}: total({b}{scale})")
    return f"{head} for (let i = 0; i < n; i++) {{ {lines} {' '.join(each)} }} return {{{', '.join(sums)}}};"
