"""Rules with their settings as notebooks show them: HTML with MathML, which needs no network, and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from fallline._formula.notation.boxes import Box, row
from fallline._formula.notation.code import code
from fallline._formula.notation.latex import latex
from fallline._formula.notation.layout import number, typeset
from fallline._formula.notation.lines import tried
from fallline._formula.notation.mathml import mathml
from fallline._formula.notation.symbols import symbol
from fallline._messages.values import shown

if TYPE_CHECKING:
    from fallline._formula.rule import Link, Rule

    Section = tuple[str, Link]  # with a title where there are several

__all__ = ["as_html", "as_latex", "formula_html"]

HEAD = "white-space: pre-wrap; overflow-wrap: anywhere"
CODE = "font-family: monospace; white-space: pre; overflow-x: auto; text-align: left"


def formula_html(rule: Rule) -> str:
    """A rule's formula as HTML: MathML, or its code where it has no lines (functions of whole leaves), or nothing
    where there is no source to read."""
    box = _lines(rule)
    if box is not None:
        return f'<div style="overflow-x: auto">{mathml(box)}</div>'
    return tried(lambda: f'<pre style="{CODE}">{escape(code(rule.formula))}</pre>') or ""


def as_html(head: str, sections: Iterable[Section]) -> str:
    """What is written for it, and below it the formula of each section with its settings."""
    parts = [f'<code style="{HEAD}">{escape(head)}</code>']
    for title, link in sections:
        parts += [f"<div><b>{escape(title)}</b></div>"] * bool(title)
        settings = ", ".join(map(mathml, _settings(link)))
        parts += [formula_html(link.rule), f'<div style="padding: .3em 0; overflow-x: auto">{settings}</div>']
    return f'<div style="text-align: left">{"".join(parts)}</div>'


def as_latex(sections: Iterable[Section]) -> str | None:
    """The same as LaTeX for display; None if one of the rules has no lines."""
    rows = []
    for title, link in sections:
        box = _lines(link.rule)
        if box is None:
            return None
        settings = r",\quad ".join(map(latex, _settings(link)))
        rows += [text for text in (title and latex(_code(title)), latex(box), settings) if text]
    return "$$\n\\begin{array}{l}\n" + " \\\\[1ex]\n".join(rows) + "\n\\end{array}\n$$"


def _settings(link: Link) -> list[Box]:
    """Each by its name, its symbol where it has one that is another, and its value."""
    has_symbols = _lines(link.rule) is not None
    return [row(*(part for name in _names(h, has_symbols) for part in (name, Box("sign", ("=",)))), _value(value))
            for h, value in link.settings.items()]  # fmt: skip


def _names(name: str, has_symbols: bool) -> list[Box]:
    sign = symbol(name)
    return [sign] if sign.parts == (name,) else [_code(name), sign] if has_symbols else [_code(name)]


def _value(value: Any) -> Box:
    is_number = isinstance(value, (int, float)) and not math.isnan(value)
    return number(value) if is_number else _code(shown(value))


def _code(text: str) -> Box:
    return Box("code", (text,))


def _lines(rule: Rule) -> Box | None:
    return None if rule.whole_leaf else tried(lambda: typeset(rule))
