"""The command `fallline digests`."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from typing import NamedTuple

import numpy as np

import fallline as fl
from fallline._digests.walk import DTYPES, ENGINES, WALKS, walked
from fallline._engines.engine import native_missing

__all__ = ["call", "digests", "table"]

ABOUT = """Walk each rule that is a formula in four dtypes on both engines, and compare what it comes to, a hash with a
group of digits for each step, with the table that is part of fallline. Every machine should come to the same bits. Exit
code 1 if any differ."""
Table = dict[str, dict[str, str]]


class Line(NamedTuple):
    """What a walk came to, and on which engines."""

    name: str
    dtype: str
    digest: str
    engines: str

    def differs(self, known: Table) -> str:
        """How this is another digest than that of the table, in words; "" if it is the same."""
        there = known.get(self.name, {}).get(self.dtype)
        if there is None:
            return "the table has none"
        if there == self.digest:
            return ""
        pairs = zip(there.split("-"), self.digest.split("-"))
        step = next(k for k, (a, b) in enumerate(pairs, 1) if a != b)
        return f"from step {step} on; the table has {there}"


def call(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    argparse.ArgumentParser(prog="fallline digests", description=ABOUT).parse_args(arguments[1:])
    known, apart, count = table(), [], 0
    print(_here())
    for line in digests(WALKS):
        count += 1
        difference = line.differs(known)
        print(f"{line.name:17}  {line.dtype:8}  {line.digest}  {line.engines}{'  DIFFERS' * bool(difference)}")
        if difference:
            apart.append(f"{line.name}, {line.dtype}, {line.engines}: {difference}")
    if missing := native_missing():
        print(f"The native engine was not run: llvmlite is missing ({missing}).")
    if apart:
        print(f"{len(apart)} of {count} differ from the table:", *apart, sep="\n  ")
        return 1
    print(f"All {count} are those of the table.")
    return 0


def digests(names: Iterable[str]) -> Iterator[Line]:
    """What these walks come to in each dtype, a line for engines that agree."""
    engines = ENGINES[:1] if native_missing() else ENGINES
    for name in names:
        for dtype in DTYPES:
            came = {engine: walked(name, dtype, engine) for engine in engines}
            for digest in dict.fromkeys(came.values()):
                yield Line(name, dtype, digest, ", ".join(engine for engine in engines if came[engine] == digest))


def table() -> Table:
    """The digests that every machine should come to, by rule and dtype."""
    return json.loads(files("fallline._digests").joinpath("table.json").read_text(encoding="utf-8"))


def _here() -> str:
    return (f"fallline {fl.__version__}, NumPy {np.__version__}, Python {platform.python_version()}, "
            f"{platform.system()} {platform.machine()}")
