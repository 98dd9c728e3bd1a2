"""A program over the arrays of a leaf, and the totals of one that only reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fallline._engines.jax.operations import OPERATIONS, ROUNDED, apart, standing_in, zero_beside
from fallline._engines.jax.scalars import double
from fallline._formula.program import Program
from fallline._formula.words import SCALES

__all__ = ["run", "totals"]


def run(program: Program, arrays: Mapping[str, Any], scalars: Sequence[Any]) -> dict[str, Any]:
    """New arrays for the program's outputs, of its inputs by name, all of the dtype computed in.

    `scalars` are numbers of that dtype, or one for each coordinate.
    """
    like = arrays["g"]
    zero = zero_beside(like)
    values = [arrays[name] for name in program.inputs]
    values += [apart(jnp.broadcast_to(s, like.shape), zero) for s in scalars]
    stand_ins = _stand_ins(program)
    for k, (op, operands) in enumerate(program.code):
        operation = standing_in if k in stand_ins else OPERATIONS[op]
        value = operation(*(values[v] for v in operands))
        values.append(apart(value, zero) if op in ROUNDED else value)
    return {name: values[v] for name, v in program.outputs}


def totals(reading: Program, arrays: Mapping[str, Any], scalars: Sequence[Any]) -> list[Any]:
    """The totals that a program makes of a leaf, in float64."""
    values, found = run(reading, arrays, scalars), []
    with jax.enable_x64(True):
        for total in reading.totals:
            each = values[total.name]
            scale = SCALES.get(total.kind, 1.0)
            if total.kind == "sum":
                found.append(jnp.sum(double(each)))
            elif each.dtype == np.float64:
                found.append(jnp.sum(lax.square(each * scale)))
            else:  # which cannot overflow where it is used, nor can the squares of float32
                found.append(jnp.sum(lax.square(double(each))) * scale * scale)
    return found


@lru_cache(maxsize=256)
def _stand_ins(program: Program) -> frozenset[int]:
    """The instructions, by place, that put 0 in the place of a value that is as good as 0 itself (see `words.flush`
    and `words.settle`): a derivative of 0 would be wrong there."""
    first = len(program.inputs)
    code = {first + len(program.scalars) + k: instruction for k, instruction in enumerate(program.code)}

    def constant(v: int) -> Any:
        step = program.steps[program.scalars[v - first]] if first <= v < first + len(program.scalars) else None
        return step.operands[0] if step is not None and step.op == "constant" else None

    def is_small(condition: int, v: int) -> bool:
        test = code.get(condition)
        if test is None or test.op not in ("eq", "lt"):
            return False
        size = code.get(test.operands[0])
        return (test.op == "eq" and test.operands[0] == v and constant(test.operands[1]) == 0) or (
            test.op == "lt" and size is not None and size.op == "abs" and size.operands == (v,))

    return frozenset(k for k, (op, operands) in enumerate(program.code) if op == "where"
                     and constant(operands[1]) == 0 and is_small(operands[0], operands[2]))
