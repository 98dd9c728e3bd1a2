"""docs/moving.md: its runs move between the libraries themselves, and say what the page shows."""

import os

import pytest

import pages
from needed import need

os.environ.setdefault("KERAS_BACKEND", "torch")  # before Keras is imported


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")  # within Keras
def test_every_block_says_what_the_page_shows():
    for peer in ("torch", "jax", "optax", "keras"):
        need(peer)
    assert not pages.differing("docs/moving.md")
