"""What was measured, as a page of Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import fallline as fl
from benchmarks import jax_loops
from benchmarks.bars import BARS, Bar
from benchmarks.contenders import CONTENDERS, LIMIT, OURS, missing
from benchmarks.loops import FUSED, ITERATIONS
from benchmarks.measure import Measured, Timing, Timings
from benchmarks.process import AGAIN, COMPILED
from benchmarks.rules import CHECKED, STEP
from benchmarks.sizes import SIZES, count
from benchmarks.threads import ALONE, SHARED, worth_sharing
from fallline._engines.threads import num_threads

__all__ = ["in_jax", "machine", "micro", "page", "table"]


def page(m: Measured, picture: str) -> str:
    """The page; `picture` is the line that shows the plot or says why there is none."""
    sections = [_head(picture), _bars(m), _steps(m), _multiples(m), _rules(m), _chains(m), _loops(m), in_jax(m),
                _threads(m), _starting(m), _memory(m)]  # fmt: skip
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _head(picture: str) -> list[str]:
    absent = [f"{name} (needs {' and '.join(gone)})" for name in CONTENDERS if (gone := missing(name))]
    return [
        "# Benchmarks", "",
        "Written by `python -m benchmarks`: all contenders of a table in one process, each round taking every one in a",
        "new order; medians, and in brackets 10 to 90 %. Adam on float32, unless said otherwise; `limit` is a native",
        "kernel that only reads and writes the same arrays. Ours does not check gradients unless it says so, as torch",
        "does not. At 1e8 coordinates the peers have a table of their own, so that all fits into memory.", "",
        machine(),
        *(["", f"Left out, as not installed: {'; '.join(absent)}."] if absent else []), "", picture,
    ]  # fmt: skip


def machine() -> str:
    """What all this was measured on, as a sentence."""
    return (f"Machine: {_processor()}, {num_threads()} of {os.cpu_count()} processors, {platform.system()}, "
            f"Python {platform.python_version()}, {', '.join(_versions())}.")  # fmt: skip


def _processor() -> str:
    """The processor's name; /proc/cpuinfo knows it best."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, [*names[:1], platform.processor(), platform.machine()]), "unknown")


def _versions() -> Iterable[str]:
    yield f"fallline {fl.__version__}"
    for name in ("numpy", "llvmlite", "torch", "jax", "optax", "keras"):
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue


def _bars(m: Measured) -> list[str]:
    rows = [[bar.text, *_verdict(bar, m)] for bar in BARS]
    return ["## What is to be reached", "", *table(["what", "bar", "measured", ""], rows)]


def _verdict(bar: Bar, m: Measured) -> list[str]:
    asked = f"{bar.word} {bar.bar:g}{bar.unit}"
    try:
        value = bar.value(m)
    except KeyError:
        return [asked, "", "not measured"]
    return [asked, f"{value:.2f}{bar.unit}", "met" if bar.met(value) else "**not met**"]


def _steps(m: Measured) -> list[str]:
    rows = [[name, *(_cell(timings.get(name)) for timings in m.steps.values())] for name in CONTENDERS]
    return ["## Microseconds per step", "", *table(["", *m.steps], rows)]


def _multiples(m: Measured) -> list[str]:
    rows = [[name, *(_times(timings, name, OURS) for timings in m.steps.values())] for name in CONTENDERS]
    return ["## The same as multiples of ours", "", *table(["", *m.steps], rows)]


def _times(timings: Timings, name: str, unit: str) -> str:
    return f"{timings[name].median / timings[unit].median:.2f}" if name in timings else ""


def _rules(m: Measured) -> list[str]:
    size = next(iter(m.rules))[1]
    return [f"## Every rule against its limit, {size}", "", *_limits("rule", m.rules)]


def _chains(m: Measured) -> list[str]:
    size = next(iter(m.chains))[1]
    return [
        f"## Chains against their limit, {size}", "",
        "The limit of a chain with a norm reads the gradient once more, before. The norm, where there is one, is the",
        "check of the gradients, too.", "", *_limits("chain", m.chains),
    ]  # fmt: skip


def _limits(what: str, timings: Mapping[tuple[str, str], Timings]) -> list[str]:
    rows = [[name, *(f"{found[k].median * 1e3:.3g}" for k in (LIMIT, STEP, CHECKED)),
             *(f"{found[k].median / found[LIMIT].median:.2f}" for k in (STEP, CHECKED))]
            for (name, _), found in timings.items()]  # fmt: skip
    return table([what, "limit, ms", "step, ms", "checked, ms", "step / limit", "checked / limit"], rows)


