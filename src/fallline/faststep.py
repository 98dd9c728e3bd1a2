"""The short way for a call like the last one: plain arrays, parameters where they lay before, native engine.

Whatever is unlike the last call in any respect is noticed before anything is changed, and the call then goes the long
way (`HostCall`), which alone knows what to say about it. A step is taken, and counted, within one native call, so an
interrupt finds it taken wholly or not at all.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fallline.arithmetic import pinned
from fallline.arrays import is_tensor, mark_changed, view
from fallline.engines.call import ALIGNED, COMPARE, CONTIGUOUS, GROUP, PLAN, TAKE, WRITEABLE, bound_call
from fallline.engines.ir import CHUNK
from fallline.engines.jobs import CONSTANTS, EXTRA, JOB, LAYOUT, STRIDES, finite_check
from fallline.engines.native import native_kernel
from fallline.engines.pool import perform
from fallline.engines.scalars import native_scalars
from fallline.engines.strided import Strided, strided_kernel
from fallline.engines.work import Job
from fallline.memory import address, byte_range
from fallline.precision import real
from fallline.trace import INCREMENT, Program
from fallline.trees import Treedef

__all__ = ["Arrays", "FastStep", "Group", "Leaves"]


class Arrays(NamedTuple):
    """The arrays of a call, leaf by leaf: state by slot; parameters and outputs, none if the program has none or they
    are to be new; whether one of a leaf's arrays is strided; whether torch tensors are among them."""

    state: Mapping[str, Sequence[np.ndarray]]
    xs: Sequence[np.ndarray]
    outs: Sequence[np.ndarray]
    strided: Sequence[bool]
    tensors: bool


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


ValuesAfter = Callable[[int, Sequence[bool]], Sequence[Sequence[float] | None]]


