"""Runs of `descend` that are killed at random moments, until they are through: nothing is lost, no bit differs."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fallline as fl

__all__ = ["survive"]

STEPS = 120


def survive(kills: int, seed: int = 0) -> int:
    """Strike so many times, run after run, one for each rule in turn; returns how many runs came through.

    Raises AssertionError if the result of one is not that of a run that nobody touched.
    """
    rng, runs, struck = random.Random(seed), 0, 0
    names = itertools.cycle(fl.OPTIMIZERS)
    while struck < kills:
        name = next(names)
        expected = _digest(_run(name, None))
        with tempfile.TemporaryDirectory() as folder:
            file, result = Path(folder, "run.safetensors"), Path(folder, "result")
            for delay in _moments(rng):
                if not _strike(name, file, result, delay):
                    break
                struck += 1
            assert result.read_text() == expected, f"{name}: the result differs after kills"
            assert sorted(os.listdir(folder)) == ["result", "run.safetensors"], os.listdir(folder)
        runs += 1
    return runs


def _moments(rng: random.Random) -> Iterator[float]:
    while True:
        yield rng.uniform(0.0, 0.12)


def _strike(name: str, file: Path, result: Path, delay: float) -> bool:
    """Start or take up the run in a process of its own and kill that after a while; whether that came in time."""
    child = os.fork()
    if not child:
        status = 1
        try:
            result.write_text(_digest(_run(name, file)))
            status = 0
        finally:
            os._exit(status)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), f"{name}: the run failed with {code}"
    return code != 0


def _run(name: str, file: Path | None) -> tuple[fl.Optimizer, Any]:
    rng = np.random.default_rng(0)
    start = {"W": rng.standard_normal((20, 10)).astype(np.float32), "b": rng.standard_normal(7)}
    optimizer = fl.OPTIMIZERS[name]()

    def value_and_grad(params: Any, batch: np.ndarray) -> tuple[float, Any]:
        if file is not None:
            time.sleep(5e-4)
        grads = {"W": params["W"] - batch[:10].astype(np.float32), "b": params["b"] * batch[10]}
        return float((grads["W"] ** 2).sum() + (grads["b"] ** 2).sum()), grads

    return optimizer, fl.descend(value_and_grad, start, optimizer, steps=STEPS, progress=False, checkpoint=file,
                                 checkpoint_every=None if file is None else 2,
                                 batches=lambda t: np.random.default_rng(t).standard_normal(11))  # fmt: skip


def _digest(ran: tuple[fl.Optimizer, Any]) -> str:
    optimizer, run = ran
    seen = hashlib.sha256(run.values.tobytes() + str((run.t, run.message)).encode())
    for tree in (run.params, *optimizer.state.values()):
        for name in sorted(tree):
            seen.update(tree[name].tobytes())
    return seen.hexdigest()
