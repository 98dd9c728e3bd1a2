"""Where a tree differs from another that it should be like, in words; and what its places are called."""

from __future__ import annotations

import re
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

from fallline._messages.remedies import instead, is_converted

__all__ = ["difference", "is_container", "of_upper_levels", "part"]

_DICTS = (dict, OrderedDict, defaultdict)
_SHOWN = 5  # differences, of many


def part(key: Any) -> str:
    """One part of a path; see `trees.paths`."""
    if type(key) is int:
        return str(key)
    text = str(key).replace("%", "%25").replace("/", "%2F")
    if not isinstance(key, str):
        return f"%{type(key).__name__}:{text}"
    if re.fullmatch("-?[0-9]+", text):
        return f"%{ord(text[0]):02X}{text[1:]}"
    return text or "%"


def is_container(value: Any) -> bool:
    """Whether a value is one of the containers that trees are made of; classes made of these are none."""
    return type(value) in (*_DICTS, list, tuple, deque) or (isinstance(value, tuple) and hasattr(value, "_fields"))


def _never(tree: Any) -> bool:
    return False


def of_upper_levels(spec: Any, tree: Any) -> str:
    """As `difference`, of a tree in which what is no container stands for all that is below.

    >>> import optree
    >>> of_upper_levels(optree.tree_structure({"a": [1.0, 1.0], "b": {"c": 1.0}}), {"a": 1.0, "b": {"d": 1.0}})
    "missing 'b/c'; unexpected 'b/d'"
    """
    return difference(spec, tree, "", lambda value: value is not None and not is_container(value))


def difference(spec: Any, tree: Any, what: str, stands_for_all: Callable[[Any], bool] = _never) -> str:
    """In what a tree (`what` messages call it) differs from the structure `spec` of optree; None: a single leaf.

    >>> import optree
    >>> difference(optree.tree_structure({"a": [1.0], "b": None}), {"a": (1.0,)}, "grads")
    "missing 'b' (None); 'a' must be a list, not a tuple"
    """
    if spec is None:
        return f"a single array. Got {_called(tree)}{_tail(tree, what)}"
    if tail := _tail(tree, what):
        return f"got {_called(tree)}{tail}"
    found = list(_found(spec, tree, "", what, stands_for_all))
    said = []
    for word in ("missing ", "unexpected ", ""):
        texts = [text for kind, text in found if kind == word]
        said += [f"{word}{', '.join(texts[:_SHOWN])}{' ...' * (len(texts) > _SHOWN)}"] * bool(texts)
    return "; ".join(said) or f"got {_called(tree)}"


def _found(spec: Any, tree: Any, place: str, what: str, stands_for_all: Callable[[Any], bool]
           ) -> Iterator[tuple[str, str]]:
    """The differences at a place and below: as what ("missing ", "unexpected " or "") with the text that names it."""
    if stands_for_all(tree):
        return
    if spec.is_leaf():
        if is_container(tree):
            yield "", f"{_named(place)} must be one array, not {_called(tree)}"
        return
    theirs = _children(tree)
    if theirs is None or not (type(tree) is spec.type or {type(tree), spec.type} <= set(_DICTS)):
        yield "", (f"{_named(place)} must be {_called(spec.type)}, not {_called(tree, spec.type)}"
                   f"{_tail(tree, what)}")
    if theirs is None:
        return
    ours = dict(zip(spec.entries(), spec.children()))
    for key, below in ours.items():
        if key in theirs:
            yield from _found(below, theirs[key], _within(place, key), what, stands_for_all)
        else:
            yield "missing ", _named(_within(place, key), key, None if below.is_leaf() else below.type)
    for key in theirs:
        if key not in ours:
            yield "unexpected ", _named(_within(place, key), key)


def _tail(tree: Any, what: str) -> str:
    """What to pass in the place of what is neither a tree nor an array."""
    is_array = isinstance(tree, (float, complex)) or (
        getattr(tree, "dtype", None) is not None and not is_converted(tree))
    return "" if is_array or is_container(tree) else instead(tree, what)


def _children(tree: Any) -> dict[Any, Any] | None:
    """What a container holds, by key or index; None for what is no container."""
    import optree

    children, spec = optree.tree_flatten(tree, is_leaf=lambda node: node is not tree)
    return None if spec.is_leaf() else dict(zip(spec.entries(), children))


def _within(place: str, key: Any) -> str:
    return f"{place}/{part(key)}" if place else part(key)


def _named(place: str, key: Any = "", kind: type | None = None) -> str:
    """A place as messages name it, with the key where the path does not show it, and what stands there."""
    if not place:
        return "it"
    notes = [f"the key {key!r}"] * (isinstance(key, str) and part(key) != (key or part(key)))
    notes += [_called(kind)] * (kind is not None)
    return f"{place!r} ({', '.join(notes)})" if notes else repr(place)


def _called(value: Any, like: type | None = None) -> str:
    """What messages call a thing, or a thing of a type."""
    kind = value if isinstance(value, type) else type(value)
    if kind is type(None):
        return "None"
    article = "another" if like is not None and kind.__name__ == like.__name__ else \
        "an" if re.match("[aeio]|nd", kind.__name__, re.IGNORECASE) else "a"
    return f"{article} {kind.__name__}{' (a namedtuple)' * hasattr(kind, '_fields')}"
