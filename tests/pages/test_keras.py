"""docs/keras.md: its blocks run in order and say what the page shows."""

import pytest

import pages
from of_keras import needed


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")  # within Keras
def test_every_block_says_what_the_page_shows(tmp_path, monkeypatch):
    needed()
    monkeypatch.chdir(tmp_path)
    assert not pages.differing("docs/keras.md")
