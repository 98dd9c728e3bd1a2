"""What steps leaves: a chain with its settings, its count and its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fallline._arrays.sealed import sealed
from fallline._engines.options import Options
from fallline._formula.chain import Chain
from fallline._formula.rule import Link
from fallline._formula.settings import anew, check, hearing, owned
from fallline._state.state_dict import LeafStates, Loaded, check_fits, check_leaves, checked, record
from fallline._step.group import Group
from fallline._step.transfer import carry, fill, merge, states_of

__all__ = ["Holder"]


class Holder:
    """A chain with its settings and, once the leaves are known that it steps, their `group`; until then a state that
    was loaded may be `waiting` for them.

    `count` has the completed steps: an array, so that native code counts what it has done.
    """

    def __init__(self, chain: Chain, settings: dict[str, Any]) -> None:
        self.chain, self.settings = chain, settings
        self._heard_of: dict[str, Any] | None = None  # the settings whose schedules `hearing` has found
        self.forget()

    @classmethod
    def of(cls, chain: Chain, links: Sequence[Link], hyper: Mapping[str, Any]) -> Holder:
        """That of a chain of these links, with hyper-parameters in the place of the links' own.

        Raises TypeError for unknown names and what nothing gives a value, ValueError for values out of range.
        """
        given = {f"{name}.{key}": value for name, link in zip(chain.names, links)
                 for key, value in link.settings.items()}
        given.update(chain.qualify(hyper))
        return cls(chain, {q: check(chain.hyper[q], value, chain.owner(q))
                           for q, value in chain.settings(given).items()})

    def forget(self) -> None:
        """Begin anew, with the same settings."""
        self.group: Group | None = None
        self.waiting: LeafStates | None = None
        self.count = np.zeros(1, np.int64)

    @property
    def t(self) -> int:
        """The steps taken."""
        return int(self.count[0])

    @property
    def calls(self) -> int:
        """The calls that were not skipped: as many as steps, unless gradients are gathered."""
        if self.chain.gathers is None:
            return self.t
        gathers = self.chain.gathers
        return self.t * int(self.asked(gathers.n)) + int(self.trees().get(gathers.calls, 0))

    def bound_to(self, like: Any, what: str, options: Options, waiting: LeafStates | None) -> Group:
        """A group of the leaves of a tree, which messages call so, with the state that waits for them."""
        group = Group(self.chain, self.settings, like, what, options, self.count)
        return group if waiting is None else fill(group, waiting)

    # ---- settings ----------------------------------------------------------------------------------------------------

    def asked(self, qualified: str) -> Any:
        """A hyper-parameter as it is handed out."""
        source = self.chain.source(qualified, self.settings)
        return self.chain.hyper[source].asked(sealed(self.settings[source]))

    def with_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The settings with others, by "rule.name", in their places.

        Raises ValueError or TypeError for those that are out of range, or that only say where what has begun starts.
        """
        settings = dict(self.settings)
        for qualified, value in given.items():
            source = self.chain.source(qualified, settings)
            self._refuse_begun(source)
            settings[source] = check(self.chain.hyper[source], value, self.chain.owner(source))
        return settings

    def _refuse_begun(self, qualified: str) -> None:
        if not (self.group or self.waiting):
            return
        gathers = self.chain.gathers
        if gathers is not None and qualified == gathers.n:
            raise ValueError(f"n of {self.chain.owner(qualified)} says how the calls so far are counted, and cannot "
                             "change after the first: call reset() first, or make a new optimizer.")
        if qualified in self.chain.only_start():
            raise ValueError(f"{self.chain.hyper[qualified].name} of {self.chain.owner(qualified)} only says where "
                             "the state starts, and that has started: call reset() first, or make a new optimizer.")

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise ValueError or TypeError unless the leaves can be stepped with these."""
        if self.group:
            self.group.aside().resolve(settings)

    def set(self, settings: dict[str, Any]) -> None:
        """Have these settings from the next step on; raises, and changes nothing, if they do not fit the leaves."""
        if self.group:
            self.group.resolve(settings)
        self.settings = settings

    def hearing(self) -> list[Any]:
        """The schedules that hear values."""
        if self._heard_of is not self.settings:
            self._heard_of = self.settings
            self._hearing = [schedule for value in self.settings.values() for schedule in hearing(value)]
        return self._hearing

    def hear(self, value: float) -> None:
        """Have the schedules hear a value; of a chain that climbs the more is the better."""
        for schedule in self.hearing():
            schedule._hear(-value if self.chain.uphill == {True} else value, self.t)

    # ---- state -------------------------------------------------------------------------------------------------------

    def states(self) -> LeafStates | None:
        """The state by leaf, live; None if nothing is known of leaves."""
        return states_of(self.group, self.t) if self.group else self.waiting

    def trees(self) -> dict[str, Any]:
        """The state by slot as read-only trees, by path if it waits; none before the first step."""
        return self.group.state_trees() if self.group else self.waiting.trees() if self.waiting else {}

    def record(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The state dictionary with these fields, live."""
        return record(self.chain, self.settings, self.t, fields, self.states())

    def checked(self, d: Any) -> Loaded:
        """A state dictionary as it can be loaded; raises ValueError or TypeError, naming what is wrong."""
        return checked(d, self.chain, self.settings)

    def check_loads(self, loaded: Loaded, strict: bool) -> None:
        """Raise ValueError or TypeError unless what was loaded fits the leaves, which are known; unless it is `strict`,
        those alone that are in both."""
        assert self.group is not None
        assert loaded.states is not None
        here = states_of(self.group, self.t)
        if strict:
            check_fits(loaded.states, here)
        else:
            check_leaves(loaded.states, here, [path for path in here.leaves if path in loaded.states.leaves])
        self.check_settings(loaded.settings)

    def load(self, loaded: Loaded) -> None:
        """Take over what was checked, its arrays too where they have to wait for leaves."""
        if self.group is None:
            self.waiting, self.count = loaded.states, np.zeros(1, np.int64)
        else:
            assert loaded.states is not None
            merge(self.group, loaded.states, loaded.t)
            self.group.resolve(loaded.settings)
        self.count[0], self.settings = loaded.t, loaded.settings

    def adapted(self, like: Any, given: Mapping[str, Any], options: Options, states: LeafStates | None
                ) -> tuple[Group, dict[str, Any]]:
        """A group of the leaves of a tree, with the state of those that are known, and the settings with these."""
        settings = self.with_settings(given)
        group = Group(self.chain, settings, like, "parameter", options, self.count)
        return group if states is None else carry(group, states), settings

    def recount(self, t: int) -> None:
        """Have taken so many steps, with every leaf."""
        waiting = self.waiting and self.waiting.counted(t)
        self.count[0] = t
        if self.group:
            self.group.forget_missed()
        self.waiting = waiting

    # ---- copies ------------------------------------------------------------------------------------------------------

    def fresh(self) -> Holder:
        """Another with the same chain and settings, and no state."""
        return Holder(self.chain, {name: anew(value) for name, value in self.settings.items()})

    def apart(self) -> Holder:
        """The same in memory of its own, to be copied or pickled; it steps only once it is `settle`d."""
        other = object.__new__(Holder)
        other.__dict__.update(self.__dict__, count=self.count.copy(), group=self.group and self.group.apart())
        return other

    def settle(self) -> None:
        """Go on, here, after `apart`; whatever brought it, nothing is shared with it."""
        self.count = np.array(self.count)
        self.settings = {name: owned(value) for name, value in self.settings.items()}
        self._heard_of = None
        self.waiting = self.waiting and self.waiting.copied()
        if self.group:
            self.group.settle(self.count, self.settings)
