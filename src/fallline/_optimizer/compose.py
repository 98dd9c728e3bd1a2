"""Optimizers made of others: `chain`, `accumulate`, `partition` and `mask`; and `bounds`, to stand in a chain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fallline import rules
from fallline._engines.options import Options
from fallline._formula.rule import Link
from fallline._messages.calls import answering
from fallline._messages.values import brief
from fallline._optimizer.optimizer import Optimizer
from fallline._optimizer.partition import Mask, Partition

__all__ = ["accumulate", "bounds", "chain", "mask", "partition"]


@answering
def chain(*links: Any, engine: str = "auto", nonfinite: str = "raise", threads: int | None = None,
          state_dir: Any = None) -> Optimizer:
    """Combine modifiers and one rule or optimizer into one optimizer.

    The links are, in this order: modifiers of the gradient, one rule or optimizer, modifiers of the increment. An
    optimizer among the links lends its rules and hyper-parameters, and does not change itself. It can be a `partition`
    or a `mask`; the modifiers then act on all its leaves.

    Raises FormulaError for any other order, or if there is not exactly one rule.

    >>> import fallline as fl
    >>> fl.chain(fl.clip_value(1.0), fl.SGD(0.1), fl.weight_decay(0.01))
    chain(clip_value(limit=1.0), SGD(lr=0.1), weight_decay(rate=0.01))
    """
    options = Options(engine, nonfinite, threads, state_dir)
    for place, item in enumerate(links):
        if isinstance(item, Partition):
            return item.within(links[:place], links[place + 1 :], options)
    return Optimizer(*links, **options._asdict())


@answering
def accumulate(n: int, *links: Any, weight: Any = 1, engine: str = "auto", nonfinite: str = "raise",
               threads: int | None = None, state_dir: Any = None) -> Optimizer:
    """Make a chain or an optimizer step only at every n-th call, with the mean gradient of these n calls.

    Between steps the parameters, the chain's state and `t` do not change, and `update` returns increments of -0.0. A
    gradient of None adds nothing; a leaf that had none in n calls is left alone. Schedules count the steps. Modifiers
    after it in a chain act only when it steps. `opt.flush(params)` steps with the gradients gathered so far, fewer than
    n.

    Parameters
    ----------
    n: how many calls make a step, a whole number ≥ 1; `opt.n` may be set before the first call.
    weight: the weight of a call in the mean, > 0. If gradients are means over batches of unequal sizes, set
        `opt.weight = len(batch)` before each call to get the mean over all samples.

    Raises ValueError or TypeError if n or weight is invalid, FormulaError if the links are no chain.

    >>> import fallline as fl
    >>> opt, w = fl.accumulate(2, fl.SGD(1.0)), 0.0
    >>> for g in (1.0, 3.0, 5.0):
    ...     w = opt.step(w, g)
    >>> w, opt.t, opt
    (-2.0, 1, accumulate(2, SGD(lr=1.0)))
    >>> opt.flush(w), opt.t
    (-7.0, 2)
    """
    return chain(rules.accumulate(n=n, weight=weight), *links, engine=engine, nonfinite=nonfinite, threads=threads,
                 state_dir=state_dir)


@answering
def bounds(low: Any = None, high: Any = None) -> Link:
    """Make a modifier that keeps parameters within bounds: `fl.chain(fl.Adam(0.1), fl.bounds(0, 1))`.

    It projects the parameters after the step, so each coordinate lies within [low, high], exactly, in every dtype.
    Modifiers after it must not change the increment; `average` does not, and averages the projected points.

    Parameters
    ----------
    low, high: a number, an array with one per coordinate, a schedule, or a tree of these shaped like the parameters;
        None or infinite where there is no bound. `low` alone can be a `scipy.optimize.Bounds`.

    Raises ValueError for NaN, and if low > high in numbers or arrays. `Optimizer.update` of such a chain raises
    TypeError, as x + (high - x) need not equal high.

    >>> import numpy as np, fallline as fl
    >>> opt = fl.chain(fl.SGD(1.0), fl.bounds(0, np.array([1, 3])))
    >>> opt.step(np.array([0.5, 2.0]), np.array([1.0, -2.0])).tolist()
    [0.0, 3.0]
    """
    if high is None and hasattr(low, "lb"):
        low, high = low.lb, low.ub
    low, high = (infinite if end is None else end for end, infinite in ((low, -math.inf), (high, math.inf)))
    link = rules.bounds(low=low, high=high)
    if all(isinstance(end, (int, float, np.ndarray)) for end in (low, high)) and np.any(np.greater(low, high)):
        raise ValueError(f"bounds must have low ≤ high in every coordinate. Got {brief(low)} and {brief(high)}.")
    return link


@answering
def partition(parts: Mapping[str, Any], label: Any, *, engine: str = "auto", nonfinite: str = "raise",
              threads: int | None = None, state_dir: Any = None) -> Partition:
    """Combine different optimizers for different leaves into one: a call steps all or, if it raises, none.

    Parameters
    ----------
    parts: optimizers, classes or chains by name; each lends its rules and hyper-parameters. None leaves its leaves
        alone, as `mask` does. A part may have no leaves.
    label: assigns each leaf to a part: a function of the leaf's path ("layer1/W"), or of path and `shape`, that returns
        the name of a part; or a tree of names shaped like the parameters or their upper levels.
    engine, nonfinite, threads, state_dir: as for `Optimizer`, for all parts. (Parts have none of their own.)

    Use the result like any optimizer. `opt.parts["name"]` is one part: set `opt.parts["rest"].lr = 1e-4`, or
    `opt.hyper["rest.lr"]`, or `opt.lr` if no other part has that name. Hyper-parameters by path or as trees use the
    leaves' paths in the whole tree. If the label is a function, pass it to `fallline.load` again,
    `fl.load(path, label=label)`, or another one that divides the leaves in the same way. `state` and
    `state_dict()["parts"]` have the state by part, and `averaged` is None for the leaves of a part that keeps no
    average.

    In `fl.chain(fl.clip_norm(1.0), fl.partition(...), fl.weight_decay(0.01))` the modifiers act on all leaves: the norm
    is taken over all of them. In the chain of a part, a norm over the tree is a norm over the part's leaves.

    Raises FormulaError, TypeError or ValueError for invalid parts and labels; the first step raises if a label names no
    part.

    >>> import numpy as np, fallline as fl
    >>> opt = fl.partition({"weights": fl.SGD(0.1), "rest": fl.SGD(1.0)},
    ...                    lambda path, shape: "weights" if len(shape) == 2 else "rest")
    >>> opt.step({"W": np.ones((1, 2)), "b": np.ones(2)}, {"W": np.ones((1, 2)), "b": np.ones(2)})
    {'W': array([[0.9, 0.9]]), 'b': array([0., 0.])}
    """
    return Partition(parts, label, Options(engine, nonfinite, threads, state_dir))


@answering
def mask(by: Any, optimizer: Any, *, engine: str = "auto", nonfinite: str = "raise", threads: int | None = None,
         state_dir: Any = None) -> Mask:
    """Make an optimizer that steps only some leaves and leaves the others alone.

    Parameters
    ----------
    by: a function of the leaf's path ("layer1/W"), or of path and `shape`, that is True for the leaves to step; or a
        tree of True and False shaped like the parameters or their upper levels.
    optimizer: an optimizer, a class or a chain.
    engine, nonfinite, threads, state_dir: as of `Optimizer`.

    The other leaves can be anything: they and their gradients are ignored, and have no state. They must not share
    memory with leaves that are stepped. `update` returns increments of -0.0 for them.

    To apply a modifier to some leaves only, set its hyper-parameter by path: `weight_decay(rate=fl.by_path(...))`.

    >>> import fallline as fl
    >>> opt = fl.mask(lambda path: path != "b", fl.SGD(0.5))
    >>> opt.step({"W": 1.0, "b": 1.0}, {"W": 1.0, "b": 1.0})
    {'W': 0.5, 'b': 1.0}
    >>> opt.lr, opt
    (0.5, mask(<lambda>, SGD(lr=0.5)))
    """
    return Mask({"stepped": optimizer}, by, Options(engine, nonfinite, threads, state_dir))
