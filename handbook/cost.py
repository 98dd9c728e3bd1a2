"""What a step costs: counted off the program that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fallline._formula.rule import Rule
from fallline._formula.trace import Traced, trace

__all__ = ["Cost", "cost"]

FLOAT32 = 4  # bytes


class Cost(NamedTuple):
    """The arrays that a step reads and writes, for each pass through them, and its bytes per float32 parameter."""

    passes: Sequence[Sequence[str]]
    writes: Sequence[str]

    @property
    def bytes(self) -> int:
        return FLOAT32 * (sum(map(len, self.passes)) + len(self.writes))


def cost(rule: Rule) -> Cost:
    """Of a step in place, without the check of gradients.

    >>> import fallline as fl
    >>> cost(fl.rules.momentum)
    Cost(passes=[('x', 'g', 'velocity')], writes=['x', 'velocity'])
    >>> cost(fl.rules.momentum).bytes
    20
    """
    link = Traced(rule, {slot: slot for slot in rule.slots}, {name: name for name in rule.hyper})
    program = trace([link], "x")
    return Cost([_in_order(p.inputs, rule) for p in (*program.readings, program)],
                [name for name, _ in program.outputs])


def _in_order(names: Sequence[str], rule: Rule) -> tuple[str, ...]:
    return tuple(name for name in ("x", "g", *rule.slots) if name in names)
