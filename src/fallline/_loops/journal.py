"""What is noted of a run: the value at each point, columns of the caller's own, and a CSV file of these."""

from __future__ import annotations

import contextlib
import csv
import math
import os
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fallline._arrays.leaves import number
from fallline._loops.arguments import path_of
from fallline._messages.values import brief

if TYPE_CHECKING:
    from fallline._loops.walk import Point

__all__ = ["Journal"]

_OURS = ("t", "value")


class Journal:
    """A row for each evaluation: the number of steps before it, the value (NaN where there was none), and what each of
    the `columns`, functions of a point, returned. With a path the rows go to a CSV file too, each when it is there.

    `start` is the number of steps before the first row, `path` where the file is, whatever links lead there.
    """

    def __init__(self, owner: str, columns: Any, path: Any) -> None:
        self._owner, self._columns = owner, _checked(columns, owner)
        self.path = None if path is None else os.path.realpath(path_of(path, f"history of {owner}"))
        self.start = 0
        self._write: Callable[[Any], Any] | None = None
        self.values = array("d")
        self._noted = {name: array("d") for name in self._columns}

    def note(self, point: Point, bare: bool) -> None:
        """A row for a point, once all of it is known; the columns of a `bare` one, which has no gradient, are NaN."""
        row = [math.nan if point.value is None else point.value]
        for name, column in self._columns.items():
            row.append(math.nan if bare else
                       number(column(point), f"Column {name!r} of {self._owner} must return a real number"))
        for noted, entry in zip((self.values, *self._noted.values()), row):
            noted.append(entry)
        if self._write is not None:
            self._write((point.t, *row))

    def arrays(self, n: int) -> dict[str, np.ndarray]:
        """The first n rows, in named arrays for a file."""
        noted = {f"columns/{name}": found for name, found in self._noted.items()}
        return {name: np.array(found[:n], np.float64) for name, found in {"values": self.values, **noted}.items()}

    def recall(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from rows in named arrays; what a column is lacking there is NaN."""
        self.values = array("d", arrays["values"])
        missing = np.full(len(self.values), math.nan)
        self._noted = {name: array("d", arrays.get(f"columns/{name}", missing)) for name in self._columns}

    def history(self) -> dict[str, np.ndarray]:
        """All rows, by column."""
        found = {"value": self.values, **self._noted}
        return {"t": np.arange(self.start, self.start + len(self.values)),
                **{name: np.array(own, np.float64) for name, own in found.items()}}

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Have the rows that are known in the file, in place of another, and each new one as soon as it is there."""
        if self.path is None:
            yield
            return
        part = f"{self.path}.part"
        try:
            with open(part, "w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow((*_OURS, *self._columns))
                rows.writerows(zip(*(own.tolist() for own in self.history().values())))
            os.replace(part, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.remove(part)
            raise OSError(error.errno, f"history of {self._owner} cannot be written: {error.strerror}",
                          self.path) from None
        with open(self.path, "a", newline="", encoding="utf-8", buffering=1) as file:
            self._write = csv.writer(file).writerow
            yield


def _checked(columns: Any, owner: str) -> dict[str, Callable[[Point], Any]]:
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        raise TypeError(f"columns of {owner} must be a dict of functions of a point, by name. Got {brief(columns)}.")
    for name, column in columns.items():
        if not isinstance(name, str) or not callable(column):
            raise TypeError(f"columns of {owner} must be a dict of functions of a point, by name, such as "
                            f"{{'norm': lambda point: ...}}. Got {name!r}: {brief(column)}.")
        if name in _OURS:
            raise ValueError(f"columns of {owner} has {name!r}, which is recorded already: choose another name.")
    return dict(columns)
