"""Warnings that point at the line of who called, whatever of fallline, or of who calls it in between, lies before."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]

BETWEEN = ("fallline", "scipy", "torch")  # SciPy calls its methods, torch wraps `step`


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """`warnings.warn`, of the first caller outside of all that.

    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn("It is small.")
    >>> caught[0].category.__name__, str(caught[0].message)
    ('UserWarning', 'It is small.')
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
