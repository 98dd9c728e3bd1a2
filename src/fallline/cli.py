"""The console script `fallline`; what needs the `race` extra is imported only once that is known to be there."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` default to those of the process. Ends with SystemExit.

    Exit codes: 0 done, 2 bad arguments or a missing extra, 130 interrupted.
    """
    if importlib.util.find_spec("typer") is None:
        missing('The command line needs typer: pip install "fallline[race]"')
    try:
        from fallline.race.command import call
    except ImportError as error:
        missing(str(error))
    # What a terminal's encoding lacks ("µ" in a C locale, say) must not end a race in a traceback.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    call(arguments)


def missing(message: str) -> None:
    """Say in one line what to install, and end."""
    print(f"fallline: {message}", file=sys.stderr)
    raise SystemExit(2)
