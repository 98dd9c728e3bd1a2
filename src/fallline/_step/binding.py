"""A chain bound to the structure it steps: leaf names, shapes, dtypes, state and step counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fallline._arrays.dtypes import computed, kept
from fallline._arrays.leaves import (
    CASTABLE,
    STEPPED,
    detached,
    dtype_name,
    dtype_of,
    filled_like,
    is_complex,
    kind_of,
    library,
    model,
    owned,
    widened,
)
from fallline._arrays.memory import arena, byte_range, places
from fallline._arrays.trees import Treedef, flatten, paths
from fallline._engines.host import host_engine
from fallline._engines.options import Options
from fallline._engines.rows import Kernel
from fallline._formula import words
from fallline._formula.chain import Chain
from fallline._formula.program import Program
from fallline._formula.settings import resolve
from fallline._messages.values import brief
from fallline._step.numbers import Numbers
from fallline._step.turn import Turn

__all__ = ["Bound", "leaves_of"]

# of a Bound, what is of this process and its memory, or another's that has it
_HERE_ONLY = ("count", "_turn", "_settings", "given", "_kernels", "host", "state_ranges", "fast", "disjoint")


class Bound:
    """Leaves by name, shape and dtype, the state of each, and how often each was stepped.

    It is made for the first call, from the parameters or gradients (`like`; `what` messages call its leaves), and kept
    once that call has succeeded. `count`, an array of one int64, holds the completed steps; a call that is one native
    call waits for no `turn`, but looks whether another has it.
    """

    def __init__(self, chain: Chain, settings: Mapping[str, Any], like: Any, what: str, options: Options,
                 count: np.ndarray, turn: Turn) -> None:
        self.chain, self.threads, self.count, engine = chain, options.threads, count, options.engine
        self._turn = turn
        self.checks_finite = options.nonfinite != "propagate"
        self._directory = options.state_dir
        leaves, self.treedef = flatten(like)
        self.paths = paths(self.treedef)
        kinds = [kind_of(leaf, self.name(k, what)) for k, leaf in enumerate(leaves)]
        self.foreign = engine == "eager" or "foreign" in kinds
        if engine not in ("auto", "eager") and self.foreign:
            raise TypeError(f'engine={engine!r} runs on arrays in host memory (NumPy, torch CPU tensors). '
                            f"Got {type(leaves[kinds.index('foreign')]).__name__}: use engine=\"auto\".")
        if self.foreign and self._directory is not None:
            raise TypeError("state_dir is for arrays in host memory (NumPy, torch CPU tensors). "
                            f"Got {type(leaves[0]).__name__}.")
        self.models = list(map(model, leaves, kinds))
        self._libraries = [library(leaf) for leaf in leaves] if self.foreign else []
        self.shapes = [tuple(np.shape(leaf)) for leaf in leaves]
        self._refuse_whole(leaves, what, engine)
        self.dtypes = [dtype_of(leaf) for leaf in leaves]
        self.computed = list(map(computed, self.dtypes))
        self.missed = np.zeros(len(leaves), np.int64)  # steps that a leaf did not take, having no gradient
        self.fast: dict[str, Any] = {}  # the short ways to "step", "update" and "out", once a call could take them
        self.disjoint: dict[str, list[Any]] = {}  # where "parameter"s and "out"s lay when last found not to overlap
        self.resolve(settings)
        self._choose_engine(engine, leaves)
        self.state: dict[str, list[Any]] = {}
        starts = {slot: [self._started(start, k) for k in range(len(leaves))]
                  for slot, start in chain.starts().items()}
        scopes = chain.scopes()
        self.numbers = Numbers(scopes, {slot: starts.pop(slot) for slot in scopes}, len(leaves))
        with np.errstate(over="ignore"):  # what is too large for the dtype is refused
            starts = {slot: list(map(self._start, values, self.computed)) for slot, values in starts.items()}
        if self.foreign:
            self.state = {slot: [filled_like(widened(detached(leaf)), start) for leaf, start in zip(leaves, values)]
                          for slot, values in starts.items()}
        else:
            self._lay_out(starts)

    def _refuse_whole(self, leaves: Sequence[Any], what: str, engine: str) -> None:
        """Refuse what a rule of whole leaves, a function of NumPy's arrays, cannot take."""
        if not self.chain.rule.whole_leaf:
            return
        rule = self.chain.owner(self.chain.rule_name)
        if self.foreign:
            got = 'engine="eager"' if engine == "eager" else type(leaves[0]).__name__
            raise TypeError(f"{rule} is a function of whole leaves in host memory (NumPy, torch CPU tensors). "
                            f"Got {got}.")
        for k, leaf in enumerate(leaves):
            if is_complex(leaf):
                raise TypeError(f"{self.name(k, what)} must be real, as {rule} is a function of whole leaves. "
                                f"Got {dtype_name(leaf)}.")

    def _choose_engine(self, engine: str, leaves: Sequence[Any]) -> None:
        self._kernels: dict[tuple[str, np.dtype, tuple[int, ...]], Kernel] = {}
        self._wanted = engine
        if self.foreign:
            root = type(leaves[0]).__module__.split(".")[0] if leaves else ""
            library = root.removesuffix("lib")  # jaxlib is JAX
            self.engine_note = f"eager: {'asked for' if engine == 'eager' else f'arrays of {library}'}"
        else:
            self.host = host_engine(engine)
            self.engine_note = f"{self.host.name}: {self.host.why}"
            if self.chain.rule.whole_leaf:  # whose modifiers run on that engine all the same
                self.engine_note = f"numpy: {self.chain.owner(self.chain.rule_name)} is a function of whole leaves"

    def _lay_out(self, starts: Mapping[str, Sequence[Any]]) -> None:
        """Have the state of all leaves of a dtype in one run of memory, and start it at numbers or arrays."""
        slots = list(starts)
        shapes = [self.chain.shape(slot, shape) for slot in slots for shape in self.shapes]
        arenas, placed = arena(shapes, list(map(kept, self.dtypes)) * len(slots), self._directory)
        for n, slot in enumerate(slots):
            self.state[slot] = placed[n * len(self.shapes) : (n + 1) * len(self.shapes)]
            for array, start in zip(self.state[slot], starts[slot]):
                if isinstance(start, np.ndarray) or start:  # elsewhere pages that need not be filled
                    _fill(array, start)
        self.state_ranges = [(*byte_range(a), a) for a in arenas if a.size]

    # ---- carried elsewhere ---

    def apart(self) -> Bound:
        """The same in memory of its own, to be copied or pickled: who has it may read it when this one has stepped on.

        It steps only once it is `settle`d.
        """
        other = self.aside()
        other.state = {slot: list(map(owned, arrays)) for slot, arrays in self.state.items()}
        other.missed, other.numbers = self.missed.copy(), self.numbers.copied()
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in _HERE_ONLY}

    def __deepcopy__(self, memo: Any) -> Bound:
        return self  # one that is `apart`: nobody else has it

    def settle(self, count: np.ndarray, turn: Turn, settings: Mapping[str, Any]) -> None:
        """Go on with that count, turn and settings, here, after `apart`.

        Whatever brought it may have its arrays in memory that is not to be written, or is gone later: they are copied.
        """
        self.count, self._turn = count, turn
        self.missed, self.numbers = np.array(self.missed), self.numbers.copied()
        self.dtypes = [np.dtype(dtype.type) for dtype in self.dtypes]  # NumPy's own, known by identity
        self.fast, self.disjoint, self._kernels = {}, {}, {}
        self.resolve(settings)
        if self.foreign:
            self.state = {slot: list(map(owned, arrays)) for slot, arrays in self.state.items()}
        else:
            self._lay_out(dict(self.state))
            self.host = host_engine(self._wanted)

    def turn_to(self, turn: Turn) -> None:
        """Have calls look at another turn."""
        self._turn = turn

    def aside(self) -> Bound:
        """The same, state and counts included, whose settings the optimizer's own assignments do not reach."""
        other = object.__new__(Bound)
        other.__dict__.update(self.__dict__)
        return other

    # ---- calls that do not step ---

    def holds(self) -> bool:
        """Whether the coming call only gathers its gradient (see `rules.accumulate`)."""
        gathers = self.chain.gathers
        if gathers is None:
            return False
        calls, n = gathers
        return bool(self.numbers.by_slot()[calls][0] + 1 < self._setting(n, 0))

    def gathered(self) -> list[tuple[int, Any]]:
        """The mean of what was gathered of the gradients before the coming call, by the number of the leaf."""
        if self.chain.gathers is None:
            return []
        slot = self.chain.slots[self.chain.names[0], "sum"]
        n = self._setting(self.chain.gathers[1], 0)
        return [(k, array / n) for k, array in enumerate(self.state[slot])]

    def completed(self, gradients: Sequence[Any]) -> list[Any]:
        """Zeros for the gradients that are None in a call that steps, where others were gathered before."""
        slot = self.chain.slots[self.chain.names[0], "sum"]
        return [filled_like(widened(detached(self.state[slot][k])), 0.0)
                if g is None and bool((self.state[slot][k] != 0).any()) else g for k, g in enumerate(gradients)]

    # ---- settings ----------------------------------------------------------------------------------------------------

    def resolve(self, settings: Mapping[str, Any]) -> None:
        """Take the hyper-parameters' values, leaf by leaf; raises and changes nothing if they do not fit."""
        programs = self.chain.programs
        powers, single, common = ({self.chain.source(q, settings) for some in kind for q in some} for kind in
                                  zip(*((each.powers, each.single, each.common) for each in programs)))
        single |= {self.chain.source(q, settings) for q in self.chain.of_whole_leaf}
        found = {q: resolve(self.chain.hyper[q], value, self.chain.owner(q), self.treedef, self.shapes,
                            "tree" if q in common else "leaf" if q in single else "power" if q in powers else "")
                 for q, value in settings.items()}
        self._settings = {q: found[self.chain.source(q, settings)] for q in self.chain.hyper}
        self.given = settings
        self.fast = {}  # which knows the old values

    def took(self, gradients: Sequence[Any]) -> None:
        """Count a step that was taken: leaves without a gradient missed it."""
        absent = [k for k, g in enumerate(gradients) if g is None]
        if absent:
            self.missed[absent] += 1
            self.fast = {}  # which counts otherwise

    def forget_missed(self) -> None:
        """Let every leaf have taken all steps."""
        self.missed[:] = 0
        self.fast = {}

    def value(self, qualified: str, k: int, t: int, memo: dict[Any, Any]) -> Any:
        """A hyper-parameter's value for leaf k after t completed steps: a float, or an array per coordinate."""
        return _value(self.chain, qualified, self._setting(qualified, k), t, memo)

    def ask(self, names: Sequence[str], live: Sequence[int], t: int, arrays: Sequence[Any]) -> dict[Any, Any]:
        """What a call needs to know after t completed steps, as its memo: here its schedules, those of the
        hyper-parameters of these names, are asked for the leaves that take part.

        Raises ValueError if one of them resized an array of the call: what was checked of it holds no longer.
        """
        memo: dict[Any, Any] = {"known": self.numbers.known(), "settings": self._settings}
        scheduled = [q for q in names if type(self._settings[q]) is not float]
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
        Its item "known" holds the numbers that are no hyper-parameters, "settings" what a schedule cannot change for
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
            limits = np.finfo(self.computed[k])
            every = program.evaluate(values, count + 1, float(limits.tiny))
            found = every[: len(program.scalars)], every[len(program.scalars) :]
            largest = float(limits.max)
            if any(_beyond(s, largest) for s in found[0]):
                given = ", ".join(f"{q}={v!r}" for q, v in zip(program.hyper, values) if not q.startswith("total "))
                state = ", or a number of its state," * any(q.startswith("state ") for q in program.hyper)
                raise ValueError(f"A setting of {self.chain.title}{state} is too large for {self.computed[k]}: "
                                 f"{given}.") from None
        if not any(isinstance(v, np.ndarray) for v in values):
            memo[key] = found
        return found

    def given_value(self, qualified: str, k: int, t: int, memo: dict[Any, Any]) -> Any:
        """A hyper-parameter's value for leaf k after t completed steps, for a call that has asked."""
        return self._given(qualified, memo["settings"], k, t, memo)

    def _given(self, name: str, settings: Mapping[str, Any], k: int, t: int, memo: dict[Any, Any]) -> Any:
        """The value of what a program depends on: a hyper-parameter, or a number known before."""
        if " " in name:
            return _of_leaf(memo["known"][name], k)
        setting = settings[name]
        return setting if type(setting) is float else _value(self.chain, name, _of_leaf(setting, k), t, memo)

    def _started(self, start: float | str, k: int) -> Any:
        return self.value(start, k, int(self.count[0]), {}) if isinstance(start, str) else start

    def _start(self, value: Any, dtype: np.dtype) -> Any:
        if self.foreign:
            return value
        first = words.flush(np.asarray(value, dtype))
        if first.ndim == 0:
            first = float(first)
        if np.isinf(first).any() if isinstance(first, np.ndarray) else math.isinf(first):  # settings are finite
            raise ValueError(f"State of {self.chain.title} cannot start at {brief(value)}, which is too large for "
                             f"{dtype}.")
        return first

    def name(self, k: int, what: str) -> str:
        """What messages call a leaf: "gradient 'layer1/W'"."""
        return f"{what} {self.paths[k]!r}" if self.paths[k] else what if what == "out" else f"the {what}"

    # ---- checks ------------------------------------------------------------------------------------------------------

    def leaves(self, tree: Any, what: str) -> list[Any]:
        """The leaves of a tree of parameters, gradients or "out", checked against structure, shapes and dtypes.

        A gradient may be None, and of another float dtype.
        """
        leaves = leaves_of(self.treedef, tree, what)
        self.check_leaves(leaves, what)
        return leaves

    def check_leaves(self, leaves: Sequence[Any], what: str) -> None:
        """Raise ValueError or TypeError unless leaves, in order, are what `leaves` takes."""
        for k, leaf in enumerate(leaves):
            as_ever = type(leaf) is np.ndarray and leaf.dtype is self.dtypes[k] and leaf.shape == self.shapes[k]
            if as_ever and not self.foreign:
                continue  # the common case, at the cost of a small step
            if leaf is not None or what != "gradient":
                self._check_leaf(k, leaf, what)

    def _check_leaf(self, k: int, leaf: Any, what: str) -> None:
        name = self.name(k, what)
        kind = kind_of(leaf, name, CASTABLE if what == "gradient" else STEPPED)
        shape = tuple(np.shape(leaf))
        if shape != self.shapes[k]:
            raise ValueError(f"{name} must have the shape {self.shapes[k]}. Got {shape}.")
        if what == "gradient":
            if is_complex(leaf) and self.dtypes[k].kind != "c":
                raise TypeError(f"{name} must be real, as the parameter is {self.dtypes[k]}. Got {dtype_name(leaf)}: "
                                "pass its real part.")
            return
        like = "before" if what == "parameter" else "the parameters"
        if kind == "foreign" and not self.foreign:
            raise TypeError(f"{name} must be in host memory, as {like}. Got {type(leaf).__name__}: call reset(), or "
                            "make a new optimizer.")
        if what == "parameter":
            self.check_library(k, leaf, what)
        if dtype_of(leaf) != self.dtypes[k]:
            raise TypeError(f"{name} must be {self.dtypes[k]}, as {like}. Got {dtype_of(leaf)}.")

    def check_library(self, k: int, leaf: Any, what: str) -> None:
        """Raise TypeError unless a leaf's state is of its own library, where that matters."""
        if self.foreign and leaf is not None and library(leaf) != self._libraries[k]:
            raise TypeError(f"{self.name(k, what)} must be of {self._libraries[k]}, as before. Got {library(leaf)}'s "
                            f"{type(leaf).__name__}: call reset(), or make a new optimizer.")

    def kernel_for(self, mode: str, program: Program) -> Callable[[np.dtype, tuple[int, ...]], Kernel]:
        """The kernels of a program ("step" or "update"), kept here: to hash a program costs more than a small step."""
        def kernel(dtype: np.dtype, columns: tuple[int, ...]) -> Kernel:
            key = (mode, dtype, columns)
            if key not in self._kernels:
                self._kernels[key] = self.host.kernel(program, dtype, columns)
            return self._kernels[key]
        return kernel

    @property
    def shortens(self) -> bool:
        """Whether there is a short way at all: native engine, objects in memory as expected."""
        if self.host.name != "native" or not self.shapes:
            return False
        from fallline._engines.cpu.guard import readable  # which needs llvmlite

        return readable()

    def prepare(self, way: str, program: Program, xs: Sequence[Any], outs: Sequence[Any], strided: Sequence[bool],
                tensors: bool, beside: Sequence[tuple[int, int]]) -> None:
        """Prepare the short way of a program for parameters and outputs that lie there (see `faststep.Arrays`)."""
        from fallline._step.fast_step import Arrays  # which needs llvmlite

        arrays = Arrays(self.state, xs, outs, strided, tensors, beside)
        if way not in self.fast or not self.fast[way].matches(arrays):
            self.fast.pop(way, None)
            fast = self._faststep(program, arrays)
            if fast is not None:
                self.fast[way] = fast

    def _faststep(self, program: Program, arrays: Any) -> Any:
        """The short way; None if settings differ by coordinate, or for what is rare."""
        from fallline._engines.llvm.scalars import exact
        from fallline._step.fast_step import FastStep, Group, Leaves

        renewed, numbers = dict(program.numbers), {*self.numbers.tree, *self.numbers.leaf}
        if renewed.keys() != numbers or (numbers and not exact(program.steps)) or "g" not in program.inputs:
            return None
        by_leaf = self.numbers.leaf or any(total.over == "leaf" for p in program.readings for total in p.totals)
        apart = by_leaf or bool(self.missed.any())  # then each leaf goes on counting for itself
        alike: dict[Any, list[int]] = {}
        for k, dtype in enumerate(self.computed):
            own = [self._setting(q, k) for q in program.settings]
            if any(isinstance(s, np.ndarray) for s in own):
                return None
            key = (k if apart else dtype, *(id(s) if callable(s) else s for s in own))
            alike.setdefault(key, []).append(k)
        groups = [Group(leaves, self.computed[leaves[0]]) for leaves in alike.values()]
        settings = [[(q, self._setting(q, group.leaves[0])) for q in program.settings] for group in groups]
        chain = self.chain  # and not self: a cycle would keep a dropped optimizer's state for a while

        def values_after(t: int, live: Sequence[bool]) -> list[list[float] | None]:
            memo: dict[Any, Any] = {}
            return [[_value(chain, q, setting, t, memo) for q, setting in group] if is_live else None
                    for group, is_live in zip(settings, live)]

        leaves = Leaves(self.treedef, self.shapes, self.dtypes, [r[:2] for r in self.state_ranges])
        constant = not any(callable(setting) for group in settings for _, setting in group)
        return FastStep(program, leaves, groups, arrays, values_after, constant, self.checks_finite, self.count,
                        self.missed, self.threads, self._turn.taken, self.numbers, self.chain.gathers is not None)

    def _setting(self, qualified: str, k: int) -> Any:
        return _of_leaf(self._settings[qualified], k)

    def state_trees(self) -> dict[str, Any]:
        """The state by slot, as trees of read-only views; one view of what is one number of the tree."""
        return {slot: _read_only(leaves[0]) if slot in self.numbers.tree else
                self.treedef.unflatten(map(_read_only, leaves)) for slot, leaves in self.slots().items()}

    def slots(self) -> dict[str, list[Any]]:
        """The live state by slot, in the order of the chain: an array for each leaf, or one for the tree."""
        every = {**self.state, **self.numbers.arrays()}
        return {slot: every[slot] for slot in self.chain.starts()}


