"""Groups of parameters, as torch has them, as one optimizer, which asks them for its settings at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from fallline._formula.ranges import WHOLE
from fallline._messages.suggestions import meant
from fallline._messages.values import brief
from fallline._optimizer.compose import partition
from fallline._optimizer.optimizer import Optimizer
from fallline.dialects.dialect import Dialect
from fallline.dialects.run import KEPT
from fallline.rules import dialects as own

__all__ = ["Assembled", "Kind", "OfDialect", "OfOptimizer", "assembled"]

Group = Mapping[str, Any]
MATRICES = (own.torch_muon, own.torch_muon_rms)
FOLLOWED, STEPS = "scheduled", "t"  # keys of groups: what follows a schedule of ours, and the steps it is at


class Read:
    """A setting that a group has under a key, as it is at each step: its own, or a part of a tuple."""

    __slots__ = ("group", "key", "place")

    def __init__(self, group: Group, key: str, place: int | None) -> None:
        self.group, self.key, self.place = group, key, place

    def __call__(self, t: int) -> float:
        value = self.group[self.key]
        if self.place is not None:
            value = value[self.place]
        return value if type(value) is float else float(value)

    def __repr__(self) -> str:
        return f"{self.key} of its group"


class Scheduled(Read):
    """One that a schedule of ours writes into a group, where it is seen, until something else is written there."""

    __slots__ = ("schedule", "shown")

    def __init__(self, group: Group, key: str, schedule: Any) -> None:
        super().__init__(group, key, None)
        self.schedule, self.shown = schedule, group[key] if key in group[FOLLOWED] else None

    @property
    def is_followed(self) -> bool:
        """Whether the group has what was last shown there."""
        return self.group[self.key] is self.shown

    def show(self, t: int) -> None:
        """Have the group show the value of the coming step, after t, unless another was written there."""
        if self.is_followed:
            self.shown = self.group[self.key] = float(self.schedule(t))  # type: ignore[index]

    def __call__(self, t: int) -> float:
        return float(self.schedule(t)) if self.is_followed else super().__call__(t)


class Kind(Protocol):
    """What optimizers can be made of groups: their keys with the defaults, and the optimizer of one group or more that
    are alike but for numbers."""

    defaults: dict[str, Any]

    def check(self, group: Group) -> None:
        """Raise ValueError or TypeError for a group that cannot be stepped."""

    def structure(self, group: Group) -> tuple[Any, ...]:
        """What of a group says what is computed, but for numbers."""

    def telling(self, group: Group) -> list[str]:
        """The keys that say it."""

    def part(self, group: Group) -> tuple[Optimizer, dict[str, list[str | None]]]:
        """The optimizer of a group, and the hyper-parameters that each of its keys has the values of."""

    def read(self, group: Group, key: str, place: int | None) -> Read:
        """What asks a group for a setting."""

    def called(self, part: Optimizer) -> dict[str, str]:
        """What torch calls the state, by slot."""

    def counts(self, part: Optimizer) -> bool:
        """Whether torch's state has the number of steps."""

    def derived(self, part: Optimizer, group: Group, t: int) -> dict[str, float]:
        """What torch's state has of a parameter after t steps that is made of these."""


