"""The table of all optimisers."""

from __future__ import annotations

import fallline as fl
from fallline._formula.rule import Rule
from handbook.cost import cost
from handbook.page import MADE, source, table
from handbook.state import defaults, memory, rule_of

__all__ = ["index"]


def index() -> str:
    """The page that leads to all others."""
    rows = [[f"[{name}](optimizers/{name}.md)", *_row(rule_of(name))] for name in fl.OPTIMIZERS]
    head = ["optimiser", "state", "bytes of state", "bytes moved", "hyper-parameters", "source"]
    return "\n\n".join([
        MADE, "# The optimisers",
        "Each optimiser is written once, in [rules](../src/fallline/rules), in order of increasing complexity: as a "
        "formula over coordinates, or as a function of whole arrays. Each has a page with the formula as a paper would "
        "print it, when to use it and when not, and its path on five surfaces.",
        table(head, rows),
        "*State*: one array for each slot, shaped like the parameters. Slots in brackets are one number for each leaf "
        "or for the tree, or have a shape of their own. *Bytes* are counted for each float32 parameter (of a matrix, "
        "where leaves differ). A step makes one pass through memory, plus one for each round of norms or sums in the "
        "formula; this is what it moves. The check of gradients for NaN and infinity reads 4 more bytes. float64 takes "
        "twice as much; the state of 16-bit parameters is float32.",
        "`fl.chain` combines any of them with modifiers, such as `clip_norm`, `weight_decay` and `average`, which run "
        "in the same pass.",
        "Other libraries use the same names for other formulas. See them [side by side](dialects.md); they are "
        "available as `fl.dialects.torch.Adam` and so on.",
        "Not sure? Start with [Adam](optimizers/Adam.md), or let the race decide on your own problem: "
        "`fallline race --problem my_problem.py:name`.",
    ]) + "\n"  # fmt: skip


def _row(rule: Rule) -> list[str]:
    slots = ", ".join(f"({slot})" if slot in rule.scopes or slot in rule.shapes else slot for slot in rule.slots)
    moved = "whole leaves" if rule.whole_leaf else str(cost(rule).bytes)
    return [slots or "–", str(memory(rule)), moved, defaults(rule), source(rule)]
