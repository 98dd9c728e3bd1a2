"""A `torch.optim.Optimizer` that steps by an optimizer of ours: groups and state as torch has them, one native call."""

from __future__ import annotations

import operator
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from fallline._arrays.leaves import host
from fallline._arrays.trees import flatten, paths
from fallline._optimizer.holder import Holder
from fallline._optimizer.optimizer import Optimizer as Ours
from fallline._state.state_dict import TREE, Leaf, LeafStates
from fallline._step.transfer import put
from fallline.torch.groups import Kind, OfOptimizer, assembled

__all__ = ["Optimizer"]

STEPPED = "train()"  # the key that state has the parameter under while eval() shows another: no name of a slot


class Optimizer(torch.optim.Optimizer):
    """An optimizer of ours for parameters of torch, to be used as any of `torch.optim`.

    Parameters
    ----------
    params: parameters, named parameters, or groups of them, as `torch.optim.Optimizer` takes them. Settings of a group
        go by fallline's names: {"params": ..., "lr": 1e-4}.
    opt: an optimizer or a chain of `fallline`; it is copied and starts fresh.

    Settings that are numbers are keys of the groups, for torch's schedulers to write; a schedule of ours shows there
    the value of the coming step, and ends when another is written. All groups are stepped by one native call, and a
    norm is that of all. State is in `state[p]` by fallline's names, in tensors that share its memory.

    A step raises what `opt.step` raises, with nothing changed: NonFiniteGradient for NaN and infinity, where torch
    steps, and RuntimeError for sparse gradients, as torch.

    >>> import torch, fallline as fl
    >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> opt = Optimizer([w], fl.chain(fl.clip_norm(1.0), fl.Momentum(0.5)))
    >>> loss = (w * w).sum(); loss.backward(); opt.step(); w.detach()
    tensor([2.7000, 3.6000])
    """

    _kind: Kind
    _inner: Ours | None
    _away: dict[torch.Tensor, torch.Tensor]  # the parameters that are stepped, while others are shown
    _self: weakref.ref[Optimizer]  # Lightning's wrapper takes our class for its own, and its `self` is not this one

    def __init__(self, params: Any, opt: Ours) -> None:
        if not isinstance(opt, Ours):
            raise TypeError("fallline.torch.Optimizer takes parameters and an optimizer of fallline, such as "
                            f"fallline.Adam(1e-3). Got {type(opt).__name__}.")
        self._begin(OfOptimizer(opt), params)

    def _begin(self, kind: Kind, params: Any) -> None:
        self._kind, self._inner, self._away, self._self = kind, None, {}, weakref.ref(self)
        kind.check(kind.defaults)
        super().__init__(params, dict(kind.defaults))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as torch does; what has been stepped goes on as it is."""
        super().add_param_group(param_group)
        try:
            self._kind.check(self.param_groups[-1])
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    # ---- a step ------------------------------------------------------------------------------------------------------

    @torch._disable_dynamo  # which cannot trace native code, and need not
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step all parameters that have a gradient; returns what the closure, if there is one, has returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._away:
            raise RuntimeError("The parameters are at the point to report, by eval(): call train() on the optimizer "
                               "before a step.")
        groups = self.param_groups
        params = groups[0]["params"] if len(groups) == 1 else [p for group in groups for p in group["params"]]
        with torch.no_grad():
            inner = self._inner
            grads = [p.grad for p in params]
            try:
                if inner is None or not self._is_bound(groups, params):
                    inner = self._bind(groups, params)
                inner.step(self._tree(params), self._tree(grads))
            except TypeError as error:
                if any(g is not None and (g.layout is not torch.strided or g.is_complex()) for g in grads):
                    raise RuntimeError(str(error)) from error  # as torch has it
                raise
        self._show(inner.t)
        return loss

    def _tree(self, leaves: list[Any]) -> Any:
        """What our optimizer steps: parameters by name if they have names that may say something, else a list."""
        return leaves if self._names is None else dict(zip(self._names, leaves))

    def _is_bound(self, groups: list[dict[str, Any]], params: list[Any]) -> bool:
        """Whether groups, parameters and state are those of the last step."""
        return (not self._changed and len(groups) == len(self._groups) and len(params) == len(self._params)
                and len(self.state) == len(self._its)
                and all(map(operator.is_, groups, self._groups)) and all(map(operator.is_, params, self._params))
                and all(map(operator.is_, self.state.values(), self._its)) and bool((self._steps == self._said).all()))

    def _bind(self, groups: list[dict[str, Any]], params: list[Any]) -> Ours:
        """Have an optimizer of these groups, with the state that `state` has of the parameters."""
        names = [name for group in groups for name in group.get("param_names", ())]
        self._names = names if len(names) == len(params) and isinstance(self._kind, OfOptimizer) else None
        state = self.state
        its = [state.get(p) or {} for p in params]
        found = [_count(own) for own in its]
        t = max(found, default=0)
        of = self._tree([n for n, group in enumerate(groups) for _ in group["params"]])
        made = assembled(self._kind, groups, of, t)
        made.optimizer.adapt(self._tree(params))
        leaves, treedef = flatten(self._tree(list(range(len(params)))))
        index = self._index = dict(zip(paths(treedef), leaves))
        holders = made.optimizer._stepper.holders
        self._bound = [_Bound(self._kind, made.parts.get(name, made.optimizer), holder, index)
                       for name, holder in holders.items()]
        for bound in self._bound:
            bound.take(its, found, t)
        self._inner, self._scheduled = made.optimizer, made.scheduled
        self._groups, self._params, self._its = list(groups), list(params), list[Any]()
        self._steps, self._changed = np.zeros(len(params), np.float32), list[bool]()
        self._step_of = torch.from_numpy(self._steps).unbind()
        kept = set(map(id, params))
        self.state = defaultdict(dict, {p: own for p, own in state.items() if id(p) not in kept})
        self._its = list(self.state.values())
        self._show(made.optimizer.t)
        return made.optimizer

    def _show(self, t: int) -> None:
        """Have `state` show what there is, and groups what schedules say, after t steps."""
        fresh = False
        for bound in self._bound:
            bound.count(self._steps)
            for k, p, state in bound.begun(self._params):
                shown = {"step": self._step_of[k], **state} if bound.counts else state
                self.state[p] = _Its(shown, self._changed, bound.derived)
                fresh = True
        if fresh:
            self._its = list(self.state.values())
        self._said = self._steps.copy()
        for scheduled in self._scheduled:
            scheduled.show(t)

    # ---- the point to report -----------------------------------------------------------------------------------------

    def eval(self) -> None:
        """Have the parameters be the point to report, where the rule has one apart from them (Schedule-Free, Nesterov),
        until `train()`; a step is refused meanwhile."""
        this = self._self()
        assert this is not None
        if this._away or not this.state:
            return
        with torch.no_grad():
            inner = this._inner or this._bind(this.param_groups, [p for g in this.param_groups for p in g["params"]])
            if not any(holder.chain.rule.rest for holder in inner._stepper.holders.values()):
                return
            this._away = {p: p.detach().clone() for p in this._params}
            rest, treedef = flatten(inner.rest(this._tree(this._params)))
            for path, value in zip(paths(treedef), rest):
                this._params[this._index[path]].copy_(value)

    def train(self, mode: bool = True) -> None:
        """Have the parameters be those that are stepped again, after `eval()`."""
        if not mode:
            self.eval()
            return
        with torch.no_grad():
            for p, value in self._away.items():
                p.copy_(value)
        self._away.clear()

    # ---- carried elsewhere -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """As torch's: state by the number of the parameter, in tensors that are live, and groups. After `eval()` it has
        the parameters that are stepped too, for a `train()` after it has been loaded."""
        found = super().state_dict()
        groups = [group for group in found["param_groups"] for _ in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        state = {k: own.plain(groups[k]) if isinstance(own, _Its) else own for k, own in found["state"].items()}
        if self._away:
            state = {k: {**own, STEPPED: self._away[params[k]]} for k, own in state.items()}
        return {**found, "state": state}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state as torch does, of this optimizer or torch's own of the formula; state keeps its dtype."""
        def seal(_: Any, d: dict[str, Any]) -> dict[str, Any]:
            for group in d["param_groups"]:
                self._kind.check({**self.defaults, **group})
            return {**d, "state": {k: _Sealed(own) if isinstance(own, Mapping) else own
                                   for k, own in d["state"].items()}}
        handle = self.register_load_state_dict_pre_hook(seal)  # the last one
        try:
            super().load_state_dict(dict(state_dict))
        finally:
            handle.remove()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "state": defaultdict(dict, {p: dict(own) for p, own in self.state.items()}),
                "_kind": self._kind, "_away": self._away}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._inner, self._away, self._self = None, state.get("_away", {}), weakref.ref(self)
        for group in self.param_groups:
            for key, value in self._kind.defaults.items():
                group.setdefault(key, value)
        for p, own in self.state.items():
            if isinstance(own, _Sealed):
                self.state[p] = {key: value.detach().clone().to(p.device) if isinstance(value, torch.Tensor) else value
                                 for key, value in own.state.items()}
                if STEPPED in own.state:
                    self._away[p] = self.state[p].pop(STEPPED)


