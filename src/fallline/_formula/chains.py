"""Several chains at once, and the names that all they hold have together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fallline._formula.chain import Chain, distinct, titled
from fallline._formula.ranges import Hyper
from fallline._messages.suggestions import unknown_setting
from fallline.errors import FormulaError

__all__ = ["Chains"]


class Chains:
    """The chains of a partition, and the names that all they hold have together.

    A hyper-parameter is called "part.rule.name", or "rule.name" if the rule is one of the chain around the partition
    (`Chain.around`), which is part of the chain of each; `short` maps what means that too: what its chain calls it,
    with the part's name before it, and without where no other part has that name.

    Raises FormulaError if a part has the name of a rule around.
    """

    def __init__(self, kind: str, chains: Mapping[str, Chain]) -> None:
        self._kind, self._chains = kind, chains
        first = next(iter(chains.values()))
        titles = [list(chain.titles.values()) for chain in chains.values()]
        before, after = first.around
        inner = [titled(own[before : len(own) - after], chain.rules[before].hold is not None)
                 for own, chain in zip(titles, chains.values())]
        around = [*titles[0][:before], f"{kind}({', '.join(inner)})", *titles[0][len(titles[0]) - after :]]
        self.title = titled(around, before > 0 and first.rules[0].hold is not None)
        self._outer = distinct([first.rules[k].name for k in first.outer])
        if taken := [part for part in chains if part in self._outer]:
            raise FormulaError(f"A part cannot be called {taken[0]}, like the modifier around it: choose another name.")
        self._places: dict[str, dict[str, str]] = {}  # of each hyper-parameter its name in the parts
        self._aliases: dict[str, dict[str, str]] = {"": {}, **{part: {} for part in chains}}  # "": of the rules around
        self._taken: dict[str, set[str]] = {holder: set() for holder in self._aliases}  # names that are no others'
        for part in chains:
            self._place(part)
        self.hyper: dict[str, Hyper] = {q: chains[part].hyper[own] for q, places in self._places.items()
                                        for part, own in [next(iter(places.items()))]}
        self.short = self._short_names()

    def __reduce__(self) -> tuple[Any, ...]:
        return Chains, (self._kind, self._chains)

    def __deepcopy__(self, memo: Any) -> Chains:
        return self

    def _place(self, part: str) -> None:
        """Give the hyper-parameters of a part their names here."""
        chain = self._chains[part]
        around = dict(zip([chain.names[k] for k in chain.outer], self._outer))
        several = len(chain.rules) - len(around) > 1
        for own, hyper in chain.hyper.items():
            rule, is_short = own.split(".")[0], chain.short.get(hyper.name) == own
            if rule in around and not is_short and hyper.name in chain.short:
                continue  # it has the value of one of the part's: weight_decay's lr
            holder, here = ("", f"{around[rule]}.{hyper.name}") if rule in around else (part, f"{part}.{own}")
            self._places.setdefault(here, {})[part] = own
            self._taken[holder].add(hyper.name)
            if is_short:
                self._aliases[holder][hyper.name] = here
            if several and holder:
                self._aliases[holder][own] = here

    def _short_names(self) -> dict[str, str]:
        """Names with the part's before them, and without where no other holder has that name."""
        alone, full = {}, {}
        for holder, own in self._aliases.items():
            for name, here in own.items():
                others = [o for o in self._aliases if o != holder]
                if name not in self._places and not any(name in self._aliases[o] or name in self._taken[o]
                                                        for o in others):
                    alone[name] = here
                if holder and f"{holder}.{name}" != here:
                    full[f"{holder}.{name}"] = here
        dotted = {name: q for name, q in alone.items() if "." in name}
        return {**dotted, **full, **{name: q for name, q in alone.items() if "." not in name}}

    def by_holder(self, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Hyper-parameters by any of their names, those of each part by "rule.name"; TypeError for unknown names."""
        unknown_setting(self.title, {n: v for n, v in given.items() if n not in self.hyper}, self.short)
        found: dict[str, dict[str, Any]] = {part: {} for part in self._chains}
        for name, value in given.items():
            for part, own in self.places(self.short.get(name, name)).items():
                found[part][own] = value
        return found

    def places(self, qualified: str) -> Mapping[str, str]:
        """The parts that have a hyper-parameter, with what it is called there."""
        return self._places[qualified]

    def name_of(self, part: str, own: str) -> str:
        """The shortest name here of what a part calls so."""
        q = next(q for q, places in self._places.items() if places.get(part) == own)
        return min((name for name, other in self.short.items() if other == q), key=len, default=q)

    def links(self, settings: Any) -> Any:
        """No rule can have them among its own."""
        raise FormulaError(f"A {self._kind} contains chains: pass it to fallline.chain, among modifiers, or to "
                           "fallline.accumulate.")

    @property
    def uphill(self) -> set[bool]:
        """As `Chain.uphill`, of all parts."""
        return {climbs for chain in self._chains.values() for climbs in chain.uphill}

    @property
    def arrives(self) -> bool:
        """Whether any brings the parameter to a place, which an increment cannot."""
        return any(chain.arrives for chain in self._chains.values())

    @property
    def needs_parameters(self) -> bool:
        """Whether the increment of a part depends on the parameters themselves."""
        return any(chain.needs_parameters for chain in self._chains.values())
