"""A call on leaves in host memory: checked first, then run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fallline._arrays.dtypes import real, reals, whole
from fallline._arrays.leaves import (
    as_number,
    is_foreign,
    is_number,
    is_tensor,
    mark_changed,
    new_like,
    non_finite,
    reading,
    view,
)
from fallline._arrays.memory import address, byte_range, check_disjoint, is_direct
from fallline._engines.threads import num_threads
from fallline._formula.program import INCREMENT, Program
from fallline._step.binding import Bound
from fallline._step.host_run import Leaf, detach, is_strided, read, run

__all__ = ["HostCall"]


class HostCall:
    """One step or update: what is given is checked at once; nothing is changed until `run`.

    Before that it is to `ask` for what the step depends on, to `read` and `know` the totals of its `readings` in their
    order, and to `prepare`. `targets` are the leaves to write: the parameters, or those of `out`, or None for new
    arrays; `tree` is what they came in. A program that does not give what it is to go `into` ("x" or INCREMENT) only
    holds the state of the chain.
    """

    def __init__(self, bound: Bound, program: Program, into: str, xs: Sequence[Any] | None, gs: Sequence[Any],
                 targets: Sequence[Any] | None, tree: Any) -> None:
        self.bound, self._program, self._targets, self._tree, self._gs = bound, program, targets, tree, gs
        self._xs = xs
        self._into, self.holds = into, into not in dict(program.outputs)
        self._mode = f"{into} held" if self.holds else into  # what kernels of this call are kept under
        self._settled = targets is None  # whether the arrays written lie where they lay at the last call
        self._live = [k for k, g in enumerate(gs) if g is not None]
        self._g = [self._gradient(k) for k in self._live]
        self._x = [] if xs is None else [reals(view(x)) for x in xs]
        if targets is not None:
            self._check_targets(targets)
        self._threads = bound.threads or num_threads()  # asked for now: an error must not come half-way
        self.non_finite = self._find_non_finite() if bound.checks_finite else []

    def _gradient(self, k: int) -> np.ndarray:
        g, dtype = self._gs[k], self.bound.dtypes[k]
        if is_foreign(g):
            with reading(g, self.bound.name(k, "gradient")):
                array = np.asarray(g)
        else:
            array = view(g)
        if array.dtype is dtype or array.dtype.newbyteorder("=") == dtype:
            return array
        with np.errstate(all="ignore"):  # what overflows is judged as a gradient that is not finite
            return array.astype(dtype)

    def _check_targets(self, targets: Sequence[Any]) -> None:
        what = "parameter" if self._into == "x" else "out"
        views = self._x if self._into == "x" else [reals(view(leaf)) for leaf in targets]
        written = []
        for k, (leaf, array) in enumerate(zip(targets, views)):
            if not is_number(leaf):
                written.append((array, k, what))
                if not array.flags.writeable:
                    raise ValueError(f"{self.bound.name(k, what)} is read-only and cannot be written: pass a copy, or "
                                     "add the increment yourself: w = w + opt.update(g).")
            elif what == "out":
                raise TypeError(f"{self.bound.name(k, what)} must be an array that can be written. Got {leaf!r}.")
        read = [(x, k, "parameter") for k, x in enumerate(self._x)] if what == "out" else []
        layout = [(address(array), array.strides, k, what) for array, k, what in written + read]
        self._settled = layout == self.bound.disjoint.get(what)
        if not self._settled:
            check_disjoint([a for a, _, _ in written + read],
                           [self.bound.name(k, what) for _, k, what in written + read], len(written))
            self.bound.disjoint[what] = layout

    def _find_non_finite(self) -> list[tuple[str, str]]:
        if self.bound.host.all_finite(list(map(reals, self._g)), self._threads):
            return []
        return [(self.bound.paths[k], kinds) for k, g in zip(self._live, self._g) if (kinds := non_finite(g))]

    def ask(self, t: int) -> None:
        """Have what the step depends on after t completed steps; schedules are asked.

        Raises ValueError if one of them resized an array of the call.
        """
        self._meet(t, self.bound.ask(self._program.settings, self._live, t, self._arrays()))

    @property
    def gradients(self) -> list[tuple[int, np.ndarray]]:
        """Those that were given, by the number of the leaf, with what was gathered of them before."""
        return [*zip(self._live, self._g), *self.bound.gathered()]

    def _arrays(self) -> list[Any]:
        """All that was given."""
        return [*self._gs, *(self._xs or ()), *(self._targets or ())]

    def _meet(self, t: int, memo: dict[Any, Any]) -> None:
        """Take what was asked for (see `Bound.ask`), and the arrays to write and to read."""
        self._t, self._memo = t, memo
        self._new: dict[int, Any] = {}
        self._out = {} if self.holds else {k: self._destination(k) for k in self._live}
        written = [*((*byte_range(a), a) for a in self._out.values()), *self.bound.state_ranges]
        self._gradients = detach(list(map(reals, self._g)), written)

    def _destination(self, k: int) -> np.ndarray:
        """The array that leaf k's result is written to."""
        if self._into == "x":
            return self._x[k]
        if self._targets is not None:
            return reals(view(self._targets[k]))
        self._new[k] = new_like(self._gs[k], self.bound.shapes[k], self.bound.dtypes[k])
        return reals(view(self._new[k]))

    @property
    def readings(self) -> Sequence[Program]:
        """The programs whose totals are to be known before it can be prepared."""
        return self._program.readings

    def read(self, reading: Program) -> np.ndarray:
        """The totals of one of the readings, a row for each leaf."""
        with np.errstate(all="ignore"):
            leaves = [self._leaf(reading, k, g) for k, g in zip(self._live, self._gradients)]
        by_leaf = np.zeros((len(self._gs), len(reading.totals)))
        kernel = self.bound.kernel_for(f"{self._mode} {reading.totals[0].name}", reading)
        by_leaf[self._live] = read(reading, leaves, kernel, self.bound.host, self._threads)
        return by_leaf

    def know(self, totals: Mapping[str, Any]) -> None:
        """Take the totals of a reading by name: a number, or one for each leaf."""
        self._memo["known"] |= totals

    def prepare(self) -> None:
        """Find the scalars, and compile; raises what the step could raise."""
        with np.errstate(all="ignore"):
            self._leaves = [self._leaf(self._program, k, g) for k, g in zip(self._live, self._gradients)]
            self._numbers = self.bound.new_numbers(self._program, self._live, self._t, self._memo)
        kernel = self.bound.kernel_for(self._mode, self._program)
        for key in {(leaf.dtype, tuple(leaf.columns)) for leaf in self._leaves}:
            kernel(*key)  # compiled now: a failure or an interrupt here has changed nothing

    def _leaf(self, program: Program, k: int, g: np.ndarray) -> Leaf:
        """Leaf k's arrays, and its scalars in the computed dtype."""
        bound, out, memo = self.bound, self._out.get(k), self._memo
        x = out if self._into == "x" and not self.holds else self._x[k] if self._x else None
        own: dict[str, Any] = {"g": g, "x": x, INCREMENT: out}
        arrays = tuple(own[n] if n in own else reals(bound.state[n][k]) for n in program.arrays)
        outside = (g, *(a for a in (out, x if x is not out else None) if a is not None))
        self._check_sizes(k, outside)
        scalars, dtype = bound.scalars(program, k, self._t, memo), bound.computed[k]
        stored = self._stored(k)
        key = (id(scalars), dtype)  # leaves that share an evaluation share its constants
        if key in memo:
            return Leaf(arrays, outside, stored, memo[key], {})
        both = (..., None) if bound.dtypes[k].kind == "c" else ...  # parts have the coordinate's setting
        columns = {i: np.ascontiguousarray(np.broadcast_to(np.asarray(s, dtype)[both], g.shape))
                   for i, s in enumerate(scalars) if isinstance(s, np.ndarray) and s.ndim}
        constants = np.array([0.0 if i in columns else s for i, s in enumerate(scalars)], dtype)
        if not columns:
            memo[key] = constants
        return Leaf(arrays, outside, stored, constants, columns)

    def _stored(self, k: int) -> np.dtype:
        """The dtype of leaf k's arrays that the program reads and writes, but for the state."""
        return real(self.bound.dtypes[k])

    def _check_sizes(self, k: int, outside: Sequence[np.ndarray]) -> None:
        """Arrays were checked when the call began; since then code of others ran, that of a gradient's library too."""
        parts = (2,) if self.bound.dtypes[k].kind == "c" else ()
        for array, what in zip(outside, ("gradient", "parameter" if self._into == "x" else "out", "parameter")):
            if array.shape != self.bound.shapes[k] + parts:
                raise ValueError(f"{self.bound.name(k, what)} must have the shape {self.bound.shapes[k]} all through "
                                 f"the call. Got {array.shape[: array.ndim - len(parts)]}.")

    def shorten(self, part: str = "", beside: Sequence[tuple[int, int]] = ()) -> None:
        """Prepare the short way if the next call could take it: arrays that lay there at the last call too.

        That of a `part` is kept by another name, as it cannot be taken alone: `beside` it the others write.
        """
        bound, way = self.bound, "step" if self._into == "x" else "update" if self._targets is None else "out"
        if not (self._settled and bound.shortens):
            return
        xs = (self._xs or []) if "x" in self._program.reads else []
        outs = (self._targets or []) if way == "out" else []
        tensors = any(map(is_tensor, (*self._gs, *xs, *outs)))
        if way != "step" and (self.holds or tensors or len(self._live) < len(self._gs)):
            return
        lie = [[_as_it_lies(leaf, dtype) for leaf, dtype in zip(tree, bound.dtypes)] for tree in (xs, outs)]
        gs = [None if g is None else _as_it_lies(g, dtype) for g, dtype in zip(self._gs, bound.dtypes)]
        if any(a is None for a in (*lie[0], *lie[1], *(gs[k] for k in self._live))):
            return
        arrays = [tree for tree in (gs, *lie) if tree]
        strided = [not all(a is None or is_direct(a) for a in leaf) for leaf in zip(*arrays)]
        way = f"{part}{way}, held" if self.holds else part + way
        bound.prepare(way, self._program, lie[0], lie[1], strided, tensors, beside)

    def writes(self) -> list[tuple[int, int]]:
        """Where it writes, or another call of the same arrays may: byte ranges."""
        arrays = self._x if self._into == "x" else self._out.values()
        return [*(byte_range(a)[:2] for a in arrays if a.size), *(r[:2] for r in self.bound.state_ranges)]

    @property
    def whole(self) -> bool:
        """Whether an interrupt finds the call done and counted, or not begun: one native call with every gradient."""
        alike = len({tuple(leaf.columns) for leaf in self._leaves}) == 1
        every = len(self._live) == len(self._gs)
        one = every and alike and not any(map(is_strided, self._leaves))
        return self.bound.host.name == "native" and one and not self._program.numbers

    def run(self) -> Any:
        """Run the program and count that; returns the tree of parameters, or of increments."""
        bound = self.bound
        count = np.zeros(1, np.int64) if self.holds else bound.count
        run(self._program, self._leaves, bound.kernel_for(self._mode, self._program), bound.host, self._threads, count)
        bound.numbers.renew(self._numbers)
        if self.holds:
            return self._tree if self._into == "x" else self.nothing()
        bound.took(self._gs)
        if self._targets is None:
            return self._increments()
        return self._written(self._targets)

    def _written(self, targets: Sequence[Any]) -> Any:
        """The tree that was written to; a new one where numbers had to be replaced."""
        mark_changed([targets[k] for k in self._out])
        if self._into == INCREMENT:
            _zero([leaf for k, leaf in enumerate(targets) if k not in self._out])
        if not any(map(is_number, targets)):
            return self._tree
        return self.bound.treedef.unflatten(
            as_number(leaf, whole(self._out[k], self.bound.dtypes[k])) if is_number(leaf) and k in self._out else leaf
            for k, leaf in enumerate(targets))

    def nothing(self) -> Any:
        """The increments of a call that was skipped."""
        if self._targets is not None:
            _zero(self._targets)
            return self._tree
        self._new = {k: new_like(self._gs[k], self.bound.shapes[k], self.bound.dtypes[k]) for k in self._live}
        _zero(list(self._new.values()))
        return self._increments()

    def _increments(self) -> Any:
        """The tree of new increments; numbers where the gradients are."""
        return self.bound.treedef.unflatten(
            g if g is None else as_number(g, self._new[k]) if is_number(g) else self._new[k]
            for k, g in enumerate(self._gs))


def _as_it_lies(leaf: Any, dtype: np.dtype) -> np.ndarray | None:
    """A leaf as an array that the short way can take, else None: of any strides if it is real."""
    if type(leaf) is not np.ndarray and not is_tensor(leaf):
        return None
    array = view(leaf)
    fits = is_direct(array) if dtype.kind == "c" else array.flags.aligned
    return array if array.dtype == dtype and fits else None


def _zero(leaves: Sequence[Any]) -> None:
    for leaf in leaves:
        reals(view(leaf))[...] = -0.0
    mark_changed(leaves)
