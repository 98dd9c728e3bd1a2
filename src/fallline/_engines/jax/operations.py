"""The operations of programs, each rounded by itself, and their derivatives.

XLA contracts a product and a sum into one rounding, makes a·(1/s) of a/s and a·rsqrt(b) of a/√b, and multiplies
constants beforehand. To keep its operations apart, what they make is combined (XOR) with a zero that XLA cannot know to
be one; this costs nothing that can be measured. Derivatives pass through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["OPERATIONS", "ROUNDED", "SIMPLIFIED", "apart", "standing_in", "zero_beside"]


def _bits(dtype: Any) -> np.dtype:
    """The unsigned integers of a float dtype's size."""
    return np.dtype(f"uint{8 * np.dtype(dtype).itemsize}")


def _wide(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rule of derivatives, of float64 where that is not enabled as well: what was traced within `jax.enable_x64` is
    differentiated outside of it if it was compiled, or is the body of a loop."""

    def within(values: Any, tangents: Any) -> Any:
        with jax.enable_x64(True):
            return rule(values, tangents)

    return within


def zero_beside(array: Any) -> Any:
    """Unsigned zeros, one for each number of an array: a square of integers is 0, 1 or 4 modulo 8, and never 5."""
    bits = lax.bitcast_convert_type(array, _bits(array.dtype))
    return ((bits * bits) & 7 == 5).astype(bits.dtype)


@jax.custom_jvp
def apart(value: Any, zero: Any) -> Any:
    """A value, as XLA must compute it before what is made of it."""
    return lax.bitcast_convert_type(lax.bitcast_convert_type(value, _bits(value.dtype)) ^ zero, value.dtype)


@apart.defjvp
@_wide
def _(values: Any, tangents: Any) -> Any:
    return apart(*values), tangents[0]


@jax.custom_jvp
def _sqrt(a: Any) -> Any:
    return jnp.sqrt(a)


@_sqrt.defjvp
@_wide
def _(values: Any, tangents: Any) -> Any:
    root = _sqrt(*values)  # at 0, where a derivative of inf would make NaN of what does not change, it has 0
    return root, tangents[0] * jnp.where(root > 0, 0.5 / jnp.where(root > 0, root, 1), 0)


@jax.custom_jvp
def standing_in(condition: Any, a: Any, b: Any) -> Any:
    """A choice whose derivative is that of b: where a number is put in the place of one as good as it."""
    return jnp.where(condition, a, b)


@standing_in.defjvp
@_wide
def _(values: Any, tangents: Any) -> Any:
    return standing_in(*values), tangents[2]


def _choose(condition: Any, a: Any, b: Any) -> Any:
    return jnp.where(condition != 0, a, b)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": jnp.add, "sub": jnp.subtract, "mul": jnp.multiply, "div": jnp.true_divide, "neg": jnp.negative,
    "sqrt": _sqrt, "abs": jnp.abs, "log": jnp.log, "exp": jnp.exp, "where": jnp.where, "choose": _choose,
    "lt": jnp.less, "le": jnp.less_equal, "gt": jnp.greater, "ge": jnp.greater_equal, "eq": jnp.equal,
    "ne": jnp.not_equal, "fill": jnp.positive,
}  # fmt: skip
"""What programs do, with arrays and with scalars."""

ROUNDED = frozenset({"mul", "div", "sqrt"})
"""Of these, what XLA would not round by itself."""

SIMPLIFIED = frozenset({"add", "sub", "div"})
"""Those that XLA takes apart if an operand is one number: a/s, (a + s) + s."""
