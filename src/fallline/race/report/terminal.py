"""The results table for a terminal."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fallline.race.findings import wording
from fallline.race.report import rows

if TYPE_CHECKING:
    from rich.console import Console

KEPT = ("rank", "optimiser", "loss")
SPARED = ("10–90 %", "untuned", "width", "diverged", "to target", "µs/step")  # the first to leave a narrow terminal
LEAST, PIPED = 40, 140  # columns of the narrowest terminal, and of what is no terminal
NAME = 24  # columns that a long name may take from other columns
Document = dict[str, Any]


def text(doc: Document) -> str:
    """The answer and the table, as wide as the terminal or COLUMNS allows; what does not fit is named below it.

    Only names are folded, never a number.
    """
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False, color_system=None)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED
    console.width = max(console.width, LEAST)
    with console.capture() as captured:
        _print(doc, console)
    return captured.get().removesuffix("\n")


def _print(doc: Document, console: Console) -> None:
    from rich import box
    from rich.table import Table

    every = rows.columns(doc)
    shown = _fitting(doc, every, console.width)
    name_room = console.width - _width(doc, shown, 0)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for column in shown:
        text = column.heading in ("rank", "optimiser", "tuned")
        table.add_column(column.heading, justify="left" if text else "right", no_wrap=True)
    for entry in doc["optimizers"]:
        cells = {column.heading: column.cell(entry) for column in shown}
        table.add_row(*(cells | {"optimiser": folded(cells["optimiser"], name_room)}).values())
    console.print(folded(doc["answer"], console.width))
    console.print(table)
    if said := wording.beside(doc):
        console.print(folded(said, console.width))
    if left_out := [column.heading for column in every if column not in shown]:
        console.print(f"In the report, and not at this width: {', '.join(left_out)}.")


def _fitting(doc: Document, every: Sequence[rows.Column], width: int) -> list[rows.Column]:
    """The columns that fit; if need be only those that are always kept, with names in what is left."""
    shown = list(every)
    others = [column.heading for column in reversed(every) if column.heading not in (*KEPT, *SPARED, "tuned")]
    for heading in (*SPARED, *others, "tuned"):
        if _width(doc, shown, NAME) <= width:
            break
        shown = [column for column in shown if column.heading != heading]
    return shown


def _width(doc: Document, shown: Sequence[rows.Column], name_room: int) -> int:
    """How wide the table is, with names of at most that width."""
    from rich.cells import cell_len

    wide = {c.heading: max(map(cell_len, (c.heading, *(c.cell(e) for e in doc["optimizers"])))) for c in shown}
    wide["optimiser"] = min(wide["optimiser"], name_room)
    return 1 + sum(3 + columns for columns in wide.values())


def folded(text: str, room: int) -> str:
    """A text on as many lines as it takes, cut behind words, numbers and what follows them.

    >>> folded("Adam(beta1=0.25, lr=cosine)", 14).split("\\n")
    ['Adam(beta1=', '0.25, lr=', 'cosine)']
    """
    from rich.cells import cell_len, chop_cells  # a letter may take two columns

    lines = [""]
    for part in re.findall(r"[\w.…-]+[^\w.…-]*|[^\w.…-]+", text):
        if lines[-1] and cell_len(lines[-1]) + cell_len(part.rstrip()) > room:
            lines.append("")
        lines[-1] += part
        while cell_len(lines[-1].rstrip()) > room:
            lines[-1:] = chop_cells(lines[-1], room)
    return "\n".join(line.rstrip() for line in lines)
