"""Trace a chain of rules into a straight-line program.

The formulas are called with symbols; no source code is read, so closures, lambdas and helper functions work.
What depends on hyper-parameters and t alone becomes the program's *scalars*: one compiled function, run once per step
in float64. The rest becomes *code*: operations over arrays, in order, each value computed once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from fallline._formula.program import (
    ACROSS,
    INCREMENT,
    Computed,
    Instruction,
    Program,
    StateName,
    Total,
    TotalName,
    source_of,
)
from fallline._formula.rule import Rule
from fallline._formula.symbols import Arrival, Symbol, one_number, per_coordinate
from fallline._formula.words import SCOPES, TRACED, at_work, begun, flush, settle
from fallline.errors import FormulaError, placed

__all__ = ["Traced", "arrives", "as_written", "held", "leaves_increment", "of_function", "resting", "trace", "turns"]


class Traced(NamedTuple):
    """A rule as it stands in a chain: its state slots and hyper-parameters by the names they have there, and whether
    its totals over the tree are those ACROSS the trees of several chains."""

    rule: Rule
    slots: Mapping[str, str]
    hyper: Mapping[str, str]
    across: bool = False


def trace(chain: Sequence[Traced], into: str) -> Program:
    """The program of a chain; `into` is "x" (advance the parameter) or INCREMENT (give it).

    Raises FormulaError, naming what to write instead, for a formula outside the vocabulary, and for one that says
    something else each time it is called.
    """
    program = _once(chain, into)
    if not all(link.rule.built_in for link in chain) and repr(_once(chain, into)) != repr(program):
        titles = [link.rule.title for link in chain if repr(as_written(link.rule)) != repr(as_written(link.rule))]
        raise FormulaError(f"In {', '.join(titles)}: the formula gives a different result each time it is called. It "
                           "is traced once, not called at every step, so a random number, a counter or a clock in it "
                           "would never change: use a function of t, or a schedule.")
    return program


def _once(chain: Sequence[Traced], into: str) -> Program:
    symbols = _given()
    state: dict[str, Any] = {}
    value = symbols["g"]
    for link in chain:
        value = _call(link, value, symbols, state)
    increment = settle(value)
    outputs = {into: symbols["x"] + increment if into == "x" else increment}
    outputs |= {name: flush(new) for name, new in state.items() if new.array}
    return _Graph(outputs, {name: new for name, new in state.items() if not new.array}, chain).program()


def held(link: Traced, into: str) -> Program:
    """The program of the calls in which a chain does not step: by its first rule, which gives new state alone.

    If it were to go into "x", the parameter is an input, so that it is looked at as in the calls that step.
    """
    symbols, rule = _given(), link.rule
    assert rule.hold is not None
    slots = [_slot(rule, name, link.slots[name], symbols) for name in rule.slots]
    named = [p.name for p in inspect.signature(rule.hold).parameters.values() if p.kind is p.KEYWORD_ONLY]
    hyper = {name: Symbol("hyper", (link.hyper[name],), array=False) for name in named}
    new = dict(zip(link.slots.values(), rule.hold(symbols["g"], *slots, **hyper)))
    arrays = {name: flush(per_coordinate(value)) for name, value in new.items() if value.array}
    graph = _Graph(arrays, {name: value for name, value in new.items() if not value.array}, [link])
    program = graph.program()
    if into != "x":
        return program
    code = tuple(Instruction(op, tuple(v + (v >= len(program.inputs)) for v in operands))
                 for op, operands in program.code)
    outputs = tuple((name, v + (v >= len(program.inputs))) for name, v in program.outputs)
    return program._replace(inputs=(*program.inputs, "x"), code=code, outputs=outputs)


def resting(link: Traced) -> Program | None:
    """The program of the point to report, as an INCREMENT's would be; None where that is the parameter."""
    rule, symbols = link.rule, _given()
    if rule.rest is None:
        return None
    names = list(inspect.signature(rule.rest).parameters)[1:]
    given = {name: _slot(rule, name, link.slots[name], symbols) if name in rule.slots else
             Symbol("hyper", (link.hyper[name],), array=False) for name in names}
    return _Graph({INCREMENT: per_coordinate(rule.rest(symbols["x"], **given))}, {}, [link]).program()


