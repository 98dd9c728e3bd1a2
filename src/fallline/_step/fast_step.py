"""The short way for a call like the last one: plain arrays, parameters where they lay before, native engine.

Whatever is unlike the last call in any respect is noticed before anything is changed, and the call then goes the long
way (`HostCall`), which alone knows what to say about it. A step is taken, and counted, within one native call, so an
interrupt finds it taken wholly or not at all.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fallline._arrays.dtypes import real
from fallline._arrays.leaves import is_tensor, mark_changed, view
from fallline._arrays.memory import address, byte_range
from fallline._engines.arithmetic import pinned
from fallline._engines.llvm.sums import totals
from fallline._formula.program import ACROSS, INCREMENT, Program, known
from fallline._step.fast_pass import Arrays, Group, Leaves, Look, Pass, Shared
from fallline._step.numbers import Numbers

__all__ = ["Arrays", "FastStep", "Group", "Leaves"]


ValuesAfter = Callable[[int, Sequence[bool]], Sequence[Sequence[float] | None]]


class FastStep:
    """A step or update prepared for parameters, and outputs if they are given, at these addresses.

    `take(params, grads, out)` takes the trees (None for what the program does not have). It returns None or False,
    having done nothing, if the call must go the long way; else the tree of new increments if there are no outputs to
    write, else True. `values_after(t, live)` gives the values of `program.settings` after t completed steps for each
    group, None for those that are not live; if it is `constant` they stay the same. A leaf whose gradient is None is
    left alone, if it has a group of its own and the chain does not gather gradients. If it `is_atomic`, one native call
    is all of it, which is not for the caller who has the turn: it finds that `taken`, and so does any other thread's.
    """

    def __init__(self, program: Program, leaves: Leaves, groups: Sequence[Group], arrays: Arrays,
                 values_after: ValuesAfter, constant: bool, checks_finite: bool, count: np.ndarray,
                 missed: np.ndarray, threads: int | None, taken: np.ndarray, numbers: Numbers,
                 gathers: bool) -> None:
        self._leaves, self._groups = leaves, groups
        self._values_after, self._count, self._missed = values_after, count, missed
        self._single = leaves.treedef.spec is None
        into = program.outputs[0][0]
        self._is_new = into == INCREMENT and not arrays.outs
        self._may_miss = into == "x" and len(groups) == len(leaves.shapes) and not numbers.leaf and not gathers
        self._has_tensors = arrays.tensors
        self.where = _places(arrays)
        sizes = [math.prod(shape) * (dtype.itemsize // real(dtype).itemsize)
                 for shape, dtype in zip(leaves.shapes, leaves.dtypes)]  # in reals
        dims = [np.array(shape or (0,), np.int64) for shape in leaves.shapes]
        written = arrays.xs if into == "x" else arrays.outs
        ranges = _ranges(written, [*leaves.state, *arrays.beside])
        shared = Shared(leaves, groups, sizes, dims, *ranges, count, missed, self._may_miss, threads)
        self._prepare_passes(program, shared, arrays, checks_finite, numbers)
        self._asks = not constant or any(each.in_python for each in self._passes)
        settings = program.settings
        self._places = [[(k, settings.index(name)) for k, name in enumerate(each.program.hyper) if " " not in name]
                        for each in self._passes]  # where in their values those of hyper-parameters go
        if not self._asks:
            self._set_values(values_after(0, [True] * len(groups)))
        self._prepare_calls(taken, numbers)

    def _prepare_passes(self, program: Program, shared: Shared, arrays: Arrays, checks_finite: bool,
                        numbers: Numbers) -> None:
        """The readings and the step; gradients are checked in the first, or by a sum of their squares there."""
        first = program.readings[0] if program.readings else program
        self._proofs = _proofs(first) if checks_finite else []
        checks = [checks_finite and not self._proofs, *[False] * len(program.readings)]
        self._readings = [_Reading(p, shared, arrays, check) for p, check in zip(program.readings, checks)]
        self._step = Pass(program, shared, arrays, checks[-1], numbers)
        self._passes: list[Pass] = [*self._readings, self._step]
        self._link(numbers)

    def _link(self, numbers: Numbers) -> None:
        """Where the numbers that a pass depends on come from: its columns of values, and arrays of one for all groups
        or one for each."""
        sources = {known("state", slot): array for slot, array in numbers.by_slot().items()}
        for each in self._passes:
            each.links = [(each.values[:, k], sources[name])
                          for k, name in enumerate(each.program.hyper) if name in sources]
            if isinstance(each, _Reading):
                sources |= each.totals()

    def _prepare_calls(self, taken: np.ndarray, numbers: Numbers) -> None:
        self._rehearsal: Look | None = None
        self.is_atomic = self._step.at_once and not self._asks and not self._readings and not numbers.values.size
        for each in self._passes:
            each.prepare_call(address(taken) if self.is_atomic else 0, not each.in_python)
        self._look = self._passes[0].look(False) if self._asks else None  # so that only then schedules are asked
        self._takes_x = any(each.takes_x for each in self._passes)
        if self._single and self.is_atomic and not (self._is_new or self._has_tensors):
            vars(self)["take"] = self._step.call  # with no Python around it

    def matches(self, arrays: Arrays) -> bool:
        """Whether it is still the one for arrays that lie so."""
        return self.where == _places(arrays)

    def _set_values(self, values: Sequence[Sequence[float] | None]) -> None:
        for each, places in zip(self._passes, self._places):
            for row, given in zip(each.values, values):
                if given is not None:
                    for k, place in places:
                        row[k] = given[place]

    def _ask(self, gs: Any) -> None:
        """Ask for the hyper-parameters of the coming step."""
        live = [g is not None for g in ([gs] if self._single else gs)] if self._may_miss else [True] * len(self._groups)
        self._live = live
        with pinned(), np.errstate(all="ignore"):  # as on the long way
            self._set_values(self._values_after(int(self._count[0]), live))

    def take(self, params: Any, grads: Any, out: Any) -> Any:
        """See above."""
        leaves = [self._leaves_of(tree) for tree in (params, grads, out)]
        xs, gs, outs = map(self.as_arrays, leaves) if self._has_tensors else leaves
        if self._is_new:
            fresh = [np.empty(shape, dtype) for shape, dtype in zip(self._leaves.shapes, self._leaves.dtypes)]
            outs = fresh[0] if self._single else fresh
        if not self._advance(xs, gs, outs):
            return None
        if self._is_new:
            return self._leaves.treedef.unflatten(fresh)
        self.mark(*leaves[:2])
        return True

    def mark(self, xs: Any, gs: Any) -> None:
        """Have torch know that its tensors were changed."""
        if self._has_tensors:
            mark_changed([x for x, g in ([(xs, gs)] if self._single else zip(xs, gs)) if g is not None])

    def _advance(self, xs: Any, gs: Any, outs: Any) -> bool:
        """Whether the step was taken; else nothing was done."""
        if self._asks:
            if not self.looks_right(xs, gs, outs):
                return False
            self.ask(gs)
        for level in range(len(self._readings)):
            if not self.read(level, xs, gs):
                return False
        return self.is_finite() and self._evaluate(self._step) and self._step.perform(self._step_x(xs), gs, outs)

    def looks_right(self, xs: Any, gs: Any, outs: Any) -> bool:
        """Whether schedules, if there are any, can be asked."""
        first = self._passes[0]
        return self._look is None or self._look(xs if first.takes_x else None, gs, None if self._readings else outs)

    def ask(self, gs: Any) -> None:
        """Ask for the hyper-parameters of the coming step, if they are not known."""
        if self._asks:
            self._ask(gs)

    @property
    def levels(self) -> int:
        """How many readings there are."""
        return len(self._readings)

    def read(self, level: int, xs: Any, gs: Any) -> bool:
        """Whether the totals of a reading could be found."""
        reading = self._readings[level]
        if not (self._evaluate(reading) and reading.perform(xs if reading.takes_x else None, gs, None)):
            return False
        reading.sum_up()
        return True

    def across(self, level: int) -> tuple[np.ndarray, list[int], np.ndarray]:
        """The totals of a reading: those of each leaf, which of them are ACROSS the trees of several steps, and the row
        to put these in."""
        return self._readings[level].by_leaf, self._readings[level].across, self._readings[level].tree[0]

    def is_finite(self) -> bool:
        """Whether the totals say that the gradients are finite, where that is known from them."""
        return all(math.isfinite(self._readings[0].tree.item(k)) for k in self._proofs)

    def rehearse(self, xs: Any, gs: Any, outs: Any) -> bool:
        """Whether the step, of which all is known that it depends on, can be performed."""
        if self._rehearsal is None:
            self._rehearsal = self._step.look(not self._step.in_python)
        return self._evaluate(self._step) and self._rehearsal(self._step_x(xs), gs, outs)

    def perform(self, xs: Any, gs: Any, outs: Any) -> bool:
        """Whether the step was taken, which was rehearsed."""
        return self._step.perform(self._step_x(xs), gs, outs)

    def _step_x(self, xs: Any) -> Any:
        return xs if self._step.takes_x or not self._takes_x else None

    def _evaluate(self, each: Pass) -> bool:
        """Give a pass its numbers, and its scalars if native code cannot evaluate them; False if a dtype cannot hold
        these."""
        for column, source in each.links:
            column[...] = source
        if not each.in_python:
            return True
        return all(self._evaluate_in_python(each, k) for k, live in enumerate(self._live) if live)

    def _evaluate_in_python(self, each: Pass, k: int) -> bool:
        group, constants = self._groups[k], each.constants[k]
        limits, taken = np.finfo(group.dtype), int(self._count[0] - self._missed[group.leaves[0]])
        given = each.values[k, : len(each.program.hyper)].tolist()
        with pinned(), np.errstate(all="ignore"):
            scalars = each.program.evaluate(given, taken + 1, float(limits.tiny))
        largest = float(limits.max)
        if any(largest < abs(s) < math.inf for s in scalars):
            return False
        code = "f" if group.dtype.itemsize == 4 else "d"
        struct.pack_into(f"{len(scalars)}{code}", memoryview(constants), 0, *scalars)  # type: ignore[arg-type]
        return True

    def _leaves_of(self, tree: Any) -> Any:
        """What the native call takes for a tree: a list of leaves or one leaf; it refuses what is something else."""
        if tree is None or self._single:
            return tree
        try:
            return self._leaves.treedef.spec.flatten_up_to(tree)
        except (ValueError, TypeError, RuntimeError):
            return ()

    def as_arrays(self, leaves: Any) -> Any:
        """The same with arrays that share the memory of tensors, which must be possible."""
        if not self._has_tensors:
            return leaves
        try:
            return _as_array(leaves) if self._single or leaves is None else list(map(_as_array, leaves))
        except (ValueError, TypeError, RuntimeError):
            return ()


class _Reading(Pass):
    """A pass that only reads: `by_leaf` are the totals of each leaf, and the first row of `tree` those of all."""

    def __init__(self, program: Program, shared: Shared, arrays: Arrays, checks_finite: bool) -> None:
        super().__init__(program, shared, arrays, checks_finite)
        self.by_leaf, self.tree = (np.zeros((len(shared.sizes), len(program.totals))) for _ in range(2))
        self.across = [k for k, total in enumerate(program.totals) if total.over == ACROSS]
        self._arguments = (address(self.sums), address(self.first), *self.by_leaf.shape, address(self.by_leaf),
                           address(self.tree))

    def perform(self, xs: Any, gs: Any, outs: Any) -> bool:
        """As that of every pass; leaves without a gradient add nothing."""
        self.sums.fill(0.0)
        return super().perform(xs, gs, outs)

    def totals(self) -> dict[str, np.ndarray]:
        """The totals by name, live: an array of one number, or of one for each leaf."""
        return {total.name: self.by_leaf[:, k] if total.over == "leaf" else self.tree[:1, k]
                for k, total in enumerate(self.program.totals)}

    def sum_up(self) -> None:
        """Make the totals of the sums."""
        totals()(*self._arguments)


def _proofs(reading: Program) -> list[int]:
    """The totals, by place, that are finite only if every gradient is."""
    g = reading.inputs.index("g") if "g" in reading.inputs else -1
    return [k for k, (total, (_, v)) in enumerate(zip(reading.totals, reading.outputs))
            if total.kind == "high" and v == g]


def _ranges(written: Sequence[np.ndarray], others: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Where is written, sorted, for the comparison with gradients: starts, and the furthest end so far."""
    ranges = sorted([*(byte_range(a) for a in written if a.size), *others])
    furthest = np.array([high for _, high in ranges], np.int64)
    return np.array([low for low, _ in ranges], np.int64), np.maximum.accumulate(furthest)


def _as_array(leaf: Any) -> Any:
    """A torch tensor as the array that shares its memory, which must be possible; anything else as it is."""
    if not is_tensor(leaf):
        return leaf
    return view(leaf) if leaf.itemsize == 2 else leaf.detach().numpy()  # which knows no bfloat16, and takes less time


def _places(arrays: Arrays) -> list[Any]:
    """What of the arrays a prepared step depends on."""
    fixed = [(address(a), a.strides if strided else None) for name in (arrays.xs, arrays.outs)
             for a, strided in zip(name, arrays.strided)]  # fmt: skip
    return [arrays.tensors, arrays.strided, fixed, arrays.beside]
