"""Any number of ranks make the files of one process, byte for byte, whether leaves are divided or batches."""

import json

import pytest

from ranks import started

CASES = {1: "chains", 2: "chains", 3: "all", 4: "chains", 7: "chains"}  # the rules by themselves once


@pytest.mark.parametrize("n", CASES)
def test_ranks_with_leaves_cut_anywhere_or_batches_shared_out_write_the_files_of_one_process(n, tmp_path):
    started(n, "data_of_ranks.py", tmp_path, CASES[n])
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["domains"]) > (50 if CASES[n] == "all" else 18)
    assert {name for name, (alone, together) in found["domains"].items() if alone != together} == set()
    assert found["batches"] == []
    assert found["ratio"] < (1.05 if n in (1, 2, 4) else 1.5)
