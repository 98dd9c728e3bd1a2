"""Optimisers of other libraries as contenders: what they are called, what is tuned of them, and how they are made."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fallline._messages.values import brief, shown
from fallline.race.contenders.steps import ByFunction, ByOptax, ByTorch, Steps
from fallline.race.contenders.tuned import AS_GIVEN, TIMES, Tuned

__all__ = ["Other", "other"]

RATES = ("lr", "learning_rate", "step_size", "rate")  # names of what is tuned, the first that there is


@dataclass(frozen=True)
class Other:
    """An optimiser of another library as it was given: `source`, which is a function of what is `tuned`.

    `steps` makes of that and of keywords what steps; `is_made` says whether calling it with them gives what its users
    take, and not a first step. `said` are its settings as text, `undecayed` those that take a decay out of it.
    """

    title: str
    source: Callable[..., Any]
    tuned: Tuned
    steps: Callable[[Any, Mapping[str, float]], Steps]
    is_made: bool
    said: Mapping[str, str]
    undecayed: Mapping[str, float]

    @property
    def settings(self) -> str:
        said = ", ".join(f"{name}={text}" for name, text in self.said.items())
        return f"{self.title}({said})" if said else self.title

    def at(self, value: float | None) -> dict[str, float]:
        """The keywords for a value of what is tuned; none leaves it as it was given, if that has a default."""
        return {} if value is None or self.tuned.name == AS_GIVEN else {self.tuned.keys[0]: value}

    def make(self, value: float | None, **settings: float) -> Steps:
        """One that has not stepped."""
        return self.steps(partial(self.source, **settings) if settings else self.source, self.at(value))

    def own(self, value: float) -> Any:
        """What its library's users take, at a value: a class of torch with its rate, a transformation, a function."""
        found = partial(self.source, **self.at(value))
        return found() if self.is_made else found if found.keywords else self.source


def other(source: Any) -> Other | None:
    """What `source` is as a contender, if it is an optimiser of another library:

    - a class of torch.optim;
    - a gradient transformation of optax, whose updates are multiplied by what is tuned, or a function of the rate that
      makes one;
    - a function of (params, grads) that returns the parameters, with its rate as a keyword, if it has one;
    - a function of the rate that makes such a function, for one that keeps state.

    Settings come by functools.partial.
    """
    if _is_transformation(source):
        tuned = Tuned(f"updates{TIMES}", ("times",), (), 1.0)
        return Other("optax", partial(_multiplied, source), tuned, ByOptax, True, {}, {})
    if not callable(source) or (parameters := _parameters(source)) is None:
        return None
    rate = next((name for name in RATES if name in parameters), None)
    title, is_of_torch, needed = _title(source), _is_of_torch(source), _needed(parameters, rate)
    if is_of_torch or needed == 2:
        steps: Callable[..., Steps] = ByTorch if is_of_torch else partial(ByFunction, title=title)
    elif needed == 0:
        steps = partial(_made, title=title)
    else:
        return None
    said = {name: shown(value) for name, value in getattr(source, "keywords", {}).items()}
    decay = {name: 0.0 for name in ("weight_decay",) if name in parameters}
    return Other(title, source, _tuned(rate, parameters), steps, not is_of_torch and needed == 0, said, decay)


def _tuned(rate: str | None, parameters: Mapping[str, inspect.Parameter]) -> Tuned:
    if rate is None:
        return Tuned(AS_GIVEN, (AS_GIVEN,), (), 1.0)
    default = parameters[rate].default
    return Tuned(rate, (rate,), (), float(default) if isinstance(default, int | float) else math.nan)


def _made(make: Callable[..., Any], at: Mapping[str, float], title: str) -> Steps:
    """What a function of the rate makes."""
    thing = make(**at)
    if _is_transformation(thing):
        return ByOptax(make, at)
    if callable(thing):
        return ByFunction(thing, {}, title)
    raise TypeError(f"{title} must return a function (params, grads) -> params or a gradient transformation of optax. "
                    f"Got {brief(thing)}.")


def _multiplied(transformation: Any, times: float = 1.0) -> Any:
    import optax

    return optax.chain(transformation, optax.scale(times))


def _is_transformation(thing: Any) -> bool:
    return isinstance(thing, tuple) and hasattr(thing, "init") and hasattr(thing, "update")


def _is_of_torch(source: Any) -> bool:
    made = source.func if isinstance(source, partial) else source
    return "torch" in sys.modules and isinstance(made, type) and issubclass(made, sys.modules["torch"].optim.Optimizer)


def _parameters(source: Any) -> Mapping[str, inspect.Parameter] | None:
    try:
        return inspect.signature(source).parameters
    except (TypeError, ValueError):
        return None


def _needed(parameters: Mapping[str, inspect.Parameter], rate: str | None) -> int:
    """How many arguments have to be given, the rate aside."""
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and name != rate
               for name, p in parameters.items())  # fmt: skip


def _title(source: Any) -> str:
    made = source.func if isinstance(source, partial) else source
    name = getattr(made, "__qualname__", type(made).__name__).rpartition("<locals>.")[2]
    library = getattr(made, "__module__", "").partition(".")[0]
    return {"torch": f"torch.optim.{name}", "optax": f"optax.{name}"}.get(library, name)
