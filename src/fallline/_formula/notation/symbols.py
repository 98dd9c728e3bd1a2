"""Names as symbols: `beta1` is β with a 1 below, `v_max` v with max below, `lr` η."""

from __future__ import annotations

import re
import unicodedata

from fallline._formula.notation.boxes import NAME, Box, word
from fallline._formula.program import INCREMENT

__all__ = ["symbol"]

OWN = {"lr": "η", "eps": "ε", "momentum": "μ", "velocity": "v", "weight_decay": "λ", "x": "θ", "trust": "τ",
       INCREMENT: "Δθ"}  # fmt: skip
LETTERS = ("alpha", "beta", "gamma", "delta", "eta", "rho", "theta", "lambda", "mu")
BELOW = {"max": Box("function", ("max",)), "min": Box("function", ("min",)), "inf": Box("letter", ("∞",)),
         "plus": Box("mark", ("+",)), "minus": Box("mark", ("-",))}  # fmt: skip


def symbol(name: str) -> Box:
    r"""The symbol for a state slot, a hyper-parameter or a local name of a formula.

    >>> from fallline._formula.notation.latex import latex
    >>> names = "beta1", "v_max", "lr", "ρ_inf", "eta_plus", "x0", "size", "beta3_warmup"
    >>> print(*(latex(symbol(name)) for name in names))
    \beta_1 v_{\max} \eta \rho_{\infty} \eta_+ \theta_0 \mathit{size} \beta_{3,\mathrm{warmup}}
    """
    if name in OWN:
        return Box("letter", (OWN[name],))
    first, *rest = name.split("_")
    if first in ("min", "max") and rest:  # min_rate
        first, rest = rest[0], [*rest[1:], first]
    letters, digits = re.fullmatch(r"(.*?)(\d*)", first).groups()  # type: ignore[union-attr]
    below = [*([Box("number", (digits,))] if digits else []), *(BELOW.get(part) or word(part) for part in rest)]
    base = Box("letter", (_base(letters),))
    return Box("below", (base, Box("subscripts", tuple(below))), NAME) if below else base


def _base(letters: str) -> str:
    if letters in OWN:
        return OWN[letters]
    greek = letters.replace("lambda", "lamda")  # as Unicode spells it
    return unicodedata.lookup(f"GREEK SMALL LETTER {greek}") if letters in LETTERS else letters
