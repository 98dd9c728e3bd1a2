"""A process of `python -m benchmarks --beside`, which times cases with the fallline that its environment leads to.

A line of JSON comes in, a method of Worker and its arguments, and one goes out, its answer or an error. No more input
is the end.
"""

from __future__ import annotations

import gc
import json
import signal
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.measure import repeats, timed


class Worker:
    """Holds one case at a time."""

    step: Callable[[], Any] | None = None

    def where(self) -> str:
        """The file of the package that is measured."""
        import fallline

        return str(fallline.__file__)

    def prepare(self, case: str) -> int:
        """Make a case ready, after the last one is let go; how many steps are a turn of it."""
        from benchmarks.cases import CASES

        self.step = None
        gc.collect()
        shapes, make = CASES[case]
        self.step = make(shapes)
        return repeats(self.step)

    def time(self, steps: int) -> float:
        """Seconds of each of so many steps."""
        assert self.step is not None
        return timed(self.step, steps)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent ends it
    answers, sys.stdout = sys.stdout, sys.stderr  # what a checkout prints is no answer
    worker = Worker()
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        try:
            said = {"answer": getattr(worker, method)(*arguments)}
        except Exception as error:
            said = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    main()
