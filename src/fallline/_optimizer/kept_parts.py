"""How a partition's state leaves it and comes back: that of each part, and which leaf is whose."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from fallline._formula.settings import renewed
from fallline._messages.values import brief
from fallline._optimizer.optimizer import Optimizer
from fallline._state import fields
from fallline._state.fingerprint import described
from fallline._state.state_dict import LeafStates, Loaded, check_fits, plain
from fallline._step.binding import Binding
from fallline._step.transfer import states_of

if TYPE_CHECKING:  # files take modules that an import of fallline need not wait for
    from fallline._state.file import Path

__all__ = ["KeptParts"]

KEYS = ("format", "label", "parts")


class _Loaded(NamedTuple):
    """A state that was checked, part by part."""

    fields: dict[str, Any]
    parts: dict[str, Loaded]

    def copied(self) -> _Loaded:
        """The same in memory of its own."""
        return self._replace(parts={name: own._replace(states=own.states and own.states.copied())
                                    for name, own in self.parts.items()})


class KeptParts(Optimizer):
    """What `Partition` is made of as far as its state is data."""

    kind: ClassVar[str]
    divider: ClassVar[str]  # what the argument is called that says which leaf is whose
    _chain: Any
    _label: Any
    _parts: dict[str, Optimizer]
    _made: dict[str, Optimizer]  # the parts as they were given, without what is around them
    _names: tuple[str, ...]  # of the parts, those included that leave their leaves alone

    @abstractmethod
    def _checked_label(self, label: Any) -> Any: ...

    @abstractmethod
    def _divided(self, like: Any, label: Any = None) -> tuple[Binding, list[Any]]: ...

    def _check_places(self, divided: Binding, theirs: Mapping[str, str], paths: Iterable[str]) -> None:
        """Raise ValueError, naming a leaf of these, unless they are divided as in a state, if there is any.

        Labels are not compared: two functions may have one name, and one division may be said in many ways.
        """
        ours = {divided.paths[k]: name for name, own in divided.positions.items() for k in own}
        for path in paths if theirs else ():
            if ours.get(path) != theirs.get(path):
                now, then = (f"part {of[path]!r}" if path in of else "no part" for of in (ours, theirs))
                raise ValueError(f"{self.divider} of {self.kind} gives {repr(path) if path else 'the parameter'} to "
                                 f"{now}, and in the state it is of {then}: give a {self.divider} that divides the "
                                 "leaves as they were.")

    def _record(self) -> dict[str, Any]:
        self._check_untorn()
        parts = {name: self._parts[name]._record() if name in self._parts else None for name in self._names}
        label = described(self._label) if callable(self._label) else self._label
        return {"format": fields.FORMAT, "label": label, **fields.of(self), "parts": parts}

    def _plain(self) -> dict[str, Any]:
        live = self._record()
        return {**live, "label": renewed(live["label"]),
                "parts": {name: own and plain(own) for name, own in live["parts"].items()}}

    def _checked_state(self, d: Any) -> _Loaded:
        if isinstance(d, Mapping) and isinstance(d.get("rules"), Mapping):
            raise ValueError(f"The state is that of no {self.kind} but of an optimizer by itself, of the rules "
                             f"{', '.join(map(str, d['rules']))}: load it into such a one, or make one of its file, "
                             "fallline.load.")
        own = fields.checked(d, KEYS, f"A state of a {self.kind}")
        saved = d["parts"]
        if not isinstance(saved, Mapping) or {n: own is None for n, own in saved.items()} != {
                n: n not in self._parts for n in self._names}:
            raise ValueError(f"The parts of the state must be those here: {', '.join(self._names)}. Got "
                             f"{', '.join(map(str, saved)) if isinstance(saved, Mapping) else brief(saved)}.")
        parts = {}
        for name, part in self._parts.items():
            with _telling(name):
                parts[name] = part._checked_state(saved[name])
        steps = {part.t for name, part in parts.items() if self._parts[name]._chain.gathers is None}
        if len(steps) > 1:
            raise ValueError(f"The parts of the state have taken different numbers of steps: {sorted(steps)}.")
        return _Loaded(own, parts)

    def _load_copies(self, loaded: _Loaded) -> None:  # type: ignore[override]
        self._load(loaded if self._takes_now(loaded) else loaded.copied())

    def _divided_for(self, path: Path, params: Any) -> Binding | None:
        from fallline._state.file import guarding

        if params is None or self._binding is not None:
            return None
        with contextlib.nullcontext() if callable(self._label) else guarding(path):  # a function's errors are its own
            return self._divided(params)[0]

    def _check_division(self, divided: Binding | None, loaded: _Loaded) -> None:
        if divided is not None:
            theirs = _places({name: own.states for name, own in loaded.parts.items()})
            self._check_places(divided, theirs, divided.paths)

    def _waiting_places(self) -> dict[str, str]:
        """Whose the leaves are of a state that waits for the first step."""
        return _places({name: part._waiting for name, part in self._parts.items()})

    def _takes_now(self, loaded: _Loaded) -> bool:
        """Whether a state can be put in place, and does not have to wait for the leaves to be known."""
        bound = self._binding is not None and all(part._group is not None for part in self._parts.values())
        return bound and all(own.states is not None for own in loaded.parts.values())

    def _load(self, loaded: _Loaded) -> None:  # type: ignore[override]
        now = self._takes_now(loaded)
        if now:
            self._check_division(self._binding, loaded)
        for name, own in loaded.parts.items() if now else ():
            part = self._parts[name]
            with _telling(name):
                check_fits(own.states, states_of(part._group, part.t))  # type: ignore[arg-type]
                part._group.aside().resolve(own.settings)  # type: ignore[union-attr]
        with self._changing():
            if not now:
                self._unbind()
            for name, own in loaded.parts.items():
                self._parts[name]._load(own)
            fields.put(self, loaded.fields)

    def _adapt(self, params: Any, hyper: Mapping[str, Any]) -> None:
        self._check_untorn()
        label = self._checked_label(hyper[self.divider]) if self.divider in hyper else self._label
        given = self._chain.qualify({name: value for name, value in hyper.items() if name != self.divider})
        divided, leaves = self._divided(params, label)
        if self.divider not in hyper:
            waiting = self._waiting_places()
            self._check_places(divided, waiting, [path for path in divided.paths if path in waiting])  # others are new
        new = {name: part._adapted(divided.tree(name, leaves), given[name]) for name, part in self._parts.items()}
        divided.bind({name: group for name, (group, _) in new.items()})
        with self._changing():
            for name, part in self._parts.items():
                part._group, part._settings = new[name]
                part._waiting = None
            self._binding, self._label = divided, label

    def _built(self) -> dict[str, Any]:
        parts = {name: {**self._parts[name]._built(), "class": type(self._made[name]).__name__, "options": {}}
                 if name in self._parts else None for name in self._names}
        options = {name: value for name, value in self._options.given().items() if name != "state_dir"}
        around = next(iter(self._parts.values()))._chain.around
        return {"class": type(self).__name__, "parts": parts, "around": list(around), "options": options}


def _places(states: Mapping[str, LeafStates | None]) -> dict[str, str]:
    """The part of each leaf, by path; none if a part does not know its leaves."""
    every = None not in states.values()
    return {path: name for name, own in states.items() if own and every for path in own.leaves}


@contextlib.contextmanager
def _telling(name: str) -> Iterator[None]:
    """Have errors say which part they are of."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise (TypeError if isinstance(error, TypeError) else ValueError)(f"Part {name!r}: {error}") from error
