"""The race's table in a terminal of any width: whole columns leave, and no number is ever cut."""

import re

import numpy as np
import pytest

import fallline as fl
from fallline.race import Problem, run
from fallline.race.report.rows import columns

NUMBER = re.compile(r"[-\d.e∞]*\d[-\d.e]*")


def square(x):
    return float(x @ x), 2 * x


@pytest.fixture(scope="module")
def results():
    """Of ten optimisers; with figures, a target and long names; on what diverges; of one alone."""
    figures = {"test_accuracy": 0.875, "mean_error": 1.23456e-30, "longest": -1.2345e-300}
    rich = Problem(np.ones(3), square, evaluate=lambda x: figures | {"train_loss": float(x @ x)}, target=1e-3)
    long = {
        "a name of many words, as long as a line and longer than most of the terminals there are": fl.SGD,
        "ONEWORDTHATISLONGERTHANTHETERMINALISWIDEANDHASNOPLACETOBECUT": fl.Momentum,
        "[bold] :smile: Adam": fl.Adam, "阿達姆最佳化器，名字很長很長 🙂": fl.Nadam,
    }
    parts = fl.partition({"a": fl.Adam(0.123456), "b": fl.SGD()}, lambda path: "a")
    given = [fl.chain(fl.clip_norm(1.0), fl.AdamW(fl.schedules.cosine(0.1, 20))), parts,
             fl.Adam(beta1=0.81234), fl.Adam(beta1=0.95, beta2=0.99987), "ScheduleFreeAdamW"]  # fmt: skip
    wild = Problem(np.ones(2), lambda x: (float(np.inf if x[0] != 1 else 1), 0 * x + 1), check_step=0, name="wild")
    races = [("bowl", None), (rich, given), (rich, long), (wild, ["SGD", "Adam"]), ("saddle", ["SGD"])]
    return [run(problem, chosen, steps=8, repeats=2, jobs=1, surfaces=()) for problem, chosen in races]


def shown(result, capsys):
    print(result)
    return capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_at_any_width_every_line_fits_and_every_number_is_whole(results, capsys, monkeypatch):
    for result in results:
        whole = set(NUMBER.findall(" ".join(str(row) for row in result.table) + result.answer))
        for width in range(40, 123):
            monkeypatch.setenv("COLUMNS", str(width))
            lines = shown(result, capsys)
            assert max(map(len, lines)) <= width
            table = [line for line in lines if line.startswith(" ")]
            assert set(NUMBER.findall(" ".join(table))) <= whole, width
            assert not re.search(r"\d…", "".join(table))


def test_what_a_width_leaves_out_is_named_and_rank_name_and_loss_never_are(results, capsys, monkeypatch):
    for result in results:
        for width in (40, 60, 80, 100, 120, 250):
            monkeypatch.setenv("COLUMNS", str(width))
            lines = shown(result, capsys)
            heading = next(line for line in lines if line.startswith(" rank"))
            below = " ".join(" ".join(lines).split()).partition("not at this width: ")[2]
            left_out = below.removesuffix(".").split(", ") if below else []
            every = [column.heading for column in columns(result.document)]
            assert [name for name in every if name not in left_out] == re.split(r"\s{3,}", heading.strip())
            assert set(left_out) <= set(every) - {"rank", "optimiser", "loss"}
            assert width < 250 or not left_out


def test_a_name_is_folded_and_stands_whole(results, capsys, monkeypatch):
    for result in results:
        for width in (40, 57, 80):
            monkeypatch.setenv("COLUMNS", str(width))
            lines = shown(result, capsys)
            heading = next(line for line in lines if line.startswith(" rank"))
            at = heading.index("optimiser")
            room = min((m.start() for m in re.finditer(r"   \S", " " * at + heading[at:])), default=width)
            rows = [line[at:] for line in lines[lines.index(heading) + 2 :]]
            whole = "".join(row.split("   ")[0].strip() for row in rows).replace(" ", "")
            for row in result.table:
                assert row["optimiser"].replace(" ", "") in whole, (row["optimiser"], room)


def test_what_is_no_terminal_gets_every_column_unless_columns_says_otherwise(results, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert "not at this width" not in "".join(shown(results[0], capsys))
    monkeypatch.setenv("COLUMNS", "60")
    assert "not at this width" in "".join(shown(results[0], capsys))
