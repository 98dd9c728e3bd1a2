"""The page: its template, and what the optimizers and surfaces are in it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fallline
from fallline._browser.module import can_be_written, hyper_name, script
from fallline._browser.surfaces import DRAWING, as_program
from fallline._optimizer.named import OPTIMIZERS, TEN
from fallline.dialects import every
from fallline.playground.formula import formulas
from fallline.playground.python import in_python
from fallline.race.contenders.contender import Contender, contenders
from fallline.race.contenders.grid import Grid
from fallline.race.contenders.named import OptimizerSource
from fallline.race.problems.surfaces import SURFACES, Surface
from fallline.race.report.style import STYLES

__all__ = ["chosen", "html"]

TEMPLATES = Path(__file__).with_name("templates")
SCRIPTS = ("expression", "model", "formulas", "view", "page")
SEEDS, STEPS = 8, 1000  # of the noise that the page has


def chosen(sources: Sequence[OptimizerSource] | Mapping[str, OptimizerSource] | None) -> list[Contender]:
    """Who is there; None stands for every rule and dialect that can be written as JavaScript."""
    if sources is not None:
        return contenders(sources)
    return [each for each in contenders([*OPTIMIZERS, *every()]) if can_be_written(each.given())]


def html(sources: Sequence[OptimizerSource] | Mapping[str, OptimizerSource] | None) -> str:
    """See `fallline.playground.page`."""
    there = chosen(sources)
    first = list(TEN) if sources is None else [each.name for each in there]
    parts = {
        "css": (TEMPLATES / "page.css").read_text(encoding="utf-8"),
        "script": _within(script({each.name: each.given() for each in there})) + DRAWING.read_text(encoding="utf-8"),
        "data": _data(there, first),
        "page": "\n".join((TEMPLATES / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS),
        "version": fallline.__version__,
        "seeds": str(SEEDS - 1),
    }
    template = (TEMPLATES / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _data(there: Sequence[Contender], first: list[str]) -> str:
    """What the page knows besides the rules, as a JavaScript object; of the surfaces with their programs."""
    symbols: dict[str, str] = {}
    known = {each.name: _entry(each, symbols) for each in there}
    surfaces = ", ".join(f"{name}: {{...{_json(_surface(surface))}, program: {as_program(surface.formula)}}}"
                         for name, surface in SURFACES.items())
    noise = {"seeds": SEEDS, "table": base64.b64encode(_noise().tobytes()).decode()}
    fields = {"optimizers": known, "first": first, "rates": Grid().rates, "noise": noise, "symbols": symbols,
              "styles": [{"light": s.light, "dark": s.dark, "dash": s.dash, "outline": s.outline} for s in STYLES]}
    return f"{{...{_json(fields)}, surfaces: {{{surfaces}}}}}"


def _entry(contender: Contender, symbols: dict[str, str]) -> dict[str, Any]:
    """What makes it in Python, its formulas, what is tuned (a setting, and whether that takes the rate's square), and
    of the ten the number of their style."""
    optimizer, rate = contender.given(), contender.tuned
    return {"python": in_python(optimizer), "formulas": formulas(optimizer._chain, symbols),
            "tuned": hyper_name(optimizer._chain, rate.keys[0]), "squared": bool(rate.squared),
            "style": TEN.index(contender.name) if contender.name in TEN else None}


def _surface(surface: Surface) -> dict[str, Any]:
    return {"title": surface.title, "window": surface.window, "start": surface.start, "minima": surface.minima,
            "target": surface.target}


def _noise() -> np.ndarray:
    """Normal numbers in thousandths, for each seed, step and coordinate, little-endian."""
    drawn = [np.random.default_rng(seed).standard_normal((STEPS, 2)) for seed in range(SEEDS)]
    return np.rint(np.array(drawn) * 1000).astype("<i2")


def _json(value: Any) -> str:
    """JSON that may stand in a script of a page."""
    return _within(json.dumps(value, ensure_ascii=False))


def _within(text: str) -> str:
    """JavaScript in which no string, as the name of an optimizer is one, ends the script of a page."""
    return text.replace("</", "<\\/").replace("<!--", "<\\!--")
