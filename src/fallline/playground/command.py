"""The command `fallline playground`; fallline.cli knows it by name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fallline.playground import page, script

__all__ = ["call"]


def call(arguments: Sequence[str]) -> int:
    """Write the page, or the module, and say where; the exit code."""
    parser = argparse.ArgumentParser(prog="fallline playground", description=(
        "Write a page on which optimizers can be played with: one file, for any browser, without a server."))
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page; play.html if nothing is said")
    parser.add_argument("--script", type=Path, metavar="FILE", help="the optimizers alone, as a JavaScript module")
    parser.add_argument("--optimizers", metavar="LIST", help="names with commas between, also module:rule and "
                        "file.py:rule; every rule and dialect but Muon and Adafactor if nothing is said")
    asked = parser.parse_args(arguments[1:])
    names = None if asked.optimizers is None else [name.strip() for name in asked.optimizers.split(",") if name.strip()]
    out = Path("play.html") if asked.out is None and asked.script is None else asked.out
    try:
        for path, write, what in ((out, page, "Page"), (asked.script, script, "Module")):
            if path is not None:
                path.write_text(write(names), encoding="utf-8")
                print(f"{what}: {path}")
    except OSError as error:
        return _refused(f"{error.filename} cannot be written ({error.strerror}).")
    except (ValueError, TypeError) as error:
        return _refused(" ".join(str(error).split()))
    return 0


def _refused(message: str) -> int:
    print(f"fallline: {message}", file=sys.stderr)
    return 2
