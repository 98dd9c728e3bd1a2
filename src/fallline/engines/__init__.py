"""Ways to run a traced program: reference (NumPy), native (LLVM), eager (arrays of other libraries)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache

from fallline.engines.rows import Kernel, Row

__all__ = ["ENGINES", "Kernel", "Row", "host_engine"]

ENGINES = ("auto", "reference", "native", "eager")


def host_engine(wanted: str) -> tuple[str, str, Callable[..., Kernel]]:
    """The name of the engine for arrays in host memory, why it runs, and its kernels.

    Raises ImportError if "native" is asked for by name and llvmlite cannot be imported.
    """
    if wanted == "reference":
        from fallline.engines.reference import reference_kernel

        return "reference", "asked for", reference_kernel
    missing = _native_missing()
    if not missing:
        from fallline.engines.native import native_kernel

        return "native", "asked for" if wanted == "native" else "arrays in host memory", native_kernel
    if wanted == "native":
        raise ImportError(f'engine="native" needs llvmlite ({missing}): pip install llvmlite, or say engine="auto".')
    _warn_once(missing)
    return "reference", f"llvmlite is missing: {missing}", host_engine("reference")[2]


@lru_cache(maxsize=1)
def _native_missing() -> str:
    """Why the native engine cannot be had; empty if it can."""
    try:
        import fallline.engines.native  # noqa: F401
    except Exception as error:  # llvmlite raises OSError or RuntimeError where its library does not load
        return f"{type(error).__name__}: {error}"
    return ""


@lru_cache(maxsize=1)
def _warn_once(missing: str) -> None:
    warnings.warn(f"fallline runs its reference engine, which is slower: llvmlite cannot be imported ({missing}). "
                  "To have the native engine: pip install llvmlite.", stacklevel=5)
