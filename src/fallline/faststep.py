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

from fallline.arrays import is_tensor, mark_changed
from fallline.engines.call import ALIGNED, COMPARE, CONTIGUOUS, GROUP, PLAN, TAKE, WRITEABLE, bound_call
from fallline.engines.jobs import CHUNK, CONSTANTS, EXTRA, LAYOUT, STRIDES, functions
from fallline.engines.native import native_kernel
from fallline.engines.pool import perform
from fallline.engines.scalars import native_scalars
from fallline.engines.strided import Strided, strided_kernel
from fallline.engines.work import Job
from fallline.memory import address, byte_range
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
    """Leaves, by number, that share a dtype and the number of steps that they missed, and so their scalars."""

    leaves: Sequence[int]
    dtype: np.dtype


class FastStep:
    """A step or update prepared for parameters, and outputs if they are given, at these addresses.

    `take(params, grads, out)` takes the trees (None for what the program does not have). It returns None or False,
    having done nothing, if the call must go the long way; else the tree of new increments if there are no outputs to
    write, else True. `values_after(t)` gives the values of the hyper-parameters for each group after t completed steps;
    if it is `constant` they stay the same. A leaf whose gradient is None is left alone, if it has a group of its own.
    """

    def __init__(self, program: Program, leaves: Leaves, groups: Sequence[Group], arrays: Arrays,
                 values_after: Callable[[int], list[list[float]]], constant: bool, checks_finite: bool,
                 count: np.ndarray, missed: np.ndarray, threads: int | None) -> None:
        self._program, self._leaves, self._groups = program, leaves, groups
        self._values_after, self._count, self._missed, self._threads = values_after, count, missed, threads
        self._single = leaves.treedef.spec is None
        self._into = program.outputs[0][0]
        self._is_new = self._into == INCREMENT and not arrays.outs
        self._may_miss = self._into == "x" and len(groups) == len(leaves.shapes)
        self._has_tensors = arrays.tensors
        self.where = _places(arrays)
        self._column = {name: place for place, name in enumerate(program.arrays, 1)}
        self._prepare_job(arrays, checks_finite)
        self._prepare_groups(constant)
        self._find_ranges(arrays.xs if self._into == "x" else arrays.outs)
        self._prepare_layouts(arrays)
        self._prepare_call()

    def matches(self, arrays: Arrays) -> bool:
        """Whether it is still the one for arrays that lie so."""
        return self.where == _places(arrays)

    def _prepare_job(self, arrays: Arrays, checks_finite: bool) -> None:
        kind_of = list(zip(self._leaves.dtypes, arrays.strided))
        kinds = sorted(set(kind_of), key=kind_of.index)
        self._job = Job([math.prod(shape) for shape in self._leaves.shapes], len(self._program.arrays) + EXTRA,
                        [kinds.index(kind) for kind in kind_of])
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
        self._set_values(self._values_after(0) if constant else [])

    def _set_values(self, values: Sequence[Sequence[float]]) -> None:
        for row, given in zip(self._values, values):
            row[: len(given)] = given

    def _ask(self) -> bool:
        """Evaluate for the coming step what native code cannot; False if the dtype cannot hold it."""
        t = int(self._count[0])
        values = self._values_after(t)
        if not self._in_python:
            self._set_values(values)
            return True
        for group, constants, given in zip(self._groups, self._constants, values):
            taken = t - int(self._missed[group.leaves[0]])
            scalars = self._program.evaluate(given, taken + 1, float(np.finfo(group.dtype).tiny))
            code = "f" if group.dtype.itemsize == 4 else "d"
            try:
                struct.pack_into(f"{len(scalars)}{code}", memoryview(constants), 0, *scalars)  # type: ignore[arg-type]
            except OverflowError:
                return False
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
            for name, fixed in (("x", arrays.xs), (INCREMENT, arrays.outs)):
                if fixed:
                    self._strides.append(np.array(fixed[k].strides, np.int64))
                    layout[STRIDES + columns + self._column[name] - 1] = address(self._strides[-1])
            self._layouts[k] = layout
            self._job.table[k, LAYOUT] = address(layout)

    def _prepare_call(self) -> None:
        """The plan of the native call."""
        shapes, dtypes, table = self._leaves.shapes, self._leaves.dtypes, self._job.table
        self._expected = np.array(
            [[id(dtype), len(shape), address(dims), math.prod(shape), dtype.itemsize,
              0 if k in self._layouts else CONTIGUOUS, table[k, LAYOUT]]
             for k, (shape, dtype, dims) in enumerate(zip(shapes, dtypes, self._dims))], np.int64)
        known = {
            "n": len(shapes), "single": self._single, "type": id(np.ndarray), "expected": address(self._expected),
            "table": address(table), "width": table.shape[1], "x": self._column.get("x", 0),
            "x_flags": ALIGNED | (WRITEABLE if self._into == "x" else 0), "g": self._column["g"],
            "out": self._column.get(INCREMENT, 0), "out_flags": ALIGNED | WRITEABLE,
            "out_mode": TAKE if self._is_new else COMPARE, "missed": self._may_miss, "starts": address(self._starts),
            "furthest": address(self._furthest), "ranges": len(self._starts), "count": address(self._count),
            "groups": address(self._group_rows), "n_groups": len(self._groups), "job": self._job.where,
            "at_once": self._at_once}  # fmt: skip
        self._plan = np.array([known[name] for name in PLAN], np.int64)
        self._call = bound_call(self._plan)
        self.is_atomic = self._at_once and not self._asks  # so that other threads find it taken or not begun
        plain = self._single and self._at_once and not (self._asks or self._is_new or self._has_tensors)
        self.take: Callable[[Any, Any, Any], Any] = self._call if plain else self._take

    def _take(self, params: Any, grads: Any, out: Any) -> Any:
        xs, gs, outs = self._leaves_of(params), self._leaves_of(grads), self._leaves_of(out)
        if self._asks and not self._ask():
            return None
        if self._is_new:
            fresh = [np.empty(shape, dtype) for shape, dtype in zip(self._leaves.shapes, self._leaves.dtypes)]
            outs = fresh[0] if self._single else fresh
        if not self._call(xs, gs, outs):
            return None
        if not self._at_once and perform(self._job.where, self._job.size, self._threads):
            return None
        if self._is_new:
            return self._leaves.treedef.unflatten(fresh)
        if self._has_tensors:
            written = self._leaves.treedef.flatten_like(params if self._into == "x" else out, "", "")
            mark_changed([leaf for leaf, g in zip(written, [gs] if self._single else gs) if g is not None])
        return True

    def _leaves_of(self, tree: Any) -> Any:
        """What the native call takes for a tree: a list of leaves or one array; it refuses what is something else."""
        if tree is None:
            return None
        try:
            leaves = tree if self._single else self._leaves.treedef.spec.flatten_up_to(tree)
            if not self._has_tensors:
                return leaves
            return _as_array(leaves) if self._single else list(map(_as_array, leaves))
        except (ValueError, TypeError, RuntimeError):
            return ()


def _as_array(leaf: Any) -> Any:
    """A torch tensor as the array that shares its memory, which must be possible; anything else as it is."""
    return leaf.detach().numpy() if is_tensor(leaf) else leaf


def _places(arrays: Arrays) -> list[Any]:
    """What of the arrays a prepared step depends on."""
    fixed = [(address(a), a.strides if strided else None) for name in (arrays.xs, arrays.outs)
             for a, strided in zip(name, arrays.strided)]  # fmt: skip
    return [arrays.tensors, arrays.strided, fixed]


def _kernel(program: Program, dtype: np.dtype, strided: bool) -> Strided:
    if strided:
        return strided_kernel(program, dtype)
    kernel: Any = native_kernel(program, dtype)
    return Strided(kernel.chunks, functions().finite[dtype.itemsize])
