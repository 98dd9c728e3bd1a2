"""docs/reliability.md names tests and files that there are."""

import re

from places import DOCS, ROOT, TESTS

PAGE = DOCS / "reliability.md"


def test_every_test_that_the_page_names_is_there():
    text = PAGE.read_text()
    named = set(re.findall(r"`([\w/]*test_\w+\.py)(?:::(test_\w+))?`", text))
    assert len(named) > 40
    for file, test in named:
        assert (TESTS / file).exists(), file
        assert not test or f"def {test}(" in (TESTS / file).read_text(), f"{file}::{test}"
    for file in re.findall(r"\btests/[\w/]+\.py", text):  # of commands
        assert (ROOT / file).exists(), file
