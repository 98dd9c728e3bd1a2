"""A checkpoint shared out among ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fallline._messages.values import brief
from fallline._optimizer.keeping import take
from fallline._optimizer.load import made
from fallline._state.file import Path, guarding
from fallline.mpi.domain import Domain, among
from fallline.mpi.keeping import Part, leaf_shapes, localized, read

__all__ = ["loaded"]


def loaded(others: Domain, path: Path, ranges: Any, rules: Sequence[Any], hyper: Mapping[str, Any]) -> Any:
    """See `fallline.mpi.load`."""
    contents = read(others, path)
    optimizer = made(path, contents, rules, lambda names: hyper)
    stepper, shapes = optimizer._stepper, leaf_shapes(contents)
    chains = {name: holder.chain for name, holder in stepper.holders.items()}
    numbers = [leaf for leaf, shape in shapes.items() if not shape]
    others.replicated |= set(numbers)
    if unknown := sorted(others.replicated - set(shapes)):
        raise ValueError(f"replicated of load must name leaves: {', '.join(map(repr, shapes))}. Got {unknown[0]!r}.")
    whole = _of_whole_leaves(contents.state, chains)
    given = _given(ranges, shapes)
    parts = {leaf: _part(leaf, shape, given.get(leaf), others, k if leaf in whole else None)
             for k, (leaf, shape) in enumerate(shapes.items())}
    others.known = {leaf: (part.start, shapes[leaf]) for leaf, part in parts.items()}
    among(others, optimizer)
    with guarding(path):
        contents = localized(contents, parts, chains)
    take(stepper, path, contents)
    return optimizer if contents.params is None else (optimizer, contents.params)


def _of_whole_leaves(state: Mapping[str, Any], chains: Mapping[str, Any]) -> set[str]:
    """The leaves of the parts whose rules are of whole leaves."""
    parts = state.get("parts", {"": state})
    return {leaf for name, chain in chains.items() if chain.rule.whole_leaf for leaf in parts[name]["leaves"] or {}}


def _given(ranges: Any, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The ranges that are given, by path."""
    if ranges is None:
        return {}
    if isinstance(ranges, Mapping):
        if unknown := [leaf for leaf in ranges if leaf not in shapes]:
            raise ValueError(f"ranges of load must name leaves: {', '.join(map(repr, shapes))}. Got {unknown[0]!r}.")
        return dict(ranges)
    if len(shapes) != 1:
        raise ValueError("ranges of load must be a dict by path, as there are several leaves: "
                         f"{', '.join(map(repr, shapes))}. Got {brief(ranges)}.")
    return dict.fromkeys(shapes, ranges)


def _part(leaf: str, shape: tuple[int, ...], given: Any, others: Domain, number: int | None) -> Part:
    """This rank's part of a leaf; with a `number` it is whole on one rank."""
    size, row = math.prod(shape), math.prod(shape[1:])
    if leaf in others.replicated:
        return Part(0, size, shape)
    if given is not None:
        start, stop = _range(leaf, given, size)
    elif number is not None:
        start, stop = (0, size) if number % others.size == others.rank else (0, 0)
    else:
        start, stop = (shape[0] * r // others.size * row for r in (others.rank, others.rank + 1))
    rows = shape[:1] and row and start % row == stop % row == 0
    return Part(start, stop, ((stop - start) // row, *shape[1:]) if rows else (stop - start,))


def _range(leaf: str, given: Any, size: int) -> tuple[int, int]:
    name = f"ranges of load{f' for {leaf!r}' * bool(leaf)}"
    try:
        start, stop = (int(end) for end in given)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be two whole numbers, (start, stop). Got {brief(given)}.") from None
    if not 0 <= start <= stop <= size:
        raise ValueError(f"{name} must be 0 ≤ start ≤ stop ≤ {size}. Got {brief(given)}.")
    return start, stop
