"""Performance profiles over several races (Dolan & Moré 2002): how often each is within a factor of the fastest."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fallline.race.findings.wording import listing
from fallline.race.report.frame import blank_figure
from fallline.race.report.style import styles_for

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["Profile", "profile_of"]

Document = dict[str, Any]
FACTORS = (1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Profile:
    """How often each optimiser is within a factor of the fastest; `print` shows it.

    Attributes
    ----------
    ratios: by name, float64, one for each run that anybody brought to its target: steps to the target over those of the
        fastest, infinite where it never got there. Sorted, the best optimiser first.
    problems: the names of the problems; each fresh seed of one is a run.
    unsolved: how many runs nobody brought to the target.
    """

    ratios: Mapping[str, np.ndarray]
    problems: tuple[str, ...]
    unsolved: int

    def share(self, name: str, factor: float) -> float:
        """The share of runs, of those that anybody solved, in which it takes at most `factor` times the steps of the
        fastest."""
        return float(np.mean(self.ratios[name] <= factor)) if len(self.ratios[name]) else 0.0

    def plot(self) -> Figure:
        """A plotly figure: the share of runs over the factor, a line for each optimiser."""
        figure = blank_figure("Performance profile", "times the steps of the fastest", "share of runs")
        finite = [ratio for ratios in self.ratios.values() for ratio in ratios if np.isfinite(ratio)]
        most = 1.1 * max(finite, default=1.0)
        styles = styles_for(sorted(self.ratios))
        for name, ratios in self.ratios.items():
            at = [1.0, *ratios[np.isfinite(ratios)], most]
            line = {"color": styles[name].light, "width": 2, "dash": styles[name].dash or "solid", "shape": "hv"}
            figure.add_scatter(x=at, y=[self.share(name, factor) for factor in at], name=name, mode="lines", line=line)
        return figure.update_xaxes(type="log").update_yaxes(range=[0, 1.02], tickformat=".0%")

    def __str__(self) -> str:
        headings = ["optimiser", "fastest", *(f"≤ {factor:g}×" for factor in FACTORS[1:]), "solved"]
        rows = [[name, *(f"{100 * self.share(name, factor):.0f} %" for factor in (*FACTORS, np.finfo(float).max))]
                for name in self.ratios]  # fmt: skip
        wide = [max(map(len, column)) for column in zip(headings, *rows)]
        lines = ["  ".join(cell.rjust(w) if k else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, wide)))
                 for row in (headings, *rows)]  # fmt: skip
        return "\n".join([*lines, "", textwrap.fill(self._said(), max(40, shutil.get_terminal_size().columns))])

    def _said(self) -> str:
        runs = len(next(iter(self.ratios.values())))
        unsolved = f" {self.unsolved} more nobody solved." if self.unsolved else ""
        return (f"Of {runs} runs on {listing(self.problems)}, the share in which each takes the fewest steps to the "
                f"target, at most 2 and 4 times as many, and any number.{unsolved} It compares these optimisers with "
                "each other: without the fastest, others may change places.")


def profile_of(documents: Sequence[Document]) -> Profile:
    """The profile of races of the same optimisers on several problems with targets.

    Raises ValueError if there is none, if a problem has no target, or if they are not of the same optimisers.
    """
    if not documents:
        raise ValueError("results of profile must hold at least one race. Got none.")
    names = documents[0]["settings"]["optimizers"]
    for doc in documents:
        if doc["problem"]["target"] is None:
            raise ValueError(f"Each problem of a profile must have a target. {doc['problem']['name']} has none: "
                             "Problem(..., target=...).")
        if sorted(doc["settings"]["optimizers"]) != sorted(names):
            raise ValueError(f"All races of a profile must have the same optimizers, {', '.join(names)}. "
                             f"{doc['problem']['name']} has {', '.join(doc['settings']['optimizers'])}.")
    steps = np.hstack([_steps(doc, names) for doc in documents])
    fastest = steps.min(axis=0)
    solved = np.isfinite(fastest)
    ratios = dict(zip(names, steps[:, solved] / fastest[solved], strict=True))
    order = sorted(names, key=lambda name: float(np.mean(1 / ratios[name])) if solved.any() else 0.0, reverse=True)
    problems = tuple(doc["problem"]["name"] for doc in documents)
    return Profile({name: np.sort(ratios[name]) for name in order}, problems, int((~solved).sum()))


def _steps(doc: Document, names: Sequence[str]) -> np.ndarray:
    """Steps to the target by optimiser and fresh seed, at least 1; infinite where it is never reached."""
    runs = len(doc["settings"]["fresh_seeds"])
    by_name = {entry["name"]: entry["final"] for entry in doc["optimizers"]}
    found = [[] if by_name[name] is None else by_name[name]["steps_to_target"] for name in names]
    return np.array([[np.inf if step is None else max(step, 1) for step in [*steps, *[None] * (runs - len(steps))]]
                     for steps in found])  # fmt: skip
