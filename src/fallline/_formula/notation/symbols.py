"""Names as LaTeX: `beta1` is \\beta_1, `v_max` v_{\\max}, `lr` \\eta."""

from __future__ import annotations

import re
import unicodedata

from fallline._formula.program import INCREMENT

__all__ = ["symbol"]

OWN = {"lr": r"\eta", "eps": r"\varepsilon", "momentum": r"\mu", "velocity": "v", "weight_decay": r"\lambda",
       "x": r"\theta", "trust": r"\tau", INCREMENT: r"\Delta\theta"}  # fmt: skip
LETTERS = ("alpha", "beta", "gamma", "delta", "eta", "rho", "theta", "lambda", "mu")
BELOW = {"max": r"\max", "min": r"\min", "inf": r"\infty", "plus": "+", "minus": "-"}


def symbol(name: str) -> str:
    r"""The symbol for a state slot, a hyper-parameter or a local name of a formula.

    >>> print(*map(symbol, ("beta1", "v_max", "lr", "ρ_inf", "eta_plus", "x0", "size", "beta3_warmup")))
    \beta_1 v_{\max} \eta \rho_{\infty} \eta_+ \theta_0 \mathit{size} \beta_{3,\mathrm{warmup}}
    """
    if name in OWN:
        return OWN[name]
    first, *rest = name.split("_")
    if first in ("min", "max") and rest:  # min_rate
        first, rest = rest[0], [*rest[1:], first]
    letters, digits = re.fullmatch(r"(.*?)(\d*)", first).groups()  # type: ignore[union-attr]
    below = [*([digits] if digits else []), *(BELOW.get(part) or rf"\mathrm{{{part}}}" for part in rest)]
    inner = ",".join(below)
    return _base(letters) + (f"_{inner}" if len(inner) == 1 else f"_{{{inner}}}" if inner else "")


def _base(letters: str) -> str:
    if letters in OWN:
        return OWN[letters]
    if letters in LETTERS:
        return f"\\{letters}"
    if len(letters) == 1 and letters.isascii():
        return letters
    greek = re.fullmatch(r"GREEK SMALL LETTER (\w+)", unicodedata.name(letters, "") if len(letters) == 1 else "")
    return f"\\{greek[1].lower()}" if greek else rf"\mathit{{{letters}}}"
