"""An optimizer as a pair of pure functions: `init`, of parameters, and `update`, of gradients and state."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import lax

from fallline._arrays.trees import flatten
from fallline._engines.jax.scalars import is_traced
from fallline._formula.ranges import WHOLE, Hyper
from fallline._formula.settings import check, hearing
from fallline._formula.trace import resting
from fallline._functional.call import Call, read
from fallline._functional.mistaken import instead_of
from fallline._functional.share import Share, State, is_of
from fallline._messages.values import brief
from fallline._optimizer.holder import Holder
from fallline._optimizer.optimizer import Optimizer
from fallline._step.binding import Binding

__all__ = ["Functional", "State"]

Shares = Mapping[str, Share]
States = Mapping[str, State]
Arrays = Mapping[str, Sequence[Any]]
Advanced = tuple[dict[str, list[Any]], dict[str, State]]


class Functional:
    """An optimizer, which stays as it is, with these hyper-parameters in the place of its own; they may be traced.

    A state is a `State`; of a partition a dict of these by part.

    Raises TypeError for what is no optimizer, or cannot be pure, TypeError or ValueError for hyper-parameters.
    """

    def __init__(self, optimizer: Any, given: Mapping[str, Any]) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError("A transformation is made of a fallline optimizer, such as fallline.Adam(lr=1e-3). "
                            f"Got {brief(optimizer)}.{instead_of(optimizer)}")
        stepper = optimizer.fresh()._stepper
        self._title, self._division, self._options = stepper.chain.title, stepper.division, stepper.options
        if stepper.chain.arrives:
            raise TypeError(f"A transformation gives increments, which cannot keep parameters within the bounds of "
                            f"{self._title}: x + (high - x) need not equal high. Leave bounds out, and clip what "
                            "optax.apply_updates gives.")
        self._chains = {name: holder.chain for name, holder in stepper.holders.items()}
        own = stepper.chain.by_holder(given)
        self._settings = {name: _settings(holder, own[name]) for name, holder in stepper.holders.items()}

    def init(self, params: Any) -> Any:
        """The state before the first step, for a tree of parameters."""
        binding, leaves = self._division.divide(params)
        return self._handed_out({name: share.started() for name, share in
                                 self._shares(binding, leaves, "parameter").items()})

    def update(self, grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        """The increments, a tree of the dtypes of the parameters (of the gradients, if these are not given), and the
        new state."""
        if params is None and any(chain.needs_parameters for chain in self._chains.values()):
            raise ValueError(f"update of {self._title} needs the parameters: update(grads, state, params).")
        states = self._taken_in(state)
        like, what = (grads, "gradient") if params is None else (params, "parameter")
        binding, leaves = self._division.divide(like)
        shares = self._shares(binding, leaves, what)
        given = binding.treedef.flatten_like(grads, "grads", "the parameters")
        gs = {name: share.gradients(binding.own(name, given)) for name, share in shares.items()}
        xs = None if params is None else {name: share.leaves for name, share in shares.items()}
        increments, states = self._chosen(shares, gs, xs, states)
        still = [jnp.full_like(leaf, -0.0) for leaf in leaves] if binding.left else list(leaves)
        return binding.treedef.unflatten(binding.merged(increments, still)), self._handed_out(states)

    def rest(self, state: Any, params: Any) -> Any:
        """The point to report (see `Optimizer.rest`), for the parameters and a state."""
        binding, leaves = self._division.divide(params)
        states, found = self._taken_in(state), {}
        for name, share in self._shares(binding, leaves, "parameter").items():
            chain = share.chain
            program = resting(chain.traced()[chain.rules.index(chain.rule)])
            call = Call(share, states[name], share.leaves, share.leaves, False)
            found[name] = share.leaves if program is None else call.at(program)
        return binding.treedef.unflatten(binding.merged(found, list(leaves)))

    @property
    def _is_divided(self) -> bool:
        return "" not in self._chains

    def _handed_out(self, states: States) -> Any:
        return dict(states) if self._is_divided else states[""]

    def _taken_in(self, state: Any) -> States:
        states = state if self._is_divided else {"": state}
        if not (isinstance(states, Mapping) and states.keys() == self._chains.keys()
                and all(is_of(self._chains[name], own) for name, own in states.items())):
            got = f"one of slots {', '.join(state.slots) or 'none'}" if isinstance(state, State) else brief(state)
            remedy = ": make it fallline.optax.State(**state)" if _is_read(state) else ""
            raise ValueError(f"state must be one of {self._title}, as init and update give it: update(grads, state, "
                             f"params). Got {got}{remedy}.")
        return states

    def _shares(self, binding: Binding, leaves: Sequence[Any], what: str) -> dict[str, Share]:
        return {name: Share(chain, self._settings[name], binding.tree(name, leaves), what)
                for name, chain in self._chains.items()}

    def _chosen(self, shares: Shares, gs: Arrays, xs: Arrays | None, states: States) -> Advanced:
        """The increments and states of a call, of what kind it turns out to be: one that is skipped, one in which some
        only gather their gradients, or a step."""
        gathering = {"" if chain.around[0] else name: name for name, chain in self._chains.items() if chain.gathers}
        calls = [partial(self._advanced, shares, gs, xs, states, dict(zip(gathering, holds)))
                 for holds in itertools.product((False, True), repeat=len(gathering))]
        which = jnp.zeros((), jnp.int32)
        for name in gathering.values():
            which = 2 * which + jnp.asarray(shares[name].holds(states[name]), jnp.int32)
        if self._options.nonfinite == "skip":
            calls.append(partial(self._skipped, shares, states))
            finite = [jnp.isfinite(g).all() for own in gs.values() for g in own]
            which = jnp.where(jnp.array(finite).all(), which, len(calls) - 1)
        return lax.switch(which, calls) if is_traced(which) else calls[int(which)]()

    def _advanced(self, shares: Shares, gs: Arrays, xs: Arrays | None, states: States, holds: Mapping[str, bool]
                  ) -> Advanced:
        """A call in which those hold that are around all parts (""), or around one."""
        calls = {name: Call(share, states[name], gs[name], None if xs is None else xs[name],
                            holds.get("" if share.chain.around[0] else name, False)) for name, share in shares.items()}
        read(calls, {name: call.first for name, call in calls.items()})
        for call in calls.values():
            call.ahead()
        read(calls, {name: call.then for name, call in calls.items()})
        found = {name: call.run() for name, call in calls.items()}
        return ({name: increments for name, (increments, _) in found.items()},
                {name: state for name, (_, state) in found.items()})

    @staticmethod
    def _skipped(shares: Shares, states: States) -> Advanced:
        return {name: share.still() for name, share in shares.items()}, dict(states)


def _is_read(state: Any) -> bool:
    """Whether it is what some libraries make of a state in a file."""
    return isinstance(state, Mapping) and state.keys() == set(State._fields)


def _settings(holder: Holder, given: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters of a holder with these, which are checked unless they are traced."""
    traced = {q: value for q, value in given.items() if any(map(is_traced, flatten(value, callable)[0]))}
    settings = holder.with_settings({q: value for q, value in given.items() if q not in traced})
    for q, value in settings.items():
        if hearing(value):
            raise TypeError(f"{holder.chain.hyper[q].name} of {holder.chain.owner(q)} is a schedule that hears values, "
                            "which a transformation is not told: use optax.contrib.reduce_on_plateau.")
    return {**settings, **{holder.chain.source(q, settings): _with_traced(holder.chain.hyper[q], value,
                                                                           holder.chain.owner(q))
                           for q, value in traced.items()}}


def _with_traced(hyper: Hyper, value: Any, owner: str) -> Any:
    """A hyper-parameter, or a tree of some, of which JAX traces one at least; the others are checked."""
    if hyper.range is WHOLE:
        raise TypeError(f"{hyper.name} of {owner} must be known where a transformation is made. Got one that JAX "
                        "traces.")
    leaves, treedef = flatten(value, callable)
    for leaf in filter(is_traced, leaves):
        if not (jnp.issubdtype(leaf.dtype, jnp.floating) or jnp.issubdtype(leaf.dtype, jnp.integer)):
            raise TypeError(f"{hyper.name} of {owner} must be a real number. Got one of {leaf.dtype}.")
    return treedef.unflatten([leaf if is_traced(leaf) else check(hyper, leaf, owner) for leaf in leaves])