def of_function(function: Callable[..., Sequence[Any]], arrays: Sequence[str], into: Sequence[str]) -> Program:
    """The program of a plain function of arrays, by these names, which gives arrays `into` those.

    Raises FormulaError as `trace` does.
    """
    values = function(*(Symbol("input", (name,), array=True) for name in arrays))
    return _Graph(dict(zip(into, map(per_coordinate, values))), {}, ()).program()


def as_written(rule: Rule) -> Program:
    """The program of one rule by itself, with nothing added to its formula."""
    link = Traced(rule, {slot: f".{slot}" for slot in rule.slots}, {name: name for name in rule.hyper})
    state: dict[str, Any] = {}
    symbols = _given()
    value = _call(link, symbols["g"], symbols, state)
    outputs = {INCREMENT: value, **{name: new for name, new in state.items() if new.array}}
    return _Graph(outputs, {name: new for name, new in state.items() if not new.array}, [link]).program()


def leaves_increment(rule: Rule) -> bool:
    """Whether a modifier of the increment returns it as it is."""
    program = as_written(rule)
    increment = dict(program.outputs)[INCREMENT]
    return program.inputs[increment : increment + 1] == ("g",)


@lru_cache(maxsize=256)
def arrives(rule: Rule) -> bool:
    """Whether a modifier of the increment says where the parameter is to come."""
    link = Traced(rule, {slot: f".{slot}" for slot in rule.slots}, {name: name for name in rule.hyper})
    symbols = _given()
    return rule.kind == "after" and isinstance(_call(link, symbols["g"], symbols, {}), Arrival)


def turns(rule: Rule) -> bool:
    """Whether a modifier of the gradient returns it with its sign reversed, so that the chain climbs."""
    if rule.kind != "before":
        return False
    program = as_written(rule)
    return program.inputs == ("g",) and program.code == (Instruction("neg", (0,)),) and not rule.slots


def _given() -> dict[str, Symbol]:
    return {"g": Symbol("input", ("g",), array=True), "x": Symbol("input", ("x",), array=True),
            "t": Symbol("t", (), array=False)}


def _call(link: Traced, value: Any, symbols: dict[str, Symbol], state: dict[str, Any]) -> Any:
    """Apply one rule of the chain to the gradient or increment so far."""
    rule = link.rule
    given = {**symbols, "g": value, "d": value}
    slots = [_slot(rule, name, link.slots[name], given) for name in rule.slots]
    hyper = {name: Symbol("hyper", (qualified,), array=False) for name, qualified in link.hyper.items()}
    try:
        with at_work(TRACED):
            returned = rule.formula(*(given[name] for name in rule.given), *slots, **hyper)
        result, new = rule.split(returned)
        result = per_coordinate(result)
        for name, value in zip(rule.slots, new):
            state[link.slots[name]] = one_number(value, name) if name in rule.scopes else per_coordinate(value)
    except FormulaError as error:
        raise placed(error, rule.title, rule.formula) from None
    if link.across:
        _put_across([result, *(state[link.slots[name]] for name in rule.slots)])
    return result


def _put_across(symbols: Iterable[Symbol]) -> None:
    """Have the totals over the tree that these are made of be those across the trees."""
    stack, met = list(symbols), set()
    while stack:
        symbol = stack.pop()
        if id(symbol) not in met:
            met.add(id(symbol))
            stack.extend(a for a in symbol.args if isinstance(a, Symbol))
            if symbol.op == "reduce" and symbol.args[2] == "tree":
                symbol.args = (*symbol.args[:2], ACROSS)