def leaves_of(treedef: Treedef, tree: Any, what: str) -> list[Any]:
    """The leaves of a tree of parameters, gradients or "out", checked against a structure."""
    return treedef.flatten_like(tree, {"gradient": "grads", "parameter": "params"}.get(what, what),
                                "before" if what == "parameter" else "the parameters")


def _fill(array: np.ndarray, start: Any) -> None:
    """Start a state array; both parts of a complex one at reals."""
    if array.dtype.kind == "c" and np.asarray(start).dtype.kind != "c":
        array.real[...] = start
        array.imag[...] = start
    else:
        array[...] = start


def _value(chain: Chain, qualified: str, setting: Any, t: int, memo: dict[Any, Any]) -> Any:
    if not callable(setting):
        return setting
    key = (qualified, id(setting))  # a schedule is asked once for each call
    if key not in memo:
        note = f" from its schedule at t={t}"
        memo[key] = chain.hyper[qualified].check(setting(t), chain.owner(qualified), note)
    return memo[key]


def _of_leaf(setting: Any, k: int) -> Any:
    return setting[k] if isinstance(setting, list) else setting


def _beyond(scalar: Any, largest: float) -> bool:
    """Whether a scalar, or one of the values per coordinate, is finite and larger than that."""
    if isinstance(scalar, np.ndarray):
        return bool(np.any((np.abs(scalar) > largest) & np.isfinite(scalar)))
    return largest < abs(scalar) < math.inf


def _read_only(array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        return array
    shown = array.view()
    shown.flags.writeable = False
    return shown
