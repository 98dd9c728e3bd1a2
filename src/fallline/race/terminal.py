"""The results table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fallline.race import rows
from fallline.race.result import Result

SPARED = ("10–90 %", "untuned", "width", "diverged", "to target")  # the first to leave a narrow terminal
Document = dict[str, Any]


def show(result: Result) -> None:
    """Print the answer and the table, as wide as the terminal allows: what does not fit stands in the report."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    doc = result.document
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    shown = _fitting(doc, console.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for column in shown:
        text = column.heading in ("rank", "optimiser", "tuned")
        table.add_column(column.heading, justify="left" if text else "right", no_wrap=True)
    for entry in doc["optimizers"]:
        table.add_row(*(column.cell(entry) for column in shown))
    console.print(doc["answer"], style="bold", highlight=False)
    console.print(table)


def _fitting(doc: Document, width: int) -> Sequence[rows.Column]:
    shown = rows.columns(doc)
    for heading in SPARED:
        if _width(doc, shown) <= width:
            break
        shown = [column for column in shown if column.heading != heading]
    return shown


def _width(doc: Document, shown: Sequence[rows.Column]) -> int:
    return sum(2 + max(len(column.heading), *(len(column.cell(e)) for e in doc["optimizers"])) for column in shown)
