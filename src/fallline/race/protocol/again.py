"""The race that a document is of, to be run again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fallline.race.contenders.named import OptimizerSource
from fallline.race.problems.named import ProblemSource
from fallline.race.protocol.course import Race
from fallline.race.protocol.settings import PROTOCOL, Settings

Document = dict[str, Any]


def again(
    doc: Document,
    problem: ProblemSource | None,
    optimizers: Sequence[OptimizerSource] | Mapping[str, OptimizerSource] | None,
    jobs: int,
) -> Race:
    """The race of a document, prepared as it was; None takes the names of problem and optimizers from there.

    Raises ValueError for a document of another protocol or of an interrupted race, and for problems and optimizers that
    are not its own.
    """
    version = doc.get("protocol_version")
    if version != PROTOCOL:
        raise ValueError(f"protocol_version of the race must be {PROTOCOL}, which this fallline has. Got {version}: "
                         f"take the fallline that ran it, {doc['fallline']}.")
    if not doc["finished"]:
        raise ValueError("The race must have finished to be run again and compared. It was interrupted.")
    settings = doc["settings"]
    race = Race(
        _problem(doc["problem"]) if problem is None else problem,
        _sources(doc) if optimizers is None else optimizers,
        Settings(settings["steps"], settings["repeats"], settings["seed"], jobs, tuple(settings["surfaces"])),
    )
    found = [lane.contender.name for lane in race.lanes]
    if sorted(found) != sorted(settings["optimizers"]):
        raise ValueError(f"optimizers must be those of the race, {', '.join(settings['optimizers'])}. "
                         f"Got {', '.join(found)}.")
    return race


def _problem(problem: Document) -> str:
    if problem["source"] is None:
        raise ValueError(f"The problem {problem['name']} was an object, of which a file knows the name alone: give it "
                         "again, fallline.race.check(path, problem=...).")
    return str(problem["source"])


def _sources(doc: Document) -> dict[str, str]:
    """In the order in which they were given."""
    known = {entry["name"]: entry["source"] for entry in doc["optimizers"]}
    if objects := [name for name, source in known.items() if source is None]:
        raise ValueError(f"{', '.join(objects)} {'was an object' if len(objects) == 1 else 'were objects'}, of which a "
                         "file knows the settings alone: give all optimizers again, "
                         "fallline.race.check(path, optimizers=...).")
    return {name: known[name] for name in doc["settings"]["optimizers"]}
