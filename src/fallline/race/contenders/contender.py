"""An optimiser as it enters the race: its name, what is tuned, and the point by which it is judged."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fallline import rules
from fallline._arrays import trees
from fallline._messages.values import brief, shown
from fallline._optimizer.named import TEN
from fallline._optimizer.optimizer import Optimizer
from fallline.race.contenders.named import OptimizerSource, find_optimizer, usual
from fallline.race.contenders.others import Other
from fallline.race.contenders.steps import Steps
from fallline.race.contenders.tuned import Tuned, chains, tuned
from fallline.race.problems.places import placed

DECAY = re.compile(r"(.*\.)?(\w+\.weight_decay|(l2|weight_decay)\d*\.rate)")  # a modifier may be numbered
NAME_ROOM = 16


@dataclass(frozen=True)
class Contender:
    """What the race needs of one optimiser; `source` stays as given, so that worker processes can resolve it anew.

    `judged_at`: "params", "rest" or "averaged", see `reported`. `usual`: whether it is a named optimiser, under its own
    name, with the settings of its class, its tuned rate aside. `of_matrices`: whether a rule is a function of whole
    leaves, which may do something else for a matrix than for a vector.
    """

    name: str
    source: OptimizerSource
    settings: str
    tuned: Tuned
    judged_at: str
    usual: bool
    of_matrices: bool

    def optimizer(self, rate: float | None) -> Optimizer | Steps:
        """Fresh, at one rate of the grid; None leaves it as it was given."""
        found = find_optimizer(self.source)
        if isinstance(found, Other):
            return found.make(None if rate is None else self.tuned.value(rate))
        if rate is not None:
            self.tuned.put(found, rate)
        return found

    def without_decay(self, rate: float) -> Optimizer | Steps:
        """As `optimizer`, with a weight decay of 0: on a surface it would only pull to the origin."""
        found = find_optimizer(self.source)
        if isinstance(found, Other):
            return found.make(self.tuned.value(rate), **found.undecayed)
        self.tuned.put(found, rate)
        for key in _decays(found):
            if key not in self.tuned.keys:
                found.hyper[key] = 0.0
        return found

    def given(self) -> Optimizer:
        """Fresh, as it was given. Raises ValueError for what is another library's."""
        found = find_optimizer(self.source)
        if isinstance(found, Other):
            raise ValueError(f"{self.name} must be an optimizer of fallline here. Got one of another library, "
                             f"{found.settings}.")
        return found

    def own(self, rate: float) -> Any:
        """As `optimizer`, but of another library in the form that its users take."""
        found = find_optimizer(self.source)
        return found.own(self.tuned.value(rate)) if isinstance(found, Other) else self.optimizer(rate)

    @property
    def runs_as_given(self) -> bool:
        """Whether there is a rate to run it at without tuning."""
        return not math.isnan(self.tuned.default)

    def trial(self) -> Optimizer | Steps:
        """One to see whether it steps at all."""
        return self.optimizer(None if self.runs_as_given else self.tuned.grid().rates[0])


def reported(optimizer: Optimizer | Steps, params: Any) -> Any:
    """The point to report for parameters that are stepped: the average where one is kept, else where the rule rests.

    Where neither is apart from them it is the parameters themselves, not a copy.
    """
    if not isinstance(optimizer, Optimizer):
        return params
    own = chains(optimizer).values()
    point = optimizer.rest(params) if any(chain.rule.rest for chain in own) else params
    if not optimizer.t or not any(rules.average in chain.rules for chain in own):
        return point
    leaves, treedef = trees.flatten(point)
    kept = treedef.flatten_like(optimizer.averaged, "averaged", "params")
    return treedef.unflatten([leaf if average is None else average for leaf, average in zip(leaves, kept, strict=True)])


def contenders(sources: Sequence[OptimizerSource] | Mapping[str, OptimizerSource] | None) -> list[Contender]:
    """The contenders for what the user named; None stands for the ten. Those of a dict have its keys as names.

    Raises
    ------
    ValueError, TypeError
        No optimiser was named, one was named twice, one has nothing to tune, or this is no list or dict of them.
    """
    own = _own_names(sources)
    listed = list(TEN) if sources is None else list(sources.values() if isinstance(sources, Mapping) else sources)
    if not listed:
        raise ValueError("optimizers must name at least one. Got none.")
    listed = [placed(source) for source in listed]
    given = [find_optimizer(source) for source in listed]
    settled = [_settled(optimizer) for optimizer in given]
    names = own or _names(given, settled)
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"optimizers must differ from each other. Got {twice[0]} twice.")
    return [_contender(*entry) for entry in zip(names, listed, given, settled, strict=True)]


