"""The loop under `descend` and `minimize`: evaluate, note, judge, step, and again."""

from __future__ import annotations

import contextlib
import math
import operator
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from fallline._loops import progress as _progress
from fallline._loops.arguments import path_of, whole
from fallline._loops.journal import Journal
from fallline._messages.values import brief
from fallline._optimizer.optimizer import Optimizer
from fallline.errors import NonFiniteGradient

if TYPE_CHECKING:
    from fallline._loops.resume import Record

__all__ = ["Judge", "Point", "Walk", "remedy", "stops"]


@dataclass(slots=True)
class Point:
    """One evaluation: the number of steps before it, the parameters (live, not a copy), their value, None where there
    is none, and their gradient."""

    t: int
    params: Any
    value: float | None
    grad: Any


Evaluate = Callable[[Any, int], tuple[float | None, Any]]  # of parameters and the number of steps before


class Judge(Protocol):
    """Who says when a walk is over."""

    def ends(self, point: Point) -> Enum | None:
        """Why the walk is over at this point; None if it goes on."""

    def memory(self, taken: int, params: Any) -> Mapping[str, Any]:
        """What is to be known again, in named arrays, by one who judges on from these parameters, after that many
        steps; the point that was judged last may be behind these, or be judged again."""

    def recall(self, arrays: Mapping[str, np.ndarray], params: Any) -> None:
        """Judge on with the memory of a walk before, and its values, from these parameters."""


class Walk:
    """A run of an optimizer in good manners: what was found is noted, kept in a file, and shown.

    `params` is where it stands, after `taken` steps; `error` is what ended it early, if anything did; `is_valued` says
    whether the last evaluation had a value. `owner` is who messages say it is of.

    Of the file, if there is a `checkpoint`: if it is there, the walk goes on from it. It is written after every
    `checkpoint_every` steps (20 times in the run if that is None), and when the walk is left. A step is taken and
    counted while signals are held.
    """

    def __init__(
        self, owner: str, optimizer: Optimizer, judge: Judge, *, steps: int, columns: Any, history: Any,
        progress: bool | Literal["auto"], checkpoint: Any, checkpoint_every: Any,
    ) -> None:  # fmt: skip
        self.owner, self.optimizer, self.judge, self.steps = owner, optimizer, judge, steps
        self.others = optimizer._stepper.others
        self.journal = Journal(owner, columns, history)
        self.is_shown = _progress.wanted(progress, owner) and self.others.rank == 0
        self.record = _record(owner, checkpoint, checkpoint_every, steps, optimizer)
        if self.record is not None and self.journal.path == os.path.realpath(self.record.path):
            raise ValueError(f"history and checkpoint of {owner} are two files: give each a path of its own. "
                             f"Got {brief(checkpoint)} for both.")
        if self.others.rank:
            self.journal.path = None  # the first writes it
        self.holding: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        self.taken = 0
        self.error: Exception | None = None
        self.is_valued = True
        self._pending: list[Any] = []  # the settings as they were before a point from which no step was taken yet

    def go(
        self, evaluate: Evaluate, params: Any, project: Callable[[Any, Any], Any], behind: int = 0
    ) -> Enum | None:
        """Walk from these parameters, which are stepped in place where they can be; why the judge ended it, or None
        after its steps. `project` brings parameters that were stepped by a gradient to where they may be evaluated. So
        many points are looked at `behind` the last step."""
        start = self.optimizer.calls
        if self.record is not None:
            params, kept = self.record.resume(params)
            start, self.holding = self.record.start, self.record.holding
            if kept:
                self.journal.recall(kept)
                self.judge.recall(kept, params)
        self.params, self.taken = project(params, params), len(self.journal.values)
        self.journal.start = start
        ahead = range(start + self.taken, start + max(self.steps, self.taken) + behind)
        points = self._points(evaluate, project, ahead)
        watched = _progress.watched(points, self.owner, self.taken, self.steps) if self.is_shown else points
        signals = self.record.holding.watching() if self.record else contextlib.nullcontext()
        with signals, self._recorded(), contextlib.ExitStack() as stack, contextlib.closing(watched):
            self.others.together(stack.enter_context, self.journal.writing())
            for point in watched:
                if self.record is not None and self.taken % self.record.every == 0:
                    self._save()
                for status in self.others.each(self._judged, point):
                    if status is not None:
                        return status
        return None

    def _judged(self, point: Point) -> Enum | None:
        """Note a point; why the walk is over there, if it is."""
        self.journal.note(point, bare=self.error is not None)
        return self.judge.ends(point)

    def _valued(self, evaluate: Evaluate, t: int) -> tuple[float | None, Any]:
        """The value where it stands, of all who have a part of it the mean, and the gradient."""
        grad = None

        def own() -> tuple[float | None, list[Any]]:
            nonlocal grad
            value, grad = evaluate(self.params, t)
            return value, self.record.holding.came() if self.record else []

        found = self.others.each(own)
        if self.record is not None and not self.others.is_one:
            self.record.holding.deliver([number for _, numbers in found for number in numbers])
        return _mean([value for value, _ in found]), grad

    def _points(
        self, evaluate: Evaluate, project: Callable[[Any, Any], Any], ahead: Iterable[int]
    ) -> Generator[Point, None, None]:
        """A point per evaluation; the step from it is taken when the next is asked for."""
        stepper, hears, last = self.optimizer._stepper, False, list[Any]()
        for t in ahead:
            self._pending = stepper.settings()
            try:
                value, grad = self._valued(evaluate, t)
            except OverflowError as error:  # Python's arithmetic raises where IEEE 754 says infinity
                self.error = error
                yield Point(t, self.params, math.inf, None)
                return
            self.is_valued = value is not None
            yield Point(t, self.params, value, grad)
            now = stepper.settings()
            if not (last and all(map(operator.is_, last, now))):
                last, hears = now, stepper.hears
            if hears and value is None:
                raise TypeError(f"A schedule of {self.optimizer._title} hears values, but there are none (None): give "
                                f"{self.owner} a function that returns them, or use another schedule.")
            try:
                with self.holding:
                    self.params = project(self.optimizer.step(self.params, grad), grad)
                    self.taken += 1
                    self._pending = []
                    if hears and value is not None:
                        stepper.hear(value)
            except NonFiniteGradient as error:
                self.error = error
                return

    def stepped(self) -> list[Any]:
        """The leaves of the parameters, but for those that the optimizer leaves alone, which may be anything."""
        divided, leaves = self.optimizer._stepper.division.divide(self.params)
        return [leaf for k, leaf in enumerate(leaves) if k not in divided.left]

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[None]:
        """Have the walk in its file from the start, as a folder that cannot be written is better known at once; and
        leave it there, however it ends."""
        if self.record is None:
            yield
            return
        self._save()
        try:
            yield
        except BaseException as error:
            self._save()
            error.add_note(self.record.remark())
            raise
        self._save()

    def _save(self) -> None:
        if self.record is not None:
            # what a callback has set at a point counts once the step from it is taken: else it will be set again
            with self.holding, self.optimizer._stepper.as_before(self._pending):
                self.record.save(self.params, self.taken, lambda: {
                    **self.journal.arrays(self.taken), **self.judge.memory(self.taken, self.params)})


