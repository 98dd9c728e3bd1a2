"""The formula of a rule as a section of its page: typeset, or as code where it is a function of whole leaves."""

from __future__ import annotations

from fallline._formula.notation.code import code
from fallline._formula.notation.latex import latex
from fallline._formula.notation.layout import typeset, typeset_rest
from fallline._formula.rule import Rule
from fallline._formula.trace import as_written

__all__ = ["formula"]

NOTATION = {
    "^+": r"A raised plus is a lower bound, so that nothing is divided by 0: $a^+ = \max(a, \mathrm{tiny})$. "
          r"It also keeps quotients of moments below $10^6$.",
    r"\mathrm{tiny}": r"$\mathrm{tiny}$ is the smallest normal number of the compute dtype.",
    r"^{\mathrm{old}}": "Symbols marked old are the state before the step.",
    r"_{\mathrm{leaf}}": "Norms and sums marked leaf are over one leaf, that is one array of the parameters' tree.",
    r"_{\mathrm{tree}}": "Norms and sums marked tree are over all leaves together.",
}  # fmt: skip

LISTED = (
    "This is its code, not a formula. Formulas on these pages are typeset from the code that runs, so they cannot "
    "differ from it. A function of a whole leaf, with matrix products or sums over rows and columns, is no formula "
    "over coordinates, and a formula typeset by hand could come to differ. NumPy runs the code as it is: it promises "
    "neither the same bits on every machine nor one pass through memory."
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
    t = ", $t$ the step number, from 1" if "t" in rule.given else ""
    x = r", $\theta$ the parameter" if "x" in rule.given else ""
    alone = "" if as_written(rule).readings else ", for each coordinate by itself"
    point = typeset_rest(rule)
    rest = [] if point is None else ["Take gradients at the stepped array. The point to report, `opt.rest(params)`, is",
                                     f"```math\n{latex(point)}\n```"]  # fmt: skip
    return [f"```math\n{written}\n```", " ".join([
        rf"$g$ is the gradient{x}{t}, $\Delta\theta$ the increment of the parameter. Lines are computed from top to "
        f"bottom{alone}.", *notation]), *rest]  # fmt: skip
