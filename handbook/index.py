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
        "Each stands once, in [rules](../src/fallline/rules), in order of increasing complexity: as a formula, or as a "
        "function of whole arrays where it is no formula over coordinates. A page for each has the formula as a paper "
        "would print it, when to use it and when not, and its path on five surfaces.",
        table(head, rows),
        "*State*: one array for each slot, shaped like the parameters; in brackets what is one number for each leaf or "
        "for the tree, or has a shape of its own. *Bytes*: for each float32 parameter, "
        "of a matrix where leaves differ; a step is one pass through memory, plus one for each round of norms or sums "
        "that the formula takes, and moves this much; the check of gradients for NaN and infinity reads 4 more. With "
        "float64 it is twice that; what has 16 bits keeps its state in float32.",
        "What stands before and behind them, `clip_norm`, `weight_decay`, `average` and others, is combined with any "
        "of them by `fl.chain` and runs in the same pass.",
        "Other libraries call other formulas by the same names: [side by side](dialects.md), and as "
        "`fl.dialects.torch.Adam` and its like.",
        "Not sure? Start with [Adam](optimizers/Adam.md), or let the race decide on your own problem: "
        "`fallline race --problem my_problem.py:name`.",
    ]) + "\n"  # fmt: skip


def _row(rule: Rule) -> list[str]:
    slots = ", ".join(f"({slot})" if slot in rule.scopes or slot in rule.shapes else slot for slot in rule.slots)
    moved = "whole leaves" if rule.whole_leaf else str(cost(rule).bytes)
    return [slots or "–", str(memory(rule)), moved, defaults(rule), source(rule)]
