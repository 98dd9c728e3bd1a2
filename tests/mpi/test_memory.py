"""No rank ever has the state of all."""

import json

from ranks import started

PIECES = 30  # MB: a piece of 4 MiB that is put together, those on their way, and what they are made of


def test_to_save_and_to_load_takes_a_ranks_own_part_and_a_few_pieces(tmp_path):
    started(3, "memory_of_ranks.py", tmp_path)
    for found in json.loads((tmp_path / "found.json").read_text()):
        assert found["save"] < PIECES
        assert found["load"] < found["own"] + PIECES
