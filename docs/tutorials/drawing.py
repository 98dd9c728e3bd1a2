"""The pictures of the tutorials: matplotlib's, as SVG within the page, in its ink and on its ground."""

import io
import re

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

__all__ = ["Gallery", "figure", "valley"]

INK = "#010203"  # which becomes that of the page
COLOURS = ["#e8590c", "#3b82f6", "#2f9e60", "#a76ee0", "#c98a00", "#e0457b"]  # at least 3:1 on white and on black
mpl.rcParams.update({
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10, "axes.titlesize": 10, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.8,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
})  # fmt: skip


class Picture(Figure):
    """A figure that a page shows as SVG; `says` is read out in its place."""

    says = ""

    def _repr_html_(self):
        text = io.StringIO()
        self.savefig(text, format="svg", metadata={"Date": None})
        head = rf'<svg \1role="img" aria-label="{self.says}"'  # its size is that of its place
        svg = re.sub(r'^.*?<svg (.*?)width="[\d.]+pt" height="[\d.]+pt"', head, text.getvalue(), flags=re.DOTALL)
        svg = svg.replace(INK, "currentColor")
        width = self.get_size_inches()[0] * 96
        return f'<div class="picture" style="max-width: {width:.0f}px; flex-basis: {0.75 * width:.0f}px">{svg}</div>'


class Gallery(list):
    """Pictures beside each other, as many as there is room for."""

    def _repr_html_(self):
        return f'<div class="gallery">{"".join(picture._repr_html_() for picture in self)}</div>'


def figure(rows=1, columns=1, *, size=(5.6, 3), says):
    """A picture and its axes, as of `plt.subplots`."""
    made = Picture(figsize=size, layout="constrained")
    made.says = says
    return made, made.subplots(rows, columns)


def valley(axes, value, window, paths, *, minimum=(1, 1)):
    """Paths, by what they are called, on the levels of a function of two numbers."""
    (left, right), (bottom, top) = window
    x, y = np.meshgrid(np.linspace(left, right, 121), np.linspace(bottom, top, 121))
    height = np.log10(value(np.array([x, y])) + 1e-3)
    axes.contour(x, y, height, levels=12, colors="#7c8a99", linewidths=0.7, alpha=0.6, linestyles="solid")
    for name, path in paths.items():
        axes.plot(*np.transpose(path), ".-", markersize=3, linewidth=1.2, label=name)
    axes.plot(*minimum, "x", color=INK)
    axes.set(xlim=window[0], ylim=window[1], xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
