"""What the loops are given, and what functions of the caller's return: checked once, in one sentence."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping
from typing import Any

from fallline._arrays.leaves import number
from fallline._messages.values import brief

__all__ = ["batch_at", "check_function", "pair", "path_of", "whole"]


def batch_at(batches: Any, owner: str) -> Callable[[int], Any]:
    """What gives the batch of a step number: of a sequence one after the other, over and over again."""
    if callable(batches):
        return batches
    if isinstance(batches, Mapping) or not hasattr(batches, "__getitem__") or not hasattr(batches, "__len__"):
        raise TypeError(
            f"batches of {owner} must be a sequence or a function of the step number. "
            f"Got {type(batches).__name__}: use list(...), or `lambda step: ...`."
        )
    if not len(batches):
        raise ValueError(f"batches of {owner} must hold at least one batch. Got an empty sequence.")
    return lambda t: batches[t % len(batches)]


def check_function(value: Any, what: str, of: str) -> None:
    """Raise TypeError, naming `what`, for what is no function `of` something."""
    if not callable(value):
        raise TypeError(f"{what} must be a function {of}. Got {brief(value)}.")


def path_of(path: Any, what: str) -> str:
    """The path of a file, wherever the run may go from here; TypeError, naming `what`, for what is none."""
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise TypeError(f"{what} must be the path of a file. Got {brief(path)}.")
    return os.path.abspath(path)


def whole(value: Any, what: str, *, least: int) -> int:
    """A whole number; TypeError or ValueError, naming `what`, for anything else."""
    try:
        found = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be a whole number ≥ {least}. Got {brief(value)}.") from None
    if found < least:
        raise ValueError(f"{what} must be a whole number ≥ {least}. Got {brief(value)}.")
    return found


def pair(result: Any, owner: str) -> tuple[float, Any]:
    """What value_and_grad of `owner` returned, as value and gradient; a TypeError if it is no such pair."""
    try:
        value, grad = [] if hasattr(result, "shape") else [*result]  # an array of two numbers is no pair
    except (TypeError, ValueError):
        raise TypeError(
            f"value_and_grad of {owner} must return a pair (value, gradient). Got {type(result).__name__}."
        ) from None
    return number(value, f"value_and_grad of {owner} must return (value, gradient), the value a real number"), grad
