"""Whether a rule or a function at hand is the one that was saved: by its name, and by what can be told of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from fallline._formula.chain import Chain
from fallline._formula.program import Program
from fallline._formula.rule import Rule
from fallline._formula.settings import ByPath
from fallline._formula.trace import as_written

__all__ = ["BUILT_IN", "described", "fingerprint", "origins"]

BUILT_IN = "built in"


def origins(chain: Chain) -> dict[str, str]:
    """The rules of a chain by name, each with BUILT_IN or its fingerprint.

    The name says all of a built-in rule, so that no correction to one makes files unreadable.
    """
    return {name: BUILT_IN if rule.built_in else fingerprint(rule)
            for name, rule in zip(chain.names, chain.rules)}


@functools.lru_cache(maxsize=256)
def fingerprint(rule: Rule) -> str:
    """A digest of what a rule computes: its operations in order, and where its state starts.

    It is the same in every process and Python version, whatever the formula's variables are called.

    >>> from fallline import rule
    >>> fingerprint(rule(lambda g, *, lr=0.1: -lr * g)) == fingerprint(rule(lambda g, *, lr=0.5: -(lr) * g))
    True
    >>> fingerprint(rule(lambda g, *, lr=0.1: -lr * g)) == fingerprint(rule(lambda g, *, lr=0.1: lr * g))
    False
    """
    starts = [f"{slot} {start if isinstance(start, str) else float(start)!r}" for slot, start in rule.slots.items()]
    parts: list[Any] = [rule.kind, *starts, *(_whole_parts(rule) if rule.whole_leaf else _traced_parts(rule))]
    import hashlib  # which takes a while

    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]


def _traced_parts(rule: Rule) -> list[Any]:
    program = as_written(rule)
    parts = _parts(program)
    for reading in program.readings:
        parts += [*_parts(reading), *map(tuple, reading.totals)]
    return [*parts, *program.numbers, *rule.scopes.items()]


def _whole_parts(rule: Rule) -> list[Any]:
    """A function of whole leaves is not traced: it is known by its name and signature alone."""
    return ["whole leaf", rule.name, *rule.given, *rule.shapes, *rule.hyper]


def _parts(program: Program) -> list[Any]:
    operations = [f"{i.op} {' '.join(map(repr, i.operands))}" for i in (*program.steps, *program.code)]
    return [program.inputs, program.hyper, program.scalars, *operations, program.outputs]


def described(function: Any) -> str:
    """A function by its name, with its parameters if it is a schedule, another dataclass or a functools.partial.

    >>> import functools
    >>> described(functools.partial(round, ndigits=2))
    'round(ndigits=2)'
    """
    from fallline.schedules.data import is_built_in  # which takes a while

    if is_built_in(function):
        return repr(function)
    if isinstance(function, ByPath):
        return f"by_path({described(function.function)})"
    if isinstance(function, functools.partial):
        return f"{described(function.func)}({_listed(function.args, function.keywords)})"
    if is_dataclass(function) and not isinstance(function, type):
        own = {field.name: getattr(function, field.name) for field in fields(function)}
        return f"{type(function).__qualname__}({_listed((), own)})"
    return getattr(function, "__qualname__", type(function).__qualname__)


def _listed(args: tuple[Any, ...], keywords: Mapping[str, Any]) -> str:
    return ", ".join([*map(_value, args), *(f"{name}={_value(value)}" for name, value in sorted(keywords.items()))])


def _value(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_value, value))})"
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    return described(value)
