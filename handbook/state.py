"""What is said of a rule's state and hyper-parameters, here and in the table of all."""

from __future__ import annotations

from fallline.race.wording import number
from fallline.schema import Rule
from handbook.cost import FLOAT32

__all__ = ["defaults", "held", "memory", "start"]

ROWS, COLUMNS = 1009, 2003  # of an example, to tell them apart in a shape


def defaults(rule: Rule) -> str:
    """Hyper-parameters as in a call."""
    return ", ".join(h.name if h.default is None else f"{h.name}={h.default!r}" for h in rule.hyper.values())


def memory(rule: Rule) -> int:
    """Bytes of state per float32 parameter, not counting slots that are smaller than the parameter."""
    return FLOAT32 * sum(slot not in rule.scopes and slot not in rule.shapes for slot in rule.slots)


def start(rule: Rule, slot: str) -> str:
    """Where a slot starts, in words."""
    value = rule.slots[slot]
    if isinstance(value, str):
        return {"x": "the parameter", "g": "the first gradient"}.get(value, f"`{value}`")
    return number(value)


def held(rule: Rule, slot: str) -> str:
    """What there is one number for."""
    if slot in rule.scopes:
        return f"{rule.scopes[slot]}"
    if slot not in rule.shapes:
        return "parameter"
    shape = rule.shapes[slot]((ROWS, COLUMNS))
    names = {ROWS: "n", COLUMNS: "k"}
    return f"an array of its own: ({', '.join(names.get(side, str(side)) for side in shape)}) for a matrix (n, k)"
