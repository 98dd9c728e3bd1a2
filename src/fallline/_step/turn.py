"""No two calls are at one optimizer at once, and no interrupt comes within a step that Python takes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from fallline.errors import BusyOptimizer

__all__ = ["Turn", "held"]

T = TypeVar("T")


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
            raise BusyOptimizer("This optimizer is busy in another thread: give each thread its own, opt.fresh(), or "
                                "use a lock. Nothing was changed.")
        try:  # an interrupt before this line leaves the lock to its thread, which can have it again
            if self.taken[0]:
                if joins:
                    return act(*given)
                raise BusyOptimizer("This optimizer is busy with a step: code called from it, such as a schedule, "
                                    "must not step or reset it, load a state or set t (setting a hyper-parameter "
                                    "for the next step is allowed). Nothing was changed.")
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


def held(act: Callable[[], T]) -> T:
    """What a function returns, within which no interrupt comes; one that is sent meanwhile comes right behind.

    It is for what takes a fraction of a millisecond. In a thread other than the main one, where no signals arrive, it
    only calls the function.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        return act()
    came: list[Any] = []
    signal.signal(signal.SIGINT, lambda *arrived: came.append(arrived))
    try:
        return act()
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(*came[0])
