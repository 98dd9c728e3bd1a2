"""The console script `fallline`: what commands there are, and which of them need an extra; each is imported when asked
for."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import fallline

__all__ = ["COMMANDS", "main"]


class Command(NamedTuple):
    """`call` of the module runs it, given all arguments, its own name first; it returns the exit code, or exits."""

    module: str
    does: str
    needs_race: bool = False  # the extra of that name


COMMANDS = {
    "race": Command("fallline.race.command", "Race optimisers on a problem: a table and a report.", needs_race=True),
    "playground": Command("fallline.playground.command", "Write a page to play with every optimiser in a browser."),
    "check": Command("fallline.race.command", "Run a race again from its results.json: what agrees.", needs_race=True),
    "tracks": Command("fallline.race.command", "Draw a moving picture of optimisers on a surface.", needs_race=True),
    "digests": Command("fallline._digests.command", "Compare the bits of every rule here with those of a table."),
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command; `arguments` default to those of the process. Ends with SystemExit.

    Exit codes: 0 done, 1 what was compared differs, 2 bad arguments or a missing extra, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # What a terminal's encoding lacks ("µ" in a C locale, say) must not end a command in a traceback.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    first = given[0] if given else "--help"
    if first in ("--help", "-h"):
        print(_help())
    elif first == "--version":
        print(f"fallline {fallline.__version__}")
    elif first not in COMMANDS:
        _fail(f"there is no command {first!r}. Commands: {', '.join(COMMANDS)}; fallline --help says more.")
    else:
        _run(COMMANDS[first], given)
    raise SystemExit(0)


def _run(command: Command, given: list[str]) -> NoReturn:
    if command.needs_race:
        try:
            fallline.race.check_installed("typer")
        except ImportError as error:
            _fail(str(error))
    try:
        code = importlib.import_module(command.module).call(given)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has enough, as head has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        print("fallline: interrupted", file=sys.stderr)
        code = 130
    raise SystemExit(code)


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {command.does}" for name, command in COMMANDS.items())
    extra = ", ".join(name for name, command in COMMANDS.items() if command.needs_race)
    return f"""fallline: first-order optimisers for people who have a gradient.

Usage: fallline COMMAND [OPTIONS]

{rows}

  --version  Print the version.
  --help     With a command: what it does, and its options.

What needs pip install "fallline[race]": {extra}."""


def _fail(message: str) -> NoReturn:
    """Say in one line what is wrong, and end."""
    print(f"fallline: {message}", file=sys.stderr)
    raise SystemExit(2)
