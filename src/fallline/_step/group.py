"""A chain bound to the leaves that it steps: their names, shapes and dtypes, state and step counts."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fallline._arrays.dtypes import kept
from fallline._arrays.leaves import detached, dtype_name, filled_like, is_complex, is_jax, owned, widened
from fallline._arrays.memory import arena, byte_range, places
from fallline._engines.engine import Engine, Wish, chosen
from fallline._engines.options import Options
from fallline._formula.chain import Chain
from fallline._formula.program import Computed, Program
from fallline._step.leaves import Leaves
from fallline._step.numbers import Numbers
from fallline._step.plans import Plans
from fallline._step.values import by_coordinate, by_leaf, evaluate, first_state, of_leaf, value_of

__all__ = ["Group"]

# of a Group, what is of this process and its memory, or another's that has it
_HERE_ONLY = ("count", "_settings", "given", "state_ranges", "_plans", "disjoint", "_forms", "prepared")


class Group(Leaves):
    """Leaves by name, shape and dtype, the state of each, and how often each was stepped.

    It is made for the first call, from the parameters or gradients (`like`; `what` messages call its leaves), and kept
    once that call has succeeded. `count`, an array of one int64, holds the completed steps; `plans` are those that
    step its leaves, to be forgotten when they no longer hold.
    """

    def __init__(self, chain: Chain, settings: Mapping[str, Any], like: Any, what: str, options: Options,
                 count: np.ndarray) -> None:
        self.chain, self.threads, self.count, self.wanted = chain, options.threads, count, options.engine
        self.checks_finite = options.nonfinite != "propagate"
        self._directory = options.state_dir
        leaves, kinds = self.know(like, what)
        self.step_by(self._chosen(leaves, kinds, what), leaves)
        self.missed = np.zeros(len(leaves), np.int64)  # steps that a leaf did not take, having no gradient
        self.absent = np.zeros(len(leaves), np.int64)  # of the calls gathered, those in which it had none
        self.follow(Plans())
        self.prepared: dict[Any, Any] = {}  # of calls of JAX, what was compiled for the last that were like it
        self.is_shown = False  # whether somebody else may have the arrays of state that this one has
        self.disjoint: dict[str, list[Any]] = {}  # where "parameter"s and "out"s lay when last found not to overlap
        self._settings: dict[str, Any] = {}
        self.given: Mapping[str, Any] = {}
        self.resolve(settings)
        starts = {slot: [self._started(start, k) for k in range(len(leaves))]
                  for slot, start in chain.starts().items()}
        scopes = chain.scopes()
        self.numbers = Numbers(scopes, {slot: starts.pop(slot) for slot in scopes}, len(leaves))
        with np.errstate(over="ignore"):  # what is too large for the dtype is refused
            starts = {slot: list(map(self._start, values, self.computed)) for slot, values in starts.items()}
        self.state_ranges: list[tuple[int, int, np.ndarray]] = []
        if not self.engine.in_memory:
            self.state = {slot: [filled_like(widened(detached(leaf)), start) for leaf, start in zip(leaves, values)]
                          for slot, values in starts.items()}
        else:
            self.state = {slot: list(map(self._unbegun, [slot] * len(leaves), range(len(leaves)), values))
                          for slot, values in starts.items()}
            self._begun = [False] * len(leaves)
        self.orders: list[Sequence[int] | None] = [None] * len(leaves)  # of the axes of state, outermost first; C's

    def _chosen(self, leaves: Sequence[Any], kinds: Sequence[str], what: str) -> Engine:
        """The engine for these leaves; raises TypeError for those that the wanted one, or the rule, cannot take."""
        elsewhere = leaves[kinds.index("foreign")] if "foreign" in kinds else None
        if elsewhere is not None and self.wanted not in ("auto", "eager"):
            raise TypeError(f'engine={self.wanted!r} runs on arrays in host memory (NumPy, torch CPU tensors). '
                            f"Got {type(elsewhere).__name__}: use engine=\"auto\".")
        rule = self.chain.owner(self.chain.rule_name) if self.chain.rule.whole_leaf else ""
        root = type(leaves[0]).__module__.split(".")[0].removesuffix("lib") if leaves else ""  # jaxlib is JAX
        engine = chosen(Wish(self.wanted, root if elsewhere is not None else "", rule))
        if not engine.in_memory and self._directory is not None:
            raise TypeError("state_dir is for arrays in host memory (NumPy, torch CPU tensors). "
                            f"Got {type(leaves[0]).__name__}.")
        if rule:
            self._refuse_for_whole_leaves(leaves, what, rule, engine)
        return engine

    def _refuse_for_whole_leaves(self, leaves: Sequence[Any], what: str, rule: str, engine: Engine) -> None:
        """Refuse what a rule of whole leaves, a function of NumPy's arrays, cannot take."""
        if not engine.in_memory:
            got = 'engine="eager"' if self.wanted == "eager" else type(leaves[0]).__name__
            of_jax = any(map(is_jax, leaves))
            remedy = ": step np.array(parameter), or inside jit, by fallline.optax.transform" if of_jax else ""
            raise TypeError(f"{rule} is a function of whole leaves in host memory (NumPy, torch CPU tensors). "
                            f"Got {got}{remedy}.")
        for k, leaf in enumerate(leaves):
            if is_complex(leaf):
                raise TypeError(f"{self.name(k, what)} must be real, as {rule} is a function of whole leaves. "
                                f"Got {dtype_name(leaf)}.")

    def follow(self, plans: Plans) -> None:
        """Have plans forget or take over what changes here. They are another's, lest a cycle keep the state of an
        optimizer for a while that is dropped."""
        self._plans = weakref.ref(plans)

    @property
    def plans(self) -> Plans:
        """Those that step its leaves."""
        return self._plans() or Plans()

    # ---- state -------------------------------------------------------------------------------------------------------

    def _unbegun(self, slot: str, k: int, start: Any) -> np.ndarray:
        """The state of a leaf that has had no gradient, as it starts: an array that takes no memory."""
        own = np.empty(np.shape(start), kept(self.dtypes[k]))
        _fill(own, start)
        return np.broadcast_to(own, self.chain.shape(slot, self.shapes[k]))

    def begin(self, leaves: Sequence[int], order: Mapping[int, Sequence[int]] | None = None) -> None:
        """Have the state of these leaves in memory that can be written, all of a dtype in one run of it.

        `order` says of some leaves in which order their axes lie in memory, outermost first; C's if nothing is said.
        """
        new = [k for k in leaves if not self._begun[k]]
        for k in new:
            self.orders[k] = (order or {}).get(k)
            self._begun[k] = True
        if not new or not self.state:
            return
        names = [(slot, k) for slot in self.state for k in new]
        old = [self.state[slot][k] for slot, k in names]
        axes = [self.orders[k] if a.shape == self.shapes[k] else None for (_, k), a in zip(names, old)]
        shapes = [a.shape if own is None else tuple(a.shape[j] for j in own) for a, own in zip(old, axes)]
        arenas, placed = arena(shapes, [a.dtype for a in old], self._directory)
        for (slot, k), start, array, own in zip(names, old, placed, axes):
            array = array if own is None else array.transpose(np.argsort(own))
            if any(start.strides) or (start.size and start.flat[0] != 0):  # else pages that need not be filled
                array[...] = start
            self.state[slot][k] = array
        self.state_ranges += [(*byte_range(a), a) for a in arenas if a.size]
        self.plans.look_anew()  # which know where state lies

    @property
    def sums(self) -> bool:
        """Whether the chain sums over leaf or tree."""
        return any(program.readings for program in self.chain.programs)

    def has_begun(self, k: int) -> bool:
        """Whether the state of a leaf is in memory of its own, having had a gradient."""
        return self._begun[k]

    def relay(self, k: int, order: Sequence[int] | None) -> None:
        """Have the state of a leaf lie in this order of the axes, outermost first (None: C's)."""
        if self.orders[k] == order:
            return
        self.orders[k] = order
        for arrays in self.state.values() if self._begun[k] else ():
            array = arrays[k]
            axes = tuple(range(array.ndim)) if order is None or array.shape != self.shapes[k] else tuple(order)
            if not array.transpose(axes).flags.c_contiguous:
                arrays[k] = np.array(array.transpose(axes), order="C").transpose(np.argsort(axes))
                self.state_ranges.append((*byte_range(arrays[k]), arrays[k]))
                self.plans.clear()  # which know where it lay

    def keep_apart(self) -> None:
        """Have no array of JAX in the state that somebody else may have: a step takes over their memory."""
        if self.is_shown:
            self.state = {slot: [owned(array) if is_jax(array) else array for array in arrays]
                          for slot, arrays in self.state.items()}
            self.is_shown = False

    # ---- carried elsewhere ---

    def apart(self) -> Group:
        """The same in memory of its own, to be copied or pickled: who has it may read it when this one has stepped on.

        It steps only once it is `settle`d.
        """
        other = self.aside()
        other.state = {slot: list(map(owned, arrays)) for slot, arrays in self.state.items()}
        other.orders = list(self.orders)
        other.missed, other.absent, other.numbers = self.missed.copy(), self.absent.copy(), self.numbers.copied()
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in _HERE_ONLY}

    def __deepcopy__(self, memo: Any) -> Group:
        return self  # one that is `apart`: nobody else has it

    def settle(self, count: np.ndarray, settings: Mapping[str, Any]) -> None:
        """Go on with that count and these settings, here, after `apart`.

        Whatever brought it may have its arrays in memory that is not to be written, or is gone later: they are copied.
        """
        self.count = count
        self.missed, self.absent, self.numbers = np.array(self.missed), np.array(self.absent), self.numbers.copied()
        self.dtypes = [np.dtype(dtype.type) for dtype in self.dtypes]  # NumPy's own, known by identity
        self.follow(Plans())
        self.disjoint, self.state_ranges, self._forms, self.prepared = {}, [], {}, {}
        self._settings, self.given = {}, {}
        self.resolve(settings)
        if not self.engine.in_memory:
            self.state = {slot: list(map(owned, arrays)) for slot, arrays in self.state.items()}
        else:
            begun = [k for k, has in enumerate(self._begun) if has]
            self._begun = [False] * len(self._begun)
            self.begin(begun)
            if self.engine.plans:
                self.engine = chosen(Wish(self.wanted))

    def aside(self) -> Group:
        """The same, state and counts included, whose settings the optimizer's own assignments do not reach."""
        other = object.__new__(Group)
        other.__dict__.update(self.__dict__)
        return other

    # ---- calls that do not step ---

    def holds(self) -> bool:
        """Whether the coming call only gathers its gradient (see `rules.accumulate`)."""
        gathers = self.chain.gathers
        if gathers is None:
            return False
        return bool(self.numbers.by_slot[gathers.calls][0] + 1 < self._setting(gathers.n, 0))

    def gathered_calls(self) -> int:
        """The calls that did not step, since the last that did."""
        return 0 if self.chain.gathers is None else int(self.numbers.by_slot[self.chain.gathers.calls][0])

    def gathered(self) -> list[tuple[int, Any]]:
        """The mean of what was gathered of the gradients before the coming call, by the number of the leaf."""
        if self.chain.gathers is None:
            return []
        total = float(self.numbers.by_slot[self.chain.gathers.total][0]) or 1.0
        return [(k, array / total) for k, array in enumerate(self.state[self.chain.gathers.sum])]

    def completed(self, gradients: Sequence[Any]) -> list[Any]:
        """Zeros for the gradients that are None in a call that steps, where others were gathered before."""
        assert self.chain.gathers is not None
        sums, calls = self.state[self.chain.gathers.sum], self.gathered_calls()
        return [filled_like(widened(detached(sums[k])), 0.0) if g is None and self.absent[k] < calls else g
                for k, g in enumerate(gradients)]

    def drop_gathered(self, leaves: Sequence[int]) -> None:
        """Have nothing gathered of these leaves."""
        if self.chain.gathers is None:
            return
        self.absent[leaves] = self.gathered_calls()
        sums = self.state[self.chain.gathers.sum]
        for k in leaves:
            if not self.engine.in_memory:
                sums[k] = filled_like(sums[k], 0.0)
            elif self._begun[k]:
                sums[k][...] = 0.0

    def notes(self, gradients: Sequence[Any]) -> bool:
        """Whether there is something to `note` of a call with these."""
        return self.chain.gathers is not None and (bool(self.absent.any()) or any(g is None for g in gradients))

    def note(self, gradients: Sequence[Any], holds: bool) -> None:
        """Know of a call that was taken which leaves had no gradient, as long as it is one of those gathered."""
        if holds:
            self.absent[[k for k, g in enumerate(gradients) if g is None]] += 1
        else:
            self.absent[:] = 0
        self.plans.look_anew()  # the next call that steps is one to note

    # ---- settings ----------------------------------------------------------------------------------------------------

    def resolve(self, settings: Mapping[str, Any]) -> None:
        """Take the hyper-parameters' values, leaf by leaf; raises and changes nothing if they do not fit."""
        found = by_leaf(self.chain, settings, self.treedef, self.shapes)
        before, self.given = self._settings, settings
        self._settings = found
        changed = [q for q, value in self._settings.items() if value is not before.get(q)]
        if all(type(before.get(q)) is float is type(self._settings[q]) for q in changed):
            self.plans.revalue()
        else:
            self.plans.clear()  # which are made for the old ones

    def took(self, gradients: Sequence[Any]) -> None:
        """Count a step that was taken: leaves without a gradient missed it."""
        absent = [k for k, g in enumerate(gradients) if g is None]
        if absent:
            self.missed[absent] += 1
            self.plans.clear()  # which count otherwise

    def forget_missed(self) -> None:
        """Let every leaf have taken all steps."""
        self.missed[:] = 0
        self.plans.clear()

    def value(self, qualified: str, k: int, t: int, memo: dict[Any, Any]) -> Any:
        """A hyper-parameter's value for leaf k after t completed steps: a float, or an array per coordinate."""
        return value_of(self.chain, qualified, self._setting(qualified, k), t, memo)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The hyper-parameters as they are now, each one for all leaves or a list of one for each."""
        return self._settings

    def ask(self, names: Sequence[str], live: Sequence[int], t: int, arrays: Sequence[Any],
            settings: Mapping[str, Any]) -> dict[Any, Any]:
        """What a call needs to know after t completed steps, as its memo: here its schedules, those of the
        hyper-parameters of these names, are asked for the leaves that take part.

        Raises ValueError if one of them resized an array of the call: what was checked of it holds no longer.
        """
        memo: dict[Any, Any] = {"numbers": self.numbers.by_name(), "settings": settings}
        scheduled = [q for q in names if type(settings[q]) is not float]
        if scheduled:
            before = places(arrays)
            with np.errstate(all="ignore"):
                for k in live:
                    for q in scheduled:
                        self._given(q, memo["settings"], k, t, memo)
            if places(arrays) != before:
                raise ValueError(f"An array was resized while a schedule of {self.chain.title} was asked: parameters, "
                                 "gradients and outputs must stay as they are in a call. Nothing was changed.")
        return memo

    def scalars(self, program: Program, k: int, t: int, memo: dict[Any, Any]) -> tuple[Any, ...]:
        """The program's scalars for leaf k after t completed steps: floats, and arrays of float64 per coordinate.

        `memo` is the call's own (see `ask`): leaves that agree in settings, dtype and step count share one evaluation.
        Its item "numbers" holds the numbers that are no hyper-parameters, "settings" what a schedule cannot change for
        this call.
        """
        return self._evaluated(program, k, t, t - int(self.missed[k]), memo)[0]

    def new_numbers(self, program: Program, live: Sequence[int], t: int, memo: dict[Any, Any]) -> dict[str, list[Any]]:
        """What the program makes of the state that is one number in the coming step, in which these leaves take part:
        by slot a number, or one for each leaf (None for the others)."""
        names = [name for name, _ in program.numbers]
        new: dict[str, list[Any]] = {name: [None] * len(self.shapes) for name in names if name in self.numbers.leaf}
        for k in live if new else ():
            values = dict(zip(names, self._evaluated(program, k, t, t - int(self.missed[k]), memo)[1]))
            for name in new:
                new[name][k] = float(values[name])
        of_tree = [name for name in names if name in self.numbers.tree]
        if of_tree and self.shapes:
            values = dict(zip(names, self._evaluated(program, 0, t, t, memo)[1]))
            new.update({name: [float(values[name])] for name in of_tree})
        return new

    def _evaluated(self, program: Program, k: int, t: int, count: int,
                   memo: dict[Any, Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The program's scalars and new numbers for leaf k after t completed steps, of which it took `count`."""
        values = [self._given(q, memo["settings"], k, t, memo) for q in program.hyper]
        key: Any = (id(program), count, self.computed[k], *values)
        try:
            return memo[key]
        except (KeyError, TypeError):  # TypeError: values per coordinate, which no other leaf shares
            found = evaluate(self.chain, program, values, count, self.computed[k])
        if not any(isinstance(v, np.ndarray) for v in values):
            memo[key] = found
        return found

    def by_coordinate(self, program: Program, k: int) -> tuple[int, ...]:
        """The scalars of the program, by place, that differ by coordinate for leaf k."""
        return by_coordinate(program, {q: self._setting(q, k) for q in self._settings})

    def given_value(self, qualified: str, k: int, t: int, memo: dict[Any, Any]) -> Any:
        """A hyper-parameter's value for leaf k after t completed steps, for a call that has asked."""
        return self._given(qualified, memo["settings"], k, t, memo)

    def _given(self, name: str, settings: Mapping[str, Any], k: int, t: int, memo: dict[Any, Any]) -> Any:
        """The value of what a program depends on: a hyper-parameter, or a number known before."""
        if isinstance(name, Computed):
            return of_leaf(memo["numbers"][name], k)
        setting = settings[name]
        return setting if type(setting) is float else value_of(self.chain, name, of_leaf(setting, k), t, memo)

    def _started(self, start: float | str, k: int) -> Any:
        return self.value(start, k, int(self.count[0]), {}) if isinstance(start, str) else start

    def _start(self, value: Any, dtype: np.dtype) -> Any:
        if not self.engine.in_memory:
            return value
        return first_state(self.chain, value, dtype)

    def given_settings(self, names: Sequence[str], k: int) -> list[Any]:
        """Hyper-parameters as they were given for leaf k."""
        return [self._setting(q, k) for q in names]

    def _setting(self, qualified: str, k: int) -> Any:
        return of_leaf(self._settings[qualified], k)

    def state_trees(self) -> dict[str, Any]:
        """The state by slot, as trees of read-only views; one view of what is one number of the tree."""
        return {slot: _read_only(leaves[0]) if slot in self.numbers.tree else
                self.treedef.unflatten(map(_read_only, leaves)) for slot, leaves in self.slots().items()}

    def slots(self) -> dict[str, list[Any]]:
        """The live state by slot, in the order of the chain: an array for each leaf, or one for the tree."""
        self.is_shown = True
        every = {**self.state, **self.numbers.arrays()}
        return {slot: every[slot] for slot in self.chain.starts()}


def _fill(array: np.ndarray, start: Any) -> None:
    """Start a state array; both parts of a complex one at reals."""
    if array.dtype.kind == "c" and np.asarray(start).dtype.kind != "c":
        array.real[...] = start
        array.imag[...] = start
    else:
        array[...] = start


def _read_only(array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        return array
    shown = array.view()
    shown.flags.writeable = False
    return shown
