"""Whole races with small budgets: the same bits for any number of processes, and a document that holds what it says."""

import json
import time

import joblib
import numpy as np
import pytest

import fallline as fl
from fallline.race import run
from fallline.race.problems.surfaces import SURFACES

pytestmark = pytest.mark.slow

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


def test_runs_never_overlap_in_one_process_however_many_threads_a_back_end_has():
    running, most = 0, 0

    def value_and_grad(x):
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(1e-4)
        running -= 1
        return float(x @ x), 2 * x

    problem = fl.race.Problem(np.array([3.0, 1.0]), value_and_grad)
    arguments = {"optimizers": ["SGD", "Adam"], "steps": 5, "surfaces": ()}
    with joblib.parallel_config(backend="threading"):
        threads = run(problem, jobs=4, **arguments)
    assert most == 1
    assert without_measured(threads) == without_measured(run(problem, jobs=1, **arguments))


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
    from fallline.race.problems.named import problem_at

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


def test_a_schedule_is_raced_as_one_and_not_as_the_rate_it_began_with():
    """The two are one optimiser but for the schedule; a factor of 1 is what was given."""
    falling = fl.schedules.cosine(0.1, 20)
    problem = fl.race.Problem(np.array([3.0, 1.0]), lambda x: (float(x @ x), 2 * x), name="bowl")
    result = run(problem, [fl.Adam(falling), fl.Adam(0.1)], jobs=1, steps=20, surfaces=())
    scheduled, plain = sorted(result.document["optimizers"], key=lambda entry: entry["tuned"], reverse=True)
    assert (scheduled["tuned"], plain["tuned"]) == ("lr ×", "lr")
    assert scheduled["final"]["losses"] != plain["final"]["losses"]
    assert scheduled["untuned"]["losses"] == next(t["losses"] for t in scheduled["tuning"] if t["value"] == 1)
    for entry, lr in ((scheduled, lambda t: scheduled["value"] * falling(t)), (plain, plain["value"])):
        end = fl.descend(problem.value_and_grad, problem.params, fl.Adam(lr), steps=20, progress=False)
        assert entry["final"]["losses"] == [problem.loss(end.params)]
    assert f"lr × {scheduled['value']:g}" in [row["tuned"] for row in result.table]
    assert any("lr of Adam(lr=cosine(peak=0.1" in sentence for sentence in result.document["protocol"])
    assert all("is one factor" not in sentence for sentence in run(problem, **SMALL, jobs=1).document["protocol"])


def test_a_partition_with_modifiers_around_it_is_raced_by_one_factor_of_its_rates():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((9, 4)), rng.standard_normal((9, 3))

    def value_and_grad(p):
        r = a @ p["W"] + p["b"] - b
        return float((r * r).sum()), {"W": 2 * a.T @ r, "b": 2 * r.sum(axis=0), "frozen": np.zeros(2)}

    start = {"W": np.zeros((4, 3)), "b": np.zeros(3), "frozen": np.ones(2)}
    problem = fl.race.Problem(start, value_and_grad)

    def given(lr=1.0):
        parts = {"matrices": fl.Muon(0.1 * lr), "rest": fl.AdamW(fl.by_path({"b": 0.1 * lr, "frozen": 0.0}.get))}
        inner = fl.partition(parts, lambda path, shape: "matrices" if len(shape) == 2 else "rest")
        return fl.chain(fl.clip_norm(1.0), inner)

    frozen = fl.Adam({"W": 0.1, "b": 0.1, "frozen": 0.0})
    result = run(problem, [given(), fl.accumulate(2, given()), frozen], jobs=1, steps=20, surfaces=("bowl",))
    by_name = {entry["name"]: entry for entry in result.document["optimizers"]}
    entry = by_name["chain(clip_norm, partition(Muon, AdamW))"]
    assert {entry["tuned"] for entry in by_name.values()} == {"lr ×"}
    end = fl.descend(value_and_grad, start, given(entry["value"]), steps=20, progress=False)
    assert entry["final"]["losses"] == [problem.loss(end.params)]
    assert np.array_equal(end.params["frozen"], start["frozen"])
    (surface,) = result.document["surfaces"]
    assert {path["name"] for path in surface["paths"]} == set(by_name) - {"Adam"}
    assert "Not drawn: Adam, whose settings or parts are of leaves" in fl.race.report.html.page(result.document, {})


def test_losses_are_those_of_the_point_to_report():
    problem = fl.race.Problem(np.array([3.0, 1.0]), lambda x: (float(x @ x), 2 * x), name="bowl")

    def averaging(lr=0.1):
        return fl.chain(fl.SGD(lr), fl.average(0.9))

    result = run(problem, ["ScheduleFreeSGD", averaging(), "Momentum"], jobs=1, steps=54, surfaces=())
    by_name = {entry["name"]: entry for entry in result.document["optimizers"]}
    points = {
        "ScheduleFreeSGD": ("rest", fl.ScheduleFreeSGD, lambda opt, w: opt.rest(w)),
        "chain(SGD, average)": ("averaged", averaging, lambda opt, w: opt.averaged),
        "Momentum": ("params", fl.Momentum, lambda opt, w: w),
    }
    for name, (at, make, point) in points.items():
        entry = by_name[name]
        opt, w = make(entry["value"]), problem.params.copy()
        curve = [problem.loss(w)]
        for _ in range(54):
            w = opt.step(w, 2 * w)
            curve.append(problem.loss(point(opt, w)))
        assert entry["judged_at"] == at
        assert entry["final"]["curves"] == [curve], name
        assert any(name in sentence for sentence in result.document["protocol"]) == (at != "params")


