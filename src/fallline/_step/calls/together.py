"""Leaves that are tensors of torch, of which it does an operation on all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fallline._arrays.batches import Batch, norms, put_all, without_graph
from fallline._arrays.dtypes import kept
from fallline._arrays.leaves import is_tensor
from fallline._engines.array_api import run_eagerly
from fallline._formula.program import Program
from fallline._formula.words import SCALES
from fallline._step.calls.each import Each

if TYPE_CHECKING:
    from fallline._step.calls.array import ArrayCall

__all__ = ["Together", "bunches"]


def bunches(call: ArrayCall, leaves: Sequence[int], program: Program) -> list[Together]:
    """Those of the leaves that are tensors, in bunches that a program takes with the same numbers."""
    group, found = call.group, dict[Any, list[int]]()
    for k in leaves:
        leaf, dtype = call.like[k], group.dtypes[k]
        if not is_tensor(leaf) or not is_tensor(call.gs[k]) or kept(dtype) != dtype or dtype.kind == "c":
            continue
        scalars = group.scalars(program, k, call.t, call.memo)
        if not any(isinstance(s, np.ndarray) and s.ndim for s in scalars):  # values by coordinate
            found.setdefault((leaf.device, dtype.name, tuple(map(float, scalars))), []).append(k)
    return [Together(ks) for ks in found.values() if len(ks) > 1]


class Together:
    """Some leaves of a call, as `Each` has them."""

    def __init__(self, leaves: list[int]) -> None:
        self.leaves = leaves

    def totals(self, call: ArrayCall, reading: Program) -> np.ndarray:
        """As `Each.totals`; those of squares of all together if torch can say them."""
        if all(total.kind in SCALES for total in reading.totals):
            values = self._made(call, reading)
            found = {id(batch): norms(batch) for batch in values.values()}  # once for one, whatever it is scaled by
            each = [(found[id(values[total.name])], SCALES[total.kind]) for total in reading.totals]
            with np.errstate(over="ignore", under="ignore"):
                squares = [np.square(np.multiply(own, scale)) for own, scale in each if own is not None]
            if len(squares) == len(each):
                return np.transpose(squares)
        return Each(self.leaves).totals(call, reading)

    def prepare(self, call: ArrayCall, program: Program) -> None:
        """As `Each.prepare`."""
        self._new = self._made(call, program)

    def run(self, call: ArrayCall) -> list[Any]:
        """As `Each.run`."""
        state = call.group.state
        for slot in self._new.keys() & state.keys():
            put_all([state[slot][k] for k in self.leaves], self._new[slot].tensors)
        if call.holds:
            return [None] * len(self.leaves)
        found = self._new[call.into].tensors
        if call.targets is None:
            return found
        targets = [call.targets[k] for k in self.leaves]
        put_all(targets, found)
        return targets

    def _made(self, call: ArrayCall, program: Program) -> dict[str, Batch]:
        """What a program makes of the leaves, by name."""
        group = call.group
        arrays = {"g": Batch([call.gs[k] for k in self.leaves]),
                  **{slot: Batch([values[k] for k in self.leaves]) for slot, values in group.state.items()}}
        if "x" in program.inputs:
            arrays["x"] = Batch([call.like[k] for k in self.leaves])
        scalars = map(float, group.scalars(program, self.leaves[0], call.t, call.memo))
        with without_graph(), np.errstate(all="ignore"):
            return run_eagerly(program, arrays, list(scalars))
