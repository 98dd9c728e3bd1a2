"""A run in a file: where it stands, how it came there, and how it is left in good order."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fallline._arrays import trees
from fallline._arrays.leaves import dtype_name, in_memory, is_number, like
from fallline._optimizer.keeping import save, take
from fallline._optimizer.optimizer import Optimizer
from fallline._state.file import Path, sweep
from fallline._state.state_dict import named, shown, told
from fallline.errors import CheckpointError

__all__ = ["Record"]


class Record:
    """The file of a run of `owner`, written after every so many steps and when the run is left: the optimizer, the
    parameters and named arrays, among them "values", one for each step that was taken.

    `start` is the step number that the run began with; `holding` keeps signals from coming within a step.
    """

    def __init__(self, owner: str, path: Path, every: int, optimizer: Optimizer) -> None:
        self.owner, self.path, self.every, self._optimizer = owner, path, every, optimizer
        self.start, self._saved = optimizer.calls, -1
        self._given = {key: told(value) for key, value in _settings(optimizer._stepper.record()).items()}
        self.others = optimizer._stepper.others
        self.holding = Holding(waits=not self.others.is_one)

    def resume(self, params: Any) -> tuple[Any, Mapping[str, np.ndarray]]:
        """The parameters and arrays to go on from: those of the file, whose optimizer the one here takes over, if there
        is one; else the given ones and none. Settings given otherwise than when the run was begun stay. The parameters
        given are written where they can be.

        Raises CheckpointError if the file is damaged or of something else; then nothing was changed.
        """
        return self.others.together(self._resumed, params)

    def _resumed(self, params: Any) -> tuple[Any, Mapping[str, np.ndarray]]:
        self.others.once(sweep, self.path)
        if not self.others.once(os.path.exists, self.path):
            return params, {}
        contents = self.others.read(self._optimizer._stepper, self.path, params)
        extra = contents.extra if isinstance(contents.extra, dict) else {}
        if extra.get("what") != self.owner or "values" not in contents.arrays or contents.params is None:
            raise CheckpointError(f"{self.path} holds no run of {self.owner}: give a path of its own.")
        params = self._taken_over(params, contents.params)
        before = {tuple(key.split("/")): text for key, text in extra.get("given", {}).items()}
        self._keep_what_is_new(contents.state, before)
        take(self._optimizer._stepper, self.path, contents)
        self._optimizer.adapt(params)  # whose kinds what it knows of them has from here on, as in the run before
        self.start, self._saved = int(extra["start"]), len(contents.arrays["values"])
        return params, contents.arrays

    def _keep_what_is_new(self, state: dict[str, Any], before: dict[Any, str]) -> None:
        """Put settings of the optimizer that are not those `before`, given when the run was begun, in the place of the
        file's."""
        now, saved = self._optimizer._stepper.record(), _settings(state)
        for key, setting in _settings(now).items():
            if before.get(key, self._given[key]) == self._given[key] or key not in saved:
                continue
            part, own = key
            chain = self._optimizer._parts[part]._chain if part else self._optimizer._chain
            if own in chain.only_start() or (chain.gathers and own == chain.gathers.n):
                raise CheckpointError(f"{self.path} holds a run that has begun, and {own} can only be chosen at its "
                                      f"start: give {shown(saved[key])}, as before, or another path for a new run. "
                                      f"Got {shown(setting)}.")
            (state["parts"][part] if part else state)["hyper"][own] = named(setting)

    def _taken_over(self, params: Any, saved: Any) -> Any:
        """Parameters of the given kinds with the saved numbers."""
        (leaves, treedef), (found, other) = trees.flatten(params), trees.flatten(saved)
        ours, theirs = (dict(zip(trees.paths(d), map(_look, a))) for d, a in ((treedef, leaves), (other, found)))
        for path in [*ours, *theirs]:
            if ours.get(path) != theirs.get(path):
                raise CheckpointError(f"{self.path} is of another run: parameter {path!r} is {theirs.get(path, 'not')} "
                                      f"there, here it is {ours.get(path, 'not')}.")
        by_path = dict(zip(trees.paths(other), found))
        return treedef.unflatten(_with(leaf, by_path[path]) for leaf, path in zip(leaves, trees.paths(treedef)))

    def save(self, params: Any, taken: int, arrays: Callable[[], Mapping[str, Any]]) -> None:
        """Save, if steps have been taken since."""
        if taken != self._saved:
            given = {"/".join(key): text for key, text in self._given.items()}
            save(self._optimizer._stepper, self._optimizer._built(), self.path, params, arrays(),
                 {"what": self.owner, "start": self.start, "given": given})
            self._saved = taken

    def remark(self) -> str:
        """Where the run is, and how to go on, to who sees it end."""
        return (f"{self.owner}: the run is saved in {os.fspath(self.path)!r} after {self._saved} steps. The same call "
                "goes on from there.")


def _settings(state: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """The settings of a state dictionary by part, "" where there are none, and name."""
    parts = state.get("parts", {"": state})
    return {(part, name): value for part, own in parts.items() if own for name, value in own["hyper"].items()}


def _look(leaf: Any) -> str:
    return "a number" if is_number(leaf) else f"{dtype_name(leaf)} of shape {tuple(np.shape(leaf))}"


def _with(leaf: Any, value: Any) -> Any:
    """A leaf with these numbers: this one, which may be written, or a new one like it."""
    if is_number(leaf):
        return value
    array = in_memory(leaf)
    if array is None:
        return like(leaf, value)
    array[...] = value
    return leaf


class _TerminatedError(BaseException):
    """SIGTERM came."""


class Holding:
    """Signals that would end the run come between steps only, so that it is left in good order.

    Within `watching`, SIGINT and SIGTERM are delivered at once, but in a `with` of this object at its end; if it
    `waits`, once all agree to `deliver` what `came` to any. It does nothing in a thread other than the main one, where
    no signals arrive.
    """

    def __init__(self, waits: bool = False) -> None:
        self._depth = int(waits)
        self._pending: list[Any] = []
        self._old: dict[Any, Any] = {}

    def came(self) -> list[int]:
        """The numbers of the signals that wait."""
        return [int(number) for number, _ in self._pending]

    def deliver(self, numbers: list[int]) -> None:
        """Have the first of these signals arrive, whoever got it."""
        if numbers and self._old:
            self._pending.clear()
            self._deliver(numbers[0], None)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Have the signals held; SIGTERM, once the block is left for it, ends the process as ever."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._old = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        taken = [s for s, old in self._old.items() if callable(old) or (old == signal.SIG_DFL and s == signal.SIGTERM)]
        try:
            for s in taken:
                signal.signal(s, self._arrived)
            yield
        except _TerminatedError as error:
            print(*getattr(error, "__notes__", ()), sep="\n", file=sys.stderr, flush=True)
            self._restore(taken)
            os.kill(os.getpid(), signal.SIGTERM)
            raise  # should it have been blocked
        finally:
            self._restore(taken)
            for number in self.came():  # behind the last point
                os.kill(os.getpid(), number)

    def _restore(self, taken: list[Any]) -> None:
        for s in taken:
            signal.signal(s, self._old[s])

    def _arrived(self, number: int, frame: Any) -> None:
        if self._depth:
            self._pending.append((number, frame))
            return
        self._deliver(number, frame)

    def _deliver(self, number: int, frame: Any) -> None:
        old = self._old[signal.Signals(number)]
        if not callable(old):
            raise _TerminatedError
        old(number, frame)

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *_: Any) -> None:
        self._depth -= 1
        while self._pending and not self._depth:
            self._arrived(*self._pending.pop(0))
