"""Optimisers of other libraries race under the same protocol, by a class, a transformation or a function."""

from functools import partial

import numpy as np
import pytest

import fallline as fl
from fallline.race import Problem, check, run
from fallline.race.contenders.contender import contenders
from needed import need

SMALL = {"steps": 20, "repeats": 6, "jobs": 1, "surfaces": ()}


def square(x):
    return float(x @ x), 2 * x


def plain(params, grads, lr=0.1):
    return params - lr * grads


def fixed(params, grads):
    return params - 0.25 * grads


def heavy(lr, momentum=0.9):
    velocity = 0.0

    def step(params, grads):
        nonlocal velocity
        velocity = momentum * velocity + grads
        return params - lr * velocity

    return step


def entries(result):
    return {entry["name"]: entry for entry in result.document["optimizers"]}


def test_a_function_and_our_rule_of_the_same_formula_have_the_same_runs():
    bowl = Problem(np.array([3.0, 1.0]), square, name="bowl")
    found = entries(run(bowl, {"SGD": fl.SGD, "plain": plain, "heavy": heavy, "Momentum": fl.Momentum}, **SMALL))
    for mine, ours in (("plain", "SGD"), ("heavy", "Momentum")):
        assert found[mine]["tuned"] == "lr"
        assert found[mine]["rate"] == found[ours]["rate"]
        curves = (found[name]["final"]["curves"] for name in (mine, ours))
        np.testing.assert_allclose(*curves, rtol=1e-9, atol=1e-25)
        for trial, other in zip(found[mine]["tuning"], found[ours]["tuning"], strict=True):
            assert (trial["median"] is None) == (other["median"] is None)
    assert found["plain"]["untuned"]["value"] == 0.1
    assert found["heavy"]["untuned"] is None, "it has no rate of its own"


def test_what_has_no_rate_runs_as_it_is():
    result = run(Problem(np.array([3.0, 1.0]), square), [fixed, "SGD"], **SMALL)
    entry = entries(result)["fixed"]
    assert (entry["tuned"], len(entry["tuning"]), entry["at_edge"]) == ("as given", 1, False)
    assert entry["final"]["losses"] == entry["untuned"]["losses"] == [10 * 0.25**20]
    row = next(row for row in result.table if row["optimiser"] == "fixed")
    assert (row["tuned"], row["width"]) == ("as given", "–")
    assert "Without a rate to tune, and so run as given: fixed." in result.document["protocol"]
    assert run(Problem(np.ones(2), square), [fixed], **SMALL).answer == "Best here: fixed."


def test_one_that_diverges_at_every_rate_and_has_none_of_its_own_is_reported_last():
    result = run("bowl", [lambda lr: lambda params, grads: params * np.inf, "SGD"], **SMALL)
    row = result.table[-1]
    assert (row["optimiser"], row["tuned"], row["loss"], row["untuned"]) == ("<lambda>", "lr –", "–", "–")


def test_torch_and_optax_agree_with_our_dialects_of_them():
    torch, optax = need("torch"), need("optax")
    given = {
        "torch": partial(torch.optim.AdamW, weight_decay=0.1), "ours": fl.dialects.torch.AdamW(weight_decay=0.1),
        "optax": optax.adam, "built": optax.adam(1e-2), "like optax": fl.dialects.optax.adam(0.1),
    }  # fmt: skip
    result = run("himmelblau", given, **SMALL)
    found = entries(result)
    for theirs, ours in (("torch", "ours"), ("optax", "like optax")):
        assert found[theirs]["rate"] == found[ours]["rate"]
        np.testing.assert_allclose(found[theirs]["final"]["losses"], found[ours]["final"]["losses"], rtol=1e-6)
    assert found["torch"]["settings"] == "torch.optim.AdamW(weight_decay=0.1)"
    assert (found["built"]["tuned"], found["optax"]["tuned"]) == ("updates ×", "learning_rate")
    factor = found["built"]["value"]
    same = next(trial for trial in found["optax"]["tuning"] if np.isclose(trial["value"], factor * 1e-2))
    np.testing.assert_allclose(same["losses"], min(found["built"]["tuning"], key=lambda t: t["median"])["losses"])
    assert any("another library's transformation" in sentence for sentence in result.document["protocol"])


