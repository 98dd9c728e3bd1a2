"""Functions that answer a call that Python would refuse: an argument that there is not, one too few, one too many."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from fallline._messages.suggestions import meant_argument
from fallline._messages.values import brief

__all__ = ["answering"]

P = ParamSpec("P")
R = TypeVar("R")


def answering(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, which says in a sentence what it takes if it is called with what it does not take.

    >>> @answering
    ... def halve(value, *, times=1):
    ...     return value / 2**times
    >>> halve(8, time=2)
    Traceback (most recent call last):
    TypeError: halve has no argument 'time'. Did you mean times?
    """

    @functools.wraps(function)
    def answered(*args: P.args, **named: P.kwargs) -> R:
        try:
            return function(*args, **named)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:  # raised within
                raise
            raise TypeError(_refusal(function, args, named)) from None

    return answered


def _refusal(function: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any]) -> str:
    name, parameters = function.__name__, inspect.signature(function).parameters
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    by_place = [p.name for p in parameters.values() if p.kind in kinds]
    for other in named:
        if other not in parameters:
            hint = meant_argument(name, other, parameters) or f" Known: {', '.join(parameters)}."
            return f"{name} has no argument {other!r}.{hint}"
    if len(args) > len(by_place):
        return (f"{name} takes {len(by_place)} arguments by position ({', '.join(by_place)}), all others by name. Got "
                f"{len(args)}, the last {brief(args[-1])}.")
    for other in by_place[: len(args)]:
        if other in named:
            return f"{other} of {name} was given twice, by position and by name."
    given = {*by_place[: len(args)], *named}
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.kind != p.VAR_POSITIONAL]
    call = ", ".join(p.name if p.kind in kinds else f"{p.name}=..." for p in parameters.values() if p.name in missing)
    return f"{name} needs {' and '.join(other for other in missing if other not in given)}: {name}({call})."
