"""The groups of an optimizer bound to a tree: which of them steps which leaf, and the plans of calls."""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fallline._arrays.leaves import as_number, detached, filled_like, in_memory, is_number, mark_changed
from fallline._arrays.memory import address, byte_range, check_disjoint, is_direct
from fallline._arrays.trees import Treedef, copy
from fallline._engines.blocks import halved
from fallline._engines.engine import native_missing, without_native
from fallline._formula.program import ACROSS, Program
from fallline._messages.values import brief
from fallline._step.calls.alone import Alone
from fallline._step.calls.host import HostCall
from fallline._step.calls.kernels import detach
from fallline._step.group import Group
from fallline._step.leaves import leaf_name, leaves_of
from fallline._step.numbers import totals_of
from fallline._step.plans import Plans

if TYPE_CHECKING:  # which needs llvmlite
    from fallline._step.look import Look
    from fallline._step.plan import Plan

__all__ = ["Binding"]

FEW, SMALL = 16, 50_000  # leaves and coordinates up to which NumPy steps sooner than a kernel is compiled


class Binding:
    """A tree's leaves, divided among groups.

    `positions` are the leaves of each group, which sees a tree of the same structure with None in the place of others
    and so calls them by the same paths; `left` are those that no group steps. `plans` has the plans of calls, and
    quick looks at the next one by what the last like it was: where results went, whether outputs were given, which
    groups only held. Where others have parts of the leaves, `shared` has what they know of these, by group, and
    `heads` how many coordinates of each leaf are of a block that begins elsewhere.
    """

    def __init__(self, treedef: Treedef, paths: Sequence[str], positions: Mapping[str, list[int]], left: list[int]
                 ) -> None:
        self.treedef, self.paths, self.positions, self.left = treedef, paths, positions, left
        self._places = _index_arrays(positions)
        self._place = {k: (part, n) for part, own in positions.items() for n, k in enumerate(own)}
        self._forget()

    @classmethod
    def of(cls, group: Group) -> Binding:
        """That of a group which steps all leaves of its tree."""
        binding = cls(group.treedef, group.paths, {"": list(range(len(group.paths)))}, [])
        binding.bind({"": group})
        return binding

    def _forget(self) -> None:
        self.groups: dict[str, Group] = {}
        self.plans = Plans()
        self.at_once = self.plans.at_once
        self._apart: dict[str, list[Any]] = {}  # where the arrays of a call lay when last found to share nothing
        self._left_at: list[tuple[Any, ...]] = []  # of these, the parameters that no group steps, in a step
        self._met: set[Any] = set()  # calls that were made cold
        self.shared: Any = None
        self.heads = [0] * len(self.paths)

    def __getstate__(self) -> dict[str, Any]:
        # what is of this memory, or the groups' own, stays; index arrays are made anew, in memory of their own
        return {name: getattr(self, name) for name in ("treedef", "paths", "positions", "left")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def bind(self, groups: Mapping[str, Group]) -> None:
        """Have these groups, each with the leaves at its positions."""
        self.groups = dict(groups)
        self._gathers, self._never = any(group.chain.gathers for group in groups.values()), (False,) * len(groups)
        for group in groups.values():
            group.follow(self.plans)

    def tree(self, part: str, leaves: Sequence[Any]) -> Any:
        """The tree that a group sees."""
        seen: list[Any] = [None] * len(leaves)
        for k in self.positions[part]:
            seen[k] = leaves[k]
        return self.treedef.unflatten(seen)

    def leaves(self, tree: Any, what: str) -> list[Any]:
        """The leaves of a tree of parameters, gradients or "out", checked against structure, shapes and dtypes, but for
        those that no group steps."""
        leaves = leaves_of(self.treedef, tree, what)
        for part in self.positions:
            self.groups[part].check_leaves(self.own(part, leaves), what)
        return leaves

    def own(self, part: str, leaves: Any) -> Any:
        """Those of the leaves that are a group's."""
        if leaves is None or len(self.positions[part]) == len(leaves):
            return leaves
        return [leaves[k] for k in self.positions[part]]

    def stepped(self) -> dict[str, None]:
        """The paths of the leaves that groups step, in order."""
        return {path: None for k, path in enumerate(self.paths) if k in self._place}

    def check_library(self, k: int, leaf: Any, what: str) -> None:
        """As `Group.check_library` does."""
        if k in self._place:
            part, n = self._place[k]
            self.groups[part].check_library(n, leaf, what)

    def name(self, k: int, what: str) -> str:
        """What messages call a leaf."""
        return leaf_name(self.paths[k], what)

    def rows(self, sums: Mapping[str, np.ndarray], width: int) -> np.ndarray:
        """Totals of all leaves, a row for each, from those of the leaves of each group."""
        rows = np.zeros((len(self.paths), width))
        for part, own in sums.items():
            rows[self._places[part], : own.shape[1]] = own
        return rows

    def prepare(self, calls: Mapping[str, Any], others: Alone) -> None:
        """Prepare calls that no plan runs, each with its own totals and with those of all, `others` included."""
        self._read(calls, {name: call.readings for name, call in calls.items()}, others)
        for call in calls.values():
            call.ahead()
        self._read(calls, {name: call.readings_behind for name, call in calls.items()}, others)
        for call in calls.values():
            call.prepare()

    def _read(self, calls: Mapping[str, Any], readings: Mapping[str, Sequence[Program]], others: Alone) -> None:
        """Have calls know the totals of these readings."""
        for level in range(max(map(len, readings.values()), default=0)):
            reading = {name: own[level] for name, own in readings.items() if level < len(own)}
            sums = self._sums(level, {name: (calls[name], own) for name, own in reading.items()}, list(calls), others)
            across = {name: own[:, [k for k, total in enumerate(reading[name].totals) if total.over == ACROSS]]
                      for name, own in sums.items()}
            of_all = halved(self.rows(across, max(own.shape[1] for own in across.values()))).tolist()
            for name, own in sums.items():
                calls[name].know(totals_of(reading[name].totals, own, of_all))

    def _sums(self, level: int, reading: Mapping[str, tuple[Any, Program]], order: Sequence[str], others: Alone
              ) -> dict[str, np.ndarray]:
        """The totals of readings, one of each of these calls: a row for each of its leaves."""
        blocks = {order.index(name): call.blocks(own, self.own(name, self.heads))
                  for name, (call, own) in reading.items() if isinstance(call, HostCall)}
        found = {order[n]: own.totals() for n, own in others.gather(level, blocks).items()}
        return {name: found[name] if name in found else call.read(own) for name, (call, own) in reading.items()}

    # ---- plans -------------------------------------------------------------------------------------------------------

    def look(self, into: str, has_out: bool) -> Look | None:
        """The quick look at a call that is like the last one."""
        looks = self.plans.looks
        if not looks:
            return None
        holds = tuple([group.holds() for group in self.groups.values()]) if self._gathers else self._never
        return looks.get((into, has_out, holds))

    def plan(self, calls: Mapping[str, Any]) -> Plan | None:
        """The plan of checked calls, with all leaves in place; None if the reference engine is to run them: because it
        was asked for, for what native code cannot do, or because they are cold."""
        host = [call for call in calls.values() if isinstance(call, HostCall) and call.group.engine.plans]
        if len(host) < len(calls) or not any(call.group.shapes for call in host):
            return None
        apart = any(len(call.live) < len(call.group.shapes) or call.group.missed.any() for call in host)
        if apart and any(call.group.numbers.leaf for call in host):
            return None  # numbers of a leaf that is absent stay as they are
        if apart:
            self.plans.keep_apart()  # others take it that all leaves have taken all steps
        if self._is_cold(host) or not self._has_native():
            return None
        from fallline._step.plan import Plan
        from fallline._step.table import Member, Table, Way

        groups = list(calls)
        members = tuple(Member(groups.index(part), n, k, self._lies(calls[part], n))
                        for k, (part, n) in sorted(self._place.items()))
        if any(not m.lies for m in members):
            return None
        way = Way(host[0].into, host[0].writes_out, tuple(call.holds for call in host), members, apart)
        plan = self.plans.made.get(way)
        if plan is None:
            table = Table([call.group for call in host], [call.program for call in host], way, len(self.paths))
            plan = Plan(table, [self.heads[m.place] for m in members])
            self.plans.made[way] = plan
        for k, m in enumerate(members):
            plan.table.place(k, host[m.group].placed(m.own))
        return plan

    def _has_native(self) -> bool:
        missing = native_missing()
        for group in self.groups.values() if missing else ():
            group.engine = without_native(missing)
        return not missing

    def _is_cold(self, calls: Sequence[HostCall]) -> bool:
        """Whether these calls are small and the first like them: NumPy is then done before a kernel is compiled."""
        way = (calls[0].into, tuple(call.holds for call in calls))
        if way in self._met or any(call.group.wanted != "auto" for call in calls):
            return False
        self._met.add(way)
        return self.is_small() and not _is_compiled(calls)

    def is_small(self) -> bool:
        """Whether a step is done in a fraction of a millisecond."""
        shapes = [shape for group in self.groups.values() for shape in group.shapes]
        return len(shapes) <= FEW and sum(math.prod(shape) for shape in shapes) <= SMALL

    @staticmethod
    def _lies(call: HostCall, n: int) -> str:
        """How the arrays of a leaf lie, with its state; nothing if native code cannot read them."""
        arrays = [array for array in call.placed(n).values() if array is not None]
        if not all(array.flags.aligned and array.dtype.isnative for array in arrays):
            call.group.relay(n, None)
            return ""
        if all(map(is_direct, arrays)):
            call.group.relay(n, None)
            return "plain"
        order = call.order(n)
        if order is None or any(not a.transpose(order).flags.c_contiguous for a in arrays):
            call.group.relay(n, None)
            return "strided"
        call.group.relay(n, order)
        return "turned"

    def watch(self, plan: Plan, trees: Sequence[Any], taken: np.ndarray, settled: bool) -> None:
        """Have the next call looked at quickly if it could be like this one, with its leaves, parameters, gradients and
        outputs (None: none), where they lie; they lay there before if they are `settled`."""
        from fallline._engines.cpu.guard import readable
        from fallline._step.look import Look, can_look

        look = self.plans.pop(plan.way)
        if not settled and plan.way.into != "x":
            return
        if look is not None and look.plan is plan:
            look.settle(trees[0])
            self.plans.put(look)
            return
        xs, gs, outs = trees
        reads = "x" in {name for program in plan.table.programs for name in program.reads} or plan.way.into == "x"
        gathers = any(group.chain.gathers for group in plan.groups)  # what is absent may have gathered something before
        only_all = plan.way.into != "x" or gathers
        if (xs is not None) != reads or not readable() or (only_all and plan.way.apart) or (
                plan.way.into != "x" and (self.left or any(plan.way.holds))):
            return  # nor where increments are nothing, which nobody writes
        dtypes = {m.place: plan.groups[m.group].dtypes[m.own] for m in plan.way.members}
        given = [(leaf, dtype) for tree in trees if tree is not None for place, dtype in dtypes.items()
                 if (leaf := tree[place]) is not None]
        if not all(can_look(leaf, dtype) for leaf, dtype in given):
            return
        if plan.way.into != "x" and any(type(leaf) is not np.ndarray for leaf, _ in given):
            return  # new increments are arrays
        this = weakref.ref(self)  # and not itself: a cycle would keep a dropped optimizer's state for a while
        left = (lambda xs: this().lies_still(xs)) if self.left else None  # type: ignore[union-attr]
        self.plans.put(Look(plan, self.treedef, xs, gs, outs, taken, left))

    def lies_still(self, xs: Sequence[Any]) -> bool:
        """Whether parameters that no group steps lie where they lay when last found to share nothing."""
        return self._layout(self._shared(self.left, xs)) == self._left_at

    # ---- what groups could do to each other --------------------------------------------------------------------------

    def set_apart(self, into: str, xs: Sequence[Any] | None, gs: Sequence[Any], targets: Sequence[Any] | None
                  ) -> Sequence[Any]:
        """The gradients, copied where they share memory with what any group writes.

        Raises ValueError if parameters or outputs share memory, be they of one group or of several.
        """
        if len(self.groups) == 1 and not self.left:
            return gs  # which that one sees to
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
        ranges += [r for group in self.groups.values() for r in group.state_ranges]
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
        return [(k, array) for k in places if (array := in_memory(leaves[k])) is not None]

    # ---- leaves that no group steps ----------------------------------------------------------------------------------

    def still(self, gs: Sequence[Any], targets: Sequence[Any] | None) -> list[Any]:
        """The increments of the leaves that no group steps, -0.0, among None for the others; outputs as they are, if
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
        """Write the increments of the leaves that no group steps."""
        for k in self.left:
            detached(targets[k])[...] = _zero(targets[k])
        mark_changed([targets[k] for k in self.left])

    def joined(self, trees: Mapping[str, Any], leaves: list[Any]) -> Any:
        """A tree of the leaves of each group's own, in a tree such as it sees, and these for the others."""
        own = {part: self.groups[part].treedef.flatten_like(tree, "", "") for part, tree in trees.items()}
        return self.treedef.unflatten(self.merged(own, leaves))

    def merged(self, results: Mapping[str, Sequence[Any] | None], leaves: list[Any]) -> list[Any]:
        """All leaves, with those that groups gave in their places."""
        for part, own in results.items():
            for k, leaf in zip(self.positions[part], own or ()):
                leaves[k] = leaf
        return leaves


def _is_compiled(calls: Sequence[HostCall]) -> bool:
    """Whether the kernels of these calls are there already."""
    if "fallline._engines.cpu.engine" not in sys.modules:
        return False
    from fallline._engines.cpu.engine import is_made

    return all(is_made(call.program) for call in calls)


def _index_arrays(positions: Mapping[str, list[int]]) -> dict[str, np.ndarray]:
    return {part: np.array(own, np.intp) for part, own in positions.items()}


def _zero(leaf: Any) -> Any:
    zero = filled_like(detached(leaf), -0.0)
    return as_number(leaf, zero) if is_number(leaf) else zero
