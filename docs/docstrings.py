"""Docstrings are plain text with `code` and sections; this is how autodoc is told so, in reStructuredText."""

import re
import textwrap

DOCTEST = re.compile(r"(^ *>>>.*(?:\n.+)*)", re.MULTILINE)
SECTION = re.compile(r"^(\S.*)\n-{4,}\n((?:.+\n?)*)", re.MULTILINE)
FORMULA = re.compile(r"^(Formula[^\n]*)\n-{4,}\n(.*?)\n(?=\n[A-Z][a-z]+[ ,-])", re.MULTILINE | re.DOTALL)
ENTRY = re.compile(r"[\w.*]+(, [\w.*]+)*(: |$)")
CODE = re.compile(r"``?([^`]+)``?")


def rewrite(app, what, name, obj, options, lines):
    """For autodoc-process-docstring: in place."""
    lines[:] = restructured("\n".join(lines)).split("\n")


def restructured(text):
    r"""A docstring as reStructuredText.

    >>> print(restructured("|x| of `opt.t`.\n\nParameters\n----------\n*links: rules,\n    in order\nn: how many"))
    \|x\| of \ ``opt.t``\ .
    <BLANKLINE>
    **Parameters**
    <BLANKLINE>
    - ``*links``: rules, in order
    - ``n``: how many
    <BLANKLINE>
    <BLANKLINE>
    >>> print(restructured("Formula\n-------\nif a:\n    b\n\nc*d\n\nState, of which\n----------\nm: at 0\n"))
    **Formula**
    <BLANKLINE>
    .. code-block:: text
    <BLANKLINE>
       if a:
           b
    <BLANKLINE>
       c*d
    <BLANKLINE>
    **State, of which**
    <BLANKLINE>
    - ``m``: at 0
    <BLANKLINE>
    <BLANKLINE>
    """
    first, *formulas = FORMULA.split(text)
    return _text(first) + "".join(
        f"**{title}**\n\n.. code-block:: text\n\n{textwrap.indent(code, '   ')}\n{_text(after)}"
        for title, code, after in zip(formulas[::3], formulas[1::3], formulas[2::3]))  # fmt: skip


def _text(text):
    return "".join(part if k % 2 else _plain(part) for k, part in enumerate(DOCTEST.split(text)))


def _plain(text):
    first, *sections = SECTION.split(text)
    return _prose(first) + "".join(f"**{title}**\n\n{_entries(body)}\n{_prose(after)}" for title, body, after in
                                   zip(sections[::3], sections[1::3], sections[2::3]))  # fmt: skip


def _entries(body):
    """One for each line that begins with names, to which lines behind it belong; text without names is one entry."""
    entries = []
    for line in body.splitlines():
        if ENTRY.match(line) or not entries:
            entries.append(f"{line}:" if re.fullmatch(r"\w+", line) else line)
        else:
            entries[-1] += f" {line.strip()}"
    named = (entry.partition(": ") for entry in entries)
    return "".join(f"- ``{name}``: {_prose(said)}\n" if ENTRY.match(f"{name}: ") and said else
                   f"- {_prose(name + colon + said)}\n" for name, colon, said in named)  # fmt: skip


def _prose(text):
    """Text in which nothing but code has a meaning."""
    parts = CODE.split(text)
    return "".join(f"\\ ``{part}``\\ " if k % 2 else re.sub(r"([\\*|]|_\b)", r"\\\1", part)
                   for k, part in enumerate(parts))
