"""A formula laid out as a paper would have it, with no more parentheses than it needs."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from fallline._formula.notation.boxes import FACTOR, NAME, PRODUCT, SUM, Box, in_parentheses, raised, row, word
from fallline._formula.notation.breadth import ROOM, breadth
from fallline._formula.notation.latex import latex
from fallline._formula.notation.lines import lines, rest
from fallline._formula.notation.symbols import symbol
from fallline._formula.program import INCREMENT

if TYPE_CHECKING:
    from fallline._formula.rule import Rule

__all__ = ["number", "typeset", "typeset_rest"]

BEFORE_CASES = 8  # letters, as in "ratio = {"
RELATIONS = {ast.Lt: "<", ast.LtE: "≤", ast.Gt: ">", ast.GtE: "≥", ast.Eq: "=", ast.NotEq: "≠"}
FUNCTIONS = {"exp": "exp", "log": "ln", "maximum": "max", "minimum": "min"}
MINUS = Box("minus", ())


def typeset(rule: Rule, written: Mapping[str, ast.expr] | None = None) -> Box:
    """The lines of a rule's formula, or of what is `written` in their place: shorthands and the increment with =, new
    state with an arrow.

    Raises ValueError for what cannot stand in a line, OSError for a formula without source.
    """
    rows: list[Box] = []
    for name, value in (lines(rule) if written is None else written).items():
        changed = name in rule.slots or (rule.kind != "rule" and name in ("g", INCREMENT))
        rows += _rows(symbol(name), Box("sign", ("←" if changed else "=",)), value)
    return Box("aligned", tuple(rows))


def typeset_rest(rule: Rule) -> Box | None:
    """The point to report, where that is not the parameter."""
    point = rest(rule)
    return None if point is None else _box(point)


def _rows(name: Box, takes: Box, value: ast.expr) -> list[Box]:
    """A line, with a sum that is too broad for a phone broken before those of its terms that find no room."""
    first, *others = _terms(value)
    rows = [[name, takes, first]]
    for sign, term in zip(others[::2], others[1::2]):
        if breadth(latex(row(*rows[-1], sign, term))) > ROOM:
            rows.append([])
        rows[-1] += [sign, term]
    start = Box("line", (name, takes, row(*rows[0][2:])))
    return [start, *(Box("continued", (row(*more),)) for more in rows[1:])]


def _box(node: Any) -> Box:
    match node:
        case ast.BinOp(_, ast.Add() | ast.Sub()):
            return row(*_terms(node))
        case ast.BinOp(a, ast.Pow(), b):
            return raised(_box(a), _box(b))
        case ast.BinOp() | ast.UnaryOp():
            minus, box = _product(node)
            return row(MINUS, box.held(PRODUCT), holds=PRODUCT) if minus else box
        case ast.Compare(a, [relation], [b]):
            return row(_box(a), Box("sign", (RELATIONS[type(relation)],)), _box(b))
        case ast.Call(ast.Name(name), args):
            return _called(name, *args)
        case ast.Constant(int() | float() as value):
            return number(value)
    box = symbol(node.name)._replace(holds=FACTOR if node.old or node.name == INCREMENT else NAME)  # Δθ is two letters
    return raised(box._replace(holds=NAME), word("old")) if node.old else box


def _called(name: str, a: ast.expr, *others: Any) -> Box:
    match name, *others:
        case "where", b, c:
            return Box("cases", tuple(_cases(ast.Call(ast.Name(name), [a, b, c], []))), SUM)
        case ("kept", _) | ("maximum", ast.Call(ast.Name("tiny"))):
            return _bounded(a)
        case "root", *_:
            return Box("root", (_bounded(a),), FACTOR)
        case "sqrt", *_:
            return Box("root", (_box(a),), FACTOR)
        case "abs", *_:
            return Box("bars", (_box(a),), FACTOR)
        case "norm", ast.Constant(over):
            return Box("norm", (_box(a), word(str(over))), FACTOR)
        case "total", ast.Constant(over):
            return Box("sum", (word(str(over)), _box(a).held(PRODUCT)), SUM)
        case "tiny", *_:
            return word("tiny")
    title = Box("function", (FUNCTIONS[name],)) if name in FUNCTIONS else word(name)
    return row(title, in_parentheses(Box("list", tuple(_box(arg) for arg in (a, *others)))), holds=FACTOR)


def _bounded(node: ast.expr) -> Box:
    return raised(_box(node), Box("mark", ("+",)))


def _terms(node: ast.expr) -> list[Box]:
    """The terms of a sum with their signs; what is no sum is the one term."""
    (minus, first), *others = ((minus, box.held(PRODUCT if minus else SUM)) for minus, box in _signed(node))
    terms = [row(MINUS, first, holds=PRODUCT) if minus else first]
    for minus, box in others:
        terms += [Box("sign", ("-" if minus else "+",)), box]
    return terms


def _signed(node: ast.expr) -> list[tuple[bool, Box]]:
    """The terms of a sum, and whether they have a minus."""
    match node:
        case ast.BinOp(left, ast.Add(), right):
            return _signed(left) + _signed(right)
        case ast.BinOp(left, ast.Sub(), right):
            negative, box = _product(right)
            return [*_signed(left), (not negative, box)]
    return [_product(node)]


def _product(node: ast.expr) -> tuple[bool, Box]:
    """Whether a product is negative, and its factors beside each other, a fraction for each division, with all factors
    since the last one above its line; what is no product is the one factor."""
    negative, factors = _factors(node)
    done: list[Box] = []
    above: list[ast.expr] = []
    for divides, factor in factors:
        if divides:
            done.append(Box("fraction", (_beside(_powers(above)), _box(factor)), FACTOR))
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


def _powers(factors: list[ast.expr]) -> list[Box]:
    """Factors, equal neighbours as a power."""
    runs = [list(run) for _, run in groupby(factors, ast.dump)]
    return [raised(_box(run[0]), number(len(run))) if len(run) > 1 else _box(run[0]) for run in runs]


def _beside(boxes: list[Box]) -> Box:
    """The product of these."""
    if len(boxes) < 2:
        return boxes[0] if boxes else number(1)
    first, *others = (box.held(FACTOR) for box in boxes)
    parts = [first]
    for other in others:
        parts += [Box("times" if latex(other)[0].isdigit() else "beside", ()), other]
    return row(*parts, holds=PRODUCT)


def number(value: float) -> Box:
    """A number, its exponent as a power of 10."""
    mantissa, _, exponent = f"{value:.15g}".replace("inf", "∞").partition("e")
    if not exponent:
        return Box("number", (mantissa,), NAME if value >= 0 else PRODUCT)
    scale = raised(Box("number", ("10",)), Box("number", (str(int(exponent)),)))
    return scale if mantissa == "1" else row(Box("number", (mantissa,)), Box("times", ()), scale, holds=PRODUCT)


def _cases(node: ast.expr) -> list[Box]:
    """The rows of a choice; conditions stand below what they are of where one finds no room beside it."""
    rows = [(_box(value), Box("otherwise", ()) if condition is None else Box("if", (_box(condition),)))
            for value, condition in _alternatives(node)]  # fmt: skip
    broad = [breadth(latex(value) + latex(when)) > ROOM - BEFORE_CASES for value, when in rows]
    kinds = ["below" if each else "behind" if any(broad) else "aside" for each in broad]
    return [Box(f"case {kind}", (Box("tall", (value,)) if "fraction" in repr(value) else value, when))
            for kind, (value, when) in zip(kinds, rows)]


def _alternatives(node: ast.expr) -> list[tuple[ast.expr, ast.expr | None]]:
    """What a choice takes, and on which condition."""
    match node:
        case ast.Call(ast.Name("where"), [condition, a, b]):
            return [(a, condition), *_alternatives(b)]
    return [(node, None)]
