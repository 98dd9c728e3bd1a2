"""Any number of ranks make the files of one process, byte for byte: norms, state and parameters, resumed on other
parts of the leaves."""

import json

import pytest

from ranks import started

NUMBERS = (1, 2, 3, 4, 7)


@pytest.mark.parametrize("n", NUMBERS)
def test_ranks_with_leaves_cut_anywhere_write_the_files_of_one_process(n, tmp_path):
    started(n, "of_ranks.py", tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) > 40
    assert {name for name, (alone, together) in found.items() if alone != together} == set()
