"""docs/reliability.md names tests that there are."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"


def test_every_test_that_the_page_names_is_there():
    named = set(re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", PAGE.read_text()))
    assert len(named) > 40
    for file, test in named:
        assert (TESTS / file).exists(), file
        assert not test or f"def {test}(" in (TESTS / file).read_text(), f"{file}::{test}"
