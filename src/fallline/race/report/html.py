"""The report: one page that needs nothing from anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fallline._optimizer.optimizer import Optimizer
from fallline.race.contenders.named import OptimizerSource, find_optimizer
from fallline.race.findings import wording
from fallline.race.report import rows
from fallline.race.report.curves import curves
from fallline.race.report.live import live
from fallline.race.report.style import SHADES, styles_of

if TYPE_CHECKING:
    from jinja2 import Environment

Document = dict[str, Any]


def page(doc: Document, sources: Mapping[str, OptimizerSource]) -> str:
    """The whole report as HTML, with the formulas of optimisers whose sources are known."""
    surfaces, script = live(doc, sources)
    chart = charts(doc) | {"surfaces": [_drawn(surface) for surface in surfaces]}
    return _rendered("report.html", doc, formulas=_formulas(sources), chart=chart, script=script, wording=wording)


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
    """What the page's script draws: names with their styles, curves with bands, results by rate."""
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
    }


def _drawn(surface: Document) -> Document:
    return {key: surface[key] for key in ("name", "start", "window", "minima", "steps", "paths")}


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
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("fallline.race.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
