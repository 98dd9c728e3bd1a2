"""A walk of each rule in each dtype, hashed step by step.

Its numbers are whole ones of 8 bits times powers of two, from the bits of a PCG64, which NumPy keeps as they are: no
function of a library has a part in them, and every dtype holds them exactly. Leaves are contiguous, in Fortran's order,
longer than any block or tile, a single number; and strided and reversed, which is native code of its own, in float32 of
every rule and in every dtype of the last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

import fallline as fl
from fallline._arrays.dtypes import dtype_named
from fallline._arrays.trees import flatten

__all__ = ["DTYPES", "ENGINES", "WALKS", "walked"]

DTYPES = ("float16", "bfloat16", "float32", "float64")
ENGINES = ("reference", "native")
MODIFIED = "Adam, modified"
STEPS, PLACES = 6, 4  # hexadecimal digits of a digest for each step

WALKS: dict[str, Callable[..., Any]] = {
    **{name: make for name, make in fl.OPTIMIZERS.items() if make.rule and not make.rule.whole_leaf},
    MODIFIED: lambda **options: fl.chain(
        fl.maximize(), fl.clip_value(1.5), fl.l2(0.1), fl.clip_norm(20.0), fl.Adam(0.01), fl.weight_decay(0.1),
        fl.average(0.9), **options),
}  # fmt: skip
"""By name what is walked: the rules that are formulas, which take norms in LARS, LAMB and Prodigy, and Adam among
modifiers. Functions of whole leaves compute by a BLAS (Muon) or by NumPy's sums (Adafactor), whose order is no promise.
"""


def walked(name: str, dtype: str, engine: str) -> str:
    """The digest of a walk: a group of digits for each step, of all that it and those before it came to.

    >>> len(walked("SGD", "float32", "reference").split("-"))
    6
    """
    bits, found, groups = np.random.PCG64(16), hashlib.sha256(), []
    strided = dtype == "float32" or name == MODIFIED
    w, opt = _tree(bits, dtype, strided), WALKS[name](engine=engine)
    for k in range(STEPS):
        g = _tree(bits, dtype, strided)
        if k == 2:
            g["plain"] = None
        w = opt.step(w, g)
        for array in flatten([w, dict(opt.state)])[0]:
            found.update(_bytes(np.asarray(array)))
        groups.append(found.hexdigest()[:PLACES])
    return "-".join(groups)


def _tree(bits: np.random.PCG64, dtype: str, strided: bool) -> dict[str, Any]:
    tree = {"plain": _numbers(bits, (7, 5, 3), dtype), "Fortran": np.asfortranarray(_numbers(bits, (20, 15), dtype)),
            "long": _numbers(bits, (17_001,), dtype), "one": _numbers(bits, (), dtype)}
    if strided:
        tree["spread"] = np.zeros((26, 33), dtype_named(dtype))[::-2, 1::3]
        tree["spread"][...] = _numbers(bits, (13, 11), dtype)
    return tree


def _numbers(bits: np.random.PCG64, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """From -2 to 2, of sizes down to 2⁻²⁰, some of them 0."""
    raw = bits.random_raw(int(np.prod(shape))).astype(np.uint64)
    whole = (raw & np.uint64(511)).astype(np.int64) - 255
    power = ((raw >> np.uint64(32)) % np.uint64(14)).astype(np.int64) - 20
    return np.ldexp(whole.astype(np.float64), power).astype(dtype_named(dtype)).reshape(shape)


def _bytes(array: np.ndarray) -> bytes:
    """In C order, every NaN as the same number."""
    return np.where(array == array, array, np.asarray(np.nan, array.dtype)).astype(array.dtype).tobytes()
