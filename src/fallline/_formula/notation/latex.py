"""A formula as LaTeX, with no more parentheses than it needs."""

from __future__ import annotations

import ast
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from fallline._formula.notation.breadth import ROOM, breadth
from fallline._formula.notation.lines import lines, rest
from fallline._formula.notation.symbols import symbol
from fallline._formula.program import INCREMENT

if TYPE_CHECKING:
    from fallline._formula.rule import Rule

__all__ = ["typeset", "typeset_rest"]

SUM, PRODUCT, FACTOR, NAME = range(4)  # how strongly a text holds together: what stands beside it may need parentheses
BEFORE_CASES = 8  # letters, as in "ratio = {"
RELATIONS = {ast.Lt: "<", ast.LtE: r"\le", ast.Gt: ">", ast.GtE: r"\ge", ast.Eq: "=", ast.NotEq: r"\ne"}
FUNCTIONS = {"exp": r"\exp", "log": r"\ln", "maximum": r"\max", "minimum": r"\min", "sign": r"\mathrm{sign}"}


class Text(NamedTuple):
    latex: str
    holds: int

    def held(self, least: int) -> str:
        """In parentheses if it would not hold together."""
        return self.latex if self.holds >= least else _in_parentheses(self.latex)


def typeset(rule: Rule) -> str:
    """The lines of a rule's formula: shorthands and the increment with =, new state with an arrow."""
    rows: list[str] = []
    for name, value in lines(rule).items():
        rows += _rows(f"{symbol(name)} &" + (r"\leftarrow" if name in rule.slots else "="), value)
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"


def typeset_rest(rule: Rule) -> str | None:
    """The point to report, where that is not the parameter."""
    point = rest(rule)
    return None if point is None else _text(point).latex


def _rows(takes: str, value: ast.expr) -> list[str]:
    """A line, with a sum that is too broad for a phone broken before those of its terms that find no room."""
    first, *others = _terms(value)
    rows = [f"{takes} {first}"]
    for term in others:
        if breadth(f"{rows[-1]} {term}") > ROOM:
            rows.append(r"&\quad")
        rows[-1] += f" {term}"
    return rows


def _text(node: Any) -> Text:
    match node:
        case ast.BinOp(_, ast.Add() | ast.Sub()):
            return Text(" ".join(_terms(node)), SUM)
        case ast.BinOp(a, ast.Pow(), b):
            return _power(_text(a), _text(b).latex)
        case ast.BinOp() | ast.UnaryOp():
            minus, text = _product(node)
            return Text(f"-{text.held(PRODUCT)}", PRODUCT) if minus else text
        case ast.Compare(a, [relation], [b]):
            return Text(f"{_text(a).latex} {RELATIONS[type(relation)]} {_text(b).latex}", SUM)
        case ast.Call(ast.Name(word), args):
            return _word(word, *args)
        case ast.Constant(int() | float() as value):
            return _number(value)
    holds = FACTOR if node.old or node.name == INCREMENT else NAME  # Δθ is two letters
    return Text(symbol(node.name) + r"^{\mathrm{old}}" * node.old, holds)


def _word(word: str, a: ast.expr, *others: Any) -> Text:
    match word, *others:
        case "where", *_:
            return Text(_cases(_alternatives(ast.Call(ast.Name(word), [a, *others], []))), SUM)
        case ("kept", _) | ("maximum", ast.Call(ast.Name("tiny"))):
            return _power(_text(a), "+")
        case "root", *_:
            return Text(rf"\sqrt{{{_power(_text(a), '+').latex}}}", FACTOR)
        case "sqrt", *_:
            return Text(rf"\sqrt{{{_text(a).latex}}}", FACTOR)
        case "abs", *_:
            return Text(rf"\lvert {_text(a).latex} \rvert", FACTOR)
        case "norm", ast.Constant(str(over)):
            return Text(rf"\lVert {_text(a).latex} \rVert_{{\mathrm{{{over}}}}}", FACTOR)
        case "total", ast.Constant(str(over)):
            return Text(rf"\sum_{{\mathrm{{{over}}}}} {_text(a).held(PRODUCT)}", SUM)
        case "tiny", *_:
            return Text(r"\mathrm{tiny}", NAME)
    return Text(FUNCTIONS[word] + _in_parentheses(", ".join(_text(arg).latex for arg in (a, *others))), FACTOR)


