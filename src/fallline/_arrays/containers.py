"""Which containers trees are made of: those of optree, mappings of other classes, and what JAX knows as a tree.

The latter two are told to optree as they are met, in a namespace of our own: elsewhere they stay what they were.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from fallline._messages.remedies import is_converted, is_tree_of_jax, jax_trees

__all__ = ["DICTS", "children_like", "is_box", "is_container", "is_met", "parted", "parted_once"]

DICTS = (dict, OrderedDict, defaultdict)
_BUILT_IN = {*DICTS, list, tuple, deque}
_PLAIN = (np.ndarray, np.generic, float, int, complex, str)
_NAMESPACE = "fallline"
_met: set[type] = set()
_meeting = threading.Lock()


def is_container(value: Any) -> bool:
    """Whether a value is one of the containers that trees are made of; None, a node without anything, is none."""
    if type(value) in _BUILT_IN or value is None or isinstance(value, _PLAIN):
        return type(value) in _BUILT_IN
    import optree

    return is_met(value) or not optree.tree_is_leaf(value, namespace=_NAMESPACE)


def parted(tree: Any, is_leaf: Callable[[Any], bool] | None = None, none_is_leaf: bool = False
           ) -> tuple[list[Any], Any]:
    """The leaves of a tree and its structure, as optree has it.

    >>> import types
    >>> parted({"a": types.MappingProxyType({"c": 1.0, "b": 2.0})})[0]
    [2.0, 1.0]
    """
    import optree

    while True:
        leaves, spec = optree.tree_flatten(tree, is_leaf, none_is_leaf=none_is_leaf, namespace=_NAMESPACE)
        by_kind = {type(leaf): leaf for leaf in leaves}
        if not any(is_met(leaf) and not (is_leaf and is_leaf(leaf)) for leaf in by_kind.values()):
            return leaves, spec


def parted_once(tree: Any) -> tuple[list[Any], Any]:
    """What a container holds, and its structure with leaves in their places; of what is none the value itself."""
    import optree

    is_met(tree)
    return optree.tree_flatten(tree, is_leaf=lambda node: node is not tree, namespace=_NAMESPACE)


def children_like(spec: Any, tree: Any) -> list[Any]:
    """What a container holds where the top of a structure has its children.

    Mappings of the same keys are alike, whatever their classes. Raises ValueError for a container of another kind.
    """
    if is_mapping(spec) and isinstance(tree, Mapping) and is_container(tree):
        keys = spec.entries()
        if {*keys} == {*tree}:
            return [tree[key] for key in keys]
    elif not spec.is_leaf():
        children, own = parted_once(tree)
        if own == parted_once(spec.unflatten(range(spec.num_leaves)))[1]:
            return children
    raise ValueError("another structure")


def is_box(spec: Any) -> bool:
    """Whether the top of a structure is one of flax around a single value, such as `nnx.Param`: its trees have them
    in some places and bare values in others, which are one leaf."""
    return (isinstance(spec.type, type) and spec.entries() == ["value"] and not is_mapping(spec)
            and any(base.__module__.startswith("flax.") for base in spec.type.__mro__))


def is_mapping(spec: Any) -> bool:
    """Whether the top of a structure is a mapping."""
    return isinstance(spec.type, type) and issubclass(spec.type, Mapping)


def is_met(value: Any) -> bool:
    """Whether a value is a container that optree knows from us, from now on if it did not."""
    kind = type(value)
    if kind in _met:
        return True
    if isinstance(value, _PLAIN) or kind in _BUILT_IN:
        return False
    ways = _ways_of_jax(value) or _ways_of_mapping(value)
    if ways is None or hasattr(kind, "todense") or (is_converted(value) and not isinstance(value, dict)):
        return False  # for arrays are told what to pass
    import optree

    with _meeting:
        if kind not in _met and optree.tree_is_leaf(value, namespace=_NAMESPACE):
            optree.register_pytree_node(kind, *ways, namespace=_NAMESPACE)
            _met.add(kind)
    return kind in _met


Ways = tuple[Callable[[Any], tuple[Any, ...]], Callable[[Any, Any], Any]]


def _ways_of_jax(value: Any) -> Ways | None:
    """How what JAX knows is taken apart, with the names that it has for what is within, and made again."""
    return (_apart_by_jax, _together_by_jax) if is_tree_of_jax(value) else None


def _apart_by_jax(tree: Any) -> tuple[Any, ...]:
    found, structure = jax_trees().tree_flatten_with_path(tree, is_leaf=lambda node: node is not tree)
    return [child for _, child in found], structure, [_entry(path[-1]) for path, _ in found]


def _entry(key: Any) -> Any:
    """A key of JAX as it is: that of a dict, the index of a list, the name of an attribute."""
    return next((getattr(key, name) for name in ("key", "idx", "name") if hasattr(key, name)), str(key))


def _together_by_jax(structure: Any, children: Any) -> Any:
    return structure.unflatten(children)


def _ways_of_mapping(value: Any) -> Ways | None:
    """How a mapping is taken apart, and made again by its class; None for one that its class does not make of a dict,
    with the same keys in the same order, whatever the values."""
    kind: Any = type(value)
    if not isinstance(value, Mapping):
        return None
    try:
        given = {key: object() for key in value}
        made = kind(given)
        is_whole = type(made) is kind and [*made] == [*given] and all(made[key] is given[key] for key in given)
    except Exception:  # of a class of others
        return None
    return (_apart_by_key, partial(_together_by_key, kind)) if is_whole else None


def _apart_by_key(tree: Any) -> tuple[Any, ...]:
    import optree

    found: Any = dict.fromkeys(tree, 0.0)
    keys = optree.tree_structure(found).entries()  # sorted, as those of dicts
    places = {key: place for place, key in enumerate(keys)}
    return [tree[key] for key in keys], {key: places[key] for key in tree}, keys  # dicts of any order are equal


def _together_by_key(kind: Any, places: Any, children: Any) -> Any:
    return kind({key: children[place] for key, place in places.items()})
