"""How an optimizer's state leaves it and comes back: as plain data, as a file, for other parameters."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fallline._engines.options import Options
from fallline._formula.chain import Chain
from fallline._state import fields
from fallline._state.state_dict import LeafStates, Loaded, check_fits, checked, plain, record
from fallline._step.binding import Binding
from fallline._step.group import Group
from fallline._step.transfer import carry, put, states_of
from fallline._step.turn import Turn
from fallline.errors import TornOptimizer

if TYPE_CHECKING:  # files take modules that an import of fallline need not wait for
    from fallline._state.checkpoint import Contents
    from fallline._state.file import Path

__all__ = ["Keeping"]


class Keeping:
    """What `Optimizer` is made of as far as its state is data."""

    _chain: Chain
    _settings: dict[str, Any]
    _group: Group | None = None  # the leaves that it steps, once they are known; a partition has none of its own
    _binding: Binding | None
    _waiting: LeafStates | None  # a state that was loaded before the structure is known
    _torn: bool  # whether a step was interrupted half-way
    _count: np.ndarray  # the completed steps: an array, so that native code counts what it has done
    _skipped: int
    _turn: Turn
    _options: Options

    @property
    @abstractmethod
    def t(self) -> int: ...

    @abstractmethod
    def _checked(self, qualified: str, value: Any) -> Any: ...

    @abstractmethod
    def _refuse_started(self, qualified: str) -> None: ...

    @abstractmethod
    def _bound_to(self, like: Any, what: str, settings: Mapping[str, Any]) -> Group: ...

    def state_dict(self) -> dict[str, Any]:
        """The state, step counts and hyper-parameters as plain data: dicts, numbers and copies of the arrays.

        Keys: "format"; "rules", in order, each "built in" or with its formula's fingerprint; "t", "skipped"; "hyper",
        where functions stand by name, and fallline's schedules as they print; "leaves", by path the shape, dtype and
        the steps taken (None before the first step); "state", by slot and path. How paths are written:
        `fallline._arrays.trees.paths`.

        Raises TornOptimizer after a step that was interrupted half-way.

        >>> import numpy as np, fallline as fl
        >>> opt = fl.Momentum(lr=0.1)
        >>> _ = opt.step({"W": np.ones(2)}, {"W": np.ones(2)})
        >>> opt.state_dict()["state"]
        {'velocity': {'W': array([-0.1, -0.1])}}
        """
        return self._turn.join(self._plain)

    def _plain(self) -> dict[str, Any]:
        return plain(self._record())

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Take over a state that `state_dict` gave: state, step counts and hyper-parameters, as copies.

        Leaves are matched by path, whatever their order. Before the first step they are not known yet: the state then
        waits, and the first step checks it. Hyper-parameters are restored (as torch does), fallline's schedules among
        them, but for functions of one's own, which must be those that were saved, by name, and by value the fields of
        dataclasses and the arguments of partials.

        Raises ValueError or TypeError, naming what does not fit; then nothing was changed.

        >>> import fallline as fl
        >>> opt, other = fl.Adam(), fl.Adam(0.5)
        >>> w = opt.step(1.0, 1.0)
        >>> other.load_state_dict(opt.state_dict())
        >>> other.t, other.step(w, 1.0) == opt.step(w, 1.0)
        (1, True)
        """
        self._turn.take(self._load_copies, self._checked_state(d))

    def _checked_state(self, d: Any) -> Any:
        """A state dictionary as it can be taken over; raises ValueError or TypeError, naming what is wrong."""
        return checked(d, self._chain, self._settings)

    def _load_copies(self, loaded: Loaded) -> None:
        if self._group is None and loaded.states is not None:
            loaded = loaded._replace(states=loaded.states.copied())
        self._load(loaded)

    def adapt(self, params: Any, **hyper: Any) -> None:
        """Go on with another tree of parameters: leaves are added or left out, as torch's add_param_group does.

        A leaf whose path stays keeps its state and step count, a new one begins at its own step 1, others are
        forgotten. A path in a list is an index: to leave out any but the last item of a list moves those behind it.
        Hyper-parameters that are trees may be given along in their new form.

        Raises ValueError or TypeError, naming the leaf, if one changed its shape or dtype; then nothing was changed.

        >>> import fallline as fl
        >>> opt = fl.Momentum(lr=1.0)
        >>> w = opt.step({"a": 0.0}, {"a": 1.0})
        >>> opt.adapt({**w, "b": 0.0})
        >>> opt.step({**w, "b": 0.0}, {"a": 1.0, "b": 1.0})
        {'a': -2.9, 'b': -1.0}
        """
        self._turn.take(self._adapt, params, hyper)

    def _adapt(self, params: Any, hyper: Mapping[str, Any]) -> None:
        self._check_untorn()
        group, settings = self._adapted(params, self._chain.qualify(hyper))
        self._group, self._binding, self._settings, self._waiting = group, Binding.of(group), settings, None

    def _adapted(self, params: Any, hyper: Mapping[str, Any]) -> tuple[Group, dict[str, Any]]:
        """What `adapt` makes of the state and of the settings, the given ones by "rule.name"."""
        states, settings = self._states(), dict(self._settings)
        for qualified, value in hyper.items():
            self._refuse_started(qualified)
            settings[self._chain.source(qualified, settings)] = self._checked(qualified, value)
        bound = self._bound_to(params, "parameter", settings)
        return bound if states is None else carry(bound, states), settings

    def save(self, path: Path, params: Any = None) -> None:
        """Write the state, and the parameters if given, into one safetensors file, in place of the one that is there.

        All or nothing: the old file stays until the new one is whole and on disk. A link is followed, permission bits
        are kept. Arrays of any library are written by leaf path ("params/W", "state/m/W"); parameters are trees of
        dicts, lists and tuples. Rules are recorded by name, your own by a fingerprint of their formula too (of
        whole leaves: of their signature); what `fallline.schedules` has is recorded whole, other functions by name.

        Raises CheckpointError if the file cannot be written, ValueError or TypeError for parameters that are not this
        optimizer's or that a file cannot hold, TornOptimizer after a step that was interrupted half-way.

        >>> import os, tempfile, fallline as fl
        >>> opt = fl.Adam()
        >>> w = opt.step(1.0, 1.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     opt.save(os.path.join(folder, "run.safetensors"), w)
        ...     os.listdir(folder)
        ['run.safetensors']
        """
        self._save(path, params)

    def load(self, path: Path) -> Any:
        """Take over the state of a file that `save` wrote, as `load_state_dict` does; returns its parameters, or None.

        To make the optimizer too: `fallline.load`, where also the kinds that parameters come back as are told.

        Raises FileNotFoundError if there is no file, CheckpointError if anything is wrong with it or it is another
        optimizer's; then nothing was changed.

        >>> import os, tempfile, fallline as fl
        >>> opt, other = fl.Adam(), fl.Adam()
        >>> w = opt.step(1.0, 1.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     opt.save(os.path.join(folder, "run.safetensors"), w)
        ...     v = other.load(os.path.join(folder, "run.safetensors"))
        >>> v == w, other.t
        (True, 1)
        """
        from fallline._state.checkpoint import load as read

        contents = read(path)
        self._take(path, contents)
        return contents.params

    def _save(self, path: Path, params: Any = None, arrays: Mapping[str, Any] | None = None, extra: Any = None) -> None:
        """Save; with named arrays, and data that JSON takes, of the caller's own."""
        from fallline._state.checkpoint import Contents
        from fallline._state.checkpoint import save as write

        def written() -> None:
            state = self._record()
            bound = self._binding or self._group  # only the latter of a part
            if params is not None and bound:
                bound.leaves(params, "parameter")
            write(path, Contents(state, self._built(), params, dict(arrays or {}), extra))

        self._turn.join(written)

    def _take(self, path: Path, contents: Contents) -> None:
        """Take over the state of a file that was read (`saved.load`)."""
        from fallline._state.file import guarding

        def loaded() -> None:
            with guarding(path):
                state = self._checked_state(contents.state)
            divided = self._divided_for(path, contents.params)
            with guarding(path):
                self._check_division(divided, state)
                self._load(state)

        self._turn.take(loaded)

    def _divided_for(self, path: Path, params: Any) -> Any:
        """How parameters of a file, None if it has none, are divided among parts; None where there are none."""

    def _check_division(self, divided: Any, loaded: Any) -> None:
        """Raise ValueError, naming a leaf, unless the state has leaves divided so."""

    def _built(self) -> dict[str, Any]:
        """How to make this optimizer again, beyond its settings; a folder for scratch files is this machine's alone."""
        links = [[link.rule.name, link.title] for link in self._chain.links(self._settings)]
        options = {name: value for name, value in self._options.given().items() if name != "state_dir"}
        return {"class": type(self).__name__, "links": links, "options": options}

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """For what an interrupt must not leave half-way: it leaves a torn optimizer, as any error does."""
        self._torn = True
        yield
        self._torn = False

    def _check_untorn(self) -> None:
        if self._torn:
            raise TornOptimizer("A step of this optimizer was interrupted half-way, so its state and parameters are "
                                "of no whole number of steps: load a state, or call opt.reset(), and start from known "
                                "parameters.")

    def _states(self) -> LeafStates | None:
        return states_of(self._group, self.t) if self._group else self._waiting

    def _record(self) -> dict[str, Any]:
        self._check_untorn()
        return record(self._chain, self._settings, self.t, fields.of(self), self._states())

    def _load(self, loaded: Loaded) -> None:
        """Take over what was checked; its arrays too where they have to wait."""
        bound, states = self._group, loaded.states
        if bound is not None and states is not None:
            check_fits(states, states_of(bound, self.t))
            bound.resolve(loaded.settings)
        with self._changing():
            if bound is None or states is None:
                self._binding = self._group = None
                self._waiting, self._count = states, np.zeros(1, np.int64)
            else:
                put(bound, states, bound.paths, loaded.t)
            self._count[0], self._settings = loaded.t, loaded.settings
            fields.put(self, loaded.fields)
