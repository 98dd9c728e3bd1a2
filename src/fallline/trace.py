"""Trace a chain of rules into a straight-line program.

The formulas are called once, with symbols; no source code is read, so closures, lambdas and helper functions work.
What depends on hyper-parameters and t alone becomes the program's *scalars*: one compiled function, run once per step
in float64. The rest becomes *code*: operations over arrays, in order, each value computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fallline.errors import FormulaError
from fallline.ops import Symbol, exp, flush, log, per_coordinate, settle
from fallline.schema import Rule

__all__ = ["INCREMENT", "OUTSIDE", "Instruction", "Program", "Traced", "as_written", "trace"]


INCREMENT = "->d"  # the output that holds the increment; no state slot can have this name
OUTSIDE = ("x", "g", INCREMENT)  # the arrays that come from the caller; all others are state


class Traced(NamedTuple):
    """A rule as it stands in a chain: its state slots and hyper-parameters by the names they have there."""

    rule: Rule
    slots: Mapping[str, str]
    hyper: Mapping[str, str]


class Instruction(NamedTuple):
    """One operation; `operands` are the numbers of the values it combines."""

    op: str
    operands: tuple[Any, ...]


class Program(NamedTuple):
    """A traced chain.

    Its values are numbered: first the `inputs` (arrays, by name), then the `scalars`, then the results of `code`.
    `outputs` says which value goes into which array: "x" the new parameter or INCREMENT, then the state.

    The scalars are some of the results of `steps`, by number: operations on t, tiny, constants (the operand is the
    number itself) and the hyper-parameters (the operand is the place in `hyper`). `source` is the steps as a Python
    function. `powers` are the hyper-parameters in powers, logarithms and exponentials.
    """

    inputs: tuple[str, ...]
    scalars: tuple[int, ...]
    code: tuple[Instruction, ...]
    outputs: tuple[tuple[str, int], ...]
    source: str
    hyper: tuple[str, ...]
    powers: frozenset[str]
    steps: tuple[Instruction, ...] = ()

    @property
    def arrays(self) -> tuple[str, ...]:
        """The names of all arrays the program touches: its inputs, then the outputs that are no inputs."""
        return self.inputs + tuple(name for name, _ in self.outputs if name not in self.inputs)

    @property
    def numbers(self) -> Callable[..., tuple[Any, ...]]:
        """The scalars as a function of (t, tiny, *hyper), for numbers; raises where Python's arithmetic does."""
        return _fast(self.source)

    def evaluate(self, hyper: Sequence[Any], t: int, tiny: float) -> tuple[Any, ...]:
        """The scalars at step t, in float64, for hyper-parameters in the order of `hyper` (numbers, or float64 arrays).

        Scalars follow IEEE (1/0 is inf, √-1 is NaN): what Python answers with an exception is computed by NumPy.
        """
        if np.ndarray not in map(type, hyper):
            try:
                return self.numbers(t, tiny, *hyper)
            except (ArithmeticError, ValueError):
                hyper = [np.float64(h) for h in hyper]
        with np.errstate(all="ignore"):
            return _careful(self.source)(np.float64(t), tiny, *hyper)


@lru_cache(maxsize=256)  # (not cached_property, which on Python 3.11 holds a lock that a fork may meet)
def _fast(source: str) -> Callable[..., tuple]:
    return _compile(source, {"sqrt": math.sqrt, "log": log, "exp": exp, "abs": abs, "where": _choose})


@lru_cache(maxsize=256)
def _careful(source: str) -> Callable[..., tuple]:
    return _compile(source, {"sqrt": np.sqrt, "log": lambda a: np.float64(log(a)), "exp": lambda a: np.float64(exp(a)),
                             "abs": np.abs, "where": np.where})


def _choose(condition: bool, a: float, b: float) -> float:
    return a if condition else b


def _compile(source: str, words: dict[str, Any]) -> Callable[..., tuple]:
    scope: dict[str, Any] = {**words, "power": power, "inf": math.inf, "nan": math.nan}
    exec(compile(source, "<scalars of a formula>", "exec"), scope)
    return scope["scalars"]


def power(base: Any, exponent: Any) -> Any:
    """base**exponent; by repeated squaring if the exponent is whole, so that no two machines differ.

    The exponent is cut in two, so that of t, t + 1, ... only the small part has to be looked up again.

    >>> power(0.5, 3), power(2.0, -1), power(1.0, 10**18)
    (0.125, 0.5, 1.0)
    """
    if type(exponent) is not int:
        if not math.isfinite(exponent) or exponent != int(exponent):
            with np.errstate(all="ignore"):
                return np.float64(base) ** np.float64(exponent)
        exponent = int(exponent)
    if 0 <= exponent < 256:
        return _whole_power(base, exponent)
    n = abs(exponent)
    result = _whole_power(_whole_power(base, 256), n >> 8) * _whole_power(base, n & 255)
    return 1.0 / result if exponent < 0 else result


@lru_cache(maxsize=4096, typed=True)  # typed: NumPy's floats divide by zero, Python's raise
def _whole_power(base: Any, n: int) -> Any:
    result, square = type(base)(1.0), base * 1.0
    while n:
        if n & 1:
            result = result * square
        n >>= 1
        if n:
            square = square * square
    return result


