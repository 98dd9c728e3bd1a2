"""A quick look at a call, by native code: whether it is like the last one, so that the plan of that one still holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fallline._arrays.dtypes import real
from fallline._arrays.leaves import is_tensor, mark_changed, shared, view
from fallline._arrays.memory import address, byte_range, is_direct
from fallline._arrays.trees import Treedef
from fallline._engines.arithmetic import pinned
from fallline._engines.cpu.guard import ALIGNED, CONTIGUOUS, WRITEABLE, looking
from fallline._engines.llvm.layout import EXPECTED, JOB, LAYOUT, LOOK
from fallline._engines.llvm.text import CHUNK
from fallline._formula.program import INCREMENT
from fallline._step.plan import Plan

__all__ = ["Look", "can_look"]

def can_look(leaf: Any, dtype: np.dtype) -> bool:
    """Whether a leaf is an array that native code can look at, of any strides if it is real; or a Python float."""
    if type(leaf) is not np.ndarray and not is_tensor(leaf):
        return type(leaf) is float
    array = view(leaf)
    return array.dtype == dtype and (is_direct(array) if dtype.kind == "c" else array.flags.aligned)


class Look:
    """The look at calls whose parameters, and outputs if they are given, lie where those of this one lie (`xs`, `outs`:
    the leaves of the trees, None where a call has none).

    `take(params, grads, out)` takes trees. It returns None or False, having done nothing, if the call must be checked
    in Python; else what comes of it: the tree of new increments or numbers, else True. If it `is_atomic`, one native
    call is all of it, which is not for the caller who has the turn: it finds that `taken`, and so does any other
    thread's.
    """

    def __init__(self, plan: Plan, treedef: Treedef, xs: Sequence[Any] | None, gs: Sequence[Any],
                 outs: Sequence[Any] | None, taken: np.ndarray, left: Callable[[Sequence[Any]], bool] | None) -> None:
        self.plan, self._treedef, self._lies_still = plan, treedef, left
        self._into_x, self._is_new = plan.way.into == "x", plan.way.into == INCREMENT and outs is None
        given = [leaf for tree in (xs, gs, outs) for leaf in tree or ()]
        self._has_tensors = any(map(is_tensor, given))
        self._has_numbers = any(type(leaf) is float for leaf in given)
        self._single = treedef.spec is None and not self._has_numbers
        if self._has_numbers:
            self._prepare_numbers(len(gs))
            xs = xs and self._with_numbers(xs, 0)
        self._prepare(xs, outs, taken)

    # ---- made once ---------------------------------------------------------------------------------------------------

    def _prepare(self, xs: Sequence[Any] | None, outs: Sequence[Any] | None, taken: np.ndarray) -> None:
        plan, into = self.plan, (xs if self._into_x else outs) or ()
        written = [view(into[m.place]) for m in plan.way.members if into]
        self._expected = self._expect(outs)
        ranges = [byte_range(array) for array in written if array.size]
        ranges += [r[:2] for group in plan.groups for r in group.state_ranges]
        ranges.sort()
        self._starts = np.array([low for low, _ in ranges], np.int64)
        self._furthest = np.maximum.accumulate(np.array([high for _, high in ranges], np.int64))
        step, at_once = plan.step.job, sum(plan.sizes) <= CHUNK  # at once: a few microseconds, with the lock held
        self._in_one = not (plan.readings or plan.asks or not plan.step.is_native)
        self.is_atomic = self._in_one and at_once and not (self._has_numbers or self._lies_still)
        self._known = {
            "n": len(self._expected), "single": self._single, "type": id(np.ndarray),
            "expected": address(self._expected), "x": xs is not None, "x_flags": ALIGNED | WRITEABLE * self._into_x,
            "g": 1, "out": plan.way.into == INCREMENT, "out_flags": ALIGNED | WRITEABLE, "out_taken": self._is_new,
            "may_miss": plan.way.apart, "starts": address(self._starts), "furthest": address(self._furthest),
            "ranges": len(self._starts)}  # fmt: skip
        self._kept: list[np.ndarray] = []
        if self._in_one:
            fields = step.fields.copy()
            if plan.checks is not None:
                fields[JOB["checks"]] = plan.checks.fields[JOB["checks"]]
            self._call = self._looking(plan.step.records, fields, at_once, taken if self.is_atomic else None)
            self._job = None if at_once else fields
            if self.is_atomic and self._single and not (self._is_new or self._has_tensors):
                vars(self)["take"] = self._call  # with no Python around it
        else:
            self._call = self._looking(None, None, False, None)

    def _looking(self, records: np.ndarray | None, job: np.ndarray | None, at_once: bool, taken: np.ndarray | None
                 ) -> Any:
        some = {name: address(array) for name, array in (("classes", records), ("job", job), ("busy", taken))
                if array is not None}
        known = {**self._known, **some, "n_classes": 0 if records is None else len(records), "at_once": at_once}
        self._kept += [array for array in (records, job, taken) if array is not None]
        look = np.array([known.get(name, 0) for name in LOOK], np.int64)
        return looking(look)

    def _expect(self, outs: Sequence[Any] | None) -> np.ndarray:
        """What is expected of each leaf of the tree; nothing of those that no group steps."""
        plan = self.plan
        found = np.zeros((plan.size, len(EXPECTED)), np.int64)
        self._dims: list[np.ndarray] = []
        for k, m in enumerate(plan.way.members):
            group, layout = plan.groups[m.group], plan.layouts.get(k)
            if layout is not None:
                turned = m.lies == "turned"
                for name, fixed in (("g", turned), ("x", True), (INCREMENT, turned or outs is not None)):
                    layout[LAYOUT[f"expected {name}"]] = address(plan.strides[k][name]) if fixed else 0
            dtype, shape = group.dtypes[m.own], group.shapes[m.own]
            self._dims.append(np.array(shape or (0,), np.int64))
            given = {"row": int(plan.row_at[k]), "begun": group.has_begun(m.own), "dtype": id(dtype),
                     "scalar": id(dtype.type), "nd": len(shape), "shape": address(self._dims[-1]),
                     "size": plan.sizes[k], "itemsize": real(dtype).itemsize,
                     "flags": 0 if layout is not None else CONTIGUOUS,
                     "layout": 0 if layout is None else address(layout)}  # fmt: skip
            found[m.place] = [given[name] for name in EXPECTED]
        return found

    # ---- numbers, which are stepped in arrays of our own ---

    def _prepare_numbers(self, n: int) -> None:
        self._numbers = np.zeros((3, n))
        self._cells = [[row[k : k + 1].reshape(()) for k in range(n)] for row in self._numbers]

    def _with_numbers(self, leaves: Sequence[Any], which: int) -> list[Any]:
        """Leaves with an array in the place of each number, which it holds."""
        row, cells = self._numbers[which], self._cells[which]
        found = list(leaves)
        for k, leaf in enumerate(leaves):
            if type(leaf) is float:
                row[k], found[k] = leaf, cells[k]
        return found

    def _back(self, leaves: Sequence[Any]) -> Any:
        """The tree of the parameters, with the numbers as they are now."""
        now = self._numbers[0].tolist()
        return self._treedef.unflatten(now[k] if type(leaf) is float else leaf for k, leaf in enumerate(leaves))

    # ---- for a call --------------------------------------------------------------------------------------------------

    def take(self, params: Any, grads: Any, out: Any) -> Any:
        """See above."""
        given = [self._leaves_of(tree) for tree in (params, grads, out)]
        if self._lies_still and not self._lies_still(given[0]):
            return None
        xs, gs, outs = map(self._as_arrays, given) if self._has_tensors else given
        if self._has_numbers:
            xs, gs = self._with_numbers(xs, 0), self._with_numbers(gs, 1)
        if self._is_new:
            fresh = [np.empty(plan_group.shapes[m.own], plan_group.dtypes[m.own]) for m in self.plan.way.members
                     for plan_group in [self.plan.groups[m.group]]]
            outs = fresh[0] if self._single else fresh
        if not self._advance(xs, gs, outs):
            return None
        if self._is_new:
            return self._treedef.unflatten(fresh)
        if self._has_tensors:
            own, changed = (([params], [grads]) if self._single else given[:2])
            mark_changed([x for x, g in zip(own, changed) if g is not None])
        return self._back(given[0]) if self._has_numbers else True

    def _advance(self, xs: Any, gs: Any, outs: Any) -> bool:
        """Whether the step was taken; else nothing was done."""
        if not self._call(xs, gs, outs):
            return False
        plan = self.plan
        if self._in_one:
            return self._job is None or plan.perform(self._job)
        if not plan.is_finite():
            return False
        if plan.asks:
            with pinned(), np.errstate(all="ignore"):  # as where all is checked
                plan.ask([g is not None for g in ([gs] if self._single else gs)])
            if not self._call(xs, gs, outs):  # what was asked might have changed an array
                return False
        return plan.run()

    def _leaves_of(self, tree: Any) -> Any:
        """What the native call takes for a tree: a list of leaves or one leaf; it refuses what is something else."""
        if tree is None or self._single:
            return tree
        if self._treedef.spec is None:
            return [tree]
        try:
            return self._treedef.spec.flatten_up_to(tree)
        except (ValueError, TypeError, RuntimeError):
            return ()

    def _as_arrays(self, leaves: Any) -> Any:
        """The same with arrays that share the memory of tensors, which must be possible."""
        try:
            return shared(leaves) if self._single or leaves is None else list(map(shared, leaves))
        except (ValueError, TypeError, RuntimeError):
            return ()
