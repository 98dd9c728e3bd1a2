"""The columns of the results table, once, for the terminal, the page and the notebook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fallline.race.findings import wording
from fallline.race.findings.wording import number

Document = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A heading, what it says in full, and the text of its cell for one optimiser."""

    heading: str
    meaning: str
    cell: Callable[[Document], str]


def columns(doc: Document) -> list[Column]:
    """The columns that this race can fill: no accuracy or target where the problem has none."""
    loss = "final training loss"
    tuned = "the tuned hyper-parameter; × is a factor of what was given; “at edge”: the grid's end was best"
    as_given = f"median {loss} as given, by default with the class's defaults"
    chosen = [
        Column(
            "rank",
            "those that share a number are not clearly different; one between two groups holds both numbers",
            _rank,
        ),
        Column("optimiser", "", lambda e: e["name"]),
        Column("tuned", tuned, _tuned),
        Column("loss", f"median {loss} on fresh seeds", lambda e: _part(e["final"], "median")),
        Column("10–90 %", f"of the {loss}", _range),
        *[_figure(name) for name in _figure_names(doc)],
        Column("untuned", as_given, lambda e: _part(e["untuned"], "median")),
        Column("width", "decades of rates within twice the best loss", lambda e: _text(e["width_decades"])),
    ]
    if doc["problem"]["target"] is not None:
        meaning = f"median steps to a training loss of {number(doc['problem']['target'])}"
        chosen.append(Column("to target", meaning, lambda e: _steps(e["final"])))
    return [
        *chosen,
        Column("diverged", "runs on fresh seeds whose numbers ceased to be finite", _diverged),
        Column("µs/step", "microseconds of one step, the gradient given", lambda e: _microseconds(doc, e["name"])),
    ]


def table(doc: Document) -> list[dict[str, str]]:
    """One dict per optimiser, best first, from heading to text."""
    shown = columns(doc)
    return [{column.heading: column.cell(entry) for column in shown} for entry in doc["optimizers"]]


def _rank(entry: Document) -> str:
    return wording.ranks(entry["rank"]) + (" tied" if entry["tied_with"] else "")


def _tuned(entry: Document) -> str:
    edge = " at edge" if entry["at_edge"] else ""
    return wording.tuned(entry) + edge


def _part(summary: Document | None, name: str) -> str:
    if summary is None:
        return "–"
    return "diverged" if summary[name] is None else number(summary[name])


def _range(entry: Document) -> str:
    if entry["final"] is None:
        return "–"
    low, high = (number(entry["final"][q]) if entry["final"][q] is not None else "∞" for q in ("p10", "p90"))
    return f"{low} – {high}"


def _figure_names(doc: Document) -> Sequence[str]:
    return sorted({name for entry in doc["optimizers"] if entry["final"] for name in entry["final"]["figures"]})


def _figure(name: str) -> Column:
    if name == "test_accuracy":
        return Column("test acc.", "median accuracy on held-out data; never used to tune or rank", _accuracy)
    return Column(name.replace("_", " "), "median, as the problem reports it", lambda e: _figure_text(e, name))


def _figure_text(entry: Document, name: str) -> str:
    figures = entry["final"]["figures"] if entry["final"] else {}
    return number(figures[name]["median"]) if name in figures else "–"


def _accuracy(entry: Document) -> str:
    figures = entry["final"]["figures"] if entry["final"] else {}
    return f"{100 * figures['test_accuracy']['median']:.1f} %" if "test_accuracy" in figures else "–"


def _steps(final: Document | None) -> str:
    if final is None:
        return "–"
    reached = sum(step is not None for step in final["steps_to_target"])
    if final["median_steps_to_target"] is None:
        return "never" if reached == 0 else f"{reached} of {final['runs']} runs"
    return f"{final['median_steps_to_target']:.0f}"


def _diverged(entry: Document) -> str:
    return f"{entry['final']['diverged']} of {entry['final']['runs']}" if entry["final"] else "–"


def _microseconds(doc: Document, name: str) -> str:
    timed = doc["measured"]["microseconds_per_step"]
    return "–" if timed is None else f"{timed[name]:.1f}"


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"
