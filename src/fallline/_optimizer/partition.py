"""Optimizers that step as one, each with leaves of its own: those of `partition`, and that of `mask`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from fallline._engines.options import Options
from fallline._formula.chain import Chain, as_link, written
from fallline._formula.chains import Chains
from fallline._formula.rule import Link, Rule
from fallline._formula.trace import as_written
from fallline._messages.values import brief, shown
from fallline._optimizer.describing import PartsByName, Slots, SlotsOfParts
from fallline._optimizer.division import ByLabel, ByMask
from fallline._optimizer.optimizer import Optimizer
from fallline._optimizer.settable import HyperParameters
from fallline._optimizer.stepping import Stepper
from fallline._step.turn import Turn
from fallline.errors import BusyOptimizer, FormulaError

__all__ = ["Mask", "Partition"]


class PartsTurn(Turn):
    """The turn of a part, which can be looked at and set, but steps with the others only."""

    def __init__(self, whole: Turn) -> None:
        super().__init__()
        self._whole = whole

    def take(self, act: Callable[..., Any], *given: object) -> Any:
        raise BusyOptimizer("This optimizer is part of a partition: it steps, loads and resets with the others. "
                            "Call the partition, or a copy of this part, .fresh(). Nothing was changed.")

    def join(self, act: Callable[..., Any], *given: object) -> Any:
        return self._whole.join(act, *given)


class _OwnHyperParameters(HyperParameters):
    """Those of what is around all parts are set for the whole."""

    def __setitem__(self, name: str, value: Any) -> None:
        rule = self._qualified(name).split(".")[0]
        if rule in [self._chain.names[k] for k in self._chain.outer]:
            raise ValueError(f"{name} of {self._chain.titles[rule]} is one for all parts: set it for the whole.")
        super().__setitem__(name, value)


class Part(Optimizer):
    """An optimizer among links that are those of a chain around all parts."""

    _view = _OwnHyperParameters

    def __init__(self, inside: Optimizer, around: tuple[Sequence[Link], Sequence[Link]]) -> None:
        self._lengths = len(around[0]), len(around[1])
        super().__init__(*around[0], inside, *around[1])

    def _chained(self, links: Sequence[Link]) -> Chain:
        return Chain(links, self._lengths)


def modifier(item: Any) -> Link:
    """A link beside a partition."""
    is_one = isinstance(item, Optimizer) or (isinstance(item, type) and issubclass(item, Optimizer))
    link = None if is_one else as_link(item)
    if link is None or link.rule.kind == "rule":
        raise FormulaError(f"A chain has exactly one rule or partition. Got {brief(item)} beside one: step them as two "
                           "optimizers, or let it be one of the parts.")
    return link


class Partition(Optimizer):
    """Several optimizers that step as one, each with its own leaves: see `partition`.

    Each part is an optimizer by itself, whose holder steps with the others'. It has a tree in which None stands for the
    leaves of the others, so that its paths are those of the whole. `around` are the links that stand before and behind
    it in a chain: each part has them in its own chain, where what the first ones sum over the tree is summed over all
    parts.
    """

    divides: ClassVar[type[ByLabel]] = ByLabel
    example = 'partition({"weights": Muon(), "rest": AdamW()}, label)'

    def __init__(self, parts: Mapping[str, Any], label: Any, options: Options,
                 around: tuple[Sequence[Link], Sequence[Link]] = ((), ())) -> None:
        kind = self.divides.kind
        options.check(kind)
        if not isinstance(parts, Mapping) or all(item is None for item in parts.values()):
            raise TypeError(f"parts of {kind} must be a dict of optimizers by name: {self.example}. "
                            f"Got {brief(parts)}.")
        for name in parts:
            if not isinstance(name, str) or not name or set("./") & set(name):
                raise ValueError(f"The name of a part must be text without '.' and '/'. Got {name!r}.")
        self._made = {name: self._as_part(item) for name, item in parts.items() if item is not None}
        self._parts = {name: Part(part, around) if any(around) else part for name, part in self._made.items()}
        self._chain = Chains(kind, {name: part._chain for name, part in self._parts.items()})
        self._stepper = Stepper(self._chain, {}, self.divides(parts, self._parts, label), options)
        self._attach()

    def _attach(self) -> None:
        """Have the parts step together."""
        stepper = self._stepper
        stepper.holders = {name: part._stepper.holders[""] for name, part in self._parts.items()}
        for part in self._parts.values():
            part._stepper.turn, part._stepper.options = PartsTurn(stepper.turn), stepper.options
            part._stepper.others, part._stepper.binding = stepper.others, None

    def _as_part(self, item: Any) -> Optimizer:
        """An optimizer of one's own for what was given as a part."""
        kind = self.divides.kind
        if isinstance(item, type) and issubclass(item, Optimizer):
            item = item()
        rule = item.rule if isinstance(item, Link) else item
        if isinstance(rule, Rule):
            if rule.kind != "rule":
                self._refuse_modifier(rule)
            item = Optimizer(item)
        if isinstance(item, Partition):
            raise FormulaError(f"A {kind} cannot have a {item.divides.kind} in it: one partition with all parts does "
                               "the same, with None for those whose leaves are left alone.")
        if not isinstance(item, Optimizer):
            raise FormulaError(f"A {kind} is made of optimizers, each a chain: {self.example}. Got {brief(item)}.")
        for name, value in item._stepper.options.given().items():
            raise FormulaError(f"{name}={value!r} of {item._chain.title} is for the whole {kind}: give it to "
                               f"{kind}(...).")
        return item.fresh()

    def _refuse_modifier(self, rule: Rule) -> None:
        own = next((name for name, h in rule.hyper.items() if h.default is not None), None)
        by_path = f"{rule.name}({own}=fallline.by_path(...))" if own else rule.name
        raise FormulaError(f"A {self.divides.kind} is made of optimizers, and {rule.name} is a modifier: let it act on "
                           f"some leaves by a setting that differs, chain({by_path}, ...), or give its chain to the "
                           "leaves.")

    def _links(self, name: str) -> tuple[list[Link], list[Link], list[Link]]:
        """The links of a part: those around it, before and behind, and its own."""
        holder = self._stepper.holders[name]
        before, after = holder.chain.around
        links = holder.chain.links(holder.settings)
        return links[:before], links[len(links) - after :], links[before : len(links) - after]

    def _inside(self, name: str) -> Optimizer:
        """A part as it would be by itself, without what is around all, and without state."""
        inside = self._made[name].fresh()
        (holder,) = inside._stepper.holders.values()
        holder.settings = {f"{own}.{h}": value for own, link in zip(holder.chain.names, self._links(name)[2])
                           for h, value in link.settings.items()}
        return inside

    def within(self, before: Sequence[Any], after: Sequence[Any], options: Options) -> Partition:
        """The same among links; raises FormulaError for those that cannot stand there."""
        if given := self._stepper.options.given():
            raise FormulaError(f"{', '.join(given)} of {self._chain.title} is for the whole chain: give it to "
                               "chain(...).")
        own_before, own_after, _ = self._links(next(iter(self._parts)))
        around = [*map(modifier, before), *own_before], [*own_after, *map(modifier, after)]
        for links, kind, should in ((around[0], "after", "the increment and must stand behind"),
                                    (around[1], "before", "the gradient and must stand before")):
            if wrong := [link.rule.name for link in links if link.rule.kind == kind]:
                raise FormulaError(f"{wrong[0]} modifies {should} the {self.divides.kind}.")
        for rule in (link.rule for link in around[1]):
            if any(total.over == "tree" for reading in as_written(rule).readings for total in reading.totals):
                raise FormulaError(f"{rule.title} sums over the tree and stands behind a {self.divides.kind}, whose "
                                   "parts are not computed together: give it to the chains of the parts.")
        division = self._division
        parts = {name: self._inside(name) if name in self._parts else None for name in division.names}
        return type(self)(parts, division.label, options, around)

    @property
    def _division(self) -> ByLabel:
        division = self._stepper.division
        assert isinstance(division, ByLabel)
        return division

    # ---- what it knows -----------------------------------------------------------------------------------------------

    @property
    def parts(self) -> Mapping[str, Optimizer]:
        """The parts by name, with their state and their hyper-parameters, which can be set.

        >>> import fallline as fl
        >>> opt = fl.partition({"weights": fl.Adam(), "rest": fl.SGD()}, lambda path: "rest")
        >>> opt.parts["rest"].lr = 0.5
        >>> opt
        partition({'weights': Adam(lr=0.001, beta1=0.9, beta2=0.999, eps=1e-08), 'rest': SGD(lr=0.5)}, <lambda>)
        """
        return MappingProxyType(PartsByName(self._parts))

    @property
    def state(self) -> Mapping[str, Any]:
        """The state of each part by name, like `Optimizer.state`; None stands for the leaves of the other parts."""
        return MappingProxyType(SlotsOfParts({name: Slots(part.state, part._chain)
                                              for name, part in self._parts.items()}))

    def _built(self) -> dict[str, Any]:
        parts = {name: {**self._parts[name]._built(), "class": type(self._made[name]).__name__, "options": {}}
                 if name in self._parts else None for name in self._division.names}
        around = next(iter(self._parts.values()))._chain.around
        return {"class": type(self).__name__, "parts": parts, "around": list(around),
                "options": self._stepper.options.saved()}

    def fresh(self) -> Partition:
        """Return a copy with the same parts, hyper-parameters and options, and no state."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _parts={name: part.fresh() for name, part in self._parts.items()},
                              _stepper=self._stepper.fresh({}))
        other._attach()
        return other

    def _carried(self) -> dict[str, Any]:
        # the parts go by themselves: who has one of them has it of the copy
        return {**self.__dict__, "_stepper": self._stepper.apart({})}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        steps = {name: part.t for name, part in self._parts.items() if part._chain.gathers is None}
        if len(set(steps.values())) > 1:
            raise BusyOptimizer(f"{self._chain.title} was copied or pickled while another thread stepped it: its parts "
                                f"have taken different numbers of steps ({steps}). Use a lock.")
        self._attach()
        self._stepper.bind_again()

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name.isidentifier()]

    def _described(self) -> str:
        before, after, _ = self._links(next(iter(self._parts)))
        return written([*before, self._alone(), *after])

    def _sections(self) -> list[tuple[str, Link]]:
        before, after, _ = self._links(next(iter(self._parts)))
        inside = [(f"{name}: {link.title or link.rule.name}", link) for name in self._parts
                  for _, link in self._inside(name)._sections()]
        return [*((link.rule.name, link) for link in before), *inside, *((link.rule.name, link) for link in after)]

    def _alone(self) -> str:
        """How it is written but for what is around it."""
        given = [f"{name!r}: {self._inside(name)._described() if name in self._parts else None}"
                 for name in self._division.names]
        return f"{self.divides.kind}({{{', '.join(given)}}}, {shown(self._division.label)})"


class Mask(Partition):
    """An optimizer for some of the leaves: see `mask`."""

    divides = ByMask
    example = "mask(by, Adam())"

    def __init__(self, parts: Mapping[str, Any], label: Any, options: Options,
                 around: tuple[Sequence[Link], Sequence[Link]] = ((), ())) -> None:
        if parts["stepped"] is None:
            raise TypeError(f"mask takes an optimizer for the leaves that are stepped: {self.example}. Got None.")
        super().__init__({"stepped": parts["stepped"], "left": None}, label, options, around)

    def _alone(self) -> str:
        return f"mask({shown(self._division.label)}, {self._inside('stepped')._described()})"
