"""The finished runs of a race in a file, a line for each, so that one that was ended can be taken up again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fallline.race.protocol.beside import Beside
from fallline.race.protocol.processes import Task, spread
from fallline.race.protocol.runs import Outcome, SurfacePath

__all__ = ["FILE", "Kept", "taken_up"]

FILE = "runs.jsonl"
SCHEMA = "fallline.race.runs/1"
KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Outcome, SurfacePath, Beside)}

Unit = Sequence[Any]  # what tells a run from the others of its race, of names and numbers
Heading = dict[str, Any]


class Kept:
    """The outcomes by unit; with a path, each is added to that file when it comes, in one write."""

    def __init__(self, path: Path | None = None, outcomes: dict[str, Any] | None = None) -> None:
        self._path = path
        self._outcomes = outcomes or {}

    def spread(self, units: Sequence[Unit], tasks: Sequence[Task], jobs: int) -> Iterator[tuple[int, Any]]:
        """As `processes.spread`, of the tasks that no outcome is known of; the others' come first."""
        names = [json.dumps(unit) for unit in units]
        for i, name in enumerate(names):
            if name in self._outcomes:
                yield i, self._outcomes[name]
        left = [i for i, name in enumerate(names) if name not in self._outcomes]
        if left:
            for k, outcome in spread([tasks[i] for i in left], jobs):
                self._add(units[left[k]], outcome)
                yield left[k], outcome

    def _add(self, unit: Unit, outcome: Any) -> None:
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(_line({"unit": unit, "kind": type(outcome).__name__, "outcome": asdict(outcome)}))


def taken_up(path: str | os.PathLike[str], heading: Heading, *, anew: bool = False) -> Kept:
    """What there is already of the race that `heading` describes, in the file `path` if it ends with .jsonl, else in
    `FILE` of that folder; begun where there is none, or `anew`. What a killed process wrote half is dropped.

    Raises ValueError for a file of another race or of something else, which stays as it is.
    """
    path = Path(path)
    path = path if path.suffix == ".jsonl" else path / FILE
    heading = json.loads(json.dumps({"schema": SCHEMA, **heading}))
    if anew or not path.exists():
        _replace(path, _line(heading))
        return Kept(path)
    first, *rest = path.read_bytes().splitlines(keepends=True) or [b""]
    _check(path, first, heading)
    outcomes: dict[str, Any] = {}
    whole = len(first)
    for line in rest:
        if (found := _outcome(line)) is None:
            break
        outcomes |= found
        whole += len(line)
    os.truncate(path, whole)
    return Kept(path, outcomes)


def _line(entry: Heading) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _outcome(line: bytes) -> dict[str, Any] | None:
    """The outcome by its unit's name; None for a line that is torn."""
    try:
        entry = json.loads(line)
        fields = entry["outcome"]
        if entry["kind"] == Beside.__name__:
            fields["outcome"] = Outcome(**fields["outcome"])
        return {json.dumps(entry["unit"]): KINDS[entry["kind"]](**fields)} if line.endswith(b"\n") else None
    except (ValueError, LookupError, TypeError):
        return None


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _check(path: Path, line: bytes, heading: Heading) -> None:
    try:
        found = json.loads(line)
        schema = found["schema"]
    except (ValueError, LookupError, TypeError):
        schema = None
    if schema != SCHEMA:
        raise ValueError(f"resume must be the {FILE} of a race, or where none is yet. {path} is something else.")
    if found != heading:
        raise ValueError(f"resume must be the {FILE} of this race. {path} is of another: {_apart(found, heading)}.")


def _apart(found: Any, wanted: Any, name: str = "") -> str:
    """The first that differs, from the outside in."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        key = next(key for key in {**wanted, **found} if found.get(key) != wanted.get(key))
        return _apart(found.get(key), wanted.get(key), f"{name} {key}".strip())
    return f"its {name} is {json.dumps(found)}, here {json.dumps(wanted)}"
