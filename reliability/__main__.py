"""Trials too long for the tests, and tables to write: python -m reliability [NAME ...] [--times 200] [--seed 0]"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fallline as fl
from fallline._digests.walk import DTYPES, WALKS, walked
from reliability.dialects import measured
from reliability.disk import fill
from reliability.eager import stray
from reliability.finite import endure, settings
from reliability.interrupts import interrupt
from reliability.kills import survive
from reliability.ranks import endure as endure_ranks
from reliability.ranks import launcher


def kills(times: int, seed: int) -> str:
    runs = survive(times, seed)
    return (f"{times} kills in {runs} runs of descend, one rule after the other: each came through with the bits of a "
            "run that nobody touched.")


def ranks(times: int, seed: int) -> str:
    """A quarter as many kills, as each ends a job of several processes."""
    if not launcher():
        return "ranks: there is no mpiexec; pip install mpi4py mpich"
    runs = endure_ranks(times // 4, seed)
    return (f"{times // 4} kills of a rank in {runs} runs of descend on 1 to 4 ranks: each job ended, and each run "
            "came through, on other numbers of ranks, with the bits of one process that nobody touched.")


def interrupts(times: int, seed: int) -> str:
    found = interrupt(times, seed)
    return (f"{times} interrupts within steps, one rule and engine after the other: each left a whole number of steps "
            f"or an optimizer that said it was torn ({', '.join(f'{k} {n}' for k, n in sorted(found.items()))}).")


def eager(times: int, seed: int) -> str:
    seen = {library: stray(library) for library in ("torch", "jax")}
    return "The eager engine strays, in eps: " + "; ".join(
        f"{library} {', '.join(f'{what} {x:.1f}' for what, x in worst.items())}" for library, worst in seen.items())


def finite(times: int, seed: int) -> str:
    """Settings of all rules, so many in all, in float32 and float64 in turn."""
    each = max(1, times // len(fl.OPTIMIZERS))
    for name, cls in fl.OPTIMIZERS.items():
        steps = 10_000 if name == "Adafactor" else 100_000  # which is a call of Python for each leaf
        for k, given in enumerate(itertools.islice(settings(cls.rule, seed), each)):
            if bad := endure(cls, given, steps, (np.float32, np.float64)[k % 2]):
                raise SystemExit(f"{name} with {given}: not finite: {'; '.join(bad)}")
    return (f"{each} settings of each rule, 100,000 steps (Adafactor 10,000) of gradients up to 1e15 (float32) and "
            "1e150 (float64), zeros after anything: parameters and state stayed finite (Prodigy refuses to go on where "
            "d has no end).")


def disk(times: int, seed: int) -> str:
    return fill()


def dialects(times: int, seed: int) -> str:
    page = Path("docs/dialects-measured.md")
    page.write_text(measured(), encoding="utf-8")
    return f"written: {page}"


def digests(times: int, seed: int) -> str:
    """The table of `fallline digests`, by the reference engine: written anew where formulas or walks change."""
    table = {name: {dtype: walked(name, dtype, "reference") for dtype in DTYPES} for name in WALKS}
    path = Path("src/fallline/_digests/table.json")
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return f"written: {path}"


TRIALS: dict[str, Callable[[int, int], str]] = {
    "kills": kills, "ranks": ranks, "interrupts": interrupts, "disk": disk, "eager": eager, "finite": finite,
    "dialects": dialects, "digests": digests}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trial", nargs="*", help=f"{', '.join(TRIALS)}; all if none is named")
    parser.add_argument("--times", type=int, default=200, help="how often to kill or interrupt in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    if unknown := set(asked.trial) - set(TRIALS):
        parser.error(f"no such trial: {', '.join(sorted(unknown))}")
    for name in asked.trial or TRIALS:
        print(TRIALS[name](asked.times, asked.seed), flush=True)


if __name__ == "__main__":
    main()
