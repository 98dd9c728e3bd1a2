"""Where a tree differs from another that it should be like, in words; and what its places are called."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from fallline._arrays.containers import is_container, is_mapping, parted_once
from fallline._messages.remedies import instead, is_converted

__all__ = ["difference", "of_upper_levels", "part", "parts", "within"]

_SHOWN = 5  # differences, of many


def parts(keys: Iterable[Any]) -> list[str]:
    """What the keys of one container are called in paths; see `trees.paths`."""
    keys = list(keys)
    texts = [str(key) or "%" for key in keys]
    known = set(texts)
    clear = len(known) == len(texts) and not any(
        text[: slash.start()] in known for text in texts for slash in re.finditer("/", text))
    return texts if clear else list(map(part, keys))


def part(key: Any) -> str:
    """A key so written that no two keys are called alike, wherever they stand."""
    if type(key) is int:
        return str(key)
    text = str(key).replace("%", "%25").replace("/", "%2F")
    if not isinstance(key, str):
        return f"%{type(key).__name__}:{text}"
    if re.fullmatch("-?[0-9]+", text):
        return f"%{ord(text[0]):02X}{text[1:]}"
    return text or "%"


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
    if theirs is None or not (type(tree) is spec.type or (isinstance(tree, Mapping) and is_mapping(spec))):
        yield "", (f"{_named(place)} must be {_called(spec.type)}, not {_called(tree, spec.type)}"
                   f"{_tail(tree, what)}")
    if theirs is None:
        return
    ours = dict(zip(spec.entries(), spec.children()))
    keys = [*ours, *(key for key in theirs if key not in ours)]
    texts = dict(zip(keys, parts(keys)))
    for key, below in ours.items():
        at = within(place, texts[key])
        if key in theirs:
            yield from _found(below, theirs[key], at, what, stands_for_all)
        else:
            yield "missing ", _named(at, texts[key], key, None if below.is_leaf() else below.type)
    for key in keys[len(ours) :]:
        yield "unexpected ", _named(within(place, texts[key]), texts[key], key)
    if [*ours] == [*theirs] and type(tree) is spec.type and not _is_alike(spec, tree):
        yield "", f"{_named(place)} must be {_called(spec.type)} with the same static fields"


def _tail(tree: Any, what: str) -> str:
    """What to pass in the place of what is neither a tree nor an array."""
    is_array = isinstance(tree, (float, complex)) or (
        getattr(tree, "dtype", None) is not None and not is_converted(tree))
    return "" if is_array or is_container(tree) else instead(tree, what)


def _children(tree: Any) -> dict[Any, Any] | None:
    """What a container holds, by key or index; None for what is no container."""
    children, spec = parted_once(tree)
    return None if spec.is_leaf() else dict(zip(spec.entries(), children))


def _is_alike(spec: Any, tree: Any) -> bool:
    """Whether a container is as the top of a structure in what is not within it."""
    return bool(parted_once(tree)[1] == parted_once(spec.unflatten(range(spec.num_leaves)))[1])


def within(place: str, text: str) -> str:
    """The path of what is called so in the container of a path."""
    return f"{place}/{text}" if place else text


def _named(place: str, text: str = "", key: Any = "", kind: type | None = None) -> str:
    """A place as messages name it, with the key where the path does not show it, and what stands there."""
    if not place:
        return "it"
    notes = [f"the key {key!r}"] * (isinstance(key, str) and text != (key or text))
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
