"""What is said of a rule's state and hyper-parameters, here and in the table of all."""

from __future__ import annotations

import fallline as fl
from fallline._formula.rule import Rule
from fallline.race.findings.wording import number
from handbook.cost import FLOAT32

__all__ = ["defaults", "exact", "held", "memory", "rule_of", "start"]

ROWS, COLUMNS = 1009, 2003  # of an example, to tell them apart in a shape


def rule_of(name: str) -> Rule:
    """The rule of a named optimiser."""
    rule = fl.OPTIMIZERS[name].rule
    assert rule is not None
    return rule


def defaults(rule: Rule) -> str:
    """Hyper-parameters as in a call."""
    return ", ".join(h.name if h.default is None else f"{h.name}={exact(h.default)}" for h in rule.hyper.values())


def exact(value: float) -> str:
    """A default with all its digits.

    >>> exact(0.9999), exact(1e-8), exact(50.0)
    ('0.9999', '1e-8', '50')
    """
    return number(value, 15)


def memory(rule: Rule) -> int:
    """Bytes of state for each float32 parameter of a matrix, not counting what is smaller than the matrix."""
    return FLOAT32 * sum(slot not in rule.scopes and _shape(rule, slot, (ROWS, COLUMNS)) == (ROWS, COLUMNS)
                         for slot in rule.slots)


def _shape(rule: Rule, slot: str, leaf: tuple[int, ...]) -> tuple[int, ...]:
    return rule.shapes[slot](leaf) if slot in rule.shapes else leaf


def start(rule: Rule, slot: str) -> str:
    """Where a slot starts, in words."""
    value = rule.slots[slot]
    if isinstance(value, str):
        return {"x": "the parameter", "g": "the first gradient"}.get(value, f"`{value}`")
    return number(value)


def held(rule: Rule, slot: str) -> str:
    """What there is one number for."""
    if slot not in rule.shapes:
        return rule.scopes.get(slot, "parameter")
    matrix, vector = (_counted(_shape(rule, slot, leaf)) for leaf in ((ROWS, COLUMNS), (ROWS,)))
    return f"{matrix} for a matrix of n × k, {vector} for a vector of n"


def _counted(shape: tuple[int, ...]) -> str:
    names = {ROWS: "n", COLUMNS: "k"}
    return "none" if 0 in shape else " × ".join(names.get(side, str(side)) for side in shape) or "1"
