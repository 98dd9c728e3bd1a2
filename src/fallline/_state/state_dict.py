"""What an optimizer knows as plain data, keyed by leaf path: given out, checked, and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from fallline._arrays.dtypes import COMPLEX, DTYPES
from fallline._arrays.leaves import dtype_of, host
from fallline._arrays.trees import flatten, paths
from fallline._formula.chain import Chain
from fallline._formula.settings import ByPath, anew, check
from fallline._messages.values import brief
from fallline._state import fields
from fallline._state.fingerprint import BUILT_IN, described, origins

__all__ = ["TREE", "Leaf", "LeafStates", "LoadReport", "Loaded", "as_now", "check_fits", "check_leaves", "checked",
           "named", "names_function", "paths_of", "plain", "record", "shown", "told"]  # fmt: skip

TREE = ""  # stands where a leaf's path would for what belongs to the whole tree
KEYS = ("format", "rules", "t", "hyper", "leaves", "state")


class Leaf(NamedTuple):
    """One parameter: its shape, the name of its dtype, the steps that it took; of the calls that `accumulate` has
    gathered, those in which it had no gradient, of which is said where there are any."""

    shape: tuple[int, ...]
    dtype: str
    t: int
    absent: int = 0

    def plain(self) -> dict[str, Any]:
        """The same as a dict."""
        return {name: value for name, value in self._asdict().items() if name != "absent" or value}


class LeafStates(NamedTuple):
    """The leaves by path, and their state by slot and path."""

    leaves: dict[str, Leaf]
    state: dict[str, dict[str, Any]]

    def copied(self) -> LeafStates:
        """The same in memory of its own."""
        return LeafStates(self.leaves, {slot: {path: np.array(host(a)) for path, a in arrays.items()}
                                   for slot, arrays in self.state.items()})

    def renamed(self, names: Mapping[str, str | None], scopes: Mapping[str, str] = MappingProxyType({})) -> LeafStates:
        """The same with other names for leaves, without those that have None; slots that the `scopes` have for the tree
        stay."""
        def of(by_path: Mapping[str, Any]) -> dict[str, Any]:
            return {new: found for path, found in by_path.items() if (new := names.get(path, path)) is not None}
        return LeafStates(of(self.leaves), {slot: arrays if scopes.get(slot) == "tree" else of(arrays)
                                            for slot, arrays in self.state.items()})

    def named_by(self, rename: Callable[[str], str]) -> dict[str, str]:
        """The names that a function gives the leaves; raises ValueError if two get one."""
        names = {path: rename(path) for path in self.leaves}
        given: set[str] = set()
        for path, name in names.items():
            if not isinstance(name, str):
                raise TypeError(f"rename must return the path of a leaf, a string. Got {brief(name)} for {path!r}.")
            if name in given:
                raise ValueError(f"rename must give each leaf a path of its own. Got {name!r} for {path!r} too.")
            given.add(name)
        return names

    def counted(self, t: int) -> LeafStates:
        """The same with every leaf at step t."""
        return self._replace(leaves={path: leaf._replace(t=t) for path, leaf in self.leaves.items()})

    def trees(self) -> dict[str, Any]:
        """The state by slot, as read-only views by path; a single leaf by itself."""
        shown = {slot: {path: array.view() for path, array in arrays.items()} for slot, arrays in self.state.items()}
        for arrays in shown.values():
            for array in arrays.values():
                array.flags.writeable = False
        return {slot: arrays[""] if list(arrays) == [""] else arrays for slot, arrays in shown.items()}


class LoadReport(NamedTuple):
    """What a state and an optimizer did not have in common: leaves here that the state is `missing`, which keep the
    state that they have, and leaves of the state that are `left_over`, which are dropped."""

    missing: tuple[str, ...]
    left_over: tuple[str, ...]


class Loaded(NamedTuple):
    """A state that was checked against a chain; `states` is None for that of an optimizer that never stepped."""

    t: int
    fields: dict[str, Any]
    settings: dict[str, Any]
    states: LeafStates | None


def as_now(states: Mapping[str, LeafStates | None], names: Mapping[str, str]) -> dict[str, LeafStates | None]:
    """The states of the parts of one tree by the names that its leaves have now, which are given by those that they
    have in older files (`trees.former_paths`): it is the latter that they have if more leaves are known by these."""
    known = {path for own in states.values() if own for path in own.leaves}
    if sum(old in known for old in names) <= sum(new in known for new in names.values()):
        return dict(states)
    return {name: own and own.renamed(names) for name, own in states.items()}


# ---- given out -------------------------------------------------------------------------------------------------------


def paths_of(slot: str, chain: Chain, paths: Iterable[str]) -> Iterable[str]:
    """What the state of a slot is keyed by: the paths of the leaves, or TREE if it is one number of the tree."""
    return [TREE] if chain.scopes().get(slot) == "tree" else paths


def record(chain: Chain, settings: Mapping[str, Any], t: int, own: Mapping[str, Any], states: LeafStates | None
           ) -> dict[str, Any]:
    """The state dictionary, with these fields, with the live arrays and the functions in it."""
    leaves = None if states is None else {path: leaf.plain() for path, leaf in states.leaves.items()}
    return {"format": fields.FORMAT, "rules": origins(chain), "t": t, **own, "hyper": dict(settings),
            "leaves": leaves, "state": {} if states is None else states.state}


def plain(live: Mapping[str, Any]) -> dict[str, Any]:
    """A record with copies of its arrays, and functions by their names."""
    hyper = {name: named(value) for name, value in live["hyper"].items()}
    state = {slot: {path: np.array(host(a)) for path, a in arrays.items()} for slot, arrays in live["state"].items()}
    return {**live, "hyper": hyper, "state": state}


def named(setting: Any) -> Any:
    """A setting with copies of its arrays, and functions by their names."""
    return _mapped(_named, setting)


def told(setting: Any) -> str:
    """A setting as a text that no other has, but for functions of one name, whatever its schedules have heard."""
    setting = anew(setting)
    return repr(_mapped(lambda leaf: _digest(leaf) if isinstance(leaf, np.ndarray) else _named(leaf), setting))


def _digest(array: np.ndarray) -> str:
    import hashlib  # which takes a while

    return f"{array.shape} {hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()}"


def _mapped(function: Any, tree: Any) -> Any:
    leaves, treedef = flatten(tree, callable)
    return treedef.unflatten(map(function, leaves))


def _named(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    return described(value) if _is_function(value) else value


def names_function(setting: Any) -> bool:
    """Whether a saved setting was a function, or holds one."""
    return any(isinstance(leaf, str) for leaf in flatten(setting, callable)[0])


def _is_function(value: Any) -> bool:
    return callable(value) or isinstance(value, ByPath)


# ---- checked ---------------------------------------------------------------------------------------------------------


def checked(d: Any, chain: Chain, settings: Mapping[str, Any]) -> Loaded:
    """A state dictionary as it can be put into a chain that has these settings.

    Raises ValueError or TypeError, naming what is wrong.
    """
    if isinstance(d, Mapping) and isinstance(d.get("parts"), Mapping):
        raise ValueError(f"The state is of a partition or mask with the parts {', '.join(map(str, d['parts']))}, and "
                         f"{chain.title} is none: load it into one of that kind, or use fallline.load on its file.")
    own = fields.checked(d, KEYS, "A state")
    _check_rules(d["rules"], chain)
    t = fields.count(d["t"], "t")
    return Loaded(t, own, _settings(d["hyper"], chain, settings), _leaf_states(d["leaves"], d["state"], chain))


def _check_rules(saved: Any, chain: Chain) -> None:
    here = origins(chain)
    if not isinstance(saved, Mapping) or list(saved) != list(here):
        theirs = ", ".join(map(str, saved)) if isinstance(saved, Mapping) else repr(saved)
        raise ValueError(f"The state is that of another optimizer: its rules are {theirs}; those of {chain.title} are "
                         f"{', '.join(here)}.")
    for name, origin in here.items():
        if saved[name] != origin:
            theirs, ours = (f"fallline's own {name}" if o == BUILT_IN else f"a formula {name} of fingerprint {o}"
                            for o in (saved[name], origin))
            raise ValueError(f"The state is that of another rule: it was made by {theirs}; here is {ours}.")


def _settings(saved: Any, chain: Chain, settings: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(saved, Mapping) or not set(saved) <= set(chain.hyper):
        raise ValueError(f"hyper of the state must be a dict of {', '.join(chain.hyper)}. "
                         f"Got {', '.join(map(str, saved)) if isinstance(saved, Mapping) else repr(saved)}.")
    saved = {**{q: value for q, value in fields.LATER.items() if q in chain.hyper}, **saved}
    found = {q: check(chain.hyper[q], _at_hand(q, saved[q], settings.get(q), chain), chain.owner(q)) for q in saved}
    missing = [q for q in chain.settings(found) if q not in found]
    if missing:
        raise ValueError(f"hyper of the state lacks {', '.join(missing)}.")
    return {q: found[q] for q in chain.hyper if q in found}


def _at_hand(qualified: str, saved: Any, here: Any, chain: Chain) -> Any:
    """A saved setting with the functions that it names, which must stand at the same places of the setting here.

    Numbers and fallline's own schedules, which a state holds whole, are restored, whatever is here.
    """
    leaves, treedef = flatten(saved, callable)
    own, own_treedef = flatten(() if here is None else here, callable)
    leaves = [_restored(leaf, own[k] if treedef == own_treedef else None) for k, leaf in enumerate(leaves)]
    named, own_named = list(map(_name, leaves)), list(map(_name, own))
    if not any(named) and not any(own_named):
        return treedef.unflatten(leaves)
    if treedef == own_treedef and named == own_named:
        return treedef.unflatten(function if name else value for name, value, function in zip(named, leaves, own))
    at = ""
    if treedef == own_treedef and len(leaves) > 1:
        k = next(k for k in range(len(leaves)) if named[k] != own_named[k])
        saved, here, at = leaves[k], own[k], f" at {paths(treedef)[k]!r}"
    name, owner = chain.hyper[qualified].name, chain.owner(qualified)
    raise ValueError(f"{name} of {owner} was {shown(saved)}{at} when it was saved, and is {shown(here)} here. "
                     f"A function cannot be saved: give {owner} the {name} that it had, load, and assign another "
                     "afterwards.")


def _restored(leaf: Any, here: Any) -> Any:
    """A saved setting of one leaf; fallline's own schedule, if it says one in words and not a function here."""
    if not isinstance(leaf, str) or leaf == _name(here):
        return leaf
    from fallline.schedules.data import from_text

    return from_text(leaf) or leaf


