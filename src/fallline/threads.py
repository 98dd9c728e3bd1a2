"""How many threads a step may use, and that no two calls are at one optimizer at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from fallline.errors import BusyOptimizer

T = TypeVar("T")

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
    """What one call at a time has; a second, of any thread, is refused and does not wait. A copy is a new one.

    `taken` holds one number, which is not 0 while a call has it, so that native code can look. Calls are given as
    functions, as an interrupt between a `with` and its block would leave it taken for ever.

    Raises BusyOptimizer.
    """

    def __init__(self) -> None:
        self._lock, self._process = threading.RLock(), os.getpid()
        self.taken = np.zeros(1, np.int64)

    def __reduce__(self) -> tuple[type[Turn], tuple[()]]:
        return Turn, ()

    def take(self, act: Callable[..., T], *given: object) -> T:
        """act(*given), which cannot be done within another call."""
        return self._hold(False, act, *given)

    def join(self, act: Callable[..., T], *given: object) -> T:
        """act(*given), which can be done within another call of the same thread, as by a schedule."""
        return self._hold(True, act, *given)

    def _hold(self, joins: bool, act: Callable[..., T], *given: object) -> T:
        if not self._lock.acquire(blocking=False) and not self._acquire_after_fork():
            raise BusyOptimizer("This optimizer is at work in another thread: give each thread one of its own, "
                                "opt.fresh(), or have them take turns by a lock. Nothing was changed.")
        try:  # an interrupt before this line leaves the lock to its thread, which can have it again
            if self.taken[0]:
                if joins:
                    return act(*given)
                raise BusyOptimizer("This optimizer is at work on a step: what is called from there, such as a "
                                    "schedule, must not step or reset it, load a state or set t (to set a "
                                    "hyper-parameter, for the next step, is allowed). Nothing was changed.")
            self.taken[0] = 1  # no interrupt can come between this and `try`
            try:
                return act(*given)
            finally:
                self.taken[0] = 0
        finally:
            self._lock.release()

    def _acquire_after_fork(self) -> bool:
        """Hold a new lock if a fork did not take the thread along that holds the old one."""
        if self._process == os.getpid():
            return False
        self._lock, self._process = threading.RLock(), os.getpid()
        self.taken[0] = 0
        return self._lock.acquire(blocking=False)
