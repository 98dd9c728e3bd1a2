"""A word to whoever takes the article's form of ε where gradients are so small that it damps them."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from fallline.bound import Bound
from fallline.ops import namespace
from fallline.precision import reals

__all__ = ["warn_if_damped"]


def warn_if_damped(bound: Bound, gradients: Iterable[tuple[int, Any]]) -> None:
    """Warn if all gradients of a first step, by the number of the leaf, are below √eps, where a slot starts at that.

    Nothing is said of AdaDelta, which eps moves and which cannot do without it, nor of a rule with norms of leaves: it
    may make its steps as long as it likes, as LAMB does.
    """
    chain = bound.chain
    starts = {start: slot for slot, start in chain.starts().items()}
    start = f"{chain.rule_name}.eps"
    by_leaf = any(total.over == "leaf" for reading in chain.stepping.readings for total in reading.totals)
    if start not in starts or not chain.hyper[start].range.holds(0.0) or by_leaf:
        return
    root, largest = math.inf, 0.0
    for k, g in gradients:
        least = float(np.min(bound.value(start, k, 0, {}), initial=math.inf))
        root, largest = min(root, math.sqrt(least)), max(largest, _largest(g))
    if 0 < largest < root:
        owner = chain.owner(start)
        warnings.warn(
            f"All gradients at the first step are below √eps of {owner}, {root:.3g}; the largest is {largest:.3g}. "
            f"{starts[start]} starts at eps, as in the article, and gradients so small hardly change it: for long they "
            f"are divided by √eps and not by their own size, so that {owner} hardly moves. Give it eps=0, or scale the "
            "loss up.", UserWarning, stacklevel=_level())  # fmt: skip


def _largest(g: Any) -> float:
    xp = namespace(g) or np
    if 0 in g.shape:
        return 0.0
    if xp is not np:
        return float(xp.max(xp.abs(g)))
    parts = reals(g)
    return max(float(parts.max()), -float(parts.min()))


def _level() -> int:
    """The level of the first caller outside of this package, for `warnings.warn` of this module."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        level, frame = level + 1, frame.f_back
    return level