def _loops(m: Measured) -> list[str]:
    if not m.loops:
        return []
    cells = [[name, *(_cell(timings.get(name)) for timings in m.loops.values())] for name in ITERATIONS]
    times = [[name, *(_times(timings, name, FUSED) for timings in m.loops.values())] for name in ITERATIONS]
    return [
        "## In a training loop of torch", "",
        "Microseconds of an iteration after `backward()`: the step of an AdamW of two parameter groups, one of which",
        "has weight decay, then that of a `LambdaLR`. The shapes of `150, 25 M` are those of a nanoGPT.", "",
        *table(["", *m.loops], cells), "",
        f"The same as multiples of {FUSED}:", "",
        *table(["", *m.loops], times),
    ]  # fmt: skip


def in_jax(m: Measured) -> list[str]:
    """The section on loops of JAX."""
    if not m.jax_loops:
        return []
    cells = [[name, *(_cell(timings.get(name)) for timings in m.jax_loops.values())] for name in jax_loops.ITERATIONS]
    times = [[name, *(_times(timings, name, jax_loops.OPTAX) for timings in m.jax_loops.values())]
             for name in jax_loops.ITERATIONS]  # fmt: skip
    return [
        "## In a training loop of JAX", "",
        "Microseconds of an iteration behind the gradient, of `python -m benchmarks --jax`: a jitted update, to which",
        "parameters and state are donated, with `optax.adam` or what `fallline.optax.transform` gives in its place; or",
        "`step` of an optimizer outside `jit`, which leaves the parameters that it was given alone.", "",
        *table(["", *m.jax_loops], cells), "",
        f"The same as multiples of {jax_loops.OPTAX}:", "",
        *table(["", *m.jax_loops], times),
    ]  # fmt: skip


def _threads(m: Measured) -> list[str]:
    if not m.threads:
        return []
    rows = [[f"{n:,}", _cell(found[ALONE]), _cell(found[SHARED]), f"{found[ALONE].median / found[SHARED].median:.2f}"]
            for n, found in m.threads.items()]  # fmt: skip
    return [
        "## Threads", "",
        f"Microseconds per step of one array, by one thread and shared among {num_threads()}, in turns.",
        f"Fallline shares steps of {worth_sharing():,} coordinates or more (`fallline._engines.cpu.pool`):",
        "that threshold comes from this table, for which it was switched off. Steps follow each other, so the other",
        "threads are still awake.", "",
        *table(["coordinates", ALONE, SHARED, "times as fast"], rows),
    ]  # fmt: skip


def _starting(m: Measured) -> list[str]:
    started = [[what, _milli(timing)] for what, timing in m.starting.items()]
    compiled = [[rule, _milli(t[COMPILED]), _milli(t[AGAIN])] for rule, t in m.compiling.items()]
    return [
        "## Starting and compiling", "",
        "Milliseconds in a new process, byte code cached:", "",
        *table(["what", "ms"], started), "",
        "And of each rule, once the compiler has started: the first step of 100 coordinates (which traces the formula",
        "and compiles it by LLVM), and that of a second optimizer with the same rule:", "",
        *table(["rule", f"{COMPILED}, ms", f"{AGAIN}, ms"], compiled),
    ]  # fmt: skip


def _memory(m: Measured) -> list[str]:
    rows = [[f"{count(SIZES[size]):,}", f"{extra:.1f}"] for size, extra in m.peak.items()]
    return ["## Memory", "", "The peak of four steps of Adam beyond parameters, gradient and state:", "",
            *table(["coordinates", "MiB"], rows)] if rows else []  # fmt: skip


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows that say something, under their header."""
    told = [row for row in rows if any(row[1:])]
    return [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *(f"| {' | '.join(row)} |" for row in told)]


def _cell(timing: Timing | None) -> str:
    return "" if timing is None else f"{micro(timing.median)} [{micro(timing.low)}, {micro(timing.high)}]"


def micro(seconds: float) -> str:
    us = seconds * 1e6
    return f"{us:,.{2 if us < 10 else 1 if us < 100 else 0}f}"


def _milli(timing: Timing) -> str:
    return f"{timing.median * 1e3:.1f} [{timing.low * 1e3:.1f}, {timing.high * 1e3:.1f}]"
