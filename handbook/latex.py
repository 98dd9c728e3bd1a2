"""A formula as LaTeX, with no more parentheses than it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fallline._formula.program import INCREMENT
from fallline._formula.rule import Rule
from fallline._formula.symbols import Symbol
from handbook.breadth import ROOM, breadth
from handbook.lines import Line, lines, rest
from handbook.symbols import symbol
from handbook.words import said, same

__all__ = ["typeset", "typeset_rest"]

SUM, PRODUCT, FACTOR, NAME = range(4)  # how strongly a text holds together: what stands beside it may need parentheses
BEFORE_CASES = 8  # letters, as in "ratio = {"
RELATIONS = {"lt": "<", "le": r"\le", "gt": ">", "ge": r"\ge", "eq": "=", "ne": r"\ne"}


class Text(NamedTuple):
    latex: str
    holds: int


def typeset(rule: Rule) -> str:
    """The lines of a rule's formula: shorthands and the increment with =, new state with an arrow."""
    rows = [row for line in lines(rule) for row in _rows(line)]
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"


def _rows(line: Line) -> list[str]:
    """A line, with a sum that is too broad for a phone broken before those of its terms that find no room."""
    takes = {True: r"\leftarrow", False: "="}[line.state]
    rows = [f"{symbol(line.name)} &{takes}"]
    terms = _sum(line.value) if said(line.value)[0] in ("add", "sub") else [_text(line.value).latex]
    for term in terms:
        if term != terms[0] and breadth(f"{rows[-1]} {term}") > ROOM:
            rows.append(r"&\quad")
        rows[-1] += f" {term}"
    return rows


def typeset_rest(rule: Rule) -> str | None:
    """The point to report, where that is not the parameter."""
    point = rest(rule)
    return None if point is None else _text(point).latex


def _text(value: Symbol) -> Text:
    word, args = said(value)
    if word in ("add", "sub"):
        return Text(" ".join(_sum(value)), SUM)
    if word in ("mul", "div", "neg") or (word == "constant" and args[0] < 0):
        return _product(value)
    if word.startswith(("norm", "total")):
        return _reduced(word, args[0])
    if word in WRITTEN:
        return WRITTEN[word](*args)
    return Text(symbol(args[0]), FACTOR if args[0] == INCREMENT else NAME)  # Δθ is two letters


def _sum(value: Symbol) -> list[str]:
    """The terms with their signs."""
    terms: list[str] = []
    for sign, term in _terms(value):
        turned, one = _signed(term)
        minus = (sign < 0) != turned
        before = ("- " if minus else "+ ") if terms else ("-" if minus else "")
        terms.append(before + _held(one, PRODUCT if minus else SUM))
    return terms


def _terms(value: Symbol) -> list[tuple[int, Symbol]]:
    word, args = said(value)
    if word == "add":
        return [term for arg in args for term in _terms(arg)]
    if word == "sub":
        return [*_terms(args[0]), (-1, args[1])]
    return [(1, value)]


def _signed(term: Symbol) -> tuple[bool, Text]:
    """Whether a term begins with a minus, and the term without it."""
    text = _text(term)
    if text.holds == PRODUCT and text.latex.startswith("-"):
        return True, Text(text.latex[1:], PRODUCT)
    return False, text


def _product(value: Symbol) -> Text:
    """Factors beside each other, a fraction for each division, with all factors since the last one above its line."""
    sign, factors = _factors(value)
    done: list[Text] = []
    above: list[Symbol] = []
    for divides, factor in factors:
        if divides:
            done.append(Text(rf"\frac{{{_beside(_powers(above)).latex}}}{{{_text(factor).latex}}}", FACTOR))
            above = []
        else:
            above.append(factor)
    text = _beside([*done, *_powers(above)])
    return Text(f"-{_held(text, PRODUCT)}", PRODUCT) if sign < 0 else text


def _factors(value: Symbol) -> tuple[int, list[tuple[bool, Symbol]]]:
    """The sign of a product, and its factors and divisors in order."""
    word, args = said(value)
    if word == "neg":
        sign, factors = _factors(args[0])
        return -sign, factors
    if word in ("mul", "div"):
        sign, factors = _factors(args[0])
        if word == "div":
            return sign, [*factors, (True, args[1])]
        other, more = _factors(args[1])
        return sign * other, factors + more
    if word == "constant":
        sign = -1 if args[0] < 0 else 1
        return sign, [] if abs(args[0]) == 1 else [(False, Symbol("constant", (abs(args[0]),), array=False))]
    return 1, [(False, value)]


