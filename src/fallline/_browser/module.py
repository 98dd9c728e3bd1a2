"""Optimizers as a JavaScript module."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from fallline._engines.javascript import RUNTIME, literal, written
from fallline._formula.chain import Chain
from fallline._formula.program import Program
from fallline._formula.ranges import Range
from fallline._formula.trace import resting
from fallline._optimizer.holder import Holder
from fallline._optimizer.optimizer import Optimizer
from fallline.dialects.dialect import Dialect

__all__ = ["EXPORTS", "can_be_written", "hyper_name", "script"]

EXPORTS = "export { Optimizer, trajectory, rules };\n"
"""The line that makes a module of `script`."""

_LARGEST = sys.float_info.max
_ENDS = (-_LARGEST, -1.0, -5e-324, 0.0, 5e-324, 1 - 2**-53, 1.0, _LARGEST)


def script(optimizers: Mapping[str, Optimizer]) -> str:
    """JavaScript that steps as these optimizers do, in double precision with the bits of NumPy, with their settings as
    defaults: `rules`, by these names, `Optimizer` and `trajectory`; see `fallline.playground.script`.

    Raises ValueError for one that is no chain of formulas over coordinates with numbers for settings.
    """
    programs: dict[str, str] = {}  # each once: of two names for one formula, and of readings that are alike
    rules = [f"{json.dumps(name)}: {_rule(name, optimizer, programs)}" for name, optimizer in optimizers.items()]
    texts = [f"const {name} = {text};" for text, name in programs.items()]
    runtime = RUNTIME.read_text(encoding="utf-8")
    return "\n".join([runtime, *texts, "const rules = {", *(f"  {rule}," for rule in rules), "};\n"])


def can_be_written(optimizer: Optimizer) -> bool:
    """Whether it is a chain of formulas over coordinates, which `script` takes."""
    return not _why_not(optimizer)


def _why_not(optimizer: Optimizer) -> str:
    chain = optimizer._chain
    if not isinstance(chain, Chain):
        return "it has several parts"
    if chain.rule.whole_leaf:
        return f"{chain.titles[chain.rule_name]} is a function of whole leaves"
    if chain.gathers is not None:
        return "it steps at some calls only"
    named = [q for q, value in optimizer._stepper.holders[""].settings.items() if not isinstance(value, float)]
    return f"{', '.join(named)} must be a number" if named else ""


def _rule(name: str, optimizer: Optimizer, programs: dict[str, str]) -> str:
    if why := _why_not(optimizer):
        raise ValueError(f"{name} cannot be written as JavaScript: {why}.")
    chain, holder = optimizer._chain, optimizer._stepper.holders[""]

    def named(program: Program) -> str:
        return programs.setdefault(written(program), f"p{len(programs)}")

    single = _single(optimizer)
    rest = resting(chain.traced()[chain.rules.index(chain.rule)])
    fields = {
        "hyper": _object({q: json.dumps(_setting(chain, holder, q, single), ensure_ascii=False) for q in chain.hyper}),
        "starts": _object({s: json.dumps(v) if isinstance(v, str) else literal(v) for s, v in chain.starts().items()}),
        "single": json.dumps(list(chain.scopes())),
        "readings": f"[{', '.join(map(named, chain.stepping.readings))}]",
        "step": named(chain.stepping),
        "rest": "null" if rest is None else named(rest),
    }
    return f"{{{', '.join(f'{field}: {text}' for field, text in fields.items())}}}"


def _object(fields: Mapping[str, str]) -> str:
    return f"{{{', '.join(f'{json.dumps(name)}: {text}' for name, text in fields.items())}}}"


def _single(optimizer: Optimizer) -> set[str]:
    """The hyper-parameters that a dialect rounds to single precision, as seen by numbers that have more digits."""
    if not isinstance(optimizer, Dialect):
        return set()
    kept = {argument: [q for q in own if q] for argument, own in optimizer._kept_in.items() if all(own)}
    near = {q: (optimizer.hyper[q] or 0.1) * (1 - 2**-30) for own in kept.values() for q in own}
    given = {argument: tuple(near[q] for q in own) for argument, own in kept.items()}
    other = type(optimizer)(**{argument: own if len(own) > 1 else own[0] for argument, own in given.items()})
    return {q for q, value in near.items() if value != other.hyper[q] == float(np.float32(value))}


def _setting(chain: Chain, holder: Holder, qualified: str, single: set[str]) -> dict[str, Any]:
    """A hyper-parameter: what settings call it, its value, what it must be, the least and the largest it may be, and
    whether it is rounded to single precision."""
    source = chain.source(qualified, holder.settings)
    own = chain.hyper[source]
    low, high = _interval(own.range)
    value = holder.settings[source]
    return {"name": hyper_name(chain, source), "value": value, "must": own.range.text, "low": low, "high": high,
            "single": source in single}


def hyper_name(chain: Chain, qualified: str) -> str:
    """What settings call a hyper-parameter: by its short name where that means it."""
    short = chain.hyper[qualified].name
    return short if chain.short.get(short) == qualified else qualified


def _interval(range: Range) -> tuple[float, float]:
    """The least and the largest finite number in a range that ends at 0, at 1 or nowhere."""
    held = [end for end in _ENDS if range.holds(end)]
    return held[0], held[-1]
