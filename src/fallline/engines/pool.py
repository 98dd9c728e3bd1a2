"""Threads of our own for large steps.

A worker waits in native code, for a bounded while, for the next share of work; then it sleeps on a lock and uses no
processor. The caller offers a job, takes shares of it itself, and waits only for the workers that did come, so that a
late one costs nothing and the result does not depend on who came: chunks are independent.
"""

from __future__ import annotations

import os
import threading

import numpy as np

from fallline.engines.jobs import POOL, functions
from fallline.memory import address
from fallline.threads import num_threads

__all__ = ["perform"]

SPINS = 2000  # pauses before a worker sleeps: some 30 to 100 us, according to the processor
WORTH_SHARING = 100_000  # coordinates from which a second thread that is still awake pays


class _Pool:
    def __init__(self) -> None:
        self._fields = np.zeros(8 * (len(POOL) + 1), np.int64)
        self._start = -(-address(self._fields) // 64) * 64  # on a cache line
        self._fields = self._fields[(self._start - address(self._fields)) // 8 :]
        self._busy = threading.Lock()
        self._asleep: list[bool] = []
        self._beds: list[threading.Lock] = []

    def perform(self, job: int, workers: int) -> int:
        """Do a job with the help of so many workers, or alone if the pool is at work for another thread."""
        if not self._busy.acquire(blocking=False):
            return functions().alone(job)
        try:
            while len(self._beds) < workers:
                self._hire()
            self._fields[POOL["limit"]] = workers
            for k in range(workers):
                if self._asleep[k]:
                    self._asleep[k] = False
                    self._beds[k].release()
            return functions().conduct(self._start, job)
        finally:
            self._busy.release()

    def _hire(self) -> None:
        bed = threading.Lock()
        bed.acquire()
        self._beds.append(bed)
        self._asleep.append(False)
        threading.Thread(target=self._work, args=(len(self._beds) - 1,), name="fallline", daemon=True).start()

    def _work(self, k: int) -> None:
        attend, epoch_of, start, bed = functions().attend, functions().epoch, self._start, self._beds[k]
        epoch = epoch_of(start)
        while True:
            epoch = attend(start, k, epoch, SPINS)
            self._asleep[k] = True
            if epoch_of(start) == epoch:  # nothing was offered between giving up and lying down
                bed.acquire()
            else:
                self._get_up(k, bed)

    def _get_up(self, k: int, bed: threading.Lock) -> None:
        if self._asleep[k]:
            self._asleep[k] = False
        else:  # the caller has released the bed already
            bed.acquire()


_pool = _Pool()


def _new_pool() -> None:
    """After a fork: the child has none of the threads."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_pool)


def perform(job: int, size: int, threads: int | None) -> int:
    """Do the job at this address, over `size` coordinates in all; 1 if a gradient is not finite, else 0.

    `threads` is how many may take part, None for `num_threads()`.
    """
    if size < WORTH_SHARING:
        return functions().alone(job)
    workers = (threads or num_threads()) - 1
    return _pool.perform(job, workers) if workers else functions().alone(job)