class OfDialect:
    """Of a class of `fallline.dialects.torch`: what makes no formula of its own where it is 0 stays a number."""

    def __init__(self, cls: type[Dialect], defaults: dict[str, Any], options: dict[str, Any]) -> None:
        self.cls, self.defaults, self._options = cls, defaults, options
        self._parts: dict[tuple[Any, ...], tuple[Dialect, dict[str, list[str | None]]]] = {}

    def __reduce__(self) -> Any:
        return OfDialect, (self.cls, self.defaults, self._options)

    def _given(self, group: Group) -> dict[str, Any]:
        return {name: _plain(group[name], name) for name in self.cls.arguments.parameters}

    def check(self, group: Group) -> None:
        made = self.cls(**self._given(group), **self._options)
        if made._chain.rule in MATRICES and any(p.ndim != 2 for p in group.get("params", ())):
            raise ValueError(f"{self.cls.title} is for matrices, as torch's: give parameters of other shapes to "
                             "another optimizer, such as fallline.torch.AdamW.")

    def structure(self, group: Group) -> tuple[Any, ...]:
        given = self._given(group)
        return tuple((name, given[name]) for name in self.telling(group))

    def telling(self, group: Group) -> list[str]:
        kept = self.part(group)[1]
        return [name for name in self.cls.arguments.parameters if name not in kept]

    def part(self, group: Group) -> tuple[Dialect, dict[str, list[str | None]]]:
        given = self._given(group)
        key = tuple((name, value) for name, value in given.items() if not _is_number(value) or value == 0)
        try:
            return self._parts[key]
        except KeyError:
            made = self._parts[key] = self._made(given)
            return made

    def _made(self, given: dict[str, Any]) -> tuple[Dialect, dict[str, list[str | None]]]:
        """The one in which numbers that are 0 have their place too, if that is no other formula; but for a momentum of
        0, for which torch keeps nothing."""
        for name, value in given.items():
            if type(value) in (int, float) and value == 0 and name != "momentum":
                try:
                    self.cls(**(shifted := {**given, name: 0.5}))
                except ValueError:
                    continue
                given = shifted
        part = self.cls(**given, **self._options)
        whole = {q for q, hyper in part._chain.hyper.items() if hyper.range is WHOLE}
        return part, {name: hyper for name, hyper in part._kept_in.items() if not whole & {*hyper}}

    def read(self, group: Group, key: str, place: int | None) -> Read:
        return Read(group, key, place)

    def called(self, part: Optimizer) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, rule in zip(part._chain.names, part._chain.rules):
            keys = KEPT["torch"].get(rule, {})
            found |= {part._chain.slots[name, slot]: key for slot, key in keys.items() if key}
        return found

    def counts(self, part: Optimizer) -> bool:
        from fallline.dialects.forms import UNCOUNTED

        return part._chain.rule not in UNCOUNTED

    def derived(self, part: Optimizer, group: Group, t: int) -> dict[str, float]:
        return {"mu": 1 / max(1.0, t - group["t0"])} if part._chain.rule is own.torch_asgd else {}


