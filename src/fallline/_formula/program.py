"""A program: what a chain of formulas comes to, a straight line of operations over arrays and a function of scalars."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fallline._formula.ieee import power
from fallline._formula.words import exp, log

__all__ = [
    "ACROSS",
    "INCREMENT",
    "OUTSIDE",
    "Computed",
    "Instruction",
    "Program",
    "StateName",
    "Total",
    "TotalName",
    "source_of",
]  # fmt: skip


INCREMENT = "->d"  # the output that holds the increment; no state slot can have this name
OUTSIDE = ("x", "g", INCREMENT)  # the arrays that come from the caller; all others are state
ACROSS = "trees"  # what a total is over that a chain around several makes: the trees of all


class Computed(str):
    """What programs call a number that is not set but computed before: a total, or state."""


class TotalName(Computed):
    """What programs call a total."""


class StateName(Computed):
    """What programs call a state slot that is one number."""


class Total(NamedTuple):
    """A sum that a reading program makes of one of its values: "sum" of the values or "squares" of them, these also
    scaled "high" and "low" (see `words.SCALES`), over a "leaf" or the "tree" or ACROSS the trees of several chains.
    `name` is what programs call it."""

    name: str
    kind: str
    over: str


class Instruction(NamedTuple):
    """One operation; `operands` are the numbers of the values it combines."""

    op: str
    operands: tuple[Any, ...]


class Program(NamedTuple):
    """A traced chain.

    Its values are numbered: first the `inputs` (arrays, by name), then the `scalars`, then the results of `code`.
    `outputs` says which value goes into which array: "x" the new parameter or INCREMENT, then the state.

    The scalars are some of the results of `steps`, by number: operations on t, tiny, constants (the operand is the
    number itself) and what is in `hyper` (the operand is the place): hyper-parameters, and by names that are `Computed`
    totals and state that is one number, whose new values `numbers` are further results of `steps`.

    `readings` are the programs to run before, in this order, which only read: the outputs of one are the values that it
    makes its `totals` of. `source` is the steps as a Python function. `powers` are the hyper-parameters in powers,
    logarithms and exponentials, `single` those that numbers of the state are made of, and `common` those of the tree.
    """

    inputs: tuple[str, ...]
    scalars: tuple[int, ...]
    code: tuple[Instruction, ...]
    outputs: tuple[tuple[str, int], ...]
    source: str
    hyper: tuple[str, ...]
    powers: frozenset[str]
    steps: tuple[Instruction, ...] = ()
    numbers: tuple[tuple[str, int], ...] = ()
    readings: tuple[Program, ...] = ()
    totals: tuple[Total, ...] = ()
    single: frozenset[str] = frozenset()
    common: frozenset[str] = frozenset()

    @property
    def settings(self) -> tuple[str, ...]:
        """The hyper-parameters that this program or one of its readings depends on."""
        every = [name for program in (*self.readings, self) for name in program.hyper]
        return tuple(name for name in dict.fromkeys(every) if not isinstance(name, Computed))

    @property
    def is_lasting(self) -> bool:
        """Whether the scalars of a step are those of every other with the same values of `hyper`."""
        return not self.numbers and all(step.op != "t" for step in self.steps)

    @property
    def reads(self) -> frozenset[str]:
        """The names of all arrays that this program or one of its readings reads."""
        return frozenset(self.inputs).union(*(program.inputs for program in self.readings))

    @property
    def arrays(self) -> tuple[str, ...]:
        """The names of all arrays the program touches: its inputs, then the outputs that are no inputs."""
        if self.totals:
            return self.inputs
        return self.inputs + tuple(name for name, _ in self.outputs if name not in self.inputs)

    def evaluate(self, hyper: Sequence[Any], t: int, tiny: float) -> tuple[Any, ...]:
        """The scalars at step t, and behind them the new `numbers`, in float64, for the values of `hyper` (numbers, or
        float64 arrays).

        Scalars follow IEEE (1/0 is inf, √-1 is NaN): what Python answers with an exception is computed by NumPy.
        """
        if np.ndarray not in map(type, hyper):
            try:
                return _fast(self.source)(t, tiny, *hyper)
            except (ArithmeticError, ValueError):
                hyper = [np.float64(h) for h in hyper]
        with np.errstate(all="ignore"):
            return _careful(self.source)(np.float64(t), tiny, *hyper)


@lru_cache(maxsize=256)  # (not cached_property, which on Python 3.11 holds a lock that a fork may meet)
def _fast(source: str) -> Callable[..., tuple]:
    return _compile(source, {"sqrt": math.sqrt, "log": lambda a: float(log(a)), "exp": lambda a: float(exp(a)),
                             "abs": abs, "where": _choose})


@lru_cache(maxsize=256)
def _careful(source: str) -> Callable[..., tuple]:
    return _compile(source, {"sqrt": np.sqrt, "log": lambda a: np.float64(log(float(a))),
                             "exp": lambda a: np.float64(exp(float(a))), "abs": np.abs, "where": np.where})


def _choose(condition: bool, a: float, b: float) -> float:
    return a if condition else b


def _compile(source: str, words: dict[str, Any]) -> Callable[..., tuple]:
    scope: dict[str, Any] = {**words, "power": power, "inf": math.inf, "nan": math.nan}
    exec(compile(source, "<scalars of a formula>", "exec"), scope)
    return scope["scalars"]


def source_of(steps: Sequence[Instruction], wanted: Sequence[int], hyper: Sequence[str]) -> str:
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
