"""Live progress on stderr, one line per optimiser; silent where stderr is no terminal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np


class Progress:
    """A table of bars that grows with the work to come; use as a context."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[part]}"),
            TextColumn("{task.fields[best]}", style="dim"),
        )
        self._bars = Bars(*columns, console=console, transient=True, disable=not sys.stderr.isatty())
        self._tasks: dict[str, Any] = {}
        self._best: dict[str, float] = {}

    def __enter__(self) -> Progress:
        self._bars.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.__exit__(kind, error, trace)

    def begin(self, part: str, names: Sequence[str]) -> None:
        """Announce one run for every entry of `names`, as part "tuning" or "fresh seeds"."""
        for name, count in Counter(names).items():
            self._best[name] = np.inf
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=0, part="", best="")
            task = self._tasks[name]
            total = (self._bars.tasks[task].total or 0) + count
            self._bars.update(task, total=total, part=part, best="")

    def advance(self, name: str, loss: float) -> None:
        """One run of `name` has ended with this loss."""
        self._best[name] = min(self._best[name], loss)
        best = f"lowest loss {self._best[name]:.3g}" if np.isfinite(self._best[name]) else ""
        self._bars.update(self._tasks[name], advance=1, best=best)
