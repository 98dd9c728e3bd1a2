"""One update of the leaves that a chain steps, as arrays and numbers that JAX traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fallline._arrays.dtypes import kept
from fallline._arrays.leaves import joined, split, widened
from fallline._engines.jax import kernel
from fallline._engines.jax.scalars import evaluated, is_traced
from fallline._formula.program import ACROSS, INCREMENT, Computed, Program, StateName
from fallline._functional.share import Share, State, packed, unpacked
from fallline._step.calls.whole import taken
from fallline._step.values import of_leaf

__all__ = ["Call", "read"]

LAST_STEP = 2**31 - 1  # where the count stays


class Call:
    """Of a share the gradients, the parameters if they are known, and the state before; `holds` says that gradients are
    only gathered (`rules.accumulate`)."""

    def __init__(self, share: Share, state: State, gs: Sequence[Any], xs: Sequence[Any] | None, holds: bool) -> None:
        self.share, self._state, self._holds, chain = share, state, holds, share.chain
        self._program = chain.holding(INCREMENT) if holds else chain.updating
        self._ahead = None if holds else chain.ahead
        self._gs = [split(widened(g)) for g in gs]
        self._xs = None if xs is None else [split(widened(x)) for x in xs]
        self._slots = {slot: list(map(split, arrays)) for slot, arrays in share.slots(state).items()}
        scopes = chain.scopes()
        self._numbers: dict[str, Any] = {
            StateName(f"state {slot}"): unpacked(own) if scopes[slot] == "tree" else
            list(map(unpacked, share.treedef.flatten_like(own, f"numbers[{slot!r}] of the state", "the parameters")))
            for slot, own in state.numbers.items()}
        self._memo: dict[Any, Any] = {}
        self._new_numbers: dict[str, list[Any]] = {slot: [] for slot in scopes}  # by slot one for each leaf
        self._fresh: list[dict[str, Any]] = [{} for _ in gs]
        self.first = self._ahead.readings if self._ahead else () if chain.rule.whole_leaf else self._program.readings
        self.then = self._program.readings if chain.rule.whole_leaf and not holds else ()

    # ---- scalars -----------------------------------------------------------------------------------------------------

    def _given(self, name: str, k: int) -> Any:
        """What a program depends on: a hyper-parameter's value, asked for once, or a number known before."""
        if isinstance(name, Computed):
            return of_leaf(self._numbers[name], k)
        setting = self.share.setting(name, k)
        key = name, id(setting)
        if key not in self._memo:
            self._memo[key] = self.share.value(name, setting, self._state.count)
        return self._memo[key]

    def _evaluated(self, program: Program, k: int) -> tuple[Sequence[Any], Sequence[Any]]:
        """The program's scalars, in the dtype computed in, and its new numbers; leaves that agree share them."""
        values = [self._given(name, k) for name in program.hyper]
        dtype = self.share.computed[k]
        key = id(program), dtype, *(v if type(v) is float else id(v) for v in values)
        if key not in self._memo:
            scalars, numbers = evaluated(program, values, self._state.count + 1, float(np.finfo(dtype).tiny))
            with jax.enable_x64(True), np.errstate(all="ignore"):
                self._memo[key] = [lax.convert_element_type(s, dtype) for s in scalars], numbers, values
        return self._memo[key][:2]

    def _arrays(self, program: Program, k: int) -> tuple[dict[str, Any], list[Any]]:
        """What a program runs over: arrays by name, and its scalars."""
        own = {"g": self._gs[k], **{slot: arrays[k] for slot, arrays in self._slots.items()}}
        if "x" in program.inputs:
            assert self._xs is not None
            own["x"] = self._xs[k]
        both = (..., None) if self.share.dtypes[k].kind == "c" else ...  # parts have the coordinate's setting
        return own, [s[both] if np.ndim(s) else s for s in self._evaluated(program, k)[0]]

    # ---- sums --------------------------------------------------------------------------------------------------------

    def totals(self, reading: Program) -> list[list[Any]]:
        """The totals of a reading, by leaf."""
        return [kernel.totals(reading, *self._arrays(reading, k)) for k in range(len(self._gs))]

    def know(self, totals: Mapping[str, Any]) -> None:
        """Know totals by name: a number, or one for each leaf."""
        self._numbers.update(totals)

    # ---- arrays ------------------------------------------------------------------------------------------------------

    def ahead(self) -> None:
        """Run the modifiers before a rule of whole leaves, and the rule; its increments are the gradients of those
        behind."""
        if not self.share.chain.rule.whole_leaf or self._holds:
            return
        if self._ahead is not None:
            self._run(self._ahead)
            self._gs = [new.pop(INCREMENT) for new in self._fresh]
        self._gs = [self._whole(k) for k in range(len(self._gs))]

    def _run(self, program: Program) -> None:
        """Run a program over all leaves, and know the new numbers that it makes."""
        for slot, _ in program.numbers:
            self._new_numbers[slot] = []
        for k, fresh in enumerate(self._fresh):
            fresh.update(kernel.run(program, *self._arrays(program, k)))
            for (slot, _), new in zip(program.numbers, self._evaluated(program, k)[1]):
                self._new_numbers[slot].append(new)

    def _whole(self, k: int) -> Any:
        """The increment that a function of NumPy's arrays makes of a leaf; its new state goes into `_fresh`."""
        chain, dtype = self.share.chain, self.share.computed[k]
        rule, name = chain.rule, chain.rule_name
        slots = {slot: chain.slots[name, slot] for slot in rule.slots}
        state = {slot: self._slots[own][k] for slot, own in slots.items()}
        given = {h: self._given(f"{name}.{h}", k) for h in rule.hyper}
        traced = {h: packed(value) for h, value in given.items() if is_traced(value)}
        x = self._xs[k] if "x" in rule.given and self._xs is not None else None

        def called(g: Any, t: Any, x: Any, state: Any, traced: Any) -> Any:
            hyper = {**given, **{h: float(np.sum(np.asarray(value), dtype=np.float64)) for h, value in traced.items()}}
            own = {slot: np.asarray(array) for slot, array in state.items()}
            with np.errstate(all="ignore"):
                new, fresh = taken(rule, np.asarray(g), int(t), None if x is None else np.asarray(x), own, hyper, dtype)
            return new, {**own, **fresh}

        shape = jax.ShapeDtypeStruct
        result = shape(self._gs[k].shape, dtype), {slot: shape(a.shape, a.dtype) for slot, a in state.items()}
        run = _by_numpy(called, result, chain.owner(name))
        new, fresh = run(self._gs[k], self._state.count + 1, x, state, traced)
        self._fresh[k].update({slots[slot]: array for slot, array in fresh.items()})
        return new

    def run(self) -> tuple[list[Any], State]:
        """The increments, in the dtypes of the leaves, and the new state."""
        share = self.share
        self._run(self._program)
        increments = share.still() if self._holds else [joined(new[INCREMENT], dtype) for new, dtype in
                                                        zip(self._fresh, share.dtypes)]
        slots = {slot: share.treedef.unflatten(
            [joined(new[slot], kept(dtype)) if slot in new else array
             for new, array, dtype in zip(self._fresh, share.treedef.flatten_like(tree, "", ""), share.dtypes)])
            for slot, tree in self._state.slots.items()}
        numbers = {slot: self._number(slot, own) for slot, own in self._state.numbers.items()}
        count = self._state.count
        if not self._holds:
            count = jnp.where(count < LAST_STEP, count + 1, count)
        return increments, State(count, slots, numbers)

    def at(self, program: Program) -> list[Any]:
        """The points that a program brings the parameters to, in their dtypes."""
        points = [kernel.run(program, *self._arrays(program, k))[INCREMENT] for k in range(len(self._gs))]
        return list(map(joined, points, self.share.dtypes))

    def _number(self, slot: str, own: Any) -> Any:
        """A slot that is one number, of the tree or of each leaf, as it is now."""
        new = list(map(packed, self._new_numbers[slot]))
        if not new:
            return own
        return new[0] if self.share.chain.scopes()[slot] == "tree" else self.share.treedef.unflatten(new)