class _Sealed:
    """State that torch is to leave as it is, in its own dtype."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.state = state


class _Its(dict[str, Any]):
    """The state of a parameter, which says if something else is put there."""

    def __init__(self, state: Mapping[str, Any], changed: list[bool], derived: Callable[..., dict[str, float]]) -> None:
        super().__init__(state)
        self._changed, self._derived = changed, derived

    def plain(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """The state as a dict, with what torch has besides."""
        derived = self._derived(group, int(self["step"])) if "step" in self else {}
        return {**self, **{key: torch.tensor(value) for key, value in derived.items()}}

    def _noting(name: str) -> Any:  # type: ignore[misc]  # noqa: N805
        plain = getattr(dict, name)

        def method(self: _Its, *args: Any, **named: Any) -> Any:
            self._changed.append(True)
            return plain(self, *args, **named)
        return method

    __setitem__, __delitem__, update, pop, popitem, clear, setdefault, __ior__ = map(_noting, (
        "__setitem__", "__delitem__", "update", "pop", "popitem", "clear", "setdefault", "__ior__"))

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class _Bound:
    """A holder of ours with the places that its leaves have among the parameters, and what torch calls its state."""

    def __init__(self, kind: Kind, part: Ours, holder: Holder, index: Mapping[str, int]) -> None:
        assert holder.group is not None
        self.holder, self.group, self.counts = holder, holder.group, kind.counts(part)
        self.derived = partial(kind.derived, part)
        self.places = np.array([index[path] for path in holder.group.paths], np.intp)
        called = kind.called(part)
        self.called = {slot: called.get(slot, slot) for slot in holder.chain.starts()
                       if slot in called or not called}
        self._shown: list[bool] = [False] * len(self.places)
        self._ranges = 0

    def _has(self, slot: str, shape: tuple[int, ...]) -> bool:
        """Whether a leaf of a shape has any of a slot that is not for leaves of all shapes."""
        return self.holder.chain.shape(slot, shape) in (shape, ()) or 0 not in self.holder.chain.shape(slot, shape)

    def take(self, its: list[Mapping[str, Any]], counts: list[int], t: int) -> None:
        """Take over what `state` has, where all have completed t steps at most."""
        group, scopes = self.group, self.holder.chain.scopes()
        had = [k for k, place in enumerate(self.places) if its[place]]
        leaves = {group.paths[k]: Leaf(group.shapes[k], group.dtypes[k].name, counts[self.places[k]]) for k in had}
        arrays: dict[str, dict[str, Any]] = {}
        for slot, live in group.slots().items():
            key, over = self.called.get(slot, slot), scopes.get(slot)
            of = {k: its[self.places[k]].get(key) for k in had}
            if over == "tree":
                value = next((v for v in of.values() if v is not None), None)
                arrays[slot] = {TREE: live[0] if value is None else np.asarray(host(value), np.float64)}
            else:
                arrays[slot] = {group.paths[k]: np.array(host(live[k]) if v is None else host(v), copy=True).reshape(
                    np.shape(live[k])) for k, v in of.items()}
        self.holder.count[0] = t
        put(group, LeafStates(leaves, arrays), list(leaves), t)
        others = [k for k in range(len(self.places)) if k not in set(had)]
        group.missed[others] = t

    def count(self, steps: np.ndarray) -> None:
        """Say how many steps each parameter has taken."""
        if self.counts:
            steps[self.places] = self.group.count[0] - self.group.missed

    def begun(self, params: list[Any]) -> list[tuple[int, Any, dict[str, Any]]]:
        """The parameters whose state is new, or lies elsewhere than before, with their places."""
        group, found = self.group, []
        moved = len(group.state_ranges) != self._ranges
        if all(self._shown) and not moved:
            return []
        self._ranges = len(group.state_ranges)
        scopes, slots = self.holder.chain.scopes(), group.slots()
        taken = group.count[0] - group.missed
        for k, place in enumerate(self.places):
            if (self._shown[k] and not moved) or not taken[k]:
                continue
            self._shown[k] = True
            own = {key: _tensor(slots[slot][0 if scopes.get(slot) == "tree" else k])
                   for slot, key in self.called.items() if (k == 0 if scopes.get(slot) == "tree" else
                                                            self._has(slot, group.shapes[k]))}
            if own or self.counts:
                found.append((int(place), params[place], own))
        return found


def _tensor(array: Any) -> torch.Tensor:
    """The tensor that shares the memory of state."""
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else array


def _count(own: Mapping[str, Any]) -> int:
    """The steps that a parameter has taken, by its state: at least one, if there is any."""
    return int(own["step"]) if own.get("step") is not None else int(bool(own))
