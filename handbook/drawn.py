"""What a picture shows, read back from it: the pages' texts and the tests need not search for rates again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["Drawn", "DrawnPath", "drawn"]

PANEL = re.compile(r'data-surface="(\w+)" data-rate="([^"]+)" data-steps="(\w+)">.*?class="trail" d="M([^"]*)"', re.S)


class DrawnPath(NamedTuple):
    """The rate of the grid (None: all diverged), the steps to the target (None: not reached), the points in pixels."""

    rate: float | None
    steps: int | None
    points: list[tuple[float, float]]


Drawn = Mapping[str, DrawnPath]  # by surface


def drawn(folder: Path, name: str) -> Drawn:
    """The paths of an optimiser; raises FileNotFoundError, with the command that draws them, if there is no picture."""
    file = folder / f"{name}.svg"
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing. Draw it: python -m handbook {name}")
    return {surface: DrawnPath(None if rate == "None" else float(rate), None if steps == "None" else int(steps),
                               [_point(text) for text in points.split("L")])
            for surface, rate, steps, points in PANEL.findall(file.read_text(encoding="utf-8"))}  # fmt: skip


def _point(text: str) -> tuple[float, float]:
    x, y = text.split()
    return float(x), float(y)
