"""The main table as a picture: nanoseconds per coordinate against the size of one array, and for many arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.contenders import LIMIT, OURS
from benchmarks.measure import Measured, Timing
from benchmarks.sizes import MANY, ONE, SIZES, count

__all__ = ["write"]


class Look(NamedTuple):
    """How a contender is drawn; colours are Okabe and Ito's, which the colour-blind tell apart, and markers differ."""

    colour: str
    marker: str
    line: str = "-"
    width: float = 1.4
    face: str = ""  # of the marker, if not the colour


LOOKS = {
    "Keras": Look("#E69F00", "X"),
    "NumPy listing": Look("#56B4E9", "v"),
    "NumPy in place": Look("#0072B2", "^"),
    "torch default": Look("#CC79A7", "s"),
    "optax, jit": Look("#7F7F7F", "P"),
    "torch fused": Look("#009E73", "D"),
    "fallline, checked": Look("#D55E00", "o", ":", 1.6, "white"),
    OURS: Look("#D55E00", "o", "-", 2.8),
    LIMIT: Look("#000000", "_", "--", 1.4),
}
GAP = 0.055  # between labels, as a part of the axis's height


def write(m: Measured, path: Path) -> str:
    """Draw the plot into a file; the Markdown that shows it, or that says why there is none."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: the plot is left out")
        return "The plot is left out: matplotlib is not installed (`pip install 'fallline[benchmarks]'`)."
    matplotlib.use("Agg")
    figure = _figure(m)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, facecolor="white")
    print(f"written: {path}")
    return (f"![Nanoseconds per coordinate and step of Adam, against array size: fallline beside its limit, NumPy and "
            f"other libraries]({path.parent.name}/{path.name})")  # fmt: skip


def _figure(m: Measured) -> Any:
    from matplotlib.figure import Figure

    shapes = [size for size in MANY if size in m.steps]
    widths = (2.4, 1.2) if shapes else (1,)
    figure = Figure(figsize=(10.5, 5.6), layout="constrained")
    one, *many = figure.subplots(1, len(widths), sharey=True, width_ratios=widths, squeeze=False)[0]
    figure.suptitle("One step of Adam on float32: nanoseconds per coordinate (lower is better)", fontsize=13)
    _draw_sizes(one, m)
    for axes in many:
        _draw_shapes(axes, m, shapes)
    return figure


def _per_coordinate(m: Measured, size: str, name: str) -> Timing | None:
    """Nanoseconds for one coordinate, from the size's table or that of the peers there."""
    for table in (size, f"{size}, peers"):
        if name in m.steps.get(table, {}):
            return Timing(*(seconds * 1e9 / count(SIZES[size]) for seconds in m.steps[table][name]))
    return None


def _draw_sizes(axes: Any, m: Measured) -> None:
    """A line for each contender, and its name where it ends."""
    ends = {}
    for name, look in LOOKS.items():
        found = {count(ONE[size]): t for size in ONE if (t := _per_coordinate(m, size, name))}
        if found:
            _mark(axes, list(found), list(found.values()), look, look.line)
            ends[name] = max(found), found[max(found)].median
    axes.set(xscale="log", yscale="log", xlabel="coordinates in one array", ylabel="ns per coordinate")
    axes.grid(True, color="#DDDDDD", linewidth=0.7)
    _tidy(axes)
    _name(axes, ends)


def _draw_shapes(axes: Any, m: Measured, shapes: Sequence[str]) -> None:
    """The same for lists of many arrays: the contenders' marks beside each other."""
    names = [name for name in reversed(LOOKS) if any(_per_coordinate(m, size, name) for size in shapes)]
    for k, name in enumerate(names):
        found = {place: t for place, size in enumerate(shapes) if (t := _per_coordinate(m, size, name))}
        x = [place + 0.8 * ((k + 0.5) / len(names) - 0.5) for place in found]
        _mark(axes, x, list(found.values()), LOOKS[name], "")
    labels = [size.replace(" x ", "\nx ") if " x " in size else f"{size}:\n{len(MANY[size])} arrays" for size in shapes]
    axes.set_xticks(range(len(shapes)), labels)
    axes.set(xlim=(-0.5, len(shapes) - 0.5), xlabel="many arrays in one step")
    axes.grid(True, axis="y", color="#DDDDDD", linewidth=0.7)
    for edge in range(1, len(shapes)):
        axes.axvline(edge - 0.5, color="#DDDDDD", linewidth=0.7)
    _tidy(axes)


def _mark(axes: Any, x: Sequence[float], timings: Sequence[Timing], look: Look, line: str) -> None:
    """Medians, with their spread as thin vertical lines."""
    medians = [t.median for t in timings]
    spread = [[t.median - t.low for t in timings], [t.high - t.median for t in timings]]
    axes.errorbar(x, medians, spread, color=look.colour, linestyle=line, linewidth=look.width, marker=look.marker,
                  markersize=6, markerfacecolor=look.face or look.colour, elinewidth=0.8)  # fmt: skip


def _name(axes: Any, ends: Mapping[str, tuple[float, float]]) -> None:
    """Each contender's name beside its end, with the mark that stands for it; apart where ends are close."""
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    names = sorted(ends, key=lambda name: ends[name][1])
    heights = _apart([(math.log10(ends[name][1]) - low) / (high - low) for name in names])
    for name, height in zip(names, heights):
        look = LOOKS[name]
        leader = {"arrowstyle": "-", "color": look.colour, "linewidth": 0.7, "relpos": (0, 0.5), "shrinkA": 0,
                  "shrinkB": 4}  # fmt: skip
        axes.annotate("", ends[name], (1.04, height), textcoords=axes.transAxes, annotation_clip=False,
                      arrowprops=leader)  # fmt: skip
        axes.plot(1.055, height, transform=axes.transAxes, clip_on=False, color=look.colour, marker=look.marker,
                  markersize=6, markerfacecolor=look.face or look.colour)  # fmt: skip
        axes.text(1.075, height, name, transform=axes.transAxes, va="center", fontsize=10,
                  weight="bold" if name == OURS else "normal")  # fmt: skip


def _apart(heights: Sequence[float]) -> list[float]:
    """Heights in ascending order, moved as little as keeps them a gap apart and within 0 to 1.

    >>> [round(h, 3) for h in _apart([0.5, 0.5, 0.9])]
    [0.473, 0.527, 0.9]
    """
    groups: list[tuple[float, int]] = []  # of labels that touch: the mean of the heights they want, how many
    for height in heights:
        groups.append((height, 1))
        while len(groups) > 1 and _top(groups[-2]) > _bottom(groups[-1]):
            (a, n), (b, k) = groups[-2:]
            groups[-2:] = [((a * n + b * k) / (n + k), n + k)]
    return [_bottom(group) + GAP * (k + 0.5) for group in groups for k in range(group[1])]


def _bottom(group: tuple[float, int]) -> float:
    mean, n = group
    return min(max(mean - GAP * n / 2, 0.0), 1 - GAP * n)


def _top(group: tuple[float, int]) -> float:
    return _bottom(group) + GAP * group[1]


def _tidy(axes: Any) -> None:
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
