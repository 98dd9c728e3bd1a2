"""The formula of a rule as a section of its page: typeset, or as code where it is a function of whole leaves."""

from __future__ import annotations

from fallline._formula.notation.code import code
from fallline._formula.notation.latex import latex
from fallline._formula.notation.layout import typeset, typeset_rest
from fallline._formula.rule import Rule
from fallline._formula.trace import as_written

__all__ = ["formula"]

NOTATION = {
    "^+": r"A raised plus is a lower bound, so that nothing is divided by 0: $a^+ = \max(a, \mathrm{tiny})$; "
          r"and no moment becomes more than $10^6$ times what it is divided by.",
    r"\mathrm{tiny}": r"$\mathrm{tiny}$ is the smallest normal number of the dtype computed in.",
    r"^{\mathrm{old}}": "What is marked old is the state before the step.",
    r"_{\mathrm{leaf}}": "Norms and sums marked leaf are of one leaf, that is one array of the tree of parameters.",
    r"_{\mathrm{tree}}": "Norms and sums marked tree are of all leaves together.",
}  # fmt: skip

LISTED = (
    "This is its code, not a formula. Formulas on these pages are typeset from the code that is run, so that they "
    "cannot differ from it; a function of one whole leaf, with products of matrices or sums over rows and columns, is "
    "no formula over coordinates, and one typeset by hand could come to differ. It is run as it stands, in NumPy: it "
    "promises neither the same bits on every machine nor one pass through memory."
)


def formula(rule: Rule) -> list[str]:
    """Paragraphs of Markdown: the formula in a block, then what its signs mean."""
    if rule.whole_leaf:
        return [LISTED, f"```python\n{code(rule.formula)}\n```"]
    written = latex(typeset(rule))
    notation: list[str] = []
    for mark, text in NOTATION.items():
        if mark in written + "".join(notation):
            notation.append(text)
    t = ", $t$ the number of the step from 1" if "t" in rule.given else ""
    x = r", $\theta$ the parameter" if "x" in rule.given else ""
    alone = "" if as_written(rule).readings else ", each coordinate by itself"
    point = typeset_rest(rule)
    rest = [] if point is None else ["The array that is stepped is where gradients are taken. The point to report, "
                                     "`opt.rest(params)`, is", f"```math\n{latex(point)}\n```"]  # fmt: skip
    return [f"```math\n{written}\n```", " ".join([
        rf"$g$ is the gradient{x}{t}, $\Delta\theta$ what is added to the parameter. Lines are computed from the top"
        f"{alone}.", *notation]), *rest]  # fmt: skip
