"""docs/design.md: its example runs, and a run of it that is killed on its way ends with the same bytes."""

import re
import subprocess
import sys
import time

import pytest

from places import DOCS, ROOT

SCRIPT = ROOT / "examples/lens.py"
PAGE = (DOCS / "design.md").read_text()


def start(folder):
    return subprocess.Popen([sys.executable, SCRIPT, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed_at(row, folder):
    """A run that is killed when its history has so many rows."""
    with start(folder) as process:
        history, due = folder / "history.csv", time.monotonic() + 120
        while not history.exists() or history.read_text().count("\n") <= row:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < due
            time.sleep(0.02)
        process.kill()


def through(folder):
    printed, complaints = start(folder).communicate(timeout=240)
    assert not complaints
    return printed


def left_by(folder):
    """What a run leaves, but for its checkpoint, whose arrays have taken another way into it."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.suffix != ".safetensors"}


@pytest.mark.slow
def test_a_run_that_is_killed_twice_ends_with_the_bytes_of_one_that_is_not(tmp_path):
    killed_at(24, tmp_path / "killed")
    killed_at(57, tmp_path / "killed")
    assert through(tmp_path / "killed") == through(tmp_path / "whole")
    whole = left_by(tmp_path / "whole")
    assert [*whole] == ["history.csv", *(f"plate-{t:03}.npy" for t in range(0, 100, 10)), "plate.npy"]
    assert left_by(tmp_path / "killed") == whole
    assert whole["history.csv"].count(b"\n") == 101
    last = through(tmp_path / "whole").splitlines()[-1]  # a run that is through is told again
    assert f"```text\n{last}\n```" in PAGE


def test_the_run_that_the_page_shows_is_that_of_the_script():
    (shown,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert shown.strip() in SCRIPT.read_text()
