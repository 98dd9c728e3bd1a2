"""How far the eager engine strays from the reference engine over 50 steps, in units of the dtype's eps."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

import fallline as fl

__all__ = ["stray"]

DTYPES = [np.dtype(name) for name in ("float16", ml_dtypes.bfloat16, "float32", "float64", "complex64", "complex128")]


def stray(library: str) -> dict[str, float]:
    """The worst of every rule and dtype: increments and state by their size, parameters by theirs or 0.01."""
    worst = {"increment": 0.0, "state": 0.0, "parameter": 0.0}
    for cls in fl.OPTIMIZERS.values():
        for dtype in DTYPES:
            for what, found, wanted, own in _walk(cls, dtype, library):
                size = np.maximum(np.abs(wanted), 1e-2 if what == "parameter" else float(own.tiny))
                worst[what] = max(worst[what], float(np.max(np.abs(found - wanted) / size)) / float(own.eps))
    return worst


def _walk(cls: Any, dtype: np.dtype, library: str) -> Any:
    """Both engines side by side: what, found, wanted, and the limits of its dtype."""
    rng = np.random.default_rng(0)
    w, own, of_state = _numbers(rng, dtype), _reals(dtype), np.finfo(np.float32 if dtype.itemsize == 2 else dtype)
    v, stepping, updating = _theirs(library, w), cls(engine="eager"), cls(engine="eager")
    opt, other = cls(engine="reference"), cls(engine="reference")
    for _ in range(50):
        g = _numbers(rng, dtype)
        v, w = stepping.step(v, _theirs(library, g)), opt.step(w, g)
        yield "parameter", _plain(v), _plain(w), own
        increment = updating.update(_theirs(library, g), params=_theirs(library, np.zeros_like(g)))
        yield "increment", _plain(increment), _plain(other.update(g, params=np.zeros_like(g))), own
        for slot, array in opt.state.items():
            yield "state", _plain(stepping.state[slot]), _plain(array), of_state


def _reals(dtype: np.dtype) -> Any:
    return np.finfo(dtype) if dtype.kind == "c" else ml_dtypes.finfo(dtype)


def _numbers(rng: np.random.Generator, dtype: np.dtype) -> np.ndarray:
    numbers: Any = rng.standard_normal(200) * 10.0 ** rng.integers(-6, 2, 200)
    return (numbers + 1j * rng.standard_normal(200) if dtype.kind == "c" else numbers).astype(dtype)


def _theirs(library: str, array: np.ndarray) -> Any:
    if library == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
        return jax.numpy.asarray(array)
    import torch

    return torch.tensor(array.astype(np.float32)).bfloat16() if array.dtype.name == "bfloat16" else torch.tensor(array)


def _plain(array: Any) -> np.ndarray:
    return np.asarray(array.float() if "bfloat16" in str(array.dtype) and hasattr(array, "float") else array, complex)
