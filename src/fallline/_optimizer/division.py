"""How a tree's leaves, and a state, are divided among the holders of an optimizer."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fallline._arrays.trees import Treedef, flatten, is_container, unlike_upper_levels
from fallline._arrays.trees import paths as paths_of
from fallline._formula.settings import renewed
from fallline._messages.remedies import instead
from fallline._messages.values import brief
from fallline._optimizer.holder import Holder
from fallline._state import fields
from fallline._state.fingerprint import described
from fallline._state.state_dict import LeafStates, Loaded, as_now, plain
from fallline._step.binding import Binding

__all__ = ["ByLabel", "ByMask", "Checked", "Whole", "takes_shape", "telling"]


class Checked(NamedTuple):
    """A state that was checked: its fields, and what each holder is to load."""

    fields: dict[str, Any]
    own: dict[str, Loaded]

    def as_now(self, names: Mapping[str, str]) -> Checked:
        """The same by the names that leaves have now, see there."""
        states = as_now({name: own.states for name, own in self.own.items()}, names)
        return self._replace(own={name: own._replace(states=states[name]) for name, own in self.own.items()})

    def copied(self) -> Checked:
        """The same in memory of its own."""
        return self._replace(own={name: own._replace(states=own.states and own.states.copied())
                                  for name, own in self.own.items()})


    def renamed(self, rename: Callable[[str], str] | None, holders: Mapping[str, Holder]) -> Checked:
        """The same with leaves by the names that a function gives them, if there is one."""
        if rename is None:
            return self
        return self._replace(own={name: own._replace(states=own.states and own.states.renamed(
            own.states.named_by(rename), holders[name].chain.scopes())) for name, own in self.own.items()})

    def leaves(self) -> dict[str, str]:
        """Whose the leaves of the state are, by path."""
        return {path: name for name, own in self.own.items() if own.states for path in own.states.leaves}


class Whole:
    """All leaves are those of the only holder, "", and so is the state."""

    asks = False  # whether a function of the caller's is asked, whose errors are its own

    def relabelled(self, hyper: Mapping[str, Any]) -> tuple[Whole, Mapping[str, Any]]:
        """What divides from now on, and the hyper-parameters, where a label may be given among these."""
        return self, hyper

    def divide(self, like: Any) -> tuple[Binding, list[Any]]:
        """The leaves of a tree, divided, and these leaves."""
        leaves, treedef = flatten(like)
        return Binding(treedef, paths_of(treedef), {"": list(range(len(leaves)))}, []), leaves

    def check(self, divided: Binding, states: Mapping[str, LeafStates | None], paths: Iterable[str]) -> None:
        """Raise ValueError, naming a leaf of these, unless they are divided as in states, if all of these are known."""

    def record(self, holders: Mapping[str, Holder], own: Mapping[str, Any]) -> dict[str, Any]:
        """The state dictionary, with these fields, live."""
        return holders[""].record(own)

    def plain(self, live: Mapping[str, Any]) -> dict[str, Any]:
        """A record with copies of its arrays, and functions by their names."""
        return plain(live)

    def checked(self, d: Any, holders: Mapping[str, Holder]) -> Checked:
        """A state dictionary as it can be loaded; raises ValueError or TypeError, naming what is wrong."""
        loaded = holders[""].checked(d)
        return Checked(loaded.fields, {"": loaded})


class ByLabel(Whole):
    """A label says which leaf is whose, by the names of parts: those that have holders step them, others leave them
    alone."""

    kind: ClassVar[str] = "partition"
    divider: ClassVar[str] = "label"  # what the argument is called

    def __init__(self, names: Iterable[str], stepping: Iterable[str], label: Any) -> None:
        self.names, self.stepping = tuple(names), tuple(stepping)
        self.label = self._checked_label(label)

    @property
    def asks(self) -> bool:  # type: ignore[override]
        return callable(self.label) and not is_container(self.label)

    @property
    def _what(self) -> str:
        return f"{self.divider} of {self.kind}"

    def part_of(self, said: Any, path: str) -> str | None:
        """The part of a leaf, of which the label said so; None if it is left alone."""
        if not isinstance(said, str) or said not in self.names:
            raise ValueError(f"{self._what} must name the part of each leaf: {', '.join(map(repr, self.names))}. "
                             f"Got {said!r}{' for ' * bool(path)}{path}.")
        return said if said in self.stepping else None

    def _checked_label(self, label: Any) -> Any:
        """A label if it is a function, or a tree of what is known."""
        if is_container(label):
            leaves, treedef = flatten(label)
            for path, said in zip(paths_of(treedef), leaves):
                self.part_of(said, path)
            return renewed(label)
        if not callable(label) or hasattr(label, "hyper"):  # rules and optimizers are callable, but no labels
            raise TypeError(f"{self._what} must be a function of the leaf's path, or a tree shaped like the parameters."
                            f" Got {brief(label)}{instead(label)}.")
        try:
            signature = inspect.signature(label)
        except (TypeError, ValueError):  # of some that are built in nothing is known
            return label
        try:
            signature.bind("", **{"shape": ()} if "shape" in signature.parameters else {})
        except TypeError:
            raise TypeError(f"{self._what} must be a function of the leaf's path, or of path and shape, under that "
                            f"name. Got {described(label)}{signature}.") from None
        return label

    def relabelled(self, hyper: Mapping[str, Any]) -> tuple[Whole, Mapping[str, Any]]:
        if self.divider not in hyper:
            return self, hyper
        new = type(self)(self.names, self.stepping, hyper[self.divider])
        return new, {name: value for name, value in hyper.items() if name != self.divider}

    def divide(self, like: Any) -> tuple[Binding, list[Any]]:
        leaves, treedef = flatten(like)
        paths = paths_of(treedef)
        positions: dict[str, list[int]] = {name: [] for name in self.stepping}
        left: list[int] = []
        for k, (path, said) in enumerate(zip(paths, self._said(treedef, paths, leaves))):
            part = self.part_of(said, path)
            (left if part is None else positions[part]).append(k)
        return Binding(treedef, paths, positions, left), leaves

    def _said(self, treedef: Treedef, paths: Sequence[str], leaves: Sequence[Any]) -> list[Any]:
        """What the label says of each leaf."""
        label = self.label
        if self.asks:
            if not takes_shape(label):
                return [label(path) for path in paths]
            return [label(path, shape=tuple(getattr(leaf, "shape", ()))) for path, leaf in zip(paths, leaves)]
        said = treedef.spread(label)
        if said is not None:
            return said
        where = ", ".join(map(repr, paths[:5])) + " ..." * (len(paths) > 5) if paths != [""] else "a single array"
        raise ValueError(f"{self._what} must have the structure of the parameters or of their upper levels ({where}), "
                         f"or be a function of the path. Got {brief(label)}{unlike_upper_levels(treedef, label)}.")

    def check(self, divided: Binding, states: Mapping[str, LeafStates | None], paths: Iterable[str]) -> None:
        # labels are not compared: two functions may have one name, and one division may be said in many ways
        ours = {divided.paths[k]: name for name, own in divided.positions.items() for k in own}
        theirs = {path: name for name, own in states.items() if own for path in own.leaves}
        for path in paths if None not in states.values() else ():
            if ours.get(path) != theirs.get(path):
                now, then = (f"part {of[path]!r}" if path in of else "no part" for of in (ours, theirs))
                raise ValueError(f"{self._what} gives {repr(path) if path else 'the parameter'} to {now}, and in the "
                                 f"state it is of {then}: give a {self.divider} that divides the leaves as they were.")

    def record(self, holders: Mapping[str, Holder], own: Mapping[str, Any]) -> dict[str, Any]:
        parts = {name: holders[name].record(fields.starts()) if name in holders else None for name in self.names}
        label = described(self.label) if self.asks else self.label
        return {"format": fields.FORMAT, "label": label, **own, "parts": parts}

    def plain(self, live: Mapping[str, Any]) -> dict[str, Any]:
        return {**live, "label": renewed(live["label"]),
                "parts": {name: own and plain(own) for name, own in live["parts"].items()}}

    def checked(self, d: Any, holders: Mapping[str, Holder]) -> Checked:
        if isinstance(d, Mapping) and isinstance(d.get("rules"), Mapping):
            raise ValueError(f"The state is not of a {self.kind} but of a single optimizer with the rules "
                             f"{', '.join(map(str, d['rules']))}: load it into one of that kind, or use fallline.load "
                             "on its file.")
        own = fields.checked(d, ("format", "label", "parts"), f"A state of a {self.kind}")
        saved = d["parts"]
        if not isinstance(saved, Mapping) or {n: part is None for n, part in saved.items()} != {
                n: n not in holders for n in self.names}:
            raise ValueError(f"The parts of the state must be those here: {', '.join(self.names)}. Got "
                             f"{', '.join(map(str, saved)) if isinstance(saved, Mapping) else brief(saved)}.")
        parts = {}
        for name, holder in holders.items():
            with telling(name):
                parts[name] = holder.checked(saved[name])
        steps = {part.t for name, part in parts.items() if holders[name].chain.gathers is None}
        if len(steps) > 1:
            raise ValueError(f"The parts of the state have taken different numbers of steps: {sorted(steps)}.")
        return Checked(own, parts)


class ByMask(ByLabel):
    """The label says True of the leaves that are "stepped", and False of others."""

    kind = "mask"
    divider = "by"

    def part_of(self, said: Any, path: str) -> str | None:
        if not isinstance(said, (bool, np.bool_)):
            raise TypeError("by of mask must be True for a leaf that is stepped and False for one that is left alone. "
                            f"Got {said!r}{' for ' * bool(path)}{path}.")
        return "stepped" if said else None


@contextlib.contextmanager
def telling(name: str) -> Iterator[None]:
    """Have errors say which part they are of, if it has a name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not name:
            raise
        raise (TypeError if isinstance(error, TypeError) else ValueError)(f"Part {name!r}: {error}") from error


def takes_shape(label: Callable[..., Any]) -> bool:
    """Whether a function of a leaf's path asks for the shape of the leaf too."""
    try:
        return "shape" in inspect.signature(label).parameters
    except (TypeError, ValueError):
        return False
