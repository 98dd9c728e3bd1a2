"""Boxes as LaTeX."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from fallline._formula.notation.boxes import Box, write

__all__ = ["latex"]

SIGNS = {"≤": r"\le", "≥": r"\ge", "≠": r"\ne", "←": r"\leftarrow", "∞": r"\infty", "ε": r"\varepsilon"}

ESCAPED = {**{character: f"\\{character}" for character in "#$%&_{}"},
           "\\": r"\(\backslash\)", "^": r"\(\wedge\)", "~": r"\(\sim\)"}


def latex(box: Box) -> str:
    r"""A box as LaTeX, without dollars.

    >>> latex(Box("root", (Box("letter", ("ε",)),)))
    '\\sqrt{\\varepsilon}'
    """
    return write(box, WRITTEN)


def _letter(text: str) -> str:
    if len(text) > 1 and text.isascii():
        return rf"\mathit{{{text}}}"
    return "".join(map(_sign, text))


def _sign(character: str) -> str:
    greek = unicodedata.name(character, "").replace("LAMDA", "LAMBDA").split(" LETTER ")
    if character in SIGNS or len(greek) == 1 or "GREEK" not in greek[0]:
        return SIGNS.get(character, character)
    return "\\" + (greek[1].capitalize() if "CAPITAL" in greek[0] else greek[1].lower())


def _short(text: str) -> str:
    """In braces unless it is one character."""
    return text if len(text) == 1 else f"{{{text}}}"


def _cases(*rows: str) -> str:
    return r"\begin{cases} " + r" \\ ".join(rows) + r" \end{cases}"


WRITTEN: dict[str, Callable[..., str]] = {
    "letter": _letter,
    "word": r"\mathrm{{{}}}".format,
    "code": lambda text: rf"\texttt{{{''.join(ESCAPED.get(character, character) for character in text)}}}",
    "function": r"\{}".format,
    "number": lambda text: "".join(map(_sign, text)),
    "mark": "{}".format,
    "sign": lambda text: f" {_sign(text)} ",
    "minus": "-".format,
    "beside": r"\,".format,
    "times": r" \cdot ".format,
    "row": lambda *parts: "".join(parts),
    "list": lambda *parts: ", ".join(parts),
    "subscripts": lambda *parts: ",".join(parts),
    "below": lambda base, low: f"{base}_{_short(low)}",
    "both": lambda base, low, high: f"{base}_{_short(low)}^{_short(high)}",
    "raised": lambda base, high: f"{base}^{_short(high)}",
    "fraction": r"\frac{{{}}}{{{}}}".format,
    "root": r"\sqrt{{{}}}".format,
    "parentheses": "({})".format,
    "tall parentheses": r"\left({}\right)".format,
    "bars": r"\lvert {} \rvert".format,
    "norm": r"\lVert {} \rVert_{{{}}}".format,
    "sum": r"\sum_{{{}}} {}".format,
    "if": r"\text{{if }} {}".format,
    "otherwise": r"\text{{otherwise}}".format,
    "tall": r"\displaystyle {}".format,
    "case aside": "{} & {}".format,
    "case behind": r"{} \quad {}".format,
    "case below": r"{} \\ \quad {}".format,
    "cases": _cases,
    "line": lambda name, takes, value: f"{name} &{takes.strip()} {value}",
    "continued": r"&\quad{}".format,
    "aligned": lambda *rows: "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}",
}