def _name(leaf: Any) -> str | None:
    """The name of a function of one's own, which a saved setting has in its place; None for what is saved whole."""
    if not _is_function(leaf):
        return leaf if isinstance(leaf, str) else None
    from fallline.schedules.data import is_built_in

    return None if is_built_in(leaf) else described(leaf)


def shown(setting: Any) -> str:
    """A setting as messages show it, functions and schedules in full: they may differ in any of their parameters."""
    if setting is None:
        return "not given"
    from fallline.schedules.data import is_built_in

    leaves, treedef = flatten(setting, callable)
    plain = treedef.unflatten(leaf if is_built_in(leaf) else _named(leaf) for leaf in leaves)
    text = " ".join(repr(plain).split())
    in_full = any(isinstance(leaf, str) or _is_function(leaf) for leaf in leaves)
    return text if len(text) <= 300 and in_full else brief(plain)


def _leaf_states(leaves: Any, state: Any, chain: Chain) -> LeafStates | None:
    if leaves is None and state == {}:
        return None
    if not isinstance(leaves, Mapping) or not isinstance(state, Mapping):
        raise ValueError("leaves and state of a state must be dicts.")
    found = {path: _leaf(path, leaf) for path, leaf in leaves.items()}
    if chain.gathers and chain.gathers.total not in state and chain.gathers.calls in state:
        state = {**state, chain.gathers.total: state[chain.gathers.calls]}  # as it was before there were weights
    _same(state, chain.starts(), "state slots")
    for slot, arrays in state.items():
        if not isinstance(arrays, Mapping):
            raise ValueError(f"The state of {slot} must be a dict by leaf path. Got {type(arrays).__name__}.")
        _same(arrays, paths_of(slot, chain, found), f"leaves of {slot}")
        for path, array in arrays.items():
            shape = () if slot in chain.scopes() else chain.shape(slot, found[path].shape)
            _check_array(array, shape, f"The state {slot}{' of ' * bool(path)}{path}")
    return LeafStates(found, {slot: dict(state[slot]) for slot in chain.starts()})


