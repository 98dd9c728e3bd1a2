"""How many threads a step may use."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["check_threads", "num_threads", "set_num_threads"]

_limit: int | None = None


def set_num_threads(n: int | None) -> None:
    """Set how many threads a step may use from now on; None: all processors the process may run on.

    >>> import fallline as fl
    >>> fl.set_num_threads(1)
    >>> fl.set_num_threads(None)
    """
    global _limit
    check_threads(n, "The number of threads")
    _limit = n


def check_threads(n: int | None, what: str) -> None:
    """Raise ValueError for what is no number of threads."""
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
        raise ValueError(f"{what} must be a whole number ≥ 1, or None for all processors. Got {n!r}.")


def num_threads() -> int:
    """How many threads a step may use: `set_num_threads`, else FALLLINE_NUM_THREADS, else the process's processors."""
    if _limit is not None:
        return _limit
    given = os.environ.get("FALLLINE_NUM_THREADS", "")
    if given:
        if not given.isdecimal() or int(given) < 1:
            raise ValueError(f"FALLLINE_NUM_THREADS must be a whole number ≥ 1. Got {given!r}.")
        return int(given)
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
