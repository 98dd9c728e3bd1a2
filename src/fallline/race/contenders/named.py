"""From what a user names or gives to the optimizer itself, anew for every run."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import fallline
from fallline._formula.rule import Rule
from fallline._messages.suggestions import meant_name
from fallline._messages.values import brief
from fallline._optimizer.optimizer import Optimizer
from fallline.dialects import every
from fallline.dialects.dialect import Dialect
from fallline.race.contenders.others import Other, other
from fallline.race.problems.places import Place, placed, thing_at

OptimizerSource = Any  # a name, "module:rule", a class, an Optimizer, a rule


def find_optimizer(source: OptimizerSource) -> Optimizer | Other:
    """A fresh optimizer for a name, "module:rule", a class, an Optimizer or a rule; one of another library for what is
    described at `other`."""
    source = placed(source)
    if isinstance(source, Place):
        source = thing_at(source, "optimizers", "Optimizers and rules", _is_optimizer)
    elif isinstance(source, str):
        source = _by_name(source)
    if isinstance(source, Optimizer):
        return source.fresh()
    if isinstance(source, type) and issubclass(source, Optimizer):
        return source.usual() if issubclass(source, Dialect) else source()
    if isinstance(source, Rule):
        return Optimizer(source)
    if found := other(source):
        return found
    raise TypeError("optimizers must be names, Optimizer classes, Optimizers or rules; or of other libraries: a class "
                    "of torch.optim, a transformation of optax, a function (params, grads) -> params. "
                    f"Got {brief(source)}.")


def _by_name(name: str) -> Any:
    names = _names(name)
    known = {class_name.lower(): cls for class_name, cls in names.items()}
    if name.lower() in known:
        return known[name.lower()]
    raise ValueError(f"optimizers must be among {', '.join(names)}, or module:rule. Got {name!r}."
                     f"{meant_name(name, names)}")


def _names(name: str) -> Mapping[str, type[Optimizer]]:
    """All names of a kind: fallline's own, or other libraries'."""
    return every() if name.lower().startswith("dialects.") else fallline.OPTIMIZERS


def usual(name: str) -> Optimizer | None:
    """The one of that name with its defaults, if there is one."""
    found = _names(name).get(name)
    made = None if found is None else find_optimizer(found)
    return made if isinstance(made, Optimizer) else None


def written(source: OptimizerSource) -> str | None:
    """The name by which another process finds a source too; None for what is an object of this one.

    >>> written(fallline.Adam), written(fallline.Adam(0.1))
    ('Adam', None)
    """
    if isinstance(source, Place):
        return source.source
    if isinstance(source, str):
        return source
    return next((name for name, cls in {**fallline.OPTIMIZERS, **every()}.items() if cls is source), None)


def _is_optimizer(thing: Any, module: ModuleType) -> bool:
    if isinstance(thing, type):
        return issubclass(thing, Optimizer) and thing.__module__ == module.__name__
    return isinstance(thing, Optimizer | Rule)
