"""How numbers lie in memory, in LLVM's words, and how those of 16 bits become floats and floats become them.

By operations on integers: LLVM's own conversions flush subnormals, or crash, on processors that lack them or have them
only in part. To nearest, ties to even; what is too large becomes infinite; NaN stays NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fallline._arrays.dtypes import DTYPES, computed

__all__ = ["FLOATS", "STORED", "Stored", "conversions", "load", "store"]

FLOATS = {"float32": ("float", "f32"), "float64": ("double", "f64")}
"""The types that are computed in, and what names of intrinsics call them."""


class Stored(NamedTuple):
    """How a dtype is stored: the type that is loaded and stored, the integers of its size, and the bits of infinity."""

    type: str
    whole: str
    infinity: int

    @property
    def size(self) -> int:
        """Of a number, in bytes."""
        return int(self.whole[1:]) // 8

    @property
    def magnitude(self) -> int:
        """All bits but the sign's. Numbers that are not finite are those of infinity's magnitude or more."""
        return (1 << 8 * self.size - 1) - 1


STORED = {
    "float16": Stored("i16", "i16", 0x7C00),
    "bfloat16": Stored("i16", "i16", 0x7F80),
    "float32": Stored("float", "i32", 0x7F800000),
    "float64": Stored("double", "i64", 0x7FF0000000000000),
}


def load(value: str, pointer: str, stored: Stored, real: str) -> str:
    """Load a number into %value, as `real`."""
    if stored.type == real:
        return f"{value} = load {real}, ptr {pointer}, align {stored.size}"
    return (f"{value}.bits = load {stored.type}, ptr {pointer}, align {stored.size}\n"
            f"  {value} = call {real} @widen({stored.type} {value}.bits)")


def store(value: str, pointer: str, stored: Stored, real: str) -> str:
    """Store the `real` %value."""
    if stored.type == real:
        return f"store {real} {value}, ptr {pointer}, align {stored.size}"
    return (f"{pointer}.bits = call {stored.type} @narrow({real} {value})\n"
            f"  store {stored.type} {pointer}.bits, ptr {pointer}, align {stored.size}")


def conversions(dtype: np.dtype) -> str:
    """The functions `widen` and `narrow` of a dtype that is not computed in itself, else nothing."""
    return "" if computed(dtype) == dtype else _CONVERSIONS[dtype.name]


_CONVERSIONS = {
    "bfloat16": """
define internal float @widen(i16 %h) alwaysinline {
  %z = zext i16 %h to i32
  %bits = shl i32 %z, 16
  %f = bitcast i32 %bits to float
  ret float %f
}
define internal i16 @narrow(float %f) alwaysinline {
  %bits = bitcast float %f to i32
  %high = lshr i32 %bits, 16
  %odd = and i32 %high, 1
  %half = add i32 %odd, 32767
  %up = add i32 %bits, %half
  %rounded = lshr i32 %up, 16
  %sign = and i32 %high, 32768
  %nan = or i32 %sign, 32704
  %is_nan = fcmp uno float %f, %f
  %chosen = select i1 %is_nan, i32 %nan, i32 %rounded
  %h = trunc i32 %chosen to i16
  ret i16 %h
}""",
    # exponents differ by 112. A subnormal half is a whole number of 2**-24, the unit in the last place of 0.5
    "float16": """
define internal float @widen(i16 %h) alwaysinline {
  %z = zext i16 %h to i32
  %size = and i32 %z, 32767
  %signed = and i32 %z, 32768
  %sign = shl i32 %signed, 16
  %shifted = shl i32 %size, 13
  %normal = add i32 %shifted, 939524096
  %infinite = add i32 %shifted, 1879048192
  %is_infinite = icmp uge i32 %size, 31744
  %large = select i1 %is_infinite, i32 %infinite, i32 %normal
  %units = sitofp i32 %size to float
  %product = fmul float %units, 0x3E70000000000000
  %small = bitcast float %product to i32
  %is_small = icmp ult i32 %size, 1024
  %magnitude = select i1 %is_small, i32 %small, i32 %large
  %bits = or i32 %sign, %magnitude
  %f = bitcast i32 %bits to float
  ret float %f
}
define internal i16 @narrow(float %f) alwaysinline {
  %bits = bitcast float %f to i32
  %size = and i32 %bits, 2147483647
  %high = lshr i32 %bits, 16
  %sign = and i32 %high, 32768
  %last = lshr i32 %size, 13
  %odd = and i32 %last, 1
  %half = add i32 %odd, 4095
  %up = add i32 %size, %half
  %cut = lshr i32 %up, 13
  %biased = sub i32 %cut, 114688
  %fits = icmp ult i32 %biased, 31744
  %normal = select i1 %fits, i32 %biased, i32 31744
  %absolute = bitcast i32 %size to float
  %sum = fadd float %absolute, 0.5
  %sum.bits = bitcast float %sum to i32
  %units = sub i32 %sum.bits, 1056964608
  %is_small = icmp ult i32 %size, 947912704
  %finite = select i1 %is_small, i32 %units, i32 %normal
  %is_nan = icmp ugt i32 %size, 2139095040
  %magnitude = select i1 %is_nan, i32 32256, i32 %finite
  %signed = or i32 %sign, %magnitude
  %h = trunc i32 %signed to i16
  ret i16 %h
}""",
}

if _LACKING := [row.name for row in DTYPES.values() if row.real not in STORED or row.computed not in FLOATS
                or (row.real != row.computed and row.real not in _CONVERSIONS)]:  # fmt: skip
    raise NotImplementedError(f"{__name__} says nothing of {', '.join(_LACKING)}, which the table of dtypes has.")
