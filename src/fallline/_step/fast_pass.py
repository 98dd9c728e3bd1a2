"""One native call over the leaves of a step that goes the short way: the step itself, or a reading before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fallline._arrays.dtypes import real
from fallline._arrays.memory import address
from fallline._arrays.trees import Treedef
from fallline._engines.blocks import block_count
from fallline._engines.cpu.engine import native_kernel
from fallline._engines.cpu.guard import ALIGNED, COMPARE, CONTIGUOUS, GROUP, PLAN, TAKE, WRITEABLE, bound_call
from fallline._engines.cpu.pool import perform
from fallline._engines.cpu.work import Job
from fallline._engines.llvm.finite import finite_check
from fallline._engines.llvm.layout import CONSTANTS, EXTRA, JOB, LAYOUT, STRIDES
from fallline._engines.llvm.scalars import native_scalars
from fallline._engines.llvm.strided import Strided, strided_kernel
from fallline._engines.llvm.text import CHUNK
from fallline._formula.program import INCREMENT, Program
from fallline._step.numbers import Numbers

__all__ = ["Arrays", "Group", "Leaves", "Pass", "Shared"]


class Arrays(NamedTuple):
    """The arrays of a call, leaf by leaf: state by slot; parameters and outputs, none if the program has none or they
    are to be new; whether one of a leaf's arrays is strided; whether torch tensors are among them; where else is
    written in the same call (byte ranges)."""

    state: Mapping[str, Sequence[np.ndarray]]
    xs: Sequence[np.ndarray]
    outs: Sequence[np.ndarray]
    strided: Sequence[bool]
    tensors: bool
    beside: Sequence[tuple[int, int]] = ()


class Leaves(NamedTuple):
    """What is known of the leaves: structure, shapes, dtypes, and where the state of all lies (byte ranges)."""

    treedef: Treedef
    shapes: Sequence[tuple[int, ...]]
    dtypes: Sequence[np.dtype]
    state: Sequence[tuple[int, int]]


class Group(NamedTuple):
    """Leaves, by number, that share the dtype they are computed in and the number of steps that they missed, and so
    their scalars."""

    leaves: Sequence[int]
    dtype: np.dtype


class Shared(NamedTuple):
    """What the passes of a step share: `sizes` are the leaves' numbers of reals, `dims` their shapes as arrays,
    `starts` and `furthest` where the step writes; `taken` and `missed` are the completed steps and how many of them a
    leaf did not take, which it may if it `may_miss`; `threads` how many may take part."""

    leaves: Leaves
    groups: Sequence[Group]
    sizes: Sequence[int]
    dims: Sequence[np.ndarray]
    starts: np.ndarray
    furthest: np.ndarray
    taken: np.ndarray
    missed: np.ndarray
    may_miss: bool
    threads: int | None


class Pass:
    """A program over the leaves, whose `arrays` it does not keep. `values` is a row for each group, to be filled with
    those of `program.hyper`.

    A program that only reads puts the sums of a block (see `blocks`) into `sums`, where those of leaf k begin at block
    `first[k]`; another counts the step, and renews the `numbers` of the state.
    """

    def __init__(self, program: Program, shared: Shared, arrays: Arrays, checks_finite: bool,
                 numbers: Numbers | None = None) -> None:
        self.program, self._shared = program, shared
        self._column = {name: place for place, name in enumerate(program.arrays, 1)}
        self.takes_x = "x" in self._column
        self.links: list[tuple[np.ndarray, np.ndarray]] = []
        self._is_new = INCREMENT in self._column and not arrays.outs
        self._prepare_job(arrays, checks_finite)
        self._prepare_groups()
        self.in_python = not all(row[GROUP["scalars"]] for row in self._rows)
        self._prepare_numbers(numbers)
        self._prepare_layouts(arrays)
        self._expected = self._prepare_expected()

    def _prepare_job(self, arrays: Arrays, checks_finite: bool) -> None:
        leaves, sizes = self._shared.leaves, self._shared.sizes
        kind_of = list(zip(map(real, leaves.dtypes), arrays.strided))
        kinds = sorted(set(kind_of), key=kind_of.index)
        width = len(self.program.arrays) + bool(self.program.totals) + EXTRA
        self._job = Job(sizes, width, [kinds.index(kind) for kind in kind_of])
        for name, addressed in {**arrays.state, "x": arrays.xs, INCREMENT: arrays.outs}.items():
            if addressed and name in self._column:
                self._job.table[:, self._column[name]] = [address(a) for a in addressed]
        kernels = [_kernel(self.program, *kind) for kind in kinds]
        self._job.run(*(kernel.chunks for kernel in kernels))
        if checks_finite:
            self._job.check(self._column["g"], *(kernel.finite for kernel in kernels))
        if self.program.totals:
            self._prepare_sums(sizes)
        elif not {"x", INCREMENT}.isdisjoint(dict(self.program.outputs)):  # else it only holds the state
            self._job.count(self._shared.taken, self._shared.missed if self._shared.may_miss else None)
        self.at_once = self._job.size <= CHUNK  # a few microseconds, for which the interpreter's lock may be held

    def _prepare_sums(self, sizes: Sequence[int]) -> None:
        self.first = np.concatenate([[0], np.cumsum([block_count(size) for size in sizes])]).astype(np.int64)
        self.sums = np.zeros((int(self.first[-1]) + 1, len(self.program.totals)))
        self._job.table[:, len(self.program.arrays) + 1] = address(self.sums) + self.first[:-1] * self.sums.strides[0]

    def _prepare_groups(self) -> None:
        """The scalars of each group: where they lie, and how they are found."""
        groups = self._shared.groups
        self.constants = [np.zeros(max(1, len(self.program.scalars)), group.dtype) for group in groups]
        self.values = np.zeros((len(groups), max(1, len(self.program.hyper))))
        self._rows: list[list[int]] = []
        for k, (group, constants) in enumerate(zip(groups, self.constants)):
            self._job.table[list(group.leaves), CONSTANTS] = address(constants)
            function = native_scalars(self.program, group.dtype, self.program.scalars)
            self._add_row(k, function, address(self._shared.missed[group.leaves[0] :]), address(constants))

    def _add_row(self, k: int, function: int, missed: int, constants: int) -> None:
        """Have native code evaluate a function of the values of group k."""
        tiny = int(np.array(np.finfo(self._shared.groups[k].dtype).tiny, np.float64).view(np.int64))
        given = {"scalars": function, "missed": missed, "tiny": tiny, "hyper": address(self.values[k]),
                 "constants": constants}  # fmt: skip
        self._rows.append([given[name] for name in GROUP])

    def _prepare_numbers(self, numbers: Numbers | None) -> None:
        """Have the state that is one number evaluated into `_fresh`, and taken over once the step is taken."""
        if numbers is None or not numbers.values.size:
            return
        self._fresh, self._none_missed = numbers.values.copy(), np.zeros(1, np.int64)
        step_of, double = dict(self.program.numbers), np.dtype(np.float64)
        if numbers.tree:
            function = native_scalars(self.program, double, tuple(step_of[name] for name in numbers.tree))
            self._add_row(0, function, address(self._none_missed), address(self._fresh))
        if numbers.leaf:
            function = native_scalars(self.program, double, tuple(step_of[name] for name in numbers.leaf))
            for k in range(len(self._shared.groups)):
                place = self._fresh[len(numbers.tree) + k * len(numbers.leaf) :]
                self._add_row(k, function, address(self._shared.missed[k:]), address(place))
        self._job.renew(numbers.values, self._fresh)

    def _prepare_layouts(self, arrays: Arrays) -> None:
        """Of each strided leaf its layout, with the strides that parameters and outputs must have."""
        columns, leaves = self._job.table.shape[1] - EXTRA, self._shared.leaves
        self._strides: list[np.ndarray] = []
        self._layouts: dict[int, np.ndarray] = {}
        for k in (k for k, strided in enumerate(arrays.strided) if strided):
            dims = self._shared.dims[k]
            layout = np.zeros(STRIDES + 2 * columns, np.int64)
            layout[:STRIDES] = len(leaves.shapes[k]), address(dims)
            for name, fixed in (("x", arrays.xs), ("g", ()), (INCREMENT, arrays.outs)):
                if name in self._column:
                    self._strides.append(np.array(fixed[k].strides if fixed else dims, np.int64))
                    place = STRIDES + self._column[name] - 1
                    layout[place] = address(self._strides[-1])
                    layout[place + columns] = address(self._strides[-1]) if fixed else 0
            self._layouts[k] = layout
            self._job.table[k, LAYOUT] = address(layout)

    def _prepare_expected(self) -> np.ndarray:
        leaves, table = self._shared.leaves, self._job.table
        return np.array(
            [[id(dtype), id(dtype.type), len(shape), address(dims), self._shared.sizes[k], real(dtype).itemsize,
              0 if k in self._layouts else CONTIGUOUS, table[k, LAYOUT]]
             for k, (shape, dtype, dims) in enumerate(zip(leaves.shapes, leaves.dtypes, self._shared.dims))], np.int64)

    def prepare_call(self, busy: int, evaluates: bool) -> None:
        """Make the native call, which at this address finds whether to leave the step alone (0: it never does).

        `evaluates`: whether it evaluates the scalars; else they are set before.
        """
        shared, table = self._shared, self._job.table
        self._group_rows = np.array(self._rows, np.int64)
        # as on the long way, in calls too that hold the parameters only
        into_x = self.takes_x and not self.program.totals and INCREMENT not in self._column
        self._known = {
            "n": len(shared.sizes), "single": shared.leaves.treedef.spec is None, "type": id(np.ndarray),
            "expected": address(self._expected), "table": address(table), "width": table.shape[1],
            "x": self._column.get("x", 0), "x_flags": ALIGNED | (WRITEABLE if into_x else 0),
            "g": self._column.get("g", 0), "out": self._column.get(INCREMENT, 0), "out_flags": ALIGNED | WRITEABLE,
            "out_mode": TAKE if self._is_new else COMPARE, "missed": shared.may_miss,
            "starts": address(shared.starts), "furthest": address(shared.furthest), "ranges": len(shared.starts),
            "count": address(shared.taken), "groups": address(self._group_rows),
            "n_groups": len(self._rows) if evaluates else 0, "job": self._job.where, "at_once": self.at_once,
            "busy": busy}  # fmt: skip
        self._plan = np.array([self._known[name] for name in PLAN], np.int64)
        self.call = bound_call(self._plan)

    def look(self, evaluates: bool) -> Look:
        """A native call that only looks whether the step can be taken, and whether the gradients are finite, which the
        step itself then leaves out. `evaluates`: whether it evaluates the scalars, too."""
        fields = self._job.fields.copy()
        fields[[JOB["kernels"], JOB["count"]]] = 0
        self._job.fields[JOB["checks"]] = 0
        known = {**self._known, "n_groups": self._known["n_groups"] if evaluates else 0, "job": address(fields)}
        return Look(np.array([known[name] for name in PLAN], np.int64), fields, self)

    def perform(self, xs: Any, gs: Any, outs: Any) -> bool:
        """Whether the arrays are as expected and all is done."""
        return self.finish(self.call, self._job.fields, xs, gs, outs)

    def finish(self, call: Callable[..., Any], job: np.ndarray, xs: Any, gs: Any, outs: Any) -> bool:
        """Whether a call finds all as expected, and the job is done, by several threads if it is large."""
        if not call(xs, gs, outs):
            return False
        return self.at_once or not perform(address(job), self._job.size, self._shared.threads)


class Look:
    """A call that finds whether the arrays are as expected and finite, and leaves them alone."""

    def __init__(self, plan: np.ndarray, fields: np.ndarray, of: Pass) -> None:
        self._fields, self._of = fields, of
        self._call = bound_call(plan)

    def __call__(self, xs: Any, gs: Any, outs: Any) -> bool:
        return self._of.finish(self._call, self._fields, xs, gs, outs)


def _kernel(program: Program, dtype: np.dtype, strided: bool) -> Strided:
    if strided:
        return strided_kernel(program, dtype)
    kernel: Any = native_kernel(program, dtype)
    return Strided(kernel.chunks, finite_check(dtype.name))
