"""A call of a chain whose rule is a function of whole leaves: the modifiers before it, the function, those behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fallline._arrays.leaves import view
from fallline._engines.blocks import Blocks
from fallline._formula import words
from fallline._formula.program import INCREMENT, Program
from fallline._formula.rule import Rule
from fallline._step.calls.host import HostCall
from fallline._step.calls.kernels import run
from fallline._step.group import Group
from fallline.errors import FormulaError

__all__ = ["WholeCall", "taken"]


class WholeCall(HostCall):
    """As every call: all is checked, and here computed too, before `run` changes anything.

    Its program is that of the modifiers behind the rule, whose gradient is the rule's increment.
    """

    def arrange(self) -> None:
        """As `HostCall.arrange`, but for what has to be computed first."""

    def ask(self, t: int) -> None:
        """As `HostCall.ask`."""
        group = self.group
        self.t = t
        self.memo = group.ask([*group.chain.hyper], self.live, t, self._arrays(), self._settings)
        group.begin(self.live)
        self._computed = False
        ahead = group.chain.ahead
        self._ahead = None if ahead is None else _Ahead(group, ahead, self._xs, self._gs, t, self.memo)

    @property
    def readings(self) -> Sequence[Program]:
        """Those of the modifiers before the rule; for those behind it the rule has to be computed."""
        return self._ahead.readings if self._ahead else ()

    @property
    def readings_behind(self) -> Sequence[Program]:
        """Those of the modifiers behind the rule."""
        return self.program.readings

    def blocks(self, reading: Program, heads: Sequence[int]) -> Blocks:
        """As `HostCall.blocks`."""
        if self._computed:
            return super().blocks(reading, heads)
        assert self._ahead is not None
        return self._ahead.blocks(reading, heads)

    def ahead(self) -> None:
        """Compute the increments of the rule and its new state."""
        given = self._ahead.increments() if self._ahead else dict(zip(self.live, self._g))
        self._fresh: dict[int, dict[str, np.ndarray]] = {}
        with np.errstate(all="ignore"):
            self._g = [self._increment(k, given[k]) for k in self.live]
        self._wide: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        super().arrange()
        self._computed = True

    def _destination(self, k: int) -> np.ndarray:
        """That of leaf k, or in its place an array of the dtype computed in, so that low precision is rounded once."""
        place, dtype = super()._destination(k), self._stored(k)
        if place.dtype == dtype.newbyteorder(place.dtype.byteorder):
            return place
        self._wide[k] = place, place.astype(dtype)
        if self.into != "x" and self._x:
            self._x[k] = self._x[k].astype(dtype)
        return self._wide[k][1]

    def _stored(self, k: int) -> np.dtype:
        return self.group.computed[k]

    def _increment(self, k: int, g: np.ndarray) -> np.ndarray:
        """The rule's increment of leaf k, unless there is nothing of it; the new state goes into `_fresh`."""
        group, rule, name = self.group, self.group.chain.rule, self.group.chain.rule_name
        slots = {slot: group.chain.slots[name, slot] for slot in rule.slots}
        hyper = {h: group.given_value(f"{name}.{h}", k, self.t, self.memo) for h in rule.hyper}
        result, new = taken(rule, g, self.t - int(group.missed[k]) + 1, self._x[k] if "x" in rule.given else None,
                            {slot: group.state[own][k] for slot, own in slots.items()}, hyper, group.computed[k])
        self._fresh[k] = {slots[slot]: array for slot, array in new.items()}
        return result

    def run(self) -> list[Any] | None:
        """Run the program, put the state in place, and count that."""
        result = super().run()
        for place, wide in self._wide.values():
            with np.errstate(all="ignore"):
                place[...] = wide
        for k, new in self._fresh.items():
            for slot, array in new.items():
                self.group.state[slot][k][...] = array
        if self._ahead:
            self._ahead.keep(self.group)
        return result


class _Ahead(HostCall):
    """The modifiers before the rule, on a copy of what state they have; counted, checked and said is all elsewhere."""

    def __init__(self, group: Group, program: Program, xs: Sequence[Any] | None, gs: Sequence[Any], t: int,
                 memo: dict[Any, Any]) -> None:
        beside, written = group.aside(), {name for name, _ in program.outputs} & group.state.keys()
        beside.state = {slot: [a.copy() if slot in written else a for a in own] for slot, own in group.state.items()}
        super().__init__(beside, program, INCREMENT, xs, gs, None)
        self._written, self.t, self.memo = written, t, memo
        self.arrange()

    def increments(self) -> dict[int, np.ndarray]:
        """What they make of the gradients, by leaf; their totals must be known."""
        self.prepare()
        run(self.program, self._leaves, self.group.engine.kernel_of)
        return {k: view(new) for k, new in self._new.items()}

    def keep(self, group: Group) -> None:
        """Have the state that they made be that of the optimizer."""
        for slot in self._written:
            for k in self.live:
                group.state[slot][k][...] = self.group.state[slot][k]
        group.numbers.renew(self._numbers)


def taken(rule: Rule, g: np.ndarray, t: int, x: np.ndarray | None, state: Mapping[str, np.ndarray],
          hyper: Mapping[str, Any], dtype: np.dtype) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The increment that a rule makes of a whole leaf in a dtype, and its new state by slot; of one that is empty
    nothing."""
    if not g.size:
        return g.astype(dtype), {}
    given: dict[str, Any] = {"g": _shown(g, dtype), "t": t}
    if x is not None:
        given["x"] = _shown(x, dtype)
    old = [_shown(state[slot], dtype) for slot in rule.slots]
    result, new = _called(rule, [*(given[name] for name in rule.given), *old], hyper)
    # state is never left subnormal
    fresh = {slot: words.flush(_checked(rule, slot, value, state[slot].shape, state[slot].dtype))
             for slot, value in zip(rule.slots, new)}
    return _checked(rule, "the increment", result, g.shape, dtype), fresh


def _shown(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """An array for a function that must not write to it."""
    shown = np.ascontiguousarray(array, dtype).reshape(array.shape).view()
    shown.flags.writeable = False
    return shown


def _called(rule: Rule, given: Sequence[Any], hyper: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    try:
        with words.at_work(words.WHOLE_LEAF):
            return rule.split(rule.__wrapped__(*given, **hyper))
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise FormulaError(f"{rule.name} must leave its arguments as they are: write m = beta*m, "
                           "not m *= beta.") from error


def _checked(rule: Rule, what: str, value: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """What a function returned, in the dtype that it is kept in."""
    array = np.asarray(value)
    if array.shape != shape or array.dtype.kind not in "fiu":
        raise FormulaError(f"{what} that {rule.name} returned must be an array of reals of the shape {shape}. "
                           f"Got {array.dtype} of shape {array.shape}.")
    return array.astype(dtype)