def _same(got: Iterable[Any], wanted: Iterable[str], what: str) -> None:
    """Raise ValueError, naming some, unless the two hold the same names."""
    wanted, got = dict.fromkeys(wanted), dict.fromkeys(got)
    missing, unknown = [n for n in wanted if n not in got], [n for n in got if n not in wanted]
    said = [f"{word} {', '.join(map(repr, some[:5]))}{' ...' * (len(some) > 5)}"
            for word, some in (("missing", missing), ("unexpected", unknown)) if some]
    if said:
        raise ValueError(f"The {what} of the state are not those here: {'; '.join(said)}.")


def _leaf(path: Any, leaf: Any) -> Leaf:
    try:
        shape, dtype, counts = tuple(leaf["shape"]), leaf["dtype"], (leaf["t"], leaf.get("absent", 0))
        well = isinstance(path, str) and dtype in DTYPES and leaf.keys() <= {"shape", "dtype", "t", "absent"}
        well = well and all(type(n) is int and 0 <= n < 2**63 for n in (*shape, *counts))
    except (AttributeError, TypeError, KeyError, IndexError):
        well = False
    if not well:
        raise ValueError(f"The leaf {path!r} of the state must have a shape, a dtype and a t, a whole number. "
                         f"Got {brief(leaf)}.")
    return Leaf(shape, dtype, *counts)


