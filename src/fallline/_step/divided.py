"""The leaves of a tree, divided among the parts of a partition."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fallline._arrays.leaves import as_number, detached, filled_like, is_number, mark_changed, view
from fallline._arrays.memory import address, byte_range, check_disjoint
from fallline._arrays.trees import Treedef, copy
from fallline._messages.values import brief
from fallline._step.binding import Bound, leaves_of
from fallline._step.host_run import detach

__all__ = ["Divided"]


class Divided:
    """The leaves of a tree, divided among parts: what a `Bound` is to a chain.

    `positions` are the leaves of each part, which sees a tree of the same structure with None in the place of others
    and so calls them by the same paths; `left` are those that no part steps.
    """

    def __init__(self, treedef: Treedef, paths: Sequence[str], positions: Mapping[str, list[int]], left: list[int]
                 ) -> None:
        self.treedef, self.paths, self.positions, self.left = treedef, paths, positions, left
        self._places = _index_arrays(positions)
        self._place = {k: (part, n) for part, own in positions.items() for n, k in enumerate(own)}
        self.bounds: dict[str, Bound] = {}
        self.fast: dict[str, Any] = {}  # no part steps alone: see `fastparts`
        self._apart: dict[str, list[Any]] = {}  # where the arrays of a call lay when last found to share nothing
        self._left_at: list[tuple[Any, ...]] = []  # of these, the parameters that no part steps, in a step

    def __getstate__(self) -> dict[str, Any]:
        # what is of this memory, or the parts' own, stays; index arrays are made anew, in memory of their own
        return self.__dict__ | {"bounds": {}, "_apart": {}, "_left_at": [], "_places": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _places=_index_arrays(state["positions"]))

    def tree(self, part: str, leaves: Sequence[Any]) -> Any:
        """The tree that a part sees."""
        seen: list[Any] = [None] * len(leaves)
        for k in self.positions[part]:
            seen[k] = leaves[k]
        return self.treedef.unflatten(seen)

    def leaves(self, tree: Any, what: str) -> list[Any]:
        """The leaves of a tree, checked as `Bound.leaves` does, but for those that no part steps."""
        leaves = leaves_of(self.treedef, tree, what)
        for part, own in self.positions.items():
            self.bounds[part].check_leaves([leaves[k] for k in own], what)
        return leaves

    def check_library(self, k: int, leaf: Any, what: str) -> None:
        """As `Bound.check_library` does."""
        if k in self._place:
            part, n = self._place[k]
            self.bounds[part].check_library(n, leaf, what)

    def name(self, k: int, what: str) -> str:
        """What messages call a leaf."""
        return f"{what} {self.paths[k]!r}" if self.paths[k] else what if what == "out" else f"the {what}"

    def rows(self, sums: Mapping[str, np.ndarray], width: int) -> np.ndarray:
        """Totals of all leaves, a row for each, from those of the leaves of each part."""
        rows = np.zeros((len(self.paths), width))
        for part, own in sums.items():
            rows[self._places[part], : own.shape[1]] = own
        return rows

    # ---- the short way -----------------------------------------------------------------------------------------------

    def short(self, tree: Any) -> Any:
        """The leaves of a tree that may be one like the last; None if it is not."""
        if self.treedef.spec is None:
            return [tree]
        try:
            return self.treedef.spec.flatten_up_to(tree)
        except (ValueError, TypeError, RuntimeError):
            return None

    def own(self, part: str, leaves: Sequence[Any]) -> Any:
        """The leaves of a part, as its short way takes them."""
        places = self.positions[part]
        return leaves[0] if self.treedef.spec is None else [leaves[k] for k in places]

    def lies_still(self, xs: Sequence[Any]) -> bool:
        """Whether parameters that no part steps lie where they lay when last found to share nothing."""
        return not self.left or self._layout(self._shared(self.left, xs)) == self._left_at

    # ---- what parts could do to each other ---------------------------------------------------------------------------

    def set_apart(self, into: str, xs: Sequence[Any] | None, gs: Sequence[Any], targets: Sequence[Any] | None
                  ) -> Sequence[Any]:
        """The gradients, copied where they share memory with what any part writes.

        Raises ValueError if parameters or outputs share memory, be they of one part or of several.
        """
        what = "parameter" if into == "x" else "out"
        left = set(self.left) if into == "x" else ()
        written = [] if targets is None else self._shared((k for k in range(len(targets)) if k not in left), targets)
        read = self._shared(left or range(len(xs)), xs) if targets is not None and xs is not None and (
            into != "x" or left) else []
        given = self._shared(self._place, gs)
        layout = self._layout((*written, *read, *given))
        if layout == self._apart.get(what):
            return gs
        check_disjoint([a for _, a in (*written, *read)],
                       [self.name(k, what) for k, _ in written] + [self.name(k, "parameter") for k, _ in read],
                       len(written))
        if into == "x":
            self._left_at = self._layout(read)
        ranges = [(*byte_range(a), a) for _, a in written]
        ranges += [r for bound in self.bounds.values() if not bound.foreign for r in bound.state_ranges]
        moved = {k for (k, a), b in zip(given, detach([a for _, a in given], ranges)) if b is not a}
        if not moved:
            self._apart[what] = layout
            return gs
        return [copy(g) if k in moved else g for k, g in enumerate(gs)]

    @staticmethod
    def _layout(leaves: Sequence[tuple[int, np.ndarray]]) -> list[tuple[Any, ...]]:
        """How arrays lie, by the numbers of their leaves."""
        return [(address(a), a.strides, a.shape, k) for k, a in leaves]

    @staticmethod
    def _shared(places: Any, leaves: Sequence[Any]) -> list[tuple[int, np.ndarray]]:
        """Those of the leaves at some places that lie in host memory, as arrays."""
        return [(k, array) for k in places if (array := _in_memory(leaves[k])) is not None]

    # ---- leaves that no part steps -----------------------------------------------------------------------------------

    def still(self, gs: Sequence[Any], targets: Sequence[Any] | None) -> list[Any]:
        """The increments of the leaves that no part steps, -0.0, among None for the others; outputs as they are, if
        they can be written."""
        result: list[Any] = [None] * len(gs) if targets is None else list(targets)
        for k in self.left:
            if targets is None:
                g = gs[k]
                result[k] = None if g is None else _zero(g)
            else:
                self._check_target(k, targets[k])
        return result

    def _check_target(self, k: int, leaf: Any) -> None:
        from array_api_compat import is_writeable_array

        if is_number(leaf) or not is_writeable_array(leaf):
            raise TypeError(f"{self.name(k, 'out')} must be an array that can be written. Got {brief(leaf)}.")

    def put_still(self, targets: Sequence[Any]) -> None:
        """Write the increments of the leaves that no part steps."""
        for k in self.left:
            detached(targets[k])[...] = _zero(targets[k])
        mark_changed([targets[k] for k in self.left])

    def merged(self, results: Mapping[str, Any], leaves: list[Any]) -> list[Any]:
        """All leaves, with those of the trees that parts gave in their places."""
        for part, tree in results.items():
            for k, leaf in zip(self.positions[part], self.bounds[part].treedef.flatten_like(tree, "", "")):
                leaves[k] = leaf
        return leaves


def _index_arrays(positions: Mapping[str, list[int]]) -> dict[str, np.ndarray]:
    return {part: np.array(own, np.intp) for part, own in positions.items()}


def _in_memory(leaf: Any) -> np.ndarray | None:
    """A leaf of any kind as the array whose memory it shares, if there is one."""
    if isinstance(leaf, np.ndarray):
        return view(leaf)
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(leaf, torch.Tensor):
        return None
    if leaf.device.type != "cpu" or leaf.layout is not torch.strided:
        return None
    try:
        return view(leaf)
    except TypeError:  # of a dtype that NumPy lacks, which no part steps
        return None


def _zero(leaf: Any) -> Any:
    zero = filled_like(detached(leaf), -0.0)
    return as_number(leaf, zero) if is_number(leaf) else zero
