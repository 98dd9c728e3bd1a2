"""A program over the arrays of a leaf, and the totals of one that only reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
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
    return _traced(program)(arrays, scalars)


@lru_cache(maxsize=256)
def _traced(program: Program) -> Callable[..., dict[str, Any]]:
    """What runs a program: leaves of one shape and dtype share one trace."""
    return jax.jit(partial(_run, program))


def _run(program: Program, arrays: Mapping[str, Any], scalars: Sequence[Any]) -> dict[str, Any]:
    settled, flushed = _tidied(program)
    values = [arrays[name] for name in program.inputs]
    zeros = [*map(zero_beside, values), *(None for _ in scalars)]  # of an array that is read anyway; scalars have none
    values += [_spread(s, arrays["g"]) for s in scalars]
    for k, (op, operands) in enumerate(program.code):
        own = [values[v] for v in operands]
        if k in settled and operands[2] in flushed:
            values.append(own[2])
            zeros.append(zeros[operands[2]])
            continue
        zero = next((zeros[v] for v in operands if zeros[v] is not None), None)
        if zero is not None and op == "div":  # by one number: XLA would multiply by its inverse
            own = [apart(value, zero) if zeros[v] is None else value for v, value in zip(operands, own)]
        value = standing_in(*own) if k in settled else OPERATIONS[op](*own)
        if zero is not None and op in ROUNDED:
            value = apart(value, zero)
        if len(values) in flushed:  # at once, so that XLA goes on from what it stores
            value = standing_in(jnp.abs(value) < np.finfo(value.dtype).tiny, jnp.zeros_like(value), value)
            zero = zero_beside(value)
        values.append(value)
        zeros.append(zero)
    return {name: values[v] for name, v in program.outputs}


def _spread(scalar: Any, like: Any) -> Any:
    """A number, or one for each coordinate, as an array that is divided among devices as another is."""
    if not scalar.ndim:
        return jnp.full_like(like, scalar)
    spread, sharding = jnp.broadcast_to(scalar, like.shape), jax.typeof(like).sharding
    return spread if jax.typeof(spread).sharding == sharding else jax.sharding.reshard(spread, sharding)


@lru_cache(maxsize=256)
def _tidied(program: Program) -> tuple[frozenset[int], frozenset[int]]:
    """The instructions, by place, that put 0 where a value is ±0 or subnormal (`words.settle` and `words.flush`), whose
    derivative of 0 would be wrong; and the values, by number, that are flushed so."""
    first = len(program.inputs)
    code = dict(enumerate(program.code, first + len(program.scalars)))
    zero, tiny = ({v for v, n in enumerate(program.scalars, first) if program.steps[n][:2] == step}
                  for step in (("constant", (0.0,)), ("tiny", ())))
    settled, flushed = set(), set()
    for k, (op, operands) in enumerate(program.code):
        test = code.get(operands[0])
        if op != "where" or operands[1] not in zero or test is None:
            continue
        if test.op == "eq" and test.operands[0] == operands[2] and test.operands[1] in zero:
            settled.add(k)
        elif test.op == "lt" and code.get(test.operands[0]) == ("abs", operands[2:]) and test.operands[1] in tiny:
            settled.add(k)
            flushed.add(operands[2])
    return frozenset(settled), frozenset(flushed)


def totals(reading: Program, arrays: Mapping[str, Any], scalars: Sequence[Any]) -> list[Any]:
    """The totals that a program makes of a leaf, in float64."""
    values, found = run(reading, arrays, scalars), []
    with jax.enable_x64(True):
        for total in reading.totals:
            each = values[total.name]
            if total.kind == "sum":
                found.append(jnp.sum(double(each)))
            else:  # squares of float32 fit float64: what is scaled is then not used, and is as it is
                scale = SCALES[total.kind] if each.dtype == np.float64 else 1.0
                found.append(jnp.sum(lax.square(double(each) * scale)))
    return found
