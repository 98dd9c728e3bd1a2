"""The report: one page that needs nothing from anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fallline._optimizer.optimizer import Optimizer
from fallline.race.contenders.named import OptimizerSource, find_optimizer
from fallline.race.findings import wording
from fallline.race.problems.surfaces import SURFACES
from fallline.race.report import rows
from fallline.race.report.curves import curves
from fallline.race.report.style import SHADES, styles_of

if TYPE_CHECKING:
    from jinja2 import Environment

GRID = 81  # points along each axis of a contour plot
LEVELS = 16
Document = dict[str, Any]


def page(doc: Document, sources: Mapping[str, OptimizerSource]) -> str:
    """The whole report as HTML, with the formulas of optimisers whose sources are known."""
    return _rendered("report.html", doc, formulas=_formulas(sources), chart=charts(doc), wording=wording)


def fragment(doc: Document) -> str:
    """The answer and the table as HTML for a notebook."""
    return _rendered("fragment.html", doc, formulas={})


def _rendered(template: str, doc: Document, **names: Any) -> str:
    return _environment().get_template(template).render(doc=doc, columns=rows.columns(doc), **names)


def _formulas(sources: Mapping[str, OptimizerSource]) -> dict[str, str]:
    """As notebooks show them, by name; none of what is another library's."""
    found = {name: find_optimizer(source) for name, source in sources.items()}
    return {name: each._repr_html_() for name, each in found.items() if isinstance(each, Optimizer)}


def charts(doc: Document) -> Document:
    """What the page's script draws: names with their styles, curves with bands, results by rate, contours and paths."""
    styles = styles_of(doc)
    return {
        "names": [entry["name"] for entry in doc["optimizers"]],
        "styles": {name: asdict(style) for name, style in styles.items()},
        "shades": asdict(SHADES),
        "steps": doc["settings"]["marks"],
        "target": doc["problem"]["target"],
        "start": doc["problem"]["start_loss"],
        "curves": curves(doc),
        "rates": [_by_rate(entry) for entry in doc["optimizers"] if entry["tuning"]],
        "surfaces": [surface | _contour(surface["name"]) for surface in doc["surfaces"] if surface["paths"]],
    }


def _by_rate(entry: Document) -> Document:
    tuning = entry["tuning"]
    return {
        "name": entry["name"],
        "rates": [trial["rate"] for trial in tuning],
        "values": [f"{entry['tuned']} {wording.number(trial['value'])}" for trial in tuning],
        "losses": [trial["median"] for trial in tuning],
        "chosen": entry["rate"],
    }


@lru_cache
def _contour(name: str) -> Document:
    """Heights over the window on a scale that shows the valleys: logarithms from just above the lowest value up."""
    surface = SURFACES[name]
    (left, right), (bottom, top) = surface.window
    x, y = np.linspace(left, right, GRID), np.linspace(bottom, top, GRID)
    height = np.array([[surface.value_and_grad(np.array([a, b]))[0] for a in x] for b in y])
    scaled = np.log10(height + 0.002 * float(np.median(height)))
    return {"x": _short(x), "y": _short(y), "z": [_short(row) for row in scaled], "levels": LEVELS}


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{v:.4g}") for v in values]


@lru_cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("fallline.race.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