class OfOptimizer:
    """Of an optimizer of ours: settings that are numbers or schedules are keys of groups, all others stay its own."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer.fresh()
        self._schedules = {name: value for name, value in self._optimizer.hyper.items() if callable(value)}
        if self._optimizer._stepper.hears:
            raise TypeError(f"{self._optimizer._title} has a schedule that hears values, but a torch loop reports "
                            "none: use torch.optim.lr_scheduler.ReduceLROnPlateau.")
        self.defaults = {name: float(value(0)) if callable(value) else value
                         for name, value in self._optimizer.hyper.items() if _is_number(value) or callable(value)}
        chain = self._optimizer._chain
        self._fixed = {name for name in self.defaults if chain.hyper[chain.short.get(name, name)].range is WHOLE}
        if self._schedules:
            self.defaults[FOLLOWED] = list(self._schedules)

    def check(self, group: Group) -> None:
        rated = "rate" in self.defaults
        if "weight_decay" in group.keys() - self.defaults.keys() and (rated or group["weight_decay"]):
            remedy = " Write rate in its place." if rated else meant("", "weight_decay", self._optimizer.hyper)
            raise ValueError(f"weight_decay of a group is no setting of {self._optimizer._title}. "
                             f"Known: {', '.join(self.defaults)}.{remedy}")
        for name in self._fixed:
            if group[name] != self.defaults[name]:
                raise ValueError(f"{name} of {self._optimizer._title} must be the same for all groups, "
                                 f"{self.defaults[name]}. Got {brief(group[name])}.")
        part = self._optimizer.fresh()
        for name in self._asked():
            part.hyper[name] = _plain(group[name], name)

    def _asked(self) -> list[str]:
        """The keys that are settings for each step."""
        return [name for name in self.defaults if name not in self._fixed and name != FOLLOWED]

    def structure(self, group: Group) -> tuple[Any, ...]:
        return ()

    def telling(self, group: Group) -> list[str]:
        return []

    def part(self, group: Group) -> tuple[Optimizer, dict[str, list[str | None]]]:
        return self._optimizer, {name: [name] for name in self._asked()}

    def read(self, group: Group, key: str, place: int | None) -> Read:
        schedule = self._schedules.get(key)
        return Read(group, key, place) if schedule is None else Scheduled(group, key, schedule)

    def called(self, part: Optimizer) -> dict[str, str]:
        return {}

    def counts(self, part: Optimizer) -> bool:
        return True

    def derived(self, part: Optimizer, group: Group, t: int) -> dict[str, float]:
        return {}


class Assembled(NamedTuple):
    """The optimizer of all groups, its parts by name if it has several, and where schedules write into groups."""

    optimizer: Optimizer
    parts: dict[str, Optimizer]
    scheduled: list[Scheduled]


def assembled(kind: Kind, groups: Sequence[Group], of: Any) -> Assembled:
    """Make one of these groups, with a part for each structure; `of` is a tree of the parameters with the number of its
    group in each one's place.

    Raises ValueError where groups differ in what enters a number of all parameters.
    """
    import optree

    structures = [kind.structure(group) for group in groups]
    distinct = list(dict.fromkeys(structures))
    parts: dict[str, Optimizer] = {}
    scheduled: list[Scheduled] = []
    for k, structure in enumerate(distinct):
        mine = [n for n, other in enumerate(structures) if other == structure]
        made, kept = kind.part(groups[mine[0]])
        parts[str(k)] = part = made.fresh()
        for key, hyper in kept.items():
            for place, q in enumerate(hyper):
                if q is None:
                    continue
                whole = not isinstance(groups[mine[0]][key], (tuple, list))
                reads = {n: kind.read(groups[n], key, None if whole else place) for n in mine}
                scheduled += [read for read in reads.values() if isinstance(read, Scheduled)]
                if len(mine) > 1 and _enters_all(part, q):
                    if len({read(0) for read in reads.values()}) > 1:
                        raise ValueError(f"{key} is used in a number for all parameters of {part._title} and must be "
                                         f"the same for all groups. Got {[read(0) for read in reads.values()]}.")
                    part.hyper[q] = reads[mine[0]]
                else:
                    part.hyper[q] = reads[mine[0]] if len(mine) == 1 else optree.tree_map(
                        lambda n, reads=reads, first=mine[0]: reads.get(n, reads[first]), of)
    if len(parts) == 1:
        (only,) = parts.values()
        return Assembled(only, {}, scheduled)
    names = [str(distinct.index(structure)) for structure in structures]
    optimizer = partition(parts, optree.tree_map(names.__getitem__, of))
    return Assembled(optimizer, dict(optimizer.parts), scheduled)


def _enters_all(part: Optimizer, name: str) -> bool:
    """Whether a hyper-parameter enters a number of the state that is one for all leaves."""
    for place, q in part._chain.places(part._chain.short.get(name, name)).items():
        chain = part._stepper.holders[place].chain
        if q in {chain.source(own, part._stepper.holders[place].settings)
                 for program in chain.programs for own in program.common if own in chain.hyper}:
            return True
    return False


def _plain(value: Any, name: str) -> Any:
    """A value of a group: a tensor of one number as that number."""
    if isinstance(value, (tuple, list)):
        return tuple(_plain(part, name) for part in value)
    if not hasattr(value, "numel"):
        return value
    if value.numel() != 1:
        raise ValueError(f"{name} of a group must be a number or a tensor of one. Got one of {value.numel()}.")
    return value.item()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

