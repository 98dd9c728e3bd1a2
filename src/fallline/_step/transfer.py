"""What a group knows, given out and put back by leaf path."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fallline._arrays.dtypes import kept, reals
from fallline._arrays.leaves import host, like
from fallline._formula.words import flush
from fallline._state.state_dict import TREE, Leaf, LeafStates, check_fits, check_leaves, paths_of
from fallline._step.group import Group

__all__ = ["carry", "fill", "merge", "put", "states_of"]


def states_of(group: Group, t: int) -> LeafStates:
    """What a group knows, live."""
    leaves = {path: Leaf(group.shapes[k], group.dtypes[k].name, t - int(group.missed[k]), int(group.absent[k]))
              for k, path in enumerate(group.paths)}
    return LeafStates(leaves, {slot: dict(zip(paths_of(slot, group.chain, group.paths), arrays))
                               for slot, arrays in group.slots().items()})


def fill(group: Group, states: LeafStates) -> Group:
    """The group, new, with the state that waited for it.

    Raises ValueError or TypeError, naming what does not fit, if its leaves are not those of the state.
    """
    t = int(group.count[0])
    check_fits(states, states_of(group, t))
    put(group, states, group.paths, t)
    return group


def carry(group: Group, states: LeafStates) -> Group:
    """The group, new, with the state of the leaves that it shares with what was known, in the dtypes that it has here;
    the others begin.

    Raises ValueError if a leaf of the same path has another shape, is complex where it was real, or has state that is
    too large for its dtype.
    """
    t = int(group.count[0])
    shared = [path for path in group.paths if path in states.leaves]
    check_leaves(states, states_of(group, t), shared, casts=True)
    put(group, states, shared, t)
    new = [k for k, path in enumerate(group.paths) if path not in states.leaves]
    group.missed[new], group.absent[new] = t, group.gathered_calls()
    return group


def merge(group: Group, states: LeafStates, t: int) -> None:
    """Put the state of the leaves that a group has, too, where it has completed t steps. Others keep what they have,
    but for gradients gathered of other calls."""
    kept = [k for k, path in enumerate(group.paths) if path not in states.leaves]
    taken = group.count[0] - group.missed[kept]
    put(group, states, [path for path in group.paths if path in states.leaves], t)
    group.missed[kept] = t - taken
    group.drop_gathered(kept)


def put(group: Group, states: LeafStates, paths: Iterable[str], t: int) -> None:
    """Put the state of the leaves of these paths, which fits, into a group that has completed t steps."""
    index = {path: k for k, path in enumerate(group.paths)}
    places = [(slot, path, index[path]) for slot in group.state for path in paths]
    if not group.engine.in_memory:  # all are made before any is put in place: a device's memory may not suffice
        new = [like(group.state[slot][k], _cast(states, slot, path, group, k)) for slot, path, k in places]
        for (slot, _, k), array in zip(places, new):
            group.state[slot][k] = array
    else:
        group.begin([index[path] for path in paths])
        for slot, path, k in places:
            group.state[slot][k][...] = _cast(states, slot, path, group, k)
    for slot, numbers in group.numbers.arrays().items():
        of = dict(zip(paths_of(slot, group.chain, group.paths), numbers))
        for path in (TREE,) if slot in group.numbers.tree else paths:
            of[path][...] = states.state[slot][path]
    group.forget_missed()
    for path in paths:
        leaf = states.leaves[path]
        group.missed[index[path]], group.absent[index[path]] = t - leaf.t, leaf.absent


def _cast(states: LeafStates, slot: str, path: str, group: Group, k: int) -> np.ndarray:
    """The state of a leaf in the dtype that it has here."""
    array, dtype = np.asarray(host(states.state[slot][path])), kept(group.dtypes[k])
    if array.dtype == dtype:
        return array
    try:
        with np.errstate(over="raise"):
            new = array.astype(dtype)
        reals(new)[...] = flush(reals(new))
        return new
    except FloatingPointError:
        raise ValueError(f"The state {slot}{' of ' * bool(path)}{path} is too large for {dtype}, as the parameter has "
                         "it: leave the dtype as it was, or reset().") from None
