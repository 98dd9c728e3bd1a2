"""Who does what CONTRIBUTING.md says of a new rule, and no more, gets there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from needed import need
from places import ROOT

SECTION = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Adding a rule")[1].split("\n## ")[0]
ENTRY = r"`([\w/]+\.\w+)`,[^`]*in\s+front\s+of\s+`([^`]+)`[^`]*:\n\n```[^\n]*\n(.*?)```"  # file, what is there, block
ENTRIES = re.findall(ENTRY, SECTION, re.DOTALL)
BETWEEN = {"py": "\n\n", "toml": "\n", "md": ""}
PLACES = 2  # that make a rule: the formula, the name


@pytest.fixture
def copied(tmp_path):
    """A copy of the repository in which nobody has worked."""
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "tests", "handbook", "reliability", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=left_out)
    for file in (*ROOT.glob("*.md"), ROOT / "pyproject.toml"):
        shutil.copy(file, tmp_path)
    return tmp_path


def enter(folder, entries):
    for name, before, block in entries:
        file = folder / name
        there, found, rest = file.read_text(encoding="utf-8").partition(before)
        assert found, f"{name} has no {before}"
        file.write_text(there + block + BETWEEN[name.rpartition(".")[2]] + found + rest, encoding="utf-8")


def ran(folder, command):
    """How a command of the page ends in that folder, and what it says; tests run in one process."""
    arguments = shlex.split(command)
    if arguments[0] == "pytest":
        arguments = ["python", "-m", *arguments, "-n", "0", "-q", "-p", "no:cacheprovider"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("FALLLINE_", "PYTEST_"))}
    found = subprocess.run([sys.executable, *arguments[1:]], cwd=folder, text=True, capture_output=True,
                           env=env | {"PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}"})  # fmt: skip
    return found.returncode, found.stdout + found.stderr


ASKS, DRAWS, WALKS, RUNS = re.findall(r"`((?:pytest|python) .*?)`", SECTION)


@pytest.mark.slow
def test_with_the_two_places_alone_one_test_says_in_sentences_all_that_is_missing(copied):
    enter(copied, ENTRIES[:PLACES])
    code, said = ran(copied, ASKS)
    lines = dict.fromkeys(said.splitlines())  # pytest says more of them where the environment has CI
    assert [line for line in lines if line.startswith("SignSGD ")] == [
        "SignSGD has no independent transcription: write one into tests/reference/reference_further.py.",
        'SignSGD is not in README.md: write its name into the list below "Beyond the ten".',
        "SignSGD has no notes on use and avoid. Write [SignSGD] with use and avoid into handbook/notes.toml.",
        "SignSGD has no page: python -m handbook SignSGD",
        "SignSGD has no digests: python -m reliability digests",
    ]
    assert (code, "1 failed" in said) == (1, True)


@pytest.mark.slow
def test_with_every_entry_of_the_page_the_tests_of_the_rule_pass(copied):
    need("contourpy")
    enter(copied, ENTRIES)
    for command in (DRAWS, WALKS, ASKS, RUNS):
        code, said = ran(copied, command)
        assert code == 0, said
    assert int(re.search(r"(\d+) passed", said)[1]) > 300
