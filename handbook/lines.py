"""A rule's formula as the lines that a paper would print.

The formula is called once with symbols, as when it is traced, but not cut into single operations. Each new state is a
line, so is the increment, and so is every local name that the formula's author gave to a value on the way.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, NamedTuple

from fallline._formula.program import INCREMENT
from fallline._formula.rule import Rule
from fallline._formula.symbols import Symbol, one_number, per_coordinate

__all__ = ["ATOMS", "Line", "lines", "rest"]

ATOMS = ("input", "hyper", "t", "tiny", "constant", "old", "named")


class Line(NamedTuple):
    """`name` takes `value`: a state slot, INCREMENT, or a shorthand of the lines below it.

    In the value, what has a line above is the symbol "named"; a state slot that has a new value already is "old".
    """

    name: str
    value: Symbol
    state: bool


def lines(rule: Rule) -> list[Line]:
    """The lines in an order in which they can be computed, state in the order of the signature as far as may be."""
    increment, state, local = _call(rule)
    numbers = _Numbers()
    own = {slot: new for slot, new in state.items() if not _is_input(new, slot)} | {INCREMENT: increment}
    values = {**own, **{name: value for name, value in local.items() if name not in own}}
    names: dict[int, str] = {}  # what has a line: its number, its name
    for name, value in values.items():
        if value.op not in ATOMS:
            names.setdefault(numbers[value], name)
    values = {name: value for name, value in values.items() if name in own or names.get(numbers[value]) == name}
    made_of = {name: _made_of(name, value, names, numbers) for name, value in values.items()}
    done: set[str] = set()
    found = []
    for name in _ordered(own, made_of, set(rule.slots)):
        found.append(Line(name, _with_names(name, values[name], names, numbers, done), name in rule.slots))
        done |= {name} & set(rule.slots)
    return found


def rest(rule: Rule) -> Symbol | None:
    """The point to report, where that is not the parameter."""
    return None if rule.rest is None else _with_symbols(rule.rest, rule.scopes)


def _call(rule: Rule) -> tuple[Symbol, dict[str, Symbol], dict[str, Symbol]]:
    """The increment, the new state, and the values that have a name within the formula, or within one it calls."""
    local: dict[str, Symbol] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and not frame.f_globals["__name__"].startswith("fallline._formula."):
            arguments = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount]
            local.update({name: value for name, value in frame.f_locals.items()
                          if isinstance(value, Symbol) and name not in arguments})

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        result = _with_symbols(rule.formula, rule.scopes)
    finally:
        sys.setprofile(before)
    increment, new = rule.split(result)
    state = {slot: one_number(value, slot) if slot in rule.scopes else per_coordinate(value)
             for slot, value in zip(rule.slots, new)}
    arguments = {*rule.given, *rule.slots, *rule.hyper}
    return per_coordinate(increment), state, {name: value for name, value in local.items() if name not in arguments}


def _with_symbols(formula: Callable[..., Any], scopes: Mapping[str, str]) -> Any:
    """What a formula returns for symbols that have the names of its arguments."""
    given, hyper = [], {}
    for p in inspect.signature(formula).parameters.values():
        if p.kind is p.KEYWORD_ONLY:
            hyper[p.name] = Symbol("hyper", (p.name,), array=False)
        elif p.name == "t":
            given.append(Symbol("t", (), array=False))
        else:
            given.append(Symbol("input", (p.name,), array=p.name not in scopes))
    return formula(*given, **hyper)


def _is_input(value: Symbol, name: str) -> bool:
    return value.op == "input" and value.args == (name,)


class _Numbers:
    """Symbols numbered by what they compute, so that equal ones are known."""

    def __init__(self) -> None:
        self._of: dict[tuple[Any, ...], int] = {}
        self._seen: dict[int, tuple[Symbol, int]] = {}  # the symbol is kept, lest its id be given away

    def __getitem__(self, symbol: Symbol) -> int:
        if id(symbol) not in self._seen:
            key = (symbol.op, *(self[a] if isinstance(a, Symbol) else str(a) for a in symbol.args))
            self._seen[id(symbol)] = symbol, self._of.setdefault(key, len(self._of))
        return self._seen[id(symbol)][1]


class _Parts(NamedTuple):
    """What a line is made of: the names of other lines, and the state slots as they were before the step."""

    names: set[str]
    slots: set[str]


def _made_of(own: str, value: Symbol, names: Mapping[int, str], numbers: _Numbers) -> _Parts:
    parts = _Parts(set(), set())
    for symbol in _walk(own, value, names, numbers):
        name = names.get(numbers[symbol])
        if name not in (None, own):
            parts.names.add(name)
        elif symbol.op == "input":
            parts.slots.add(symbol.args[0])
    return parts


def _walk(own: str, value: Symbol, names: Mapping[int, str], numbers: _Numbers) -> Iterator[Symbol]:
    """A line's symbols, not going into those that have a line of their own."""
    yield value
    if names.get(numbers[value]) in (None, own):
        for part in value.args:
            if isinstance(part, Symbol):
                yield from _walk(own, part, names, numbers)


def _ordered(own: Mapping[str, Any], made_of: Mapping[str, _Parts], slots: set[str]) -> list[str]:
    """The lines that state and increment need, each behind those it is made of, and before what it reads changes."""
    needed: dict[str, set[str]] = {}  # of each line, all lines that must come before it
    for name in own:
        _reach(name, made_of, needed)
    order: list[str] = []
    begun: set[str] = set()

    def put(name: str) -> None:
        begun.add(name)
        readers = [o for o in needed if name in slots and name in made_of[o].slots]
        for other in [*(o for o in needed if o in made_of[name].names), *readers]:
            if other not in begun and needed[other].isdisjoint(begun.difference(order)):
                put(other)
        order.append(name)

    for name in own:
        if name not in begun:
            put(name)
    return order


def _reach(name: str, made_of: Mapping[str, _Parts], needed: dict[str, set[str]]) -> set[str]:
    if name not in needed:
        parts = [_reach(other, made_of, needed) | {other} for other in sorted(made_of[name].names)]
        needed[name] = set().union(*parts)
    return needed[name]


def _with_names(own: str, value: Symbol, names: Mapping[int, str], numbers: _Numbers, done: set[str]) -> Symbol:
    """A line's value with names in the place of what has a line."""
    name = names.get(numbers[value])
    if name not in (None, own):
        return Symbol("named", (name,), array=value.array)
    if value.op == "input" and value.args[0] in done:
        return Symbol("old", value.args, array=value.array)
    args = tuple(_with_names(own, a, names, numbers, done) if isinstance(a, Symbol) else a for a in value.args)
    return Symbol(value.op, args, array=value.array, truth=value.truth)
