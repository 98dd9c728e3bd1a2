"""A training loop of JAX after its gradient: a transformation in a jitted update, or an optimizer's step outside."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Any

import fallline as fl
from benchmarks.contenders import peer
from benchmarks.measure import Timings, alternate
from benchmarks.ours import Step, arrays
from benchmarks.sizes import Shapes

__all__ = ["ARTICLE", "CHECKED", "DIALECT", "ITERATIONS", "OPTAX", "SIZES", "STEP", "loop"]

LR = 1e-9  # so small that all steps are alike
OPTAX, DIALECT, ARTICLE = "optax.adam", "transform(dialects.optax.adam)", "transform(Adam)"
STEP, CHECKED = "Adam.step", "Adam.step, checked"
SIZES: dict[str, Shapes] = {"50 x 100": [(100,)] * 50, "60, 12 M": [(200_000,)] * 60}


def _jitted(make: Callable[[], Any], shapes: Shapes) -> Step:
    """A jitted update, to which parameters and state are donated."""
    jax, optax, transformation = peer("jax"), peer("optax"), make()

    def advance(w: Any, s: Any, g: Any) -> Any:
        updates, s = transformation.update(g, s, w)
        return optax.apply_updates(w, updates), s

    jitted, g, w = jax.jit(advance, donate_argnums=(0, 1)), _leaves(shapes, 1), _leaves(shapes, 0)
    held = {"w": w, "s": transformation.init(w)}

    def step() -> None:
        held["w"], held["s"] = jax.block_until_ready(jitted(held["w"], held["s"], g))

    return step


def _stepped(nonfinite: str, shapes: Shapes) -> Step:
    jax, optimizer = peer("jax"), fl.Adam(LR, nonfinite=nonfinite)
    held, g = {"w": _leaves(shapes, 0)}, _leaves(shapes, 1)

    def step() -> None:
        held["w"] = jax.block_until_ready(optimizer.step(held["w"], g))

    return step


def _leaves(shapes: Shapes, seed: int) -> list[Any]:
    return [peer("jax").numpy.asarray(a) for a in arrays(shapes, seed)]


def _transform(optimizer: fl.Optimizer) -> Any:
    return peer("fallline.optax").transform(optimizer)


ITERATIONS: Mapping[str, Callable[[Shapes], Step]] = {
    OPTAX: lambda shapes: _jitted(lambda: peer("optax").adam(LR), shapes),
    DIALECT: lambda shapes: _jitted(lambda: _transform(fl.dialects.optax.adam(LR)), shapes),
    ARTICLE: lambda shapes: _jitted(lambda: _transform(fl.Adam(LR)), shapes),
    STEP: lambda shapes: _stepped("propagate", shapes),
    CHECKED: lambda shapes: _stepped("raise", shapes),
}


def loop(size: str, seconds: float) -> Timings:
    """An iteration of each kind."""
    gc.collect()
    return alternate({name: make(SIZES[size]) for name, make in ITERATIONS.items()}, seconds)
