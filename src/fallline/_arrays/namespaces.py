"""The array namespace of whatever library an array is of."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["all_true", "any_true", "namespace"]


def namespace(*values: Any) -> Any:
    """The array namespace of the first value that is an array; None if all are numbers."""
    for a in values:
        if isinstance(a, (np.ndarray, np.generic)):
            return np
        if not isinstance(a, (int, float, complex)):
            from array_api_compat import array_namespace

            return array_namespace(a)
    return None


def all_true(array: Any) -> bool:
    """Whether all of an array of any library, which need not have methods for it, is true."""
    return bool((namespace(array) or np).all(array))


def any_true(array: Any) -> bool:
    """Whether any of an array of any library is true."""
    return bool((namespace(array) or np).any(array))
