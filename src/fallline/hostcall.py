"""A call on leaves in host memory: checked first, then run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fallline.arrays import check_disjoint, mark_changed, non_finite, self_overlapping, shaped_like, view
from fallline.bound import Bound
from fallline.hoststep import Leaf, detach, run
from fallline.trace import INCREMENT, Program

__all__ = ["HostCall"]


class HostCall:
    """One step or update, prepared: everything is checked, nothing is changed until `run`.

    `targets` are the leaves to write: the parameters, or those of `out`, or None for new arrays.
    """

    def __init__(self, bound: Bound, program: Program, xs: Sequence[Any] | None, gs: Sequence[Any],
                 targets: Sequence[Any] | None, t: int) -> None:
        self.bound, self._program, self._targets, self._gs = bound, program, targets, gs
        self._into = INCREMENT if program.outputs[0][0] == INCREMENT else "x"
        self._live = [k for k, g in enumerate(gs) if g is not None]
        self._g = {k: self._gradient(k) for k in self._live}
        self._x = {} if xs is None else {k: view(x) for k, x in enumerate(xs)}
        self._check_targets()
        self.non_finite = self._find_non_finite() if bound.checks_finite else []
        self._leaves = [] if self.non_finite else self._prepare(t)

    def _gradient(self, k: int) -> np.ndarray:
        g = self._gs[k]
        array = np.asarray(g) if _is_foreign(g) else view(g)
        dtype = self.bound.dtypes[k]
        if array.dtype.newbyteorder("=") == dtype:
            return array
        with np.errstate(all="ignore"):  # what overflows is judged as a gradient that is not finite
            return array.astype(dtype)

    def _check_targets(self) -> None:
        if self._targets is None:
            return
        what = "out" if self._into == INCREMENT else "parameter"
        written = []
        for k, leaf in enumerate(self._targets):
            name = self.bound.name(k, what)
            if not isinstance(leaf, (float, np.floating)):
                written.append((view(leaf), name))
            elif what == "out":
                raise TypeError(f"{name} must be an array that can be written. Got {leaf!r}.")
        for array, name in written:
            if not array.flags.writeable:
                raise ValueError(f"{name} is read-only and cannot be written: pass a copy, or add the increment "
                                 "yourself: w = w + opt.update(g).")
        if what == "out":  # which must not lie on the parameters either
            written += [(x, self.bound.name(k, "parameter")) for k, x in self._x.items() if not self_overlapping(x)]
        layout = [(array.ctypes.data, array.strides) for array, _ in written]
        if layout != self.bound.disjoint:
            check_disjoint([array for array, _ in written], [name for _, name in written])
            self.bound.disjoint = layout

    def _find_non_finite(self) -> list[tuple[str, str]]:
        return [(self.bound.paths[k], kinds) for k, g in self._g.items() if (kinds := non_finite(g))]

    def _prepare(self, t: int) -> list[Leaf]:
        bound, program = self.bound, self._program
        memo: dict[Any, Any] = {}
        scalars = {k: bound.scalars(program, k, t, memo) for k in self._live}
        self._out = {k: self._destination(k) for k in self._live}
        state = {k: {slot: arrays[k] for slot, arrays in bound.state.items()} for k in self._live}
        written = [*self._out.values(), *(a for slots in state.values() for a in slots.values())]
        gradients = dict(zip(self._live, detach(list(self._g.values()), written)))
        leaves = []
        for k in self._live:
            arrays = {**state[k], "g": gradients[k], self._into: self._out[k]}
            if "x" in program.inputs:
                arrays["x"] = self._x[k] if self._into == INCREMENT else self._out[k]
            leaves.append(_leaf(program, arrays, scalars[k], bound, k, memo))
        return leaves

    def _destination(self, k: int) -> np.ndarray:
        """The array that leaf k's result is written to."""
        if self._targets is None:
            g = self._gs[k]
            kept = isinstance(g, np.ndarray) and type(g) is not np.ndarray
            return np.empty_like(g, self.bound.dtypes[k], "C").view(np.ndarray) if kept else \
                np.empty(self.bound.shapes[k], self.bound.dtypes[k])
        return self._x[k] if self._into == "x" else view(self._targets[k])

    def run(self) -> Any:
        """Run the program; returns the tree of parameters, or of increments."""
        run(self._program, self._leaves, self.bound.kernel_for(self._into, self._program))
        for k in self._live:
            self.bound.counts[k] += 1
        return self.bound.treedef.unflatten(self._result(k) for k in range(len(self._gs)))

    def _result(self, k: int) -> Any:
        if self._targets is not None:
            leaf = self._targets[k]
            if self._gs[k] is None:
                return leaf if self._into == "x" else _zeroed(leaf)
            mark_changed(leaf)
            return type(leaf)(self._out[k]) if isinstance(leaf, (float, np.floating)) else leaf
        g = self._gs[k]
        return None if g is None else shaped_like(g, self._out[k])

    def nothing(self) -> Any:
        """The increments of a call that was skipped."""
        if self._targets is not None:
            return self.bound.treedef.unflatten(map(_zeroed, self._targets))
        shapes = zip(self._gs, self.bound.shapes, self.bound.dtypes)
        return self.bound.treedef.unflatten(
            None if g is None else shaped_like(g, np.full(shape, -0.0, dtype)) for g, shape, dtype in shapes)


def _leaf(program: Program, arrays: dict[str, np.ndarray], scalars: tuple[Any, ...], bound: Bound, k: int,
          memo: dict[Any, Any]) -> Leaf:
    """A leaf with its scalars in the computed dtype."""
    dtype, shape = bound.dtypes[k], bound.shapes[k]
    key = ("constants", id(scalars), dtype)  # leaves that share an evaluation share its constants
    with np.errstate(all="ignore"):
        columns = {i: np.ascontiguousarray(np.broadcast_to(np.asarray(s, dtype), shape))
                   for i, s in enumerate(scalars) if isinstance(s, np.ndarray) and s.ndim}
        if columns or key not in memo:
            memo[key] = np.array([0.0 if i in columns else s for i, s in enumerate(scalars)], dtype), scalars
    return Leaf(arrays, memo[key][0], columns)


def _is_foreign(leaf: Any) -> bool:
    return not isinstance(leaf, (np.ndarray, float, np.floating)) and type(leaf).__module__.split(".")[0] != "torch"


def _zeroed(leaf: Any) -> Any:
    view(leaf)[...] = -0.0
    mark_changed(leaf)
    return leaf