def _by_numpy(function: Callable[..., Any], result: Any, owner: str) -> Callable[..., Any]:
    """A function of NumPy's arrays as one of traced arrays, with results of these shapes."""
    run = jax.custom_jvp(partial(jax.pure_callback, function, result, vmap_method="sequential"))

    @run.defjvp
    def _(values: Any, tangents: Any) -> Any:
        raise TypeError(f"{owner} is a function of whole leaves, which NumPy runs, and has no derivative: take a rule "
                        "that is a formula, or give it jax.lax.stop_gradient of gradients and parameters.")

    return run


def read(calls: Mapping[str, Call], readings: Mapping[str, Sequence[Program]]) -> None:
    """Have calls know the totals of these readings, of each one's tree or across those of all."""
    for level in range(max(map(len, readings.values()), default=0)):
        reading = {name: own[level] for name, own in readings.items() if level < len(own)}
        by_leaf = {name: calls[name].totals(own) for name, own in reading.items()}
        with jax.enable_x64(True):
            tree = {name: [sum(column) for column in zip(*rows)] for name, rows in by_leaf.items()}
            # what is ACROSS the trees stands in one order in all of them
            across = [sum(column) for column in zip(*(
                [of for of, total in zip(tree[name], own.totals) if total.over == ACROSS]
                for name, own in reading.items() if by_leaf[name]))]
        for name, own in reading.items():
            given = iter(across)
            calls[name].know({
                total.name: [row[n] for row in by_leaf[name]] if total.over == "leaf" else
                next(given) if total.over == ACROSS else tree[name][n]
                for n, total in enumerate(own.totals) if by_leaf[name]})
