"""A pass of a plan: one native call over the rows of the groups that take part, with the scalars that it needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fallline._arrays.dtypes import real
from fallline._arrays.memory import address
from fallline._engines.arithmetic import pinned
from fallline._engines.blocks import Blocks, block_count
from fallline._engines.cpu.engine import native_kernel
from fallline._engines.cpu.guard import evaluate as evaluate_natively
from fallline._engines.cpu.work import Cut, Job
from fallline._engines.llvm.finite import finite_check
from fallline._engines.llvm.layout import CLASS
from fallline._engines.llvm.scalars import native_scalars
from fallline._engines.llvm.sums import halve, totals
from fallline._formula.program import ACROSS, Program
from fallline._step.table import Table
from fallline._step.values import evaluate

__all__ = ["Pass", "StepPass", "put_together"]


class Pass:
    """A reading: its `job` puts the sums of blocks where `read` makes totals of them.

    Each class has a row of values of its program's `hyper`: hyper-parameters are set, and numbers that are known before
    are copied from where they stand (`link`). Scalars are evaluated by native code, or if it cannot, in Python.
    """

    def __init__(self, table: Table, level: int, heads: Sequence[int] = ()) -> None:
        self._table, self._level = table, level
        self._heads = heads or [0] * len(table.sizes)
        self.programs = [table.program(g, level) for g in range(len(table.groups))]
        self._members = [k for k, m in enumerate(table.way.members) if self.programs[m.group] is not None]
        self._classes = [c for c, own in enumerate(table.classes) if self.programs[own.group] is not None]
        self._records: list[list[int]] = []
        self._python: list[int] = []  # classes that native code cannot evaluate
        self._kept: dict[Any, np.ndarray] = {}  # scalars that differ by coordinate
        self._prepare_values()
        self._prepare_scalars()
        self._prepare_results()
        self.job = self._make_job()

    def _program(self, group: int) -> Program:
        program = self.programs[group]
        assert program is not None
        return program

    def _by_coordinate(self, c: int) -> tuple[int, ...]:
        table = self._table
        return table.classes[c].by_coordinate[-1 if self._level == table.levels else self._level]

    def _make_job(self) -> Job:
        table, kernel_of, self._check_of = self._table, {}, {}
        for c in self._classes:
            own, program = table.classes[c], self._program(table.classes[c].group)
            for k in own.members:
                m = table.way.members[k]
                stored = real(table.groups[m.group].dtypes[m.own])
                kernel_of[k] = native_kernel(program, stored, self._by_coordinate(c), table.columns(k, self._level),
                                             m.lies == "strided")
                self._check_of[kernel_of[k]] = stored.name, m.lies == "strided"
        self._kernels = list(dict.fromkeys(kernel_of[k] for k in self._members))
        self._cut = Cut([table.sizes[k] for k in self._members], table.row_at[self._members],
                        [self._kernels.index(kernel_of[k]) for k in self._members],
                        [self._heads[k] for k in self._members])
        return Job(self._cut, self._kernels)

    def check(self) -> Job:
        """The check whether the gradients of its rows are finite, cut as the pass is."""
        return Job(self._cut, checks=[finite_check(*self._check_of[kernel]) for kernel in self._kernels])

    # ---- scalars -----------------------------------------------------------------------------------------------------

    def _prepare_values(self) -> None:
        """A table of values for each group, with a row for each of its classes."""
        table = self._table
        of: dict[int, list[int]] = {}
        for c in self._classes:
            of.setdefault(table.classes[c].group, []).append(c)
        self._tables = {g: np.zeros((len(own), max(1, len(self._program(g).hyper)))) for g, own in of.items()}
        self._values = {c: self._tables[g][n] for g, own in of.items() for n, c in enumerate(own)}
        self._given: dict[int, Sequence[Any] | None] = {}
        settings = {g: {q: k for k, q in enumerate(table.programs[g].settings)} for g in of}
        self._places = {g: [(place, settings[g][q]) for place, q in enumerate(self._program(g).hyper)
                            if q in settings[g]] for g in of}  # fmt: skip

    def _prepare_scalars(self) -> None:
        """The scalars of each class, and where native code finds them."""
        table, self._constants, shared = self._table, {}, {}
        self._made_of: dict[int, Sequence[Any]] = {}  # by class: of what its scalars were made, if they last
        of_leaf = [table.of_leaf(group) for group in range(len(table.groups))]
        for c in self._classes:
            own, program = table.classes[c], self._program(table.classes[c].group)
            alike = own.alike if of_leaf[own.group].isdisjoint(program.hyper) else c
            is_first = alike not in shared
            if is_first:
                shared[alike] = np.zeros(max(1, len(program.scalars)), own.dtype)
            self._constants[c] = shared[alike]
            for k in own.members:
                table.rows[k][table.columns(k, self._level)["constants"]] = address(self._constants[c])
            if not is_first:
                continue
            function = 0 if self._by_coordinate(c) else native_scalars(program, own.dtype, program.scalars)
            if function:
                self._record(c, function, self._missed_of(c), address(self._constants[c]))
            else:
                self._python.append(c)

    def _missed_of(self, c: int) -> int:
        own = self._table.classes[c]
        return address(self._table.groups[own.group].missed[own.own :])

    def _record(self, c: int, function: int, missed: int, constants: int) -> None:
        """Have native code evaluate a function of the values of a class."""
        own = self._table.classes[c]
        tiny = int(np.array(np.finfo(own.dtype).tiny, np.float64).view(np.int64))
        count = address(self._table.groups[own.group].count)
        given = {"scalars": function, "count": count, "missed": missed, "tiny": tiny,
                 "hyper": address(self._values[c]), "constants": constants}  # fmt: skip
        self._records.append([given[name] for name in CLASS])

    def link(self, sources: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Say where numbers known before stand, by group and name: arrays of one, or of one for each leaf."""
        self._links = [(table[:, place], sources[g][name]) for g, table in self._tables.items()
                       for place, name in enumerate(self._program(g).hyper) if name in sources[g]]
        self.records = np.array(self._records, np.int64).reshape(-1, len(CLASS))

    @property
    def is_native(self) -> bool:
        """Whether nothing is evaluated in Python, nor copied from elsewhere before."""
        return not (self._python or self._links)

    def set_values(self, values: Sequence[Sequence[Any] | None]) -> None:
        """As `Plan.set_values`."""
        for c in self._classes:
            given = self._given[c] = values[c]
            if given is not None and c not in self._python:
                row = self._values[c]
                for place, at in self._places[self._table.classes[c].group]:
                    row[place] = given[at]

    def places(self, c: int, n: int) -> list[tuple[np.ndarray, int]]:
        """Where the value of the n-th setting of a class's program goes, if native code reads it."""
        if c not in self._values or c in self._python:
            return []
        return [(self._values[c], place) for place, at in self._places[self._table.classes[c].group] if at == n]

    def evaluate(self) -> None:
        """Evaluate the scalars; raises ValueError if a dtype cannot hold one."""
        for column, source in self._links:
            column[...] = source
        if len(self.records) and evaluate_natively()(address(self.records), len(self.records)):
            self._made_of.clear()
            again = self._classes
        else:
            again = self._python
        for c in again:
            if self._given[c] is not None:
                self._evaluate(c)

    def _evaluate(self, c: int) -> None:
        """Evaluate the scalars of a class in Python."""
        own = self._table.classes[c]
        group, given = self._table.groups[own.group], self._given[c]
        assert given is not None
        values: list[Any] = self._values[c].tolist()
        for place, at in self._places[own.group]:
            values[place] = given[at]
        values = values[: len(self._program(own.group).hyper)]
        if _same(self._made_of.get(c), values):  # as of settings by coordinate, which take a while
            return
        self._made_of.pop(c, None)
        with pinned(), np.errstate(all="ignore"):
            self._take_over(c, values, int(group.count[0] - group.missed[own.own]))
        if self._program(own.group).is_lasting:
            self._made_of[c] = values

    def _take_over(self, c: int, values: Sequence[Any], taken: int) -> None:
        """Have the scalars that are made of these values where they are read."""
        table, own = self._table, self._table.classes[c]
        group, program = table.groups[own.group], self._program(own.group)
        for i, scalar in enumerate(evaluate(group.chain, program, values, taken, own.dtype)[0]):
            if isinstance(scalar, np.ndarray) and scalar.ndim:
                k = own.members[0]
                both = (..., None) if group.dtypes[own.own].kind == "c" else ...  # parts have the coordinate's setting
                column = np.array(np.broadcast_to(np.asarray(scalar, own.dtype)[both], table.shapes[k]), order="C")
                self._kept[c, i] = column
                table.rows[k][table.columns(k, self._level)[f"scalar {i}"]] = address(column)
            else:
                self._constants[c][i] = scalar

    # ---- sums --------------------------------------------------------------------------------------------------------

    def _prepare_results(self) -> None:
        """For each group that reads: the sums of its blocks, and the totals of its leaves and of its tree."""
        self._blocks: dict[int, Blocks] = {}
        self._sums: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        table = self._table
        for g, program in enumerate(self.programs):
            own = [k for k in self._members if table.way.members[k].group == g]
            if program is None or not own:
                continue
            width = len(program.totals)
            blocks = Blocks.of([block_count(max(table.sizes[k] - self._heads[k], 0)) for k in own], width)
            for k, begin in zip(own, blocks.first):
                table.rows[k][table.columns(k, self._level)["sums"]] = (
                    address(blocks.sums) + int(begin) * blocks.sums.strides[0])
            self._blocks[g] = blocks
            self._sums[g] = np.zeros((len(own), width)), np.zeros((len(own), width))

    def sources(self) -> dict[int, dict[str, np.ndarray]]:
        """The totals of each group by name, live: an array of one number, or of one for each leaf."""
        return {g: {total.name: by_leaf[:, k] if total.over == "leaf" else tree[:1, k]
                    for k, total in enumerate(self._program(g).totals)}
                for g, (by_leaf, tree) in self._sums.items()}

    def read(self, threads: int | None) -> dict[int, Blocks]:
        """Read: the sums of blocks by group, in the order of its leaves; of one without a gradient they are 0."""
        for blocks in self._blocks.values():
            blocks.sums.fill(0.0)
        self.job.perform(threads)
        return self._blocks

    def total(self, found: Mapping[int, Blocks]) -> None:
        """Make totals of the sums of all blocks, which are overwritten."""
        for g, (by_leaf, tree) in self._sums.items():
            sums, first = found[g]
            totals()(address(sums), address(first), *by_leaf.shape, address(by_leaf), address(tree))

    def known(self) -> dict[int, dict[str, Any]]:
        """The totals of each group by name: a number, or one for each leaf."""
        return {g: {total.name: found[total.name].tolist() if total.over == "leaf" else found[total.name].item()
                    for total in self._program(g).totals} for g, found in self.sources().items()}

    def across(self) -> dict[int, tuple[np.ndarray, list[int], np.ndarray]]:
        """By group the totals of its leaves, which of them are ACROSS the trees of all groups, and the row to put these
        in."""
        return {g: (by_leaf, [k for k, t in enumerate(self._program(g).totals) if t.over == ACROSS], tree[0])
                for g, (by_leaf, tree) in self._sums.items()}

    def proves(self) -> bool:
        """Whether totals say of every gradient whether it is finite."""
        return all(program is not None and _proofs(program) for program in self.programs)

    def says_finite(self) -> bool:
        """Whether the totals say that the gradients are finite."""
        return all(math.isfinite(tree.item(k)) for g, (_, tree) in self._sums.items()
                   for k in _proofs(self._program(g)))


