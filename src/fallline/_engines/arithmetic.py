"""IEEE arithmetic as it should be, whatever another library has set for this thread."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

__all__ = ["is_standard", "pinned"]


class pinned:  # noqa: N801  to be used as what contextlib makes, in a third of the time
    """Within, rounding is to nearest and subnormal numbers are numbers (torch.set_flush_denormal makes them 0).

    On Windows nothing is changed; compiled kernels see to it themselves on every system.

    >>> with pinned():
    ...     5e-324 * 1.0
    5e-324
    """

    def __enter__(self) -> None:
        self._system = None if is_standard() else _environment()
        if self._system is not None:
            library, default = self._system
            self._found = ctypes.create_string_buffer(256)  # larger than any system's fenv_t
            library.fegetenv(self._found)
            library.fesetenv(default)

    def __exit__(self, *error: object) -> None:
        if self._system is not None:
            self._system[0].fesetenv(self._found)


_ONE, _TINY, _SUBNORMAL = 1.0, 2.0**-1022, 2.0**-1074


def is_standard() -> bool:
    """Whether it is so anyway, which takes a tenth of the time to find out that it takes to set it."""
    return (_SUBNORMAL > 0 and _TINY / 2 > 0  # subnormal operands, subnormal results
            and _ONE + 2.0**-54 == _ONE < _ONE + 1.5 * 2.0**-53)  # rounded neither up nor down  # fmt: skip


@cache
def _environment() -> tuple[Any, Any] | None:
    """The C library, and where its default floating-point environment stands; None if that is not known."""
    if sys.platform not in ("linux", "darwin"):
        return None
    library = ctypes.CDLL(None)
    default = ctypes.c_void_p(-1) if sys.platform == "linux" else ctypes.byref(
        ctypes.c_char.in_dll(library, "_FE_DFL_ENV"))  # fmt: skip
    return library, default
