"""python -m benchmarks [--seconds 4] [--largest 1e8] [--out docs/benchmarks.md]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import fallline as fl
from benchmarks import chains, contenders, plot, process, rules, threads
from benchmarks.measure import Measured, Timings, alternate
from benchmarks.page import page
from benchmarks.sizes import ONE, SIZES, count
from fallline._engines.threads import num_threads
from fallline._optimizer.named import TEN

SMALLEST = count(next(iter(ONE.values())))
CROWDED = 5 * 10**7  # coordinates from which not all contenders are held in memory at once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="for each table's column")
    parser.add_argument("--largest", type=float, default=1e8, help="leave out larger sizes")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks.md"), help="the plot: images/ beside it")
    asked = parser.parse_args()
    if asked.largest < SMALLEST:
        parser.error(f"--largest must be at least {SMALLEST}, the smallest size. Got {asked.largest:g}.")
    asked.out.parent.mkdir(parents=True, exist_ok=True)  # before the work, should it not be possible
    measured = measure(asked.seconds, asked.largest)
    picture = plot.write(measured, asked.out.parent / "images" / f"{asked.out.stem}.png")
    asked.out.write_text(page(measured, picture))
    print(f"written: {asked.out}{_own_peak()}")


def measure(seconds: float, largest: float) -> Measured:
    """Everything, one table after the other; what needs new processes comes last, when this one holds little."""
    m = Measured()
    sizes = {name: shapes for name, shapes in SIZES.items() if count(shapes) <= largest}
    for size in sizes:
        for table, names in _groups(size).items():
            m.steps[table] = _say(table, alternate(contenders.built(names, sizes[size]), seconds))
    of_rules = [size for size in ONE if size in sizes][-1]
    for name in TEN:
        found = rules.against_limit(fl.OPTIMIZERS[name], ONE[of_rules], seconds)
        m.rules[name, of_rules] = _say(f"{name}, {of_rules}", found)
    for name in chains.CHAINS:
        m.chains[name, of_rules] = _say(f"{name}, {of_rules}", chains.chain_against_limit(name, ONE[of_rules], seconds))
    for n in threads.THREADED if num_threads() > 1 else ():
        if n <= max(largest, threads.THREADED[0]):
            m.threads[n] = _say(f"threads, {n:,}", threads.scaling(n, seconds))
    m.starting = _say("starting", process.starting())
    m.compiling = {name: _say(f"compiling {name}", found) for name, found in process.compiling().items()}
    peak = process.peak_memory(count(ONE[of_rules]))
    m.peak = {} if peak is None else {of_rules: peak}
    return m


def _groups(size: str) -> Mapping[str, tuple[str, ...]]:
    """The tables of a size, and who is in them."""
    if count(SIZES[size]) < CROWDED:
        return {size: tuple(contenders.CONTENDERS)}
    here = tuple(name for name in contenders.CONTENDERS if name not in contenders.NEEDS)
    return {size: here, f"{size}, peers": (contenders.LIMIT, contenders.OURS, *contenders.NEEDS)}


def _say(name: str, timings: Timings) -> Timings:
    print(f"{name}: " + ", ".join(f"{k} {v.median * 1e6:,.1f} us" for k, v in timings.items()), flush=True)
    return timings


def _own_peak() -> str:
    """How much memory this run took, where the system says."""
    try:
        import resource
    except ImportError:
        return ""
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB elsewhere
    return f" ({resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.1f} GiB at most were in use)"


if __name__ == "__main__":
    main()
