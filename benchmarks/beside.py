"""Two checkouts in turns, case by case, and what this one takes as a multiple of the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import CASES
from benchmarks.measure import rounds, spread
from benchmarks.page import machine, micro, table
from benchmarks.process import NEW
from benchmarks.sizes import count

__all__ = ["CheckoutError", "compare"]

ROOT = Path(__file__).resolve().parents[1]
HEADER = ("case", "here, us", "beside, us", "ratio [10-90 %]")


class CheckoutError(Exception):
    """What a checkout cannot do, and why."""


class Worker:
    """A process of a checkout (`benchmarks.worker`), from `with` to its end."""

    def __init__(self, side: str, root: Path) -> None:
        self.side = side
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=_environment(root))  # fmt: skip

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, method: str, *arguments: str | int) -> Any:
        """What it answers; CheckoutError if it cannot."""
        asked, answers = self.process.stdin, self.process.stdout
        assert asked is not None
        assert answers is not None
        try:
            print(json.dumps([method, *arguments]), file=asked, flush=True)
            said = json.loads(answers.readline())
        except (OSError, ValueError):  # the pipe is broken, or at its end
            said = {"error": f"its process ended with code {self.process.wait()}"}
        if "error" in said:
            raise CheckoutError(f"{self.side} cannot run it: {said['error']}")
        return said["answer"]


def compare(other: Path, glob: str, largest: float, seconds: float, out: Path | None) -> None:
    """Print a line for each case as it is measured, and write them all as Markdown where asked to.

    Raises CheckoutError for what is no checkout, and if no case has such a name.
    """
    if not (other / "src" / "fallline" / "__init__.py").is_file():
        raise CheckoutError(f"--beside must be the root of a checkout, which has src/fallline. Got {str(other)!r}.")
    fitting = [name for name, case in CASES.items() if count(case.shapes) <= largest] + list(NEW)
    cases = [name for name in fitting if fnmatchcase(name, glob)]
    if not cases:
        raise CheckoutError(f"--cases must match a case up to --largest, such as {fitting[0]!r}. Got {glob!r}.")
    roots = {"here": ROOT, "beside": other.resolve()}
    _verify(roots)
    print("\n".join(f"{side}: {root}" for side, root in roots.items()))
    print("{:<38}{:>9}  {:>10}  {}".format(*HEADER), flush=True)
    rows = []
    for name in cases:
        try:
            cells = _measured(name, roots, seconds)
            print("{:<38}{:>9}  {:>10}  {}".format(name, *cells), flush=True)
        except CheckoutError as why:
            cells = ["", "", str(why)]
            print(textwrap.fill(f"{name}: {why}", 80), flush=True)
        rows.append([name, *cells])
    if out is not None:
        lines = ["# Beside another checkout", "", *(f"- {side}: {root}" for side, root in roots.items()), "",
                 machine(), "", *table(HEADER, rows)]  # fmt: skip
        out.write_text("\n".join(lines) + "\n")
        print(f"written: {out}")


def _verify(roots: Mapping[str, Path]) -> None:
    """That each checkout measures its own package."""
    with _workers(roots) as workers:
        for worker, root in zip(workers.values(), roots.values()):
            found = worker.ask("where")
            if not Path(found).resolve().is_relative_to(root / "src"):
                raise CheckoutError(f"{worker.side} must import fallline from {root / 'src'}. Got {found}.")


def _measured(name: str, roots: Mapping[str, Path], seconds: float) -> list[str]:
    """Microseconds here and beside, and their ratio, round by round."""
    if name in NEW:
        turns = {side: partial(_in_new_process, name, side, root) for side, root in roots.items()}
        for turn in turns.values():
            turn()  # from here on byte code is cached
        found = rounds(turns, seconds)
    else:
        with _workers(roots) as workers:
            steps = min([worker.ask("prepare", name) for worker in workers.values()])
            found = rounds({side: partial(worker.ask, "time", steps) for side, worker in workers.items()}, seconds)
    ratio = spread(np.divide(found["here"], found["beside"]))
    return [*(micro(spread(times).median) for times in found.values()),
            f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"]  # fmt: skip


def _in_new_process(name: str, side: str, root: Path) -> float:
    try:
        return NEW[name](_environment(root))
    except subprocess.CalledProcessError as error:
        raise CheckoutError(f"{side} cannot run it: its process ended with code {error.returncode}") from None


def _environment(root: Path) -> dict[str, str]:
    """In which a process finds the checkout's package, and these benchmarks."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(ROOT)]), "PYTHONSAFEPATH": "1"}


@contextmanager
def _workers(roots: Mapping[str, Path]) -> Iterator[dict[str, Worker]]:
    """New ones for each case: what one leaves behind, in memory too, is no part of the next."""
    with ExitStack() as stack:
        yield {side: stack.enter_context(Worker(side, root)) for side, root in roots.items()}
