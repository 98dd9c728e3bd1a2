"""An optimizer as the Python that makes it, with places for its settings."""

from __future__ import annotations

import re

import fallline
from fallline._browser.module import hyper_name
from fallline._optimizer.optimizer import Optimizer

__all__ = ["in_python"]


class _Place:
    """What stands for a setting's value: its name in braces."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"{{{self.name}}}"


def in_python(optimizer: Optimizer) -> str:
    """The call that makes an optimizer, with "{lr}" where the value of lr is.

    >>> in_python(fallline.Momentum(0.1))
    'fl.Momentum(lr={lr}, momentum={momentum})'
    """
    marked = optimizer.fresh()
    (holder,) = marked._stepper.holders.values()
    holder.settings = {q: _Place(hyper_name(holder.chain, q)) for q in holder.settings}
    return re.sub(r"(?<![\w.])(\w+)(?=[.(])", lambda found: f"fl.{found[1]}" if hasattr(fallline, found[1]) else
                  found[1], marked._described())
