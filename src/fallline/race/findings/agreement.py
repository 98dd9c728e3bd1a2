"""Whether a race that was run again says what its file says: to the byte, or where sums are in another order nearly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from fallline.race.findings.wording import number

__all__ = ["TOLERANCE", "Agreement", "Part", "agreement"]

TOLERANCE = 1e-6  # of a loss; what other BLAS kernels did to the digits' was 2e-13 at most
Document = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A part of the document: whether it has the same bytes, else by how much numbers differ (as a share of the larger;
    infinite for what is no number) and where they do most."""

    name: str
    same: bool
    difference: float = 0.0
    where: str = ""


@dataclass(frozen=True)
class Agreement:
    """How a race that was run again agrees with its file; `print` says it.

    Attributes
    ----------
    parts: the parts that were compared.
    tolerance: what numbers may differ by: 0.0 where the file's arithmetic is this machine's, as then all bits agree.
    agrees: whether every part has the same bytes, or is within the tolerance.
    """

    title: str
    parts: tuple[Part, ...]
    tolerance: float
    reason: str

    @property
    def agrees(self) -> bool:
        return all(self._fits(part) for part in self.parts)

    def _fits(self, part: Part) -> bool:
        return part.same or part.difference <= self.tolerance

    def __str__(self) -> str:
        wide = max(len(part.name) for part in self.parts)
        lines = [f"  {part.name:{wide}}  {self._said(part)}" for part in self.parts]
        if all(part.same for part in self.parts):
            end = "All agrees, to the byte."
        elif self.agrees:
            end = f"All agrees, to {self.tolerance:g} of each loss."
        else:
            end = "It does not agree."
        return "\n".join([self.title, *lines, *([self.reason] if self.reason else []), end])

    def _said(self, part: Part) -> str:
        if part.same:
            return "the same bytes"
        if not math.isfinite(part.difference):
            return f"differs: {part.where}"
        return f"{'differs' if not self._fits(part) else 'agrees'} to {number(part.difference, 2)}: {part.where}"


def agreement(kept: Document, again: Document) -> Agreement:
    """Compare the document of a file with that of the same race, run again. The value of "measured" may differ."""
    before, now = (doc["measured"].get("arithmetic") for doc in (kept, again))
    alike = before == now
    whole = list(zip(_parts(kept), _parts(again)))
    same = {name: mine == yours for (name, mine), (_, yours) in whole}
    compared = whole if alike else list(zip(_steady(kept), _steady(again)))
    parts = tuple(_compared(name, same[name], mine, yours) for (name, mine), (_, yours) in compared)
    return Agreement(_title(kept), parts, 0.0 if alike else TOLERANCE, _reason(kept, again, parts, alike))


def _title(doc: Document) -> str:
    settings, count = doc["settings"], len(doc["optimizers"])
    return (f"{doc['problem']['name']}, {count} optimiser{'s'[: count != 1]}, {settings['steps']:,} steps, seed "
            f"{settings['seed']} (protocol {doc['protocol_version']}), run again:")


def _reason(kept: Document, again: Document, parts: tuple[Part, ...], alike: bool) -> str:
    """Why bytes may differ, if any do."""
    if all(part.same for part in parts):
        return ""
    version = "" if kept["fallline"] == again["fallline"] else (
        f"The file is of fallline {kept['fallline']}, this is {again['fallline']}. ")  # fmt: skip
    if alike:
        return (f"{version}NumPy, BLAS and processor are those of the file, so bits should agree: does the problem "
                "draw numbers that its seed does not decide?")
    changed = [f"{name} {mine} there, {yours} here" for name, mine, yours in _changed(kept, again)]
    return (f"{version}The arithmetic is another ({'; '.join(changed) or 'the file does not say which it had'}): sums "
            f"of BLAS and exponentials round otherwise, so losses are compared to {TOLERANCE:g}. Rates that are too "
            "high make of such a difference any other, so of the tuning only the chosen rate's are.")


def _changed(kept: Document, again: Document) -> Iterator[tuple[str, Any, Any]]:
    before, now = (doc["measured"].get("arithmetic") or {} for doc in (kept, again))
    for name in before:
        if before[name] != now.get(name):
            mine, yours = before[name], now.get(name)
            if isinstance(mine, list) and isinstance(yours, list):  # of many things those that the other lacks
                mine, yours = ([x for x in a if x not in b] for a, b in ((mine, yours), (yours, mine)))
                mine, yours = (", ".join(names) or "no more" for names in (mine, yours))
            yield name, mine, yours


def _parts(doc: Document) -> list[tuple[str, Any]]:
    """All of a document but what is measured, by what it says."""
    asked = ("schema", "protocol_version", "finished", "problem", "settings")
    return [
        ("what was asked", [[doc[key] for key in asked], _of_each(doc, "source", "settings", "judged_at", "tuned")]),
        ("chosen rates", _of_each(doc, "rate", "value", "at_edge", "width_decades")),
        ("tuning", _of_each(doc, "tuning")),
        ("fresh seeds", _of_each(doc, "final")),
        ("beside", doc["beside"]),
        ("as given", _of_each(doc, "untuned")),
        ("ranks", [doc["test"], _of_each(doc, "rank", "tied_with")]),
        ("claims", doc["claims"]),
        ("surfaces", doc["surfaces"]),
        ("sentences", [doc["answer"], doc["protocol"], doc["limits"]]),
    ]


def _steady(doc: Document) -> list[tuple[str, Any]]:
    """As `_parts`, without what rounding may change beyond any tolerance: runs at rates that were not chosen, and
    numbers that are rounded in sentences."""
    chosen = [{"name": entry["name"], "tuning": [trial for trial in entry["tuning"] if trial["rate"] == entry["rate"]]}
              for entry in doc["optimizers"]]
    steady = {"chosen rates": _of_each(doc, "rate", "value", "at_edge"), "tuning": chosen,
              "claims": [(claim["claim"], claim["verdict"]) for claim in doc["claims"]]}  # fmt: skip
    return [(name, steady.get(name, part)) for name, part in _parts(doc) if name != "sentences"]


def _of_each(doc: Document, *keys: str) -> list[Document]:
    return [{key: entry[key] for key in ("name", *keys)} for entry in doc["optimizers"]]


def _compared(name: str, same: bool, kept: Any, again: Any) -> Part:
    if same:
        return Part(name, True)
    difference, where = max(_differences(kept, again, ""), key=lambda found: found[0], default=(0.0, ""))
    return Part(name, False, difference, where)


def _differences(kept: Any, again: Any, at: str) -> Iterator[tuple[float, str]]:
    """Every place at which two documents differ, with by how much."""
    if isinstance(kept, Mapping) and isinstance(again, Mapping):
        name = kept.get("name", at)
        for key in {**kept, **again}:
            yield from _differences(kept.get(key), again.get(key), f"{name}, {key}".removeprefix(", "))
    elif isinstance(kept, list | tuple) and isinstance(again, list | tuple):
        for k, (mine, yours) in enumerate(zip_longest(kept, again)):
            yield from _differences(mine, yours, at if isinstance(mine, Mapping) else f"{at} {k}".strip())
    elif kept != again:
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (kept, again))
        size = abs(kept - again) / max(abs(kept), abs(again)) if numbers else math.inf
        yield size, f"{at}: {kept!r} there, {again!r} here"
