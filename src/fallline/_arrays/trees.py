"""Trees of arrays: nested dicts, lists, tuples, namedtuples and others of `containers`, through optree.

A single array or number is a tree of one leaf and needs no optree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from fallline._arrays.containers import DICTS, children_like, is_box, is_container, is_met, parted, parted_once
from fallline._arrays.differences import difference, of_upper_levels, part, parts, within
from fallline._arrays.libraries import library_of
from fallline._arrays.sealed import unsealed

__all__ = ["Treedef", "copy", "decode", "encode", "flatten", "former_paths", "holds_none", "is_container", "paths",
           "plain", "saved", "unlike_upper_levels"]


class Treedef:
    """The structure of a tree; that of a single leaf if `spec` is None."""

    __slots__ = ("spec",)

    def __init__(self, spec: Any = None) -> None:
        self.spec = spec

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Treedef) and self.spec == other.spec

    __hash__ = None  # type: ignore[assignment]

    def __deepcopy__(self, memo: Any) -> Treedef:
        return self  # which nothing changes: what is static in a container may equal itself alone

    def __reduce__(self) -> Any:
        if self.spec is None:
            return Treedef, ()
        return _structure_of, (self.unflatten(range(self.spec.num_leaves)),)  # another process may not know the classes

    def unflatten(self, leaves: Any) -> Any:
        """The tree of this structure with these leaves."""
        leaves = list(leaves)
        return leaves[0] if self.spec is None else self.spec.unflatten(leaves)

    def flatten_like(self, tree: Any, what: str, than: str) -> list[Any]:
        """The leaves of another tree of this structure, in its order; None may stand in a leaf's place.

        Raises ValueError, saying which leaves `what` has or lacks against `than`, if the structure is another.
        """
        if self.spec is None:
            if tree is None or is_leaf(tree):
                return [tree]
        else:
            if type(tree) is self.spec.type or {type(tree), self.spec.type} <= {*DICTS}:
                with suppress(ValueError, TypeError):  # which takes long where it fails, to show all arrays
                    return self.spec.flatten_up_to(tree)
            with suppress(ValueError, TypeError):
                return self.leaves_like(tree)
        raise ValueError(f"{what} must be a tree of the same structure as {than}: "
                         f"{difference(self.spec, unsealed(tree), what)}.")

    def leaves_like(self, tree: Any) -> list[Any]:
        """As `flatten_like`, of several leaves, by the slower way that has mappings of the same keys for one."""
        return _leaves_like(self.spec, unsealed(tree))

    def spread(self, tree: Any) -> list[Any] | None:
        """What a tree of the same structure, or of its upper levels, has for each leaf; None if it is of another.
        What can be called stands for all that is below where it is of another.

        >>> flatten({"a": 0.0, "b": [0.0, 0.0]})[1].spread({"b": 2.0, "a": 1.0})
        [1.0, 2.0, 2.0]
        """
        if self.spec is None:
            return None
        try:
            return _spread(self.spec, unsealed(tree))
        except ValueError:
            return None


def _leaves_like(spec: Any, tree: Any) -> list[Any]:
    """What a tree has for each leaf of a structure, where mappings are alike whatever their classes."""
    if spec.is_leaf() and not is_container(tree):
        return [tree]
    items = zip(spec.children(), children_like(spec, tree))
    return [leaf for below, item in items for leaf in _leaves_like(below, item)]


def _spread(spec: Any, tree: Any) -> list[Any]:
    """See `Treedef.spread`."""
    if not is_container(tree):
        if tree is None and spec.num_leaves:
            raise ValueError("another structure")
        return [tree] * spec.num_leaves
    try:
        items = zip(spec.children(), children_like(spec, tree))
        return [leaf for below, item in items for leaf in _spread(below, item)]
    except ValueError:
        if not callable(tree):
            raise
        return [tree] * spec.num_leaves


def _structure_of(tree: Any) -> Treedef:
    return flatten(tree)[1]


def unlike_upper_levels(treedef: Treedef, tree: Any) -> str:
    """The end of a sentence on a tree that `Treedef.spread` cannot take: where it differs."""
    return "" if treedef.spec is None or not is_container(tree) else f": {of_upper_levels(treedef.spec, tree)}"


def is_leaf(tree: Any) -> bool:
    """Whether a tree is a single leaf, told without optree: a number, or anything that has a dtype."""
    return isinstance(tree, (np.ndarray, float, int, complex)) or (hasattr(tree, "dtype") and not is_met(tree))


def flatten(tree: Any, is_one: Callable[[Any], bool] | None = None) -> tuple[list[Any], Treedef]:
    """The leaves of a tree and its structure. Dicts are taken in the order of their sorted keys. A container that
    `is_one` leaf stays whole.

    A tree is made of dicts, lists, tuples, namedtuples, what is registered with JAX (once that is imported), such as
    modules of equinox and dataclasses, and any other mapping that its class makes of a dict: `type(m)(d)` must have the
    keys of d in their order, with any values. All come back as they are, mappings with the order of their keys.

    >>> leaves, treedef = flatten({"b": 1.0, "W": 2.0})
    >>> leaves, treedef.unflatten([0.0, 1.0])
    ([2.0, 1.0], {'b': 1.0, 'W': 0.0})
    """
    if is_leaf(tree):
        return [tree], Treedef()
    leaves, spec = parted(unsealed(tree), is_one)
    return leaves, Treedef(spec)


def holds_none(tree: Any) -> bool:
    """Whether None stands anywhere in a tree in a leaf's place."""
    if tree is None or is_leaf(tree):
        return tree is None
    return any(leaf is None for leaf in parted(tree, none_is_leaf=True)[0])


