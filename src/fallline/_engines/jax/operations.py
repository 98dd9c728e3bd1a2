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

__all__ = ["OPERATIONS", "ROUNDED", "apart", "standing_in", "zero_beside"]


def _bits(dtype: Any) -> np.dtype:
    """The unsigned integers of a float dtype's size."""
    return np.dtype(f"uint{8 * np.dtype(dtype).itemsize}")


def zero_beside(array: Any) -> Any:
    """Unsigned zeros, one for each number of an array: a square of integers is 0, 1 or 4 modulo 8, and never 5.

    The integers are the upper halves of the numbers: the lower ones are 0, and known to be, in what was bfloat16.
    """
    bits = _bits(array.dtype)
    upper = lax.bitcast_convert_type(array, bits) >> bits.type(4 * bits.itemsize)
    return ((upper * upper) & 7 == 5).astype(bits)


@jax.custom_jvp
def apart(value: Any, zero: Any) -> Any:
    """A value, as XLA must compute it before what is made of it."""
    return lax.bitcast_convert_type(lax.bitcast_convert_type(value, _bits(value.dtype)) ^ zero, value.dtype)


@apart.defjvp
def _(values: Any, tangents: Any) -> Any:
    return apart(*values), tangents[0]


@jax.custom_jvp
def _sqrt(a: Any) -> Any:
    return jnp.sqrt(a)


@_sqrt.defjvp
def _(values: Any, tangents: Any) -> Any:
    root = _sqrt(*values)  # at 0, where a derivative of inf would make NaN of what does not change, it has 0
    return root, tangents[0] * jnp.where(root > 0, 0.5 / jnp.where(root > 0, root, 1), 0)


@jax.custom_jvp
def standing_in(condition: Any, a: Any, b: Any) -> Any:
    """A choice whose derivative is that of b: where a number is put in the place of one as good as it."""
    return jnp.where(condition, a, b)


@standing_in.defjvp
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
"""Of these, what XLA would not leave by itself."""
