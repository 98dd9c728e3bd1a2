"""The operations of programs, each rounded by itself, and their derivatives.

XLA contracts a product and a sum into one rounding, makes a·(1/s) of a/s and a·rsqrt(b) of a/√b, and multiplies
constants beforehand. To keep its operations apart, what they make is combined (XOR) with a zero that XLA cannot know to
be one; this costs some hundredths of the time. Derivatives pass through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["OPERATIONS", "ROUNDED", "apart", "finite", "standing_in", "wide",
           "zero_beside"]


def _bits(dtype: Any) -> np.dtype:
    """The unsigned integers of a float dtype's size."""
    return np.dtype(f"uint{8 * np.dtype(dtype).itemsize}")


def wide(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rule of derivatives, of float64 where that is not enabled as well: what was traced within `jax.enable_x64` is
    differentiated outside of it if it was compiled, or is the body of a loop."""

    def within(values: Any, tangents: Any) -> Any:
        with jax.enable_x64(True):
            return rule(values, tangents)

    return within


def zero_beside(array: Any) -> Any:
    """Unsigned zeros, one for each number of an array: the last bit of n·(n + 1), which is even.

    The integers are the upper halves of the numbers: the lower ones are 0, and known to be, in what was bfloat16.
    """
    bits = _bits(array.dtype)
    upper = lax.bitcast_convert_type(array, bits) >> bits.type(4 * bits.itemsize)
    return (upper * (upper + bits.type(1))) & bits.type(1)


@jax.custom_jvp
def apart(value: Any, zero: Any) -> Any:
    """A value, as XLA must compute it before what is made of it."""
    return lax.bitcast_convert_type(lax.bitcast_convert_type(value, _bits(value.dtype)) ^ zero, value.dtype)


@apart.defjvp
@wide
def _(values: Any, tangents: Any) -> Any:
    return apart(*values), tangents[0]


@jax.custom_jvp
def standing_in(condition: Any, a: Any, b: Any) -> Any:
    """A choice whose derivative is that of b: where a number is put in the place of one as good as it."""
    return jnp.where(condition, a, b)


@standing_in.defjvp
@wide
def _(values: Any, tangents: Any) -> Any:
    return standing_in(*values), tangents[2]


def _choose(condition: Any, a: Any, b: Any) -> Any:
    return jnp.where(condition != 0, a, b)


def finite(slope: Any) -> Any:
    """A slope, or 0 where it is no finite number, as at a root of 0 or a quotient by 0: of what `where` has not chosen,
    it would make 0 times infinity, which is NaN."""
    return jnp.where(jnp.isfinite(slope), slope, 0)


def _with_slopes(operation: Callable[..., Any], slopes: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    """An operation with its derivatives, of the result and the operands."""
    sloped = jax.custom_jvp(operation)

    @sloped.defjvp
    @wide
    def _(values: Any, tangents: Any) -> Any:
        result = sloped(*values)
        return result, sum(tangent * finite(slope) for tangent, slope in zip(tangents, slopes(result, *values)))

    return sloped


def _inverse(a: Any) -> Any:
    return OPERATIONS["div"](jnp.ones_like(a), a)


def _slopes_of_power(result: Any, a: Any, b: Any) -> tuple[Any, Any]:
    return b * OPERATIONS["power"](a, b - 1), result * OPERATIONS["log"](a)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "mul": _with_slopes(jnp.multiply, lambda result, a, b: (b, a)),
    "div": _with_slopes(jnp.true_divide, lambda result, a, b: (_inverse(b), -result * _inverse(b))),
    "sqrt": _with_slopes(jnp.sqrt, lambda result, a: (0.5 * _inverse(result),)),
    "log": _with_slopes(jnp.log, lambda result, a: (_inverse(a),)),
    "exp": _with_slopes(jnp.exp, lambda result, a: (result,)),
    "power": _with_slopes(jnp.power, _slopes_of_power),
    "add": jnp.add, "sub": jnp.subtract, "neg": jnp.negative, "abs": jnp.abs, "where": jnp.where, "choose": _choose,
    "lt": jnp.less, "le": jnp.less_equal, "gt": jnp.greater, "ge": jnp.greater_equal, "eq": jnp.equal,
    "ne": jnp.not_equal, "fill": jnp.positive,
}  # fmt: skip
"""What programs do, with arrays and with scalars."""

ROUNDED = frozenset({"mul", "div", "sqrt"})
"""Of these, what XLA would not round by itself."""

