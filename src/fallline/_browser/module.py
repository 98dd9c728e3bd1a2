"""Optimizers as a JavaScript module."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from fallline._engines.javascript import RUNTIME, literal, written
from fallline._formula.chain import Chain
from fallline._formula.program import Program
from fallline._formula.ranges import Range
from fallline._formula.trace import resting
from fallline._optimizer.holder import Holder
from fallline._optimizer.optimizer import Optimizer

__all__ = ["EXPORTS", "can_be_written", "script"]

EXPORTS = "export { Optimizer, trajectory, rules };\n"
"""The line that makes a module of `script`."""

_LARGEST = 1.7976931348623157e308
_ENDS = (-_LARGEST, -1.0, -5e-324, 0.0, 5e-324, 1 - 2**-53, 1.0, _LARGEST)


def script(optimizers: Mapping[str, Optimizer]) -> str:
    """JavaScript that steps as these optimizers do, in double precision with the bits of NumPy, with their settings as
    defaults: `rules`, by these names, `Optimizer` and `trajectory`; see `fallline.playground.script`.

    Raises ValueError for one that is no chain of formulas over coordinates with numbers for settings.
    """
    programs: dict[str, str] = {}  # each once: of two names for one formula, and of readings that are alike
    rules = [f"{json.dumps(name)}: {_rule(name, optimizer, programs)}" for name, optimizer in optimizers.items()]
    texts = [f"const {name} = {text};" for text, name in programs.items()]
    return "\n".join([RUNTIME.read_text(), *texts, "const rules = {", *(f"  {rule}," for rule in rules), "};\n"])


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

    rest = resting(chain.traced()[chain.rules.index(chain.rule)])
    fields = {
        "hyper": _object({q: json.dumps(_setting(chain, holder, q)) for q in chain.hyper}),
        "starts": _object({s: json.dumps(v) if isinstance(v, str) else literal(v) for s, v in chain.starts().items()}),
        "single": json.dumps(list(chain.scopes())),
        "readings": f"[{', '.join(map(named, chain.stepping.readings))}]",
        "step": named(chain.stepping),
        "rest": "null" if rest is None else named(rest),
    }
    return f"{{{', '.join(f'{field}: {text}' for field, text in fields.items())}}}"


def _object(fields: Mapping[str, str]) -> str:
    return f"{{{', '.join(f'{json.dumps(name)}: {text}' for name, text in fields.items())}}}"


def _setting(chain: Chain, holder: Holder, qualified: str) -> dict[str, Any]:
    """A hyper-parameter: what settings call it, its value, what it must be, the least and the largest it may be."""
    source = chain.source(qualified, holder.settings)
    own = chain.hyper[source]
    low, high = _interval(own.range)
    name = own.name if chain.short.get(own.name) == source else source
    return {"name": name, "value": holder.settings[source], "must": own.range.text, "low": low, "high": high}


def _interval(range: Range) -> tuple[float, float]:
    """The least and the largest finite number in a range that ends at 0, at 1 or nowhere."""
    held = [end for end in _ENDS if math.isfinite(end) and range.holds(end)]
    return held[0], held[-1]
