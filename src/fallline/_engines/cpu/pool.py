"""Threads of our own for large steps.

A worker waits in native code, for a bounded while, for the next share of work; then it sleeps on a queue and uses no
processor. The caller offers a job, takes shares of it itself, and waits only for the workers that did come, so that a
late one costs nothing and the result does not depend on who came: chunks are independent.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from queue import SimpleQueue

import numpy as np

from fallline._arrays.memory import address
from fallline._engines.cpu.jobs import functions
from fallline._engines.llvm.layout import POOL
from fallline._engines.threads import num_threads

__all__ = ["perform"]

SPINS = 2000  # pauses before a worker sleeps: some 30 to 100 us, according to the processor
WORTH_SHARING = 100_000  # coordinates from which a second thread that is still awake pays


class _Pool:
    def __init__(self) -> None:
        self._fields = np.zeros(8 * (len(POOL) + 1), np.int64)
        self._start = -(-address(self._fields) // 64) * 64  # on a cache line
        self._hiring = threading.Lock()
        self._workers: list[_Worker] = []

    def perform(self, job: int, workers: int) -> int:
        """Do a job with the help of so many workers, or alone if the pool is at work for another thread."""
        if len(self._workers) < workers:
            # where no more threads can be had, those that there are do it
            with self._hiring, suppress(RuntimeError):
                while len(self._workers) < workers:
                    self._workers.append(_Worker(len(self._workers), self._start))
        for worker in self._workers[:workers]:
            worker.wake()
        return functions().conduct(self._start, job, workers)


class _Worker:
    def __init__(self, number: int, pool: int) -> None:
        self._asleep = False  # written by its thread alone: no interrupt of a caller can make it wrong
        self._calls: SimpleQueue[None] = SimpleQueue()
        threading.Thread(target=self._work, args=(number, pool), name="fallline", daemon=True).start()

    def wake(self) -> None:
        if self._asleep and self._calls.empty():
            self._calls.put(None)

    def _work(self, number: int, pool: int) -> None:
        attend, epoch_of = functions().attend, functions().epoch
        epoch = epoch_of(pool)
        while True:
            epoch = attend(pool, number, epoch, SPINS)
            self._asleep = True
            if epoch_of(pool) == epoch:  # nothing was offered between giving up and lying down
                self._calls.get()
            self._asleep = False


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
