"""An optimiser's paths on the surfaces as one SVG, for light and dark pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from fallline.race.findings.wording import number
from fallline.race.problems.surfaces import SURFACES, Surface
from handbook.paths import SURFACE_STEPS, Contender, SurfacePath

__all__ = ["draw", "placed"]

WIDTH, HEIGHT = 264, 190  # of a panel
COLUMNS, GAP, HEAD, MARGIN = 2, 26, 52, 16  # two columns, so that a phone's width leaves letters of 11 pixels
GRID, LEVELS = 121, 11
TOLERANCE = 0.4  # of a simplified contour, in pixels
STYLE = """
svg { --page: #fbfaf7; --ink: #1d2126; --soft: #5d656e; --water: #1d4f91; --trail: #c2410c; }
@media (prefers-color-scheme: dark) {
  svg { --page: #14171b; --ink: #e8e6e1; --soft: #a2a9b1; --water: #8db8f2; --trail: #ffa057; }
}
text { font: 18px system-ui, -apple-system, "Segoe UI", "Noto Sans", "Helvetica Neue", Arial, sans-serif; }
text { fill: var(--soft); } .name, .title { font-weight: 600; fill: var(--ink); }
.title { font-size: 21px; }
.level { fill: var(--water); fill-opacity: .065; stroke: var(--water); stroke-opacity: .16; }
.frame { fill: none; stroke: var(--soft); stroke-opacity: .35; }
.trail { fill: none; stroke: var(--trail); stroke-width: 1.3; stroke-linejoin: round; marker: url(#step); }
.step { fill: var(--trail); }
.start { fill: var(--page); stroke: var(--ink); stroke-width: 1.6; } .end { fill: var(--trail); stroke: var(--page); }
.minimum { fill: none; stroke: var(--ink); stroke-width: 1.6; }
"""


def draw(contender: Contender, paths: Mapping[str, SurfacePath]) -> str:
    """The picture: a panel for each surface, and what the marks mean."""
    cells = [_panel(contender, name, path) for name, path in paths.items()] + [_key(contender)]
    across, down = WIDTH + GAP, HEAD + HEIGHT + GAP
    corners = [(MARGIN + across * (k % COLUMNS), MARGIN + down * (k // COLUMNS)) for k in range(len(cells))]
    placed = [f'<g transform="translate({x} {y})">\n{cell}\n</g>' for (x, y), cell in zip(corners, cells)]
    width, height = 2 * MARGIN + COLUMNS * across - GAP, 2 * MARGIN + -(-len(cells) // COLUMNS) * down - GAP
    surfaces = ", ".join(SURFACES[name].title for name in paths)
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img">',
        f"<title>{contender.name} on {surfaces}</title>", f"<style>{STYLE}</style>",
        '<marker id="step" markerUnits="userSpaceOnUse" markerWidth="4" markerHeight="4" viewBox="-2 -2 4 4">'
        '<circle class="step" r="1.9"/></marker>',
        f'<clipPath id="panel"><rect width="{WIDTH}" height="{HEIGHT}"/></clipPath>',
        f'<rect width="{width}" height="{height}" rx="10" fill="var(--page)"/>', *placed, "</svg>",
    ]) + "\n"  # fmt: skip


def _panel(contender: Contender, name: str, path: SurfacePath) -> str:
    surface = SURFACES[name]
    points = placed(surface, path.path)
    (x0, y0), (x, y) = points[0], points[-1]
    reached = f"target in {path.steps_to_target}" if path.steps_to_target is not None else "target missed"
    rate = "diverged at every rate" if path.rate is None else (
        f"{contender.tuned.name} {number(contender.tuned.value(path.rate))} · {reached}")
    return "\n".join([
        f'<text class="name" y="18">{surface.title}</text><text y="42">{rate}</text>',
        f'<g transform="translate(0 {HEAD})" clip-path="url(#panel)" data-surface="{name}" data-rate="{path.rate}" '
        f'data-steps="{path.steps_to_target}">', *_contours(name),
        f'<path class="trail" d="M{"L".join(f"{x:g} {y:g}" for x, y in points)}"/>',
        f'<circle class="start" cx="{x0}" cy="{y0}" r="4.5"/>', f'<circle class="end" cx="{x}" cy="{y}" r="5"/>',
        *map(_minimum, placed(surface, surface.minima)), *_outside((x, y), path.path[-1]), "</g>",
        f'<rect class="frame" y="{HEAD}" width="{WIDTH}" height="{HEIGHT}" rx="2"/>',
    ])  # fmt: skip


def placed(surface: Surface, points: Iterable[Sequence[float]]) -> list[tuple[float, float]]:
    """Points of a surface in a panel's pixels; what is far outside is brought near."""
    (left, right), (bottom, top) = surface.window
    return [(_pixel((x - left) / (right - left), WIDTH), _pixel((top - y) / (top - bottom), HEIGHT)) for x, y in points]


def _outside(end: tuple[float, float], point: Sequence[float]) -> list[str]:
    """A word on where a path ends that has left the panel."""
    if 0 <= end[0] <= WIDTH and 0 <= end[1] <= HEIGHT:
        return []
    where = ", ".join(map(number, point))
    return [f'<text x="{WIDTH - 8}" y="{HEIGHT - 8}" text-anchor="end">ends at ({where})</text>']


def _pixel(share: float, size: int) -> float:
    return round(float(np.clip(share, -2, 3)) * size, 1)


def _minimum(at: tuple[float, float]) -> str:
    x, y = at
    return f'<path class="minimum" d="M{x:g} {y:g}m-4.5-4.5l9 9m0-9l-9 9"/>'


@cache
def _contours(name: str) -> list[str]:
    """What lies below each level, one over the other, so that the deep is dark; half pixels, to be short."""
    from contourpy import FillType, contour_generator

    surface = SURFACES[name]
    (left, right), (bottom, top) = surface.window
    x, y = np.linspace(left, right, GRID), np.linspace(top, bottom, GRID)
    height = np.array([[surface.value_and_grad(np.array([a, b]))[0] for a in x] for b in y])
    scaled = np.log10(height + 0.002 * float(np.median(height)))  # shows the valleys, as in the race's report
    across, down = np.linspace(0, WIDTH, GRID), np.linspace(0, HEIGHT, GRID)
    regions: Any = contour_generator(across, down, scaled, fill_type=FillType.OuterOffset)
    levels = np.linspace(scaled.min(), scaled.max(), LEVELS + 1)[1:]
    drawn = []
    for level in levels:
        parts, offsets = regions.filled(-np.inf, level)
        rings = [part[a:b] for part, at in zip(parts, offsets) for a, b in pairwise(at)]
        drawn.append(f'<path class="level" transform="scale(.5)" d="{"".join(map(_ring, rings))}"/>')
    return drawn


def _ring(points: np.ndarray) -> str:
    """A closed line in whole numbers, each relative to the last."""
    whole = np.rint(2 * np.array(_thinned(points))).astype(int)
    moves = [f"{x}{y:+d}" if y < 0 else f"{x} {y}" for x, y in np.diff(whole, axis=0)]
    return f"M{whole[0][0]} {whole[0][1]}l{' '.join(moves)}z"


def _thinned(points: np.ndarray) -> list[np.ndarray]:
    """Fewer points, nowhere further than TOLERANCE from the line (Douglas & Peucker 1973)."""
    first, last = points[0], points[-1]
    way = last - first
    length = float(np.hypot(*way))
    away = np.hypot(*(points - first).T)
    if length:
        away = np.abs((points - first) @ np.array([-way[1], way[0]])) / length
    far = int(np.argmax(away))
    if away[far] <= TOLERANCE:
        return [first, last]
    return [*_thinned(points[: far + 1])[:-1], *_thinned(points[far:])]


def _key(contender: Contender) -> str:
    marks = ['<circle class="start" cx="7" r="4.5"/>', '<path class="trail" d="M0 0H7H14"/>',
             '<circle class="end" cx="7" r="5"/>', _minimum((7, 0))]  # fmt: skip
    words = ["start", "each step", f"after {SURFACE_STEPS} steps", "minimum"]
    rows = [f'<g transform="translate(0 {138 + 28 * k})">{mark}<text x="26" y="6">{word}</text></g>'
            for k, (mark, word) in enumerate(zip(marks, words))]  # fmt: skip
    return "\n".join([f'<text class="title" y="60">{contender.name}</text>',
                      '<text y="90">Bluer is lower,</text>', '<text y="112">in logarithmic levels.</text>',
                      *rows])  # fmt: skip
