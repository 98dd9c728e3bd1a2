"""Surfaces of two variables as JavaScript."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fallline._engines.javascript import written
from fallline._formula.trace import of_function

__all__ = ["DRAWING", "as_program"]

DRAWING = Path(__file__).with_name("surface.js")
"""What makes a field of the program of a surface, and a picture of a field."""


def as_program(formula: Callable[[Any, Any], tuple[Any, Any, Any]]) -> str:
    """The program of a function of (x, y) that gives the value and the two coordinates of the gradient, in arithmetic;
    `traced` of DRAWING makes a field of it.

    Raises FormulaError for what is no such function.
    """
    return written(of_function(formula, ("x", "y"), ("value", "gx", "gy")))
