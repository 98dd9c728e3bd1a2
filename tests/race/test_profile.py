"""Performance profiles over several problems: how often each optimiser is within a factor of the fastest."""

import numpy as np
import pytest

import fallline as fl
from fallline.cli import main
from fallline.race import Problem, Result, profile, run


def race(name, steps, target=1.0):
    """As much of a race's document as a profile reads: the steps to the target by optimiser and seed."""
    runs = len(next(iter(steps.values())) or [None])
    return Result({
        "problem": {"name": name, "target": target},
        "settings": {"optimizers": list(steps), "fresh_seeds": list(range(runs))},
        "optimizers": [{"name": key, "final": {"steps_to_target": own} if own else None} for key, own in steps.items()],
    })  # fmt: skip


def test_ratios_are_those_of_dolan_and_more():
    found = profile([
        race("first", {"A": [10, 20], "B": [20, None], "C": None}),
        race("second", {"A": [40, None], "B": [10, None], "C": None}),
        race("third", {"A": [0, 5], "B": [2, 5], "C": None}),
    ])  # fmt: skip
    assert list(found.ratios) == ["A", "B", "C"]
    np.testing.assert_array_equal(found.ratios["A"], [1, 1, 1, 1, 4])
    np.testing.assert_array_equal(found.ratios["B"], [1, 1, 2, 2, np.inf])
    assert (found.unsolved, found.problems) == (1, ("first", "second", "third"))
    shares = [[found.share(name, factor) for factor in (1, 2, 4, 1e300)] for name in "ABC"]
    assert shares == [[0.8, 0.8, 1.0, 1.0], [0.4, 0.8, 0.8, 0.8], [0, 0, 0, 0]]


def test_it_is_printed_within_40_columns_and_plotted(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    found = profile([race("first", {"A": [10, None], "B": [20, None]}), race("second", {"A": [None], "B": [3]})])
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[0].split() == ["optimiser", "fastest", "≤", "2×", "≤", "4×", "solved"]
    assert [line.split() for line in lines[1:3]] == [
        ["B", "50", "%", "100", "%", "100", "%", "100", "%"], ["A", "50", "%", "50", "%", "50", "%", "50", "%"],
    ]  # fmt: skip
    assert "1 more nobody solved." in " ".join(lines)
    figure = found.plot()
    assert {line.name: (line.y[0], line.y[-1]) for line in figure.data} == {"A": (0.5, 0.5), "B": (0.5, 1.0)}


def test_where_nobody_solves_anything_it_says_so():
    found = profile([race("hard", {"A": [None], "B": [None]})])
    assert "Of 0 runs on hard" in " ".join(str(found).split())
    assert found.share("A", 2.0) == 0.0


def test_what_cannot_be_profiled_is_refused():
    for results, message in (
        ([], "results of profile must hold at least one race. Got none."),
        ([race("free", {"A": [1]}, target=None)], r"free has none: Problem\(..., target=...\)"),
        ([race("one", {"A": [1]}), race("two", {"B": [1]})], "must have the same optimizers, A. two has B."),
    ):
        with pytest.raises(ValueError, match=message):
            profile(results)


def test_races_are_profiled_by_their_steps_to_the_target():
    bowls = [Problem(np.ones(2), lambda x, k=k: (float(k * x @ x), 2 * k * x), target=1e-3) for k in (1, 9)]
    results = [run(bowl, ["SGD", fl.AdaGrad], steps=54, jobs=1, surfaces=()) for bowl in bowls]
    found = profile(results)
    first = [{e["name"]: e["final"]["steps_to_target"][0] for e in r.document["optimizers"]} for r in results]
    expected = {name: sorted((each[name] or np.inf) / min(s or np.inf for s in each.values()) for each in first)
                for name in ("SGD", "AdaGrad")}  # fmt: skip
    assert {name: list(ratios) for name, ratios in found.ratios.items()} == expected


@pytest.mark.slow
def test_the_command_races_several_problems_and_prints_their_profile(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--optimizers", "SGD,Adam", "--steps", "20", "--repeats", "2", "--jobs", "1"]
    (tmp_path / "free.py").write_text("import fallline as fl\nfree = fl.race.Problem(1.0, lambda x: (x * x, 2 * x))\n")
    with pytest.raises(SystemExit) as ended:
        main(["race", "--problem", "bowl, beale", *small])
    out = capsys.readouterr().out
    assert (ended.value.code, out.count("Best here")) == (0, 2)
    assert "runs on bowl and beale" in " ".join(out.split())
    assert {path.parent.name for path in tmp_path.glob("race/*/report.html")} == {"bowl", "beale"}
    with pytest.raises(SystemExit) as ended:
        main(["race", "--problem", "bowl,free.py:free", *small])
    assert (ended.value.code, capsys.readouterr().err.count("\n")) == (2, 1)
