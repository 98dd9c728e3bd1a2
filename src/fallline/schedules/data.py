"""Schedules as plain data, and back: what a checkpoint holds of them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from fallline._messages.values import brief
from fallline.schedules import beyond, shapes
from fallline.schedules.base import Schedule

__all__ = ["from_data", "from_text", "is_built_in", "to_data"]

BUILT_IN: dict[str, type[Schedule]] = {name: getattr(file, name) for file in (shapes, beyond) for name in file.__all__}


def is_built_in(value: Any) -> bool:
    """Whether a value is one of fallline's own schedules, and made of nothing else."""
    if BUILT_IN.get(type(value).__name__) is not type(value):
        return False
    return all(map(is_built_in, value.schedules)) if isinstance(value, beyond.join) else True


def to_data(schedule: Schedule) -> dict[str, Any]:
    """A built-in schedule as JSON takes it.

    >>> to_data(shapes.constant(0.1))
    {'schedule': 'constant', 'value': 0.1, 'warmup': 0}
    """
    own: Any = schedule  # a dataclass
    return {"schedule": type(own).__name__, **{field.name: _plain(getattr(own, field.name)) for field in fields(own)}}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(map(_plain, value))
    return to_data(value) if isinstance(value, Schedule) else value


def from_data(data: Any) -> Schedule:
    """The schedule that `to_data` made this of; it is checked as it was when it was made first.

    Raises ValueError or TypeError for anything else.

    >>> from_data({"schedule": "constant", "value": 0.1, "warmup": 0})
    constant(value=0.1, warmup=0)
    """
    name = data.get("schedule") if isinstance(data, Mapping) else None
    cls = BUILT_IN.get(name) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(f"{brief(data if name is None else name)} is no schedule of fallline")
    given = {key: _restored(value) for key, value in data.items() if key != "schedule"}
    wanted = {field.name for field in fields(cls)}  # type: ignore[arg-type]  # a dataclass
    if given.keys() != wanted or None in given.values():
        raise ValueError(f"{name} has the parameters {', '.join(sorted(wanted))}. Got {brief(data)}")
    return cls(**given)


def from_text(text: str) -> Schedule | None:
    """The built-in schedule that prints as this; None for any other text.

    >>> from_text("constant(value=0.1, warmup=0)"), from_text("mine(value=0.1)")
    (constant(value=0.1, warmup=0), None)
    """
    if text.split("(")[0] not in BUILT_IN:
        return None
    try:
        found = _read(ast.parse(text, mode="eval").body)
    except (ArithmeticError, LookupError, RecursionError, SyntaxError, TypeError, ValueError):
        return None
    return found if is_built_in(found) and repr(found) == text else None


def _read(node: ast.expr) -> Any:
    """What an expression says that is made of schedules, tuples and numbers; raises ValueError for any other."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        given: dict[Any, Any] = {keyword.arg: _read(keyword.value) for keyword in node.keywords}
        return BUILT_IN[node.func.id](**given)
    return tuple(map(_read, node.elts)) if isinstance(node, ast.Tuple) else ast.literal_eval(node)


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_restored, value))
    return from_data(value) if isinstance(value, Mapping) else value
