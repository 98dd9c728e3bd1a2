"""The progress bar of a loop; rich is imported only where a bar is drawn."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Generator, Iterable
from typing import Literal, Protocol, TypeVar

__all__ = ["wanted", "watched"]

REFRESH_SECONDS = 0.1


class HasValue(Protocol):
    """What the bar shows of a point."""

    value: float | None


P = TypeVar("P", bound=HasValue)


def wanted(progress: bool | Literal["auto"], owner: str) -> bool:
    """Whether to draw a bar: "auto" where stderr is a terminal and rich is installed."""
    if progress == "auto":
        return sys.stderr is not None and sys.stderr.isatty() and importlib.util.find_spec("rich") is not None
    if progress is not True and progress is not False:
        raise ValueError(f'progress of {owner} must be "auto", True or False. Got {progress!r}.')
    if progress and importlib.util.find_spec("rich") is None:
        raise ImportError(f'progress=True of {owner} needs rich: pip install "fallline[race]", or progress="auto".')
    return progress


def watched(points: Iterable[P], owner: str, taken: int, steps: int) -> Generator[P, None, None]:
    """The same points, with a bar on stderr that follows them until the iterator ends or is closed; that many of the
    steps were taken before."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[value]}"), TimeRemainingColumn())
    # No refresh thread: it would compete for the interpreter's lock with the loop it watches. And what the caller
    # prints passes through the bar only where both share a terminal: a redirected stdout stays untouched.
    shared = sys.stdout is not None and sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False, redirect_stdout=shared) as bar:
        task = bar.add_task(owner, total=steps, completed=taken, value="")
        done, value, due = taken, "", time.monotonic()
        try:
            for done, point in enumerate(points, taken):
                value = "" if point.value is None else f"value {point.value:.4g}"
                if time.monotonic() >= due:
                    bar.update(task, completed=done, value=value, refresh=True)
                    due = time.monotonic() + REFRESH_SECONDS
                yield point
                done += 1
        finally:
            bar.update(task, completed=done, value=value, refresh=True)