def test_any_parameters_are_stepped_by_any_of_them():
    torch, optax, jax = need("torch"), need("optax"), need("jax")

    def ours(p):
        return float((p["w"] ** 2).sum() + p["b"] ** 2), {"w": 2 * p["w"], "b": 2 * p["b"]}

    makes = (
        lambda: np.array([1.0, 2.0]), lambda: np.array([1, 2], dtype=np.float32), lambda: np.arange(4.0)[::2] + 1,
        lambda: torch.tensor([1.0, 2.0], dtype=torch.float64), lambda: jax.numpy.array([1.0, 2.0]),
    )  # fmt: skip
    for make in makes:
        problem = Problem({"w": make(), "b": 0.5}, ours, name="mixed")
        found = run(problem, {"torch": torch.optim.SGD, "optax": optax.sgd, "ours": fl.SGD}, **SMALL)
        losses = {name: entry["final"]["losses"] for name, entry in entries(found).items()}
        assert all(np.isfinite(loss).all() for loss in losses.values())
        np.testing.assert_allclose(losses["torch"], losses["ours"], rtol=1e-4, atol=1e-12)
        np.testing.assert_allclose(losses["optax"], losses["ours"], rtol=1e-4, atol=1e-12)
        assert problem.params["b"] == 0.5, "the problem's own parameters are left alone"


def test_others_are_on_surfaces_too_without_their_decay():
    torch = need("torch")
    given = {"decayed": partial(torch.optim.AdamW, weight_decay=0.5), "free": torch.optim.Adam}
    result = run("bowl", given, **SMALL | {"surfaces": ("bowl",)})
    decayed, free = (path["points"] for path in result.document["surfaces"][0]["paths"])
    assert decayed == free
    assert len(free) == 201


def test_the_best_comes_as_users_of_its_library_take_it():
    torch, optax = need("torch"), need("optax")
    bowl = Problem(np.array([3.0, 1.0]), square)
    best = run(bowl, [torch.optim.SGD], **SMALL).best
    assert isinstance(best([torch.nn.Parameter(torch.ones(2))]), torch.optim.SGD)
    assert best.keywords == {"lr": 0.3}
    for source in (optax.sgd, optax.sgd(0.1)):
        transformation = run(bowl, [source], **SMALL).best
        updates, _ = transformation.update(np.ones(1), transformation.init(np.ones(1)))
        np.testing.assert_allclose(updates, -0.3, rtol=1e-6)
    assert run(bowl, [plain], **SMALL).best(1.0, 1.0) == 0.7
    assert run(bowl, [fixed], **SMALL).best is fixed
    assert run(bowl, [partial(heavy, momentum=0.0)], **SMALL).best(1.0, 1.0) == 0.7


def test_names_tell_others_apart_and_a_place_names_them_in_a_file(tmp_path, monkeypatch):
    found = contenders([plain, partial(heavy, momentum=0.5), partial(heavy, momentum=0.9)])
    assert [contender.name for contender in found] == ["plain", "heavy(momentum=0.5)", "heavy(momentum=0.9)"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steps_of_mine.py").write_text("def halved(params, grads, lr=1):\n    return params - lr * grads / 2\n")
    path = run("bowl", ["steps_of_mine.py:halved", "SGD"], **SMALL).save(tmp_path)
    assert check(path.parent, jobs=1).agrees


def test_what_a_step_may_not_return_is_one_sentence_before_anything_runs():
    torch = need("torch")
    for source, message in (
        (lambda params, grads: None, r"<lambda>\(params, grads\) must return the parameters, a tree like.* Got None"),
        (lambda params, grads: params[:1], "must return the parameters, a tree like those given. Got ndarray"),
        (lambda lr: 3, r"<lambda> must return a function \(params, grads\) -> params or a gradient trans.*. Got 3"),
        (torch.optim.LBFGS, "torch.optim.LBFGS cannot step the parameters of bowl: .*closure"),
        (partial(torch.optim.SGD, momentum=-1.0), "Invalid momentum value"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            run(Problem(np.ones(2), square, name="bowl"), [source], **SMALL)
    for source in (3, len, lambda a, b, c: a, {"a": 1}):
        with pytest.raises(TypeError, match=r"optimizers must be names, .* of other libraries: a class of torch.optim"):
            run("bowl", [source], **SMALL)
