"""A word to whoever takes the article's form of ε where gradients are so small that it damps them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from fallline._arrays.dtypes import reals
from fallline._arrays.namespaces import namespace
from fallline._messages.warned import warn
from fallline._step.group import Group
from fallline.rules import accumulate, clip_norm, clip_value, maximize

__all__ = ["warn_if_damped"]

_NO_LARGER = {accumulate, clip_norm, clip_value, maximize}  # before a rule they leave a gradient as it is, or smaller


def warn_if_damped(calls: Iterable[tuple[Group, Iterable[tuple[int, Any]]]]) -> None:
    """Warn if all gradients of a first step, by the number of the leaf, are below √eps where state starts at eps.

    The calls are one, or those of all parts of a partition. Nothing is said of AdaDelta, which eps moves and which
    cannot do without it, nor where a rule before, such as l2, makes another gradient of what was given.
    """
    calls = [(bound, list(gradients)) for bound, gradients in calls]
    root, damped, slot = math.inf, "", ""
    for bound, gradients in calls:
        chain, eps = bound.chain, f"{bound.chain.rule_name}.eps"
        starts = {start: slot for slot, start in chain.starts().items()}
        before = chain.rules[: chain.rules.index(chain.rule)]
        if eps in starts and chain.hyper[eps].range.holds(0.0) and {*before} <= _NO_LARGER:
            values: dict[Any, Any] = {}
            for k, _ in gradients:
                value = bound.value(eps, k, 0, values)
                root = min(root, math.sqrt(value if type(value) is float else np.min(value, initial=math.inf)))
            damped, slot = chain.owner(eps), starts[eps]
    largest = 0.0
    for g in (g for _, gradients in calls for _, g in gradients) if damped else ():
        largest = max(largest, _largest(g))
        if largest >= root:
            return  # as most often the first is large enough
    if 0 < largest < root < math.inf:
        warn(
            f"All gradients at the first step are below √eps of {damped}, {root:.3g}; the largest is {largest:.3g}. "
            f"{slot} starts at eps, as in the article, and gradients so small hardly change it: for long they are "
            f"divided by √eps and not by their own size, so that {damped} may hardly move. Give it "
            f"eps=0,{_elsewhere(damped)} or scale the loss up.")  # fmt: skip


def _elsewhere(damped: str) -> str:
    """Another library's optimizer of that name, which adds eps at every step, as a part of a sentence."""
    titles = importlib.import_module("fallline.dialects").every()  # above, and for a warning alone
    return next((f" take {library}'s formula, fallline.dialects.{library}.{name},"
                 for _, library, name in (title.split(".") for title in titles) if name.lower() == damped.lower()), "")


def _largest(g: Any) -> float:
    xp = namespace(g) or np
    if 0 in g.shape:
        return 0.0
    if xp is not np:
        return float(xp.max(xp.abs(g)))
    parts = reals(g)
    return max(float(parts.max()), -float(parts.min()))
