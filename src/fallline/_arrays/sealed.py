"""Trees that an optimizer hands out: to be read as those that they are made of, and refused where they are written."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict, deque
from typing import Any, NoReturn

import numpy as np

from fallline._arrays.containers import is_container, parted_once

__all__ = ["ReadOnly", "sealed", "unsealed"]

_WRITERS = ("__delitem__", "__iadd__", "__imul__", "__ior__", "__setitem__", "append", "appendleft", "clear", "extend",
            "extendleft", "insert", "move_to_end", "pop", "popitem", "popleft", "remove", "reverse", "rotate",
            "setdefault", "sort", "update")  # fmt: skip


def _refuse(self: Any, *_: Any, **__: Any) -> NoReturn:
    raise TypeError('What an optimizer returns is read-only. Assign a whole value, opt.lr = {...} or '
                    'opt.hyper["lr"] = {...}; set the state with opt.load_state_dict(d).')


def _made(base: type) -> type:
    """A class of `base` whose instances cannot be written; their copies and pickles are plain ones of it."""
    def reduced(self: Any, _: Any) -> tuple[Any, ...]:
        return base, (list(self.items()) if issubclass(base, dict) else list(self),)

    own: dict[str, Any] = {name: _refuse for name in _WRITERS if hasattr(base, name)}
    own |= {"copy": lambda self: base(self), "__reduce_ex__": reduced, "__slots__": (), "__module__": __name__}
    if issubclass(base, dict):
        own["__or__"] = lambda self, other: base(self) | other
    return type(base.__name__, (base,), own)


_SEALED: dict[type, Any] = {base: _made(base) for base in (dict, list, OrderedDict, deque)}
ReadOnly = _SEALED[dict]
_registered: set[str] = set()
_registering = threading.Lock()


def sealed(tree: Any) -> Any:
    """A tree in containers of its own that cannot be written, nor can its arrays of NumPy; tuples are their own.

    >>> lr = sealed({"a": 0.1, "b": [0.2]})
    >>> lr == {"a": 0.1, "b": [0.2]}, lr
    (True, {'a': 0.1, 'b': [0.2]})
    """
    if isinstance(tree, np.ndarray):
        tree = tree.view()
        tree.flags.writeable = False
        return tree
    if isinstance(tree, tuple):
        items = map(sealed, tree)
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    base: Any = next((base for base in (OrderedDict, dict, list, deque) if isinstance(tree, base)), None)
    if base is None and is_container(tree):  # of another class: it is handed out as a new one
        children, spec = parted_once(tree)
        return spec.unflatten(map(sealed, children))
    if base is None:
        return tree
    _register()
    new = _SEALED[base]()
    for key, item in tree.items() if isinstance(tree, dict) else ():
        base.__setitem__(new, key, sealed(item))
    if not isinstance(tree, dict):
        base.extend(new, map(sealed, tree))
    return new


def unsealed(tree: Any) -> Any:
    """A tree with plain containers in the place of those that cannot be written."""
    if not _registered:
        return tree
    import optree

    leaves, spec = optree.tree_flatten(tree)
    return spec.unflatten(leaves)


def _register() -> None:
    """Tell the libraries at hand that walk trees by type how to walk these: as those that they are made of."""
    at_hand = [("optree", _register_in_optree), *([("jax", _register_in_jax)] if "jax" in sys.modules else [])]
    if len(_registered) == len(at_hand):
        return
    with _registering:
        for library, register in at_hand:
            for kind in _SEALED.values() if library not in _registered else ():
                register(kind)
            _registered.add(library)


def _register_in_optree(kind: type) -> None:
    import optree
    from optree.registry import __GLOBAL_NAMESPACE as EVERYWHERE

    def apart(tree: Any) -> tuple[Any, ...]:
        children, spec = _apart(tree)
        return children, spec, spec.entries()

    optree.register_pytree_node(kind, apart, _together, namespace=EVERYWHERE)


def _register_in_jax(kind: type) -> None:
    keys = sys.modules["jax"].tree_util
    named = keys.DictKey if issubclass(kind, dict) else keys.SequenceKey

    def apart(tree: Any) -> tuple[Any, ...]:
        children, spec = _apart(tree)
        return list(zip(map(named, spec.entries()), children)), spec

    keys.register_pytree_with_keys(kind, apart, _together)


def _apart(tree: Any) -> tuple[list[Any], Any]:
    """The children of a container, and the structure of a plain one of its kind."""
    import optree

    plain = type(tree).__mro__[1](tree)
    return optree.tree_flatten(plain, is_leaf=lambda node: node is not plain)


def _together(spec: Any, children: Any) -> Any:
    return spec.unflatten(children)
