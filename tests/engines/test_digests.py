"""`fallline digests`: every rule comes to the bits of the table, and what differs is named, with its first step."""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl
from fallline._digests import command, walk
from fallline.cli import main
from needed import need
from support import WHOLE_LEAF, run_alone

KNOWN = command.table()


def said(capsys, *arguments):
    """Exit code and output of the command."""
    with pytest.raises(SystemExit) as ended:
        main(["digests", *arguments])
    return ended.value.code, capsys.readouterr().out.splitlines()


@pytest.fixture
def few(monkeypatch):
    need("llvmlite")
    monkeypatch.setattr(walk, "WALKS", {name: walk.WALKS[name] for name in ("SGD", "LARS")})
    monkeypatch.setattr(command, "WALKS", walk.WALKS)


def altered(digest, step):
    groups = digest.split("-")
    return "-".join([*groups[: step - 1], *(f"{int(group, 16) ^ 1:04x}" for group in groups[step - 1 :])])


@pytest.mark.parametrize("name", walk.WALKS)
def test_every_rule_comes_to_the_bits_of_the_table_on_both_engines(name):
    came = [(line.dtype, line.digest) for line in command.digests([name])]
    assert dict(came) == KNOWN[name]
    assert len(came) == len(KNOWN[name]) == 4


def test_the_table_has_every_rule_but_functions_of_whole_leaves_and_no_others():
    assert list(KNOWN) == list(walk.WALKS)
    assert [name for name in fl.OPTIMIZERS if name not in KNOWN] == WHOLE_LEAF


def test_the_command_prints_a_line_for_each_rule_and_dtype_and_ends_well_if_all_agree(capsys, few):
    code, lines = said(capsys)
    assert code == 0
    assert lines[0].startswith(f"fallline {fl.__version__}, NumPy {np.__version__}, Python ")
    assert lines[-1] == "All 8 are those of the table."
    assert lines[3] == f"SGD                float32   {KNOWN['SGD']['float32']}  reference, native"
    assert max(map(len, lines)) <= 80


def test_what_differs_is_named_with_its_dtype_engine_and_first_step(capsys, few, monkeypatch):
    def elsewhere(name, dtype, engine):
        digest = walk.walked(name, dtype, engine)
        return altered(digest, 3) if (name, dtype, engine) == ("LARS", "float16", "native") else digest

    monkeypatch.setattr(command, "walked", elsewhere)
    other = altered(KNOWN["SGD"]["float64"], 6)
    shorter = {dtype: digest for dtype, digest in KNOWN["LARS"].items() if dtype != "float32"}
    monkeypatch.setattr(command, "table", lambda: {"SGD": KNOWN["SGD"] | {"float64": other}, "LARS": shorter})
    code, lines = said(capsys)
    assert code == 1
    assert lines[-4:] == [
        "3 of 9 differ from the table:",
        f"  SGD, float64, reference, native: from step 6 on; the table has {other}",
        f"  LARS, float16, native: from step 3 on; the table has {KNOWN['LARS']['float16']}",
        "  LARS, float32, reference, native: the table has none",
    ]
    assert sum(line.endswith("  DIFFERS") for line in lines) == 3


@pytest.mark.parametrize("engine", walk.ENGINES)
def test_a_last_bit_of_one_step_shows_from_that_step_on(engine, monkeypatch):
    rules = {
        "as it is": fl.rule(lambda g, t, *, lr=0.1: -lr*g),
        "off by a bit": fl.rule(lambda g, t, *, lr=0.1: fl.where(t == 4, -lr*(1 + 2.0**-52)*g, -lr*g)),
    }
    monkeypatch.setattr(walk, "WALKS", {k: lambda r=r, **o: fl.Optimizer(r, **o) for k, r in rules.items()})
    a, b = (walk.walked(name, "float64", engine).split("-") for name in rules)
    assert [x == y for x, y in zip(a, b)] == [True, True, True, False, False, False]


def test_without_llvmlite_the_reference_engine_is_compared_alone():
    script = """
import sys
sys.modules["llvmlite"] = None
from fallline.cli import main
from fallline._digests import command, walk
command.WALKS = {"SGD": walk.WALKS["SGD"]}
try:
    main(["digests"])
except SystemExit as ended:
    print(ended.code)
"""
    lines = run_alone(script).splitlines()
    assert lines[1].endswith("  reference")
    assert lines[-3].startswith("The native engine was not run: llvmlite is missing (")
    assert lines[-2:] == ["All 4 are those of the table.", "0"]
