"""What a race gives back, in Python: the best optimizer, numbers for others, files, and the race read again."""

import numpy as np
import pytest

import fallline as fl
from fallline.race import Problem, load, run
from needed import need


def square(x):
    return float(x @ x), 2 * x


@pytest.fixture(scope="module")
def bowl():
    return run("bowl", ["SGD", "Adam", "AdaDelta"], jobs=1, steps=20, repeats=6, surfaces=())


def test_the_best_is_the_tuned_optimizer_anew_each_time(bowl):
    first = bowl.document["optimizers"][0]
    best = bowl.best
    assert repr(best).startswith(first["name"])
    assert best.t == 0
    assert best is not bowl.best
    problem = fl.race.problems.named.problem_at("bowl", bowl.document["settings"]["fresh_seeds"][2])
    end = fl.descend(problem.value_and_grad, problem.params, best, steps=20, progress=False)
    assert problem.loss(end.params) == first["final"]["losses"][2]


def test_the_best_of_what_was_multiplied_keeps_its_shape():
    falling = fl.schedules.cosine(0.1, 20)
    result = run(Problem(np.ones(2), square), {"mine": fl.Adam(falling)}, jobs=1, steps=20, surfaces=())
    factor = result.document["optimizers"][0]["value"]
    assert [result.best.lr(t) for t in (0, 7, 19)] == [factor * falling(t) for t in (0, 7, 19)]


def test_there_is_no_best_where_nothing_came_through():
    @fl.rule
    def explode(g, x, *, lr=0.1):
        return 1e200 * x + lr * g

    result = run("bowl", [explode], jobs=1, steps=5, repeats=2, surfaces=())
    with pytest.raises(ValueError, match=r"best of a race must have come through it\. No optimiser got through"):
        _ = result.best


def test_a_saved_race_is_read_again_and_has_the_same_best(bowl, tmp_path):
    assert bowl.save(tmp_path / "new" / "race") == tmp_path / "new" / "race" / "report.html"
    for path in (tmp_path / "new" / "race", tmp_path / "new" / "race" / "results.json"):
        again = load(path)
        assert again.document == bowl.document
        assert (repr(again.best), str(again)) == (repr(bowl.best), str(bowl))
    assert bowl.save(tmp_path / "one.json") == tmp_path / "one.json"
    assert bowl.save(tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_a_race_of_objects_read_from_a_file_says_what_its_best_was(tmp_path):
    result = run(Problem(np.ones(2), square), {"mine": fl.SGD(0.5)}, jobs=1, steps=5, surfaces=())
    assert isinstance(result.best, fl.SGD)
    with pytest.raises(ValueError, match=r"mine was an object: make SGD\(lr=0.5\) yourself, with lr "):
        _ = load(result.save(tmp_path / "results.json")).best


def test_what_is_no_race_is_refused(tmp_path):
    for text, message in (("{}", "must be the results.json of a race"), ("[1", "must be the results.json of a race"),
                          ('{"schema": "fallline.race/9"}', "takes another version of fallline")):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            load(tmp_path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nowhere.json")


def test_the_frame_has_the_numbers_of_the_document(bowl):
    need("pandas")
    frame = bowl.to_pandas()
    assert list(frame.index) == [entry["name"] for entry in bowl.document["optimizers"]]
    for entry in bowl.document["optimizers"]:
        row = frame.loc[entry["name"]]
        assert (row["loss"], row["value"]) == (entry["final"]["median"], entry["value"])
        assert (row["runs"], row["diverged"]) == (6, 0)
    assert frame[["loss", "p10", "p90", "untuned", "us_per_step"]].dtypes.eq(float).all()


def test_the_frame_knows_what_diverged_and_what_did_not_run():
    need("pandas")
    wild = Problem(np.ones(2), lambda x: (float(np.inf if x[0] != 1 else 1), 0 * x + 1), check_step=0)
    frame = run(wild, ["SGD"], jobs=1, steps=3, surfaces=()).to_pandas()
    assert np.isnan(frame["value"]["SGD"])
    assert frame["untuned"]["SGD"] == np.inf
    assert frame["runs"]["SGD"] == 0


def test_the_plot_has_a_line_for_each_optimiser(bowl):
    figure = bowl.plot()
    lines = {trace.name: list(trace.y) for trace in figure.data if trace.name}
    beside = bowl.document["beside"]
    finals = {entry["name"]: entry["final"] for entry in bowl.document["optimizers"]} | {beside["name"]: beside}
    assert {name: list(np.median(final["curves"], axis=0)) for name, final in finals.items()} == lines
