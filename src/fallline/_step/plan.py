"""The plan of a call: everything about it but its numbers, made for what it depends on and kept for calls like it.

A plan has a table of rows, one for each leaf, and a pass for each reading and for the step itself; a pass is one native
call over the rows. A call comes in one of two ways: checked in Python, which then has every leaf placed in the table,
or by a quick look of native code, which finds all as it was (`Look`). Either way nothing is changed before the last
pass, which counts the step as well: an interrupt finds it taken or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fallline._arrays.memory import address
from fallline._engines.arithmetic import is_standard, pinned
from fallline._engines.cpu.pool import perform
from fallline._step.calls.alone import ALONE, Alone
from fallline._step.calls.host import HostCall
from fallline._step.group import Group
from fallline._step.passes import Pass, StepPass, put_together
from fallline._step.table import Table
from fallline._step.values import asked, value_of

__all__ = ["Plan"]


class Plan:
    """The passes of a call over the rows of a table; so many coordinates at the head of each leaf others sum."""

    def __init__(self, table: Table, heads: Sequence[int]) -> None:
        self.table, self.way, self.groups = table, table.way, table.groups
        self.threads = table.groups[0].threads
        self.readings = [Pass(table, level, heads) for level in range(table.levels)]
        self.step = StepPass(table, table.levels)
        self._link()
        checks = table.groups[0].checks_finite
        self._proven = checks and bool(self.readings) and self.readings[0].proves()
        self.checks = self.step.check() if checks and not self._proven else None
        self.asks = any(map(callable, (s for own in table.classes for s in table.settings_of(own))))
        self.revalue()

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
        self._given = [self.table.settings_of(own) for own in self.table.classes]
        self._stale = self.asks
        if not self.asks:
            self.set_values(self._given)

    def _find_schedules(self) -> None:
        """Each schedule of a group once, with the places that its value goes to; settings that are none are set."""
        found: dict[Any, _Schedule] = {}
        values = [[0.0 if callable(s) else s for s in settings] for settings in self._given]
        self.set_values(values)
        for c, (own, settings) in enumerate(zip(self.table.classes, self._given)):
            for n, (q, s) in enumerate(zip(self.table.names[own.group], settings)):
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
        given, values = [self.table.settings_of(own) for own in self.table.classes], list[Sequence[Any] | None]()
        for own, settings in zip(self.table.classes, given):
            group = self.groups[own.group]
            if gradients[self.way.members[own.members[0]].place] is None and not group.numbers.tree:
                values.append(None)
                continue
            values.append([value_of(group.chain, q, s, int(group.count[0]), memos[own.group])
                           for q, s in zip(self.table.names[own.group], settings)])
        self.set_values(values)

    def take_over(self, calls: Sequence[HostCall]) -> None:
        """Take the values that checked calls have asked for."""
        given: list[Sequence[Any] | None] = []
        for own in self.table.classes:
            call, group = calls[own.group], self.groups[own.group]
            takes_part = own.own in call.live or group.numbers.tree
            given.append([group.given_value(q, own.own, call.t, call.memo)
                          for q in self.table.programs[own.group].settings] if takes_part else None)
        self.set_values(given)

    def set_values(self, values: Sequence[Sequence[Any] | None]) -> None:
        """Have the settings of each class be these, in the order of its program; None: it takes no part."""
        for each in (*self.readings, self.step):
            each.set_values(values)

    def is_finite(self) -> bool:
        """Whether gradients are, where that is known before anything is asked."""
        return self.checks is None or self.checks.perform(self.threads)

    def perform(self, job: np.ndarray) -> bool:
        """Do a job over the rows of all leaves."""
        return not perform(address(job), sum(self.table.sizes), self.threads)

    def run(self, others: Alone = ALONE) -> bool:
        """Take the step, with the values that are set; False, and nothing is done, if totals say that a gradient is not
        finite. Raises ValueError, having done nothing, if a dtype cannot hold a scalar, and what `others` refuse."""
        for level, each in enumerate(self.readings):
            each.evaluate()
            each.total(others.gather(level, each.read(self.threads)))
            put_together(self.table, each)
            if level == 0 and self._proven and not each.says_finite():
                return False
            if not others.is_one:
                others.know(each.known())
        self.step.evaluate()
        others.agree()
        self.step.job.perform(self.threads)
        return True


class _Schedule(NamedTuple):
    """A schedule of a group for a hyper-parameter, and where its value goes: into lists, and rows that passes read."""

    group: Group
    name: str
    function: Any
    settings: list[tuple[list[Any], int]]
    places: list[tuple[np.ndarray, int]]


def is_own(schedule: Any) -> bool:
    """Whether a schedule is one of fallline's own, which only uses Python's arithmetic."""
    return type(schedule).__module__.startswith("fallline.")
