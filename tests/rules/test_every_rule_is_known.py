"""Whoever adds a rule is told in sentences what is still missing, and where it goes; see CONTRIBUTING.md."""

from __future__ import annotations

import re

import pytest
from handbook.notes import notes
from handbook.page import source

import fallline as fl
from fallline._digests.command import table
from fallline._digests.walk import WALKS
from places import ROOT
from support import LACKING, NAMES, RULES


def error_of(call, *arguments):
    """In a list, what it says if it is refused."""
    try:
        call(*arguments)
    except ValueError as error:
        return [str(error)]
    return []


def missing():
    for rule in map(vars(fl.rules).get, fl.rules.__all__):
        if isinstance(rule, type(fl.rules.sgd)) and rule.kind == "rule" and rule not in RULES.values():
            yield f"{rule.name} has no class: write one into src/fallline/_optimizer/named.py, above OPTIMIZERS."
    names = set(re.findall(r"\w+", (ROOT / "README.md").read_text(encoding="utf-8").split("## Beyond the ten")[1]))
    for name in NAMES:
        yield from error_of(source, RULES[name])
        if name in LACKING["a transcription"]:
            yield f"{name} has no independent transcription: write one into tests/reference/reference_further.py."
        if name not in names:
            yield f"{name} is not in README.md: write its name into the list below \"Beyond the ten\"."
        yield from error_of(notes, name)
        if name in LACKING["a page"]:
            yield f"{name} has no page: python -m handbook {name}"
        if name in WALKS and name not in table():
            yield f"{name} has no digests: python -m reliability digests"


def test_nothing_is_missing_of_any_rule():
    if found := list(missing()):
        pytest.fail("\n".join(found), pytrace=False)
