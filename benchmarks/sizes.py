"""What is stepped: the shapes of each table, by the name that pages and bars use."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["MANY", "ONE", "SIZES", "Shapes", "count"]

Shapes = Sequence[tuple[int, ...]]

ONE: dict[str, Shapes] = {
    "1 x 100": [(100,)], "1 x 1e4": [(10**4,)], "1 x 1e5": [(10**5,)], "1 x 1e6": [(10**6,)], "1 x 1e7": [(10**7,)],
    "1 x 1e8": [(10**8,)],
}  # fmt: skip
MANY: dict[str, Shapes] = {
    "1,000 x 100": [(100,)] * 1000, "1,000 x 10,000": [(10**4,)] * 1000,
    "transformer": [(512, 512)] * 48 + [(512, 2048), (2048, 512)] * 6 + [(512,)] * 90,
}  # fmt: skip
SIZES: dict[str, Shapes] = {**ONE, **MANY}


def count(shapes: Shapes) -> int:
    """How many coordinates there are.

    >>> count([(2, 3), ()])
    7
    """
    return sum(math.prod(shape) for shape in shapes)
