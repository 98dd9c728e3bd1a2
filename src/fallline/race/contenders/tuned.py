"""What the race tunes of an optimiser: its one rate, or a common factor of all that was given in the place of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fallline._arrays.trees import flatten, is_container
from fallline._formula.chain import Chain
from fallline._formula.settings import ByPath
from fallline._optimizer.optimizer import Optimizer
from fallline._optimizer.partition import Partition
from fallline.race.contenders.grid import Grid

LEAST, MOST = 1e-6, 300.0  # how far the grid of rates may be extended: nothing that must be a fraction goes so far
TIMES = " ×"  # behind the name of what is multiplied: "lr ×"
AS_GIVEN = "as given"  # in the place of a name where there is nothing to tune


@dataclass(frozen=True)
class Tuned:
    """The tuned hyper-parameters by their names in the optimizer: one number that is replaced, or all that are scaled.

    `name` is what tables say: "lr", or "lr ×" where the tuned value is a factor of what was given. Of a rate of the
    grid those in `squared` take the square: AdaDelta has no rate, and its steps are proportional to √eps. `default` is
    the value as given, NaN where there was none.
    """

    name: str
    keys: tuple[str, ...]
    squared: tuple[str, ...]
    default: float

    @property
    def is_factor(self) -> bool:
        return self.name.endswith(TIMES)

    def grid(self) -> Grid:
        """Rates from 1e-4 to 3; factors from 0.01 to 100, as what was given is a guess to begin with; or no choice."""
        return Grid(0, 0) if self.name == AS_GIVEN else Grid(-4, 4) if self.is_factor else Grid()

    def value(self, rate: float, key: str | None = None) -> float:
        """What a rate of the grid means for one of the hyper-parameters, by default for the one that tables name."""
        squared = (key or self.keys[0]) in self.squared
        return float(f"{rate * rate:.12g}") if squared else rate

    def put(self, optimizer: Optimizer, rate: float) -> None:
        """Set all that is tuned for one rate of the grid."""
        for key in self.keys:
            value = self.value(rate, key)
            optimizer.hyper[key] = multiplied(optimizer.hyper[key], value) if self.is_factor else value


def tuned(name: str, optimizer: Optimizer) -> Tuned:
    """What is tuned of an optimizer that messages call `name`.

    One number is replaced. Schedules, settings that differ by leaf, path or coordinate, and the rates of several parts
    say more than one number: they are multiplied, so that their shape and their zeros stay.

    Raises
    ------
    ValueError
        It has nothing to tune.
    """
    found = {f"{part}{key}": hyper for part, chain in chains(optimizer).items() for key, hyper in _rates(chain)}
    if not found:
        raise ValueError(f"{name} has no hyper-parameter to tune, one that may be small or large: give its rule a rate "
                         "after `*`.")  # fmt: skip
    # Rates proper come first: where both are tuned, tables show the factor of these.
    keys = tuple(sorted(found, key=lambda key: found[key] == "eps"))
    squared = tuple(key for key in keys if found[key] == "eps")
    given = optimizer.hyper[keys[0]]
    if len(keys) == 1 and isinstance(given, int | float):
        return Tuned(found[keys[0]], keys, squared, float(given))
    return Tuned(" and ".join(dict.fromkeys(found[key] for key in keys)) + TIMES, keys, squared, 1.0)


def chains(optimizer: Optimizer) -> Mapping[str, Chain]:
    """The chains that step leaves, by what stands before the names of their hyper-parameters."""
    if isinstance(optimizer, Partition):
        return {f"{name}.": part._chain for name, part in optimizer.parts.items()}
    return {"": optimizer._chain}


def multiplied(setting: Any, factor: float) -> Any:
    """A setting whose every value is `factor` times that of the given one: a number, an array, a schedule, a tree.

    >>> multiplied({"W": 0.5, "b": 0.0}, 3.0)
    {'W': 1.5, 'b': 0.0}
    >>> multiplied(lambda t: 0.5 / (1 + t), 3.0)(2)
    0.5
    """
    if is_container(setting) and not callable(setting):
        leaves, treedef = flatten(setting, callable)
        return treedef.unflatten([multiplied(leaf, factor) for leaf in leaves])
    if isinstance(setting, ByPath):
        return ByPath(lambda path: multiplied(setting.function(path), factor))
    if callable(setting):
        return lambda t: factor * setting(t)
    return setting * factor


def _rates(chain: Chain) -> list[tuple[str, str]]:
    """What is tuned of a chain: its name in full, and in short; nothing of a rule that has nothing of the kind."""
    schema = chain.rule.hyper
    wide = [hyper.name for hyper in schema.values() if hyper.range.holds(LEAST) and hyper.range.holds(MOST)]
    short = "lr" if "lr" in schema else wide[0] if wide else None
    return [(f"{chain.names[chain.rules.index(chain.rule)]}.{short}", short)] if short else []
