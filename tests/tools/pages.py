"""Pages whose Python runs: blocks of code in order, each with the text block behind it, which is what it says."""

import contextlib
import io
import re
from typing import NamedTuple

from places import ROOT

_BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n?```text\n(?P<shown>.*?)```)?", re.DOTALL)


class Block(NamedTuple):
    """A block of Python, the line of the page on which it begins, and what the page shows that it says."""

    code: str
    line: int
    shown: str


def blocks(page):
    """The blocks of a page (a path below the repository's root) that are marked `python` alone."""
    text = (ROOT / page).read_text()
    return [Block(found["code"], text.count("\n", 0, found.start("code")) + 1, found["shown"] or "")
            for found in _BLOCK.finditer(text)]


def said(block, page, names):
    """What a block prints, and the error that ends it if one does; it runs in the namespace `names`."""
    printed = io.StringIO()
    code = compile("\n" * (block.line - 1) + block.code, page, "exec")  # so that tracebacks name the page's lines
    with contextlib.redirect_stdout(printed):
        try:
            exec(code, names)
        except Exception as error:
            if not block.shown:
                raise
            print(f"{type(error).__name__}: {error}")
    return printed.getvalue()


def differing(page):
    """The blocks of a page, run in order in one namespace, that do not say what it shows: line, shown, said.

    Lines may be broken on the page where they are not in what is said.
    """
    names = {"__name__": "page"}
    results = [(block, said(block, page, names)) for block in blocks(page)]
    return [(f"{page}:{block.line}", block.shown, now) for block, now in results
            if block.shown.split() != now.split()]
