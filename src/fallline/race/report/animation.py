"""Tracks on a surface as a GIF or WebP, drawn by matplotlib and written by Pillow."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fallline.race.findings.wording import number
from fallline.race.problems.surfaces import Surface
from fallline.race.report.style import PAGE, SHADES, Style, styles_for

if TYPE_CHECKING:
    from fallline.race.report.tracks import Tracks

__all__ = ["animate"]

FORMATS: dict[str, dict[str, Any]] = {
    ".gif": {"format": "GIF"},
    ".webp": {"format": "WEBP", "lossless": True, "method": 6, "kmax": 0},  # each picture as what has changed
}
SIZE, DOTS = (7.6, 4.75), 100  # inches, and dots of each
PER_SECOND, STAY = 15, 2.0  # pictures, and seconds that the last one stays
PACE = 1.8  # the share of the steps is this power of the share of the time
GRID, LEVELS, COLOURS = 241, 18, 200
INK, SOFT = "#1d2126", "#5d656e"
HOURGLASS = ((-1, -1), (1, -1), (-1, 1), (1, 1), (-1, -1))
MARKERS: dict[str, tuple[Any, float]] = {  # what matplotlib calls them, and their size in points
    "circle": ("o", 9), "square": ("s", 8), "diamond": ("D", 8), "triangle-up": ("^", 9.5), "triangle-down": ("v", 9.5),
    "cross": ("P", 10), "x": ("X", 10), "pentagon": ("p", 10), "star": ("*", 14), "hourglass": (HOURGLASS, 11),
}  # fmt: skip


def animate(tracks: Tracks, path: str | os.PathLike[str], seconds: float) -> None:
    """See `Tracks.animate`."""
    path = Path(path)
    if (suffix := path.suffix.lower()) not in FORMATS:
        raise ValueError(f"path of animate must end with {' or '.join(FORMATS)}. Got {path.name!r}.")
    if not seconds > 0:
        raise ValueError(f"seconds of animate must be > 0. Got {seconds}.")
    try:
        scene = Scene(tracks)
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        raise ImportError(f'animate needs {missing}: pip install "fallline[pictures]"') from None
    count = max(2, round(seconds * PER_SECOND))
    last = max(map(len, tracks.points.values())) - 1
    pictures = [scene.at(last * share**PACE) for share in np.linspace(0, 1, count)]
    palette = scene.palette(pictures[-1])
    first, *others = [picture.quantize(palette=palette, dither=0) for picture in pictures]
    pause = [round(1000 / PER_SECOND)] * (count - 1) + [round(1000 * STAY)]
    first.save(path, save_all=True, append_images=others, duration=pause, loop=0, **FORMATS[suffix])


class Scene:
    """The surface with its contours, drawn once, and on it the tracks up to a step."""

    def __init__(self, tracks: Tracks) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.tracks, self.values = tracks, tracks.values
        figure = Figure(figsize=SIZE, dpi=DOTS, facecolor=PAGE[0])
        self.canvas = FigureCanvasAgg(figure)
        self.axes = figure.add_axes((0.012, 0.02, 0.75, 0.90))
        _ground(self.axes, tracks.surface)
        figure.text(0.012, 0.945, tracks.surface.title, color=INK, fontsize=11, weight="bold")
        figure.text(0.15, 0.945, tracks.surface.note, color=SOFT, fontsize=10)
        figure.text(0.988, 0.945, "value", color=SOFT, fontsize=9, ha="right")
        self.step = figure.text(0.762, 0.945, "", color=SOFT, fontsize=10, ha="right", animated=True)
        self.lines = self._lines(figure)
        self.canvas.draw()
        self.background = self.canvas.copy_from_bbox(figure.bbox)

    def _lines(self, figure: Any) -> list[tuple[str, Any, Any, Any]]:
        """Of each track its trail, its head and the value that it has reached; the best at the end stand first."""
        names = list(self.tracks.points)
        styles = styles_for(names)
        ends = sorted(names, key=lambda name: self.values[name][-1])
        apart = min(0.075, 0.9 / len(names))
        return [(name, *_line(self.axes, figure, styles[name], name, 0.88 - apart * k)) for k, name in enumerate(ends)]

    def at(self, step: float) -> Any:
        """The picture at a step, which may lie between two."""
        figure: Any = self.axes.figure
        self.canvas.restore_region(self.background)
        whole = int(step)
        self.step.set_text(f"step {whole}")
        for name, trail, head, value in self.lines:
            points = self.tracks.points[name]
            shown = points[: whole + 1]
            if whole + 1 < len(points):
                shown = np.vstack([shown, shown[-1] + (step - whole) * (points[whole + 1] - shown[-1])])
            trail.set_data(*shown.T)
            head.set_data(*shown[-1:].T)
            value.set_text(number(float(self.values[name][: whole + 1][-1])))
        for artist in (*chain.from_iterable(zip(*(parts for _, *parts in self.lines))), self.step):
            figure.draw_artist(artist)
        return _image(np.asarray(self.canvas.buffer_rgba())[..., :3])

    def palette(self, picture: Any) -> Any:
        """The colours of a picture, in which those of the lines have a share, however few their pixels are."""
        from matplotlib.colors import to_rgb

        own = np.array([to_rgb(trail.get_color()) for _, trail, *_ in self.lines])
        stripes = np.tile((255 * own).round().astype(np.uint8).repeat(8, 0)[:, None], (1, picture.width, 1))
        return _image(np.vstack([np.asarray(picture), stripes])).quantize(COLOURS, dither=0)


def _image(pixels: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(pixels))


def _ground(axes: Any, surface: Surface) -> None:
    """Shades and contours on a scale that shows the valleys, as in the report; the start and the lowest points."""
    from matplotlib.colors import LinearSegmentedColormap

    (left, right), (bottom, top) = surface.window
    x, y = np.linspace(left, right, GRID), np.linspace(bottom, top, GRID)
    height = np.array([[surface.value_and_grad(np.array([a, b]))[0] for a in x] for b in y])
    scaled = np.log10(height - height.min() + 0.002 * float(np.median(height - height.min())))
    axes.contourf(x, y, scaled, LEVELS, cmap=LinearSegmentedColormap.from_list("", SHADES.light))
    axes.contour(x, y, scaled, LEVELS, colors=SHADES.lightLine, linewidths=0.6, linestyles="solid", alpha=0.5)
    axes.plot(*surface.start, "o", color=SOFT, markersize=8, markerfacecolor="none")
    for point in surface.minima:
        axes.plot(*point, "+", color=INK, markersize=11)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.axis("off")


def _line(axes: Any, figure: Any, style: Style, name: str, y: float) -> tuple[Any, Any, Any]:
    dash = (0, tuple(float(part) / 2 for part in style.dash.split(","))) if style.dash else "solid"
    marker, size = MARKERS[style.marker]
    looks: dict[str, Any] = {"color": style.light, "marker": marker, "markersize": size, "markeredgecolor": PAGE[0]}
    (trail,) = axes.plot([], [], color=style.light, linewidth=1.7, linestyle=dash, animated=True)
    (head,) = axes.plot([], [], **looks, markeredgewidth=0.8, animated=True)
    figure.add_artist(_sample(figure, looks, y))
    figure.text(0.806, y, name, color=INK, fontsize=10, va="center")
    value = figure.text(0.988, y, "", color=SOFT, fontsize=9, va="center", ha="right", animated=True)
    return trail, head, value


def _sample(figure: Any, looks: dict[str, Any], y: float) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([0.786], [y], transform=figure.transFigure, linestyle="none", markeredgewidth=0, **looks)
