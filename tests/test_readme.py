"""The Python in README and CONTRIBUTING runs, and the README's table says what the rules say."""

import re
from pathlib import Path

import pytest

import fallline as fl
from conftest import need

ROOT = Path(__file__).parent.parent
BLOCKS = [
    pytest.param(code, id=f"{page}-{n}")
    for page in ("README.md", "CONTRIBUTING.md")
    for n, code in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL), 1)
]


@pytest.mark.parametrize("code", BLOCKS)
def test_the_examples_run(code, tmp_path, monkeypatch, capsys):
    for peer in ("torch", "jax"):
        if f"import {peer}" in code:
            need(peer)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "<example>", "exec"), {"__name__": "example"})
    assert len(BLOCKS) >= 8


def test_the_tables_have_the_names_and_defaults_of_the_rules():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    said = {name: {k: float(v) for k, v in (item.split() for item in defaults.split(", "))} for name, defaults in rows}
    assert said == {name: dict(cls().hyper) for name, cls in fl.OPTIMIZERS.items()}
    assert list(said) == list(fl.OPTIMIZERS)
