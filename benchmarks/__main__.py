"""python -m benchmarks [--seconds 4] [--largest 1e8] [--out docs/benchmarks.md]
python -m benchmarks --beside PATH [--cases GLOB] [--seconds 4] [--largest 1e8] [--out FILE.md]
python -m benchmarks --jax [--seconds 4]

The second compares this checkout with another one in the same run, and writes nothing without --out. The third prints
the section on loops of JAX alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import fallline as fl
from benchmarks import beside, chains, contenders, jax_loops, loops, plot, process, rules, threads
from benchmarks.measure import Measured, Timings, alternate
from benchmarks.page import in_jax, machine, page
from benchmarks.sizes import ONE, SIZES, count
from fallline._engines.threads import num_threads
from fallline._optimizer.named import TEN

PAGE = Path("docs/benchmarks.md")
SMALLEST = count(next(iter(ONE.values())))
CROWDED = 5 * 10**7  # coordinates from which not all contenders are held in memory at once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4, help="for each table's column, or each case")
    parser.add_argument("--largest", type=float, default=1e8, help="leave out larger sizes")
    parser.add_argument("--out", type=Path, help=f"if not {PAGE}; the plot: images/ beside it")
    parser.add_argument("--beside", type=Path, metavar="PATH", help="the root of another checkout to compare with")
    parser.add_argument("--cases", metavar="GLOB", help="those to compare, by name; all if not given")
    parser.add_argument("--jax", action="store_true", help="loops of JAX alone")
    asked = parser.parse_args()
    if asked.largest < SMALLEST:
        parser.error(f"--largest must be at least {SMALLEST}, the smallest size. Got {asked.largest:g}.")
    if asked.cases is not None and asked.beside is None:
        parser.error("--cases picks what --beside compares, which must be given too.")
    if asked.jax:
        print(machine(), *in_jax(Measured(jax_loops=_in_jax(asked.seconds, asked.largest))), sep="\n")
        return
    out = PAGE if asked.out is None and asked.beside is None else asked.out
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)  # before the work, should it not be possible
    if asked.beside is None:
        write(asked.seconds, asked.largest, out)
        return
    try:
        beside.compare(asked.beside, asked.cases or "*", asked.largest, asked.seconds, out)
    except beside.CheckoutError as why:
        parser.error(str(why))


def write(seconds: float, largest: float, out: Path) -> None:
    """Measure everything, and write the page and its plot."""
    measured = measure(seconds, largest)
    picture = plot.write(measured, out.parent / "images" / f"{out.stem}.png")
    out.write_text(page(measured, picture))
    print(f"written: {out}{_own_peak()}")


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
    for size, shapes in loops.SIZES.items() if contenders.peer("torch") else ():
        if count(shapes) <= largest:
            m.loops[size] = _say(f"torch loop, {size}", loops.loop(size, seconds))
    m.jax_loops = _in_jax(seconds, largest)
    for n in threads.THREADED if num_threads() > 1 else ():
        if n <= max(largest, threads.THREADED[0]):
            m.threads[n] = _say(f"threads, {n:,}", threads.scaling(n, seconds))
    m.starting = _say("starting", process.starting())
    m.compiling = {name: _say(f"compiling {name}", found) for name, found in process.compiling().items()}
    peak = process.peak_memory(count(ONE[of_rules]))
    m.peak = {} if peak is None else {of_rules: peak}
    return m


def _in_jax(seconds: float, largest: float) -> dict[str, Timings]:
    sizes = jax_loops.SIZES.items() if contenders.peer("jax") and contenders.peer("optax") else ()
    return {size: _say(f"JAX loop, {size}", jax_loops.loop(size, seconds)) for size, shapes in sizes
            if count(shapes) <= largest}  # fmt: skip


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
