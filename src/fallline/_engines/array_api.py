"""The eager engine: a program run on whole arrays of any library, through its array namespace.

It promises closeness, not bits: libraries differ in the last place of a square root, and some flush subnormals.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fallline._arrays.namespaces import namespace
from fallline._formula.program import Program
from fallline._formula.words import SCALES

__all__ = ["reduced", "run_eagerly"]

_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "neg": operator.neg,
    "abs": abs, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq,
    "ne": operator.ne,
}  # fmt: skip


def run_eagerly(program: Program, arrays: Mapping[str, Any], scalars: Sequence[Any]) -> dict[str, Any]:
    """New arrays for the program's outputs; `arrays` are its inputs by name, left alone.

    `scalars` are Python floats (which leave the arrays' dtype alone), or arrays of the same library.
    """
    like = arrays["g"]
    xp = namespace(like)
    values: list[Any] = [arrays[name] for name in program.inputs]
    values += scalars
    for instruction in program.code:
        operands = [values[v] for v in instruction.operands]
        if instruction.op in _OPERATORS:
            values.append(_OPERATORS[instruction.op](*operands))
        elif instruction.op == "sqrt":
            values.append(xp.sqrt(*operands))
        elif instruction.op == "choose" and isinstance(operands[0], float):
            values.append(operands[1] if operands[0] else operands[2])
        elif instruction.op in ("where", "choose"):
            condition, a, b = operands
            condition = condition != 0 if instruction.op == "choose" else condition
            values.append(xp.where(condition, _array(xp, a, like), _array(xp, b, like)))
        else:  # fill
            values.append(xp.full_like(like, operands[0]))
    return {name: values[v] for name, v in program.outputs}


def reduced(values: Any, kind: str) -> float:
    """A total of an array of values; squares are summed relative to the largest, so that none overflows."""
    xp = namespace(values)
    values = xp.reshape(values, (-1,))  # in C order, however an array lies
    if kind == "sum" or not values.size:
        return float(xp.sum(values))
    largest = xp.max(abs(values))
    scale = float(largest)
    if not 0 < scale < math.inf:
        return scale
    relative, sized = values / largest, scale * SCALES[kind]
    return float(xp.sum(relative * relative)) * sized * sized


def _array(xp: Any, value: Any, like: Any) -> Any:
    """A number as a 0-d array beside `like`; namespaces differ in whether `where` takes plain numbers."""
    return xp.asarray(value, dtype=like.dtype, device=_device(like)) if isinstance(value, float) else value


def _device(array: Any) -> Any:
    from array_api_compat import device

    return device(array)
