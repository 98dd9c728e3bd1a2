"""Values of hyper-parameters in a call, and the scalars that a program makes of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fallline._arrays.trees import Treedef
from fallline._formula import words
from fallline._formula.chain import Chain
from fallline._formula.program import Program, StateName, TotalName
from fallline._formula.settings import resolve
from fallline._messages.values import brief

__all__ = ["asked", "by_coordinate", "by_leaf", "evaluate", "first_state", "of_leaf", "value_of"]


def by_leaf(chain: Chain, settings: Mapping[str, Any], treedef: Treedef, shapes: Sequence[tuple[int, ...]]
            ) -> dict[str, Any]:
    """The hyper-parameters of a chain for leaves of these shapes, each one for all leaves or a list of one for each.

    Raises ValueError or TypeError if they do not fit.
    """
    programs = chain.programs
    powers, single, common = ({chain.source(q, settings) for some in kind for q in some} for kind in
                              zip(*((each.powers, each.single, each.common) for each in programs)))
    single |= {chain.source(q, settings) for q in chain.of_whole_leaf}
    found = {q: resolve(chain.hyper[q], value, chain.owner(q), treedef, shapes,
                        "tree" if q in common else "leaf" if q in single else "power" if q in powers else "")
             for q, value in settings.items()}
    return {q: found[chain.source(q, settings)] for q in chain.hyper}


def value_of(chain: Chain, qualified: str, setting: Any, t: int, memo: dict[Any, Any]) -> Any:
    if not callable(setting):
        return setting
    key = (qualified, id(setting))  # a schedule is asked once for each call
    if key not in memo:
        memo[key] = asked(chain, qualified, setting, t)
    return memo[key]


def asked(chain: Chain, qualified: str, schedule: Any, t: int) -> float:
    """What a schedule says after t completed steps; raises ValueError or TypeError if that is out of range."""
    value, hyper = schedule(t), chain.hyper[qualified]
    if type(value) is float and math.isfinite(value) and hyper.range.holds(value):
        return value
    return hyper.check(value, chain.owner(qualified), f" from its schedule at t={t}")


def of_leaf(setting: Any, k: int) -> Any:
    return setting[k] if isinstance(setting, list) else setting


def _beyond(scalar: Any, largest: float) -> bool:
    """Whether a scalar, or one of the values per coordinate, is finite and larger than that."""
    if isinstance(scalar, np.ndarray):
        return bool(np.any((np.abs(scalar) > largest) & np.isfinite(scalar)))
    return largest < abs(scalar) < math.inf


def evaluate(chain: Chain, program: Program, values: Sequence[Any], count: int, dtype: np.dtype
             ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The program's scalars and new numbers for values of its `hyper`, after so many steps of a leaf.

    Raises ValueError if the dtype cannot hold a scalar.
    """
    limits = np.finfo(dtype)
    every = program.evaluate(values, count + 1, float(limits.tiny))
    scalars, numbers = every[: len(program.scalars)], every[len(program.scalars) :]
    if any(_beyond(s, float(limits.max)) for s in scalars):
        given = ", ".join(f"{q}={v!r}" for q, v in zip(program.hyper, values) if not isinstance(q, TotalName))
        state = ", or a number of its state," * any(isinstance(q, StateName) for q in program.hyper)
        raise ValueError(f"A setting of {chain.title}{state} is too large for {dtype}: {given}.") from None
    return scalars, numbers


def by_coordinate(program: Program, settings: Mapping[str, Any]) -> tuple[int, ...]:
    """The scalars of a program, by place, that differ by coordinate for a leaf with these settings."""
    arrays = {n for n, q in enumerate(program.hyper) if isinstance(settings.get(q), np.ndarray)}
    if not arrays:
        return ()
    differ: set[int] = set()
    for n, step in enumerate(program.steps):
        made_of = arrays if step.op == "hyper" else () if step.op == "constant" else differ
        if any(o in made_of for o in step.operands):
            differ.add(n)
    return tuple(place for place, n in enumerate(program.scalars) if n in differ)


def first_state(chain: Chain, value: Any, dtype: np.dtype) -> Any:
    """Where state computed in a dtype starts, by a setting that is a number, or one for each coordinate.

    Raises ValueError if it is too large for the dtype.
    """
    first = words.flush(np.asarray(value, dtype))
    if first.ndim == 0:
        first = float(first)
    if np.isinf(first).any() if isinstance(first, np.ndarray) else math.isinf(first):  # settings are finite
        raise ValueError(f"State of {chain.title} cannot start at {brief(value)}, which is too large for {dtype}.")
    return first
