"""The scalars of a program, of numbers that JAX traces: in float64, which is enabled for them alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fallline._engines.jax.operations import OPERATIONS, ROUNDED, apart, finite, wide
from fallline._formula.program import Program

__all__ = ["double", "evaluated", "is_traced"]


def is_traced(value: Any) -> bool:
    """Whether JAX traces a value, so that its number is not known."""
    return isinstance(value, jax.core.Tracer)


def double(value: Any) -> Any:
    """A number in float64, within `jax.enable_x64`."""
    return lax.convert_element_type(value, jnp.float64)


def evaluated(program: Program, given: Sequence[Any], t: Any, tiny: float) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The scalars at step t, and the new `numbers`, as `Program.evaluate` has them, for values of `hyper`."""
    if any(map(is_traced, (t, *given))):
        with jax.enable_x64(True):
            every = _traced(program, given, t, tiny)
    else:
        every = program.evaluate([_known(value) for value in given], int(t), tiny)
    return every[: len(program.scalars)], every[len(program.scalars) :]


def _known(value: Any) -> Any:
    """A number, or one for each coordinate, as `Program.evaluate` takes it."""
    return np.asarray(value, np.float64) if np.ndim(value) else float(value)


def _traced(program: Program, given: Sequence[Any], t: Any, tiny: float) -> tuple[Any, ...]:
    t = lax.convert_element_type(t, jnp.int64)
    zero = lax.convert_element_type(t >> 63, jnp.uint64)  # t is never negative, which XLA does not know
    whole = _whole(program)
    values: list[Any] = []
    for op, operands in program.steps:
        if op == "constant":
            value: Any = np.float64(operands[0])
        elif op == "hyper":
            value = double(given[operands[0]])
        elif op in ("t", "tiny"):
            value = double(t if op == "t" else tiny)
        elif op == "power" and operands[1] in whole:
            value = apart(_power(values[operands[0]], lax.convert_element_type(values[operands[1]], jnp.int64)), zero)
        else:
            value = OPERATIONS[op](*(values[k] for k in operands))
            value = apart(value, zero) if op in ROUNDED else value
        values.append(value)
    one = double(t >> 63) + 1.0  # a quotient is computed once; anything else XLA would compute again for every leaf
    return tuple(double(values[k]) / one for k in (*program.scalars, *(k for _, k in program.numbers)))


@lru_cache(maxsize=256)
def _whole(program: Program) -> frozenset[int]:
    """The steps, by number, whose values are whole numbers whatever t is."""
    found: set[int] = set()
    for n, (op, operands) in enumerate(program.steps):
        if (op == "t" or (op == "constant" and float(operands[0]).is_integer())
                or (op in ("add", "sub", "mul") and found.issuperset(operands))):
            found.add(n)
    return frozenset(found)


@jax.custom_jvp
def _power(base: Any, exponent: Any) -> Any:
    """As `ieee.power`, in its order of products."""
    n = jnp.abs(exponent)
    small, square = _squared(base, n & 255, 8)
    large, _ = _squared(square, n >> 8, 23)
    return jnp.where(exponent < 0, 1.0 / (large * small), large * small)


@_power.defjvp
@wide
def _(values: Any, tangents: Any) -> Any:
    base, n = values
    slope = jnp.where(n == 0, 0.0, double(n) * _power(base, jnp.where(n == 0, 0, n - 1)))
    return _power(*values), tangents[0] * finite(slope)


def _squared(base: Any, n: Any, bits: int) -> tuple[Any, Any]:
    """base**n for an n of so many bits, and base**2**bits."""
    result: Any = 1.0
    for k in range(bits):
        result = jnp.where((n >> k) & 1 == 1, result * base, result)
        base = base * base
    return result, base
