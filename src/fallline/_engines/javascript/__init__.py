"""Programs as JavaScript, for browsers and Node: what IEEE 754 rounds exactly has there the bits of every other engine.

Formulas are of +, −, ·, /, √ and choices, which JavaScript computes in double precision, and in single where each
result is rounded by `Math.fround` (Figueroa 1995: of these operations double rounding is innocuous).
"""

from fallline._engines.javascript.writer import RUNTIME, literal, written

__all__ = ["RUNTIME", "literal", "written"]
