"""Functions that a user gives, schedules foremost: whether they are any, and can be called with one argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fallline._messages.values import shown

__all__ = ["check_arity", "check_schedule", "is_function", "itself"]


def is_function(value: Any) -> bool:
    """Whether a value can be called for a number; classes, rules and optimizers can be called for something else."""
    return callable(value) and not isinstance(value, type) and not hasattr(value, "hyper")


def check_schedule(function: Callable[..., Any], what: str) -> None:
    """Raise TypeError for a schedule (`what` messages call it) that cannot be called with the number of steps."""
    check_arity(function, f"{what}, a schedule, must be a function of one argument, the number of completed steps")


def check_arity(function: Callable[..., Any], said: str) -> None:
    """Raise TypeError, beginning with what is `said`, for a function that cannot be called with one argument."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of some that are built in nothing is known
        return
    try:
        signature.bind(0)
    except TypeError:
        raise TypeError(f"{said}. Got {shown(function)}{signature}.") from None


def itself(value: Any) -> str:
    """What messages add to a class that was given in place of a function which it would make."""
    if not isinstance(value, type) or hasattr(value, "hyper"):
        return ""
    makes = any("__call__" in vars(cls) for cls in value.__mro__)
    return f" itself: make one, {value.__name__}(...)" * makes
