"""Optimizers of every kind by name, the dtypes that they step, and a hash of what comes of it.

It uses public names only, so that any two checkouts can be compared (reliability.sequences).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

import fallline as fl

__all__ = ["CHAINS", "DTYPES", "WHOLE", "Hash"]

DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16,
          "complex128": np.complex128, "complex64": np.complex64}  # fmt: skip
WHOLE = ("Muon", "Adafactor")  # which refuse complex numbers


@fl.rule
def mixed(g, x, t, m=0, start="x", last="g", n=fl.scalar(0.5), k=fl.scalar("lr", over="leaf"), *,
          lr: fl.NonNegative = 1e-2, beta: fl.Fraction = 0.9):
    """All that a formula may be made of: sums over leaf and tree, numbers as state, state from parameter or g."""
    m = beta * m + (1 - beta) * g
    u = m / (1 + fl.norm(m, "leaf")) + (g - last) * fl.total(g * (x - start)) / (1 + fl.total(g * g))
    k = k + fl.norm(x, "leaf") * lr
    n = n * beta + fl.total(fl.abs(g)) * t
    return -lr * u / k / (1 + fl.norm(u)), m, start + 0, g + 0, n, k


def _by_rank(path: str, shape: tuple[int, ...]) -> str:
    return "matrices" if len(shape) == 2 else "rest"


def _parts(**options: Any) -> Any:
    return fl.partition({"matrices": fl.Nadam(0.01), "rest": fl.chain(fl.clip_norm(0.5), fl.Momentum(0.02))}, _by_rank,
                        **options)


CHAINS: dict[str, Callable[..., Any]] = {
    **fl.OPTIMIZERS,
    "clip_value, l2, Nadam, weight_decay": lambda **o: fl.chain(
        fl.clip_value(0.5), fl.l2(0.1), fl.Nadam(0.01), fl.weight_decay(0.01), **o),
    "clip_norm, Momentum, average": lambda **o: fl.chain(fl.clip_norm(0.5), fl.Momentum(0.01), fl.average(0.9), **o),
    "maximize, Adam": lambda **o: fl.chain(fl.maximize(), fl.Adam(0.01), **o),
    "accumulate 3, AdamW": lambda **o: fl.accumulate(3, fl.AdamW(0.01), **o),
    "accumulate 2, clip_norm, Lion": lambda **o: fl.accumulate(2, fl.chain(fl.clip_norm(1.0), fl.Lion(0.01)), **o),
    "all that a formula may be": lambda **o: fl.Optimizer(mixed, **o),
    "Adam, cosine": lambda **o: fl.Adam(fl.schedules.cosine(0.1, steps=9, warmup=2), **o),
    "AdamW, linear": lambda **o: fl.AdamW(fl.schedules.linear(0.1, steps=9), weight_decay=lambda t: 0.5**t, **o),
    "Adam, by path": lambda **o: fl.Adam(fl.by_path(lambda path: 0.1 if path.endswith("b") else 0.01), **o),
    "partition": _parts,
    "mask": lambda **o: fl.mask(lambda path: not path.endswith("b"), fl.Adam(0.05), **o),
    "around a partition": lambda **o: fl.chain(fl.clip_norm(0.5), _parts(), fl.weight_decay(0.01), **o),
}  # fmt: skip


class Hash:
    """Of all that is added: arrays by their bytes in C order, NaN as one number."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, value: Any) -> None:
        if isinstance(value, Mapping):
            for key in sorted(value):
                self._sha.update(repr(key).encode())
                self.add(value[key])
        elif isinstance(value, (list, tuple)):
            for item in value:
                self.add(item)
        elif value is None or isinstance(value, (str, int)):
            self._sha.update(repr(value).encode())
        else:
            array = np.asarray(value)
            array = np.where(array != array, np.asarray(np.nan, array.dtype), array).astype(array.dtype)
            self._sha.update(str(array.dtype).encode() + repr(array.shape).encode() + array.tobytes())

    def text(self) -> str:
        return self._sha.hexdigest()[:16]
