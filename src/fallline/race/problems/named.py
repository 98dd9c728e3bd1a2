"""From what a user names or gives to the problem itself, at one seed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from fallline._messages.values import brief
from fallline.race.problems.digits import digits
from fallline.race.problems.places import Place, placed, thing_at
from fallline.race.problems.problem import Problem
from fallline.race.problems.surfaces import SURFACES, near_start

ProblemSource = Any  # a name, a Problem, a function of the seed

PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "digits": digits,
    **{name: partial(near_start, name) for name in SURFACES},
}


def problem_at(source: ProblemSource, seed: int) -> Problem:
    """The problem that `source` stands for, at one seed.

    Raises
    ------
    ValueError, TypeError
        No such name, module or file, or something else than a Problem came of it.
    """
    source = placed(source)
    made = find_problem(source) if isinstance(source, str | Place) else source
    if isinstance(made, Problem):
        return made
    if not callable(made):
        raise TypeError(f"problem must be a Problem, a function of the seed or a name. Got {brief(made)}.")
    remedy = "" if _is_of_seed(made) else " One of the parameters goes into it: Problem(start, value_and_grad)."
    try:
        problem = made(seed)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        if not remedy:
            raise
        raise TypeError(f"problem must be a fallline.race.Problem or a function of the seed that returns one. "
                        f"{_name_of(made)}(seed) raised {type(error).__name__} ({error}).{remedy}") from error
    if not isinstance(problem, Problem):
        raise TypeError(f"{_name_of(made)}(seed) must return a fallline.race.Problem. Got {type(problem).__name__}."
                        f"{remedy}")
    return problem


def _is_of_seed(function: Callable[..., Any]) -> bool:
    """Whether a function says itself that it is one of the seed."""
    try:
        return any("seed" in name for name in inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False


def find_problem(source: str | Place) -> Problem | Callable[[int], Problem]:
    """The problem of the race by that name, or what "module:name" or "file.py:name" leads to."""
    if isinstance(source, Place):
        return thing_at(source, "problem", "Problems and functions of a seed", _is_problem)
    if source in PROBLEMS:
        return PROBLEMS[source]
    known = ", ".join(PROBLEMS)
    raise ValueError(f"problem must be one of {known}, or package.module:name, or file.py:name. Got {source!r}.")


def _is_problem(thing: Any, module: ModuleType) -> bool:
    own = inspect.isfunction(thing) and thing.__module__ == module.__name__
    return isinstance(thing, Problem) or (own and _is_of_seed(thing))


def _name_of(thing: Any) -> str:
    return getattr(thing, "__qualname__", repr(thing))
