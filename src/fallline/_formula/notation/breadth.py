"""How broad a formula is, in letters or so: enough to say where a line must be broken for the page of a phone."""

from __future__ import annotations

import re

__all__ = ["ROOM", "breadth"]

ROOM = 36  # such letters are about 345 pixels, and a phone has 360 of them

_FRACTION = re.compile(r"\\frac{([^{}]*)}{([^{}]*)}")
_INNER = re.compile(r"(?:\\(?:mathrm|mathit|text)|[_^]){([^{}]*)}")
_SILENT = re.compile(r"\\(?:left|right|displaystyle|,)|\\(?:begin|end){cases}|&")
_SIGN = re.compile(r"\\(?!max|min|ln|exp)[A-Za-z]+")


def breadth(latex: str) -> int:
    r"""The letters of a text beside each other: of a fraction those above or below its line, whichever are more.

    >>> breadth(r"\frac{\eta\,\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}\,m")
    9
    """
    latex = _SILENT.sub("", latex.replace(r"\sqrt", r"s\mathrm"))
    before = ""
    while before != latex:
        before = latex
        latex = _FRACTION.sub(lambda both: max(both.groups(), key=_letters), latex)
        latex = _INNER.sub(r"\1", latex)
    return _letters(latex)


def _letters(latex: str) -> int:
    return len(re.sub(r"[\\_^]", "", _SIGN.sub("x", latex)))