def plain(tree: Any) -> Any:
    """A tree with dicts in the place of mappings of other classes, but within what can be called.

    >>> from collections import UserDict
    >>> plain([UserDict(a=1.0)])
    [{'a': 1.0}]
    """
    if not is_container(tree) or callable(tree):
        return tree
    if isinstance(tree, Mapping) and type(tree) not in DICTS:
        return {key: plain(item) for key, item in tree.items()}
    children, spec = parted_once(tree)
    return spec.unflatten(map(plain, children))


def paths(treedef: Treedef) -> list[str]:
    """The name of each leaf, such as "layer1/W"; "" for a single leaf. An index of a list is a number: "blocks/0/W".

    No two leaves of a tree share a name. That of flax's `nnx.Param` is its own, without "value". A key is written as it
    is, the empty one as "%". Only where two keys of one dict could be taken for each other, as "0" and 0 or "a/b" and
    "a", its keys are written as in URLs: "/" as "%2F", "%" as "%25", the first character of a string that looks like an
    index as its code ("%30" is the key "0", "0" the key 0); and a key that is neither a string nor an integer has its
    type before it: "%float:0.5".

    Raises ValueError if containers of one's own give two leaves the same keys.

    >>> paths(flatten({"layer1": {"W": 0.0, "b": 0.0}, "layers": {"0": 0.0, "1/x": 0.0}})[1])
    ['layer1/W', 'layer1/b', 'layers/0', 'layers/1/x']
    >>> paths(flatten({"a/b": 0.0, "a": {"b": 0.0}, "c": {"0": 0.0, 0: 0.0}})[1])
    ['a/b', 'a%2Fb', 'c/0', 'c/%30']
    """
    if treedef.spec is None:
        return [""]
    names = list(_named(treedef.spec, ""))
    if len(set(names)) < len(names):
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise ValueError(f"Two leaves of the tree have the name {twice!r}: give their containers distinct keys.")
    return names


def _named(spec: Any, place: str) -> Iterator[str]:
    if spec.is_leaf():
        yield place
        return
    if is_box(spec):
        yield from _named(spec.children()[0], place)
        return
    for text, below in zip(parts(spec.entries()), spec.children()):
        yield from _named(below, within(place, text))