def trace(chain: Sequence[Traced], into: str) -> Program:
    """The program of a chain; `into` is "x" (advance the parameter) or INCREMENT (give it).

    Raises FormulaError, naming what to write instead, for a formula outside the vocabulary.
    """
    names = ["g", "x", "t", *(q for link in chain for q in link.slots.values())]
    symbols = {name: Symbol("input", (name,), array=True) for name in names}
    symbols["t"] = Symbol("t", (), array=False)
    state: dict[str, Any] = {}
    value = symbols["g"]
    for link in chain:
        value = _call(link, value, symbols, state)
    increment = settle(value)
    outputs = {into: symbols["x"] + increment if into == "x" else increment}
    outputs |= {name: flush(new) for name, new in state.items()}
    return _Linearised(outputs).program()


def as_written(rule: Rule) -> Program:
    """The program of one rule by itself, with nothing added to its formula."""
    link = Traced(rule, {slot: f".{slot}" for slot in rule.slots}, {name: name for name in rule.hyper})
    symbols = {name: Symbol("input", (name,), array=True) for name in ("g", "x", *link.slots.values())}
    state: dict[str, Any] = {}
    value = _call(link, symbols["g"], symbols | {"t": Symbol("t", (), array=False)}, state)
    return _Linearised({INCREMENT: value, **state}).program()


def _call(link: Traced, value: Any, symbols: dict[str, Symbol], state: dict[str, Any]) -> Any:
    """Apply one rule of the chain to the gradient or increment so far."""
    rule = link.rule
    given = [value if name in ("g", "d") else symbols[name] for name in rule.given]
    slots = [symbols[link.slots[name]] for name in rule.slots]
    hyper = {name: Symbol("hyper", (qualified,), array=False) for name, qualified in link.hyper.items()}
    try:
        result, new = rule.split(rule.formula(*given, *slots, **hyper))
        result = per_coordinate(result)
        state.update(zip(link.slots.values(), map(per_coordinate, new)))
    except FormulaError as error:
        raise FormulaError(f"In {rule.kind} {rule.name}: {error}") from None
    return result


class _Linearised:
    """Symbols put in order: equal ones once, scalars apart from code."""

    def __init__(self, outputs: Mapping[str, Symbol]) -> None:
        self._numbers: dict[tuple, int] = {}  # what a symbol computes -> its number
        self._of: dict[int, int] = {}  # id of a symbol -> its number
        self._symbols: list[Symbol] = []
        self._operands: list[tuple[int, ...]] = []
        self._hyper: list[frozenset[str]] = []  # the hyper-parameters each depends on
        self._roots = {name: self._number(symbol) for name, symbol in outputs.items()}

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
        key: tuple[Any, ...] = (symbol.op, operands or tuple(map(str, symbol.args)))
        if key not in self._numbers:
            self._numbers[key] = len(self._symbols)
            self._symbols.append(symbol)
            self._operands.append(operands)
            own = symbol.args if symbol.op == "hyper" else ()
            self._hyper.append(frozenset(own).union(*(self._hyper[o] for o in operands)))
        self._of[id(symbol)] = self._numbers[key]

    def program(self) -> Program:
        inputs = [k for k, s in enumerate(self._symbols) if s.op == "input"]
        arrays = [k for k, s in enumerate(self._symbols) if s.array and s.op != "input"]
        scalars = list(dict.fromkeys(o for k in arrays for o in self._operands[k] if not self._symbols[o].array))
        index = {k: n for n, k in enumerate([*inputs, *scalars, *arrays])}
        numbers = [k for k, s in enumerate(self._symbols) if not s.array]
        step_of = {k: n for n, k in enumerate(numbers)}
        hyper = tuple(s.args[0] for s in self._symbols if s.op == "hyper")
        steps = tuple(Instruction(self._symbols[k].op, self._step_operands(k, step_of, hyper)) for k in numbers)
        wanted = tuple(step_of[k] for k in scalars)
        return Program(
            inputs=tuple(self._symbols[k].args[0] for k in inputs),
            scalars=wanted,
            code=tuple(Instruction(self._symbols[k].op, tuple(index[o] for o in self._operands[k])) for k in arrays),
            outputs=tuple((name, index[k]) for name, k in self._roots.items()),
            source=_source(steps, wanted, hyper),
            hyper=hyper,
            powers=frozenset().union(*(self._hyper[k] for k, s in enumerate(self._symbols)
                                       if s.op in ("power", "log", "exp"))),
            steps=steps,
        )

    def _step_operands(self, k: int, step_of: Mapping[int, int], hyper: tuple[str, ...]) -> tuple[Any, ...]:
        symbol = self._symbols[k]
        if symbol.op == "hyper":
            return (hyper.index(symbol.args[0]),)
        return symbol.args if symbol.op == "constant" else tuple(step_of[o] for o in self._operands[k])


def _source(steps: Sequence[Instruction], wanted: Sequence[int], hyper: Sequence[str]) -> str:
    """The scalars as the source of one Python function; each value is computed once."""
    head = f"def scalars({', '.join(['t', 'tiny', *(f'h{k}' for k in range(len(hyper)))])}):"
    lines = [f"s{k} = {_expression(step)}" for k, step in enumerate(steps)]
    return "\n    ".join([head, *lines, f"return ({''.join(f's{k}, ' for k in wanted)})"]) + "\n"


_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/",
          "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}  # fmt: skip


def _expression(step: Instruction) -> str:
    names = [f"s{k}" for k in step.operands]
    if step.op == "constant":
        return repr(step.operands[0])
    if step.op == "hyper":
        return f"h{step.operands[0]}"
    if step.op in ("t", "tiny"):
        return step.op
    if step.op == "neg":
        return f"-{names[0]}"
    if step.op in _INFIX:
        return f"{names[0]} {_INFIX[step.op]} {names[1]}"
    return f"{step.op}({', '.join(names)})"
