"""Bounds on parameters, in any form that comes naturally, as a lower and an upper limit for each leaf."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from fallline._arrays import trees
from fallline._arrays.containers import children_like, parted_once
from fallline._arrays.dtypes import computed
from fallline._arrays.leaves import dtype_of, kind_of
from fallline._formula.rule import rule
from fallline._formula.settings import by_path
from fallline._messages.values import brief
from fallline._optimizer.compose import bounds as fitting
from fallline._optimizer.compose import chain, mask
from fallline._optimizer.optimizer import Optimizer

__all__ = ["Box", "box_of", "held", "largest", "limits", "projected", "projection"]

Box = list[tuple[np.ndarray, np.ndarray]]  # lower and upper bounds, one pair of arrays per leaf; empty: no bounds
Limits = list[tuple[Any, Any]]  # of each leaf numbers, or arrays of its shape


def limits(bounds: Any, x: Any, owner: str) -> Limits:
    """Bounds of a tree, in the order of its leaves; none if they are None.

    They may be one pair (low, high) of numbers, None for no bound; a tree of such pairs, shaped like x or its upper
    levels; `scipy.optimize.Bounds` or a pair for each parameter, over the raveled leaves in order. In a pair that is of
    one leaf an array of its shape may stand for a number.

    Raises ValueError for anything else, and where low > high.
    """
    if bounds is None:
        return []
    found: Limits | None
    leaves, treedef = trees.flatten(x)
    shapes, names = [tuple(np.shape(leaf)) for leaf in leaves], trees.paths(treedef)
    scipys = (bounds.lb, bounds.ub) if hasattr(bounds, "lb") else None
    if scipys is not None and all(np.size(end) == 1 for end in scipys):  # one for all: no array as long as they are
        found = [_pair([np.ravel(end)[0] for end in scipys])] * len(leaves)
    elif scipys is not None:
        found = _split(scipys, shapes)
    elif _is_pair(bounds):
        found = [_pair(bounds)] * len(leaves)
    else:
        found = _by_leaf(bounds, treedef.unflatten(range(len(leaves))), shapes) or _of_each(bounds, shapes)
    if found is None or not all(np.shape(end) in ((), shape) for own, shape in zip(found, shapes) for end in own):
        size = sum(math.prod(shape) for shape in shapes)
        raise ValueError(f"bounds of {owner} must be a pair (lower, upper), None for no bound, a tree of such pairs, "
                         f"scipy.optimize.Bounds or a pair for each of the {size} parameters. Got {brief(bounds)}.")
    for (low, high), name in zip(found, names):
        wrong = ~np.less_equal(low, high)
        if np.any(wrong):
            i = int(np.argmax(wrong))
            ends = tuple(float(np.ravel(end)[i if np.ndim(end) else 0]) for end in (low, high))
            raise ValueError(f"bounds of {owner} must have lower ≤ upper. Got {ends} at index {i}"
                             f"{f' of {name}' if name else ''}.")
    return found


def _is_number(end: Any) -> bool:
    return end is None or isinstance(end, Real) or (hasattr(end, "dtype") and np.shape(end) == ())


def _is_pair(node: Any) -> bool:
    return isinstance(node, (tuple, list)) and len(node) == 2 and all(map(_is_number, node))


def _pair(ends: Any) -> tuple[Any, Any]:
    low, high = (np.asarray(infinite if end is None else end, np.float64)
                 for end, infinite in zip(ends, (-math.inf, math.inf)))
    return low, high


def _by_leaf(bounds: Any, tree: Any, shapes: Sequence[tuple[int, ...]]) -> Limits | None:
    """Of a tree of pairs; None for what is none."""
    if isinstance(tree, int):
        own = shapes[tree]
        arrays = isinstance(bounds, (tuple, list)) and len(bounds) == 2 and own != (2,) and all(
            _is_number(end) or np.shape(end) == own for end in bounds)  # of (2,) they are the pairs of both
        return [_pair(bounds)] if _is_pair(bounds) or arrays else _of_each(bounds, [own])
    if _is_pair(bounds):
        return [_pair(bounds)] * len(trees.flatten(tree)[0])
    if isinstance(tree, (tuple, list)) and isinstance(bounds, (tuple, list)) and len(tree) == len(bounds):
        below = list(zip(bounds, tree))
    else:
        try:
            children, spec = parted_once(tree)
            below = list(zip(children_like(spec, bounds), children))
        except ValueError:
            return None
    found: dict[int, tuple[Any, Any]] = {}
    for own, branch in below:
        pairs = _by_leaf(own, branch, shapes)
        if pairs is None:
            return None
        found |= dict(zip(sorted(trees.flatten(branch)[0]), pairs))
    return [found[k] for k in sorted(found)]


def _of_each(bounds: Any, shapes: Sequence[tuple[int, ...]]) -> Limits | None:
    """Of a sequence with a pair for each parameter."""
    try:
        pairs = [(-math.inf if low is None else low, math.inf if high is None else high) for low, high in bounds]
        size = sum(math.prod(shape) for shape in shapes)
        return _split(np.array(pairs, np.float64).reshape(size, 2).T, shapes)
    except (TypeError, ValueError):
        return None


def _split(ends: Any, shapes: Sequence[tuple[int, ...]]) -> Limits | None:
    """Of vectors over the raveled leaves in order."""
    sizes = [math.prod(shape) for shape in shapes]
    try:
        low, high = (np.broadcast_to(np.asarray(end, np.float64).ravel() if np.ndim(end) else end, sum(sizes))
                     for end in ends)
    except (TypeError, ValueError):
        return None
    stops = np.cumsum(sizes)
    return [(np.asarray(low[stop - n : stop], np.float64).reshape(shape), np.asarray(
        high[stop - n : stop], np.float64).reshape(shape)) for stop, n, shape in zip(stops, sizes, shapes)]


@rule
def still(g: Any) -> Any:
    """No step at all."""
    return -0.0


def projection(within: Limits, params: Any, optimizer: Optimizer) -> Callable[[Any, Any], Any]:
    """What brings parameters within limits, if there are any, on the border exactly, in arrays of any library, after a
    step of the optimizer by a gradient.

    A leaf without gradient has not moved, unless gradients are gathered; one without limits is left alone, and may be
    anything if the optimizer leaves it alone too.
    """
    leaves, treedef = trees.flatten(params)
    left = optimizer._stepper.division.divide(params)[0].left
    free = {k for k, pair in enumerate(within) if all(np.ndim(end) == 0 and np.isinf(end) for end in pair) or (
        k in left and not _is_array(leaves[k]))}
    if len(free) == len(within):
        return lambda params, grads: params
    ends = {path: [_held(end, leaves[k]) for end in within[k]]
            for k, path in enumerate(trees.paths(treedef)) if k not in free}
    low, high = by_path(lambda path: ends[path][0]), by_path(lambda path: ends[path][1])
    bounded = chain(still, fitting(low, high))
    engine = mask(lambda path: path in ends, bounded, nonfinite="propagate") if free else \
        chain(bounded, nonfinite="propagate")
    if not any(holder.chain.gathers for holder in optimizer._stepper.holders.values()):
        return engine.step
    taken = -1

    def after(params: Any, grads: Any) -> Any:
        nonlocal taken
        before, taken = taken, sum(holder.t for holder in optimizer._stepper.holders.values())
        if before == taken:
            return params
        return engine.step(params, params if trees.holds_none(grads) else grads)

    return after


def _is_array(leaf: Any) -> bool:
    """Whether a leaf is one that an optimizer could step."""
    try:
        kind_of(leaf, "")
    except TypeError:
        return False
    return True


def _held(end: np.ndarray, leaf: Any) -> Any:
    """One end of a leaf's limits as a setting; beyond the leaf's dtype it is no limit."""
    largest = np.finfo(computed(dtype_of(leaf))).max
    found = np.where(np.abs(end) > largest, np.copysign(np.inf, end), end)
    return found if np.ndim(end) else float(found)


def box_of(bounds: Any, x: Any) -> Box:
    """Bounds of `minimize` as one pair of arrays per leaf in its shape and dtype."""
    within = limits(bounds, x, "minimize")
    with np.errstate(over="ignore"):  # a bound beyond the leaf's dtype is no bound
        low, high = ([np.broadcast_to(pair[k], leaf.shape).astype(leaf.dtype) for pair, leaf in
                      zip(within, trees.flatten(x)[0])] for k in (0, 1))
    return list(zip(low, high))


def held(box: Box, x: Any, places: Sequence[int]) -> Box:
    """The box with the leaves at some places held where they are: those that no optimizer steps."""
    leaves = trees.flatten(x)[0]
    if not places:
        return box
    box = box or [(np.full_like(leaf, -math.inf), np.full_like(leaf, math.inf)) for leaf in leaves]
    return [(leaf.copy(), leaf.copy()) if k in places else own for k, (leaf, own) in enumerate(zip(leaves, box))]


def projected(x: Any, grad: Any, box: Box, uphill: bool) -> list[np.ndarray]:
    """x - clip(x - g), uphill x - clip(x + g): the gradient, but for what the bounds forbid; free of that form's
    cancellation."""
    leaves, grads = trees.flatten(x)[0], trees.flatten(grad)[0]
    with np.errstate(over="ignore"):  # the distance between -1e308 and 1e308
        grads = [-g for g in grads] if uphill else grads
        return [np.minimum(np.maximum(g, leaf - high), leaf - low) for leaf, g, (low, high) in zip(leaves, grads, box)]


def largest(leaves: Sequence[np.ndarray]) -> float:
    """The max-norm over all leaves; NaN if any element is."""
    norms = [float(np.abs(leaf).max(initial=0.0)) for leaf in leaves]
    return math.nan if any(map(math.isnan, norms)) else max(norms, default=0.0)
