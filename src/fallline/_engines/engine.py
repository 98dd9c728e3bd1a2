"""The engines: who steps a group of leaves, and what is said of it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from fallline._engines import reference
from fallline._engines.rows import Row
from fallline._formula.program import Program
from fallline._messages.warned import warn

__all__ = ["ENGINES", "Engine", "KernelOf", "Wish", "chosen", "native_missing", "without_native"]

KernelOf = Callable[[Program, np.dtype, tuple[int, ...]], Callable[[Row], None]]
"""Gives the kernel of a program for leaves stored in a dtype, some of whose scalars, by place, differ by coordinate."""


class Engine(NamedTuple):
    """Who steps leaves, and why; `opt.engine` says both.

    in_memory: whether it steps arrays in host memory, and has their state there; else state is of the leaves' library.
    plans: whether it makes a plan of a call that it keeps for calls like it (`_step.plan`); else calls run themselves.
    kernel_of: what runs calls without a plan, of leaves in host memory.
    """

    name: str
    why: str
    in_memory: bool = True
    plans: bool = False
    kernel_of: KernelOf = reference.kernel_of

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


class Wish(NamedTuple):
    """What is known where an engine is chosen: the one that was asked for, the library of the leaves if they lie
    elsewhere than in host memory, and the rule if it is a function of whole leaves."""

    engine: str
    elsewhere: str = ""
    whole_leaf: str = ""


def chosen(wish: Wish) -> Engine:
    """The engine for leaves that it can take.

    Raises ImportError if "native" is asked for by name and llvmlite cannot be imported.
    """
    if wish.elsewhere or wish.engine == "eager":
        return _eager(wish)
    if wish.whole_leaf:
        return Engine("numpy", f"{wish.whole_leaf} is a function of whole leaves")
    return ENGINES[wish.engine](wish)


def _eager(wish: Wish) -> Engine:
    compiled = ", by a compiled program" if wish.elsewhere == "jax" else ""
    why = "asked for" if wish.engine == "eager" else f"arrays of {wish.elsewhere}{compiled}"
    return Engine("eager", why, in_memory=False)


def _named(name: str, wish: Wish) -> Engine:
    """The engine whose `kernel_of` is in the module, or folder, of its name here, loaded once it is asked for."""
    return Engine(name, "asked for", kernel_of=importlib.import_module(f"fallline._engines.{name}").kernel_of)


def _native(wish: Wish) -> Engine:
    if missing := native_missing():
        raise ImportError(f'engine="native" needs llvmlite ({missing}): pip install llvmlite, or say engine="auto".')
    return Engine("native", "asked for", plans=True)


def _auto(wish: Wish) -> Engine:
    """The native one; LLVM is not loaded before there is something to compile."""
    if not _is_installed():
        return without_native(native_missing())
    return Engine("native", "arrays in host memory", plans=True)


ENGINES: dict[str, Callable[[Wish], Engine]] = {
    "auto": _auto,
    "reference": partial(_named, "reference"),
    "native": _native,
    "eager": _eager,
}
"""What can be asked for."""


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
    except (ImportError, OSError, RuntimeError) as error:  # of the latter two where its library does not load
        return f"{type(error).__name__}: {error}"
    return ""


def without_native(missing: str) -> Engine:
    """The engine where the native one cannot be had, with a warning the first time."""
    _warn_once(missing)
    return Engine("reference", f"llvmlite is missing: {missing}")


@lru_cache(maxsize=1)
def _warn_once(missing: str) -> None:
    warn(f"fallline runs its reference engine, which is slower: llvmlite cannot be imported ({missing}). "
         "To have the native engine: pip install llvmlite.")
