"""A `torch.optim.Optimizer` that steps by an optimizer of ours: groups and state as torch has them, one native call."""

from __future__ import annotations

import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from fallline._arrays.leaves import host
from fallline._arrays.trees import flatten, paths
from fallline._messages.suggestions import of_another
from fallline._messages.values import brief
from fallline._optimizer.holder import Holder
from fallline._optimizer.optimizer import Optimizer as Ours
from fallline._state.state_dict import TREE, Leaf, LeafStates
from fallline._step.transfer import put
from fallline.torch.groups import FOLLOWED, STEPS, Kind, OfOptimizer, assembled

__all__ = ["Optimizer"]

AWAY = "stepped"  # in the state of a parameter that is at the point to report
BUFFER = "momentum_buffer"  # which torch leaves out where the momentum is 0


class Optimizer(torch.optim.Optimizer):
    """A fallline optimizer for torch parameters, to use like any of `torch.optim`.

    Parameters
    ----------
    params: parameters, named parameters, or groups of them, as for `torch.optim.Optimizer`. Hyper-parameters of a group
        have fallline's names: {"params": ..., "lr": 1e-4}.
    opt: an optimizer or a chain of `fallline`; it is copied and starts fresh.

    Numeric hyper-parameters are keys of the groups, so torch's schedulers can write them. A fallline schedule shows its
    value for the next step there, and ends when another value is written. One native call steps all groups, and a norm
    is taken over all of them. `state[p]` has the state under fallline's names, in tensors that share its memory.

    A step raises what `opt.step` raises, and changes nothing then: NonFiniteGradient for NaN and infinity, where torch
    would step; RuntimeError for sparse gradients, like torch.

    >>> import torch, fallline as fl
    >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> opt = Optimizer([w], fl.chain(fl.clip_norm(1.0), fl.Momentum(0.5)))
    >>> loss = (w * w).sum(); loss.backward(); opt.step(); w.detach()
    tensor([2.7000, 3.6000])
    """

    _kind: Kind
    _inner: Ours | None

    def __init__(self, params: Any, opt: Ours) -> None:
        if not isinstance(opt, Ours):
            raise TypeError("fallline.torch.Optimizer takes parameters and an optimizer of fallline, such as "
                            f"fallline.Adam(1e-3). Got {brief(opt)}.{of_another(opt)}")
        self._begin(OfOptimizer(opt), params)

    def _begin(self, kind: Kind, params: Any) -> None:
        self._kind, self._inner = kind, None
        kind.check(kind.defaults)
        if isinstance(params, torch.nn.Module):
            raise TypeError("params must be the parameters of a module, model.parameters(). Got the module itself.")
        if isinstance(params, (int, float)):
            raise TypeError(f"params must be the parameters, model.parameters(), and settings stand behind them. "
                            f"Got {params!r}.")
        super().__init__(params, dict(kind.defaults))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as in torch; existing parameters keep their state."""
        given = set(param_group)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._kind.check(group)
            self._named(self.param_groups)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise
        if FOLLOWED in group:  # what was given is followed by no schedule
            group[FOLLOWED] = [key for key in group[FOLLOWED] if key not in given or FOLLOWED in given]

    # ---- a step ------------------------------------------------------------------------------------------------------

    @torch._disable_dynamo  # which cannot trace native code, and need not
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step all parameters that have a gradient; return what the closure returned, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._is_away if self._inner is None else AWAY in self._one:
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

    def _named(self, groups: list[dict[str, Any]]) -> list[str] | None:
        """The names of the parameters, if they say something: to what is set or divided by path."""
        names = [name for group in groups for name in group.get("param_names", ())]
        if not names or not isinstance(self._kind, OfOptimizer):
            return None
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"Two parameters are called {twice!r}: give them names of their own, as "
                             "named_parameters() of the whole model does, or none.")
        return names

    def _tree(self, leaves: list[Any]) -> Any:
        """What our optimizer steps: parameters by name if they have names that may say something, else a list."""
        return leaves if self._names is None else dict(zip(self._names, leaves))

    def _is_bound(self, groups: list[dict[str, Any]], params: list[Any]) -> bool:
        """Whether groups, parameters and state are those of the last step."""
        its: Any = self.state.values()
        if len(its) != len(self._its):  # for whom is asked who has none, there is an empty one
            its = [own for own in its if own]
        return (not self._changed and len(groups) == len(self._groups) and len(params) == len(self._params)
                and len(its) == len(self._its)
                and all(map(operator.is_, groups, self._groups)) and all(map(operator.is_, params, self._params))
                and all(map(operator.is_, its, self._its)) and self._layout(groups) == self._laid_out
                and list(map(torch.Tensor.data_ptr, self._tensors)) == self._lie_at
                and bool((self._steps == self._said).all()))

    def _layout(self, groups: list[dict[str, Any]]) -> list[Any]:
        """What of groups is no number for each step: how many parameters, and what says what is computed."""
        return [(len(group["params"]), group.get("momentum") == 0, *map(group.get, telling))
                for group, telling in zip(groups, self._telling)]

    def _bind(self, groups: list[dict[str, Any]], params: list[Any]) -> Ours:
        """Have an optimizer of these groups, with the state that `state` has of the parameters."""
        for group in groups:
            self._kind.check(group)
        self._names = self._named(groups)
        state = self.state
        its = [state.get(p) or {} for p in params]
        found = [_count(own) for own in its]
        t = max([*found, *(group.get(STEPS, 0) for group in groups)], default=0)
        made = assembled(self._kind, groups, self._tree([n for n, group in enumerate(groups) for _ in group["params"]]))
        made.optimizer.adapt(self._tree(params))
        made.optimizer._stepper.has_begun = True  # torch is silent where there is no gradient
        leaves, treedef = flatten(self._tree(list(range(len(params)))))
        index = self._index = dict(zip(paths(treedef), leaves))
        holders = made.optimizer._stepper.holders
        self._bound = [_Bound(self._kind, made.parts.get(name, made.optimizer), holder, index)
                       for name, holder in holders.items()]
        for bound in self._bound:
            bound.take(its, found, t)
        self._inner, self._scheduled = made.optimizer, made.scheduled
        self._groups, self._params = list(groups), list(params)
        self._telling = [self._kind.telling(group) for group in groups]
        self._laid_out = self._layout(groups)
        self._steps, self._changed = np.zeros(len(params), np.float32), list[bool]()
        self._step_of = torch.from_numpy(self._steps).unbind()
        self._more = {p: own for p, own in zip(params, its) if own}  # what may have entries of no account here
        for p in self._more:
            del state[p]
        self._its, self._tensors, self._lie_at, self._one = list[Any](), list[Any](), list[int](), dict[str, Any]()
        self._show(made.optimizer.t)
        state.update({p: dict(own) for p, own in self._more.items()})
        self._seen()
        for group in groups:
            group.pop(STEPS, None)
        return made.optimizer

    def _seen(self) -> None:
        """Know what `state` holds, and where."""
        self._its = [own for own in self.state.values() if own]
        self._one = next((own for own in self._its if isinstance(own, _Its)), {})  # of all, whether they are away
        self._tensors = [v for own in self._its if isinstance(own, _Its) for v in own.values()
                         if isinstance(v, torch.Tensor)]
        self._lie_at = list(map(torch.Tensor.data_ptr, self._tensors))

    def _show(self, t: int) -> None:
        """Have `state` show what there is, and groups what schedules say, after t steps."""
        fresh = False
        for bound in self._bound:
            bound.count(self._steps)
            for k, p, state in bound.begun(self._params):
                shown = {"step": self._step_of[k], **state} if bound.counts else state
                self.state[p] = _Its({**self._more.pop(p, {}), **shown}, self._changed, bound.derived)
                fresh = True
        if fresh:
            self._seen()
        self._said = self._steps.copy()
        for scheduled in self._scheduled:
            scheduled.show(t)

    # ---- the point to report -----------------------------------------------------------------------------------------

    def eval(self) -> None:
        """Set the parameters to the point to report, if the rule has one (Schedule-Free, Nesterov), until `train()`.

        Meanwhile `step` raises an error."""
        if self._is_away or not self.state:
            return
        groups = self.param_groups
        params = [p for group in groups for p in group["params"]]
        with torch.no_grad():
            inner = self._inner
            if inner is None or not self._is_bound(groups, params):
                inner = self._bind(groups, params)
            if not any(holder.chain.rule.rest for holder in inner._stepper.holders.values()):
                return
            rest, treedef = flatten(inner.rest(self._tree(params)))
            for path, value in zip(paths(treedef), rest):
                p = params[self._index[path]]
                if p in self.state:
                    dict.__setitem__(self.state[p], AWAY, p.detach().clone())
                    p.copy_(value)

    def train(self, mode: bool = True) -> None:
        """Set the parameters back to the stepped ones, after `eval()`."""
        if not mode:
            self.eval()
        elif self._is_away:
            with torch.no_grad():
                for p, own in self.state.items():
                    if isinstance(own, dict) and AWAY in own:
                        p.copy_(dict.pop(own, AWAY))

    @property
    def _is_away(self) -> bool:
        """Whether parameters are at the point to report: `state` has those that are stepped meanwhile."""
        return any(isinstance(own, dict) and AWAY in own for own in self.state.values())

    @property
    def inner(self) -> Ours | None:
        """The fallline optimizer that steps (with `averaged`, `skipped`, ...); None before the first step."""
        return self._inner

    # ---- carried elsewhere -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the groups and the state by parameter number, in live tensors, as in torch."""
        found = super().state_dict()
        found["param_groups"] = [{**group, **self._at(k)} for k, group in enumerate(found["param_groups"])]
        groups = [group for group in found["param_groups"] for _ in group["params"]]
        state = {k: own.plain(groups[k]) if isinstance(own, _Its) else own for k, own in found["state"].items()}
        return {**found, "state": state}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state as in torch, of this optimizer or of torch's with the same formula; state keeps its dtype."""
        def seal(_: Any, d: dict[str, Any]) -> dict[str, Any]:
            for group in d["param_groups"]:
                self._kind.check({**self.defaults, **group, "params": ()})
            known = {k for group in d["param_groups"] for k in group["params"]}
            return {**d, "state": {k: _Sealed(own) if isinstance(own, Mapping) and k in known else own
                                   for k, own in d["state"].items()}}
        handle = self.register_load_state_dict_pre_hook(seal)  # the last one
        try:
            super().load_state_dict(dict(state_dict))
        finally:
            handle.remove()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "state": defaultdict(dict, {p: dict(own) for p, own in self.state.items()}),
                "param_groups": [{**group, **self._at(k)} for k, group in enumerate(self.param_groups)],
                "_kind": self._kind}

    def _at(self, k: int) -> dict[str, Any]:
        """What a group has besides, to go on elsewhere: where schedules are, and which are followed."""
        group = self.param_groups[k]
        if FOLLOWED not in group or self._inner is None:
            return {}
        followed = [each.key for each in self._scheduled if each.group is group and each.is_followed]
        return {FOLLOWED: followed, STEPS: self._inner.t}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._inner = None
        for group in self.param_groups:
            for key, value in self._kind.defaults.items():
                group.setdefault(key, value)
        for p, own in self.state.items():
            if isinstance(own, _Sealed):
                self.state[p] = {key: value.detach().clone().to(p.device) if isinstance(value, torch.Tensor) else value
                                 for key, value in own.state.items()}


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
        return {**self, **{key: torch.tensor(value, device="cpu") for key, value in derived.items()}}

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
        self._ranges, self._first = 0, -1  # the leaf that has what is one for all

    def _has(self, slot: str, shape: tuple[int, ...]) -> bool:
        """Whether a leaf of a shape has any of a slot that is not for leaves of all shapes."""
        return self.holder.chain.shape(slot, shape) in (shape, ()) or 0 not in self.holder.chain.shape(slot, shape)

    def _check(self, own: Mapping[str, Any], path: str, shape: tuple[int, ...]) -> None:
        """Raise ValueError for a state that is none of this optimizer's."""
        scopes = self.holder.chain.scopes()
        for slot, key in self.called.items():
            wanted, value = self.holder.chain.shape(slot, shape), own.get(key)
            if value is None and key != BUFFER and scopes.get(slot) != "tree" and self._has(slot, shape):
                raise ValueError(f"The state of parameter {path!r} has no {key}: it has {', '.join(map(str, own))}, as "
                                 "that of another optimizer.")
            if value is not None and slot not in scopes and self._has(slot, shape) and tuple(value.shape) != wanted:
                raise ValueError(f"{key} of parameter {path!r} in the state must have the shape {wanted}. "
                                 f"Got {tuple(value.shape)}.")
        if self.counts and not (own.get("step") is not None and int(own["step"]) >= 0):
            raise ValueError(f"step of parameter {path!r} in the state must be a number of steps. "
                             f"Got {own.get('step')}.")

    def take(self, its: list[Mapping[str, Any]], counts: list[int], t: int) -> None:
        """Take over what `state` has, where all have completed t steps at most."""
        group, scopes = self.group, self.holder.chain.scopes()
        had = [k for k, place in enumerate(self.places) if its[place]]
        for k in had:
            self._check(its[self.places[k]], group.paths[k], group.shapes[k])
        leaves = {group.paths[k]: Leaf(group.shapes[k], group.dtypes[k].name, counts[self.places[k]]) for k in had}
        arrays: dict[str, dict[str, Any]] = {}
        for slot, live in group.slots().items():
            key, over = self.called.get(slot, slot), scopes.get(slot)
            of = {k: its[self.places[k]].get(key) for k in had}
            if over == "tree":
                value = next((v for v in of.values() if v is not None), None)
                arrays[slot] = {TREE: live[0] if value is None else np.asarray(host(value), np.float64)}
            else:
                arrays[slot] = {group.paths[k]: np.array(host(live[k] if v is None else v)) for k, v in of.items()}
                if over is not None:
                    arrays[slot] = {path: value.reshape(()) for path, value in arrays[slot].items()}
        self.holder.count[0] = t
        put(group, LeafStates(leaves, arrays), list(leaves), t)
        group.missed[[k for k, place in enumerate(self.places) if not its[place]]] = t

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
            begun = group.has_begun(k) if group.engine.in_memory else taken[k]
            if (self._shown[k] and not moved) or not begun:
                continue
            self._shown[k] = True
            self._first = k if self._first < 0 else self._first
            own = {key: _tensor(slots[slot][0 if scopes.get(slot) == "tree" else k])
                   for slot, key in self.called.items() if (k == self._first if scopes.get(slot) == "tree" else
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
