"""An optimizer that is part of a partition, and what may stand around all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fallline._formula.chain import Chain, as_link
from fallline._formula.rule import Link
from fallline._messages.values import brief
from fallline._step.turn import Turn
from fallline.errors import BusyOptimizer, FormulaError
from fallline.optimizer import Optimizer

__all__ = ["Part", "PartsTurn", "modifier"]


class PartsTurn(Turn):
    """The turn of a part, which can be looked at and set, but steps with the others only."""

    def __init__(self, whole: Turn) -> None:
        super().__init__()
        self._whole = whole

    def take(self, act: Callable[..., Any], *given: object) -> Any:
        raise BusyOptimizer("This optimizer is part of a partition: it steps, loads and starts anew with the others. "
                            "Call the partition, or take one of the same settings, .fresh(). Nothing was changed.")

    def join(self, act: Callable[..., Any], *given: object) -> Any:
        return self._whole.join(act, *given)


class Part(Optimizer):
    """An optimizer among links that are those of a chain around all parts."""

    def __init__(self, inside: Optimizer, around: tuple[Sequence[Link], Sequence[Link]]) -> None:
        self._lengths = len(around[0]), len(around[1])
        super().__init__(*around[0], inside, *around[1])

    def _chained(self, links: Sequence[Link]) -> Chain:
        return Chain(links, self._lengths)

    def _set(self, name: str, value: Any) -> None:
        qualified = self._qualified(name)
        if qualified.split(".")[0] in [self._chain.names[k] for k in self._chain.outer]:
            raise ValueError(f"{name} of {self._chain.owner(qualified)} is one for all parts: set it for the whole.")
        super()._set(name, value)


def modifier(item: Any) -> Link:
    """A link beside a partition."""
    is_one = isinstance(item, Optimizer) or (isinstance(item, type) and issubclass(item, Optimizer))
    link = None if is_one else as_link(item)
    if link is None or link.rule.kind == "rule":
        raise FormulaError(f"A chain has exactly one rule or partition. Got {brief(item)} beside one: step them as two "
                           "optimizers, or let it be one of the parts.")
    return link
