"""State that is one number per leaf or for the tree, and the totals of a call: what scalars are made of besides
hyper-parameters and t."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fallline._engines.blocks import halved
from fallline._formula.program import StateName, Total

__all__ = ["Numbers", "totals_of"]


class Numbers:
    """The state slots that are one number, `by_slot`: live arrays (float64) of one, or of one for each leaf.

    `scopes` says for each slot what it is for; `starts` where it starts, leaf by leaf (or once).
    """

    def __init__(self, scopes: Mapping[str, str], starts: Mapping[str, Sequence[float]], leaves: int) -> None:
        self.tree = [slot for slot, over in scopes.items() if over == "tree"]
        self.leaf = [slot for slot, over in scopes.items() if over == "leaf"]
        self.by_slot = {slot: np.zeros(1 if slot in self.tree else leaves) for slot in (*self.tree, *self.leaf)}
        self.renew(starts)

    def copied(self) -> Numbers:
        """The same in memory of its own."""
        other = object.__new__(Numbers)
        other.__dict__.update(self.__dict__, by_slot={slot: np.array(own) for slot, own in self.by_slot.items()})
        return other

    def by_name(self) -> dict[str, Any]:
        """All by the names that programs have for them: a number, or one for each leaf."""
        return {StateName(f"state {slot}"): own.item() if slot in self.tree else own.tolist()
                for slot, own in self.by_slot.items()}

    def arrays(self) -> dict[str, list[np.ndarray]]:
        """Live 0-d arrays, by slot: one, or one for each leaf."""
        return {slot: [own[k : k + 1].reshape(()) for k in range(len(own))] for slot, own in self.by_slot.items()}

    def sources(self) -> dict[str, np.ndarray]:
        """`by_slot`, by the names that programs have for them."""
        return {StateName(f"state {slot}"): own for slot, own in self.by_slot.items()}

    def renew(self, new: Mapping[str, Sequence[float | None]]) -> None:
        """Take new values by slot; None leaves an old one."""
        for slot, numbers in new.items():
            for place, number in zip(range(len(self.by_slot[slot])), numbers):
                if number is not None:
                    self.by_slot[slot][place] = number


def totals_of(totals: Sequence[Total], by_leaf: np.ndarray, across: Sequence[float] = ()) -> dict[str, Any]:
    """The totals of a reading by name, from those of its leaves (in rows; 0 for leaves without a gradient) and, in
    order, from those ACROSS the trees of several; of an optimizer by itself there is one tree."""
    with np.errstate(over="ignore", invalid="ignore"):  # of squares that are scaled up, whose sum is of use if finite
        tree, given = halved(by_leaf), iter(across)
    return {total.name: by_leaf[:, k].tolist() if total.over == "leaf" else float(tree[k]) if total.over == "tree" else
            next(given, float(tree[k])) for k, total in enumerate(totals)}
