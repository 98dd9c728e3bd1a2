"""`partition`: different optimizers on different leaves, stepped as one. `mask`: one optimizer on some leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from fallline._arrays.trees import copy as copied
from fallline._arrays.trees import flatten, paths
from fallline._engines.options import Options
from fallline._formula.chain import written
from fallline._formula.rule import Link, Rule
from fallline._formula.trace import as_written
from fallline._messages.values import brief, shown
from fallline._optimizer.describing import PartsByName, Slots, SlotsOfParts
from fallline._optimizer.kept_parts import KeptParts
from fallline._optimizer.optimizer import Optimizer
from fallline._optimizer.parts import Chains, Part, PartsTurn, checked_label, modifier, names_of
from fallline._optimizer.points import keeps_none, loaded_averages, point_at
from fallline._state import fields
from fallline._step.binding import Binding
from fallline._step.turn import Turn
from fallline.errors import BusyOptimizer, FormulaError
from fallline.rules import average

__all__ = ["Mask", "Partition", "mask", "partition"]


class Partition(KeptParts):
    """Optimizers that step leaves of their own as one: see `partition`. Options are those of `Optimizer`.

    Each part is an optimizer by itself with a tree in which None stands for the leaves of the others, so that its paths
    are those of the whole. `around` are the links that stand before and behind it in a chain: each part has them in
    its own chain, where what the first ones sum over the tree is summed over all parts.
    """

    kind = "partition"
    divider = "label"
    example = 'partition({"weights": Muon(), "rest": AdamW()}, label)'

    def __init__(self, parts: Mapping[str, Any], label: Any, options: Options,
                 around: tuple[Sequence[Link], Sequence[Link]] = ((), ())) -> None:
        options.check(self.kind)
        if not isinstance(parts, Mapping) or all(item is None for item in parts.values()):
            raise TypeError(f"parts of {self.kind} must be a dict of optimizers by name: {self.example}. "
                            f"Got {brief(parts)}.")
        for name in parts:
            if not isinstance(name, str) or not name or set("./") & set(name):
                raise ValueError(f"The name of a part must be text without '.' and '/'. Got {name!r}.")
        self._options = options
        self._made = {name: self._as_part(item) for name, item in parts.items() if item is not None}
        self._parts = {name: Part(part, around) if any(around) else part for name, part in self._made.items()}
        self._names = tuple(parts)
        self._chain = Chains(self.kind, {name: part._chain for name, part in self._parts.items()})
        self._label = self._checked_label(label)
        self._turn = Turn()
        self._attach()
        self._forget()

    def _as_part(self, item: Any) -> Optimizer:
        """An optimizer of one's own for what was given as a part."""
        if isinstance(item, type) and issubclass(item, Optimizer):
            item = item()
        rule = item.rule if isinstance(item, Link) else item
        if isinstance(rule, Rule):
            if rule.kind != "rule":
                self._refuse_modifier(rule)
            item = Optimizer(item)
        if isinstance(item, Partition):
            raise FormulaError(f"A {self.kind} cannot have a {item.kind} in it: one partition with all parts does the "
                               "same, with None for those whose leaves are left alone.")
        if not isinstance(item, Optimizer):
            raise FormulaError(f"A {self.kind} is made of optimizers, each a chain: {self.example}. "
                               f"Got {brief(item)}.")
        for name, value in item._options.given().items():
            raise FormulaError(f"{name}={value!r} of {item._chain.title} is for the whole {self.kind}: give it to "
                               f"{self.kind}(...).")
        return item.fresh()

    def _refuse_modifier(self, rule: Rule) -> None:
        own = next((name for name, h in rule.hyper.items() if h.default is not None), None)
        by_path = f"{rule.name}({own}=fallline.by_path(...))" if own else rule.name
        raise FormulaError(f"A {self.kind} is made of optimizers, and {rule.name} is a modifier: let it act on some "
                           f"leaves by a setting that differs, chain({by_path}, ...), or give its chain to the leaves.")

    def _checked_label(self, label: Any) -> Any:
        return checked_label(label, f"{self.divider} of {self.kind}", self._part_of)

    def _part_of(self, said: Any, path: str) -> str | None:
        """The part of a leaf, of which the label said so; None if it is left alone."""
        if not isinstance(said, str) or said not in self._names:
            raise ValueError(f"{self.divider} of {self.kind} must name the part of each leaf: "
                             f"{', '.join(map(repr, self._names))}. Got {said!r}{' for ' * bool(path)}{path}.")
        return said if said in self._parts else None

    def _attach(self) -> None:
        for part in self._parts.values():
            part._turn, part._options, part._binding = PartsTurn(self._turn), self._options, None

    def _carried(self) -> dict[str, Any]:
        return dict(self.__dict__)  # whose parts go by themselves: who has one of them has it of the copy

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        steps = {name: part.t for name, part in self._parts.items() if part._chain.gathers is None}
        if len(set(steps.values())) > 1:
            raise BusyOptimizer(f"{self._chain.title} was copied or pickled while another thread stepped it: its parts "
                                f"have taken different numbers of steps ({steps}). Have them take turns by a lock.")
        self._attach()
        if self._binding:
            self._binding.bind({name: part._group for name, part in self._parts.items() if part._group})

    def _inside(self, name: str) -> Optimizer:
        """A part as it would be by itself, without what is around all, and without state."""
        part, inside = self._parts[name], self._made[name].fresh()
        before, after = part._chain.around
        links = part._chain.links(part._settings)[before : len(part._chain.rules) - after]
        inside._settings = {f"{own}.{h}": value for own, link in zip(inside._chain.names, links)
                            for h, value in link.settings.items()}
        return inside

    def _around(self) -> tuple[list[Link], list[Link]]:
        """The links around all parts."""
        part = next(iter(self._parts.values()))
        before, after = part._chain.around
        links = part._chain.links(part._settings)
        return links[:before], links[len(links) - after :]

    def _within(self, before: Sequence[Any], after: Sequence[Any], options: Options) -> Optimizer:
        if given := self._options.given():
            raise FormulaError(f"{', '.join(given)} of {self._chain.title} is for the whole chain: give it to "
                               "chain(...).")
        own_before, own_after = self._around()
        around = [*map(modifier, before), *own_before], [*own_after, *map(modifier, after)]
        for links, kind, should in ((around[0], "after", "the increment and must stand behind"),
                                    (around[1], "before", "the gradient and must stand before")):
            if wrong := [link.rule.name for link in links if link.rule.kind == kind]:
                raise FormulaError(f"{wrong[0]} modifies {should} the {self.kind}.")
        for rule in (link.rule for link in around[1]):
            if any(total.over == "tree" for reading in as_written(rule).readings for total in reading.totals):
                raise FormulaError(f"{rule.title} sums over the tree and stands behind a {self.kind}, whose parts are "
                                   "not computed together: give it to the chains of the parts.")
        parts = {name: self._inside(name) if name in self._parts else None for name in self._names}
        return type(self)(parts, self._label, options, around)

    # ---- stepping ----------------------------------------------------------------------------------------------------

    def _holders(self) -> Mapping[str, Optimizer]:
        return self._parts

    def _check_binding(self, binding: Binding) -> None:
        self._check_places(binding, self._waiting_places(), binding.paths)

    def _divided(self, like: Any, label: Any = None) -> tuple[Binding, list[Any]]:
        leaves, treedef = flatten(like)
        names = paths(treedef)
        positions: dict[str, list[int]] = {name: [] for name in self._parts}
        left: list[int] = []
        label = self._label if label is None else label
        said = names_of(label, f"{self.divider} of {self.kind}", treedef, names, leaves)
        for k, (path, name) in enumerate(zip(names, said)):
            part = self._part_of(name, path)
            (left if part is None else positions[part]).append(k)
        return Binding(treedef, names, positions, left), leaves

    def _left_alone(self, params: Any) -> list[int]:
        """As `Optimizer._left_alone`."""
        return self._divided(params)[0].left

    # ---- what it knows -----------------------------------------------------------------------------------------------

    @property
    def parts(self) -> Mapping[str, Optimizer]:
        """The parts by name: their hyper-parameters, which can be set, and their state.

        >>> import fallline as fl
        >>> opt = fl.partition({"weights": fl.Adam(), "rest": fl.SGD()}, lambda path: "rest")
        >>> opt.parts["rest"].lr = 0.5
        >>> opt
        partition({'weights': Adam(lr=0.001, beta1=0.9, beta2=0.999, eps=1e-08), 'rest': SGD(lr=0.5)}, <lambda>)
        """
        return MappingProxyType(PartsByName(self._parts))

    @property
    def _count(self) -> np.ndarray:  # type: ignore[override]
        """That of the part which stepped most often; others may gather gradients meanwhile (`accumulate`)."""
        return max((part._count for part in self._parts.values()), key=lambda steps: int(steps[0]))

    @property
    def _settings(self) -> dict[str, Any]:  # type: ignore[override]
        places = {q: next(iter(self._chain.places(q).items())) for q in self._chain.hyper}
        return {q: self._parts[part]._settings[own] for q, (part, own) in places.items()
                if own in self._parts[part]._settings}

    @property
    def calls(self) -> int:
        """Calls of `step` and `update` that were not skipped."""
        return max(part.calls for part in self._parts.values())

    @property
    def state(self) -> Mapping[str, Any]:
        """The state of each part, by name, as `Optimizer.state` has it; None stands for the leaves of the others."""
        return MappingProxyType(SlotsOfParts({name: Slots(part.state, part._chain)
                                              for name, part in self._parts.items()}))

    @property
    def engine(self) -> str:
        """Which engine runs, and why; part by part where they differ."""
        notes = {name: part.engine for name, part in self._parts.items()
                 if self._binding is None or self._binding.positions[name]}
        if len(set(notes.values())) > 1:
            return "; ".join(f"{name}: {note}" for name, note in notes.items())
        return next(iter(notes.values()), "none: no leaf is stepped")

    def rest(self, params: Any) -> Any:
        """As `Optimizer.rest`, each leaf by its part."""
        return self._turn.join(self._rested, params)

    def _rested(self, params: Any) -> Any:
        self._check_ready()
        binding = self._bind(params, "parameter")
        leaves = binding.leaves(params, "parameter")
        points = {name: point_at(binding.groups[name], part._chain.rule.rest or copied, binding.tree(name, leaves))
                  for name, part in self._parts.items()}
        for k in binding.left:
            leaves[k] = copied(leaves[k])
        return self._merged(binding, points, leaves)

    def _averages(self) -> Any:
        averaging = {name: part for name, part in self._parts.items() if average in part._chain.rules}
        if not averaging:
            raise keeps_none(self._chain.title)
        self._check_untorn()
        if self._binding is None:
            return loaded_averages(self._chain.title, {name: (part._chain, part._waiting)
                                                       for name, part in self._parts.items()})
        found = {name: part._averages() for name, part in averaging.items()}
        return self._merged(self._binding, found, [None] * len(self._binding.paths))

    @staticmethod
    def _merged(binding: Binding, trees: Mapping[str, Any], leaves: list[Any]) -> Any:
        """A tree of what each part has of its leaves, and these for the others."""
        own = {name: binding.groups[name].treedef.flatten_like(tree, "", "") for name, tree in trees.items()}
        return binding.treedef.unflatten(binding.merged(own, leaves))

    def fresh(self) -> Partition:
        """A copy with the same parts, hyper-parameters and options, and no state."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._parts = {name: part.fresh() for name, part in self._parts.items()}
        other._turn = Turn()
        other._attach()
        other._forget()
        return other

    def _forget(self) -> None:
        with self._changing():
            for part in self._parts.values():
                part._forget()
            self._binding = None
            fields.put(self)

    def _recount(self, t: int) -> None:
        self._check_untorn()
        takes = {part: int(part._get(part._chain.gathers[1])) if part._chain.gathers else 1
                 for part in self._parts.values()}  # that many calls for a step
        most = min(takes, key=takes.__getitem__)
        calls = t * takes[most] + most.calls % takes[most]
        steps = {part: max(calls - part.calls % each, 0) // each for part, each in takes.items()}
        with self._changing():
            for part, own in steps.items():
                part._recount(own)

    def _get(self, name: str) -> Any:
        part, own = next(iter(self._chain.places(self._qualified(name)).items()))
        return self._parts[part]._get(own)

    def _set(self, name: str, value: Any) -> None:
        places = self._chain.places(self._qualified(name))
        for part, own in places.items():
            self._parts[part]._refuse_started(own)
        self._turn.join(self._assign_in, places, value)

    def _assign_in(self, places: Mapping[str, str], value: Any) -> None:
        """Assign a hyper-parameter in all parts that have it, or in none."""
        for name, own in places.items():
            part = self._parts[name]
            if part._group:
                part._group.aside().resolve({**part._settings, own: part._checked(own, value)})
        for name, own in places.items():
            self._parts[name]._assign(own, value)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name.isidentifier()]

    def _described(self) -> str:
        before, after = self._around()
        return written([*before, self._alone(), *after])

    def _alone(self) -> str:
        """How it is written but for what is around it."""
        given = [f"{name!r}: {self._inside(name)._described() if name in self._parts else None}"
                 for name in self._names]
        return f"{self.kind}({{{', '.join(given)}}}, {self._shown_label()})"

    def _shown_label(self) -> str:
        return shown(self._label)


class Mask(Partition):
    """An optimizer for some of the leaves: see `mask`."""

    kind = "mask"
    divider = "by"
    example = "mask(by, Adam())"

    def __init__(self, parts: Mapping[str, Any], label: Any, options: Options,
                 around: tuple[Sequence[Link], Sequence[Link]] = ((), ())) -> None:
        if parts["stepped"] is None:
            raise TypeError(f"mask takes an optimizer for the leaves that are stepped: {self.example}. Got None.")
        super().__init__({"stepped": parts["stepped"], "left": None}, label, options, around)

    def _part_of(self, said: Any, path: str) -> str | None:
        if not isinstance(said, (bool, np.bool_)):
            raise TypeError("by of mask must say True for a leaf that is stepped and False for one that is left alone. "
                            f"Got {said!r}{' for ' * bool(path)}{path}.")
        return "stepped" if said else None

    def _alone(self) -> str:
        return f"mask({self._shown_label()}, {self._inside('stepped')._described()})"


def partition(parts: Mapping[str, Any], label: Any, *, engine: str = "auto", nonfinite: str = "raise",
              threads: int | None = None, state_dir: Any = None) -> Partition:
    """Different optimizers for different leaves, as one optimizer: a call steps all or, if it raises, none.

    Parameters
    ----------
    parts: by name, an optimizer, a class or a chain; each lends its rules and hyper-parameters. None leaves its leaves
        alone, as `mask` does. A part may have no leaves.
    label: says which leaf is whose: a function of its path ("layer1/W"), or of path and `shape`, that returns the
        name of a part; or a tree of names shaped like the parameters or their upper levels.
    engine, nonfinite, threads, state_dir: as of `Optimizer`, for all parts. (Parts take none of their own.)

    It is used as any optimizer. `opt.parts["name"]` has what belongs to one: `opt.parts["rest"].lr = 1e-4`, which is
    also `opt.hyper["rest.lr"]`, and `opt.lr` where no other part has that name. Settings by path or as trees know the
    leaves by their paths in the whole tree. `fallline.load` has to be given a label that is a function:
    `fl.load(path, label=label)`, or another that divides the leaves alike. `state` and `state_dict()["parts"]` have the
    state part by part, and `averaged` has None for the leaves of a part that keeps no average.

    It may stand among modifiers, `fl.chain(fl.clip_norm(1.0), fl.partition(...), fl.weight_decay(0.01))`, which act on
    all leaves: the norm is that of all. In the chain of a part a norm over the tree is one over the part's leaves.

    Raises FormulaError, TypeError or ValueError for parts and labels that are none; the first step does for a label
    that names no part.

    >>> import numpy as np, fallline as fl
    >>> opt = fl.partition({"weights": fl.SGD(0.1), "rest": fl.SGD(1.0)},
    ...                    lambda path, shape: "weights" if len(shape) == 2 else "rest")
    >>> opt.step({"W": np.ones((1, 2)), "b": np.ones(2)}, {"W": np.ones((1, 2)), "b": np.ones(2)})
    {'W': array([[0.9, 0.9]]), 'b': array([0., 0.])}
    """
    return Partition(parts, label, Options(engine, nonfinite, threads, state_dir))


def mask(by: Any, optimizer: Any, *, engine: str = "auto", nonfinite: str = "raise", threads: int | None = None,
         state_dir: Any = None) -> Mask:
    """An optimizer that steps some leaves only, and leaves the others alone.

    Parameters
    ----------
    by: a function of the leaf's path ("layer1/W"), or of path and `shape`, that is True for the leaves to step; or a
        tree of True and False shaped like the parameters or their upper levels.
    optimizer: an optimizer, a class or a chain.
    engine, nonfinite, threads, state_dir: as of `Optimizer`.

    The other leaves may be anything: they and their gradients are not looked at, and there is no state for them; they
    must not share memory with leaves that are stepped. `update` gives increments of -0.0 for them.

    To have a modifier act on some leaves, give its setting by path: `weight_decay(rate=fl.by_path(...))`.

    >>> import fallline as fl
    >>> opt = fl.mask(lambda path: path != "b", fl.SGD(0.5))
    >>> opt.step({"W": 1.0, "b": 1.0}, {"W": 1.0, "b": 1.0})
    {'W': 0.5, 'b': 1.0}
    >>> opt.lr, opt
    (0.5, mask(<lambda>, SGD(lr=0.5)))
    """
    return Mask({"stepped": optimizer}, by, Options(engine, nonfinite, threads, state_dir))
