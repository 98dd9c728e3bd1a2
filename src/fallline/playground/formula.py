"""Formulas as templates of MathML, in which the page puts symbols or the numbers of a step."""

from __future__ import annotations

import ast
import re
from copy import deepcopy
from functools import partial
from typing import NamedTuple

from fallline._formula.chain import Chain
from fallline._formula.notation.boxes import Box
from fallline._formula.notation.layout import typeset
from fallline._formula.notation.lines import Named, lines, tried
from fallline._formula.notation.mathml import mathml
from fallline._formula.notation.symbols import symbol
from fallline._formula.program import INCREMENT
from fallline._formula.trace import Traced

__all__ = ["Formula", "Line", "formulas"]

PLACES = 0xE000  # from here on Unicode has letters for private use, which stand in formulas for what is put there


class Line(NamedTuple):
    """A line as rows of a MathML table, with {where|symbol} for values, and where the page finds what it comes to.

    The page finds "g", "x", "t", "d" (the increment), ".m" (state), "state d" (state that is one number), both as they
    are behind the step or, followed by " old", before it, and "#adam.lr" (a setting); "" is not known.
    """

    result: str
    rows: str


class Formula(NamedTuple):
    """The lines of a rule, by what the chain calls it."""

    title: str
    lines: list[Line]


def formulas(chain: Chain, symbols: dict[str, str]) -> list[Formula]:
    """The rules of a chain, but for those whose formula cannot be set; `symbols` takes the MathML of theirs."""
    found = [(name, tried(partial(_lines_of, link, chain, symbols)))
             for name, link in zip(chain.names, chain.traced())]
    return [Formula(chain.titles[name], made) for name, made in found if made is not None]


def _lines_of(link: Traced, chain: Chain, symbols: dict[str, str]) -> list[Line]:
    known = _places(link, chain)
    return [Line(known.get((name, True), ""), _rows(link, name, tree, known, symbols))
            for name, tree in lines(link.rule).items()]


def _places(link: Traced, chain: Chain) -> dict[tuple[str, bool], str]:
    """Where the page finds the value that a name has in a rule, before the step or (True) behind it."""
    rule = link.rule
    slots = {name: f"state {own}" if name in rule.scopes else f".{own}" for name, own in link.slots.items()}
    return {
        ("t", False): "t", ("x", False): "x",
        **({("g", False): "g"} if rule is chain.rules[0] else {}),
        **({(INCREMENT, True): "d"} if rule is chain.rules[-1] else {}),
        **{(name, True): where for name, where in slots.items()},
        **{(name, False): f"{where} old" for name, where in slots.items()},
        **{(name, False): f"#{qualified}" for name, qualified in link.hyper.items()},
    }  # fmt: skip


def _rows(link: Traced, name: str, tree: ast.expr, known: dict[tuple[str, bool], str], symbols: dict[str, str]) -> str:
    marked = _Marked()
    text = mathml(typeset(link.rule, {name: marked.visit(deepcopy(tree))}))

    def place(found: re.Match[str]) -> str:
        node = marked.nodes[ord(found[1]) - PLACES]
        sign = f"{node.name} old" if node.old else node.name
        symbols[sign] = mathml(_symbol(node)).removeprefix("<math>").removesuffix("</math>")
        return f"{{{known.get((node.name, node.new), '')}|{sign}}}"

    rows = re.search(r"<mtable[^>]*>(.*)</mtable>", text)
    assert rows is not None
    plain = re.sub(r' (form="infix"|style="text-align: left[^"]*")', "", rows[1])  # of which there are many
    return re.sub(f"<mi>([{chr(PLACES)}-{chr(PLACES + 0x18FF)}])</mi>", place, plain)


def _symbol(node: Named) -> Box:
    sign = symbol(node.name)
    return Box("raised", (sign, Box("word", ("old",)))) if node.old else sign


class _Marked(ast.NodeTransformer):
    """Names become letters for private use, equal ones the same; `nodes` are the names that they stand for."""

    def __init__(self) -> None:
        self.nodes: list[Named] = []

    def visit_Named(self, node: Named) -> Named:
        known = [(each.name, each.new, each.old) for each in self.nodes]
        if (own := (node.name, node.new, node.old)) not in known:
            self.nodes.append(node)
        return Named(chr(PLACES + [*known, own].index(own)), True)
