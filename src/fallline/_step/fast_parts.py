"""The short way of a partition: that of each part, none of which steps before all have rehearsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fallline._arrays.memory import address
from fallline._engines.llvm.sums import halve
from fallline._step.divided import Divided
from fallline._step.fast_step import FastStep

__all__ = ["Ready", "go", "ready"]


class Ready(NamedTuple):
    """A part's step, and its arrays and gradients as they were given and as it takes them."""

    step: FastStep
    given: tuple[Any, Any]
    xs: Any
    gs: Any


def ready(bound: Divided, steps: Mapping[str, FastStep], params: Any, grads: Any) -> list[Ready] | None:
    """The steps of the parts, rehearsed; None if the call must go the long way."""
    found = [bound.short(tree) for tree in (params, grads)]
    if None in found or not bound.lies_still(found[0]):
        return None
    parts = []
    for name, step in steps.items():
        given = tuple(bound.own(name, leaves) for leaves in found)
        parts.append(Ready(step, given, *map(step.as_arrays, given)))
    if not all(part.step.looks_right(part.xs, part.gs, None) for part in parts):
        return None
    for part in parts:
        part.step.ask(part.gs)
    for level in range(max(step.levels for step in steps.values())):
        now = {name: part for name, part in zip(steps, parts) if level < part.step.levels}
        if not all(part.step.read(level, part.xs, part.gs) and part.step.is_finite() for part in now.values()):
            return None
        _put_together(bound, level, {name: part.step for name, part in now.items()})
    return parts if all(part.step.rehearse(part.xs, part.gs, None) for part in parts) else None


def _put_together(bound: Divided, level: int, steps: Mapping[str, FastStep]) -> None:
    """Have each step know the totals of all leaves."""
    totals = {name: step.across(level) for name, step in steps.items()}
    width = max(len(columns) for _, columns, _ in totals.values())
    if width:
        rows = bound.rows({name: by_leaf[:, columns] for name, (by_leaf, columns, _) in totals.items()}, width)
        halve()(address(rows), *rows.shape)
        for _, columns, row in totals.values():
            row[columns] = rows[0, : len(columns)]


def go(parts: Sequence[Ready]) -> None:
    """Take the steps."""
    for part in parts:
        if not part.step.perform(part.xs, part.gs, None):
            raise RuntimeError("Arrays of a step were changed by another thread while it was taken.")
        part.step.mark(*part.given)
