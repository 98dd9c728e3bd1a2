"""How the parts of a partition step: each is checked and prepared, and only then the first one steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from fallline._arrays.memory import places
from fallline._engines.arithmetic import pinned
from fallline._engines.blocks import halved
from fallline._formula.program import ACROSS
from fallline._optimizer.damping import warn_if_damped
from fallline._optimizer.kept_parts import KeptParts
from fallline._optimizer.optimizer import Call
from fallline._step.divided import Divided
from fallline._step.host_call import HostCall
from fallline._step.numbers import totals_of

__all__ = ["SteppedParts"]

_PART = "part's "  # before the names of short ways that a part cannot take alone
_UNTOUCHED = object()  # what calls get as their tree, and give back where no leaf of it had to be replaced


class SteppedParts(KeptParts):
    """What `Partition` is made of as far as it steps."""

    def _step(self, params: Any, grads: Any) -> Any:
        return params if self._steps_shortly(params, grads) else super()._step(params, grads)

    def _steps_shortly(self, params: Any, grads: Any) -> bool:
        """Take the short way of all parts, if each has one."""
        bound = None if self._torn else self._bound
        if bound is None or not bound.bounds:
            return False
        steps, empty = {}, []
        for name, part in self._parts.items():
            own = part._bound
            if own is None:
                return False
            if not bound.positions[name] and not own.numbers.values.size:
                empty.append(part)
            elif step := own.fast.get(f"{_PART}step, held" if own.holds() else f"{_PART}step"):
                steps[name] = step
            else:
                return False
        from fallline._step.fast_parts import go, ready  # which needs llvmlite

        parts = ready(bound, steps, params, grads) if steps else None
        if parts is None:
            return False
        self._torn = True  # should an interrupt come between two
        go(parts)
        for part in empty:
            part._count += 1
        self._torn = False
        return True

    def _shorten(self, bound: Divided, calls: Mapping[str, Call]) -> None:
        """Prepare the short way of all parts."""
        stepping = {name: call for name, call in calls.items() if bound.positions[name] and type(call) is HostCall}
        if len(stepping) < sum(map(bool, bound.positions.values())):
            return  # a part has none
        writes = {name: call.writes() for name, call in stepping.items()}
        for name, call in stepping.items():
            call.shorten(_PART, [r for other, own in writes.items() if other != name for r in own])

    def _take_long_way(self, bound: Any, into: str, xs: Any, gs: Any, targets: Any, tree: Any) -> Any:
        with pinned():
            arrays = [*gs, *(xs or ()), *((into != "x" and targets) or ())] if self._asks(gs) else []
            gs, before = bound.set_apart(into, xs, gs, targets), places(arrays)
            leaves = list(xs) if into == "x" else bound.still(gs, targets)
            calls = {name: self._call(name, bound, into, xs, gs, targets) for name in self._parts}
            bad = [found for call in calls.values() for found in call.non_finite]
            skips = self._check_finite(sorted(bad, key=lambda found: bound.paths.index(found[0])))
            for name, call in ({} if skips else calls).items():
                call.ask(self._parts[name].t)
            if places(arrays) != before:
                raise ValueError(f"An array was resized while a schedule of {self._chain.title} was asked: parameters, "
                                 "gradients and outputs must stay as they are in a call. Nothing was changed.")
            if not skips:
                stepping = [call for call in calls.values() if not call.holds]
                if all(part._is_first() for part in self._parts.values()) and len(stepping) == len(calls):
                    warn_if_damped([(call.bound, call.gradients) for call in stepping])
                _prepare(bound, calls)
                results = self._advance_all(bound, calls)
                if into == "x":
                    with suppress(MemoryError, OSError, RuntimeError):  # for want of room: the step is taken
                        self._shorten(bound, calls)
            elif into == "x":
                return tree
            else:
                results = {name: call.nothing() for name, call in calls.items()}
            if into != "x" and targets is not None:
                bound.put_still(targets)
            changed = {name: own for name, own in results.items() if own is not _UNTOUCHED}
            return bound.treedef.unflatten(bound.merged(changed, leaves)) if changed or targets is None else tree

    def _asks(self, gs: Sequence[Any]) -> bool:
        """Whether to prepare a call runs code of others: schedules, and libraries whose gradients are converted."""
        scheduled = any(type(setting) is not float for setting in self._settings.values())
        return scheduled or any(type(g) is not np.ndarray and g is not None for g in gs)

    def _call(self, name: str, bound: Divided, into: str, *trees: Sequence[Any] | None) -> Any:
        """The call of a part, with what was given checked."""
        xs, gs, targets = (leaves and [leaves[k] for k in bound.positions[name]] for leaves in trees)
        return self._parts[name]._checked_call(bound.bounds[name].aside(), into, xs, gs, targets, _UNTOUCHED)

    def _advance_all(self, bound: Divided, calls: Mapping[str, Any]) -> dict[str, Any]:
        for name, call in calls.items():
            if call.bound.given is not self._parts[name]._settings:
                call.bound.resolve(self._parts[name]._settings)  # refused, if at all, before any part has stepped
        known, self._torn = self._bound, True  # an interrupt from here on leaves it so
        bound.bounds = {name: call.bound for name, call in calls.items()}
        self._bound = bound
        try:
            results = {name: self._parts[name]._advance(call) for name, call in calls.items()}
        except BaseException:
            begun = [part for name, part in self._parts.items() if part._bound is calls[name].bound]
            self._bound = self._bound if begun else known
            self._torn = any(part._torn for part in begun) if len(calls) == 1 else bool(begun)
            raise
        self._torn = False
        return results


def _prepare(bound: Divided, calls: Mapping[str, Call]) -> None:
    """Prepare the calls of all parts, each with its own totals and with those of all."""
    for level in range(max(len(call.readings) for call in calls.values())):
        reading = {name: call.readings[level].totals for name, call in calls.items() if level < len(call.readings)}
        sums = {name: calls[name].read(calls[name].readings[level]) for name in reading}
        across = {name: own[:, [k for k, total in enumerate(reading[name]) if total.over == ACROSS]]
                  for name, own in sums.items()}
        of_all = halved(bound.rows(across, max(own.shape[1] for own in across.values()))).tolist()
        for name, own in sums.items():
            calls[name].know(totals_of(reading[name], own, of_all))
    for call in calls.values():
        call.prepare()
