"""Rules in a row: modifiers of the gradient, one rule, modifiers of the increment, with names for all they hold."""

from __future__ import annotations

import inspect
import itertools
import numbers
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import nan
from typing import Any, NamedTuple

from fallline._formula.program import INCREMENT, Program
from fallline._formula.rule import Hyper, Link, Rule
from fallline._formula.trace import Traced, arrives, held, leaves_increment, trace, turns
from fallline._messages.suggestions import of_another, unknown_setting
from fallline._messages.values import brief, shown
from fallline.errors import FormulaError

__all__ = ["Chain", "as_link", "distinct", "titled", "written"]

_PLACE = {"before": 0, "rule": 1, "after": 2}


class Gathers(NamedTuple):
    """Of a chain that steps at some calls only, the names of the slots that say what was gathered so far, of how many
    calls, of what weight together; and of the hyper-parameters that say how many calls make a step, and what one
    weighs."""

    sum: str
    calls: str
    total: str
    n: str
    weight: str


class Chain:
    """Rules in order, and the names that their state slots and hyper-parameters have together.

    A hyper-parameter is called "rule.name"; `short` maps the names that mean one thing in the whole chain to it. A
    hyper-parameter without default is the chain's of that name (`shared`). State slots are called by their own name,
    or "rule.slot" if several rules have that name.

    `around` says how many rules at its beginning and at its end are those of a chain around several (`partition`): what
    is summed over the tree by the first ones is summed over the trees of all.

    Raises FormulaError for anything but modifiers of the gradient, exactly one rule, modifiers of the increment.
    """

    def __init__(self, links: Sequence[Link], around: tuple[int, int] = (0, 0)) -> None:
        self.rules, self.around = tuple(link.rule for link in links), around
        self._written = [link.title or link.rule.name for link in links]
        self._check_order()
        self.names = distinct([r.name for r in self.rules])
        self.titles = {name: link.title or name for name, link in zip(self.names, links)}
        self.rule = next(r for r in self.rules if r.kind == "rule")
        self.rule_name = self.names[self.rules.index(self.rule)]
        self._check_points()
        self._check_arrival()
        self.hyper: dict[str, Hyper] = {f"{n}.{h.name}": h for n, r in self._named() for h in r.hyper.values()}
        self.short = self._short_names()
        self.slots = self._slot_names()

    def __reduce__(self) -> tuple[Any, ...]:
        return Chain, ([Link(rule, {}, title) for rule, title in zip(self.rules, self._written)], self.around)

    def __deepcopy__(self, memo: Any) -> Chain:
        return self

    def _named(self) -> Iterable[tuple[str, Rule]]:
        return zip(self.names, self.rules)

    def _check_order(self) -> None:
        own = [title for r, title in zip(self.rules, self._written) if r.kind == "rule"]
        if len(own) != 1:
            why = (": two would apply -lr twice and climb. Step them as two optimizers" if own else
                   ": add one, such as fallline.Adam(1e-3)")
            raise FormulaError(f"A chain has exactly one rule. Got {' and '.join(own) or 'none'}{why}.")
        for first in (r for r in self.rules[1:] if r.hold is not None):
            raise FormulaError(f"{first.name} must be outermost: {first.name}(n, chain(...)), with all modifiers of "
                               "the gradient inside.")
        for first, second in zip(self.rules, self.rules[1:]):
            if _PLACE[first.kind] > _PLACE[second.kind]:
                wrong, place = (second, "before") if second.kind == "before" else (first, "behind")
                what = "the gradient" if wrong.kind == "before" else "the increment"
                placed = sorted(zip(self.rules, self._written), key=lambda link: _PLACE[link[0].kind])
                right = ", ".join(title for _, title in placed)
                raise FormulaError(f"{wrong.name} modifies {what} and must stand {place} the rule {own[0]}: "
                                   f"chain({right}).")

    def _check_points(self) -> None:
        """Refuse what moves the parameter alone where the rule keeps other points that have to go along."""
        rest = self.rule.rest
        moving = [slot for slot in (inspect.signature(rest).parameters if rest else ()) if
                  self.rule.slots.get(slot) == "x"]
        for rule in (r for r in self.rules if r.kind == "after" and moving):
            if not leaves_increment(rule):
                title = self.titles[self.rule_name]
                remedy = (f"use its own, {title}({rule.name}=...)" if rule.name in self.rule.hyper else
                          "take a rule without such a point" if arrives(rule) else
                          "let it act on the gradient, as l2 does")
                raise FormulaError(f"{rule.name} moves the parameter, and not the point {moving[0]} that {title} keeps "
                                   f"beside it: {remedy}.")

    def _check_arrival(self) -> None:
        """Refuse what moves the parameter on from where a modifier has it come to lie."""
        arriving = [k for k, rule in enumerate(self.rules) if arrives(rule)]
        for k in range(arriving[0] + 1 if arriving else len(self.rules), len(self.rules)):
            if not leaves_increment(self.rules[k]):
                first, second = self._written[arriving[0]], self._written[k]
                raise FormulaError(f"{second} would move the parameter after {first} has placed it: put {first} "
                                   f"last, chain(..., {second}, {first}).")

    def _short_names(self) -> dict[str, str]:
        """Names without "rule." where they mean one value: that of the one rule that has it, for others too."""
        short: dict[str, str] = {}
        for name in dict.fromkeys(h.name for h in self.hyper.values()):
            owners = [q for q, h in self.hyper.items() if h.name == name and h.default is not None]
            owners = owners or [q for q, h in self.hyper.items() if h.name == name]
            if len(owners) == 1:
                short[name] = owners[0]
        return short

    def _slot_names(self) -> dict[tuple[str, str], str]:
        pairs = [(n, s) for n, r in self._named() for s in r.slots]
        own = [s for _, s in pairs]
        return {(n, s): s if own.count(s) == 1 and s not in ("g", "x") else f"{n}.{s}" for n, s in pairs}

    def qualify(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Hyper-parameters given by name or by "rule.name", all by "rule.name"; raises TypeError for unknown names."""
        unknown_setting(self.title, given, {**self.short, **({} if len(self.rules) == 1 else self.hyper)})
        return {self.short.get(name, name): value for name, value in given.items()}

    def by_holder(self, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The same by whose they are: this chain's, ""."""
        return {"": self.qualify(given)}

    def places(self, qualified: str) -> Mapping[str, str]:
        """Whose a hyper-parameter is, with what it is called there."""
        return {"": qualified}

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All hyper-parameters by "rule.name", defaults filled in; raises TypeError for what nothing gives a value.

        A hyper-parameter that takes its value from another of the chain is left out (see `source`).
        """
        settings = {}
        for qualified, hyper in self.hyper.items():
            if qualified in given:
                settings[qualified] = given[qualified]
            elif hyper.default is not None:
                settings[qualified] = hyper.default
            elif self.short.get(hyper.name, qualified) == qualified:
                owner = self.owner(qualified)
                raise TypeError(f"{owner} needs {hyper.name}: it has no default, and no other rule of the chain has "
                                f"one. Give it: {owner}({hyper.name}=...).")
        return settings

    def source(self, qualified: str, settings: Mapping[str, Any]) -> str:
        """The hyper-parameter whose value `qualified` has: its own, or the chain's of that name."""
        return qualified if qualified in settings else self.short[self.hyper[qualified].name]

    def owner(self, qualified: str) -> str:
        """What error messages call the rule that a hyper-parameter belongs to: "Adam", "weight_decay"."""
        return self.titles[qualified.split(".")[0]]

    def links(self, settings: Mapping[str, Any]) -> list[Link]:
        """The links that make this chain again, with these settings."""
        return [Link(rule, {h: settings[f"{name}.{h}"] for h in rule.hyper if f"{name}.{h}" in settings}, title)
                for (name, rule), title in zip(self._named(), self._written)]

    @property
    def title(self) -> str:
        """What error messages call the chain."""
        return titled(list(self.titles.values()), self.rules[0].hold is not None)

    @property
    def uphill(self) -> set[bool]:
        """Whether it climbs: one answer, or two where several chains differ (`parts.Chains`)."""
        return {sum(map(turns, self.rules)) % 2 == 1}

    def describe(self, settings: Mapping[str, Any]) -> str:
        """The chain as it would be written: "Adam(lr=0.001, ...)"."""
        return written(self.links(settings))

    def starts(self) -> dict[str, float | str]:
        """Where each state slot starts: a number or the qualified name of a hyper-parameter.

        Slots that start at the parameter or the gradient are NaN until a leaf's first step (see `words.begun`).
        """
        return {self.slots[n, s]: start if not isinstance(start, str) else f"{n}.{start}" if start in r.hyper else nan
                for n, r in self._named() for s, start in r.slots.items()}

    def scopes(self) -> dict[str, str]:
        """The state slots that are one number, with what for: "leaf" or "tree"."""
        return {self.slots[n, s]: over for n, r in self._named() for s, over in r.scopes.items()}

    def shape(self, slot: str, leaf: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a state slot of a leaf of some shape."""
        own = {self.slots[self.rule_name, s]: function for s, function in self.rule.shapes.items()}
        if slot not in own:
            return leaf
        shape = own[slot](leaf)
        if not isinstance(shape, (tuple, list)) or not all(isinstance(n, numbers.Integral) and n >= 0 for n in shape):
            raise FormulaError(f"The shape of state slot {slot} of {self.rule.title} must be a tuple of whole numbers "
                               f"≥ 0, such as shape[:1]. Got {shape!r} from the leaf's shape {leaf}.")
        return tuple(shape)

    @property
    def of_whole_leaf(self) -> frozenset[str]:
        """The hyper-parameters of a rule that is a function of whole leaves."""
        return frozenset(f"{self.rule_name}.{h}" for h in self.rule.hyper if self.rule.whole_leaf)

    @property
    def programs(self) -> list[Program]:
        """The programs of a step, and of calls that only gather."""
        held = self.holding(INCREMENT) if self.gathers else None
        return [program for program in (self.ahead, self.stepping, held) if program is not None]

    @property
    def ahead(self) -> Program | None:
        """The program of the modifiers before a rule of whole leaves; None if there are none."""
        return _ahead(self) if self.rule.whole_leaf else None

    @property
    def stepping(self) -> Program:
        """The program that advances the parameter."""
        return _program(self, "x")

    @property
    def updating(self) -> Program:
        """The program that gives the increment."""
        return _program(self, INCREMENT)

    @property
    def arrives(self) -> bool:
        """Whether it brings the parameter to a place, which an increment cannot."""
        return any(map(arrives, self.rules))

    @property
    def needs_parameters(self) -> bool:
        """Whether the increment depends on the parameters themselves."""
        ahead = self.ahead.reads if self.ahead is not None else ()
        return "x" in self.updating.reads or "x" in ahead or (self.rule.whole_leaf and "x" in self.rule.given)

    def holding(self, into: str) -> Program:
        """The program of the calls in which the chain does not step, if its first rule has such calls."""
        return _held(self, into)

    @property
    def gathers(self) -> Gathers | None:
        """What says which calls step; None: each does."""
        first, name = self.rules[0], self.names[0]
        if first.hold is None:
            return None
        gathered, calls, total = (self.slots[name, slot] for slot in ("sum", "calls", "total"))
        return Gathers(gathered, calls, total, f"{name}.n", f"{name}.weight")

    def __eq__(self, other: object) -> bool:
        """Chains of the same rules have the same names and so the same programs, whatever their settings."""
        return isinstance(other, Chain) and (self.rules, self.around) == (other.rules, other.around)

    def __hash__(self) -> int:
        return hash((self.rules, self.around))

    def traced(self) -> list[Traced]:
        """The rules with the names that their slots and hyper-parameters have in this chain."""
        return [Traced(r, {s: self.slots[n, s] for s in r.slots}, {h: f"{n}.{h}" for h in r.hyper}, k < self.around[0])
                for k, (n, r) in enumerate(self._named())]

    @property
    def outer(self) -> list[int]:
        """The rules, by place, of the chain around."""
        first, last = self.around
        return [k for k in range(len(self.rules)) if k < first or k >= len(self.rules) - last]

    def only_start(self) -> frozenset[str]:
        """The hyper-parameters that a state slot starts at and no formula reads, as far as formulas are traced."""
        started = {s for s in self.starts().values() if isinstance(s, str)}
        return frozenset(started - {q for program in self.programs for q in program.settings})


@lru_cache(maxsize=256)  # to trace costs a millisecond, and optimizers come by the thousand
def _program(chain: Chain, into: str) -> Program:
    return trace(chain.traced()[chain.rules.index(chain.rule) + 1 if chain.rule.whole_leaf else 0 :], into)


@lru_cache(maxsize=256)
def _ahead(chain: Chain) -> Program | None:
    before = chain.traced()[: chain.rules.index(chain.rule)]
    return trace(before, INCREMENT) if before else None


@lru_cache(maxsize=256)
def _held(chain: Chain, into: str) -> Program:
    return held(chain.traced()[0], into)


def written(links: Sequence[Link | str]) -> str:
    """How links are written, some of which may be written already."""
    first = links[0]
    if isinstance(first, Link) and first.rule.hold is not None:
        weight = first.settings["weight"]
        counts = "" if weight == 1.0 else f", weight={shown(weight)}"
        return f"{first.rule.name}({int(first.settings['n'])}, {written(links[1:])}{counts})"
    each = [link if isinstance(link, str) else
            f"{link.title or link.rule.name}({', '.join(f'{h}={shown(value)}' for h, value in link.settings.items())})"
            for link in links]
    return each[0] if len(each) == 1 else f"chain({', '.join(each)})"


def titled(names: Sequence[str], around: bool) -> str:
    """What error messages call a chain of links of these names, the first of which may go around the others."""
    if around:
        return f"{names[0]}({titled(names[1:], False)})"
    return names[0] if len(names) == 1 else f"chain({', '.join(names)})"


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names of the links; a second one of the same name gets a number."""
    result: list[str] = []
    for name in names:
        numbered = (f"{name}{k}" for k in itertools.count(2) if f"{name}{k}" not in names)
        candidates = itertools.chain([name], numbered)
        result.append(next(c for c in candidates if c not in result))
    return tuple(result)


def as_link(item: Any) -> Link:
    """A member of a chain as a link; raises FormulaError for what is no rule."""
    if isinstance(item, Link):
        return item
    if isinstance(item, Rule):
        return Link(item, {})
    raise FormulaError(f"A chain is made of rules, modifiers and optimizers. Got {brief(item)}.{_hint(item)}")


def _hint(item: Any) -> str:
    """What to write in the place of what is no rule."""
    schedules = sys.modules.get("fallline.schedules")  # which are loaded on first use
    if schedules is not None and issubclass(item if isinstance(item, type) else type(item), schedules.Schedule):
        return " A schedule is a setting of a rule: fallline.Adam(lr=cosine(1e-3, steps=10_000))."
    if other := of_another(item):
        return other
    if callable(item):
        return " Decorate it with fallline.rule, fallline.before or fallline.after."
    if isinstance(item, (list, tuple)):
        return " Give its members one by one: chain(*links)."
    if isinstance(item, str):
        return " Give the thing itself, not its name."
    if isinstance(item, numbers.Real):
        return " Settings of rules go by name: Optimizer(my_rule, lr=0.1)."
    if hasattr(item, "shape"):
        return " Parameters and gradients go to step: opt.step(params, grads)."
    return ""
