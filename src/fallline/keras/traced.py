"""Steps of Keras's variables that are JAX arrays: a pure function of them and of the state, which is compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fallline._functional.functional import Functional
from fallline._functional.share import State, packed, unpacked
from fallline._optimizer.optimizer import Optimizer
from fallline.keras.leaves import Leaves

__all__ = ["Stepping"]


class Stepping:
    """An optimizer of ours that steps Keras's variables. If it is `rated`, its lr is what each step is told."""

    def __init__(self, opt: Optimizer, rated: bool) -> None:
        if opt._stepper.chain.arrives:
            raise TypeError(f"{opt._title} keeps parameters within bounds, which it can on Keras's torch back end "
                            "only: give the layers a constraint, such as keras.constraints.NonNeg().")
        self._opt, self._rated = opt.fresh(), rated
        self._leaves = Leaves()
        self._state: list[Any] = []  # in the order of JAX's leaves, with the variables that they are of
        self._owners: list[Any] = []
        self._treedef: Any = None
        self._compiled = jax.jit(partial(_stepped, self._opt, rated))

    def begin(self, leaves: Leaves, add: Callable[..., Any], rate: float) -> None:
        """Make the state of leaves; `add` makes Keras's variables of it."""
        self._leaves = leaves
        values = self._leaves.tree(lambda path, v: v.value)
        starts, self._treedef = jax.tree.flatten(_functional(self._opt, self._rated, rate).init(values))
        self._state, self._owners = [None] * len(starts), [None] * len(starts)
        places = self._treedef.unflatten(range(len(starts)))
        for name, of, place in self._named(places, values):
            start = starts[place] if isinstance(place, int) else place
            layout = getattr(of, "_layout", None) if of is not None and start.shape == tuple(of.shape) else None
            v = add(start.shape, "zeros", start.dtype.name, layout=layout, name=name)
            v.assign(start)
            if isinstance(place, int):
                self._state[place], self._owners[place] = v, of
        self._numbers = {id(self._state[k]) for own in _by_part(places).values() for k in jax.tree.leaves(own.numbers)}

    def step(self, grads: Mapping[str, Any], rate: Any) -> None:
        """Step the variables that have gradients."""
        values = self._leaves.tree(lambda path, v: v.value)
        given = self._leaves.tree(lambda path, v: jnp.zeros_like(v.value) if grads.get(path) is None else grads[path])
        state = self._treedef.unflatten([v.value for v in self._state])
        values, state = self._compiled(given, state, values, getattr(rate, "value", rate))
        left = [v for path, v in self._leaves.variables.items() if grads.get(path) is None]
        for v, of, new in [*((v, v, values[path]) for path, v in self._leaves.variables.items()),
                           *zip(self._state, self._owners, jax.tree.leaves(state))]:
            if not any(of is other for other in left):
                v.assign(new)

    def stateless(self) -> AbstractContextManager[None]:
        """For a step of what Keras's scope has in the place of variables and state, which is what any step takes."""
        return nullcontext()

    def saved(self, variable: Any) -> Any:
        """What a file has of a variable: numbers in float64, as on other back ends."""
        value = variable.value
        return np.asarray(unpacked(value)) if id(variable) in self._numbers else np.asarray(value)

    def loaded(self, variable: Any, array: Any) -> Any:
        """What a variable has for what is in a file."""
        return packed(np.float64(array)) if id(variable) in self._numbers else array

    def _named(self, state: Any, values: Any) -> Iterator[tuple[str, Any, Any]]:
        """What a state has, in the order and by the names of `host`, with the variable that it is of; and that there
        is nothing of what `host` has besides, as leaves count their steps together here."""
        binding, _ = self._opt._stepper.division.divide(values)
        for part, own in _by_part(state).items():
            chain, before = self._opt._stepper.holders[part].chain, f"{part}_" if part else ""
            yield f"{before}t", None, own.count
            for name in ("missed", "absent") if chain.gathers else ("missed",):
                yield before + name, None, jnp.zeros(len(binding.positions[part]), jnp.int32)
            every = {**own.slots, **own.numbers}
            for slot in chain.starts():
                name = slot.replace(".", "_")
                if isinstance(every[slot], Mapping):
                    yield from ((f"{path.replace('/', '_')}_{name}", self._leaves.variables[path], place)
                                for path, place in every[slot].items() if place is not None)
                else:
                    yield before + name, None, every[slot]


def _by_part(state: Any) -> Mapping[str, State]:
    return {"": state} if isinstance(state, State) else state


def _functional(opt: Optimizer, rated: bool, rate: Any) -> Functional:
    return Functional(opt, {"lr": rate} if rated else {})


def _stepped(opt: Optimizer, rated: bool, grads: Any, state: Any, values: Any, rate: Any) -> tuple[Any, Any]:
    increments, state = _functional(opt, rated, rate).update(grads, state, values)
    return jax.tree.map(jnp.add, values, increments), state
