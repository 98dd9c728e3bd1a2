"""A call on arrays of other libraries than NumPy, whole arrays at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from fallline._arrays.batches import are_finite
from fallline._arrays.leaves import (
    cast,
    detached,
    filled_like,
    host,
    in_memory,
    is_jax,
    is_tensor,
    like,
    widened,
)
from fallline._arrays.libraries import reading
from fallline._arrays.memory import check_disjoint
from fallline._arrays.namespaces import namespace
from fallline._formula.program import INCREMENT, Program
from fallline._step.calls import together
from fallline._step.calls.each import Each, put, writable
from fallline._step.group import Group

if TYPE_CHECKING:  # which needs JAX
    from fallline._step.calls.jitted import Jitted

__all__ = ["ArrayCall"]


class ArrayCall:
    """One step or update, as `HostCall` has it: all that may be refused is, before anything is put in place.

    What is computed is so in bunches of leaves: of arrays of JAX (`jitted`), of tensors (`together`), or one by one
    (`each`). These look at `gs`, the gradients; `like`, the parameters, or the gradients where those are not known; and
    `targets`. `live` are the leaves that take part.
    """

    def __init__(self, group: Group, program: Program, into: str, xs: Sequence[Any] | None, gs: Sequence[Any],
                 targets: Sequence[Any] | None, own: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.group, self.program, self.targets = group, program, targets
        self._settings = {**group.settings, **own}
        self._given = [*gs, *(xs or ()), *(targets or ())]
        self.gs: list[Any] = [None if g is None else self._gradient(k, g, leaf)
                              for k, (g, leaf) in enumerate(zip(gs, gs if xs is None else xs))]
        self.like: Sequence[Any] = self.gs if xs is None else xs
        self.into, self.holds = into, into not in dict(program.outputs)
        if targets is not None:
            for k, leaf in enumerate(targets):
                self._check_target(k, leaf)
            self._check_disjoint(targets)
        self.live = [k for k, g in enumerate(self.gs) if g is not None]
        self._jitted = self._divided()
        jitted = {k for bunch in self._jitted for k in bunch.leaves}
        self._others = [k for k in self.live if k not in jitted]

    def _divided(self) -> list[Jitted]:
        """The leaves that take part and are arrays of JAX."""
        if not any(is_jax(self.like[k]) for k in self.live):
            return []
        from fallline._step.calls.jitted import bunches  # JAX is there

        return bunches(self, self.live)

    def arrange(self) -> None:
        """As `HostCall.arrange`: nothing is written before it is computed."""

    def find_non_finite(self) -> list[tuple[str, str]]:
        """As `HostCall.find_non_finite`."""
        if not self.group.checks_finite:
            return []
        looked = [(bunch.leaves, bunch.looked_at(self)) for bunch in self._jitted]
        bad = [] if self._are_finite(self._others) else [*self._others]
        bad += [k for leaves, is_finite in looked if not is_finite() for k in leaves]
        found = []
        for k in sorted(bad):
            with reading(self.gs[k], self.group.name(k, "gradient")):
                found.append((self.group.paths[k], _bad(self.gs[k])))
        return [(path, kinds) for path, kinds in found if kinds]

    def _are_finite(self, leaves: Sequence[int]) -> bool:
        """Whether gradients are known to be finite, which torch says of many at once."""
        tensors: list[Any] = [self.gs[k] for k in leaves if is_tensor(self.gs[k])]
        return len(tensors) == len(leaves) > 1 and len({g.device for g in tensors}) == 1 and are_finite(tensors)

    def _gradient(self, k: int, g: Any, leaf: Any) -> Any:
        if is_jax(g) and is_jax(leaf):
            return cast(g, self.group.dtypes[k])
        if is_tensor(g) and is_tensor(leaf) and g.device != leaf.device:
            raise TypeError(f"{self.group.name(k, 'gradient')} must be on {leaf.device}, as the parameter. Got one on "
                            f"{g.device}: pass .to({str(leaf.device)!r}) of it.")
        with reading(g, self.group.name(k, "gradient")):
            return _gradient(g, leaf, self.group.dtypes[k])

    @property
    def gradients(self) -> list[tuple[int, Any]]:
        """As `HostCall.gradients`."""
        return [*((k, self.gs[k]) for k in self.live), *self.group.gathered()]

    def ask(self, t: int) -> None:
        """As `HostCall.ask`."""
        self.t = t
        self.memo = self.group.ask(self.program.settings, self.live, t, self._given, self._settings)

    def _bunches(self, program: Program) -> list[Jitted | together.Together | Each]:
        """The leaves that take part, as a program computes them."""
        at_once = together.bunches(self, self._others, program)
        met = {k for bunch in at_once for k in bunch.leaves}
        return [*self._jitted, *at_once, Each([k for k in self._others if k not in met])]

    @property
    def readings(self) -> Sequence[Program]:
        """As `HostCall.readings`."""
        return self.program.readings

    def read(self, reading: Program) -> np.ndarray:
        """As `HostCall.read`."""
        by_leaf = np.zeros((len(self.gs), len(reading.totals)))
        for bunch in self._bunches(reading):
            by_leaf[bunch.leaves] = bunch.totals(self, reading)
        return by_leaf

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
        """Have all that `run` puts in place, or computes in the place of what it has."""
        self._prepared = self._bunches(self.program)
        for bunch in self._prepared:
            bunch.prepare(self, self.program)
        self._numbers = self.group.new_numbers(self.program, self.live, self.t, self.memo)

    def _check_target(self, k: int, leaf: Any) -> None:
        if self.into == INCREMENT and not writable(leaf):
            raise TypeError(f"{self.group.name(k, 'out')} cannot be written ({type(leaf).__name__}): leave out= away.")
        if isinstance(leaf, np.ndarray) and not leaf.flags.writeable:
            raise ValueError(f"{self.group.name(k, 'parameter')} is read-only: pass a copy.")

    def _check_disjoint(self, targets: Sequence[Any]) -> None:
        """Refuse what shares memory, where that can be told: in host memory. (JAX arrays are not written.)"""
        what = "parameter" if self.into == "x" else "out"
        here = [(array, k) for k, leaf in enumerate(targets) if (array := in_memory(leaf)) is not None]
        check_disjoint([array for array, _ in here], [self.group.name(k, what) for _, k in here])

    @property
    def is_dispatched(self) -> bool:
        """Whether `run` only has compiled programs run, which it does not wait for."""
        return not self._others

    def run(self) -> list[Any] | None:
        """Put the new arrays in place, and count that; see `HostCall.finish`."""
        group, found = self.group, dict[int, Any]()
        for bunch in self._prepared:
            found.update(zip(bunch.leaves, bunch.run(self)))
        group.numbers.renew(self._numbers)
        if group.notes(self.gs):
            group.note(self.gs, self.holds)
        if self.holds:
            return None if self.into == "x" else self.nothing()
        group.took(self.gs)
        group.count += 1
        return [found[k] if k in found else self._unmoved(k) for k in range(len(self.gs))]

    def put(self, k: int, new: Any) -> Any:
        """What comes back for a leaf: the new values in the array that is to be written, if there is one."""
        return new if self.targets is None or new is None else put(self.targets[k], new)

    def _unmoved(self, k: int) -> Any:
        """What comes back for a leaf that takes no part."""
        old = None if self.targets is None else self.targets[k]
        return old if self.into == "x" or old is None else put(old, filled_like(old, -0.0))

    def nothing(self) -> list[Any]:
        """The increments of a call that was skipped."""
        zeros = [None if g is None else filled_like(g, -0.0) for g in self.gs]
        if self.targets is None:
            return zeros
        return [put(old, filled_like(old, -0.0) if zero is None else zero) for old, zero in zip(self.targets, zeros)]


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
