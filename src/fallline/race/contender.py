"""An optimiser as it enters the race: its name, and the hyper-parameter that is tuned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from fallline.optimizer import Optimizer
from fallline.optimizers import TEN
from fallline.partition import Partition
from fallline.race.load import OptimizerSource, find_optimizer, placed
from fallline.schema import Fraction, Hyper


@dataclass(frozen=True)
class Contender:
    """What the race needs of one optimiser; `source` stays as given, so that worker processes can resolve it anew."""

    name: str
    source: OptimizerSource
    settings: str
    tuned: str
    key: str
    squared: bool
    default: float | None

    def value(self, rate: float) -> float:
        """What the tuned hyper-parameter is set to for a rate of the grid.

        AdaDelta has no rate; its steps are proportional to √eps, so eps takes the grid squared.
        """
        return float(f"{rate * rate:.12g}") if self.squared else rate

    def optimizer(self, rate: float | None) -> Optimizer:
        """Fresh, at one rate of the grid; None leaves it as it was given."""
        optimizer = find_optimizer(self.source)
        if rate is not None:
            optimizer.hyper[self.key] = self.value(rate)
        return optimizer


def contenders(sources: Sequence[OptimizerSource] | None) -> list[Contender]:
    """The contenders for what the user named; None stands for the ten.

    Raises
    ------
    ValueError
        No optimiser was named, one was named twice, or one has nothing to tune.
    """
    sources = list(TEN) if sources is None else [placed(source) for source in sources]
    if not sources:
        raise ValueError("optimizers must name at least one. Got none.")
    given = [find_optimizer(source) for source in sources]
    plain = Counter(optimizer._chain.title for optimizer in given)
    names = [o._chain.title if plain[o._chain.title] == 1 else repr(o) for o in given]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"optimizers must differ from each other. Got {twice[0]} twice.")
    return [_contender(*entry) for entry in zip(names, sources, given, strict=True)]


def _contender(name: str, source: OptimizerSource, optimizer: Optimizer) -> Contender:
    tuned, key = _key(name, optimizer)
    default = optimizer.hyper[key]
    number = float(default) if isinstance(default, int | float) else None
    return Contender(name, source, repr(optimizer), tuned, key, tuned == "eps", number)


def _key(name: str, optimizer: Optimizer) -> tuple[str, str]:
    """What is tuned, and how the optimizer calls it."""
    if isinstance(optimizer, Partition):
        if "lr" not in optimizer.hyper:
            raise ValueError(f"{name} has no one rate to tune: race its parts by themselves, each with its best rate.")
        return "lr", "lr"
    chain = optimizer._chain
    tuned = _tuned(name, chain.rule.hyper)
    return tuned, f"{chain.names[chain.rules.index(chain.rule)]}.{tuned}"


def _tuned(name: str, schema: Mapping[str, Hyper]) -> str:
    """ "lr" where there is one, else the first hyper-parameter of the rule that may exceed 1, or else its first."""
    if not schema:
        raise ValueError(f"{name} has no hyper-parameter to tune: give its rule a rate after `*`.")
    if "lr" in schema:
        return "lr"
    return next((hyper.name for hyper in schema.values() if not _is_fraction(hyper)), next(iter(schema)))


def _is_fraction(hyper: Hyper) -> bool:
    return hyper.range in get_args(Fraction)
