"""A run of `descend` in a file: where it stands, how it came there, and how it is left in good order."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fallline._arrays import trees
from fallline._arrays.leaves import dtype_name, in_memory, is_number, like
from fallline._loops.stopping import MOVED
from fallline._optimizer.keeping import save, take
from fallline._optimizer.optimizer import Optimizer
from fallline._state.checkpoint import load
from fallline._state.file import Path, sweep
from fallline._state.state_dict import named, shown, told
from fallline.errors import CheckpointError

__all__ = ["Record"]


class Record:
    """The file of a run, written after every so many steps and when the run is left.

    `values` are those before each step that was taken, `moves` what came before each and before the next; `start` is
    the step number that the run began with; `holding` keeps signals from coming within a step.
    """

    def __init__(self, path: Path, every: int, optimizer: Optimizer) -> None:
        self.path, self.every, self._optimizer = path, every, optimizer
        self.start, self._saved = optimizer.calls, -1
        self._given = {key: told(value) for key, value in _settings(optimizer._stepper.record()).items()}
        self.holding = Holding()

    def resume(self, params: Any) -> tuple[Any, list[float], list[int]]:
        """The parameters, values and moves to go on from: those of the file, which the optimizer takes over too, if
        there is one; else the given ones and none. Settings given otherwise than when the run was begun stay.

        Raises CheckpointError if the file is damaged or of something else; then nothing was changed.
        """
        sweep(self.path)
        if not os.path.exists(self.path):
            return trees.copy(params), [], []
        contents = load(self.path)
        extra = contents.extra if isinstance(contents.extra, dict) else {}
        values = contents.arrays.get("values")
        if extra.get("what") != "descend" or values is None or contents.params is None:
            raise CheckpointError(f"{self.path} holds no run of descend: give a path of its own.")
        params = self._taken_over(trees.copy(params), contents.params)
        before = {tuple(key.split("/")): text for key, text in extra.get("given", {}).items()}
        self._keep_what_is_new(contents.state, before)
        take(self._optimizer._stepper, self.path, contents)
        self._optimizer.adapt(params)  # whose kinds what it knows of them has from here on, as in the run before
        self.start, self._saved = int(extra["start"]), len(values)
        moves = contents.arrays.get("moves", np.full(len(values), MOVED))
        return params, values.tolist(), moves.tolist()

    def _keep_what_is_new(self, state: dict[str, Any], before: dict[Any, str]) -> None:
        """Put settings of the optimizer that are not those `before`, given when the run was begun, in the place of the
        file's."""
        now, saved = self._optimizer._stepper.record(), _settings(state)
        for key, setting in _settings(now).items():
            if before.get(key, self._given[key]) == self._given[key] or key not in saved:
                continue
            part, own = key
            chain = self._optimizer._parts[part]._chain if part else self._optimizer._chain
            if own in chain.only_start() or (chain.gathers and own == chain.gathers[1]):
                raise CheckpointError(f"{self.path} is of a run that has begun, and {own} can only be chosen at its "
                                      f"start: give {shown(saved[key])}, as before, or a path for a run of its own. "
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

    def keep(self, params: Any, values: list[float], moves: Moves) -> None:
        """Save if it is time to."""
        if len(values) % self.every == 0:
            self.save(params, values, moves)

    def save(self, params: Any, values: list[float], moves: Moves) -> None:
        """Save, if there is anything new."""
        if len(values) != self._saved:
            arrays = {"values": np.array(values, np.float64), "moves": np.array(moves(len(values), params), np.uint8)}
            given = {"/".join(key): text for key, text in self._given.items()}
            save(self._optimizer._stepper, self._optimizer._built(), self.path, params, arrays,
                 {"what": "descend", "start": self.start, "given": given})
            self._saved = len(values)


Moves = Callable[[int, Any], Sequence[int]]  # of the number of values and the parameters (`Judge.moves`)


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

    Within `watching`, SIGINT and SIGTERM are delivered at once, but in a `with` of this object at its end. It does
    nothing in a thread other than the main one, where no signals arrive.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._pending: list[Any] = []

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
        except _TerminatedError:
            self._restore(taken)
            os.kill(os.getpid(), signal.SIGTERM)
            raise  # should it have been blocked
        finally:
            self._restore(taken)

    def _restore(self, taken: list[Any]) -> None:
        for s in taken:
            signal.signal(s, self._old[s])

    def _arrived(self, number: int, frame: Any) -> None:
        if self._depth:
            self._pending.append((number, frame))
            return
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
