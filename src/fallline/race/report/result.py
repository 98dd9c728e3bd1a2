"""What a race gives back: it prints, shows itself in a notebook, and saves its files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fallline.race.report import html, rows


class Result:
    """A finished race, or as much of one as an interrupt left.

    Attributes
    ----------
    document: everything, as in results.json (docs/results-schema.md).
    table: one dict per optimiser, best first, from heading to text; ``pandas.DataFrame(result.table)`` works.
    answer: the finding in one sentence.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    @property
    def table(self) -> list[dict[str, str]]:
        return rows.table(self.document)

    @property
    def answer(self) -> str:
        return self.document["answer"]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write results.json and report.html into `folder`, which is made if need be; returns the report's path."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(self.json(), encoding="utf-8")
        page = folder / "report.html"
        page.write_text(html.page(self.document), encoding="utf-8")
        return page

    def json(self) -> str:
        """The document as JSON; its numbers read back to the same bits."""
        return json.dumps(self.document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def __repr__(self) -> str:
        return f"<race on {self.document['problem']['name']}: {self.answer}>"

    def _repr_html_(self) -> str:
        return html.fragment(self.document)
