"""SciPy's L-BFGS-B runs beside the others where there is no noise, so that nobody is sold the wrong tool."""

import numpy as np
import pytest
from scipy.optimize import minimize, rosen, rosen_der

import fallline as fl
from fallline.race import Problem, run
from needed import need

SMALL = {"steps": 100, "repeats": 3, "jobs": 1, "surfaces": ()}


def valley(x):
    return rosen(x), rosen_der(x)


def test_it_is_scipys_own_run_with_scipys_defaults():
    start = np.array([-1.2, 1.0, -1.2, 1.0])
    result = run(Problem(start, valley, target=1e-5, name="valley"), ["Adam"], **SMALL)
    beside, own = result.document["beside"], minimize(rosen, start, jac=rosen_der, method="L-BFGS-B")
    assert (beside["losses"], beside["gradients"], beside["iterations"]) == ([own.fun], [own.nfev], [own.nit])
    (curve,), (reached,) = beside["curves"], beside["steps_to_target"]
    assert (curve[0], curve[-1]) == (rosen(start), own.fun)
    assert curve == sorted(curve, reverse=True)
    assert 0 < reached <= own.nfev
    for text in (str(result), result._repr_html_() and fl.race.report.html.page(result.document, {})):
        assert f"with {own.nfev} gradients" in " ".join(text.split()).replace("&#39;", "'")
        assert f"below 1e-5 after {reached}, where Adam" in " ".join(text.split())
    assert "L-BFGS-B" not in [row["optimiser"] for row in result.table]
    assert any(line.name == "L-BFGS-B" for line in result.plot().data)


def test_it_takes_no_more_gradients_than_the_others_take_steps():
    calls = []

    def counted(x):
        calls.append(1)
        return valley(x)

    beside = run(Problem(np.array([-1.2, 1.0]), counted), ["SGD"], **SMALL | {"steps": 7}).document["beside"]
    assert beside["gradients"] == [7]
    assert beside["steps_to_target"] == []
    assert beside["losses"][0] < rosen([-1.2, 1.0])


def test_it_has_a_run_for_each_fresh_seed_and_none_where_there_are_batches():
    assert len(run("himmelblau", ["SGD"], **SMALL).document["beside"]["losses"]) == 3
    noisy = Problem(np.ones(2), lambda x, k: (float(x @ x), 2 * x), batches=[0, 1])
    result = run(noisy, ["SGD"], **SMALL)
    assert result.document["beside"] is None
    assert "L-BFGS-B" not in str(result)
    assert "L-BFGS-B" not in "".join(result.document["protocol"])


def test_it_takes_trees_of_any_numbers():
    torch = need("torch")

    def value_and_grad(p):
        value = float(abs(p["z"] - 2j) ** 2 + ((p["w"] - 3) ** 2).sum()) + p["b"] ** 2
        return value, {"z": 2 * (p["z"] - 2j), "w": 2 * (p["w"] - 3), "b": 2 * p["b"], "unused": None}

    start = {"z": np.array(1 + 1j), "w": torch.ones(2, 2, dtype=torch.float64), "b": 1.0, "unused": np.ones(3)}
    beside = run(Problem(start, value_and_grad), ["SGD"], **SMALL).document["beside"]
    assert beside["median"] < 1e-12


def test_where_its_loss_is_not_finite_nothing_is_said():
    lost = Problem(np.ones(1), lambda x: (x[0] ** 2, 2 * x), evaluate=lambda x: {"train_loss": np.nan})
    result = run(lost, ["SGD"], **SMALL)
    assert (result.document["beside"]["losses"], result.document["beside"]["diverged"]) == ([None], 1)
    assert "L-BFGS-B" not in str(result)


@pytest.mark.slow
def test_a_race_with_it_is_checked_whole(tmp_path):
    path = run("beale", ["SGD"], **SMALL).save(tmp_path / "results.json")
    assert fl.race.check(path, jobs=1).agrees
