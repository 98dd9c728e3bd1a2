"""Ways to step with fallline, by its public names alone, so that they run on any checkout.

Each is a function of an optimizer and shapes that returns a function which takes one step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fallline as fl
from benchmarks.sizes import Shapes

__all__ = ["Step", "arrays", "ours", "ours_new_gradients", "ours_update", "ours_update_out", "tree"]

Step = Callable[[], Any]
Form = Callable[[np.ndarray], Any]


def arrays(shapes: Shapes, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    drawn = [rng.standard_normal(shape, np.float32) for shape in shapes]
    for array in drawn:
        array *= 1e-3  # in place: at 1e8 coordinates memory is short
    return drawn


def tree(shapes: Shapes, seed: int, form: Form = lambda array: array) -> Any:
    """A single array as it is, several as a list."""
    leaves = [form(array) for array in arrays(shapes, seed)]
    return leaves[0] if len(leaves) == 1 else leaves


def ours(optimizer: fl.Optimizer, shapes: Shapes, form: Form = lambda array: array) -> Step:
    w, g = tree(shapes, 0, form), tree(shapes, 1, form)
    return lambda: optimizer.step(w, g)


def ours_new_gradients(optimizer: fl.Optimizer, shapes: Shapes) -> Step:
    """Gradient arrays that are others than those of the last step."""
    w, turns = tree(shapes, 0), [tree(shapes, 1), tree(shapes, 2)]

    def step() -> None:
        turns.reverse()
        optimizer.step(w, turns[0])

    return step


def ours_update(optimizer: fl.Optimizer, shapes: Shapes) -> Step:
    g = tree(shapes, 1)
    return lambda: optimizer.update(g)


def ours_update_out(optimizer: fl.Optimizer, shapes: Shapes) -> Step:
    g, out = tree(shapes, 1), tree(shapes, 2)
    return lambda: optimizer.update(g, out=out)