class StepPass(Pass):
    """The last pass: the step itself, which is counted, and new numbers of the state."""

    def _prepare_results(self) -> None:
        """Where new numbers are evaluated to, before the step takes them over."""
        table, self._sums, self._blocks = self._table, {}, {}
        self._copies: list[tuple[np.ndarray, np.ndarray]] = []
        self._fresh: dict[int, dict[str, np.ndarray]] = {}  # by class: new numbers of its leaf
        self._of_tree: dict[int, dict[str, np.ndarray]] = {}  # by the class that stands for a group: those of the tree
        self._none_missed = np.zeros(1, np.int64)
        met: set[int] = set()
        for c in self._classes:
            own = table.classes[c]
            numbers, made = table.groups[own.group].numbers, dict(self._program(own.group).numbers)
            if own.group not in met:
                self._of_tree[c] = self._evaluated_to(c, [slot for slot in numbers.tree if slot in made],
                                                      address(self._none_missed))
            self._fresh[c] = self._evaluated_to(c, [slot for slot in numbers.leaf if slot in made], self._missed_of(c))
            met.add(own.group)

    def _evaluated_to(self, c: int, slots: Sequence[str], missed: int) -> dict[str, np.ndarray]:
        """Where new numbers of these slots are put, evaluated by the values of a class."""
        if not slots:
            return {}
        own = self._table.classes[c]
        numbers, program = self._table.groups[own.group].numbers, self._program(own.group)
        fresh, made = np.zeros(len(slots)), dict(program.numbers)
        function = native_scalars(program, np.dtype(np.float64), tuple(made[slot] for slot in slots))
        if function and c not in self._python:
            self._record(c, function, missed, address(fresh))
        elif c not in self._python:
            self._python.append(c)
        found = {slot: fresh[n : n + 1] for n, slot in enumerate(slots)}
        for slot, new in found.items():
            at = own.own if slot in numbers.leaf else 0
            self._copies.append((numbers.by_slot[slot][at : at + 1], new))
        return found

    def _take_over(self, c: int, values: Sequence[Any], taken: int) -> None:
        super()._take_over(c, values, taken)
        own = self._table.classes[c]
        group, program = self._table.groups[own.group], self._program(own.group)
        for wanted, steps in ((self._fresh[c], taken), (self._of_tree.get(c, {}), int(group.count[0]))):
            if wanted:
                new = dict(zip(dict(program.numbers), evaluate(group.chain, program, values, steps, own.dtype)[1]))
                for slot, place in wanted.items():
                    place[0] = new[slot]

    def _make_job(self) -> Job:
        job, table = super()._make_job(), self._table
        job.count([group.count for group, holds in zip(table.groups, table.way.holds) if not holds],
                  self._missed_at() if table.way.apart else None)
        job.copy(self._copies)
        return job

    def _missed_at(self) -> np.ndarray:
        """Of each leaf where is counted that it was absent; of one that is only held, where nobody reads it."""
        table = self._table
        self._nowhere = np.zeros(1, np.int64)
        return np.array([address(self._nowhere) if table.way.holds[m.group] else
                         address(table.groups[m.group].missed[m.own :]) for m in table.way.members], np.int64)


def _same(values: Sequence[Any] | None, others: Sequence[Any]) -> bool:
    """Whether settings are those of before, to the sign of 0; arrays of settings are never written."""
    return values is not None and all(
        a is b or (type(a) is type(b) is float and a == b and math.copysign(1.0, a) == math.copysign(1.0, b))
        for a, b in zip(values, others))


def put_together(table: Table, each: Pass) -> None:
    """Have each group know the totals ACROSS the trees of all."""
    found = each.across()
    width = max((len(columns) for _, columns, _ in found.values()), default=0)
    if not width:
        return
    rows = np.zeros((table.size, width))
    for g, (by_leaf, columns, _) in found.items():
        places = [m.place for m in table.way.members if m.group == g]
        rows[places, : len(columns)] = by_leaf[:, columns]
    halve()(address(rows), *rows.shape)
    for _, columns, row in found.values():
        row[columns] = rows[0, : len(columns)]


def _proofs(reading: Program) -> list[int]:
    """The totals, by place, that are finite only if every gradient is."""
    g = reading.inputs.index("g") if "g" in reading.inputs else -1
    return [k for k, (total, (_, v)) in enumerate(zip(reading.totals, reading.outputs))
            if total.kind == "high" and v == g]
