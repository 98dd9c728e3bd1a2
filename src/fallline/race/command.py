"""The commands `fallline race`, `check` and `tracks`; fallline.cli knows them by name."""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from fallline import race as races
from fallline.race.findings.document import asked
from fallline.race.problems.named import PROBLEMS
from fallline.race.problems.surfaces import SURFACES
from fallline.race.protocol.cluster import ClusterError, on_cluster
from fallline.race.protocol.course import Race
from fallline.race.protocol.kept import Kept, taken_up
from fallline.race.protocol.runs import SURFACE_STEPS
from fallline.race.protocol.settings import REPEATS, STEPS, Settings

USAGE_ERROR, INTERRUPTED = 2, 130
UsageError: Any = typer.BadParameter.__base__  # the class of all usage errors stands in no public module of typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def call(arguments: Sequence[str]) -> NoReturn:
    """Run the command and end the process with its exit code; what is wrong with the arguments is one line."""
    try:
        code = app(args=list(arguments), prog_name="fallline", standalone_mode=False)
    except typer.Abort:  # Ctrl-C before the race began
        _fail("interrupted", INTERRUPTED)
    except UsageError as error:
        spaced = any(text.startswith(",") or text.endswith(",") for text in arguments)
        hint = " A list has commas and no spaces, or stands in quotes: --optimizers Muon,Adam" if spaced else ""
        _fail(error.format_message() + hint)
    raise SystemExit(code or 0)


@app.callback()
def root() -> None:
    """First-order optimisers: which one, at which rate, for this problem."""


@app.command()
def race(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for results.json and report.html.")] = Path("race"),
    problem: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(PROBLEMS)}; or your own as package.module:name or file.py:name, where name is a "
            "fallline.race.Problem or a function of the seed that returns one. Several, with commas between, race one "
            "after the other, and a performance profile compares the optimisers over all.",
        ),
    ] = "digits",
    optimizers: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Names with commas between, also module:rule.", show_default="the ten"),
    ] = None,
    repeats: Annotated[int, typer.Option(metavar="N", help="Fresh seeds to report.")] = REPEATS,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps of each run.")] = STEPS,
    jobs: Annotated[int, typer.Option(metavar="N", help="Processes; -1 is one per processor.")] = -1,
    seed: Annotated[int, typer.Option(metavar="N", help="Determines every run.")] = 0,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A dask scheduler, as tcp://host:8786, whose workers run all in place of "
                     "--jobs, with the same results."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the race that was begun in --out, with the same results.")
    ] = False,
) -> None:
    """Race optimisers on a problem, and say which differences are clear.

    Tunes each one's rate, runs it on fresh seeds, prints a table, best first, and writes a report.
    """
    settings, given = partial(Settings, steps, repeats, seed, jobs), _names(optimizers)
    prepared = {name: _prepared(name, given, settings) for name in _names(problem) or [problem]}
    if len(prepared) > 1:
        _check_targets(prepared)
    _make_folder(out)
    folders = {name: out / re.sub(r"\W+", "-", name) if len(prepared) > 1 else out for name in prepared}
    results = []
    with _there(cluster):
        kept = {name: _kept(folders[name], each, resume) for name, each in prepared.items()}
        for name, each in prepared.items():
            results.append(_run_and_saved(each, kept[name], folders[name]))
    if len(prepared) > 1:
        print(races.profile(results))


def _check_targets(prepared: Mapping[str, Race]) -> None:
    for name, each in prepared.items():
        if each.problem.target is None:
            _fail(f"Each of several problems must have a target, for their performance profile. {name} has none.")


def _kept(folder: Path, prepared: Race, resume: bool) -> Kept:
    """What has been run already, or the empty file of a race that begins."""
    try:
        return taken_up(folder, asked(prepared), anew=not resume)
    except ValueError as error:
        _fail(str(error))


def _run_and_saved(prepared: Race, kept: Kept, out: Path) -> races.Result:
    """The result, which has been saved and printed; an interrupted one ends the command."""
    try:
        result, code = races.finish(prepared, kept), 0
    except races.Interrupted as interrupt:
        result, code = interrupt.result, INTERRUPTED
    report = result.save(out)  # before anything is printed: who closes the pipe loses nothing
    print(result)
    print(f"Report: {report}")
    if code:
        print("The same command with --resume goes on.")
        raise typer.Exit(code)
    return result


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A results.json, or its folder.")] = Path("race"),
    jobs: Annotated[int, typer.Option(metavar="N", help="Processes; -1 is one per processor.")] = -1,
) -> None:
    """Run a race again from its results.json, and say what agrees.

    The problem and rules of your own are looked for from the current folder. Ends with 0 if all agrees, and with 1 if
    not.
    """
    try:
        agreed = races.check(file, jobs=jobs)
    except races.Interrupted:
        _fail("interrupted", INTERRUPTED)
    except FileNotFoundError:
        _fail(f"There is no file {file}.")
    except (ValueError, TypeError) as error:
        _fail(" ".join(str(error).split()))
    print(agreed)
    raise typer.Exit(0 if agreed.agrees else 1)


@app.command()
def tracks(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The picture, a .gif or a .webp.")] = Path("tracks.gif"),
    surface: Annotated[str, typer.Option(metavar="NAME", help=f"{', '.join(SURFACES)}.")] = "rosenbrock",
    optimizers: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Names with commas between, also module:rule.", show_default="the ten"),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps of each.")] = SURFACE_STEPS,
    jobs: Annotated[int, typer.Option(metavar="N", help="Processes; -1 is one per processor.")] = -1,
) -> None:
    """Draw a moving picture of optimisers on a surface.

    Each has the rate that goes down fastest, by the protocol of the race.
    """
    try:
        races.tracks(surface, _names(optimizers), steps=steps, jobs=jobs).animate(out)
    except OSError as error:
        _fail(f"{out} cannot be written ({error.strerror}).")
    except (ImportError, ValueError, TypeError) as error:
        _fail(" ".join(str(error).split()))
    print(f"Picture: {out}")


@contextlib.contextmanager
def _there(cluster: str | None) -> Iterator[None]:
    """On the workers of a cluster, or here where none was named."""
    try:
        with contextlib.nullcontext() if cluster is None else on_cluster(cluster):
            yield
    except ClusterError as error:
        _fail(" ".join(str(error).split()))


def _names(optimizers: str | None) -> list[str] | None:
    return None if optimizers is None else [name.strip() for name in optimizers.split(",") if name.strip()]


def _make_folder(out: Path) -> None:
    """Make the folder now: a race whose report cannot be written should not be run."""
    if out.exists() and not out.is_dir():
        _fail(f"--out must be a folder. {out} is a file.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        _fail(f"--out must be a folder that can be written. Got {out} ({error.strerror}).")


def _prepared(problem: str, optimizers: list[str] | None, settings: Callable[[], Settings]) -> Race:
    """The race with all its arguments checked, and the gradient too; what is wrong with them is one line."""
    try:
        return Race(problem, optimizers, settings())
    except (ValueError, TypeError) as error:
        _fail(" ".join(str(error).split()))


def _fail(message: str, code: int = USAGE_ERROR) -> NoReturn:
    print(f"fallline: {message}", file=sys.stderr)
    raise SystemExit(code)
