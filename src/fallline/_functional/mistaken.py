"""What to give where an optimizer is asked for and something else came."""

from __future__ import annotations

from typing import Any

from fallline._formula.rule import Link, Rule
from fallline._messages.suggestions import meant_name, of_another
from fallline._optimizer.named import OPTIMIZERS
from fallline._optimizer.optimizer import Optimizer

__all__ = ["instead_of"]


def instead_of(value: Any) -> str:
    """What to give in the place of what is no optimizer, as a sentence with a space before it; "" where none is clear.
    """
    if isinstance(value, type) and issubclass(value, Optimizer):
        return f" Call it: {value.__name__}()."
    if isinstance(value, str):
        return meant_name(value, OPTIMIZERS)
    rule = value.rule if isinstance(value, Link) else value
    if isinstance(rule, Rule):
        return " Write fallline.Optimizer(rule, lr=...)." if rule.kind == "rule" else (
            f" It is a link of a chain: fallline.chain(fallline.{rule.name}(...), fallline.Adam(lr=1e-3)).")
    if getattr(getattr(value, "update", None), "__module__", None) == "fallline.optax":
        return " It is what fallline.optax.transform makes of an optimizer: give that."
    return of_another(value)