def _terms(node: ast.expr) -> list[str]:
    """The terms of a sum with their signs; what is no sum is the one term."""
    (minus, first), *others = ((minus, text.held(PRODUCT if minus else SUM)) for minus, text in _signed(node))
    return ["-" * minus + first, *(f"{'-' if minus else '+'} {text}" for minus, text in others)]


def _signed(node: ast.expr) -> list[tuple[bool, Text]]:
    """The terms of a sum, and whether they have a minus."""
    match node:
        case ast.BinOp(left, ast.Add(), right):
            return _signed(left) + _signed(right)
        case ast.BinOp(left, ast.Sub(), right):
            negative, text = _product(right)
            return [*_signed(left), (not negative, text)]
    return [_product(node)]


def _product(node: ast.expr) -> tuple[bool, Text]:
    """Whether a product is negative, and its factors beside each other, a fraction for each division, with all factors
    since the last one above its line; what is no product is the one factor."""
    negative, factors = _factors(node)
    done: list[Text] = []
    above: list[ast.expr] = []
    for divides, factor in factors:
        if divides:
            done.append(Text(rf"\frac{{{_beside(_powers(above)).latex}}}{{{_text(factor).latex}}}", FACTOR))
            above = []
        else:
            above.append(factor)
    return negative, _beside(done + _powers(above))


def _factors(node: ast.expr) -> tuple[bool, list[tuple[bool, ast.expr]]]:
    """Whether a product is negative; its factors, and whether they divide."""
    match node:
        case ast.UnaryOp(ast.USub(), operand):
            negative, factors = _factors(operand)
            return not negative, factors
        case ast.BinOp(left, ast.Mult(), right):
            (negative, factors), (other, more) = _factors(left), _factors(right)
            return negative != other, factors + more
        case ast.BinOp(left, ast.Div(), right):
            negative, factors = _factors(left)
            return negative, [*factors, (True, right)]
        case ast.Constant(1):
            return False, []
    return False, [(False, node)]


def _powers(factors: list[ast.expr]) -> list[Text]:
    """Factors, equal neighbours as a power."""
    runs = [list(run) for _, run in groupby(factors, ast.dump)]
    return [_power(_text(run[0]), str(len(run))) if len(run) > 1 else _text(run[0]) for run in runs]


def _beside(texts: list[Text]) -> Text:
    """The product of these."""
    if len(texts) < 2:
        return texts[0] if texts else Text("1", NAME)
    first, *others = (text.held(FACTOR) for text in texts)
    return Text(first + "".join((r" \cdot " if other[0].isdigit() else r"\,") + other for other in others), PRODUCT)


def _power(base: Text, exponent: str) -> Text:
    raised = exponent if len(exponent) == 1 else f"{{{exponent}}}"
    return Text(f"{base.held(NAME)}^{raised}", FACTOR)


def _in_parentheses(latex: str) -> str:
    tall = any(word in latex for word in (r"\frac", r"\begin", r"\sum"))
    return rf"\left({latex}\right)" if tall else f"({latex})"


def _number(value: float) -> Text:
    mantissa, _, exponent = f"{value:.15g}".partition("e")
    if not exponent:
        return Text(mantissa, NAME)
    scale = f"10^{{{int(exponent)}}}"
    return Text(scale, FACTOR) if mantissa == "1" else Text(rf"{mantissa} \cdot {scale}", PRODUCT)


def _alternatives(node: ast.expr) -> list[tuple[ast.expr, ast.expr | None]]:
    """What a choice takes, and on which condition."""
    match node:
        case ast.Call(ast.Name("where"), [condition, a, b]):
            return [(a, condition), *_alternatives(b)]
    return [(node, None)]


def _cases(alternatives: list[tuple[ast.expr, ast.expr | None]]) -> str:
    rows = [(_tall(value), r"\text{otherwise}" if condition is None else rf"\text{{if }} {_text(condition).latex}")
            for value, condition in alternatives]  # fmt: skip
    broad = [breadth("".join(row)) > ROOM - BEFORE_CASES for row in rows]  # conditions stand below what they are of
    between = [r" \\ \quad " if below else r" \quad " if any(broad) else " & " for below in broad]
    body = r" \\ ".join(value + sign + when for (value, when), sign in zip(rows, between))
    return rf"\begin{{cases}} {body} \end{{cases}}"


def _tall(case: ast.expr) -> str:
    """A case, whose fractions would else be small."""
    latex = _text(case).latex
    return rf"\displaystyle {latex}" if r"\frac" in latex else latex
