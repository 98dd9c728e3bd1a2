"""Trees of arrays: nested dicts, lists, tuples, namedtuples, through optree.

A single array or number is a tree of one leaf and needs no optree.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from fallline._arrays.differences import difference, is_container, of_upper_levels, part
from fallline._arrays.libraries import library_of
from fallline._arrays.sealed import unsealed

__all__ = ["Treedef", "copy", "decode", "encode", "flatten", "is_container", "paths", "unlike_upper_levels"]


class Treedef:
    """The structure of a tree; that of a single leaf if `spec` is None."""

    __slots__ = ("spec",)

    def __init__(self, spec: Any = None) -> None:
        self.spec = spec

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Treedef) and self.spec == other.spec

    __hash__ = None  # type: ignore[assignment]

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
            for plain in (lambda: tree, lambda: unsealed(tree)):
                with suppress(ValueError, TypeError):
                    return self.spec.flatten_up_to(plain())
        raise ValueError(f"{what} must be a tree of the same structure as {than}: "
                         f"{difference(self.spec, unsealed(tree), what)}.")

    def spread(self, tree: Any) -> list[Any] | None:
        """What a tree of the same structure, or of its upper levels, has for each leaf; None if it is of another.

        >>> flatten({"a": 0.0, "b": [0.0, 0.0]})[1].spread({"b": 2.0, "a": 1.0})
        [1.0, 2.0, 2.0]
        """
        if self.spec is None:
            return None
        import optree

        places = self.spec.unflatten(range(self.spec.num_leaves))
        try:
            whole = optree.tree_map(lambda value, below: optree.tree_map(lambda _: value, below), tree, places)
            return self.spec.flatten_up_to(whole)  # by key: dicts differ in order, plain ones from OrderedDict
        except ValueError:
            return None


def unlike_upper_levels(treedef: Treedef, tree: Any) -> str:
    """The end of a sentence on a tree that `Treedef.spread` cannot take: where it differs."""
    return "" if treedef.spec is None or not is_container(tree) else f": {of_upper_levels(treedef.spec, tree)}"


def is_leaf(tree: Any) -> bool:
    """Whether a tree is a single leaf, told without optree: a number, or anything that has a dtype."""
    return isinstance(tree, (np.ndarray, float, int, complex)) or hasattr(tree, "dtype")


def flatten(tree: Any) -> tuple[list[Any], Treedef]:
    """The leaves of a tree and its structure. Dicts are taken in the order of their sorted keys.

    >>> leaves, treedef = flatten({"b": 1.0, "W": 2.0})
    >>> leaves, treedef.unflatten([0.0, 1.0])
    ([2.0, 1.0], {'b': 1.0, 'W': 0.0})
    """
    if is_leaf(tree):
        return [tree], Treedef()
    import optree

    leaves, spec = optree.tree_flatten(unsealed(tree))
    return leaves, Treedef(spec)


def holds_none(tree: Any) -> bool:
    """Whether None stands anywhere in a tree in a leaf's place."""
    if tree is None or is_leaf(tree):
        return tree is None
    import optree

    return any(leaf is None for leaf in optree.tree_leaves(tree, none_is_leaf=True))


def paths(treedef: Treedef) -> list[str]:
    """The name of each leaf, such as "layer1/W"; "" for a single leaf. An index of a list is a number: "blocks/0/W".

    No two leaves of a tree share a name. A key is written as it is, but for what could be taken for something else,
    which is written as in URLs: "/" in a key as "%2F", "%" as "%25", the first character of a string that looks like
    an index as its code ("%30" is the key "0", "0" the key 0), the empty key as "%". A key that is neither a string
    nor an integer has its type before it: "%float:0.5".

    Raises ValueError if containers of one's own give two leaves the same keys.

    >>> paths(flatten({"layer1": {"W": 0.0, "b": 0.0}})[1])
    ['layer1/W', 'layer1/b']
    >>> paths(flatten({"a/b": 0.0, "a": {"b": 0.0}, "c": [0.0, {"0": 0.0}]})[1])
    ['a/b', 'a%2Fb', 'c/0', 'c/1/%30']
    """
    if treedef.spec is None:
        return [""]
    names = ["/".join(map(part, path)) for path in treedef.spec.paths()]
    if len(set(names)) < len(names):
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise ValueError(f"Two leaves of the tree have the name {twice!r}: give their containers distinct keys.")
    return names


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


def encode(tree: Any, leaf: Callable[[Any, str], Any], what: str, path: tuple[Any, ...] = ()) -> Any:
    """A tree of dicts, lists and tuples as JSON takes it, with leaf(value, path) for each leaf.

    Raises TypeError, naming `what`, for any other container: it could not be made again.

    >>> encode({"W": 1.0, 0: (2.0, None)}, lambda value, path: path, "params")
    {'dict': [['W', 'W'], [0, {'tuple': ['0/0', None]}]]}
    """
    if tree is None:
        return None
    name = "/".join(map(part, path))
    at = f" at {name!r}" * bool(name)
    if isinstance(tree, dict):
        for key in tree:
            if type(key) not in (str, int):
                raise TypeError(f"{what} {_SAVED}. Got dict with the key {key!r}{at}, which is of "
                                f"{type(key).__name__}: write str(key) or int(key) in its place.")
        return {"dict": [[key, encode(value, leaf, what, (*path, key))] for key, value in tree.items()]}
    if type(tree) in (list, tuple):
        return {type(tree).__name__: [encode(value, leaf, what, (*path, k)) for k, value in enumerate(tree)]}
    if not is_leaf(tree) and not flatten(tree)[1].spec.is_leaf():
        raise TypeError(f"{what} {_SAVED}. Got {type(tree).__name__}{at}.")
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