def former_paths(treedef: Treedef) -> dict[str, str]:
    """The names of leaves by those that they have in older files, where keys are always written as in URLs.

    >>> former_paths(flatten({"layers": {"0": 0.0, "b": 0.0}})[1])
    {'layers/%30': 'layers/0', 'layers/b': 'layers/b'}
    """
    former = [""] if treedef.spec is None else ["/".join(map(part, path)) for path in treedef.spec.paths()]
    return dict(zip(former, paths(treedef)))


def copy(tree: Any) -> Any:
    """A tree with copies of the arrays that can be written; what cannot be changed is shared.

    >>> import numpy as np
    >>> w = {"W": np.zeros(2)}
    >>> copy(w)["W"] is w["W"]
    False
    """
    leaves, treedef = flatten(tree)
    return treedef.unflatten([library_of(leaf).copy(leaf) for leaf in leaves])


_SAVED = "must be made of dicts (with strings or integers as keys), lists and tuples to be saved"


def saved(tree: Any) -> Any:
    """A tree that `encode` takes: this one, or its leaves by path.

    >>> from collections import namedtuple
    >>> saved([1.0]), saved([namedtuple("Line", "a b")(1.0, 2.0)])
    ([1.0], {'0/0': 1.0, '0/1': 2.0})
    """
    if _is_saved(tree):
        return tree
    leaves, treedef = flatten(tree)
    return dict(zip(paths(treedef), leaves))


def _is_saved(tree: Any) -> bool:
    if not is_container(tree):
        return True
    return (isinstance(tree, Mapping) or type(tree) in (list, tuple)) and all(map(_is_saved, parted_once(tree)[0]))


def encode(tree: Any, leaf: Callable[[Any, str], Any], what: str, remedy: str,
           is_one: Callable[[Any], bool] | None = None, name: str = "") -> Any:
    """A tree of mappings, lists and tuples as JSON takes it, with leaf(value, path) for each leaf.

    Raises TypeError, naming `what` and what to give instead, for any other container: it could not be made again.
    A mapping of another class becomes a dict; a container that `is_one` leaf is given to that whole.

    >>> encode({"W": 1.0, 0: (2.0, None)}, lambda value, path: path, "params", "give a dict")
    {'dict': [['W', 'W'], [0, {'tuple': ['0/0', None]}]]}
    """
    if tree is None:
        return None
    at = f" at {name!r}" * bool(name)
    if is_one is not None and is_one(tree):
        return leaf(tree, name)
    if isinstance(tree, Mapping) and is_container(tree):
        for key in tree:
            if type(key) not in (str, int):
                raise TypeError(f"{what} {_SAVED}. Got dict with the key {key!r}{at}, which is of "
                                f"{type(key).__name__}: write str(key) or int(key) in its place.")
        return {"dict": [[key, encode(value, leaf, what, remedy, is_one, within(name, text))]
                         for (key, value), text in zip(tree.items(), parts(tree))]}
    if type(tree) in (list, tuple):
        return {type(tree).__name__: [encode(value, leaf, what, remedy, is_one, within(name, str(k)))
                                      for k, value in enumerate(tree)]}
    if is_container(tree):
        raise TypeError(f"{what} {_SAVED}. Got {type(tree).__name__}{at}: {remedy}.")
    return leaf(tree, name)


def decode(node: Any, leaf: Callable[[Any], Any]) -> Any:
    """The tree that `encode` made a node of, with leaf(node) for each leaf."""
    if node is None:
        return None
    if not isinstance(node, dict):
        return leaf(node)
    if "dict" in node:
        return {key: decode(value, leaf) for key, value in node["dict"]}
    if "list" in node:
        return [decode(value, leaf) for value in node["list"]]
    return tuple(decode(value, leaf) for value in node["tuple"]) if "tuple" in node else leaf(node)
