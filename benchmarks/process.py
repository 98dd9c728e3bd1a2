"""What only a new process shows: the cost of importing, compiling and starting, and peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.measure import Timings, spread
from fallline._optimizer.named import TEN

__all__ = ["AGAIN", "COMPILED", "FIRST_STEP", "IMPORT", "NEW", "compiling", "peak_memory", "starting"]

IMPORT = "import fallline, after NumPy"
FIRST_STEP = "import fallline and take a first step of Adam, after NumPy"
COMPILED, AGAIN = "first step", "first step of the second"
_RUNS = 7

_START = """
import time
a = time.perf_counter()
import numpy as np
b = time.perf_counter()
import fallline as fl
c = time.perf_counter()
w = np.ones(100, np.float32)
fl.Adam().step(w, w.copy())
d = time.perf_counter()
print(b - a, c - b, d - b)
"""

_TEN_STEPS = """
import time
import numpy as np, fallline as fl
w, g = ([np.full(100, 1e-3, np.float32) for _ in range(150)] for _ in range(2))
start = time.perf_counter()
opt = fl.Adam()
for _ in range(10):
    opt.step(w, g)
print(time.perf_counter() - start)
"""

_COMPILE = """
import sys, time
import numpy as np, fallline as fl
w, g = np.ones(100, np.float32), np.ones(100, np.float32)

def first_step(cls):
    start = time.perf_counter()
    cls(engine="native").step(w, g)  # which leaves not even the first step to NumPy
    return time.perf_counter() - start

warm = fl.SGD()
for _ in range(3):  # starts the compiler, and what all rules share
    warm.step(np.ones(1), np.ones(1))
print(*[first_step(fl.OPTIMIZERS[name]) for name in sys.argv[1:] for _ in range(2)])
"""

_PEAK = """
import sys
import numpy as np, fallline as fl
from pathlib import Path

def mebibytes(key):
    return int(Path("/proc/self/status").read_text().split(key)[1].split()[0]) / 1024

n, opt = int(sys.argv[1]), fl.Adam()
w, g = np.ones(n, np.float32), np.ones(n, np.float32)
for _ in range(4):  # compile, start the threads
    opt.step(np.ones(10**6, np.float32), np.ones(10**6, np.float32))
opt.reset()
Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
before = mebibytes("VmRSS:")
for _ in range(4):
    opt.step(w, g)
print(mebibytes("VmHWM:") - before - 2 * w.nbytes / 2**20)
"""


NEW: dict[str, Callable[[Mapping[str, str]], float]] = {
    "new process: import": lambda environment: _numbers(_START, environment=environment)[1],
    "new process: import, a first step": lambda environment: _numbers(_START, environment=environment)[2],
    "new process: ten steps of 150 x 100": lambda environment: _numbers(_TEN_STEPS, environment=environment)[0],
}
"""Seconds in a new process that has this environment."""


def starting() -> Timings:
    """What a new process pays before its first step is done, byte code cached."""
    runs = [_numbers(_START) for _ in range(_RUNS + 1)][1:]
    return dict(zip(("import numpy", IMPORT, FIRST_STEP), map(spread, zip(*runs))))


def compiling() -> dict[str, Timings]:
    """Of every rule: the first step in a process (trace, LLVM, step), and of another optimizer with the same rule."""
    runs = list(zip(*[_numbers(_COMPILE, *TEN) for _ in range(_RUNS)]))
    return {name: {COMPILED: spread(runs[2 * k]), AGAIN: spread(runs[2 * k + 1])}
            for k, name in enumerate(TEN)}  # fmt: skip


def peak_memory(n: int) -> float | None:
    """MiB that four steps of Adam over n coordinates take beyond parameters, gradients and state; None if not Linux."""
    return _numbers(_PEAK, str(n))[0] if Path("/proc/self/clear_refs").exists() else None


def _numbers(code: str, *arguments: str, environment: Mapping[str, str] = os.environ) -> list[float]:
    """What a new process prints last that runs this code."""
    caching = {key: value for key, value in environment.items() if key != "PYTHONDONTWRITEBYTECODE"}
    run = subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, check=True,
                         env=caching)  # fmt: skip
    return [float(number) for number in run.stdout.splitlines()[-1].split()]