class FastStep:
    """A step or update prepared for parameters, and outputs if they are given, at these addresses.

    `take(params, grads, out)` takes the trees (None for what the program does not have). It returns None or False,
    having done nothing, if the call must go the long way; else the tree of new increments if there are no outputs to
    write, else True. `values_after(t, live)` gives the values of the hyper-parameters after t completed steps for each
    group, None for those that are not live; if it is `constant` they stay the same. A leaf whose gradient is None is
    left alone, if it has a group of its own. If it `is_atomic`, one native call is all of it, which is not for the
    caller who has the turn: it finds that `taken`, and so does any other thread's.
    """

    def __init__(self, program: Program, leaves: Leaves, groups: Sequence[Group], arrays: Arrays,
                 values_after: ValuesAfter, constant: bool, checks_finite: bool, count: np.ndarray,
                 missed: np.ndarray, threads: int | None, taken: np.ndarray) -> None:
        self._program, self._leaves, self._groups = program, leaves, groups
        self._values_after, self._count, self._missed, self._threads = values_after, count, missed, threads
        self._taken = taken
        self._single = leaves.treedef.spec is None
        self._into = program.outputs[0][0]
        self._is_new = self._into == INCREMENT and not arrays.outs
        self._may_miss = self._into == "x" and len(groups) == len(leaves.shapes)
        self._has_tensors = arrays.tensors
        self.where = _places(arrays)
        self._column = {name: place for place, name in enumerate(program.arrays, 1)}
        self._sizes = [math.prod(shape) * (dtype.itemsize // real(dtype).itemsize)
                       for shape, dtype in zip(leaves.shapes, leaves.dtypes)]  # in reals
        self._prepare_job(arrays, checks_finite)
        self._prepare_groups(constant)
        self._find_ranges(arrays.xs if self._into == "x" else arrays.outs)
        self._prepare_layouts(arrays)
        self._prepare_call()

    def matches(self, arrays: Arrays) -> bool:
        """Whether it is still the one for arrays that lie so."""
        return self.where == _places(arrays)

    def _prepare_job(self, arrays: Arrays, checks_finite: bool) -> None:
        kind_of = list(zip(map(real, self._leaves.dtypes), arrays.strided))
        kinds = sorted(set(kind_of), key=kind_of.index)
        self._job = Job(self._sizes, len(self._program.arrays) + EXTRA, [kinds.index(kind) for kind in kind_of])
        for name, addressed in {**arrays.state, "x": arrays.xs, INCREMENT: arrays.outs}.items():
            if addressed:
                self._job.table[:, self._column[name]] = [address(a) for a in addressed]
        kernels = [_kernel(self._program, *kind) for kind in kinds]
        self._job.run(*(kernel.chunks for kernel in kernels))
        if checks_finite:
            self._job.check(self._column["g"], *(kernel.finite for kernel in kernels))
        self._job.count(self._count, self._missed if self._may_miss else None)
        self._at_once = self._job.size <= CHUNK  # a few microseconds, for which the interpreter's lock may be held

    def _prepare_groups(self, constant: bool) -> None:
        """The scalars of each group: where they lie, and how they are found."""
        n = len(self._groups)
        functions = [native_scalars(self._program, group.dtype) for group in self._groups]
        self._in_python = not all(functions)
        self._constants = [np.zeros(max(1, len(self._program.scalars)), group.dtype) for group in self._groups]
        self._values = np.zeros((n, max(1, len(self._program.hyper))))
        self._group_rows = np.zeros((n, len(GROUP)), np.int64)
        for k, (group, constants) in enumerate(zip(self._groups, self._constants)):
            self._job.table[list(group.leaves), CONSTANTS] = address(constants)
            tiny = np.array(np.finfo(group.dtype).tiny, np.float64).view(np.int64)
            missed = address(self._missed[group.leaves[0] :])
            given: dict[str, Any] = {"scalars": functions[k], "missed": missed, "tiny": tiny,
                                     "hyper": address(self._values[k]), "constants": address(constants)}  # fmt: skip
            self._group_rows[k] = [given[name] for name in GROUP]
        self._asks = self._in_python or not constant
        self._set_values(self._values_after(0, [True] * n) if constant else [])

    def _set_values(self, values: Sequence[Sequence[float] | None]) -> None:
        for row, given in zip(self._values, values):
            if given is not None:
                row[: len(given)] = given

    def _ask(self, gs: Any) -> bool:
        """Evaluate for the coming step what native code cannot; False if it cannot be taken with that."""
        t = int(self._count[0])
        live = [g is not None for g in ([gs] if self._single else gs)] if self._may_miss else [True] * len(self._groups)
        with pinned(), np.errstate(all="ignore"):  # as on the long way
            values = self._values_after(t, live)
            if self._in_python:
                return all(map(self._evaluate, self._groups, self._constants, values))
        self._set_values(values)
        return True

    def _evaluate(self, group: Group, constants: np.ndarray, given: Sequence[float] | None) -> bool:
        """Set the scalars of a group, unless it is not to be stepped; False if the dtype cannot hold them."""
        if given is None:
            return True
        limits, taken = np.finfo(group.dtype), int(self._count[0] - self._missed[group.leaves[0]])
        scalars = self._program.evaluate(given, taken + 1, float(limits.tiny))
        largest = float(limits.max)
        if any(largest < abs(s) < math.inf for s in scalars):
            return False
        code = "f" if group.dtype.itemsize == 4 else "d"
        struct.pack_into(f"{len(scalars)}{code}", memoryview(constants), 0, *scalars)  # type: ignore[arg-type]
        return True

    def _find_ranges(self, written: Sequence[np.ndarray]) -> None:
        """Where the step writes, sorted, for the comparison with gradients."""
        ranges = sorted([*(byte_range(a) for a in written if a.size), *self._leaves.state])
        self._starts = np.array([low for low, _ in ranges], np.int64)
        self._furthest = np.array([high for _, high in ranges], np.int64)
        np.maximum.accumulate(self._furthest, out=self._furthest)

    def _prepare_layouts(self, arrays: Arrays) -> None:
        """Of each strided leaf its layout, with the strides that parameters and outputs must have."""
        self._dims = [np.array(shape or (0,), np.int64) for shape in self._leaves.shapes]
        columns = len(self._program.arrays)
        self._strides: list[np.ndarray] = []
        self._layouts: dict[int, np.ndarray] = {}
        for k in (k for k, strided in enumerate(arrays.strided) if strided):
            layout = np.zeros(STRIDES + 2 * columns, np.int64)
            layout[:STRIDES] = len(self._leaves.shapes[k]), address(self._dims[k])
            for name, fixed in (("x", arrays.xs), ("g", ()), (INCREMENT, arrays.outs)):
                if name in self._column:
                    self._strides.append(np.array(fixed[k].strides if fixed else self._dims[k], np.int64))
                    place = STRIDES + self._column[name] - 1
                    layout[place] = address(self._strides[-1])
                    layout[place + columns] = address(self._strides[-1]) if fixed else 0
            self._layouts[k] = layout
            self._job.table[k, LAYOUT] = address(layout)

    def _prepare_call(self) -> None:
        """The plan of the native call."""
        shapes, dtypes, table = self._leaves.shapes, self._leaves.dtypes, self._job.table
        self._expected = np.array(
            [[id(dtype), id(dtype.type), len(shape), address(dims), self._sizes[k], real(dtype).itemsize,
              0 if k in self._layouts else CONTIGUOUS, table[k, LAYOUT]]
             for k, (shape, dtype, dims) in enumerate(zip(shapes, dtypes, self._dims))], np.int64)
        self.is_atomic = self._at_once and not self._asks  # so that other threads find it taken or not begun
        known = {
            "n": len(shapes), "single": self._single, "type": id(np.ndarray), "expected": address(self._expected),
            "table": address(table), "width": table.shape[1], "x": self._column.get("x", 0),
            "x_flags": ALIGNED | (WRITEABLE if self._into == "x" else 0), "g": self._column["g"],
            "out": self._column.get(INCREMENT, 0), "out_flags": ALIGNED | WRITEABLE,
            "out_mode": TAKE if self._is_new else COMPARE, "missed": self._may_miss, "starts": address(self._starts),
            "furthest": address(self._furthest), "ranges": len(self._starts), "count": address(self._count),
            "groups": address(self._group_rows), "n_groups": len(self._groups), "job": self._job.where,
            "at_once": self._at_once, "busy": address(self._taken) if self.is_atomic else 0}  # fmt: skip
        self._plan = np.array([known[name] for name in PLAN], np.int64)
        self._call = bound_call(self._plan)
        if self._asks:
            self._prepare_look(known)
        if self._single and self.is_atomic and not (self._is_new or self._has_tensors):
            vars(self)["take"] = self._call  # with no Python around it

    def _prepare_look(self, known: dict[str, int]) -> None:
        """A native call that only looks whether the step can be taken: then alone schedules are asked, as ever."""
        self._look_fields = self._job.fields.copy()
        self._look_fields[[JOB["kernels"], JOB["count"]]] = 0
        self._job.fields[JOB["checks"]] = 0
        known = known | {"n_groups": 0, "job": address(self._look_fields)}
        self._look_plan = np.array([known[name] for name in PLAN], np.int64)
        self._look = bound_call(self._look_plan)

    def take(self, params: Any, grads: Any, out: Any) -> Any:
        """See above."""
        leaves = [self._leaves_of(tree) for tree in (params, grads, out)]
        xs, gs, outs = map(self._as_arrays, leaves) if self._has_tensors else leaves
        if self._is_new:
            fresh = [np.empty(shape, dtype) for shape, dtype in zip(self._leaves.shapes, self._leaves.dtypes)]
            outs = fresh[0] if self._single else fresh
        if self._asks and not (self._perform(self._look, self._look_fields, xs, gs, outs) and self._ask(gs)):
            return None
        if not self._perform(self._call, self._job.fields, xs, gs, outs):
            return None
        if self._is_new:
            return self._leaves.treedef.unflatten(fresh)
        if self._has_tensors:
            each = [leaves] if self._single else zip(*leaves[:2])
            mark_changed([x for x, g, *_ in each if g is not None])
        return True

    def _perform(self, call: Callable[..., Any], job: np.ndarray, xs: Any, gs: Any, outs: Any) -> bool:
        """Whether the arrays are as the native call expects them and its job is done."""
        if not call(xs, gs, outs):
            return False
        return self._at_once or not perform(address(job), self._job.size, self._threads)

    def _leaves_of(self, tree: Any) -> Any:
        """What the native call takes for a tree: a list of leaves or one leaf; it refuses what is something else."""
        if tree is None or self._single:
            return tree
        try:
            return self._leaves.treedef.spec.flatten_up_to(tree)
        except (ValueError, TypeError, RuntimeError):
            return ()

    def _as_arrays(self, leaves: Any) -> Any:
        """The same with arrays that share the memory of tensors, which must be possible."""
        try:
            return _as_array(leaves) if self._single or leaves is None else list(map(_as_array, leaves))
        except (ValueError, TypeError, RuntimeError):
            return ()


def _as_array(leaf: Any) -> Any:
    """A torch tensor as the array that shares its memory, which must be possible; anything else as it is."""
    if not is_tensor(leaf):
        return leaf
    return view(leaf) if leaf.itemsize == 2 else leaf.detach().numpy()  # which knows no bfloat16, and takes less time


def _places(arrays: Arrays) -> list[Any]:
    """What of the arrays a prepared step depends on."""
    fixed = [(address(a), a.strides if strided else None) for name in (arrays.xs, arrays.outs)
             for a, strided in zip(name, arrays.strided)]  # fmt: skip
    return [arrays.tensors, arrays.strided, fixed]


def _kernel(program: Program, dtype: np.dtype, strided: bool) -> Strided:
    if strided:
        return strided_kernel(program, dtype)
    kernel: Any = native_kernel(program, dtype)
    return Strided(kernel.chunks, finite_check(dtype.name))
