"""A race that was ended goes on from its file of finished runs, to the same bytes; a file of another is refused."""

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fallline as fl
from fallline.race.protocol import kept
from fallline.race.protocol.settings import PROTOCOL
from races import command, same_bytes

pytestmark = pytest.mark.slow

SLOW = """
import time
import numpy as np
import fallline as fl

def value_and_grad(x):
    time.sleep(0.001)
    return float(x @ x), 2 * x

def slow(seed):
    return fl.race.Problem(np.random.default_rng(seed).standard_normal(3), value_and_grad, target=1e-3, name="slow")
"""


def race(path=None, problem="bowl", **changed):
    given = {"optimizers": ["SGD", "Adam"], "steps": 20, "repeats": 2, "jobs": 1, "surfaces": ("bowl",)}
    return fl.race.run(problem, **given | changed, resume=path)


def test_a_file_cut_at_any_byte_gives_the_same_bytes_and_is_whole_again(tmp_path):
    file = tmp_path / "some.jsonl"
    whole = same_bytes(race())
    assert same_bytes(race(file)) == whole
    written = file.read_bytes()
    lines = sorted(written.splitlines())
    heading = written.index(b"\n") + 1
    last = written.rindex(b"\n", 0, -1) + 1
    for cut in (heading, last, len(written) - 1, *random.Random(0).sample(range(heading, len(written)), 6)):
        file.write_bytes(written[:cut])
        assert same_bytes(race(file)) == whole, cut
        assert sorted(file.read_bytes().splitlines()) == lines, cut


def test_what_has_been_run_is_not_run_again(tmp_path):
    seeds = []

    def problem(seed):
        seeds.append(seed)
        return fl.race.Problem(np.array([3.0, seed % 7]), lambda x: (float(x @ x), 2 * x), name="counted")

    race(tmp_path, problem)
    runs = (tmp_path / kept.FILE).read_bytes().count(b'"kind": "Outcome"')
    prepared = len(seeds) - runs
    assert runs > 50
    race(tmp_path, problem)
    assert len(seeds) - runs - prepared <= prepared < 10


def test_diverged_runs_are_kept_too(tmp_path):
    steep = fl.race.Problem(np.array([3.0, 1.0]), lambda x: (1e4 * float(x @ x), 2e4 * x))
    results = [same_bytes(race(tmp_path, steep, steps=200, surfaces=())) for _ in range(2)]
    assert "null" in results[0]
    assert results[0] == results[1] == same_bytes(race(None, steep, steps=200, surfaces=()))


def test_a_command_that_was_killed_goes_on_to_the_same_bytes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(SLOW)
    given = ["--problem", "own.py:slow", "--optimizers", "SGD", "--steps", "20", "--repeats", "2", "--jobs", "1"]
    file = tmp_path / "cut" / kept.FILE
    script = "from fallline.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", script, "race", *given, "--out", "cut"])
    try:
        deadline = time.monotonic() + 60
        while not file.exists() or file.read_bytes().count(b"\n") < 10:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        assert process.wait() == -signal.SIGKILL
    before = file.read_bytes().splitlines()
    assert not (tmp_path / "cut" / "results.json").exists()
    assert command(*given, "--out", "cut", "--resume") == 0
    after = file.read_bytes().splitlines()
    assert after[:10] == before[:10]
    assert len(set(after)) == len(after)
    assert command(*given, "--out", "whole") == 0
    assert same_bytes(fl.race.load("cut")) == same_bytes(fl.race.load("whole"))
    assert sorted(after) == sorted((tmp_path / "whole" / kept.FILE).read_bytes().splitlines())


def test_a_file_of_another_race_is_refused_and_stays(tmp_path, monkeypatch, capsys):
    race(tmp_path)
    before = (tmp_path / kept.FILE).read_bytes()
    for changed, said in (
        ({"problem": "saddle"}, 'its problem name is "bowl", here "saddle"'),
        ({"steps": 21}, "its settings steps is 20, here 21"),
        ({"seed": 1}, "its settings seed is 0, here 1"),
        ({"optimizers": ["SGD", fl.Adam(beta1=0.5)]}, "its optimizers Adam"),
        ({"optimizers": ["Adam", "SGD", "Lion"]}, "its settings optimizers is"),
    ):
        with pytest.raises(ValueError, match=r"^resume must be the runs.jsonl of this race\. .*, here ") as refused:
            race(tmp_path, **changed)
        assert said in str(refused.value)
    for name, said in (("fallline.__version__", "its fallline is "), ("numpy.__version__", "its numpy is "),
                       ("fallline.race.findings.document.PROTOCOL", f"its protocol_version is {PROTOCOL}, here")):
        with monkeypatch.context() as patched:
            patched.setattr(name, "99")
            with pytest.raises(ValueError, match=said):
                race(tmp_path)
    assert command("--problem", "saddle", "--out", str(tmp_path), "--resume") == 2
    assert capsys.readouterr().err.startswith("fallline: resume must be the runs.jsonl of this race.")
    assert (tmp_path / kept.FILE).read_bytes() == before


def test_a_file_of_something_else_is_refused_and_stays(tmp_path):
    file = tmp_path / "notes.jsonl"
    for content in (b"", b"my notes\n", b"[1, 2]\n", b'{"schema": "fallline.race/1"}\n', b"\xff\x00"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="is something else"):
            race(file)
        assert file.read_bytes() == content