def test_on_surfaces_decay_does_nothing_and_muon_is_muon():
    result = run("bowl", ["Adam", "AdamW", "Muon", "Nesterov"], jobs=1, steps=3, repeats=1, surfaces=("beale",))
    paths = {path["name"]: path for path in result.document["surfaces"][0]["paths"]}
    assert paths["AdamW"]["points"] == paths["Adam"]["points"]
    for name, make in (("Muon", lambda lr: fl.Muon(lr, weight_decay=0.0)), ("Nesterov", fl.Nesterov)):
        surface, opt = SURFACES["beale"], make(paths[name]["value"])
        w = np.diag(surface.start) if name == "Muon" else np.array(surface.start)
        for point in paths[name]["points"]:
            at = opt.rest(w).diagonal() if name == "Muon" else opt.rest(w)
            np.testing.assert_allclose(point, at, rtol=1e-4, atol=1e-8)
            gradient = surface.value_and_grad(w.diagonal() if name == "Muon" else w)[1]
            w = opt.step(w, np.diag(gradient) if name == "Muon" else gradient)


def test_claims_are_judged_by_the_settings_of_the_class_alone():
    usual = run("bowl", ["Nesterov", fl.Momentum(0.1)], jobs=1, **SMALL).document["claims"][0]
    assert "Median final loss" in usual["because"]
    for other in (fl.Momentum(fl.schedules.cosine(0.1, 30)), fl.Momentum(momentum=0.5)):
        claim = run("bowl", ["Nesterov", other], jobs=1, **SMALL).document["claims"][0]
        assert (claim["verdict"], "Momentum" in claim["because"]) == ("undecided here", True)


def test_settings_of_other_parameters_are_refused_before_anything_runs():
    problem = fl.race.Problem({"W": np.ones(2)}, lambda p: (float(p["W"] @ p["W"]), {"W": 2 * p["W"]}), name="mine")
    for optimizer, message in (
        (fl.Adam({"V": 0.1}), "Adam cannot step the parameters of mine: lr of Adam must have the structure"),
        (fl.Adam(np.ones(3)), "cannot step the parameters of mine: lr of Adam, one per coordinate, must have the"),
        (fl.partition({"a": fl.Adam(), "b": fl.SGD()}, lambda path: "c"), "label of partition must name"),
    ):
        with pytest.raises(ValueError, match=message):
            run(problem, [optimizer], jobs=1, **SMALL)


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
        ({"optimizers": fl.Adam}, r"optimizers must be a list .*Got the class Adam: put it in a list"),
        ({"optimizers": fl.Adam(0.1)}, r"optimizers must be a list .*Got Adam\(lr=0.1"),
        ({"optimizers": "Adam"}, "optimizers must be a list .*Got 'Adam': put it in a list"),
        ({"optimizers": {}}, "at least one"),
        ({"optimizers": {3: fl.Adam}}, "optimizers, a dict, must have names as its keys. Got 3"),
        ({"problem": "digit"}, "problem must be one of digits, rosenbrock"),
        ({"problem": 3}, "problem must be a Problem"),
        ({"problem": lambda seed: 3}, r"must return a fallline.race.Problem. Got int\.$"),
        ({"problem": lambda seed: seed["a"]}, "^'int' object is not subscriptable$"),
        ({"problem": lambda x: (float(x @ x), 2 * x)}, r"raised TypeError \(unsup.*goes into it: Problem\(start, "),
        ({"problem": lambda x: (x**2, 2 * x)}, "Got tuple. One of the parameters goes into it: Problem"),
        ({"problem": lambda x, batch: 3}, r"a function of the seed that returns one.*raised TypeError .*missing 1"),
        ({"problem": fl.race.Problem(np.ones(2), lambda x: x @ x, name="dot")},
         r"value_and_grad of dot must return a pair \(value, gradient\). Got float64"),
        ({"problem": fl.race.Problem(np.ones(2), lambda x: (x, x))}, r"the value a real number. Got ndarray of shape"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            run(**{"problem": "bowl", "jobs": 1} | arguments)


def test_what_keeps_within_bounds_races_too():
    problem = fl.race.Problem(np.array([2.0, 1.0]), lambda w: (w @ w / 2, w))
    within = fl.chain(fl.Adam(0.1), fl.bounds(0.5, 3))
    result = fl.race.run(problem, optimizers={"within": within, "free": fl.Adam(0.1)}, steps=60, repeats=3, jobs=1)
    losses = {row["name"]: row["final"]["median"] for row in result.document["optimizers"]}
    assert losses["within"] >= 0.25 > losses["free"]
