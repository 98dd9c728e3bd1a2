"""A call on arrays of another library, whole arrays at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from fallline._arrays.batches import Batch, are_finite, norms, put_all, without_graph
from fallline._arrays.dtypes import kept
from fallline._arrays.leaves import (
    as_number,
    cast,
    detached,
    filled_like,
    host,
    is_number,
    is_tensor,
    joined,
    kind_of,
    like,
    split,
    view,
    widened,
)
from fallline._arrays.libraries import reading
from fallline._arrays.memory import check_disjoint
from fallline._arrays.namespaces import namespace
from fallline._engines.array_api import reduced, run_eagerly
from fallline._formula.program import INCREMENT, Program
from fallline._formula.words import SCALES
from fallline._step.group import Group

__all__ = ["ArrayCall"]


class ArrayCall:
    """One step or update, as `HostCall` has it: new arrays are computed for all leaves before any is put in place."""

    def __init__(self, group: Group, program: Program, into: str, xs: Sequence[Any] | None, gs: Sequence[Any],
                 targets: Sequence[Any] | None, own: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.group, self.program, self._xs, self._targets = group, program, xs, targets
        self._settings = {**group.settings, **own}
        self._given = [*gs, *(xs or ()), *(targets or ())]
        self._gs = [None if g is None else self._gradient(k, g, leaf)
                    for k, (g, leaf) in enumerate(zip(gs, gs if xs is None else xs))]
        self.into, self.holds = into, into not in dict(program.outputs)
        if targets is not None:
            for k, leaf in enumerate(targets):
                self._check_target(k, leaf)
            self._check_disjoint(targets)
        self.live = [k for k, g in enumerate(self._gs) if g is not None]

    def arrange(self) -> None:
        """As `HostCall.arrange`: nothing is written before it is computed."""

    def find_non_finite(self) -> list[tuple[str, str]]:
        """As `HostCall.find_non_finite`."""
        if not self.group.checks_finite:
            return []
        tensors: list[Any] = [self._gs[k] for k in self.live if is_tensor(self._gs[k])]
        if len(tensors) == len(self.live) > 1 and len({g.device for g in tensors}) == 1 and are_finite(tensors):
            return []
        bad = []
        for k in self.live:
            with reading(self._gs[k], self.group.name(k, "gradient")):
                bad.append((self.group.paths[k], _bad(self._gs[k])))
        return [(path, kinds) for path, kinds in bad if kinds]

    def _gradient(self, k: int, g: Any, leaf: Any) -> Any:
        if is_tensor(g) and is_tensor(leaf) and g.device != leaf.device:
            raise TypeError(f"{self.group.name(k, 'gradient')} must be on {leaf.device}, as the parameter. Got one on "
                            f"{g.device}: pass .to({str(leaf.device)!r}) of it.")
        with reading(g, self.group.name(k, "gradient")):
            return _gradient(g, leaf, self.group.dtypes[k])

    @property
    def gradients(self) -> list[tuple[int, Any]]:
        """As `HostCall.gradients`."""
        return [*((k, self._gs[k]) for k in self.live), *self.group.gathered()]

    def ask(self, t: int) -> None:
        """As `HostCall.ask`."""
        self.t = t
        self.memo = self.group.ask(self.program.settings, self.live, t, self._given, self._settings)

    @property
    def readings(self) -> Sequence[Program]:
        """As `HostCall.readings`."""
        return self.program.readings

    def read(self, reading: Program) -> np.ndarray:
        """As `HostCall.read`."""
        by_leaf = np.zeros((len(self._gs), len(reading.totals)))
        left = dict.fromkeys(self.live)
        for ks in self._alike(reading) if all(total.kind in SCALES for total in reading.totals) else ():
            found = self._norms(reading, ks)
            if found is not None:
                by_leaf[ks] = found
                left = dict.fromkeys(k for k in left if k not in ks)
        for k in left:
            values = self._compute(reading, k)
            by_leaf[k] = [reduced(values[total.name], total.kind) for total in reading.totals]
        return by_leaf

    def _norms(self, reading: Program, ks: Sequence[int]) -> np.ndarray | None:
        """The totals of such leaves, which are all of squares; None if torch cannot say them of all together."""
        values = self._batch(reading, ks)
        found = {id(batch): norms(batch) for batch in values.values()}  # once for one batch, whatever it is scaled by
        each = [(found[id(values[total.name])], SCALES[total.kind]) for total in reading.totals]
        with np.errstate(over="ignore", under="ignore"):
            squares = [np.square(np.multiply(own, scale)) for own, scale in each if own is not None]
        return np.transpose(squares) if len(squares) == len(each) else None

    @property
    def readings_behind(self) -> Sequence[Program]:
        """As `HostCall.readings_behind`."""
        return ()

    def ahead(self) -> None:
        """As `HostCall.ahead`."""

    def know(self, totals: Mapping[str, Any]) -> None:
        """As `HostCall.know`."""
        self.memo["numbers"] |= totals

    def prepare(self) -> None:
        """Compute what `run` puts in place."""
        self._together = [(ks, self._batch(self.program, ks)) for ks in self._alike(self.program)]
        apart = {k for ks, _ in self._together for k in ks}
        self._new = {k: self._increments(k) for k in self.live if k not in apart}
        self._numbers = self.group.new_numbers(self.program, self.live, self.t, self.memo)

    def _check_target(self, k: int, leaf: Any) -> None:
        if self.into == INCREMENT and not _writable(leaf):
            raise TypeError(f"{self.group.name(k, 'out')} cannot be written ({type(leaf).__name__}): leave out= away.")
        if isinstance(leaf, np.ndarray) and not leaf.flags.writeable:
            raise ValueError(f"{self.group.name(k, 'parameter')} is read-only: pass a copy.")

    def _check_disjoint(self, targets: Sequence[Any]) -> None:
        """Refuse what shares memory, where that can be told: in host memory. (JAX arrays are not written.)"""
        what = "parameter" if self.into == "x" else "out"
        here = [(view(leaf), self.group.name(k, what)) for k, leaf in enumerate(targets)
                if kind_of(leaf, what) == "host"]
        check_disjoint([array for array, _ in here], [name for _, name in here])

    def run(self) -> list[Any] | None:
        """Put the new arrays in place, and count that; see `HostCall.finish`."""
        group, new = self.group, self._new
        result: list[Any] = []
        whole = {k: leaf for ks, new in self._together for k, leaf in self._put_together(ks, new).items()}
        for k in range(len(self._gs)):
            if k in whole:
                result.append(whole[k])
                continue
            old = None if self._targets is None else self._targets[k]
            if k not in new:
                result.append(old if self.into == "x" or old is None else _put(old, filled_like(old, -0.0)))
                continue
            for slot in new[k].keys() & group.state.keys():
                group.state[slot][k] = _put(group.state[slot][k], new[k][slot])
            if not self.holds:
                result.append(new[k][self.into] if old is None else _put(old, new[k][self.into]))
        group.numbers.renew(self._numbers)
        if group.notes(self._gs):
            group.note(self._gs, self.holds)
        if self.holds:
            return None if self.into == "x" else self.nothing()
        group.took(self._gs)
        group.count += 1
        return result

    def _alike(self, program: Program) -> list[list[int]]:
        """The leaves that are tensors which a program takes with the same numbers, of which torch does an operation on
        all at once."""
        found: dict[Any, list[int]] = {}
        for k in self.live:
            leaf: Any = self._gs[k] if self._xs is None else self._xs[k]
            dtype = self.group.dtypes[k]
            if not is_tensor(leaf) or not is_tensor(self._gs[k]) or kept(dtype) != dtype or dtype.kind == "c":
                continue
            scalars = self.group.scalars(program, k, self.t, self.memo)
            if not any(isinstance(s, np.ndarray) and s.ndim for s in scalars):  # values by coordinate
                found.setdefault((leaf.device, dtype.name, tuple(map(float, scalars))), []).append(k)
        return [ks for ks in found.values() if len(ks) > 1]

    def _batch(self, program: Program, ks: Sequence[int]) -> dict[str, Batch]:
        """What a program makes of such leaves, by name."""
        arrays = {"g": Batch([self._gs[k] for k in ks]),
                  **{slot: Batch([values[k] for k in ks]) for slot, values in self.group.state.items()}}
        if "x" in program.inputs:
            assert self._xs is not None
            arrays["x"] = Batch([self._xs[k] for k in ks])
        scalars = map(float, self.group.scalars(program, ks[0], self.t, self.memo))
        with without_graph(), np.errstate(all="ignore"):
            return run_eagerly(program, arrays, list(scalars))

    def _put_together(self, ks: Sequence[int], new: Mapping[str, Batch]) -> dict[int, Any]:
        """Put new values in place; the leaves that come back."""
        state = self.group.state
        for slot in new.keys() & state.keys():
            put_all([state[slot][k] for k in ks], new[slot].tensors)
        if self.holds:
            return dict.fromkeys(ks)
        found = new[self.into].tensors
        if self._targets is None:
            return dict(zip(ks, found))
        targets = [self._targets[k] for k in ks]
        put_all(targets, found)
        return dict(zip(ks, targets))

    def _increments(self, k: int) -> dict[str, Any]:
        dtype = self.group.dtypes[k]
        new = self._compute(self.program, k)
        with np.errstate(all="ignore"):
            return {name: joined(value, dtype if name == self.into else kept(dtype)) for name, value in new.items()}

    def _compute(self, program: Program, k: int) -> dict[str, Any]:
        scalars = self.group.scalars(program, k, self.t, self.memo)
        g = split(widened(self._gs[k]))
        arrays = {"g": g, **{slot: split(values[k]) for slot, values in self.group.state.items()}}
        if "x" in program.inputs:
            assert self._xs is not None
            arrays["x"] = split(widened(detached(self._xs[k])))
        dtype = self.group.dtypes[k]
        both = (..., None) if dtype.kind == "c" else ...  # parts have the coordinate's setting
        values = [like(g, s[both]) if isinstance(s, np.ndarray) and s.ndim else float(s) for s in scalars]
        with np.errstate(all="ignore"):
            return run_eagerly(program, arrays, values)

    def nothing(self) -> list[Any]:
        """The increments of a call that was skipped."""
        zeros = [None if g is None else filled_like(g, -0.0) for g in self._gs]
        if self._targets is None:
            return zeros
        return [_put(old, filled_like(old, -0.0) if zero is None else zero) for old, zero in zip(self._targets, zeros)]


def _gradient(g: Any, leaf: Any, dtype: np.dtype) -> Any:
    """The gradient as an array of the parameter's library and dtype."""
    g = detached(g)
    xp = namespace(leaf)
    if xp is None or xp is np:
        with np.errstate(all="ignore"):  # what overflows is judged as a gradient that is not finite
            return np.asarray(host(g), dtype)
    alike = (is_tensor(g) and is_tensor(leaf)) or type(g) is type(detached(leaf))
    return cast(g, dtype) if alike else like(leaf, widened(host(g)))


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
    detached(old)[...] = new  # no part of the user's graph, but a tensor's version counter moves
    return old
