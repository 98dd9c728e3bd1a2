"""docs/authoring.md: its rules run, and what it shows of outputs and errors is what they say."""

import re

import pages
from places import ROOT

PAGE = "docs/authoring.md"


def test_every_block_says_what_the_page_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not pages.differing(PAGE)


def test_it_has_five_worked_rules_and_ten_errors_or_more():
    examples = re.findall(r"^## \d\. .*$", (ROOT / PAGE).read_text(), re.MULTILINE)
    errors = [block for block in pages.blocks(PAGE) if re.match(r"\w+Error: ", block.shown)]
    assert (len(examples), len(errors) >= 10) == (5, True)


def test_a_page_that_drifts_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 3\n```\n\n```python\nprint(x,\n      'is it')\n```\n\n```text\n3 is\nit\n```\n"
                    "```python\n1 / 0\n```\n```text\nZeroDivisionError: division by zero\n```\n")  # fmt: skip
    assert not pages.differing("page.md")
    page.write_text(page.read_text().replace("3 is", "4 is"))
    assert pages.differing("page.md") == [("page.md:6", "4 is\nit\n", "3 is it\n")]
    page.write_text("```python\nprint(3)\n```\n")
    assert pages.differing("page.md") == [("page.md:2", "", "3\n")]
