"""docs/race.md: its blocks run in order and say what the page shows."""

import pytest

import pages
from needed import need


@pytest.mark.slow
def test_every_block_says_what_the_page_shows(tmp_path, monkeypatch):
    need("torch")
    monkeypatch.chdir(tmp_path)
    found = pages.differing("docs/race.md")
    assert not [block for block in found if block[1]], "blocks that show what they print"
    assert all("rank" in said for _, _, said in found), "the one that prints a table does not show it"
