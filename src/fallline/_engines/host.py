"""Which engine runs programs on arrays in host memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fallline._engines.rows import Kernel, Row

__all__ = ["ENGINES", "HostEngine", "host_engine"]

ENGINES = ("auto", "reference", "native", "eager")


class HostEngine(NamedTuple):
    """An engine for arrays in host memory."""

    name: str
    why: str  # it runs
    kernel: Callable[..., Kernel]  # of (program, dtype of the parameters, columns)
    run: Callable[[Sequence[tuple[Kernel, list[Row]]], int, np.ndarray | None], bool]
    """of (kernels with rows, threads, count) -> whether it was one call that nothing can interrupt, and was counted"""
    all_finite: Callable[[Sequence[np.ndarray], int], bool]  # of (arrays, threads)


def host_engine(wanted: str) -> HostEngine:
    """The engine for arrays in host memory.

    Raises ImportError if "native" is asked for by name and llvmlite cannot be imported.
    """
    if wanted == "reference":
        from fallline._engines.reference import all_finite, reference_kernel, reference_run

        return HostEngine("reference", "asked for", reference_kernel, reference_run, all_finite)
    missing = _native_missing()
    if not missing:
        from fallline._engines.cpu.engine import native_all_finite, native_kernel, native_run

        why = "asked for" if wanted == "native" else "arrays in host memory"
        return HostEngine("native", why, native_kernel, native_run, native_all_finite)
    if wanted == "native":
        raise ImportError(f'engine="native" needs llvmlite ({missing}): pip install llvmlite, or say engine="auto".')
    _warn_once(missing)
    return host_engine("reference")._replace(why=f"llvmlite is missing: {missing}")


@lru_cache(maxsize=1)
def _native_missing() -> str:
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
