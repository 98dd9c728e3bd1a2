"""docs/ranks.md: its worked example prints on any number of ranks what the page shows."""

import re

import pytest

from places import DOCS
from ranks import begun, ended, need_ranks

PAGE = (DOCS / "ranks.md").read_text(encoding="utf-8")
EXAMPLE, SHOWN = re.search(r"```python\n(.*?)```.*?```text\n(.*?)```", PAGE, re.DOTALL).groups()


@pytest.mark.parametrize("n", [1, 3])
def test_the_example_says_on_any_number_of_ranks_what_the_page_shows(n, tmp_path, monkeypatch):
    need_ranks()
    (tmp_path / "script.py").write_text(EXAMPLE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert ended(begun(n, "script.py")) == (0, SHOWN)
