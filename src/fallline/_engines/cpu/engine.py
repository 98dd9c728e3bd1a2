"""The native engine: kernels compiled by LLVM, each made once for what it depends on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from fallline._engines.llvm.compiler import compiled
from fallline._engines.llvm.kernel import kernel_ir
from fallline._engines.llvm.strided import strided_ir
from fallline._formula.program import Program

__all__ = ["is_made", "native_kernel"]

_made: set[Program] = set()


def native_kernel(program: Program, dtype: np.dtype, by_coordinate: tuple[int, ...], columns: Mapping[str, int],
                  strided: bool) -> int:
    """The address of the kernel of a program (see `kernel_ir`), for a job."""
    return _kernel(program, dtype, by_coordinate, tuple(columns.items()), strided)


def is_made(program: Program) -> bool:
    """Whether there is a kernel of a program already."""
    return program in _made


@cache
def _kernel(program: Program, dtype: np.dtype, by_coordinate: tuple[int, ...], columns: Any, strided: bool) -> int:
    _made.add(program)
    return _compiled((strided_ir if strided else kernel_ir)(program, dtype, by_coordinate, dict(columns)))


@cache  # programs that differ in their scalars only share a kernel
def _compiled(ir: str) -> int:
    return compiled(ir, "chunks")[0]