def _slot(rule: Rule, name: str, qualified: str, given: Mapping[str, Symbol]) -> Any:
    """A state slot as its formula gets it."""
    if name in rule.scopes:
        return Symbol("hyper", (StateName(f"state {qualified}"),), array=False)
    start = rule.slots[name]
    symbol = Symbol("input", (qualified,), array=True)
    return begun(symbol, given[start]) if isinstance(start, str) and start in ("x", "g") else symbol


class _Graph:
    """Symbols put in order: equal ones once, each with the number of reading programs that must come before it."""

    def __init__(self, outputs: Mapping[str, Symbol], numbers: Mapping[str, Symbol], chain: Sequence[Traced]) -> None:
        self._numbers: dict[tuple, int] = {}  # what a symbol computes -> its number
        self._of: dict[int, int] = {}  # id of a symbol -> its number
        self._symbols: list[Symbol] = []
        self._operands: list[tuple[int, ...]] = []
        self._hyper: list[frozenset[str]] = []  # the hyper-parameters and numbers each depends on
        self._level: list[int] = []
        self._outputs = {name: self._number(symbol) for name, symbol in outputs.items()}
        self._states = {name: self._number(symbol) for name, symbol in numbers.items()}
        self._scopes = {link.slots[name]: (link.rule, over)
                        for link in chain for name, over in link.rule.scopes.items()}
        for name in numbers:
            self._check_scope(name)

    def _number(self, root: Symbol) -> int:
        stack = [root]
        while stack:  # no recursion: a formula may be a long sum
            symbol = stack[-1]
            missing = [a for a in symbol.args if isinstance(a, Symbol) and id(a) not in self._of]
            if missing:
                stack.extend(missing)
            else:
                self._add(stack.pop())
        return self._of[id(root)]

    def _add(self, symbol: Symbol) -> None:
        operands = tuple(self._of[id(a)] for a in symbol.args if isinstance(a, Symbol))
        key: tuple[Any, ...] = (symbol.op, operands, *(str(a) for a in symbol.args if not isinstance(a, Symbol)))
        if key not in self._numbers:
            self._numbers[key] = len(self._symbols)
            self._symbols.append(symbol)
            self._operands.append(operands)
            own = symbol.args if symbol.op == "hyper" else ()
            self._hyper.append(frozenset(own).union(*(self._hyper[o] for o in operands)))
            self._level.append(max((self._level[o] for o in operands), default=0) + (symbol.op == "reduce"))
        self._of[id(symbol)] = self._numbers[key]

    def _check_scope(self, name: str) -> None:
        """Refuse a number of the tree that is made of a leaf's, which it cannot be for all of them."""
        rule, over = self._scopes[name]
        leaf = {StateName(f"state {slot}") for slot, (_, other) in self._scopes.items() if other == "leaf"}
        if over == "tree" and not self._direct(self._states[name]).isdisjoint({*leaf, "leaf"}):
            raise FormulaError(f'In {rule.title}: {name.split(".")[-1]} is one number of the tree, and is '
                               'made of one of a leaf: write over="tree" in that too, or over="leaf" in both.')

    def _direct(self, root: int) -> frozenset[str]:
        """What a scalar is made of, not counting what its totals are made of."""
        found: set[str] = set()
        for k in self._reach([root]):
            symbol = self._symbols[k]
            found.update(symbol.args if symbol.op == "hyper" else symbol.args[2:] if symbol.op == "reduce" else ())
        return frozenset(found)

    def _reach(self, roots: Sequence[int]) -> list[int]:
        """The numbers of the symbols that these are made of, in order, up to totals."""
        found = set(roots)
        stack = list(found)
        while stack:
            k = stack.pop()
            new = () if self._symbols[k].op == "reduce" else [o for o in self._operands[k] if o not in found]
            found.update(new)
            stack.extend(new)
        return sorted(found)

    def program(self) -> Program:
        """The last program, with its readings."""
        last = self._part(self._outputs, self._states)
        needed = self._totals([*self._outputs.values(), *self._states.values()])
        readings: list[Program] = []
        for level in range(max((self._level[k] for k in needed), default=0), 0, -1):
            now = [k for k in needed if self._level[k] == level]
            values = [self._operands[k][0] for k in now]
            totals = tuple(Total(TotalName(f"total {k}"), *self._symbols[k].args[1:]) for k in now)
            program = self._part({total.name: v for total, v in zip(totals, values)}, {}, self._gradient())
            readings.insert(0, program._replace(totals=totals))
        return last._replace(
            readings=tuple(readings),
            powers=_settings(self._hyper[k] for k, s in enumerate(self._symbols) if s.op in ("power", "log", "exp")),
            single=_settings(map(self._direct, self._states.values())),
            common=_settings(self._direct(k) for name, k in self._states.items() if self._scopes[name][1] == "tree"),
        )

    def _totals(self, roots: Sequence[int]) -> list[int]:
        """The numbers of all totals that these are made of, in order."""
        found: set[int] = set()
        while new := {k for k in self._reach(roots) if self._symbols[k].op == "reduce"} - found:
            found |= new
            roots = [self._operands[k][0] for k in new]
        return sorted(found)

    def _gradient(self) -> list[int]:
        """The number of the gradient, which every reading has as an input, as it tells which leaves take part."""
        return [k for k, symbol in enumerate(self._symbols) if symbol.op == "input" and symbol.args == ("g",)]

    def _part(self, outputs: Mapping[str, int], states: Mapping[str, int], others: Sequence[int] = ()) -> Program:
        """The program of some of the symbols; totals are numbers known before."""
        reached = self._reach([*outputs.values(), *states.values(), *others])
        op_of, array = {k: self._symbols[k].op for k in reached}, {k: self._symbols[k].array for k in reached}
        inputs = [k for k in reached if op_of[k] == "input"]
        arrays = [k for k in reached if array[k] and op_of[k] != "input"]
        scalars = list(dict.fromkeys(o for k in arrays for o in self._operands[k] if not array[o]))
        index = {k: n for n, k in enumerate([*inputs, *scalars, *arrays])}
        singles = [k for k in reached if not array[k]]
        step_of = {k: n for n, k in enumerate(singles)}
        hyper = tuple(self._name(k) for k in singles if op_of[k] in ("hyper", "reduce"))
        steps = tuple(self._step(k, step_of, hyper) for k in singles)
        wanted = tuple(step_of[k] for k in scalars)
        numbers = tuple((name, step_of[k]) for name, k in states.items())
        return Program(
            inputs=tuple(self._symbols[k].args[0] for k in inputs),
            scalars=wanted,
            code=tuple(Instruction(op_of[k], tuple(index[o] for o in self._operands[k])) for k in arrays),
            outputs=tuple((name, index[k]) for name, k in outputs.items()),
            source=source_of(steps, wanted + tuple(k for _, k in numbers), hyper),
            hyper=hyper,
            powers=frozenset(),
            steps=steps,
            numbers=numbers,
        )

    def _name(self, k: int) -> str:
        symbol = self._symbols[k]
        return TotalName(f"total {k}") if symbol.op == "reduce" else symbol.args[0]

    def _step(self, k: int, step_of: Mapping[int, int], hyper: tuple[str, ...]) -> Instruction:
        symbol = self._symbols[k]
        if symbol.op in ("hyper", "reduce"):
            return Instruction("hyper", (hyper.index(self._name(k)),))
        if symbol.op == "constant":
            return Instruction("constant", symbol.args)
        return Instruction(symbol.op, tuple(step_of[o] for o in self._operands[k]))


def _settings(names: Iterable[frozenset[str]]) -> frozenset[str]:
    """The hyper-parameters among these names."""
    return frozenset(name for some in names for name in some
                     if not isinstance(name, Computed) and name not in (*SCOPES, ACROSS))
