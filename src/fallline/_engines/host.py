"""Which engine runs programs on arrays in host memory."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from functools import lru_cache

__all__ = ["ENGINES", "host_engine", "native_missing", "without_native"]

ENGINES = ("auto", "reference", "native", "eager")


def host_engine(wanted: str) -> tuple[bool, str]:
    """Whether the native engine is to run on arrays in host memory, and what to say of it.

    LLVM is not loaded before there is something to compile, unless it is asked for by name.

    Raises ImportError if "native" is asked for by name and llvmlite cannot be imported.
    """
    if wanted == "reference":
        return False, "reference: asked for"
    missing = native_missing() if wanted == "native" or not _is_installed() else ""
    if missing and wanted == "native":
        raise ImportError(f'engine="native" needs llvmlite ({missing}): pip install llvmlite, or say engine="auto".')
    if missing:
        return False, without_native(missing)
    return True, f"native: {'asked for' if wanted == 'native' else 'arrays in host memory'}"


def without_native(missing: str) -> str:
    """What to say of the engine where the native one cannot be had, with a warning the first time."""
    _warn_once(missing)
    return f"reference: llvmlite is missing: {missing}"


@lru_cache(maxsize=1)
def _is_installed() -> bool:
    if "llvmlite" in sys.modules:
        return sys.modules["llvmlite"] is not None
    return importlib.util.find_spec("llvmlite") is not None


@lru_cache(maxsize=1)
def native_missing() -> str:
    """Why the native engine cannot be had; empty if it can."""
    try:
        import fallline._engines.cpu.engine  # noqa: F401
    except Exception as error:  # llvmlite raises OSError or RuntimeError where its library does not load
        return f"{type(error).__name__}: {error}"
    return ""


@lru_cache(maxsize=1)
def _warn_once(missing: str) -> None:
    warnings.warn(f"fallline runs its reference engine, which is slower: llvmlite cannot be imported ({missing}). "
                  "To have the native engine: pip install llvmlite.", stacklevel=5)
