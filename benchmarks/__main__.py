"""python -m benchmarks [--seconds 4] [--largest 1e8] [--out docs/benchmarks.md]"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fallline as fl
from benchmarks import contenders as c
from benchmarks.measure import Timing, alternate

SIZES = {
    "1 x 100": [(100,)], "1 x 1e4": [(10**4,)], "1 x 1e5": [(10**5,)], "1 x 1e6": [(10**6,)], "1 x 1e7": [(10**7,)],
    "1 x 1e8": [(10**8,)], "1,000 x 100": [(100,)] * 1000, "1,000 x 10,000": [(10**4,)] * 1000,
    "transformer": [(512, 512)] * 48 + [(512, 2048), (2048, 512)] * 6 + [(512,)] * 90,
}  # fmt: skip


def adam(nonfinite: str = "propagate") -> fl.Optimizer:
    return fl.Adam(c.LR, nonfinite=nonfinite)


CONTENDERS: dict[str, Callable[[c.Shapes], Any]] = {
    "limit": lambda shapes: c.limit(fl.rules.adam, shapes),
    "fallline": lambda shapes: c.ours(adam(), shapes),
    "fallline, new gradients": lambda shapes: c.ours(adam(), shapes, new_gradients=True),
    "fallline, checked": lambda shapes: c.ours(adam("raise"), shapes),
    "fallline update": lambda shapes: c.ours_update(adam(), shapes, out=False),
    "fallline update, out=": lambda shapes: c.ours_update(adam(), shapes, out=True),
    "NumPy listing": c.numpy_listing,
    "NumPy in place": c.numpy_in_place,
    "torch fused": lambda shapes: c.torch_adam(shapes, fused=True),
    "torch foreach": lambda shapes: c.torch_adam(shapes, foreach=True),
    "torch default": c.torch_adam,
    "optax, jit": c.optax_adam,
    "Keras": c.keras_adam,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="for each size")
    parser.add_argument("--largest", type=float, default=1e8, help="leave out larger sizes")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks.md"))
    asked = parser.parse_args()
    sizes = {name: shapes for name, shapes in SIZES.items() if _count(shapes) <= asked.largest}
    by_size = {name: _say(name, alternate(_built(shapes), asked.seconds)) for name, shapes in sizes.items()}
    largest = max((shapes for shapes in sizes.values() if len(shapes) == 1), key=_count)
    rules = {name: _say(name, _against_limit(cls, largest, asked.seconds)) for name, cls in fl.OPTIMIZERS.items()}
    threads = _say("threads", _threads([(10**7,)], asked.seconds)) if asked.largest >= 1e7 else {}
    asked.out.write_text(_page(by_size, rules, _count(largest), threads))
    print(f"written: {asked.out}")


def _count(shapes: c.Shapes) -> int:
    return sum(int(np.prod(shape)) for shape in shapes)


def _built(shapes: c.Shapes) -> dict[str, Any]:
    return {name: build(shapes) for name, build in CONTENDERS.items()}


def _against_limit(cls: Any, shapes: c.Shapes, seconds: float) -> dict[str, Timing]:
    return alternate({"limit": c.limit(cls.rule, shapes), "step": c.ours(cls(nonfinite="propagate"), shapes)}, seconds)


def _threads(shapes: c.Shapes, seconds: float) -> dict[str, Timing]:
    found = {}
    for n in range(1, len(os.sched_getaffinity(0)) + 1):
        fl.set_num_threads(n)
        found |= alternate({str(n): c.ours(adam(), shapes)}, seconds / 2)
    fl.set_num_threads(None)
    return found


def _say(name: str, timings: dict[str, Timing]) -> dict[str, Timing]:
    print(f"{name}: " + ", ".join(f"{k} {v.median * 1e6:,.1f} us" for k, v in timings.items()), flush=True)
    return timings


def _start() -> list[str]:
    """What a new process pays, in milliseconds: the median of seven, byte code cached."""
    code = ("import time; a = time.perf_counter(); import numpy as np; b = time.perf_counter(); import fallline as fl; "
            "c = time.perf_counter(); w = np.ones(100, np.float32); fl.Adam().step(w, w.copy()); "
            "d = time.perf_counter(); print(b - a, c - b, d - b)")  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
            for _ in range(8)][1:]  # fmt: skip
    numpy, fallline, first = 1e3 * np.median([[float(v) for v in run.stdout.split()] for run in runs], axis=0)
    rows = {"import numpy": numpy, "import fallline, after it": fallline, "that and a first step, compiled": first}
    return ["| what | ms |", "|---|---|", *(f"| {what} | {ms:.0f} |" for what, ms in rows.items())]


def _peak(n: int) -> list[str]:
    """The memory of steps over n coordinates, beyond parameters, gradients and state; as Linux counts it."""
    code = (f"import numpy as np, fallline as fl; n = {n}; w, g = np.ones(n, 'f4'), np.ones(n, 'f4');"
            "read = lambda key: int(open('/proc/self/status').read().split(key)[1].split()[0]) / 1024; opt = fl.Adam();"
            "[opt.step(np.ones(10**6, 'f4'), np.ones(10**6, 'f4')) for _ in range(4)]; opt.reset();"
            "open('/proc/self/clear_refs', 'w').write('5'); before = read('VmRSS:');"  # the peak starts anew
            "[opt.step(w, g) for _ in range(4)]; print(read('VmHWM:') - before - 2 * n * 4 / 2**20)")  # fmt: skip
    if not Path("/proc/self/clear_refs").exists():
        return []
    extra = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return [f"Four steps of Adam over {n:,} float32 coordinates took {float(extra):.1f} MiB beyond parameters, "
            "gradient and state."]  # fmt: skip


def _page(by_size: dict, rules: dict, largest: int, threads: dict) -> str:
    names = list(by_size)
    lines = [
        "# Benchmarks", "",
        "Written by `python -m benchmarks`: all contenders in one process, each round taking every one in turn;",
        "medians, and in brackets 10 to 90 %. Adam on float32; `limit` is a native kernel that only reads and writes",
        "the same arrays. Ours does not check gradients unless it says so, as torch does not. Peers that are not",
        "installed are left out.", "",
        f"Machine: {platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} processors, "
        f"{platform.system()}, Python {platform.python_version()}, NumPy {np.__version__}.", "",
        "## Microseconds per step", "",
        f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}",
    ]  # fmt: skip
    for contender in CONTENDERS:
        cells = [_cell(by_size[name].get(contender)) for name in names]
        if any(cells):
            lines.append(f"| {contender} | {' | '.join(cells)} |")
    lines += ["", "## The same as multiples of ours", ""]
    lines += [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for contender in CONTENDERS:
        pairs = [(by_size[name].get(contender), by_size[name]["fallline"]) for name in names]
        cells = ["" if theirs is None else f"{theirs.median / mine.median:.2f}" for theirs, mine in pairs]
        if any(cells):
            lines.append(f"| {contender} | {' | '.join(cells)} |")
    lines += ["", f"## Every rule against its limit, {largest:,} coordinates", "", "| rule | ms | limit, ms | ratio |",
              "|---|---|---|---|"]  # fmt: skip
    lines += [f"| {name} | {t['step'].median * 1e3:.1f} | {t['limit'].median * 1e3:.1f} | "
              f"{t['step'].median / t['limit'].median:.2f} |" for name, t in rules.items()]  # fmt: skip
    if threads:
        lines += ["", "## Threads, 10,000,000 coordinates", "", "| threads | ms |", "|---|---|"]
        lines += [f"| {n} | {t.median * 1e3:.2f} |" for n, t in threads.items()]
    lines += ["", "## Starting, and memory", "", *_start(), "", *_peak(largest)]
    return "\n".join(lines) + "\n"


def _cell(timing: Timing | None) -> str:
    if timing is None:
        return ""
    return f"{_micro(timing.median)} [{_micro(timing.low)}, {_micro(timing.high)}]"


def _micro(seconds: float) -> str:
    us = seconds * 1e6
    return f"{us:,.1f}" if us < 100 else f"{us:,.0f}"


if __name__ == "__main__":
    main()