def _powers(factors: list[Symbol]) -> list[Text]:
    """Factors, equal neighbours as a power."""
    runs: list[list[Symbol]] = []
    for factor in factors:
        if runs and same(runs[-1][0], factor):
            runs[-1].append(factor)
        else:
            runs.append([factor])
    return [_power(_text(run[0]), str(len(run))) if len(run) > 1 else _text(run[0]) for run in runs]


def _beside(texts: list[Text]) -> Text:
    """The product of these."""
    if len(texts) < 2:
        return texts[0] if texts else Text("1", NAME)
    written = ""
    for text in texts:
        factor = _held(text, FACTOR)
        written += (r" \cdot " if factor[0].isdigit() else r"\,") * bool(written) + factor
    return Text(written, PRODUCT)


def _power(base: Text, exponent: str) -> Text:
    raised = exponent if len(exponent) == 1 else f"{{{exponent}}}"
    return Text(f"{_held(base, NAME)}^{raised}", FACTOR)


def _held(text: Text, least: int) -> str:
    return text.latex if text.holds >= least else _parenthesised(text.latex)


def _parenthesised(latex: str) -> str:
    tall = any(word in latex for word in (r"\frac", r"\begin", r"\sum"))
    return rf"\left({latex}\right)" if tall else f"({latex})"


def _called(name: str) -> Callable[..., Text]:
    return lambda *args: Text(name + _parenthesised(", ".join(_text(a).latex for a in args)), FACTOR)


def _cases(condition: Symbol, a: Symbol, b: Symbol) -> Text:
    rows = [(_tall(a), rf"\text{{if }} {_text(condition).latex}")]
    word, args = said(b)
    while word == "where":
        rows.append((_tall(args[1]), rf"\text{{if }} {_text(args[0]).latex}"))
        b = args[2]
        word, args = said(b)
    rows.append((_tall(b), r"\text{otherwise}"))
    between = [" & "] * len(rows)
    if any(breadth("".join(row)) > ROOM - BEFORE_CASES for row in rows):  # conditions stand below what they are of
        between = [r" \\ \quad " if breadth("".join(row)) > ROOM - BEFORE_CASES else r" \quad " for row in rows]
    body = r" \\ ".join(value + sign + when for (value, when), sign in zip(rows, between))
    return Text(rf"\begin{{cases}} {body} \end{{cases}}", SUM)


def _tall(case: Symbol) -> str:
    """A case, whose fractions would else be small."""
    latex = _text(case).latex
    return rf"\displaystyle {latex}" if r"\frac" in latex else latex


def _reduced(word: str, value: Symbol) -> Text:
    what, over = word.split()
    if what == "norm":
        return Text(rf"\lVert {_text(value).latex} \rVert_{{\mathrm{{{over}}}}}", FACTOR)
    return Text(rf"\sum_{{\mathrm{{{over}}}}} {_held(_text(value), PRODUCT)}", SUM)


def _constant(value: float) -> Text:
    if value == int(value) and abs(value) < 1e6:
        return Text(str(int(value)), NAME)
    mantissa, _, exponent = repr(value).partition("e")
    if not exponent:
        return Text(mantissa, NAME)
    scale = f"10^{{{int(exponent)}}}"
    return Text(scale, FACTOR) if mantissa == "1" else Text(rf"{mantissa} \cdot {scale}", PRODUCT)


def _relation(sign: str) -> Callable[..., Text]:
    return lambda a, b: Text(f"{_text(a).latex} {sign} {_text(b).latex}", SUM)


def _bounded(value: Symbol) -> Text:
    return _power(_text(value), "+")


WRITTEN: dict[str, Callable[..., Text]] = {
    "t": lambda: Text("t", NAME),
    "tiny": lambda: Text(r"\mathrm{tiny}", NAME),
    "constant": _constant,
    "old": lambda name: Text(rf"{symbol(name)}^{{\mathrm{{old}}}}", FACTOR),
    "fill": _text,
    "power": lambda a, b: _power(_text(a), _text(b).latex),
    "sqrt": lambda a: Text(rf"\sqrt{{{_text(a).latex}}}", FACTOR),
    "abs": lambda a: Text(rf"\lvert {_text(a).latex} \rvert", FACTOR),
    "exp": _called(r"\exp"),
    "log": _called(r"\ln"),
    "sign": _called(r"\mathrm{sign}"),
    "maximum": _called(r"\max"),
    "minimum": _called(r"\min"),
    "bounded": _bounded,
    "kept": lambda a, b: _bounded(a),
    "root": lambda a, b: Text(rf"\sqrt{{{_bounded(a).latex}}}", FACTOR),
    "where": _cases,
    **{word: _relation(sign) for word, sign in RELATIONS.items()},
}
