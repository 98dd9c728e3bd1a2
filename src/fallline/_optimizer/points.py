"""Points other than the one that is stepped: where a rule rests or looks ahead to, what an average has come to."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fallline._arrays.dtypes import dtype_named
from fallline._arrays.leaves import as_number, cast, detached, host, is_number, new_like, view, widened
from fallline._arrays.namespaces import any_true
from fallline._arrays.trees import copy
from fallline._formula.chain import Chain
from fallline._formula.words import begun
from fallline._optimizer.stepping import Stepper
from fallline._state.state_dict import LeafStates
from fallline._step.group import Group
from fallline.errors import NotStepped
from fallline.rules import average

__all__ = ["at", "averaged"]


def at(stepper: Stepper, formula_of: Callable[[Chain], Callable[..., Any]], params: Any) -> Any:
    """A formula of the parameter, state slots and hyper-parameters, by the chain, at every leaf: a new tree."""
    stepper.check_ready()
    if stepper.group_of_part is not None:
        return _point_at(stepper.group_of_part, formula_of, params)
    binding = stepper.bind(params, "parameter")
    leaves = binding.leaves(params, "parameter")
    points = {name: _point_at(group, formula_of, binding.tree(name, leaves)) for name, group in binding.groups.items()}
    for k in binding.left:
        leaves[k] = copy(leaves[k])
    return binding.joined(points, leaves)


def averaged(stepper: Stepper) -> Any:
    """See `Optimizer.averaged`."""
    holders, binding = stepper.holders, stepper.binding
    averaging = {name: holder.group for name, holder in holders.items() if average in holder.chain.rules}
    if not averaging:
        raise AttributeError(f"{stepper.chain.title} keeps no average: end its chain with fallline.average(decay).")
    stepper.check_whole()
    found = {name: _averages(group) for name, group in averaging.items() if group is not None}
    if len(found) < len(averaging):
        return _loaded_averages(stepper.chain.title, {name: (own.chain, own.waiting) for name, own in holders.items()})
    return found[""] if binding is None else binding.joined(found, [None] * len(binding.paths))


def _point_at(group: Group, formula_of: Callable[[Chain], Callable[..., Any]], params: Any) -> Any:
    """A formula of the parameter, state slots and hyper-parameters of the chain's rule, at every leaf: a new tree."""
    formula = formula_of(group.chain)
    names = list(inspect.signature(formula).parameters)[1:]
    values = []
    for k, leaf in enumerate(group.leaves(params, "parameter")):
        x = widened(view(leaf) if group.engine.in_memory else detached(leaf))
        given = {name: _argument(group, name, k, x) for name in names}
        if not group.engine.in_memory:
            values.append(cast(formula(x, **given), group.dtypes[k]))
        else:
            new = new_like(leaf, group.shapes[k], group.dtypes[k])
            with np.errstate(all="ignore"):
                view(new)[...] = formula(x, **given)
            values.append(as_number(leaf, new) if is_number(leaf) else new)
    return group.treedef.unflatten(values)


def _argument(group: Group, name: str, k: int, x: Any) -> Any:
    """What the chain's rule calls by that name at leaf k: a hyper-parameter's value, or state."""
    chain, rule = group.chain, group.chain.rule
    own = chain.names[chain.rules.index(rule)]
    if name in rule.hyper:
        return group.value(f"{own}.{name}", k, int(group.count[0]), {})
    every, start = group.slots()[chain.slots[own, name]], rule.slots[name]
    if name in rule.scopes:
        return float(every[k if rule.scopes[name] == "leaf" else 0])
    return begun(every[k], x if start == "x" else 0.0) if start in ("x", "g") else every[k]


def _averages(group: Group) -> Any:
    """What the last `average` of the chain keeps, as leaves like the parameters; None for a leaf without one yet."""
    kept = group.state[_slot(group.chain)]
    return group.treedef.unflatten(_like_parameter(group, k, a) if _has_begun(a) else None for k, a in enumerate(kept))


def _slot(chain: Chain) -> str:
    """Where the last `average` of a chain keeps it."""
    own = [name for name, rule in zip(chain.names, chain.rules) if rule is average][-1]
    return chain.slots[own, "a"]


def _like_parameter(group: Group, k: int, value: Any) -> Any:
    """State of leaf k as a new leaf of the parameter's kind and dtype."""
    model = group.models[k]
    if is_number(model):
        return as_number(model, host(value))
    if not group.engine.in_memory:
        return copy(cast(value, group.dtypes[k]))
    new = new_like(model, group.shapes[k], group.dtypes[k])
    with np.errstate(all="ignore"):
        view(new)[...] = value
    return new


def _loaded_averages(title: str, parts: Mapping[str, tuple[Chain, LeafStates | None]]) -> Any:
    """The averages of chains whose state waits for the first step, as arrays by leaf path; a single leaf by itself.

    None stands for leaves without one. Raises NotStepped if there is no state.
    """
    if not any(states for _, states in parts.values()):
        raise NotStepped(f"{title} has averaged nothing before its first step.")
    found: dict[str, Any] = {}
    for chain, states in parts.values():
        arrays = states.state[_slot(chain)] if states and average in chain.rules else {}
        for path, leaf in states.leaves.items() if states else ():
            begun = path in arrays and _has_begun(arrays[path])
            found[path] = np.array(cast(arrays[path], dtype_named(leaf.dtype))) if begun else None
    return found[""] if list(found) == [""] else found


def _has_begun(state: Any) -> bool:
    """Whether a state that starts at the parameter has done so; until then it is NaN."""
    return 0 in state.shape or any_true(state == state)
