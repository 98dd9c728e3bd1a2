"""The exceptions that fallline raises beyond TypeError and ValueError."""

from __future__ import annotations

import inspect
import linecache
import traceback
from collections.abc import Callable
from typing import Any

__all__ = [
    "BusyOptimizer", "CheckpointError", "FalllineError", "FormulaError", "NonFiniteGradient", "NotStepped",
    "TornOptimizer", "placed",
]  # fmt: skip


class FalllineError(Exception):
    """Base of fallline's own exceptions."""


class BusyOptimizer(FalllineError, RuntimeError):  # noqa: N818
    """An optimizer was used while it was busy: in another thread, or from a schedule during its own step.

    Nothing was changed.
    """


class CheckpointError(FalllineError, ValueError):
    """A file is no checkpoint, belongs to another optimizer, or cannot be written. Nothing was changed."""


class FormulaError(FalllineError, TypeError):
    """A rule or a chain is invalid; the message says what to write instead."""


class NonFiniteGradient(FalllineError, ValueError):  # noqa: N818  the name of the interface
    """A gradient contains NaN or infinity. Nothing was changed; `paths` names the leaves."""

    def __init__(self, message: str, paths: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.paths = paths

    def __reduce__(self) -> tuple[type, tuple[str, tuple[str, ...]]]:
        return type(self), (str(self), self.paths)


class NotStepped(FalllineError, ValueError, AttributeError):  # noqa: N818
    """An attribute exists only after the first step. `hasattr` is False before it."""


class TornOptimizer(FalllineError, RuntimeError):  # noqa: N818
    """A step was interrupted, so parameters and state are between two steps."""


def placed(error: FormulaError, rule: str, formula: Callable[..., Any]) -> FormulaError:
    """The error with the rule's name, and a note of the line of the formula at which it arose."""
    named = FormulaError(f"In {rule}: {error}")
    code = getattr(inspect.unwrap(formula), "__code__", None)
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code is code:
            text = linecache.getline(code.co_filename, line).strip()
            shown = f"\n    {text}" if text else ""
            named.add_note(f'  File "{code.co_filename}", line {line}, in {code.co_name}{shown}')
    return named
