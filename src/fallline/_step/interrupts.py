"""Ctrl-C, kept from coming within a step that Python takes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["held"]

T = TypeVar("T")


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
