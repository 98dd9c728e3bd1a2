"""How optimisers are told apart, everywhere alike: colour, dash and marker together, so that none has to do alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from fallline._optimizer.named import TEN


@dataclass(frozen=True)
class Style:
    """Colours for light and dark pages, the dash of lines in pixels ("" for none), and a marker's outline.

    The marker is an SVG path around (0, 0), about 10 units wide; `marker` is its name in Plotly.
    """

    light: str
    dark: str
    dash: str
    marker: str
    outline: str


@dataclass(frozen=True)
class Shades:
    """What lies under the lines: from the lowest to the highest place of a surface, and contours in between."""

    light: tuple[str, str] = ("#eaeff1", "#fbfaf7")
    dark: tuple[str, str] = ("#242c35", "#14171b")
    lightLine: str = "#8fa2ac"  # noqa: N815  as the script reads it
    darkLine: str = "#5f6e7d"  # noqa: N815


SHADES = Shades()
PAGE = ("#fbfaf7", "#14171b")  # report.css has the same

# Ten colours with a contrast of at least 3 to whatever lies under them, the closest two still apart (CIELAB distance
# over 21) to eyes with protanopia, deuteranopia or tritanopia as simulated by Machado et al. 2009.
STYLES = (
    Style("#728f78", "#c2dbee", "", "circle", "M0,-5A5,5 0 1,1 0,5A5,5 0 1,1 0,-5Z"),
    Style("#cc7201", "#f9b51c", "9,3", "square", "M-4.5,-4.5H4.5V4.5H-4.5Z"),
    Style("#67271a", "#b3996e", "3,3", "diamond", "M0,-6L6,0L0,6L-6,0Z"),
    Style("#95894f", "#fae883", "", "triangle-up", "M0,-6L5.5,4.5H-5.5Z"),
    Style("#1b5f5a", "#7df5bf", "9,3", "triangle-down", "M0,6L5.5,-4.5H-5.5Z"),
    Style("#1c254b", "#7a6fb7", "9,3,2,3", "cross", "M-2,-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z"),
    Style("#537fef", "#88bbfe", "", "x", "M-5.7,-2.8L-2.8,-5.7L0,-2.8L2.8,-5.7L5.7,-2.8L2.8,0L5.7,2.8L2.8,5.7L0,2.8"
          "L-2.8,5.7L-5.7,2.8L-2.8,0Z"),
    Style("#a24e9c", "#e3709e", "9,3,2,3", "pentagon", "M0,-6L5.7,-1.9L3.5,4.9H-3.5L-5.7,-1.9Z"),
    Style("#a33200", "#d84622", "9,3", "star", "M0,-7L1.7,-2.3L6.7,-2.2L2.7,0.9L4.1,5.7L0,2.8L-4.1,5.7L-2.7,0.9"
          "L-6.7,-2.2L-1.7,-2.3Z"),
    Style("#6e0498", "#6274f2", "3,3", "hourglass", "M-5,-5.5H5L-5,5.5H5Z"),
)  # fmt: skip


# Of what runs beside them: ink, dotted.
BESIDE = Style("#1d2126", "#e8e6e1", "1,3", "circle-open", "M0,-4A4,4 0 1,1 0,4A4,4 0 1,1 0,-4Z")


def styles_of(doc: dict[str, Any]) -> dict[str, Style]:
    """Of all that a race's document has curves of."""
    beside = {} if doc["beside"] is None else {doc["beside"]["name"]: BESIDE}
    return beside | styles_for(doc["settings"]["optimizers"])


def styles_for(names: Sequence[str]) -> dict[str, Style]:
    """The ten keep their style in every report; others take those left over, then start again.

    >>> styles_for(["mine", "SGD"])["SGD"] is STYLES[0]
    True
    """
    own = dict(zip(TEN, STYLES, strict=True))
    spare = cycle([style for name, style in own.items() if name not in names] or STYLES)
    return {name: own[name] if name in own else next(spare) for name in names}