def _record(owner: str, path: Any, every: Any, steps: int, optimizer: Optimizer) -> Record | None:
    if path is None:
        if every is not None:
            raise TypeError(f"checkpoint_every of {owner} needs a file: give checkpoint=path too.")
        return None
    from fallline._loops.resume import Record

    path = path_of(path, f"checkpoint of {owner}")
    every = max(1, steps // 20) if every is None else whole(every, f"checkpoint_every of {owner}", least=1)
    return Record(owner, path, every, optimizer)


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of values, one by rank; that of all where they are the same."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values) and numbers:
        raise TypeError("All ranks must return a value, or none of them. Got None on rank "
                        f"{values.index(None)}.")
    if not numbers:
        return None
    if all(value == numbers[0] for value in numbers):
        return numbers[0]
    try:
        return math.fsum(numbers) / len(numbers)
    except (OverflowError, ValueError):  # infinities of both signs, or sums beyond float64
        return float(np.sum(np.array(numbers) / len(numbers)))


def stops(callback: Callable[..., Any], *args: Any, **named: Any) -> bool:
    """Call it; whether it asks to stop."""
    try:
        callback(*args, **named)
    except StopIteration:
        return True
    return False


def remedy(optimizer: Optimizer) -> str:
    """The hyper-parameter that sets the length of the steps: lr, or for AdaDelta eps."""
    own = {name.split(".")[-1] for name in optimizer.hyper}
    return next((name for name in ("lr", "eps") if name in own), "the step size")
