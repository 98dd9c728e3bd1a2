"""A call on leaves in host memory: what is given is checked; it runs by a plan, or by kernels of its engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from fallline._arrays.dtypes import real, reals, whole
from fallline._arrays.leaves import as_number, host, is_number, mark_changed, new_like, non_finite, view
from fallline._arrays.libraries import reading
from fallline._arrays.memory import address, byte_range, check_disjoint
from fallline._engines.blocks import Blocks, block_count
from fallline._engines.reference import all_finite
from fallline._engines.threads import num_threads
from fallline._formula.program import INCREMENT, Program
from fallline._step.calls.kernels import Leaf, detach, read, run, values
from fallline._step.group import Group

__all__ = ["HostCall"]


class HostCall:
    """One step or update of a group: what is given is checked at once; nothing is changed until `run`.

    Before that it is to `arrange` its arrays, to `find_non_finite`, to `ask` for what the step depends on, to `read`
    and `know` the totals of its `readings` in their order, and to `prepare`; or a `Plan` runs it, and it only has to
    `finish`. `targets` are the leaves to write: the parameters, or those of `out`, or None for new arrays. A program
    that does not give what it is to go `into` ("x" or INCREMENT) only holds the state of the chain. Settings of its
    `own` stand for the group's.
    """

    def __init__(self, group: Group, program: Program, into: str, xs: Sequence[Any] | None, gs: Sequence[Any],
                 targets: Sequence[Any] | None, own: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.group, self.program, self._targets, self._gs, self._xs = group, program, targets, gs, xs
        self._settings = {**group.settings, **own}  # what a schedule sets counts from the next call on
        self.into, self.holds = into, into not in dict(program.outputs)
        self.settled = targets is None  # whether the arrays written lie where they lay at the last call
        self.live = [k for k, g in enumerate(gs) if g is not None]
        self._g = [self._gradient(k) for k in self.live]
        self._x = [] if xs is None else [reals(view(x)) for x in xs]
        if targets is not None:
            self._check_targets(targets)
        self.threads = group.threads or num_threads()  # asked for now: an error must not come half-way

    def _gradient(self, k: int) -> np.ndarray:
        g, dtype = self._gs[k], self.group.dtypes[k]
        if type(g) is np.ndarray and g.dtype is dtype:
            return g
        with reading(g, self.group.name(k, "gradient")):
            array = host(g)
        if array.dtype == dtype and array.flags.aligned:  # and so in this machine's byte order
            return array
        with np.errstate(all="ignore"):  # what overflows is judged as a gradient that is not finite
            return array.astype(dtype)

    def _check_targets(self, targets: Sequence[Any]) -> None:
        what = "parameter" if self.into == "x" else "out"
        views = self._x if self.into == "x" else [reals(view(leaf)) for leaf in targets]
        written = []
        for k, (leaf, array) in enumerate(zip(targets, views)):
            if not is_number(leaf):
                written.append((array, k, what))
                if not array.flags.writeable:
                    raise ValueError(f"{self.group.name(k, what)} is read-only and cannot be written: pass a copy, or "
                                     "add the increment yourself: w = w + opt.update(g).")
            elif what == "out":
                raise TypeError(f"{self.group.name(k, what)} must be an array that can be written. Got {leaf!r}.")
        read = [(x, k, "parameter") for k, x in enumerate(self._x)] if what == "out" else []
        layout = [(address(array), array.strides, k, what) for array, k, what in written + read]
        self.settled = layout == self.group.disjoint.get(what)
        if not self.settled:
            check_disjoint([a for a, _, _ in written + read],
                           [self.group.name(k, what) for _, k, what in written + read], len(written))
            self.group.disjoint[what] = layout

    @property
    def writes_out(self) -> bool:
        """Whether outputs were given to be written."""
        return self.into != "x" and self._targets is not None

    def find_non_finite(self) -> list[tuple[str, str]]:
        """The paths of gradients with numbers that are not finite, and what they are."""
        if not self.group.checks_finite or all_finite(list(map(reals, self._g))):
            return []
        return [(self.group.paths[k], kinds) for k, g in zip(self.live, self._g) if (kinds := non_finite(g))]

    def ask(self, t: int) -> None:
        """Have what the step depends on after t completed steps; schedules are asked.

        Raises ValueError if one of them resized an array of the call.
        """
        self.t = t
        self.memo = self.group.ask(self.program.settings, self.live, t, self._arrays(), self._settings)

    @property
    def gradients(self) -> list[tuple[int, np.ndarray]]:
        """Those that were given, by the number of the leaf, with what was gathered of them before."""
        return [*zip(self.live, self._g), *self.group.gathered()]

    def _arrays(self) -> list[Any]:
        """All that was given."""
        return [*self._gs, *(self._xs or ()), *(self._targets or ())]

    def arrange(self) -> None:
        """Have the arrays to write and to read: state that begins, new increments, gradients apart from both."""
        self._new: dict[int, Any] = {}
        self.group.begin(self.live, self._orders())
        self._out = {} if self.holds else {k: self._destination(k) for k in self.live}
        written = [*((*byte_range(a), a) for a in self._out.values()), *self.group.state_ranges]
        self._gradients = dict(zip(self.live, detach(list(map(reals, self._g)), written)))

    def _orders(self) -> dict[int, tuple[int, ...]]:
        """In which order the axes of leaves lie in memory that are not in C's, for state that lies so too."""
        return {k: order for k in self.live if (order := self.order(k)) is not None}

    def order(self, k: int) -> tuple[int, ...] | None:
        """The order of the axes, outermost first, of a dense parameter, or gradient, that is not in C's; None where a
        chain sums, which it does in that."""
        return None if self.group.sums else _order_of(view((self._xs or self._gs)[k]))

    def _destination(self, k: int) -> np.ndarray:
        """The array that leaf k's result is written to."""
        if self.into == "x":
            return self._x[k]
        if self._targets is not None:
            return reals(view(self._targets[k]))
        self._new[k] = new_like(self._gs[k], self.group.shapes[k], self.group.dtypes[k], self.group.orders[k])
        return reals(view(self._new[k]))

    def arrays(self, k: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """The gradient, parameter and output of leaf k, as reals, checked once more: arrays were when the call began,
        and since then code of others ran, that of a gradient's library too."""
        g, out = self._gradients[k], self._out.get(k)
        x = out if self.into == "x" and out is not None else self._x[k] if self._x else None
        shape = self.group.shapes[k] + ((2,) if self.group.dtypes[k].kind == "c" else ())
        wanted = ((g, "gradient"), (x, "parameter"), (out, "out"))
        for array, what in wanted:
            if array is not None and array.shape != shape:
                raise ValueError(f"{self.group.name(k, what)} must have the shape {self.group.shapes[k]} all through "
                                 f"the call. Got {array.shape[: array.ndim - len(shape) + len(self.group.shapes[k])]}.")
        return g, x, out

    def placed(self, k: int) -> dict[str, np.ndarray | None]:
        """The same by name, of a leaf without a gradient too."""
        if k in self._gradients:
            return dict(zip(("g", "x", INCREMENT), self.arrays(k)))
        return {"g": None, "x": self._x[k] if self._x else None, INCREMENT: None}

    # ---- without a plan ----------------------------------------------------------------------------------------------

    @property
    def readings(self) -> Sequence[Program]:
        """The programs whose totals are to be known before it can be prepared."""
        return self.program.readings

    @property
    def readings_behind(self) -> Sequence[Program]:
        """Those that can be read once it has gone `ahead` only."""
        return ()

    def ahead(self) -> None:
        """Compute what is to be there before the totals `readings_behind` are."""

    def blocks(self, reading: Program, heads: Sequence[int]) -> Blocks:
        """The sums of one of the readings, but for blocks that begin elsewhere: those of as many coordinates at the
        head of each leaf."""
        counts = [block_count(max(self.group.reals(k) - head, 0)) for k, head in enumerate(heads)]
        found = Blocks.of(counts, len(reading.totals))
        with np.errstate(all="ignore"):
            leaves = {k: self._leaf(reading, k) for k in self.live}
        for k, leaf in leaves.items():
            read(reading, leaf, self.group.engine.kernel_of, heads[k], found.leaf(k))
        return found

    def values(self, reading: Program, k: int, part: slice) -> np.ndarray:
        """What one of the readings sums of a part of leaf k, by coordinate."""
        with np.errstate(all="ignore"):
            return values(reading, self._leaf(reading, k), part)

    def know(self, totals: Mapping[str, Any]) -> None:
        """Take the totals of a reading by name: a number, or one for each leaf."""
        self.memo["numbers"] |= totals

    def prepare(self) -> None:
        """Find the scalars; raises what the step could raise."""
        with np.errstate(all="ignore"):
            self._leaves = [self._leaf(self.program, k) for k in self.live]
            self._numbers = self.group.new_numbers(self.program, self.live, self.t, self.memo)

    def _leaf(self, program: Program, k: int) -> Leaf:
        """Leaf k's arrays, and its scalars in the computed dtype."""
        g, x, out = self.arrays(k)
        own: dict[str, Any] = {"g": g, "x": x, INCREMENT: out}
        arrays = tuple(own[n] if n in own else reals(self.group.state[n][k]) for n in program.arrays)
        constants, columns = self.scalars(program, k, g.shape)
        return Leaf(arrays, self._stored(k), constants, columns)

    def scalars(self, program: Program, k: int, shape: tuple[int, ...]) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """The program's scalars for leaf k in the dtype computed in, and those that differ by coordinate, by place."""
        scalars, dtype = self.group.scalars(program, k, self.t, self.memo), self.group.computed[k]
        key = (id(scalars), dtype)  # leaves that share an evaluation share its constants
        if key in self.memo:
            return self.memo[key], {}
        both = (..., None) if self.group.dtypes[k].kind == "c" else ...  # parts have the coordinate's setting
        columns = {i: np.ascontiguousarray(np.broadcast_to(np.asarray(s, dtype)[both], shape))
                   for i, s in enumerate(scalars) if isinstance(s, np.ndarray) and s.ndim}
        constants = np.array([0.0 if i in columns else s for i, s in enumerate(scalars)], dtype)
        if not columns:
            self.memo[key] = constants
        return constants, columns

    def _stored(self, k: int) -> np.dtype:
        """The dtype of leaf k's arrays that the program reads and writes, but for the state."""
        return real(self.group.dtypes[k])

    def run(self) -> list[Any] | None:
        """Run the program and count that; see `finish`."""
        run(self.program, self._leaves, self.group.engine.kernel_of)
        self.group.numbers.renew(self._numbers)
        if not self.holds:
            self.group.count += 1
            self.group.took(self._gs)
        if self.notes:
            self.note()
        return self.finish()

    @property
    def notes(self) -> bool:
        """Whether there is something to `note` once it is done."""
        return self.group.notes(self._gs)

    def note(self) -> None:
        """See `Group.note`."""
        self.group.note(self._gs, self.holds)

    # ---- once it is done ---------------------------------------------------------------------------------------------

    def finish(self) -> list[Any] | None:
        """The leaves that come back: new increments, or numbers in the place of those that cannot be written; None if
        all were written where they lie."""
        if self.holds:
            return None if self.into == "x" else self.nothing()
        if self._targets is None:
            return self._increments()
        mark_changed([self._targets[k] for k in self._out])
        if self.into == INCREMENT:
            _zero([leaf for k, leaf in enumerate(self._targets) if k not in self._out])
        if not any(map(is_number, self._targets)):
            return None
        return [as_number(leaf, whole(self._out[k], self.group.dtypes[k])) if is_number(leaf) and k in self._out
                else leaf for k, leaf in enumerate(self._targets)]

    def nothing(self) -> list[Any] | None:
        """The increments of a call that was skipped."""
        if self._targets is not None:
            _zero(self._targets)
            return None
        self._new = {k: new_like(self._gs[k], self.group.shapes[k], self.group.dtypes[k]) for k in self.live}
        _zero(list(self._new.values()))
        return self._increments()

    def _increments(self) -> list[Any]:
        """New increments; numbers where the gradients are."""
        return [g if g is None else as_number(g, self._new[k]) if is_number(g) else self._new[k]
                for k, g in enumerate(self._gs)]


def _order_of(array: np.ndarray) -> tuple[int, ...] | None:
    """The order of the axes, outermost first, of an array that is dense but not in C's order; None for others."""
    if array.flags.c_contiguous or array.dtype.kind == "c" or not array.flags.aligned:
        return None
    order = tuple(sorted(range(array.ndim), key=lambda j: -array.strides[j]))
    return order if array.transpose(order).flags.c_contiguous else None


def _zero(leaves: Sequence[Any]) -> None:
    for leaf in leaves:
        reals(view(leaf))[...] = -0.0
    mark_changed(leaves)
