"""How many threads a step may use, and that no two are at one optimizer."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from fallline.errors import BusyOptimizer

__all__ = ["Turn", "check_threads", "num_threads", "set_num_threads"]

_limit: int | None = None


def set_num_threads(n: int | None) -> None:
    """How many threads a step may use from now on; None for all processors that the process may run on.

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


class Turn:
    """What one thread at a time holds (`with`); a second is refused and does not wait. A copy is a new one.

    The same thread may hold it again, so that an interrupt just before or behind a `with` shuts nobody out of it.

    Raises BusyOptimizer.
    """

    def __init__(self) -> None:
        self._lock, self._process = threading.RLock(), os.getpid()
        self.taken = False

    def __reduce__(self) -> tuple[type[Turn], tuple[()]]:
        return Turn, ()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False) and not self._acquire_after_fork():
            raise BusyOptimizer("This optimizer is at work in another thread: give each thread one of its own, "
                                "opt.fresh(), or have them take turns by a lock. Nothing was changed.")
        self.taken = True

    def _acquire_after_fork(self) -> bool:
        """Hold a new lock if a fork did not take the thread along that holds the old one."""
        if self._process == os.getpid():
            return False
        self._lock, self._process = threading.RLock(), os.getpid()
        return self._lock.acquire(blocking=False)

    def __exit__(self, *_: Any) -> None:
        self.taken = False
        self._lock.release()
