"""Points other than the one that is stepped: where a rule rests or looks ahead to, what an average has come to."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from fallline.arrays import as_number, cast, detached, is_number, new_like, view, widened
from fallline.bound import Bound
from fallline.ops import begun
from fallline.rules import average
from fallline.trees import copy

__all__ = ["averages", "point_at"]


def point_at(bound: Bound, formula: Callable[..., Any], params: Any) -> Any:
    """A formula of the parameter, state slots and hyper-parameters of the chain's rule, at every leaf: a new tree."""
    names = list(inspect.signature(formula).parameters)[1:]
    values = []
    for k, leaf in enumerate(bound.leaves(params, "parameter")):
        x = widened(detached(leaf) if bound.foreign else view(leaf))
        given = {name: _known(bound, name, k, x) for name in names}
        if bound.foreign:
            values.append(cast(formula(x, **given), bound.dtypes[k]))
        else:
            new = new_like(leaf, bound.shapes[k], bound.dtypes[k])
            with np.errstate(all="ignore"):
                view(new)[...] = formula(x, **given)
            values.append(as_number(leaf, new) if is_number(leaf) else new)
    return bound.treedef.unflatten(values)


def _known(bound: Bound, name: str, k: int, x: Any) -> Any:
    """What the chain's rule calls by that name at leaf k: a hyper-parameter's value, or state."""
    chain, rule = bound.chain, bound.chain.rule
    own = chain.names[chain.rules.index(rule)]
    if name in rule.hyper:
        return bound.value(f"{own}.{name}", k, int(bound.count[0]), {})
    every, start = bound.slots()[chain.slots[own, name]], rule.slots[name]
    if name in rule.scopes:
        return float(every[k if rule.scopes[name] == "leaf" else 0])
    return begun(every[k], x if start == "x" else 0.0) if start in ("x", "g") else every[k]


def averages(bound: Bound) -> Any:
    """What the last `average` of the chain keeps, in the dtypes of the parameters; None for a leaf without one yet."""
    chain = bound.chain
    own = [name for name, rule in zip(chain.names, chain.rules) if rule is average][-1]
    return bound.treedef.unflatten(copy(cast(a, dtype)) if _has_begun(a) else None
                                   for a, dtype in zip(bound.state[chain.slots[own, "a"]], bound.dtypes))


def _has_begun(state: Any) -> bool:
    """Whether a state that starts at the parameter has done so; until then it is NaN."""
    return bool(0 in state.shape or (state == state).any())
