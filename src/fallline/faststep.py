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

from fallline.engines.call import ALIGNED, COMPARE, CONTIGUOUS, GROUP, PLAN, TAKE, WRITEABLE, bound_call
from fallline.engines.jobs import CHUNK
from fallline.engines.pool import perform
from fallline.engines.scalars import native_scalars
from fallline.engines.work import Job
from fallline.memory import address, byte_range
from fallline.trace import INCREMENT, Program
from fallline.trees import Treedef

__all__ = ["FastStep", "Group", "Leaves"]

class Leaves(NamedTuple):
    """What is known of the leaves: structure, shapes, dtypes, and where the state of all lies (byte ranges)."""

    treedef: Treedef
    shapes: Sequence[tuple[int, ...]]
    dtypes: Sequence[np.dtype]
    state: Sequence[tuple[int, int]]


class Group(NamedTuple):
    """Leaves, by number, that share a dtype, the count of steps that they missed, and so their scalars."""

    leaves: Sequence[int]
    dtype: np.dtype
    missed: int


class FastStep:
    """A step or update prepared for parameters, and outputs if they are given, at these addresses.

    `take(params, grads, out)` takes the trees (None for what the program does not have). It returns None or False,
    having done nothing, if the call must go the long way; else the tree of new increments if there are no outputs to
    write, else True. `values_after(t)` gives the values of the hyper-parameters for each group after
    t completed steps; if it is `constant` they stay the same.
    """

    def __init__(self, program: Program, leaves: Leaves, groups: Sequence[Group], kernels: Mapping[np.dtype, int],
                 arrays: Mapping[str, Sequence[np.ndarray]], values_after: Callable[[int], list[list[float]]],
                 constant: bool, checks_finite: bool, count: np.ndarray, threads: int | None) -> None:
        self._program, self._leaves, self._groups = program, leaves, groups
        self._values_after, self._count, self._threads = values_after, count, threads
        self._single = leaves.treedef.spec is None
        self._into = program.outputs[0][0]
        self.where = [address(a) for name in ("x", INCREMENT) for a in arrays.get(name, ())]
        self._column = {name: place for place, name in enumerate(program.arrays, 1)}
        self._is_new = self._into == INCREMENT and INCREMENT not in arrays
        self._prepare_job(kernels, arrays, checks_finite)
        self._prepare_groups(constant)
        self._find_ranges([a for name in ("x", INCREMENT) if name == self._into for a in arrays.get(name, ())])
        self._prepare_call()

    def _prepare_job(self, kernels: Mapping[np.dtype, int], arrays: Mapping[str, Sequence[np.ndarray]],
                     checks_finite: bool) -> None:
        kinds = list(kernels)
        self._job = Job([math.prod(shape) for shape in self._leaves.shapes], len(self._program.arrays) + 2,
                        [kinds.index(dtype) for dtype in self._leaves.dtypes])
        for name, addressed in arrays.items():
            self._job.table[:, self._column[name]] = [address(a) for a in addressed]
        self._job.run(*kernels.values())
        if checks_finite:
            self._job.check(self._column["g"], *(dtype.itemsize for dtype in kinds))
        self._job.count(self._count)
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
            self._job.table[list(group.leaves), -1] = address(constants)
            given: dict[str, Any] = {"scalars": functions[k], "missed": group.missed, "hyper": address(self._values[k]),
                     "constants": address(constants),
                     "tiny": np.array(np.finfo(group.dtype).tiny, np.float64).view(np.int64)}
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
            scalars = self._program.evaluate(given, t - group.missed + 1, float(np.finfo(group.dtype).tiny))
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

    def _prepare_call(self) -> None:
        """The plan of the native call."""
        shapes, dtypes = self._leaves.shapes, self._leaves.dtypes
        self._dims = [np.array(shape or (0,), np.int64) for shape in shapes]
        self._expected = np.array(
            [[id(dtype), len(shape), address(dims), math.prod(shape) * dtype.itemsize]
             for shape, dtype, dims in zip(shapes, dtypes, self._dims)], np.int64).reshape(len(shapes), 4)
        plain = CONTIGUOUS | ALIGNED
        known = {
            "n": len(shapes), "single": self._single, "type": id(np.ndarray), "expected": address(self._expected),
            "table": address(self._job.table), "width": self._job.table.shape[1], "x": self._column.get("x", 0),
            "x_flags": plain | (WRITEABLE if self._into == "x" else 0), "g": self._column["g"],
            "out": self._column.get(INCREMENT, 0), "out_flags": plain | WRITEABLE,
            "out_mode": TAKE if self._is_new else COMPARE, "starts": address(self._starts),
            "furthest": address(self._furthest), "ranges": len(self._starts), "count": address(self._count),
            "groups": address(self._group_rows), "n_groups": len(self._groups), "job": self._job.where,
            "at_once": self._at_once}  # fmt: skip
        self._plan = np.array([known[name] for name in PLAN], np.int64)
        self._call = bound_call(self._plan)
        plain = self._single and self._at_once and not self._asks and not self._is_new
        self.take: Callable[[Any, Any, Any], Any] = self._call if plain else self._take

    def _take(self, params: Any, grads: Any, out: Any) -> Any:
        params, grads, out = self._leaves_of(params), self._leaves_of(grads), self._leaves_of(out)
        if self._asks and not self._ask():
            return None
        if self._is_new:
            fresh = [np.empty(shape, dtype) for shape, dtype in zip(self._leaves.shapes, self._leaves.dtypes)]
            out = fresh[0] if self._single else fresh
        if not self._call(params, grads, out):
            return None
        if not self._at_once and perform(self._job.where, self._job.size, self._threads):
            return None
        return self._leaves.treedef.unflatten(fresh) if self._is_new else True

    def _leaves_of(self, tree: Any) -> Any:
        """What the native call takes for a tree: a list of leaves or one array; it refuses what is something else."""
        if self._single or tree is None:
            return tree
        try:
            return self._leaves.treedef.spec.flatten_up_to(tree)
        except (ValueError, TypeError):
            return ()
