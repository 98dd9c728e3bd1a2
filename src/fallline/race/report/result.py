"""What a race gives back: it prints, shows itself in a notebook, saves its files, and has the best optimizer ready."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fallline.race.contenders.contender import contenders
from fallline.race.contenders.named import OptimizerSource
from fallline.race.findings.document import SCHEMA
from fallline.race.report import frame, html, rows, terminal

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

__all__ = ["Result", "load"]


class Result:
    """A finished race, or as much of one as an interrupt left. ``print(result)`` is its table.

    Attributes
    ----------
    document: everything, as in results.json (docs/results-schema.md).
    table: one dict per optimiser, best first, from heading to text; `to_pandas` has the numbers.
    answer: the finding in one sentence.
    best: the optimizer that came first, anew, at its tuned rate.
    """

    def __init__(self, document: dict[str, Any], sources: Mapping[str, OptimizerSource] | None = None) -> None:
        self.document = document
        named = {entry["name"]: entry.get("source") for entry in document["optimizers"]}
        self._sources = named if sources is None else sources

    @property
    def table(self) -> list[dict[str, str]]:
        return rows.table(self.document)

    @property
    def answer(self) -> str:
        return self.document["answer"]

    @property
    def best(self) -> Any:
        """The optimizer that came first, made anew with its tuned rate; each access gives another, ready to use. One of
        another library comes as its users take it: a torch.optim class with its rate, a transformation, a function.

        Raises ValueError if none got through, or if the race was read from a file that could not hold it.

        >>> import numpy as np, fallline as fl
        >>> bowl = fl.race.Problem(np.array([3.0, 1.0]), lambda x: (float(x @ x), 2 * x))
        >>> fl.race.run(bowl, ["SGD", "Adam"], steps=50, jobs=1, surfaces=()).best
        SGD(lr=0.3)
        """
        entry = next((e for e in self.document["optimizers"] if e["final"] and e["final"]["median"] is not None), None)
        if entry is None:
            raise ValueError(f"best of a race must have come through it. {self.answer}")
        if (source := self._sources.get(entry["name"])) is None:
            raise ValueError(f"best of a race that was read from a file must have been given by a name. "
                             f"{entry['name']} was an object: make {entry['settings']} yourself, "
                             f"with {entry['tuned']} {entry['value']:g}.")
        return contenders({entry["name"]: source})[0].own(entry["rate"])

    @property
    def _known(self) -> dict[str, OptimizerSource]:
        """The sources that lead to an optimizer without running a file: a name in a document may be anybody's."""
        return {name: source for name, source in self._sources.items()
                if source is not None and not (isinstance(source, str) and ":" in source)}  # fmt: skip

    def to_pandas(self) -> DataFrame:
        """The table as numbers, a row for each optimiser, best first.

        Columns: rank (the first that it holds), tuned, value, loss, p10, p90, the problem's own figures (medians),
        untuned, width_decades, steps_to_target, diverged, runs, us_per_step. What does not apply is NaN, and a loss
        that diverged is infinite. Raises ImportError where pandas is missing.
        """
        return frame.of(self.document)

    def plot(self) -> Figure:
        """A plotly figure of the training loss by step, medians with their bands, styled as in the report."""
        return frame.figure(self.document)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write results.json and report.html into the folder `path`, which is made if need be, and return the
        report's path. A path that ends with .json or .html is that one file."""
        path = Path(path)
        if written := _FILES.get(path.suffix):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(written(self), encoding="utf-8")
            return path
        self.save(path / "results.json")
        return self.save(path / "report.html")

    def json(self) -> str:
        """The document as JSON; its numbers read back to the same bits."""
        return json.dumps(self.document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def __repr__(self) -> str:
        return f"<race on {self.document['problem']['name']}: {self.answer}>"

    def __str__(self) -> str:
        return terminal.text(self.document)

    def _repr_html_(self) -> str:
        return html.fragment(self.document)


_FILES: dict[str, Callable[[Result], str]] = {
    ".json": Result.json,
    ".html": lambda result: html.page(result.document, result._known),
}


def load(path: str | os.PathLike[str]) -> Result:
    """The race of a results.json, or of the folder that has one.

    Raises FileNotFoundError, or ValueError for a file that is no race's, or that a later version wrote.
    """
    path = Path(path)
    path = path / "results.json" if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        schema = document["schema"]
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{path} must be the results.json of a race. Got something else.") from None
    document.setdefault("beside", None)  # which older files do not have
    if schema != SCHEMA:
        raise ValueError(f"The schema of {path} must be {SCHEMA}. Got {schema}: it takes another version of fallline.")
    return Result(document)
