"""Boxes: what stands beside, above and below what in a formula, whatever it is written in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["FACTOR", "NAME", "PRODUCT", "SUM", "Box", "in_parentheses", "raised", "row", "word", "write"]

SUM, PRODUCT, FACTOR, NAME = range(4)  # how strongly a box holds together: what stands beside it may need parentheses


class Box(NamedTuple):
    """A `kind`, by which scripts (`latex`, `mathml`) know how it is written, of parts: boxes and text."""

    kind: str
    parts: tuple[Any, ...]
    holds: int = NAME

    def held(self, least: int) -> Box:
        """In parentheses if it would not hold together."""
        return self if self.holds >= least else in_parentheses(self)


TALL = ("fraction", "cases", "sum")


def row(*parts: Box, holds: int = SUM) -> Box:
    """Boxes beside each other."""
    return Box("row", parts, holds)


def word(text: str) -> Box:
    """Upright letters."""
    return Box("word", (text,))


def raised(base: Box, exponent: Box) -> Box:
    """A power, or a mark above."""
    if base.kind == "below" and base.holds == NAME:
        return Box("both", (*base.parts, exponent), FACTOR)
    return Box("raised", (base.held(NAME), exponent), FACTOR)


def in_parentheses(box: Box) -> Box:
    return Box("tall parentheses" if _is_tall(box) else "parentheses", (box,), FACTOR)


def _is_tall(box: Box) -> bool:
    return box.kind in TALL or any(_is_tall(part) for part in box.parts if isinstance(part, Box))


def write(box: Box, script: Mapping[str, Callable[..., str]]) -> str:
    """A box in a script, which has for each kind how its parts are written."""
    return script[box.kind](*(write(part, script) if isinstance(part, Box) else part for part in box.parts))
