"""A call of a chain whose rule is a function of whole leaves: the modifiers before it, the function, those behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fallline import ops
from fallline.errors import FormulaError
from fallline.hostcall import HostCall
from fallline.hoststep import Leaf
from fallline.program import INCREMENT
from fallline.schema import Rule

__all__ = ["WholeCall"]


class WholeCall(HostCall):
    """As every call: all is checked, and here computed too, before `run` changes anything.

    Its program is that of the modifiers behind the rule, whose gradient is the rule's increment.
    """

    whole = False  # an interrupt may come between the step and the state

    def _prepare(self, t: int) -> list[Leaf]:
        bound, chain = self.bound, self.bound.chain
        memo = self._memo = bound.ask([*chain.hyper], self._live, t, [*self._gs, *(self._xs or ()),
                                                                     *(self._targets or ())])
        gradients = dict(zip(self._live, self._g))
        if chain.ahead is not None:
            ahead = HostCall(bound, chain.ahead, INCREMENT, self._xs, self._gs, None, None, t, memo)
            gradients = ahead.evaluate()
        self._fresh: dict[int, dict[str, np.ndarray]] = {}
        with np.errstate(all="ignore"):
            self._g = [self._increment(k, gradients[k], t, memo) for k in self._live]
        self._wide: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        return super()._prepare(t)

    def _destination(self, k: int) -> np.ndarray:
        """That of leaf k, or in its place an array of the dtype computed in, so that low precision is rounded once."""
        place, dtype = super()._destination(k), self._stored(k)
        if place.dtype == dtype.newbyteorder(place.dtype.byteorder):
            return place
        self._wide[k] = place, place.astype(dtype)
        if self._into != "x" and self._x:
            self._x[k] = self._x[k].astype(dtype)
        return self._wide[k][1]

    def _stored(self, k: int) -> np.dtype:
        return self.bound.computed[k]

    def _increment(self, k: int, g: np.ndarray, t: int, memo: dict[Any, Any]) -> np.ndarray:
        """The rule's increment of leaf k; the new state goes into `_fresh`."""
        bound, rule, name = self.bound, self.bound.chain.rule, self.bound.chain.rule_name
        given: dict[str, Any] = {"g": _shown(g, bound.computed[k]), "t": t - int(bound.missed[k]) + 1}
        if "x" in rule.given:
            given["x"] = _shown(self._x[k], bound.computed[k])
        slots = {slot: bound.chain.slots[name, slot] for slot in rule.slots}
        state = [_shown(bound.state[slot][k], bound.computed[k]) for slot in slots.values()]
        hyper = {h: bound.given_value(f"{name}.{h}", k, t, memo) for h in rule.hyper}
        result, new = _called(rule, [*(given[n] for n in rule.given), *state], hyper)
        old = {slot: bound.state[own][k] for slot, own in slots.items()}
        # state is never left subnormal
        self._fresh[k] = {slot: ops.flush(_checked(rule, slot, value, old[slot].shape, old[slot].dtype))
                          for slot, value in zip(slots, new)}
        return _checked(rule, "the increment", result, bound.shapes[k], bound.computed[k])

    def run(self) -> Any:
        """Run the program, put the state in place, and count that."""
        result = super().run()
        for place, wide in self._wide.values():
            with np.errstate(all="ignore"):
                place[...] = wide
        bound, name = self.bound, self.bound.chain.rule_name
        for k, new in self._fresh.items():
            for slot, array in new.items():
                bound.state[bound.chain.slots[name, slot]][k][...] = array
        return result

    def shorten(self) -> None:
        """There is no short way."""


def _shown(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """An array for a function that must not write to it."""
    shown = np.ascontiguousarray(array, dtype).reshape(array.shape).view()
    shown.flags.writeable = False
    return shown


def _called(rule: Rule, given: Sequence[Any], hyper: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    try:
        return rule.split(rule.formula(*given, **hyper))
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
