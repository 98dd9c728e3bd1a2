"""docs/clients.md shows what the programs in clients/ change, and counts it."""

import re

import pages
from places import DOCS
from programs import PROGRAMS, changed, difference

PAGE = "docs/clients.md"
TEXT = (DOCS / "clients.md").read_text()


def test_what_is_shown_is_what_the_programs_change():
    shown = re.findall(r"\[([\w/]+)\]\(\.\./clients/\1\.py\)\n\n```diff\n(.*?)\n```", TEXT, re.DOTALL)
    assert sorted(shown) == [(name, difference(name)) for name in PROGRAMS]
    assert TEXT.count("```diff") == len(shown)


def test_the_table_has_every_program_and_counts_its_lines():
    rows = re.findall(r"^\| \[.*\]\(\.\./clients/([\w/]+)\.py\) \| (\d+) \|", TEXT, re.MULTILINE)
    assert sorted(rows) == [(name, str(changed(name))) for name in PROGRAMS]


def test_the_examples_run():
    assert not pages.differing(PAGE)
