"""The plan of a call: everything about it but its numbers, made for what it depends on and kept for calls like it.

A plan has a row for each leaf, whichever group steps it, and a pass for each reading and for the step itself; a pass is
one native call over the rows. A call comes in one of two ways: checked in Python, which then has every leaf `place`d,
or by a quick look of native code, which finds all as it was (`Look`). Either way nothing is changed before the last
pass, which counts the step as well: an interrupt finds it taken or not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fallline._arrays.memory import address
from fallline._engines.arithmetic import is_standard, pinned
from fallline._engines.cpu.pool import perform
from fallline._engines.llvm.layout import ABSENT, LAYOUT, ROW, STRIDED, pass_columns, row_width
from fallline._formula.program import Program
from fallline._step.calls.host import HostCall
from fallline._step.group import Group
from fallline._step.passes import Pass, StepPass, put_together
from fallline._step.values import asked, value_of

__all__ = ["Member", "Plan", "Way"]


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
    """Leaves of a group that share their scalars: members by number, the first of which stands for all."""

    group: int
    members: list[int]
    own: int
    dtype: np.dtype
    by_coordinate: tuple[tuple[int, ...], ...]


class Plan:
    """The passes of a call of these groups, each with its program, for a tree of so many leaves (`size`)."""

    def __init__(self, groups: Sequence[Group], programs: Sequence[Program], way: Way, size: int) -> None:
        self.groups, self.programs, self.way, self.size = groups, programs, way, size
        self._names = [program.settings for program in programs]
        self.levels = max((len(program.readings) for program in programs), default=0)
        self.threads = groups[0].threads
        self.shapes = [_shape(groups[m.group], m.own) for m in way.members]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.classes = self._classes()
        self._lay_rows()
        self._lay_out()
        self.readings = [Pass(self, level) for level in range(self.levels)]
        self.step = StepPass(self, self.levels)
        self._link()
        self._proven = groups[0].checks_finite and bool(self.readings) and self.readings[0].proves()
        self.checks = self.step.check() if groups[0].checks_finite and not self._proven else None
        self.asks = any(map(callable, (s for own in self.classes for s in self.settings_of(own))))
        self.revalue()

    # ---- made once ---------------------------------------------------------------------------------------------------

    def program(self, group: int, level: int) -> Program | None:
        """What a group runs in a pass: its readings come first, its step is in the last."""
        own = self.programs[group]
        return own if level == self.levels else own.readings[level] if level < len(own.readings) else None

    def settings_of(self, own: Class) -> list[Any]:
        """The settings of a class as they were given, in the order of its program."""
        return self.groups[own.group].given_settings(self._names[own.group], own.own)

    def _classes(self) -> list[Class]:
        alike: dict[Any, list[int]] = {}
        for k, m in enumerate(self.way.members):
            group, program = self.groups[m.group], self.programs[m.group]
            by_leaf = group.numbers.leaf or any(t.over == "leaf" for p in program.readings for t in p.totals)
            own = group.given_settings(program.settings, m.own)
            alone = self.way.apart or by_leaf or any(isinstance(s, np.ndarray) for s in own)
            settings = () if alone else tuple(id(s) if callable(s) else s for s in own)
            alike.setdefault((m.group, k if alone else group.computed[m.own], settings), []).append(k)
        found = []
        for members in alike.values():
            first = self.way.members[members[0]]
            group, program = self.groups[first.group], self.programs[first.group]
            by_coordinate = tuple(group.by_coordinate(p, first.own) for p in (*program.readings, program))
            found.append(Class(first.group, members, first.own, group.computed[first.own], by_coordinate))
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

    def _link(self) -> None:
        """Have each pass know where the numbers come from that it depends on: state, and totals of readings before."""
        sources = [group.numbers.sources() for group in self.groups]
        for each in (*self.readings, self.step):
            each.link(sources)
            for g, found in each.sources().items():
                sources[g] = sources[g] | found

    # ---- for a call --------------------------------------------------------------------------------------------------

    def revalue(self) -> None:
        """Take settings as they are now; of schedules their values are asked for by each call."""
        self._given = [self.settings_of(own) for own in self.classes]
        self._stale = self.asks
        if not self.asks:
            self.set_values(self._given)

    def _find_schedules(self) -> None:
        """Each schedule of a group once, with the places that its value goes to; settings that are none are set."""
        found: dict[Any, _Schedule] = {}
        values = [[0.0 if callable(s) else s for s in settings] for settings in self._given]
        self.set_values(values)
        for c, (own, settings) in enumerate(zip(self.classes, self._given)):
            for n, (q, s) in enumerate(zip(self._names[own.group], settings)):
                if callable(s):
                    each = found.setdefault((own.group, q, id(s)), _Schedule(self.groups[own.group], q, s, [], []))
                    each.settings.append((values[c], n))
                    each.places.extend(place for p in (*self.readings, self.step) for place in p.places(c, n))
        self._schedules = list(found.values())
        self._strange = not all(is_own(each.function) for each in self._schedules)

    def ask(self, gradients: Sequence[Any]) -> None:
        """Ask the schedules of the leaves that take part, after as many steps as are completed."""
        if self._stale:
            self._find_schedules()
            self._stale = False
        if self._strange or self.way.apart or not is_standard():
            with pinned(), np.errstate(all="ignore"):  # as where all is checked
                self._ask(gradients)
        else:
            self._ask(gradients)

    def _ask(self, gradients: Sequence[Any]) -> None:
        if self.way.apart:
            return self._ask_some(gradients)
        for group, q, schedule, settings, places in self._schedules:
            value = asked(group.chain, q, schedule, int(group.count[0]))
            for given, n in settings:
                given[n] = value
            for row, place in places:
                row[place] = value
        return None

    def _ask_some(self, gradients: Sequence[Any]) -> None:
        """The same where leaves may be absent, whose schedules are left alone."""
        memos: list[dict[Any, Any]] = [{} for _ in self.groups]
        given, values = [self.settings_of(own) for own in self.classes], list[Sequence[Any] | None]()
        for own, settings in zip(self.classes, given):
            group = self.groups[own.group]
            if gradients[self.way.members[own.members[0]].place] is None and not group.numbers.tree:
                values.append(None)
                continue
            values.append([value_of(group.chain, q, s, int(group.count[0]), memos[own.group])
                           for q, s in zip(self._names[own.group], settings)])
        self.set_values(values)

    def take_over(self, calls: Sequence[HostCall]) -> None:
        """Take the values that checked calls have asked for."""
        given: list[Sequence[Any] | None] = []
        for own in self.classes:
            call, group = calls[own.group], self.groups[own.group]
            takes_part = own.own in call.live or group.numbers.tree
            given.append([group.given_value(q, own.own, call.t, call.memo)
                          for q in self.programs[own.group].settings] if takes_part else None)
        self.set_values(given)

    def set_values(self, values: Sequence[Sequence[Any] | None]) -> None:
        """Have the settings of each class be these, in the order of its program; None: it takes no part."""
        for each in (*self.readings, self.step):
            each.set_values(values)

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

    def is_finite(self) -> bool:
        """Whether gradients are, where that is known before anything is asked."""
        return self.checks is None or self.checks.perform(self.threads)

    def perform(self, job: np.ndarray) -> bool:
        """Do a job over the rows of all leaves."""
        return not perform(address(job), sum(self.sizes), self.threads)

    def run(self) -> bool:
        """Take the step, with the values that are set; False, and nothing is done, if totals say that a gradient is not
        finite. Raises ValueError, having done nothing, if a dtype cannot hold a scalar."""
        for each in self.readings:
            each.evaluate()
            each.read(self.threads)
            put_together(self, each)
            if each is self.readings[0] and self._proven and not each.says_finite():
                return False
        self.step.evaluate()
        self.step.job.perform(self.threads)
        return True


def _shape(group: Group, own: int) -> tuple[int, ...]:
    """The shape of a leaf's reals."""
    return group.shapes[own] + ((2,) if group.dtypes[own].kind == "c" else ())


class _Schedule(NamedTuple):
    """A schedule of a group for a hyper-parameter, and where its value goes: into lists, and rows that passes read."""

    group: Group
    name: str
    function: Any
    settings: list[tuple[list[Any], int]]
    places: list[tuple[np.ndarray, int]]


def is_own(schedule: Any) -> bool:
    """Whether a schedule is one of fallline's own, which only uses Python's arithmetic."""
    return type(schedule).__module__.startswith("fallline.schedules")
