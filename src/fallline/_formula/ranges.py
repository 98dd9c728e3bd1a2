"""Hyper-parameters: their names, defaults and ranges, and what a number must be to be one's value."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np

from fallline._messages.remedies import instead, is_masked, is_tracer
from fallline._messages.values import brief

__all__ = ["BOUND", "WHOLE", "Bound", "Count", "Fraction", "Hyper", "NonNegative", "NonPositive", "Positive", "Range",
           "Real", "is_finite"]  # fmt: skip


class Range(NamedTuple):
    """The values a hyper-parameter may take; `text` completes the sentence "lr of Adam must be ..."."""

    text: str
    holds: Callable[[float], bool]


NonNegative = Annotated[float, Range("≥ 0", lambda v: v >= 0)]
Positive = Annotated[float, Range("> 0", lambda v: v > 0)]
NonPositive = Annotated[float, Range("≤ 0", lambda v: v <= 0)]
WHOLE = Range("a whole number ≥ 1", lambda v: v >= 1 and v == int(v))
Count = Annotated[float, WHOLE]  # one for the whole chain, and no schedule
Fraction = Annotated[float, Range("in [0, 1)", lambda v: 0 <= v < 1)]
Real = Range("a finite number", lambda v: True)
BOUND = Range("a number (infinite: no bound)", lambda v: v == v)
Bound = Annotated[float, BOUND]


class Hyper(NamedTuple):
    """A hyper-parameter of a rule: its name, default (None where the chain or the caller must give it) and range."""

    name: str
    default: float | None
    range: Range

    def check(self, value: Any, owner: str, note: str = "") -> float:
        """`value` as a float, or a ValueError or TypeError that says what it must be; `note`: what it is a value of."""
        number = _plain(value)
        if not isinstance(number, numbers.Real) or isinstance(number, bool):
            raise TypeError(f"{self.name} of {owner} must be {self._possible(note)}. "
                            f"Got {brief(value)}{note}{_hint(value, self.name)}.")
        unbounded = self.range is BOUND and number in (math.inf, -math.inf)
        if not (is_finite(number) or unbounded) or not self.range.holds(float(number)):
            finite = "" if is_finite(number) or self.range in (Real, BOUND) else " and finite"
            raise ValueError(f"{self.name} of {owner} must be {self.range.text}{finite}. Got {brief(number)}{note}.")
        return float(number)

    def asked(self, value: Any) -> Any:
        """A setting as whoever asks for it sees it: what counts is a whole number, though a formula has it as float."""
        return int(value) if self.range is WHOLE else value

    def _possible(self, note: str) -> str:
        if self.range is WHOLE:
            return self.range.text
        text = "a number" if self.range is Real else self.range.text if self.range is BOUND else \
            f"a number {self.range.text}"
        return text if note else f"{text}, a schedule (a function of the number of completed steps) or a tree of these"


def _plain(value: Any) -> Any:
    """The number in an array of no dimensions; anything else as it is."""
    if getattr(value, "shape", None) != () or is_masked(value):
        return value
    try:
        return value.item() if hasattr(value, "item") else np.asarray(value).item()
    except Exception:  # of another library, for what has no number: a tracer of JAX, a meta tensor of torch
        return value


def _hint(value: Any, name: str) -> str:
    """What to give in the place of a value that is no number."""
    if is_tracer(value):
        return (", a JAX tracer, whose number is not known inside jit, grad or vmap: set it outside, or write "
                f"fallline.optax.transform(opt, {name}=...)")
    return instead(value)


def is_finite(number: Any) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond float64
        return False
