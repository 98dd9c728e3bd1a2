"""One thread against all: from which size a second thread pays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fallline as fl
from benchmarks.contenders import adam
from benchmarks.measure import Timings, alternate
from benchmarks.ours import ours
from fallline._engines.threads import num_threads

__all__ = ["ALONE", "SHARED", "THREADED", "scaling", "worth_sharing"]

THREADED = (20_000, 50_000, 100_000, 200_000, 500_000, 10**6, 10**7)
ALONE, SHARED = "one thread", "shared"
_THRESHOLD = "WORTH_SHARING"


def worth_sharing() -> int:
    """From how many coordinates on a step is shared among threads."""
    from fallline._engines.cpu.pool import WORTH_SHARING

    return WORTH_SHARING


def scaling(n: int, seconds: float) -> Timings:
    """Adam over n coordinates by one thread and shared among all, in turns; these are awake, as in a loop of steps."""
    try:
        with _every_step_shared():
            return alternate({ALONE: _by_threads(1, n), SHARED: _by_threads(num_threads(), n)}, seconds)
    finally:
        fl.set_num_threads(None)


def _by_threads(threads: int, n: int) -> Callable[[], None]:
    step, set_num_threads = ours(adam(), [(n,)]), fl.set_num_threads

    def run() -> None:
        set_num_threads(threads)
        step()

    return run


@contextmanager
def _every_step_shared() -> Iterator[None]:
    """Within, the threshold is 0 in every module that has it, so that small steps are shared too."""
    holders: list[Any] = [module for name, module in list(sys.modules.items())
                          if name.startswith("fallline.") and hasattr(module, _THRESHOLD)]  # fmt: skip
    kept = [getattr(module, _THRESHOLD) for module in holders]
    try:
        for module in holders:
            setattr(module, _THRESHOLD, 0)
        yield
    finally:
        for module, value in zip(holders, kept):
            setattr(module, _THRESHOLD, value)
