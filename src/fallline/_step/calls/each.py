"""Leaves of any library of arrays, one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fallline._arrays.dtypes import kept
from fallline._arrays.leaves import as_number, detached, is_number, joined, like, split, widened
from fallline._engines.array_api import reduced, run_eagerly
from fallline._formula.program import Program

if TYPE_CHECKING:
    from fallline._step.calls.array import ArrayCall

__all__ = ["Each", "put", "writable"]


class Each:
    """Some leaves of a call; see `ArrayCall` for the order in which it is asked. All is computed before it is put."""

    def __init__(self, leaves: list[int]) -> None:
        self.leaves = leaves

    def totals(self, call: ArrayCall, reading: Program) -> np.ndarray:
        """The totals of a reading, with a row for each leaf."""
        rows = np.zeros((len(self.leaves), len(reading.totals)))
        for row, k in zip(rows, self.leaves):
            values = self._computed(call, reading, k)
            row[:] = [reduced(values[total.name], total.kind) for total in reading.totals]
        return rows

    def prepare(self, call: ArrayCall, program: Program) -> None:
        """Have all that `run` puts in place."""
        self._new = [self._made(call, program, k) for k in self.leaves]

    def run(self, call: ArrayCall) -> list[Any]:
        """Put new state and results in place; what comes back for each leaf."""
        state = call.group.state
        for k, new in zip(self.leaves, self._new):
            for slot in new.keys() & state.keys():
                state[slot][k] = put(state[slot][k], new[slot])
        return [call.put(k, new.get(call.into)) for k, new in zip(self.leaves, self._new)]

    def _made(self, call: ArrayCall, program: Program, k: int) -> dict[str, Any]:
        dtype = call.group.dtypes[k]
        new = self._computed(call, program, k)
        with np.errstate(all="ignore"):
            return {name: joined(value, dtype if name == call.into else kept(dtype))
                    for name, value in new.items()}

    def _computed(self, call: ArrayCall, program: Program, k: int) -> Mapping[str, Any]:
        group = call.group
        g = split(widened(call.gs[k]))
        arrays = {"g": g, **{slot: split(values[k]) for slot, values in group.state.items()}}
        if "x" in program.inputs:
            arrays["x"] = split(widened(detached(call.like[k])))
        both = (..., None) if group.dtypes[k].kind == "c" else ...  # parts have the coordinate's setting
        scalars = group.scalars(program, k, call.t, call.memo)
        values = [like(g, s[both]) if isinstance(s, np.ndarray) and s.ndim else float(s) for s in scalars]
        with np.errstate(all="ignore"):
            return run_eagerly(program, arrays, values)


def writable(leaf: Any) -> bool:
    """Whether a leaf is an array that can be written."""
    from array_api_compat import is_writeable_array

    return not is_number(leaf) and is_writeable_array(leaf)


def put(old: Any, new: Any) -> Any:
    """The new values in the old array if it can be written, else the new array."""
    if is_number(old):
        return as_number(old, new)
    if not writable(old):
        return new
    detached(old)[...] = new  # no part of the user's graph, but a tensor's version counter moves
    return old
