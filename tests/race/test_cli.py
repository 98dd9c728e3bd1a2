"""The command: its help, its exit codes, one clear line for what is wrong, own problems, and an interrupt."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fallline.cli import COMMANDS, main

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "from fallline.cli import main; main()"]
QUICK = ["--steps", "20", "--repeats", "2", "--jobs", "1"]


def command(capsys, *arguments):
    """Exit code, stdout and stderr of the command run in this process."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


def test_help_fits_80_columns_and_names_every_option(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = command(capsys, "race", "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for option in ("out", "problem", "optimizers", "repeats", "steps", "jobs", "seed", "cluster", "resume"):
        assert f"--{option}" in out


def test_the_version_is_printed(capsys):
    import fallline

    assert command(capsys, "--version") == (0, f"fallline {fallline.__version__}\n", "")


def test_every_command_is_in_the_help_and_a_word_that_is_none_is_told_them(capsys):
    shown = [command(capsys, *arguments) for arguments in ((), ("--help",), ("-h",))]
    assert shown[1:] == shown[:-1]
    code, out, err = shown[0]
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert all(f"\n  {name} " in out for name in COMMANDS)
    for word in ("rcae", "--races", "3"):
        code, out, err = command(capsys, word)
        assert (code, out) == (2, "")
        assert err.startswith(f"fallline: there is no command '{word}'. Commands: race")
        assert err.count("\n") == 1


def test_bad_arguments_get_one_clear_line_and_exit_code_2(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("empty.py").write_text("THING = 3\n")
    Path("own.py").write_text(OWN)
    for arguments, said in (
        (["--problem", "digit"], "problem must be one of digits, rosenbrock"),
        (["--problem", "nowhere.py:x"], "There is no file"),
        (["--problem", "no.such.module:x"], "'no.such.module', which is not importable"),
        (["--problem", "empty.py:x"], "empty.py has no 'x'. Problems and functions of a seed there: none."),
        (["--problem", "own.py:x"], "own.py has no 'x'. Problems and functions of a seed there: mine, ready, wrong."),
        (["--optimizers", "own.py:x"], "own.py has no 'x'. Optimizers and rules there: half."),
        (["--problem", "own.py:pair"], "returns one. pair(seed) raised TypeError ('int' object is not subscriptable)."),
        (["--problem", "own.py:pair"], "One of the parameters goes into it: Problem(start, value_and_grad)."),
        (["--problem", "empty.py:THING"], "problem must be a Problem, a function of the seed or a name. Got 3."),
        (["--optimizers", "Adamm"], "optimizers must be among SGD"),
        (["--optimizers", ","], "at least one"),
        (["--optimizers", "Muon,", "Adam"], "A list has commas and no spaces, or stands in quotes: --optimizers Muon,"),
        (["--optimizers", "Muon", ",Adam"], "A list has commas and no spaces, or stands in quotes"),
        (["--repeats", "0"], "repeats must be at least 1. Got 0."),
        (["--steps", "0"], "steps must be at least 1. Got 0."),
        (["--jobs", "0"], "jobs must not be 0"),
        (["--seed", "-1"], "seed must be at least 0. Got -1."),
        (["--steps", "many"], "Invalid value for '--steps'"),
        (["--stepz", "3"], "--stepz"),
        (["--out", "file"], "--out must be a folder"),
        (["--out", "file/below"], "--out must be a folder that can be written"),
    ):
        code, out, err = command(capsys, "race", *arguments)
        assert (code, out) == (2, ""), arguments
        assert err.startswith("fallline: ")
        assert err.count("\n") == 1
        assert said in err


def test_without_the_extra_the_command_says_what_to_install_and_exits_2(tmp_path):
    for absent in ("typer", "jinja2", "sklearn"):
        hide = (
            "import sys\n"
            "class Hidden:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name == {absent!r}: raise ModuleNotFoundError(name)\n"
            "import importlib.util as u\n"
            "found = u.find_spec\n"
            f"u.find_spec = lambda name, package=None: None if name == {absent!r} else found(name, package)\n"
            "sys.meta_path.insert(0, Hidden())\n"
            "from fallline.cli import main\n"
            "main(['race'])\n"
        )
        ended = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert ended.returncode == 2
        assert 'pip install "fallline[race]"' in ended.stderr
        assert ended.stderr.count("\n") == 1


OWN = """
from dataclasses import dataclass
import numpy as np
import fallline as fl

@dataclass
class Scale:
    by: float

def mine(seed):
    scale = Scale(2.0)
    start = np.random.default_rng(seed).standard_normal(3)
    return fl.race.Problem(start, lambda x: (float(x @ x), scale.by * x), target=1e-3, name="mine")

def pair(x):
    return x[0]**2, 2*x

ready = mine(0)
weights = np.ones(3)

def wrong(seed):
    return fl.race.Problem(np.ones(3), lambda x: (float(x @ x), 3 * x), name="wrong")

@fl.rule
def half(g, *, lr=0.1):
    return -lr * g / 2
"""


def test_an_own_problem_and_an_own_rule_race_from_a_file_in_several_processes(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    arguments = ["--problem", "own.py:mine", "--optimizers", "SGD,own.py:half", *QUICK[:4], "--jobs", "2"]
    code, out, err = command(capsys, "race", *arguments, "--out", "there")
    assert (code, err) == (0, "")
    assert "Report: there/report.html" in out
    assert out.index("Best here") < out.index("rank") < out.index("10–90 %")
    document = json.loads(Path("there/results.json").read_text())
    assert document["problem"]["name"] == "mine"
    assert {entry["name"] for entry in document["optimizers"]} == {"SGD", "half"}


def test_an_own_problem_is_found_by_module_name_from_the_current_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("pack").mkdir()
    Path("pack/__init__.py").write_text("")
    Path("pack/inner.py").write_text(OWN)
    named = ["--problem", "pack.inner:mine", "--optimizers", "SGD,pack.inner:half"]
    code, _, err = command(capsys, "race", *named, *QUICK)
    assert (code, err) == (0, "")
    assert Path("race/report.html").exists()


def test_a_wrong_gradient_is_reported_before_anything_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own2.py").write_text(OWN)
    code, out, err = command(capsys, "race", "--problem", "own2.py:wrong")
    assert (code, out) == (2, "")
    assert "does not match finite differences" in err
    assert err.count("\n") == 1
    assert not Path("race").exists()


SLOW = """
import os
import numpy as np
import fallline as fl

def slow(seed):
    def evaluate(x):
        open(f"ran.{os.getpid()}", "a").write("x")
        return {"train_loss": float(x @ x)}

    return fl.race.Problem(np.ones(3), lambda x: (float(x @ x), 2 * x), evaluate=evaluate, name="slow")
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_an_interrupt_leaves_a_report_of_what_has_finished_and_exits_130(tmp_path):
    (tmp_path / "own.py").write_text(SLOW)
    arguments = ["race", "--problem", "own.py:slow", "--steps", "2000", "--repeats", "1000", "--jobs", "2"]
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    workers: list[int] = []
    try:
        while len(workers) < 2 or min(workers) < 3:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
            workers = [p.stat().st_size for p in tmp_path.glob("ran.*") if p.name != f"ran.{process.pid}"]
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: every process of the group
        out, err = process.communicate(timeout=60)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    assert process.returncode == 130, err
    assert err == ""
    assert out.endswith("Report: race/report.html\nThe same command with --resume goes on.\n")
    document = json.loads((tmp_path / "race/results.json").read_text())
    assert not document["finished"]
    assert any(entry["tuning"] for entry in document["optimizers"])
    assert "The race was interrupted" in (tmp_path / "race/report.html").read_text()


ENDED = """
import sys, types
from fallline import cli
def call(given):
    {does}
sys.modules["late"] = types.SimpleNamespace(call=call)
cli.COMMANDS["late"] = cli.Command("late", "")
cli.main(["late"])
"""


def test_a_command_whose_reader_has_enough_ends_quietly():
    script = ENDED.format(does="[print('x' * 1000) for _ in range(10_000)]")
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"x" * 1000 + b"\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 0
    process.stderr.close()


def test_a_command_that_is_interrupted_says_so_in_a_line():
    found = subprocess.run([sys.executable, "-c", ENDED.format(does="raise KeyboardInterrupt")], capture_output=True,
                           text=True)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "fallline: interrupted\n")
