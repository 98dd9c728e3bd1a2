"""A quick look at a call, by native code: whether it is like the last one, so that the plan of that one still holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fallline._arrays.dtypes import real
from fallline._arrays.leaves import is_tensor, mark_changed, shared, view
from fallline._arrays.memory import address, byte_range, empty, is_direct
from fallline._arrays.trees import Treedef
from fallline._engines.cpu.guard import ALIGNED, CONTIGUOUS, WRITEABLE, looking
from fallline._engines.llvm.layout import EXPECTED, JOB, LAYOUT, LOOK, ROW
from fallline._engines.llvm.text import CHUNK
from fallline._formula.program import INCREMENT
from fallline._step.calls.kernels import detach
from fallline._step.plan import Plan

__all__ = ["Look", "can_look"]

def can_look(leaf: Any, dtype: np.dtype) -> bool:
    """Whether a leaf is an array that native code can look at, of any strides if it is real; or a number."""
    if type(leaf) is not np.ndarray and not is_tensor(leaf):
        return type(leaf) in _NUMBERS and dtype == np.float64
    array = view(leaf)
    return array.dtype == dtype and (is_direct(array) if dtype.kind == "c" else array.flags.aligned)


_LOOKED_AT = {np.ndarray, type(None)}
_NUMBERS = {float, np.float64}


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
        self._numbers = [(k, m.place) for k, m in enumerate(plan.way.members) if xs and type(xs[m.place]) in _NUMBERS]
        self._has_numbers = not {type(leaf) for leaf in given}.isdisjoint(_NUMBERS)
        self._single = treedef.spec is None and not self._has_numbers
        self._up_to: Any = None if treedef.spec is None else treedef.spec.flatten_up_to
        size = plan.table.size
        self._cells = np.zeros((2, size))  # numbers are stepped in an array of our own, beside their gradients
        self._views = [[row[k : k + 1].reshape(()) for k in range(size)] for row in self._cells if self._has_numbers]
        self.place_numbers()
        into = (self._with_numbers(xs, 0) if self._numbers and xs else xs if self._into_x else outs) or ()
        self._expected = self._expect(outs)
        ranges = [r[:2] for group in plan.groups for r in group.state_ranges]
        self._of_state = np.array(ranges, np.int64).reshape(-1, 2).T
        written = [view(into[m.place]) for m in plan.way.members if into]
        self._starts, self._furthest = np.zeros((2, len(written) + len(ranges)), np.int64)
        self._note(written)
        self._can_move = self._into_x and all(m.lies != "strided" for m in plan.way.members) and not (
            self._has_tensors or self._has_numbers or self._lies_still)
        self._prepare(xs is not None, taken)

    # ---- made once ---------------------------------------------------------------------------------------------------

    def _note(self, written: Sequence[np.ndarray]) -> None:
        """How the arrays lie that are written, and where."""
        self._forms = [(x.dtype, x.shape, x.strides) for x in written]
        starts, ends = np.array([byte_range(x) for x in written], np.int64).reshape(-1, 2).T
        self._starts_at, self._lengths = starts.tolist(), ends - starts
        self._note_ranges(starts)

    def _note_ranges(self, starts: np.ndarray) -> None:
        """Where is written, sorted, for the comparison with gradients: starts, and the furthest end so far."""
        starts = starts * (self._lengths > 0)  # and nowhere in empty arrays
        low, high = self._of_state
        every, ends = np.concatenate([starts, low]), np.concatenate([starts + self._lengths, high])
        order = every.argsort()
        self._starts[:] = every[order]
        np.maximum.accumulate(ends[order], out=self._furthest)

    def _prepare(self, reads_x: bool, taken: np.ndarray) -> None:
        """The native calls: one that does all, or one before schedules are asked and one behind."""
        plan = self.plan
        step, at_once = plan.step, sum(plan.table.sizes) <= CHUNK  # at once: a few microseconds, with the lock held
        simple = step.is_native and not plan.readings
        gathers = any(group.chain.gathers for group in plan.groups)  # which do not take every call alike
        self.is_atomic = simple and not plan.asks and at_once and not (self._has_numbers or self._lies_still or gathers)
        self._fields = {
            "n": len(self._expected), "single": self._single, "type": id(np.ndarray),
            "expected": address(self._expected), "x": reads_x, "x_flags": ALIGNED | WRITEABLE * self._into_x,
            "g": 1, "out": plan.way.into == INCREMENT, "out_flags": ALIGNED | WRITEABLE, "out_taken": self._is_new,
            "may_miss": plan.way.apart, "starts": address(self._starts), "furthest": address(self._furthest),
            "ranges": len(self._starts), "at_once": at_once}  # fmt: skip
        checks = None if plan.checks is None else plan.checks.fields
        job = step.job.fields.copy()
        if checks is not None and not plan.asks:
            job[JOB["checks"]] = checks[JOB["checks"]]
        self._kept: list[np.ndarray | None] = [job, checks, step.records, taken]
        self._first: Any = None
        self._second: Any = None
        self._alone: Any = None
        if plan.asks or not simple:
            self._first = self._looking(job=checks)
        if simple:
            self._second = self._looking(records=step.records, job=job)
            self._alone = self._looking(step.records, job, taken) if self.is_atomic else None
        self._jobs = None if at_once else (checks, job)
        if self.is_atomic and self._single and not (self._is_new or self._has_tensors):
            vars(self)["take"] = self._alone  # with no Python around it

    def _looking(self, records: np.ndarray | None = None, job: np.ndarray | None = None, busy: np.ndarray | None = None
                 ) -> Any:
        """A native look, which evaluates what is recorded and does a job."""
        some = {"classes": records, "job": job, "busy": busy}
        fields = {**self._fields, **{name: address(array) for name, array in some.items() if array is not None},
                 "n_classes": 0 if records is None else len(records)}  # fmt: skip
        if job is None:
            fields["at_once"] = 0
        return looking(np.array([fields.get(name, 0) for name in LOOK], np.int64))

    def _expect(self, outs: Sequence[Any] | None) -> np.ndarray:
        """What is expected of each leaf of the tree; nothing of those that no group steps."""
        plan = self.plan
        found = np.zeros((plan.table.size, len(EXPECTED)), np.int64)
        self._dims: list[np.ndarray] = []
        for k, m in enumerate(plan.way.members):
            group, layout = plan.groups[m.group], plan.table.layouts.get(k)
            if layout is not None:
                turned = m.lies == "turned"
                for name, fixed in (("g", turned), ("x", True), (INCREMENT, turned or outs is not None)):
                    layout[LAYOUT[f"expected {name}"]] = address(plan.table.strides[k][name]) if fixed else 0
            dtype, shape = group.dtypes[m.own], group.shapes[m.own]
            self._dims.append(np.array(shape or (0,), np.int64))
            given = {"row": int(plan.table.row_at[k]), "begun": group.has_begun(m.own), "dtype": id(dtype),
                     "scalar": id(dtype.type), "nd": len(shape), "shape": address(self._dims[-1]),
                     "size": plan.table.sizes[k], "itemsize": real(dtype).itemsize,
                     "flags": 0 if layout is not None else CONTIGUOUS,
                     "layout": 0 if layout is None else address(layout)}  # fmt: skip
            found[m.place] = [given[name] for name in EXPECTED]
        return found

    # ---- numbers, which are stepped in an array of our own ---

    def settle(self, xs: Sequence[Any] | None) -> None:
        """Know where the leaves of a call lie that was checked."""
        self.place_numbers()
        if self._into_x and xs is not None and not self._numbers:
            self._note([view(xs[m.place]) for m in self.plan.way.members])

    def place_numbers(self) -> None:
        """Have the rows of numbers lead to their cells."""
        for k, place in self._numbers:
            self.plan.table.rows[k][ROW["x"]] = address(self._views[0][place])

    def _with_numbers(self, leaves: Sequence[Any], which: int) -> Any:
        """Leaves with a cell in the place of each number, which it holds."""
        if not isinstance(leaves, list):
            return leaves
        cells, views, found = self._cells[which], self._views[which], list(leaves)
        for k, leaf in enumerate(leaves):
            if type(leaf) in _NUMBERS:
                cells[k], found[k] = leaf, views[k]
        return found

    def _back(self, leaves: Sequence[Any]) -> Any:
        """The tree of the parameters, with the numbers as they are now."""
        now = self._cells[0].tolist()
        return self._treedef.unflatten([type(leaf)(now[k]) if type(leaf) in _NUMBERS else leaf
                                        for k, leaf in enumerate(leaves)])

    # ---- for a call --------------------------------------------------------------------------------------------------

    def take(self, params: Any, grads: Any, out: Any) -> Any:
        """See above."""
        given = [self._leaves_of(tree) for tree in (params, grads, out)]
        if self._lies_still and not (given[0] and self._lies_still(given[0])):
            return None
        xs, gs, outs = map(self._as_arrays, given) if self._has_tensors else given
        if self._has_numbers:
            xs, gs = self._with_numbers(xs, 0), self._with_numbers(gs, 1)
        if self._is_new:
            fresh = [empty(group.shapes[m.own], group.dtypes[m.own], group.orders[m.own])
                     for m in self.plan.way.members for group in [self.plan.groups[m.group]]]
            outs = fresh[0] if self._single else fresh
        if not (self._alone(xs, gs, outs) if self.is_atomic else self._advance(xs, gs, outs)):
            return None
        if self._is_new:
            return self._treedef.unflatten(fresh)
        if self._has_tensors:
            own, changed = (([params], [grads]) if self._single else given[:2])
            mark_changed([x for x, g in zip(own, changed) if g is not None])
        return self._back(given[0]) if self._numbers else True

    def mend(self, params: Any, grads: Any) -> Any:
        """As `take`, where parameters lie elsewhere than before, or gradients share memory with them."""
        if not self._can_move or params is None or grads is None:
            return None
        xs, gs = self._leaves_of(params), self._leaves_of(grads)
        xs, gs = ([xs], [gs]) if self._single else (xs, gs)
        if not len(xs) == len(gs) == len(self._forms) or not {type(g) for g in gs} <= _LOOKED_AT:
            return None
        for x, (dtype, shape, strides) in zip(xs, self._forms):
            if type(x) is not np.ndarray or x.dtype != dtype or x.shape != shape or x.strides != strides:
                return None
        starts, single = [address(x) for x in xs], self._single
        lay_there = starts == self._starts_at
        if not (lay_there or self._move_to(starts)):
            return None
        given = xs[0] if single else xs
        if not lay_there and self._advance(given, gs[0] if single else gs, None):
            return True
        there = [k for k, g in enumerate(gs) if g is not None]
        apart = detach([gs[k] for k in there], [(*byte_range(x), x) for x in xs])
        copies = {k: g for k, g in zip(there, apart) if g is not gs[k]}
        if not copies:  # it was for something else
            return None
        gs = [copies.get(k, g) for k, g in enumerate(gs)]
        return self._advance(given, gs[0] if single else gs, None) or None

    def _move_to(self, starts: list[int]) -> bool:
        """Have the parameters begin there; False if they share memory, and nothing is done."""
        now = np.array(starts, np.int64)
        if len(starts) > 1:
            order = now.argsort()
            ends = (now + self._lengths)[order]
            if (ends[:-1] > now[order][1:]).any():
                return False
        for row, start in zip(self.plan.table.rows, starts):
            row[ROW["x"]] = start
        self._starts_at = starts
        self._note_ranges(now)
        return True

    def _advance(self, xs: Any, gs: Any, outs: Any) -> bool:
        """Whether the step was taken; else nothing was done."""
        plan = self.plan
        if self._first is not None and not (self._first(xs, gs, outs) and self._done(0)):
            return False
        if plan.asks:
            plan.ask([gs] if self._single else gs)
        if self._second is not None:
            return bool(self._second(xs, gs, outs)) and self._done(1)
        if plan.asks and not self._first(xs, gs, outs):  # what was asked might have changed an array
            return False
        return plan.run()

    def _done(self, which: int) -> bool:
        """Whether a job is done that was not done at once."""
        job = self._jobs and self._jobs[which]
        return job is None or self.plan.perform(job)

    def _leaves_of(self, tree: Any) -> Any:
        """What the native call takes for a tree: a list of leaves or one leaf; it refuses what is something else."""
        if tree is None or self._single:
            return tree
        if self._treedef.spec is None:
            return [tree]
        try:
            return self._up_to(tree)
        except (ValueError, TypeError, RuntimeError):
            pass
        try:
            leaves, self._up_to = self._treedef.leaves_like(tree), self._treedef.leaves_like
        except (ValueError, TypeError, RuntimeError):
            return ()
        return leaves  # of mappings of several classes, as they will be again: it takes long to find out by failing

    def _as_arrays(self, leaves: Any) -> Any:
        """The same with arrays that share the memory of tensors, which must be possible."""
        try:
            return shared(leaves) if self._single or leaves is None else list(map(shared, leaves))
        except (ValueError, TypeError, RuntimeError):
            return ()
