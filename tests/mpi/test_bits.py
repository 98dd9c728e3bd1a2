"""Any number of ranks make the files of one process, byte for byte: norms, state and parameters, resumed on other
parts of the leaves."""

import json

import pytest

from ranks import started

CASES = {1: "chains", 2: "chains", 3: "all", 4: "chains", 7: "chains"}  # the rules by themselves once


@pytest.mark.parametrize("n", CASES)
def test_ranks_with_leaves_cut_anywhere_write_the_files_of_one_process(n, tmp_path):
    started(n, "of_ranks.py", tmp_path, CASES[n])
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) > (40 if CASES[n] == "all" else 18)
    assert {name for name, (alone, together) in found.items() if alone != together} == set()
