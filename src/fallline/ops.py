"""The vocabulary of formulas, as public names; `fallline` itself has them too.

>>> from fallline.ops import maximum
>>> maximum(1.0, 2.0)
2.0
"""

from typing import Any

from fallline._formula.vocabulary import no_word
from fallline._formula.words import abs, exp, kept, log, maximum, minimum, norm, root, sign, sqrt, tiny, total, where

__all__ = ["abs", "exp", "kept", "log", "maximum", "minimum", "norm", "root", "sign", "sqrt", "tiny", "total", "where"]


def __getattr__(name: str) -> Any:
    raise AttributeError(no_word(name, f"fallline.ops.{name}").args[0], name=name)
