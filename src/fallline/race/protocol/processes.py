"""Many tasks over processes, here or on a cluster, with the same bits whatever their number."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

Task = Callable[[], Any]

_alone = threading.Lock()


def spread(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[int, Any]]:
    """Run `tasks` over `jobs` processes; yields (index, outcome) as they end.

    A task depends on nothing but itself, so the outcomes are the same bits for any number of processes; the back end
    is joblib's, so `joblib.parallel_config` can put another in its place.
    """
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered")
    with _interrupts_held():
        outcomes = parallel(delayed(_indexed)(i, task) for i, task in enumerate(tasks))
    try:
        yield from outcomes
    finally:
        outcomes.close()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while processes start: they inherit that, and only the race's own process is interrupted."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _indexed(i: int, task: Task) -> tuple[int, Any]:
    # One at a time, as a worker may have several threads: those of BLAS and the seeds of torch are the process's.
    # Rates that are far too high are part of the grid: that they overflow is a result, not a warning.
    with _alone, one_blas_thread(), np.errstate(all="ignore"):
        return i, task()


def one_blas_thread() -> Any:
    """A context in which BLAS computes on one thread: the order of its sums then depends on nothing else."""
    return _blas().limit(limits=1)


@lru_cache(maxsize=1)
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
