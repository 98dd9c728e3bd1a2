"""python -m benchmarks --beside: this checkout and another one in turns."""

import os
import re
import subprocess
import sys

import pytest

from places import ROOT

pytestmark = pytest.mark.slow

ROW = r"(.*?) +([\d,.]+) +([\d,.]+)  (\d+\.\d\d) \[(\d+\.\d\d), (\d+\.\d\d)\]"


def compare(*arguments):
    """The process that has compared cases of 1 x 100, in little time."""
    command = [sys.executable, "-m", "benchmarks", "--seconds", "0.01", "--largest", "100", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)


def checkout(folder, package):
    """One whose package is this text."""
    (folder / "src" / "fallline").mkdir(parents=True)
    (folder / "src" / "fallline" / "__init__.py").write_text(package)
    return folder


def test_a_checkout_beside_itself_has_a_line_for_each_case(tmp_path):
    ended = compare("--beside", ".", "--cases", "1 x 100*=", "--out", tmp_path / "beside.md")
    assert ended.returncode == 0, ended.stderr
    _, _, header, *rows, _ = ended.stdout.splitlines()
    assert " ".join(header.split()) == "case here, us beside, us ratio [10-90 %]"
    [(name, here, beside, *ratio)] = [re.fullmatch(ROW, row).groups() for row in rows]
    assert name == "1 x 100, update out="
    assert float(ratio[1]) <= float(ratio[0]) <= float(ratio[2])
    written = (tmp_path / "beside.md").read_text()
    assert f"| {name} | {here} | {beside} | {ratio[0]} [{ratio[1]}, {ratio[2]}] |" in written


def test_what_a_checkout_cannot_run_is_said_and_the_rest_runs(tmp_path):
    older = checkout(tmp_path, "print('imported')\n"
                               "class Adam:\n"
                               "    def __init__(self, lr): pass\n"
                               "    def update(self, g, *, out): pass\n"
                               "class Optimizer: pass\n")  # fmt: skip
    ended = compare("--beside", older, "--cases", "1 x 100*[=e]")
    assert ended.returncode == 0, ended.stderr
    said = " ".join(ended.stdout.split())
    assert "1 x 100, update: beside cannot run it: TypeError: Adam.update() missing" in said
    assert "1 x 100, cosine: beside cannot run it: AttributeError: module 'fallline' has no" in said
    assert re.fullmatch(ROW, next(row for row in ended.stdout.splitlines() if "out=" in row))


@pytest.mark.parametrize(
    ("package", "said"),
    [
        (None, r"--beside must be the root of a checkout, which has src/fallline\. Got '.*'\."),
        ("import nowhere", r"beside cannot run it: ModuleNotFoundError: No module named 'nowhere'"),
        ("__file__ = '/else/fallline.py'", r"beside must import fallline from .*/src\. Got /else/fallline\.py\."),
    ],
)
def test_what_is_no_checkout_is_refused_in_a_sentence(tmp_path, package, said):
    ended = compare("--beside", tmp_path if package is None else checkout(tmp_path, package))
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert re.fullmatch(f".*error: {said}", ended.stderr.splitlines()[-1])


def test_a_name_that_no_case_has_is_refused():
    for arguments, said in ((["--beside", ".", "--cases", "1 x 1e4"], "Got '1 x 1e4'."),
                            (["--cases", "*"], "--beside compares, which must be given too.")):  # fmt: skip
        ended = compare(*arguments)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.endswith(f"{said}\n")
