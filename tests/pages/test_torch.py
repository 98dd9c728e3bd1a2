"""docs/torch.md: its blocks run in order and say what the page shows."""

import pytest

import pages
from needed import need


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")  # within torch's SequentialLR
def test_every_block_says_what_the_page_shows(tmp_path, monkeypatch):
    need("torch")
    monkeypatch.chdir(tmp_path)
    assert not pages.differing("docs/torch.md")
