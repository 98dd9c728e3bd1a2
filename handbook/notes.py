"""When to use an optimiser and when not: what no formula says, from notes.toml."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["Notes", "Source", "cited", "linked", "noted", "notes", "sources"]

FILE = Path(__file__).parent / "notes.toml"


class Notes(NamedTuple):
    """Markdown, with sources by their keys in braces."""

    use: str
    avoid: str
    path: str  # a remark on its picture, empty where there is none


class Source(NamedTuple):
    """"Kingma & Ba 2015", its title, its address."""

    short: str
    title: str
    url: str


@cache
def _read() -> dict[str, dict]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def sources() -> dict[str, Source]:
    """All sources by key."""
    return {key: Source(*source) for key, source in _read()["sources"].items()}


def noted() -> list[str]:
    """The names of all optimisers that there are notes on."""
    return [name for name in _read() if name != "sources"]


def notes(name: str) -> Notes:
    """The notes on an optimiser; raises ValueError if there are none, or one is missing."""
    text = _read().get(name, {})
    if missing := [key for key in ("use", "avoid") if key not in text]:
        raise ValueError(f"{name} has no notes on {' and '.join(missing)}. Write [{name}] with use and avoid into "
                         f"handbook/{FILE.name}.")
    return Notes(text["use"].strip(), text["avoid"].strip(), text.get("path", "").strip())


def cited(text: str) -> list[Source]:
    """The sources that a text cites, each once, in order; raises ValueError for keys that are none."""
    keys = dict.fromkeys(re.findall(r"{(\w+)}", text))
    if unknown := [key for key in keys if key not in sources()]:
        raise ValueError(f"{unknown[0]} is no source. Write it into [sources] of handbook/{FILE.name}.")
    return [sources()[key] for key in keys]


def linked(text: str) -> str:
    """A text with links in the place of keys."""
    cited(text)
    return re.sub(r"{(\w+)}", lambda key: "[{0.short}]({0.url})".format(sources()[key[1]]), text)
