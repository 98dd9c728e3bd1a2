"""A call on arrays of another library, whole arrays at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fallline._arrays.dtypes import kept
from fallline._arrays.leaves import (
    as_number,
    cast,
    detached,
    filled_like,
    host,
    is_number,
    joined,
    kind_of,
    like,
    reading,
    split,
    view,
    widened,
)
from fallline._arrays.memory import check_disjoint
from fallline._arrays.namespaces import namespace
from fallline._engines.array_api import reduced, run_eagerly
from fallline._formula.program import INCREMENT, Program
from fallline._step.binding import Bound

__all__ = ["EagerCall"]


class EagerCall:
    """One step or update, as `HostCall` has it: new arrays are computed for all leaves before any is put in place."""

    whole = False  # an interrupt may come while arrays are put in place

    def __init__(self, bound: Bound, program: Program, into: str, xs: Sequence[Any] | None, gs: Sequence[Any],
                 targets: Sequence[Any] | None, tree: Any) -> None:
        self.bound, self._program, self._xs, self._targets, self._tree = bound, program, xs, targets, tree
        self._given = [*gs, *(xs or ()), *(targets or ())]
        self._gs = [None if g is None else self._gradient(k, g, leaf)
                    for k, (g, leaf) in enumerate(zip(gs, gs if xs is None else xs))]
        self._into, self.holds = into, into not in dict(program.outputs)
        if targets is not None:
            for k, leaf in enumerate(targets):
                self._check_target(k, leaf)
            self._check_disjoint(targets)
        self._live = [k for k, g in enumerate(self._gs) if g is not None]
        bad = [(bound.paths[k], _bad(self._gs[k])) for k in self._live if bound.checks_finite]
        self.non_finite = [(path, kinds) for path, kinds in bad if kinds]

    def _gradient(self, k: int, g: Any, leaf: Any) -> Any:
        with reading(g, self.bound.name(k, "gradient")):
            return _gradient(g, leaf, self.bound.dtypes[k])

    @property
    def gradients(self) -> list[tuple[int, Any]]:
        """As `HostCall.gradients`."""
        return [*((k, self._gs[k]) for k in self._live), *self.bound.gathered()]

    def ask(self, t: int) -> None:
        """As `HostCall.ask`."""
        self._t, self._memo = t, self.bound.ask(self._program.settings, self._live, t, self._given)

    @property
    def readings(self) -> Sequence[Program]:
        """As `HostCall.readings`."""
        return self._program.readings

    def read(self, reading: Program) -> np.ndarray:
        """As `HostCall.read`."""
        by_leaf = np.zeros((len(self._gs), len(reading.totals)))
        for k in self._live:
            values = self._compute(reading, k)
            by_leaf[k] = [reduced(values[total.name], total.kind) for total in reading.totals]
        return by_leaf

    def know(self, totals: Mapping[str, Any]) -> None:
        """As `HostCall.know`."""
        self._memo["known"] |= totals

    def prepare(self) -> None:
        """Compute what `run` puts in place."""
        self._new = {k: self._increments(k) for k in self._live}
        self._numbers = self.bound.new_numbers(self._program, self._live, self._t, self._memo)

    def _check_target(self, k: int, leaf: Any) -> None:
        if self._into == INCREMENT and not _writable(leaf):
            raise TypeError(f"{self.bound.name(k, 'out')} cannot be written ({type(leaf).__name__}): leave out= away.")
        if isinstance(leaf, np.ndarray) and not leaf.flags.writeable:
            raise ValueError(f"{self.bound.name(k, 'parameter')} is read-only: pass a copy.")

    def _check_disjoint(self, targets: Sequence[Any]) -> None:
        """Refuse what shares memory, where that can be told: in host memory. (JAX arrays are not written.)"""
        what = "parameter" if self._into == "x" else "out"
        here = [(view(leaf), self.bound.name(k, what)) for k, leaf in enumerate(targets)
                if not is_number(leaf) and kind_of(leaf, what) in ("numpy", "torch")]
        check_disjoint([array for array, _ in here], [name for _, name in here])

    def run(self) -> Any:
        """Put the new arrays in place; returns the tree of parameters, or of increments."""
        bound, new = self.bound, self._new
        result: list[Any] = []
        for k in range(len(self._gs)):
            old = None if self._targets is None else self._targets[k]
            if k not in new:
                result.append(old if self._into == "x" or old is None else _put(old, filled_like(old, -0.0)))
                continue
            for slot in new[k].keys() & bound.state.keys():
                bound.state[slot][k] = _put(bound.state[slot][k], new[k][slot])
            if not self.holds:
                result.append(new[k][self._into] if old is None else _put(old, new[k][self._into]))
        bound.numbers.renew(self._numbers)
        if self.holds:
            return self._tree if self._into == "x" else self.nothing()
        bound.took(self._gs)
        bound.count += 1
        return bound.treedef.unflatten(result)

    def _increments(self, k: int) -> dict[str, Any]:
        dtype = self.bound.dtypes[k]
        new = self._compute(self._program, k)
        with np.errstate(all="ignore"):
            return {name: joined(value, dtype if name == self._into else kept(dtype)) for name, value in new.items()}

    def _compute(self, program: Program, k: int) -> dict[str, Any]:
        scalars = self.bound.scalars(program, k, self._t, self._memo)
        g = split(widened(self._gs[k]))
        arrays = {"g": g, **{slot: split(values[k]) for slot, values in self.bound.state.items()}}
        if "x" in program.inputs:
            assert self._xs is not None
            arrays["x"] = split(widened(detached(self._xs[k])))
        dtype = self.bound.dtypes[k]
        both = (..., None) if dtype.kind == "c" else ...  # parts have the coordinate's setting
        values = [like(g, s[both]) if isinstance(s, np.ndarray) and s.ndim else float(s) for s in scalars]
        with np.errstate(all="ignore"):
            return run_eagerly(program, arrays, values)

    def nothing(self) -> Any:
        """The increments of a call that was skipped."""
        zeros = [None if g is None else filled_like(g, -0.0) for g in self._gs]
        if self._targets is None:
            return self.bound.treedef.unflatten(zeros)
        return self.bound.treedef.unflatten(
            _put(old, filled_like(old, -0.0) if zero is None else zero) for old, zero in zip(self._targets, zeros))


def _gradient(g: Any, leaf: Any, dtype: np.dtype) -> Any:
    """The gradient as an array of the parameter's library and dtype."""
    g = detached(g)
    xp = namespace(leaf)
    if xp is None or xp is np:
        with np.errstate(all="ignore"):  # what overflows is judged as a gradient that is not finite
            return np.asarray(host(g), dtype)
    return like(leaf, widened(host(g))) if type(g) is not type(detached(leaf)) else cast(g, dtype)


def _bad(g: Any) -> str:
    xp = namespace(g)
    if bool(xp.all(xp.isfinite(g))):
        return ""
    nan = int(xp.sum(xp.astype(xp.isnan(g), xp.int32))) if xp is not np else int(np.isnan(g).sum())
    infinite = int(xp.sum(xp.astype(xp.isinf(g), xp.int32))) if xp is not np else int(np.isinf(g).sum())
    return " and ".join(f"{n:,} {word}" for n, word in ((nan, "NaN"), (infinite, "infinite")) if n)


def _writable(leaf: Any) -> bool:
    from array_api_compat import is_writeable_array

    return not is_number(leaf) and is_writeable_array(leaf)


def _put(old: Any, new: Any) -> Any:
    """The new values in the old array if it can be written, else the new array."""
    if is_number(old):
        return as_number(old, new)
    if not _writable(old):
        return new
    if hasattr(old, "detach"):  # torch: no part of the user's graph, but its version counter moves
        old.detach().copy_(new)
    else:
        old[...] = new
    return old
