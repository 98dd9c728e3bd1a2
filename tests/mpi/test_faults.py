"""Whatever goes wrong on one rank of a job: all refuse or skip alike, or all end; no file is lost."""

import os
import random
import signal
import time

import pytest
from reliability.ranks import endure, expected, result

from ranks import begun, ended, need_ranks, pids, started


def test_what_one_rank_refuses_all_refuse_with_its_words_and_go_on(tmp_path):
    folder, out = tmp_path / "files", tmp_path / "wrong"
    folder.mkdir()
    started(3, "faults_of_ranks.py", folder, out)
    assert out.read_text() == ""


def test_an_exception_on_one_rank_ends_all_within_ten_seconds(tmp_path):
    need_ranks()
    script = tmp_path / "script.py"
    script.write_text("import fallline as fl, numpy as np\n"
                      "from mpi4py import MPI\n"
                      "opt, w = fl.mpi.domain_parallel(fl.Adam()), np.ones(5)\n"
                      "opt.step(w, w.copy())\n"
                      f"open({str(tmp_path)!r} + f'/pid.{{MPI.COMM_WORLD.rank}}', 'w').write('0')\n"
                      "if MPI.COMM_WORLD.rank == 1:\n"
                      "    raise KeyError('of the caller')\n"
                      "opt.step(w, w.copy())\n")
    job = begun(3, script)
    pids(tmp_path, 3, job)
    start = time.monotonic()
    status, said = ended(job, within=60)
    assert status != 0
    assert "KeyError: 'of the caller'" in said
    assert time.monotonic() - start < 10


def test_sigterm_to_one_rank_saves_all_at_one_step_and_another_number_of_ranks_goes_on_to_the_bit(tmp_path):
    need_ranks()
    job = begun(3, "-m", "reliability.ranks", tmp_path, 0.05)
    ranks = pids(tmp_path, 3, job)
    time.sleep(0.5)
    os.kill(random.Random(0).choice(ranks), signal.SIGTERM)
    status, said = ended(job)
    assert status != 0
    assert "the run is saved in" in said
    assert os.listdir(tmp_path) == ["run.safetensors"]
    started_again = begun(2, "-m", "reliability.ranks", tmp_path, 0)
    assert ended(started_again)[0] == 0
    assert result(tmp_path) == expected()


@pytest.mark.slow
def test_ranks_that_are_killed_lose_nothing():
    need_ranks()
    assert endure(2) > 0
