"""What a bound chain knows, given out and put back by leaf path."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fallline._arrays.leaves import host, like
from fallline._state.state_dict import TREE, Leaf, LeafStates, check_fits, check_leaves, paths_of
from fallline._step.group import Group

__all__ = ["carry", "fill", "put", "states_of"]


def states_of(bound: Group, t: int) -> LeafStates:
    """What a bound chain knows, live."""
    leaves = {path: Leaf(bound.shapes[k], bound.dtypes[k].name, t - int(bound.missed[k]))
              for k, path in enumerate(bound.paths)}
    return LeafStates(leaves, {slot: dict(zip(paths_of(slot, bound.chain, bound.paths), arrays))
                          for slot, arrays in bound.slots().items()})


def fill(bound: Group, states: LeafStates) -> Group:
    """The bound chain, new, with the state that waited for it.

    Raises ValueError or TypeError, naming what does not fit, if its leaves are not those of the state.
    """
    t = int(bound.count[0])
    check_fits(states, states_of(bound, t))
    put(bound, states, bound.paths, t)
    return bound


def carry(bound: Group, states: LeafStates) -> Group:
    """The bound chain, new, with the state of the leaves that it shares with what was known; the others begin.

    Raises ValueError if a leaf of the same path has another shape or dtype.
    """
    t = int(bound.count[0])
    shared = [path for path in bound.paths if path in states.leaves]
    check_leaves(states, states_of(bound, t), shared)
    put(bound, states, shared, t)
    bound.missed[[k for k, path in enumerate(bound.paths) if path not in states.leaves]] = t
    return bound


def put(bound: Group, states: LeafStates, paths: Iterable[str], t: int) -> None:
    """Put the state of the leaves of these paths, which fits, into a bound chain that has completed t steps."""
    index = {path: k for k, path in enumerate(bound.paths)}
    places = [(slot, path, index[path]) for slot in bound.state for path in paths]
    if not bound.engine.in_memory:  # all are made before any is put in place: a device's memory may not suffice
        new = [like(bound.state[slot][k], np.array(host(states.state[slot][path]))) for slot, path, k in places]
        for (slot, _, k), array in zip(places, new):
            bound.state[slot][k] = array
    else:
        bound.begin([index[path] for path in paths])
        for slot, path, k in places:
            bound.state[slot][k][...] = states.state[slot][path]
    for slot, numbers in bound.numbers.arrays().items():
        of = dict(zip(paths_of(slot, bound.chain, bound.paths), numbers))
        for path in (TREE,) if slot in bound.numbers.tree else paths:
            of[path][...] = states.state[slot][path]
    bound.forget_missed()
    for path in paths:
        bound.missed[index[path]] = t - states.leaves[path].t
