"""The short way for a call like the last one: plain arrays of one dtype where they lay before, native engine.

Whatever is unlike the last call in any respect is noticed before anything is changed, and the call then goes the long
way (`HostCall`), which alone knows what to say about it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fallline.engines.gather import ALIGNED, COMPARE, CONTIGUOUS, FIELDS, TAKE, WRITEABLE, functions
from fallline.engines.jobs import JOB
from fallline.engines.work import Job
from fallline.memory import address, byte_range
from fallline.trace import INCREMENT, Program

__all__ = ["FastStep"]


class FastStep:
    """A step or update prepared for parameters at these addresses; only gradients and scalars are read anew."""

    def __init__(self, program: Program, kernel: Any, shapes: Sequence[tuple[int, ...]], dtype: np.dtype,
                 arrays: Mapping[str, Sequence[np.ndarray]], checks_finite: bool) -> None:
        names = program.arrays
        column = {name: place for place, name in enumerate(names, 1)}
        self.shapes, self.dtype = shapes, dtype
        self.program = program
        self.reads_x = "x" in column
        self._scalars = program.numbers
        self._job = Job(kernel.chunks, [math.prod(shape) for shape in shapes], len(names) + 2)
        self._constants = np.zeros(max(1, len(program.scalars)), dtype)
        for name, leaves in arrays.items():
            self._job.table[:, column[name]] = [address(a) for a in leaves]
        self._memory = memoryview(self._constants)  # type: ignore[arg-type]
        self._job.table[:, -1] = address(self._constants)
        self._job.check(column["g"] if checks_finite else None, dtype)
        self._run = self._job.prepared()
        self._pack = struct.Struct(f"{len(program.scalars)}{'f' if dtype.itemsize == 4 else 'd'}").pack_into
        self._tiny = float(np.finfo(dtype).tiny)
        self._kept = arrays  # while their addresses are in the table
        self.where = [address(a) for name in ("x", INCREMENT) for a in arrays.get(name, ())]
        self._steps = program.outputs[0][0] == "x"
        self._find_ranges([a for name, leaves in arrays.items() if name != "x" or self._steps for a in leaves])
        self._prepare_check(column)

    def _find_ranges(self, written: Sequence[np.ndarray]) -> None:
        """Where the step writes, sorted, for the comparison with gradients."""
        ranges = sorted(byte_range(a) for a in written if a.size)
        self._starts = np.array([low for low, _ in ranges], np.int64)
        self._furthest = np.array([high for _, high in ranges], np.int64)
        np.maximum.accumulate(self._furthest, out=self._furthest)

    def _prepare_check(self, column: Mapping[str, int]) -> None:
        """What the native check compares with."""
        n, width = self._job.table.shape
        self._dims = [np.array(shape or (0,), np.int64) for shape in self.shapes]
        self._expected = np.array([[id(self.dtype), len(shape), address(dims)]
                                   for shape, dims in zip(self.shapes, self._dims)], np.int64).reshape(n, 3)
        plain, kind, table = CONTIGUOUS | ALIGNED, id(np.ndarray), address(self._job.table)
        known = {"n": n, "type": kind, "expected": address(self._expected), "table": table, "width": width,
                 "itemsize": self.dtype.itemsize, "x": column.get("x", 0),
                 "x_flags": plain | (WRITEABLE if self._steps else 0), "g": column["g"],
                 "starts": address(self._starts), "furthest": address(self._furthest), "ranges": len(self._starts)}
        self._fields = np.array([known[name] for name in FIELDS], np.int64)
        self._known = address(self._fields)
        self._like_out = (n, known["expected"], plain | WRITEABLE, kind, table, width, column.get(INCREMENT, 0))
        self._gather, self._fits = functions()

    def fits(self, xs: list[Any] | None, gs: list[Any], outs: list[Any] | None) -> bool:
        """Whether parameters and outputs lie where they lay, and the gradients are plain arrays that lie apart."""
        if outs is not None and self._gather(id(outs), *self._like_out, COMPARE):
            return False
        return not self._fits(self._known, id(xs), id(gs))

    def set_scalars(self, values: Sequence[Any], t: int) -> bool:
        """Evaluate the program's scalars for step t into what the kernel reads; False if the dtype cannot hold them."""
        try:
            scalars = self._scalars(t, self._tiny, *values)
        except (ArithmeticError, ValueError):
            scalars = self.program.evaluate(values, t, self._tiny)
        try:
            self._pack(self._memory, 0, *scalars)
        except OverflowError:
            return False
        return True

    def fresh(self) -> list[np.ndarray]:
        """New arrays for the increments."""
        outs = [np.empty(shape, self.dtype) for shape in self.shapes]
        self._gather(id(outs), *self._like_out, TAKE)
        return outs

    def arm(self, t: int) -> None:
        """Remember the count before a run, so that an interrupt around it leaves no doubt."""
        self.t = t
        self._job.fields[JOB["done"]] = 0

    def run(self) -> bool:
        """Run it; False if a gradient is not finite and so nothing was done."""
        return not self._run()

    @property
    def done(self) -> bool:
        """Whether the last run did its work."""
        return bool(self._job.fields[JOB["done"]])
