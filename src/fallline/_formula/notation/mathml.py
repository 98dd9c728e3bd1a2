"""Boxes as MathML, which browsers draw by themselves, without a script and without a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape

from fallline._formula.notation.boxes import Box, write

__all__ = ["mathml"]

BRACE = "border-left: .1em solid; border-radius: .6em; padding-left: .3em"  # a brace grows with few fonts only


def mathml(box: Box) -> str:
    """A box as an element `math`; lines are a block of their own.

    >>> mathml(Box("root", (Box("letter", ("ε",)),)))
    '<math><msqrt><mi>ε</mi></msqrt></math>'
    """
    block = ' display="block"' if box.kind == "aligned" else ""
    return f"<math{block}>{write(box, WRITTEN)}</math>"


def _letter(text: str) -> str:
    if text.isascii() and len(text) > 1:
        return f'<mi style="font-style: italic">{escape(text)}</mi>'
    return _row(*(f"<mi>{escape(character)}</mi>" for character in text))  # Δθ


def _sign(text: str, form: str = "infix") -> str:
    return f'<mo form="{form}">{escape(text).replace("-", "−")}</mo>'


def _space(width: float) -> str:
    return f'<mspace width="{width}em"></mspace>'


def _row(*parts: str) -> str:
    return parts[0] if len(parts) == 1 else f"<mrow>{''.join(parts)}</mrow>"


def _listed(*parts: str) -> str:
    return _row(*[text for part in parts for text in (_sign(",", "postfix"), part)][1:])


def _fenced(left: str, right: str, inner: str, stretchy: str = "true") -> str:
    return (f'<mrow><mo form="prefix" stretchy="{stretchy}">{left}</mo>{inner}'
            f'<mo form="postfix" stretchy="{stretchy}">{right}</mo></mrow>')


def _cells(*contents: str) -> str:
    """A row of a table."""
    cells = [f'<mtd style="text-align: left; padding: .2em .15em">{content}</mtd>' for content in contents]
    return f"<mtr>{''.join(cells)}</mtr>"


WRITTEN: dict[str, Callable[..., str]] = {
    "letter": _letter,
    "word": lambda text: f'<mi mathvariant="normal">{escape(text)}</mi>',
    "code": lambda text: f'<mtext style="font-family: monospace">{escape(text)}</mtext>',
    "function": "<mi>{}</mi>".format,
    "number": lambda text: f"<mn>{text.replace('-', '−')}</mn>",
    "mark": lambda text: f"<mo>{text.replace('-', '−')}</mo>",
    "sign": _sign,
    "minus": lambda: _sign("-", "prefix"),
    "beside": lambda: _space(0.17),
    "times": lambda: _sign("⋅"),
    "row": _row,
    "list": _listed,
    "subscripts": _listed,
    "below": "<msub>{}{}</msub>".format,
    "both": "<msubsup>{}{}{}</msubsup>".format,
    "raised": "<msup>{}{}</msup>".format,
    "fraction": "<mfrac>{}{}</mfrac>".format,
    "root": "<msqrt>{}</msqrt>".format,
    "parentheses": partial(_fenced, "(", ")", stretchy="false"),
    "tall parentheses": partial(_fenced, "(", ")"),
    "bars": partial(_fenced, "|", "|"),
    "norm": lambda inner, over: f"<msub>{_fenced('‖', '‖', inner)}{over}</msub>",
    "sum": "<mrow><munder><mo>∑</mo>{}</munder>{}</mrow>".format,
    "if": "<mrow><mtext>if\u00a0</mtext>{}</mrow>".format,
    "otherwise": "<mtext>otherwise</mtext>".format,
    "tall": '<mrow displaystyle="true">{}</mrow>'.format,
    "case aside": lambda value, when: _cells(value, _space(1) + when),
    "case behind": lambda value, when: _cells(value + _space(1) + when),
    "case below": lambda value, when: _cells(value) + _cells(_space(1) + when),
    "cases": lambda *rows: f'<mtable style="{BRACE}">{"".join(rows)}</mtable>',
    "line": lambda name, takes, value: _cells(name, takes + value),
    "continued": lambda value: _cells("", _space(2) + value),
    "aligned": lambda *lines: f'<mtable displaystyle="true">{"".join(lines)}</mtable>',
}