def _own_names(sources: Any) -> list[str]:
    """The names that the user gave; none if that is a list."""
    if isinstance(sources, str) or not isinstance(sources, Iterable | None):
        raise TypeError("optimizers must be a list of optimizers, or a dict of them by name. "
                        f"Got {brief(sources)}: put it in a list.")
    if not isinstance(sources, Mapping):
        return []
    for name in sources:
        if not isinstance(name, str) or not name:
            raise TypeError(f"optimizers, a dict, must have names as its keys. Got {brief(name)}.")
    return list(sources)


def _settled(optimizer: Optimizer | Other) -> Tuned:
    return optimizer.tuned if isinstance(optimizer, Other) else tuned(optimizer._title, optimizer)


def _contender(name: str, source: OptimizerSource, optimizer: Optimizer | Other, settled: Tuned) -> Contender:
    if isinstance(optimizer, Other):
        return Contender(name, source, optimizer.settings, settled, "params", False, False)
    own = chains(optimizer).values()
    averaging, resting = (any(found) for found in ((rules.average in c.rules for c in own), (c.rule.rest for c in own)))
    judged_at = "averaged" if averaging else "rest" if resting else "params"
    of_matrices = any(chain.rule.whole_leaf for chain in own)
    is_usual = name == optimizer._title and _is_usual(optimizer, settled)
    return Contender(name, source, _settings(optimizer), settled, judged_at, is_usual, of_matrices)


def _names(given: Sequence[Optimizer | Other], settled: Sequence[Tuned]) -> list[str]:
    """Titles, and behind those that several have what tells them apart: in short, in full, or else all settings."""
    titles = [optimizer.title if isinstance(optimizer, Other) else optimizer._title for optimizer in given]
    said = [_said(optimizer, own) for optimizer, own in zip(given, settled, strict=True)]
    names = titles
    for written in (_beginning, str):
        named = [_named(k, titles, said, written) for k in range(len(given))]
        names = [name if titles.count(name) == 1 else new for name, new in zip(names, named, strict=True)]
        if len(set(names)) == len(names):
            return names
    return [n if names.count(n) == 1 else _settings(optimizer) for n, optimizer in zip(names, given, strict=True)]


def _settings(optimizer: Optimizer | Other) -> str:
    return optimizer.settings if isinstance(optimizer, Other) else repr(optimizer)


def _named(k: int, titles: Sequence[str], said: Sequence[Mapping[str, str]], written: Callable[[str], str]) -> str:
    others = [other for title, other in zip(titles, said, strict=True) if title == titles[k]]
    apart = {key: text for key, text in said[k].items() if any(other.get(key) != text for other in others)}
    return f"{titles[k]}({', '.join(f'{key}={written(text)}' for key, text in apart.items())})" if apart else titles[k]


def _beginning(text: str) -> str:
    """As much of a setting as a name has room for: of a schedule what it is called.

    >>> _beginning("cosine(peak=0.1, steps=20)"), _beginning("{'W': 0.1, 'b': 0.01}"), _beginning("0.05")
    ('cosine', "{'W': 0.1, 'b':…", '0.05')
    """
    if len(text) <= NAME_ROOM:
        return text
    called = re.match(r"\w+(?=\()", text)
    return called[0] if called else text[: NAME_ROOM - 1] + "…"


def _said(optimizer: Optimizer | Other, settled: Tuned) -> Mapping[str, str]:
    """The settings as text, but for a number that is replaced."""
    if isinstance(optimizer, Other):
        return {name: text for name, text in optimizer.said.items() if name not in settled.keys}
    full = optimizer._chain.short
    replaced = () if settled.is_factor else settled.keys
    return {name: shown(value) for name, value in optimizer.hyper.items() if full.get(name, name) not in replaced}


def _is_usual(optimizer: Optimizer, settled: Tuned) -> bool:
    named = usual(optimizer._title)
    return named is not None and not settled.is_factor and _said(optimizer, settled) == _said(named, settled)


def _decays(optimizer: Optimizer) -> list[str]:
    """The names of all rates of weight decay that may be 0, a rule's own and those of modifiers."""
    known = optimizer._chain.hyper.items()
    return [key for key, hyper in known if DECAY.fullmatch(key) and hyper.range.holds(0.0)]
