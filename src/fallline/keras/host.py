"""Steps of Keras's variables that are torch tensors: in place, with state in memory that Keras's variables share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import torch

from fallline._optimizer.optimizer import Optimizer
from fallline._step.group import Group
from fallline.keras.leaves import Leaves

__all__ = ["Stepping"]


class Stepping:
    """An optimizer of ours that steps Keras's variables. If it is `rated`, its lr is what each step is told."""

    def __init__(self, opt: Optimizer, rated: bool) -> None:
        self._inner = opt.fresh()
        rate = self._rate = [0.0]
        if rated:
            self._inner.hyper["lr"] = lambda t: rate[0]
        self._inner._stepper.has_begun = True  # Keras says itself where there is no gradient
        self._leaves = Leaves()
        self._state: list[Any] = []
        self._ranges, self._is_stateless = 0, False

    def begin(self, leaves: Leaves, add: Callable[..., Any], rate: float) -> None:
        """Make the state of leaves; `add` makes Keras's variables of it."""
        self._leaves, self._rate[0] = leaves, rate
        self._inner.adapt(self._leaves.tree(lambda path, v: v.value.detach()))
        for group in self._groups():
            if group.engine.in_memory:
                group.begin(range(len(group.paths)))
        self._state = [add(tuple(array.shape), "zeros", keras.backend.standardize_dtype(array.dtype), name=name)
                       for name, array in self._arrays()]
        self._share()

    @torch._disable_dynamo  # which cannot trace native code, and need not
    def step(self, grads: Mapping[str, Any], rate: Any) -> None:
        """Step the variables that have gradients."""
        self._rate[0] = float(getattr(rate, "value", rate))
        values = self._leaves.tree(lambda path, v: v.value.detach().clone() if self._is_stateless else v.value.detach())
        for v in self._state if self._is_stateless else ():
            v._value.copy_(v.value)
        self._inner.step(values, self._leaves.tree(lambda path, v: grads.get(path)))
        if self._ranges != self._count_ranges():
            self._share()
        if self._is_stateless:
            of_state = [(v, v._value) for v in self._state]
            for v, value in [*zip(self._leaves.variables.values(), values.values()), *of_state]:
                v.assign(value.clone())

    def saved(self, variable: Any) -> Any:
        """What a file has of a variable."""
        return variable.numpy()

    def loaded(self, variable: Any, array: Any) -> Any:
        """What a variable has for what is in a file."""
        return array

    @contextmanager
    def stateless(self) -> Iterator[None]:
        """For a step of what Keras's scope has in the place of variables and state, which both stay as they are."""
        before, self._is_stateless = [v._value.clone() for v in self._state], True
        try:
            yield
        finally:
            self._is_stateless = False
            for v, value in zip(self._state, before):
                v._value.copy_(value)

    def _groups(self) -> list[Group]:
        return [holder.group for holder in self._inner._stepper.holders.values() if holder.group]

    def _count_ranges(self) -> int:
        """What changes where state comes to lie elsewhere, as the axes of its parameter do."""
        return sum(len(group.state_ranges) for group in self._groups())

    def _share(self) -> None:
        """Have Keras's variables lie where the state lies."""
        for v, (_, array) in zip(self._state, self._arrays()):
            v._value = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
        self._ranges = self._count_ranges()

    def _arrays(self) -> Iterator[tuple[str, Any]]:
        """All that is known of the run, live, by the names that it has in files."""
        for part, holder in self._inner._stepper.holders.items():
            group, before = holder.group, f"{part}_" if part else ""
            assert group is not None
            yield f"{before}t", group.count.reshape(())
            yield f"{before}missed", group.missed
            if group.chain.gathers:
                yield f"{before}absent", group.absent
            for slot, arrays in group.slots().items():
                name = slot.replace(".", "_")
                owners = [before] if slot in group.numbers.tree else [f"{p.replace('/', '_')}_" for p in group.paths]
                yield from ((owner + name, array) for owner, array in zip(owners, arrays))
