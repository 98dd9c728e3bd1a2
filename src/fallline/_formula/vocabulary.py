"""The words of formulas, and what to write for words of array libraries that are none."""

from __future__ import annotations

from fallline.errors import FormulaError

__all__ = ["VOCABULARY", "no_word"]

VOCABULARY = "+ - * /, comparison, sqrt abs sign maximum minimum where root total norm; for scalars also ** log exp"
_INSTEAD = {
    "sum": "total(...)", "add.reduce": "total(...)", "norm": "norm(...)", "dot": "total(a*b)",
    "vdot": "total(a*b)", "inner": "total(a*b)", "matmul": "total(a*b)", "@": "total(a*b)",
    "mean": "total(g)/total(0*g + 1)", "clip": "minimum(maximum(g, low), high)",
    "isnan": "g != g", "zeros_like": "0", "ones_like": "1",
    "copy": "g itself", "logical_and": "where(a, where(b, x, y), y)",
    "&": "where(a, where(b, x, y), y)", "logical_or": "where(a, x, where(b, x, y))",
    "|": "where(a, x, where(b, x, y))", "reciprocal": "1/g", "hypot": "sqrt(a*a + b*b)",
    "full_like": "the number itself", "%": "a schedule (for what t decides)", "//": "a schedule (for what t decides)",
}  # fmt: skip
_WHOLE = {
    "T", "amax", "amin", "argmax", "argmin", "argsort", "axis", "cumsum", "einsum", "max", "median", "min", "outer",
    "percentile", "quantile", "ravel", "reshape", "shape", "size", "sort", "std", "svd", "tensordot", "transpose",
    "var",
}  # fmt: skip


def no_word(name: str, shown: str) -> FormulaError:
    """The error for a word that is none, as it was written (`shown`).

    >>> no_word("sum", "np.sum").args[0].split(". ")[1]
    'Write total(...) in its place.'
    """
    instead = _INSTEAD.get(name, f"fallline's {name}" if name in VOCABULARY.split() else "")
    remedy = f" Write {instead} in its place." if instead else ""
    if name in _WHOLE:
        remedy = " What needs rows, columns or an order is a rule of whole leaves: rule(whole_leaf=True)."
    return FormulaError(f"{shown} is not in the vocabulary of formulas: {VOCABULARY}.{remedy}")
