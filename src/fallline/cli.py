"""The console script `fallline`; what needs the `race` extra is imported only once that is known to be there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import fallline

__all__ = ["main"]

HELP = """fallline: first-order optimisers for people who have a gradient.

Usage: fallline race [OPTIONS]

The command needs more than the library does: pip install "fallline[race]" """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` default to those of the process. Ends with SystemExit.

    Exit codes: 0 done, 2 bad arguments or a missing extra, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        print(f"fallline {fallline.__version__}")
        raise SystemExit
    try:
        fallline.race.check_installed("typer")
        from fallline.race.command import call
    except ImportError as error:
        if given in ([], ["--help"]):
            print(HELP)
            raise SystemExit from None
        missing(error)
    # What a terminal's encoding lacks ("µ" in a C locale, say) must not end a race in a traceback.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    call(given)


def missing(error: ImportError) -> NoReturn:
    """Say in one line what to install, and end."""
    print(f"fallline: {error}", file=sys.stderr)
    raise SystemExit(2)
