"""Whole races with small budgets: the same bits for any number of processes, and a document that holds what it says."""

import json

import numpy as np
import pytest

import fallline as fl
from fallline.race import run

SMALL = {"steps": 30, "repeats": 6, "surfaces": ()}


def without_measured(result):
    return json.dumps({key: value for key, value in result.document.items() if key != "measured"})


def test_results_are_the_same_bytes_for_any_number_of_processes():
    arguments = {"steps": 12, "repeats": 2, "surfaces": ("saddle",), "seed": 5}
    alone = run("digits", ["SGD", "Nadam"], jobs=1, **arguments)
    spread = run("digits", ["SGD", "Nadam"], jobs=2, **arguments)
    assert without_measured(alone) == without_measured(spread)
    other = run("digits", ["SGD", "Nadam"], jobs=1, **arguments | {"seed": 6})
    assert without_measured(other) != without_measured(alone)


@pytest.fixture(scope="module")
def bowl():
    return run("bowl", ["SGD", "Adam", "AdaDelta"], jobs=1, steps=40, repeats=10, surfaces=("bowl",))


def test_the_document_holds_everything_and_survives_json(bowl):
    document = json.loads(bowl.json())
    assert document["schema"] == "fallline.race/1"
    assert document["finished"]
    assert len(document["claims"]) == 5
    assert set(document["measured"]["microseconds_per_step"]) == {"SGD", "Adam", "AdaDelta"}
    for entry in document["optimizers"]:
        assert len(entry["final"]["losses"]) == len(entry["untuned"]["losses"]) == 10
        assert len(entry["final"]["curves"][0]) == len(document["settings"]["marks"])
        tuned = min((trial["median"], trial["rate"]) for trial in entry["tuning"] if trial["median"] is not None)
        assert entry["rate"] == tuned[1]
        assert entry["final"]["median"] == np.median(entry["final"]["losses"])
        for losses, curve in zip(entry["final"]["losses"], entry["final"]["curves"]):
            assert curve[-1] == losses
    medians = [entry["final"]["median"] for entry in document["optimizers"]]
    assert medians == sorted(medians)


def test_a_tuned_run_can_be_repeated_by_hand(bowl):
    from fallline.race.load import problem_at

    entry = next(e for e in bowl.document["optimizers"] if e["name"] == "Adam")
    problem = problem_at("bowl", bowl.document["settings"]["fresh_seeds"][4])
    end = fl.descend(problem.value_and_grad, problem.params, fl.Adam(entry["value"]), steps=40, progress=False)
    assert problem.loss(end.params) == entry["final"]["losses"][4]


def test_diverged_runs_count_as_infinite_losses_and_are_reported():
    def cliff(seed):
        def value_and_grad(x, step):
            return float("inf") if step > 4 and seed % 3 == 0 else float(x @ x), 2 * x

        evaluate = lambda x: {"train_loss": float(x @ x)}  # noqa: E731
        return fl.race.Problem(np.ones(2), value_and_grad, lambda step: step, evaluate, name="cliff")

    result = run(cliff, ["SGD"], jobs=1, steps=10, repeats=10, surfaces=())
    final, fresh = result.document["optimizers"][0]["final"], result.document["settings"]["fresh_seeds"]
    expected = [seed % 3 == 0 for seed in fresh]
    assert [loss is None for loss in final["losses"]] == expected
    assert final["diverged"] == sum(expected) > 1
    assert final["p90"] is None
    assert result.table[0]["diverged"] == f"{sum(expected)} of 10"


def test_an_optimiser_that_diverges_at_every_rate_is_reported_last_without_a_rate():
    @fl.rule
    def explode(g, x, *, lr=0.1):
        return 1e200 * x + lr * g

    result = run("bowl", [explode, "SGD"], jobs=1, **SMALL)
    assert [row["optimiser"] for row in result.table] == ["SGD", "explode"]
    assert result.document["optimizers"][-1]["rate"] is None
    assert result.answer.startswith("Best here: SGD")
    json.loads(result.json())


def test_a_problem_without_any_seed_runs_once_and_ranks_exactly():
    problem = fl.race.Problem(np.array([3.0, 1.0]), lambda x: (float(x @ x), 2 * x), target=1e-3)
    result = run(problem, ["SGD", "Momentum"], jobs=1, **SMALL)
    assert not result.document["problem"]["depends_on_seed"]
    assert result.document["settings"]["repeats"] == 1
    assert [entry["rank"] for entry in result.document["optimizers"]] == [[1], [2]]


def test_a_race_on_trees_in_batches_takes_rules_classes_instances_and_names():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 3)), rng.standard_normal(60)

    def value_and_grad(p, rows):
        r = x[rows] @ p["w"] + p["b"] - y[rows]
        return float(r @ r) / len(r), {"w": 2 * x[rows].T @ r / len(r), "b": 2 * r.mean()}

    @fl.rule
    def plain(g, *, pace=0.1):
        return -pace * g

    problem = fl.race.Problem({"w": np.zeros(3), "b": 0.0}, value_and_grad, batches=np.arange(60).reshape(6, 10))
    result = run(problem, ["sgd", fl.Adam, fl.Momentum(momentum=0.5), plain], jobs=1, **SMALL)
    by_name = {entry["name"]: entry for entry in result.document["optimizers"]}
    assert by_name["plain"]["tuned"] == "pace"
    assert by_name["plain"]["final"]["losses"] == by_name["SGD"]["final"]["losses"]
    assert len(set(by_name["SGD"]["final"]["losses"])) == 6


def test_the_result_shows_itself_in_a_notebook_with_names_escaped():
    problem = fl.race.Problem(np.ones(1), lambda x: (float(x @ x), 2 * x), name="<script>alert(1)</script>")
    result = run(problem, ["SGD"], jobs=1, **SMALL)
    html = result._repr_html_()
    assert "<table" in html
    assert "SGD" in html
    assert "<script>" not in html
    assert "Best here: SGD" in repr(result)


def test_bad_arguments_are_refused_before_anything_runs():
    for arguments, message in (
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"jobs": 0}, "jobs must not be 0"),
        ({"surfaces": ("moon",)}, "surfaces must be among"),
        ({"optimizers": []}, "at least one"),
        ({"optimizers": ["Adamm"]}, "optimizers must be among SGD, Momentum"),
        ({"optimizers": [3]}, "optimizers must be names"),
        ({"problem": "digit"}, "problem must be one of digits, rosenbrock"),
        ({"problem": 3}, "problem must be a Problem"),
        ({"problem": lambda seed: 3}, "must return a fallline.race.Problem"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            run(**{"problem": "bowl", "jobs": 1} | arguments)
