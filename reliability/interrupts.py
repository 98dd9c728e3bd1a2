"""Ctrl-C at random moments inside `step`: a whole number of steps was taken, or the optimizer says that it is torn."""

from __future__ import annotations

import collections
import itertools
import random
import signal
import time
from typing import Any

import numpy as np

import fallline as fl

__all__ = ["interrupt"]

LEAVES = {
    "one large array, two threads": lambda: [np.ones(200_001, np.float32)],
    "two dtypes, one strided": lambda: [np.ones(50_001, np.float32), np.ones(50_001), np.ones((50_001, 2))[:, 0]],
    "a small array": lambda: [np.ones(300)],
}


def interrupt(times: int, seed: int = 0) -> dict[str, int]:
    """Interrupt so many runs of steps, rule by rule, engine by engine; returns how often each engine was how found.

    Raises AssertionError if parameters or state are not those of a whole number of steps and nothing says so.
    """
    rng, found = random.Random(seed), collections.Counter[str]()
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)  # as Ctrl-C does
    fl.set_num_threads(2)
    try:
        cases = itertools.cycle(itertools.product(fl.OPTIMIZERS, ("native", "reference"), LEAVES))
        for (name, engine, layout), _ in zip(cases, range(times)):
            found[f"{engine}: {_interrupted(name, engine, LEAVES[layout], rng)}"] += 1
    finally:
        fl.set_num_threads(None)
        signal.signal(signal.SIGALRM, handler)
    return found


def _interrupted(name: str, engine: str, leaves: Any, rng: random.Random) -> str:
    opt, w = fl.OPTIMIZERS[name](engine=engine), leaves()
    twin, v = opt.fresh(), leaves()
    gs = [[np.full(a.shape, g, a.dtype) for a in w] for g in (0.1, -0.1)]  # in turns, or Prodigy's d has no end
    warm = rng.choice((1, 4))  # after some the quick way is taken
    for _ in range(warm):
        start = time.perf_counter()
        opt.step(w, gs[opt.t % 2])
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 5 * (time.perf_counter() - start)))
        while True:
            opt.step(w, gs[opt.t % 2])
    except KeyboardInterrupt:
        pass
    try:
        opt.step(w, gs[opt.t % 2])
    except fl.TornOptimizer:
        opt.reset()  # and goes on
        opt.step(leaves(), gs[0])
        return "torn"
    while twin.t < opt.t:
        twin.step(v, gs[twin.t % 2])
    assert _bits(opt, w) == _bits(twin, v), f"{name}, {engine}: no whole number of steps after {opt.t}"
    return "whole"


def _bits(opt: fl.Optimizer, w: list[np.ndarray]) -> list[bytes]:
    return [a.tobytes() for part in (w, *opt.state.values()) for a in (part if isinstance(part, list) else [part])]
