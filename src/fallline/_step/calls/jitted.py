"""Leaves that are arrays of JAX: one compiled program steps many of them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fallline._arrays.leaves import is_jax
from fallline._engines.jax import compiled
from fallline._engines.jax.compiled import Given, Leaf, placed
from fallline._formula.program import Computed, Program

if TYPE_CHECKING:
    from fallline._step.calls.array import ArrayCall

__all__ = ["Jitted", "bunches"]

MOST = 64  # leaves of a program: XLA takes longer for each, to compile and to run, the more there are


def bunches(call: ArrayCall, leaves: Sequence[int]) -> list[Jitted]:
    """The leaves of a call that are arrays of JAX, in bunches, each on the same devices."""
    own = [k for k in leaves if is_jax(call.like[k])]
    places = [call.like[k].sharding for k in own]
    found = call.group.prepared.get("bunches")
    if found is None or found.leaves != own or not _same(found.places, places):
        found = call.group.prepared["bunches"] = _Bunches(own, places, _divided(own, [call.like[k] for k in own]))
    return [Jitted(ks) for ks in found.bunches]


class _Bunches(NamedTuple):
    leaves: list[int]
    places: list[Any]
    bunches: list[list[int]]


def _divided(leaves: Sequence[int], arrays: Sequence[Any]) -> list[list[int]]:
    by_devices: dict[Any, list[int]] = {}
    for k, array in zip(leaves, arrays):
        by_devices.setdefault(frozenset(array.sharding.device_set), []).append(k)
    return [own[start : start + MOST] for own in by_devices.values() for start in range(0, len(own), MOST)]


def _same(objects: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(objects) == len(others) and all(map(operator.is_, objects, others))


class _Prepared(NamedTuple):
    """What was compiled, for which leaves of what program, and arrays of which forms and places."""

    program: Program
    leaves: list[Any]
    forms: list[Any]
    executable: Callable[..., Any]


class Jitted:
    """Some leaves of a call, as `Each` has them."""

    def __init__(self, leaves: list[int]) -> None:
        self.leaves = leaves

    def looked_at(self, call: ArrayCall) -> Callable[[], bool]:
        """Have it found out whether the gradients are finite."""
        return compiled.are_finite([call.gs[k] for k in self.leaves])

    def totals(self, call: ArrayCall, reading: Program) -> np.ndarray:
        """As `Each.totals`."""
        executable, given = self._prepared(call, reading)
        return np.asarray(compiled.called(executable, given))

    def prepare(self, call: ArrayCall, program: Program) -> None:
        """As `Each.prepare`, but for what is computed, in `run`."""
        call.group.keep_apart()
        self._executable, self._given = self._prepared(call, program)

    def run(self, call: ArrayCall) -> list[Any]:
        """As `Each.run`."""
        state = call.group.state
        written, others = compiled.called(self._executable, self._given)
        new = {**written, **others}
        for slot in new.keys() & state.keys():
            for k, array in zip(self.leaves, new[slot]):
                state[slot][k] = array
        results = new.get(call.into, [None] * len(self.leaves))
        if call.into == "x" or call.targets is None:
            return results
        return [call.put(k, result) for k, result in zip(self.leaves, results)]

    def _prepared(self, call: ArrayCall, program: Program) -> tuple[Callable[..., Any], Given]:
        """What is compiled for a program, and what it is to run over."""
        leaves, rows, columns = self._scalars(call, program)
        given = self._given_to(call, program, rows, columns)
        arrays = [a for by_name in (given.read, given.written) for own in by_name.values() for a in own]
        forms = compiled.forms(arrays)
        key, kept = (id(program), self.leaves[0]), call.group.prepared
        found = kept.get(key)
        if found is None or found.program is not program or found.leaves != leaves or not _same(found.forms, forms):
            self._check_devices(call, given)
            others = [name for name, _ in program.outputs if name not in given.written and not program.totals]
            like = {name: self._arrays(call, name) for name in others}
            executable = compiled.compiled(program, [Leaf(*own) for own in leaves], given, like)
            found = kept[key] = _Prepared(program, leaves, forms, executable)
        return found.executable, given

    def _check_devices(self, call: ArrayCall, given: Given) -> None:
        """Raise TypeError unless gradients, and state, are where the parameters are."""
        group = call.group
        for n, k in enumerate(self.leaves):
            place = placed(call.like[k])
            for name, arrays in {**given.read, **given.written}.items():
                other = placed(arrays[n])
                if place is None or other is None or place.device_set == other.device_set:
                    continue
                if name == "g":
                    raise TypeError(f"{group.name(k, 'gradient')} must be on {_said(place)}, as the parameter. Got one "
                                    f"on {_said(other)}: pass jax.device_put(gradient, parameter.sharding).")
                raise TypeError(f"{group.name(k, 'parameter')} must be on {_said(other)}, as before. Got one on "
                                f"{_said(place)}: take it there, or call reset().")

    def _arrays(self, call: ArrayCall, name: str) -> list[Any]:
        """Those of the leaves that a program calls so."""
        arrays = call.group.state.get(name, call.gs if name == "g" else call.like)
        return [arrays[k] for k in self.leaves]

    def _given_to(self, call: ArrayCall, program: Program, rows: Sequence[np.ndarray],
                  columns: Sequence[Sequence[np.ndarray]]) -> Given:
        new = call.group.state.keys() & {name for name, _ in program.outputs if not program.totals}
        names = dict.fromkeys(("g", *program.inputs))  # g has the shape, also for a program that does not read it
        read, written = ({name: self._arrays(call, name) for name in names if (name in new) is writes}
                         for writes in (False, True))  # fmt: skip
        return Given(read, written, rows, columns)

    def _scalars(self, call: ArrayCall, program: Program
                 ) -> tuple[list[Any], list[np.ndarray], list[Sequence[np.ndarray]]]:
        """The scalars of the leaves: a row for each dtype computed in if all agree, else a row for each leaf."""
        group = call.group
        each = self._each(call, program)
        keys: Sequence[int] = [*map(id, each)]
        if len({*keys}) > len({group.computed[k] for k in self.leaves}):
            keys = self.leaves
        made: dict[int, _Row] = {}
        for key, own, k in zip(keys, each, self.leaves):
            if key not in made:
                made[key] = _Row.of(own, group.computed[k], len(made))
        rows = [made[key] for key in keys]
        leaves = [(group.dtypes[k], row.place, row.columns) for k, row in zip(self.leaves, rows)]
        columns = [row.of_leaf(own, group.shapes[k]) if row.columns else [] for row, own, k in
                   zip(rows, each, self.leaves)]
        return leaves, [row.scalars for row in made.values()], columns

    def _each(self, call: ArrayCall, program: Program) -> list[Sequence[Any]]:
        """The scalars of each leaf: one and the same sequence for those that agree whatever the numbers are."""
        group, numbers, settings = call.group, call.memo["numbers"], call.memo["settings"]
        given = [numbers[name] if isinstance(name, Computed) else settings[name] for name in program.hyper]
        if group.missed.any() or any(type(value) is list for value in given):
            return [[*group.scalars(program, k, call.t, call.memo)] for k in self.leaves]
        dtypes = [group.computed[k] for k in self.leaves]
        of = dict(zip(dtypes, self.leaves))
        found = {dtype: group.scalars(program, k, call.t, call.memo) for dtype, k in of.items()}
        return [found[dtype] for dtype in dtypes]


class _Row(NamedTuple):
    """Scalars in the dtype computed in, but for those, at `columns`, that differ by coordinate."""

    scalars: np.ndarray
    place: int
    columns: tuple[int, ...]

    @classmethod
    def of(cls, scalars: Sequence[Any], dtype: np.dtype, place: int) -> _Row:
        columns = tuple(i for i, s in enumerate(scalars) if isinstance(s, np.ndarray) and s.ndim)
        return cls(np.array([0.0 if i in columns else s for i, s in enumerate(scalars)], dtype), place, columns)

    def of_leaf(self, scalars: Sequence[Any], shape: tuple[int, ...]) -> Sequence[np.ndarray]:
        """Of such a leaf the scalars that differ by coordinate."""
        return [np.broadcast_to(np.asarray(scalars[i], self.scalars.dtype), shape) for i in self.columns]


def _said(place: Any) -> str:
    return ", ".join(sorted(map(str, place.device_set)))
