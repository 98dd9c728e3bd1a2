"""The leaves of a call as native code reads them: a row for each, whichever group steps it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fallline._arrays.memory import address
from fallline._engines.llvm.layout import ABSENT, LAYOUT, ROW, STRIDED, pass_columns, row_width
from fallline._formula.program import Program, StateName
from fallline._step.group import Group

__all__ = ["Class", "Member", "Table", "Way"]


class Member(NamedTuple):
    """A leaf of a plan: its group, its number there and in the tree, and how its arrays lie ("plain": contiguous,
    "turned": all alike in another order of the axes, "strided": in any way)."""

    group: int
    own: int
    place: int
    lies: str


class Way(NamedTuple):
    """What a plan depends on: where results go, and whether there are outputs to put them in; which groups only hold;
    the leaves, and whether each of them counts its steps for itself, so that any may be without a gradient."""

    into: str
    has_out: bool
    holds: tuple[bool, ...]
    members: tuple[Member, ...]
    apart: bool


class Class(NamedTuple):
    """Leaves of a group that share their scalars: members by number, the first of which stands for all. Classes that
    are `alike` differ in what is known by leaf only, and share the scalars that do not depend on it."""

    group: int
    members: list[int]
    own: int
    dtype: np.dtype
    by_coordinate: tuple[tuple[int, ...], ...]
    alike: Any


class Table:
    """The rows of the leaves of these groups, each with its program, in a tree of so many leaves (`size`).

    `rows` are by member; `classes` are members that share their scalars; `columns` say where a row has what a pass
    needs, of which the readings come first (levels from 0) and the step is the last.
    """

    def __init__(self, groups: Sequence[Group], programs: Sequence[Program], way: Way, size: int) -> None:
        self.groups, self.programs, self.way, self.size = groups, programs, way, size
        self.names = [program.settings for program in programs]
        self.levels = max((len(program.readings) for program in programs), default=0)
        self.shapes = [_shape(groups[m.group], m.own) for m in way.members]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.classes = self._classes()
        self._lay_rows()
        self._lay_out()

    def program(self, group: int, level: int) -> Program | None:
        """What a group runs in a pass: its readings come first, its step is in the last."""
        own = self.programs[group]
        return own if level == self.levels else own.readings[level] if level < len(own.readings) else None

    def of_leaf(self, group: int) -> set[str]:
        """What programs of a group call the numbers that each leaf has for itself."""
        totals = {total.name for reading in self.programs[group].readings for total in reading.totals
                  if total.over == "leaf"}
        return totals | {StateName(f"state {slot}") for slot in self.groups[group].numbers.leaf}

    def settings_of(self, own: Class) -> list[Any]:
        """The settings of a class as they were given, in the order of its program."""
        return self.groups[own.group].given_settings(self.names[own.group], own.own)

    def _classes(self) -> list[Class]:
        classes: dict[Any, list[int]] = {}
        for k, m in enumerate(self.way.members):
            group, program = self.groups[m.group], self.programs[m.group]
            by_leaf = group.numbers.leaf or any(t.over == "leaf" for p in program.readings for t in p.totals)
            own = group.given_settings(program.settings, m.own)
            alone = self.way.apart or any(isinstance(s, np.ndarray) for s in own)
            settings = () if alone else tuple(id(s) if callable(s) else s for s in own)
            alike = m.group, k if alone else group.computed[m.own], settings
            classes.setdefault((alike, k if by_leaf else None), []).append(k)
        found = []
        for (alike, _), members in classes.items():
            first = self.way.members[members[0]]
            group, program = self.groups[first.group], self.programs[first.group]
            by_coordinate = tuple(group.by_coordinate(p, first.own) for p in (*program.readings, program))
            found.append(Class(first.group, members, first.own, group.computed[first.own], by_coordinate, alike))
        return found

    def _lay_rows(self) -> None:
        """A row for each leaf, in one run of memory; `columns` say where it has what a pass needs."""
        self._columns: list[list[dict[str, int]]] = [[] for _ in self.way.members]
        for own in self.classes:
            program = self.programs[own.group]
            columns = pass_columns((*program.readings, program), list(self.groups[own.group].state), own.by_coordinate)
            for k in own.members:
                self._columns[k] = columns
        widths = [row_width(columns, list(self.groups[m.group].state))
                  for columns, m in zip(self._columns, self.way.members)]
        starts = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
        self._words = np.zeros(max(1, int(starts[-1])), np.int64)
        self.rows = [self._words[a:b] for a, b in itertools.pairwise(starts)]
        self.row_at = address(self._words) + 8 * starts[:-1]
        for row, size in zip(self.rows, self.sizes):
            row[ROW["length"]] = size

    def columns(self, k: int, level: int) -> dict[str, int]:
        """Where the row of member k has what it needs in a pass, in which its group takes part."""
        return self._columns[k][-1 if level == self.levels else level]

    def _lay_out(self) -> None:
        """The layouts of leaves that do not lie contiguously."""
        self.layouts: dict[int, np.ndarray] = {}
        self.strides: dict[int, dict[str, np.ndarray]] = {}
        for k, m in enumerate(self.way.members):
            if m.lies == "plain":
                continue
            shape = self.shapes[k]
            own = {"shape": np.array(shape, np.int64), **{name: np.zeros(len(shape), np.int64) for name in STRIDED}}
            layout = np.zeros(len(LAYOUT), np.int64)
            layout[LAYOUT["nd"]] = len(shape)
            for name, array in own.items():
                layout[LAYOUT[name]] = address(array)
            self.layouts[k], self.strides[k] = layout, own
            if m.lies == "strided":
                self.rows[k][ROW["layout"]] = address(layout)

    def place(self, k: int, arrays: Mapping[str, np.ndarray | None]) -> None:
        """Note where the arrays of member k lie; of one without a gradient only its state."""
        row, m = self.rows[k], self.way.members[k]
        row[ROW["length"]] = ABSENT if arrays["g"] is None else self.sizes[k]
        for name, array in arrays.items():
            row[ROW[name]] = 0 if array is None else address(array)
            if array is not None and m.lies != "plain":
                self.strides[k][name][:] = array.strides
        for n, own in enumerate(self.groups[m.group].state.values(), len(ROW)):
            row[n] = address(own[m.own])


def _shape(group: Group, own: int) -> tuple[int, ...]:
    """The shape of a leaf's reals."""
    return group.shapes[own] + ((2,) if group.dtypes[own].kind == "c" else ())
