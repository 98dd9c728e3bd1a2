"""Surfaces as the page's script draws them: by their formulas and the rules, run in the browser with NumPy's bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fallline._browser.module import can_be_written, script
from fallline._browser.surfaces import DRAWING, as_program
from fallline._optimizer.optimizer import Optimizer
from fallline.race.contenders.contender import Contender, contenders
from fallline.race.contenders.named import OptimizerSource
from fallline.race.problems.surfaces import SURFACES

__all__ = ["live"]

Document = dict[str, Any]


def live(doc: Document, sources: Mapping[str, OptimizerSource]) -> tuple[list[Document], str]:
    """The surfaces of a document, where paths name a rule of the script in the place of their points; and the script.

    What cannot be written as JavaScript keeps its points: what is another library's, a function of whole leaves, a
    schedule, an average, and what is not known any more.
    """
    known = {name: contenders({name: source})[0] for name, source in sources.items()}
    written: dict[str, Optimizer] = {}
    drawn = [surface | {"paths": [_path(path, known.get(path["name"]), written) for path in surface["paths"]]}
             for surface in doc["surfaces"] if surface["paths"]]  # fmt: skip
    programs = ", ".join(f"{surface['name']}: {as_program(SURFACES[surface['name']].formula)}" for surface in drawn)
    return drawn, "\n".join([script(written), DRAWING.read_text(encoding="utf-8"), f"const programs = {{{programs}}};"])


def _path(path: Document, contender: Contender | None, written: dict[str, Optimizer]) -> Document:
    """Its name, with its points, or with the rule that gives them and how many there are."""
    if contender is not None and contender.judged_at != "averaged" and path.get("rate") is not None:
        optimizer = contender.without_decay(path["rate"])
        if isinstance(optimizer, Optimizer) and can_be_written(optimizer):
            rule = f"r{len(written)}"
            written[rule] = optimizer
            return {"name": path["name"], "rule": rule, "count": len(path["points"])}
    return {"name": path["name"], "points": path["points"]}
