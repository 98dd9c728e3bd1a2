"""Settings drawn from the ranges that rules accept, over gradients of all sizes with zeros after anything: whether
parameters and state stay finite, at the default rates."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["LARGEST", "endure", "settings", "shared", "walks"]

LARGEST = {np.dtype(np.float32): 1e15, np.dtype(np.float64): 1e150}  # of the gradients
FRACTIONS = [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1 - 1e-7, 1 - 2.0**-53]
STARTS = [0.0, 1e-300, 1e-30, 1e-16, 1e-8, 1.0, 1e10]  # of eps and its like


def walks(steps: int, dtype: Any) -> tuple[list[str], np.ndarray]:
    """Gradients, a column for each way in which they may come, with the names of these."""
    rng, t, largest = np.random.default_rng(0), np.arange(steps), LARGEST[np.dtype(dtype)]
    noise, found = rng.standard_normal(steps) / 8, {}
    for size in (1.0, largest, 1 / largest):
        found |= {f"{size:g} for ever": np.full(steps, size), f"-{size:g} for ever": np.full(steps, -size)}
        found |= {f"{size:g} up to {k}, then 0": np.where(t < k, size, 0.0) for k in (1, 10, 1000, steps // 2)}
        found |= {
            f"{size:g} and 0 in turn": np.where(t % 2, 0.0, size), f"±{size:g} in turn": np.where(t % 2, -size, size),
            f"{size:g} at every 1000th": np.where(t % 1000, 0.0, size), f"noise of {size:g}": noise * size,
            f"noise of {size:g}, then 0": np.where(t < steps // 3, noise * size, 0.0),
        }  # fmt: skip
    found |= {"growing": np.geomspace(1 / largest, largest, steps), "fading": np.geomspace(largest, 1 / largest, steps)}
    return list(found), np.array(list(found.values()), dtype).T.copy()


def settings(rule: Any, seed: int) -> Iterator[dict[str, float]]:
    """The defaults, then settings other than rates, drawn from the edges of their ranges."""
    yield {}
    rng = np.random.default_rng(seed)
    edges = {name: [v for v in (FRACTIONS if "1" in h.range.text else STARTS) if h.range.holds(v)]
             for name, h in rule.hyper.items() if h.range.text.startswith("in") or name.endswith("eps")}  # fmt: skip
    while edges:
        yield {name: float(rng.choice(values)) for name, values in edges.items() if rng.random() < 0.7}


def shared(cls: Any) -> set[str]:
    """Within what the coordinates of a rule know of each other: "leaf", "tree"."""
    if cls.rule.whole_leaf:
        return {"leaf"}
    totals = [total.over for reading in cls()._chain.updating.readings for total in reading.totals]
    return {*totals, *cls.rule.scopes.values()}


def endure(cls: Any, given: dict[str, float], steps: int, dtype: Any) -> list[str]:
    """What is not finite after so many steps, or when one is refused: nothing, as it should be."""
    names, gradients = walks(steps, dtype)
    opt = cls(**given)
    if "tree" in shared(cls):
        apart = [([name], column[:, None]) for name, column in zip(names, gradients.T)]
        return [found for own, columns in apart for found in _walked(opt.fresh(), own, columns)]
    return _walked(opt, names, gradients[:, :, None] if "leaf" in shared(cls) else gradients)


def _walked(opt: Any, names: list[str], gradients: np.ndarray) -> list[str]:
    """Rows of gradients are those of one array, or of a leaf for each."""
    w: Any = np.ones(gradients.shape[1:], gradients.dtype)
    w, of = (w, lambda row: row) if w.ndim == 1 else (list(w), list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of eps, for which gradients are small on purpose
        for row in gradients:
            try:
                opt.step(w, of(row))
            except ValueError:  # refused with the reason: a number of the state is too large for float32
                break
    bad = [f"parameter, {name}" for name, x in zip(names, w) if not np.isfinite(x).all()]
    leaves = [(slot, leaf) for slot, tree in opt.state.items() for leaf in (tree if isinstance(tree, list) else [tree])]
    return bad + [f"{slot}, {', '.join(names)}" for slot, leaf in leaves if not np.isfinite(leaf).all()]
