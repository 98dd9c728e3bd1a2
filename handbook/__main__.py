"""python -m handbook [NAME ...] [--out docs] [--jobs 2]: draw these optimisers' paths, or all, and write all pages."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import fallline as fl
from handbook.dialects import dialects
from handbook.drawn import drawn
from handbook.index import index
from handbook.notes import notes
from handbook.page import page
from handbook.paths import contender, found
from handbook.picture import draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="whose paths to search and draw anew; all if none")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in fl.OPTIMIZERS]:
        parser.error(f"no optimiser is called {unknown[0]}. Known: {', '.join(fl.OPTIMIZERS)}")
    if find_spec("contourpy") is None:
        parser.error("contourpy is not installed: pip install -e '.[handbook]'")
    try:
        for name in fl.OPTIMIZERS:  # before the work, should there be none
            notes(name)
    except ValueError as error:
        parser.error(str(error))
    folder = asked.out / "optimizers"
    folder.mkdir(parents=True, exist_ok=True)
    for name, paths in found(asked.names or list(fl.OPTIMIZERS), asked.jobs):
        _write(folder / f"{name}.svg", draw(contender(name), paths))
    for name, text in pages(asked.out).items():
        _write(asked.out / name, text)


def pages(out: Path) -> dict[str, str]:
    """The text of every page by its name below the folder; the pictures must be there."""
    texts = {f"optimizers/{name}.md": page(name, drawn(out / "optimizers", name)) for name in fl.OPTIMIZERS}
    return {"optimizers.md": index(), "dialects.md": dialects(), **texts}


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    print(f"written: {file}")


if __name__ == "__main__":
    main()
