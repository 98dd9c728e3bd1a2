"""The vocabulary of formulas, as public names; `fallline` itself has them too.

>>> from fallline.ops import maximum
>>> maximum(1.0, 2.0)
2.0
"""

from fallline._formula.words import abs, exp, kept, log, maximum, minimum, norm, root, sign, sqrt, tiny, total, where

__all__ = ["abs", "exp", "kept", "log", "maximum", "minimum", "norm", "root", "sign", "sqrt", "tiny", "total", "where"]