def _check_array(array: Any, shape: tuple[int, ...], what: str) -> None:
    plain = isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray)  # in memory or in a file
    if not plain or array.dtype.name not in DTYPES:
        got = f"an array of {array.dtype}" if plain else type(array).__name__
        raise TypeError(f"{what} must be a NumPy array of floats. Got {got}.")
    if array.shape != shape:
        raise ValueError(f"{what} must have the shape {shape}{' of the leaf' * bool(shape)}. Got {array.shape}.")


# ---- compared --------------------------------------------------------------------------------------------------------


def check_fits(states: LeafStates, here: LeafStates) -> None:
    """Raise ValueError or TypeError, naming what does not fit, unless a state can take the place of the one here."""
    _same(states.leaves, here.leaves, "leaves")
    check_leaves(states, here, here.leaves)


def check_leaves(states: LeafStates, here: LeafStates, paths: Iterable[str], casts: bool = False) -> None:
    """The same of the leaves of these paths alone, which both have; if it `casts`, the float dtype may be another."""
    for path in paths:
        saved, own = states.leaves[path], here.leaves[path]
        if casts and saved.shape == own.shape and (saved.dtype in COMPLEX) == (own.dtype in COMPLEX):
            continue
        if (saved.shape, saved.dtype) != (own.shape, own.dtype):
            raise ValueError(f"The state of {path or 'the parameter'} is for {saved.dtype} of shape {saved.shape}. "
                             f"The parameter is {own.dtype} of shape {own.shape}.")
        for slot, arrays in here.state.items():
            if path in arrays:
                _check_dtype(states.state[slot][path], arrays[path], f"{slot}{' of ' * bool(path)}{path}")
    for slot, arrays in here.state.items() if TREE not in here.leaves else ():  # the name of a single array, too
        if TREE in arrays and TREE in states.state[slot]:
            _check_dtype(states.state[slot][TREE], arrays[TREE], slot)


def _check_dtype(theirs: Any, ours: Any, what: str) -> None:
    if dtype_of(theirs) != dtype_of(ours) or not getattr(theirs.dtype, "isnative", True):
        raise TypeError(f"The state {what} must be {dtype_of(ours)}. Got {theirs.dtype}.")
