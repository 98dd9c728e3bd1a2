"""What modifiers cost: chains around Adam, each against a limit that moves the same bytes."""

from __future__ import annotations

import gc
from collections.abc import Callable

import fallline as fl
from benchmarks.contenders import LIMIT, limit
from benchmarks.measure import Timings, alternate
from benchmarks.ours import ours
from benchmarks.rules import CHECKED, STEP
from benchmarks.sizes import Shapes

__all__ = ["ALL", "CHAINS", "chain_against_limit"]

ALL = "clip_norm, Adam, weight_decay, average"
CHAINS: dict[str, Callable[[str], fl.Optimizer]] = {
    "Adam": lambda nonfinite: fl.chain(fl.Adam(), nonfinite=nonfinite),
    "clip_norm, Adam": lambda nonfinite: fl.chain(fl.clip_norm(1.0), fl.Adam(), nonfinite=nonfinite),
    "Adam, weight_decay": lambda nonfinite: fl.chain(fl.Adam(), fl.weight_decay(0.01), nonfinite=nonfinite),
    "Adam, average": lambda nonfinite: fl.chain(fl.Adam(), fl.average(0.999), nonfinite=nonfinite),
    ALL: lambda nonfinite: fl.chain(fl.clip_norm(1.0), fl.Adam(), fl.weight_decay(0.01), fl.average(0.999),
                                    nonfinite=nonfinite),
}  # fmt: skip


def chain_against_limit(name: str, shapes: Shapes, seconds: float) -> Timings:
    """A step of the chain without and with the check of its gradients, and the limit for its arrays."""
    gc.collect()
    make = CHAINS[name]
    contenders = {LIMIT: limit(make("propagate"), shapes), STEP: ours(make("propagate"), shapes),
                  CHECKED: ours(make("raise"), shapes)}  # fmt: skip
    return alternate(contenders, seconds)
