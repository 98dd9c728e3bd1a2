"""The state of a partition: copies, files, leaves that come and go, and what loops make of it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fallline as fl
from fallline.errors import BusyOptimizer
from needed import need
from support import (
    RECIPES,
    a_tree,
    by_rank,
    everything_of,
    frozen,
    halving,
    same_bits,
)


def test_the_point_to_report_and_the_average_are_those_of_the_parts():
    opt = fl.partition({"x": fl.Nesterov(0.1), "y": RECIPES["clipped"](), "z": None}, {"a": "x", "b": "y", "c": "z"})
    w = {**a_tree(0), "c": np.ones(2)}
    nesterov, clipped, v = fl.Nesterov(0.1), RECIPES["clipped"](), a_tree(0)
    for seed in range(3):
        opt.step(w, {**a_tree(seed), "c": None})
        nesterov.step(v["a"], a_tree(seed)["a"])
        clipped.step(v["b"], a_tree(seed)["b"])
    at_rest = opt.rest(w)
    assert same_bits(at_rest, {"a": nesterov.rest(v["a"]), "b": v["b"], "c": np.ones(2)})
    assert not any(np.shares_memory(at_rest[key], w[key]) for key in w)
    assert same_bits(opt.averaged, {"a": None, "b": clipped.averaged, "c": None})


def test_leaves_come_and_go_and_each_part_keeps_the_state_of_its_own():
    opt, w = RECIPES["partition"](), a_tree(0)
    opt.step(w, a_tree(1))
    twin = copy.deepcopy(opt)
    opt.adapt({**w, "c": np.ones((1, 2))}, **{"rest.lr": 0.5})
    v = opt.step({**copy.deepcopy(w), "c": np.ones((1, 2))}, {**a_tree(2), "c": np.ones((1, 2))})
    twin.hyper["rest.lr"] = 0.5
    twin.step(w, a_tree(2))
    assert same_bits({"a": v["a"], "b": v["b"]}, w)
    assert opt.state_dict()["parts"]["weights"]["leaves"]["c"]["t"] == 1
    before = everything_of(opt)
    with pytest.raises(ValueError, match="float64 of shape"):
        opt.adapt({**v, "a": np.ones(7)})
    assert everything_of(opt) == before
    mask = fl.mask({"a": True, "b": False}, fl.Momentum(1.0))
    mask.step(w, a_tree(1))
    mask.adapt({**w, "c": 1.0}, by={"a": True, "b": False, "c": True})
    assert mask.step({**w, "c": 1.0}, {"a": None, "b": None, "c": 1.0})["c"] == 0.0


def test_copies_step_by_themselves_and_pickles_keep_their_parts_together():
    opt, w = RECIPES["partition"](), a_tree(0)
    opt.step(w, a_tree(1))
    for other in (copy.copy(opt), copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        v = copy.deepcopy(w)
        other.step(v, a_tree(2))
        assert (opt.t, other.t, other.parts["rest"].t) == (1, 2, 2)
        other.parts["rest"].lr = 0.5
        with pytest.raises(BusyOptimizer):
            other.parts["rest"].reset()
        other.reset()
        assert (other.t, other.parts["rest"].t, opt.hyper["rest.lr"]) == (0, 0, 0.01)
    opt.t = 5
    assert [part.t for part in opt.parts.values()] == [5, 5]


def stepped_beside_one_alone():
    """A partition, one of its parts, and an optimizer by itself that has taken the same steps, with its parameters."""
    opt, w = fl.partition({"x": fl.Nesterov(0.1), "y": fl.SGD()}, {"a": "x", "b": "y"}), a_tree(0)
    alone, own = fl.Nesterov(0.1), {"a": w["a"].copy(), "b": None}
    for seed in range(3):
        opt.step(w, a_tree(seed))
        alone.step(own, {**a_tree(seed), "b": None})
    return opt, opt.parts["x"], alone, own


@pytest.mark.parametrize("carry", [copy.copy, copy.deepcopy, lambda part: pickle.loads(pickle.dumps(part))])
def test_a_part_that_is_copied_goes_on_alone_with_its_state(carry):
    opt, part, alone, w = stepped_beside_one_alone()
    other, v, before = carry(part), copy.deepcopy(w), everything_of(opt)
    for seed in (3, 4):
        other.step(v, {**a_tree(seed), "b": None})
        alone.step(w, {**a_tree(seed), "b": None})
    assert same_bits(v, w)
    assert same_bits(other.rest(v), alone.rest(w))
    assert (other.t, opt.t) == (5, 3)
    assert everything_of(opt) == before


def test_a_part_says_its_point_and_is_saved_with_parameters_of_its_own(tmp_path):
    _, part, alone, w = stepped_beside_one_alone()
    assert same_bits(part.rest(w), alone.rest(w))
    part.save(tmp_path / "part", w)
    other, v = fl.load(tmp_path / "part")
    other.step(v, {**a_tree(3), "b": None})
    alone.step(w, {**a_tree(3), "b": None})
    assert same_bits(v, w)
    wrong = {"a": np.ones(9), "b": None}
    for act in (lambda: part.rest(wrong), lambda: part.save(tmp_path / "part", wrong)):
        with pytest.raises(ValueError, match="'a' must have the shape"):
            act()


def test_t_is_set_to_as_many_calls_for_all_parts():
    opt = fl.partition({"x": fl.SGD(1.0), "y": fl.accumulate(2, fl.SGD(1.0)), "z": fl.accumulate(3, fl.SGD(1.0))},
                       {"a": "x", "b": "y", "c": "z"})  # fmt: skip
    ones = dict.fromkeys("abc", 1.0)
    opt.t = 6
    assert [(part.t, part.calls) for part in opt.parts.values()] == [(6, 6), (3, 6), (2, 6)]
    opt.reset()
    for calls in range(9):
        before = everything_of(opt)
        opt.t = opt.t  # which changes nothing
        assert everything_of(opt) == before
        assert [part.calls for part in opt.parts.values()] == [opt.t] * 3 == [calls] * 3
        opt.step(ones, ones)
    opt.t = 2**63 - 1
    assert [part.t for part in opt.parts.values()] == [2**63 - 1, 2**62 - 1, 2**63 // 3]
    around = fl.accumulate(2, fl.partition({"x": fl.SGD(), "y": fl.SGD()}, {"a": "x", "b": "y"}))
    around.step({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0})
    around.t = 5
    assert [(part.t, part.calls) for part in around.parts.values()] == [(5, 11)] * 2


def value_and_grad(w, batch=None):
    return float(sum((leaf**2).sum() for leaf in w.values())), {key: 2 * leaf for key, leaf in w.items()}


@pytest.mark.parametrize("recipe", ["partition", "mask"])
def test_a_run_of_descend_cut_at_any_step_goes_on_with_the_same_bits(recipe, tmp_path):
    whole = fl.descend(value_and_grad, a_tree(0), RECIPES[recipe](), steps=6)
    for cut in range(7):
        path = tmp_path / f"{cut}.safetensors"
        fl.descend(value_and_grad, a_tree(0), RECIPES[recipe](), steps=cut, checkpoint=path)
        again = fl.descend(value_and_grad, a_tree(0), RECIPES[recipe](), steps=6, checkpoint=path)
        assert same_bits(again.params, whole.params)
        assert same_bits(again.values, whole.values)
        opt, w = fl.load(path, **({"label": by_rank} if recipe == "partition" else {}))
        assert repr(opt) == repr(RECIPES[recipe]())
        assert (opt.t, frozen(w)) == (6, frozen(whole.params))


def a_label():
    return lambda path, shape: "rest" if path == "a" else "weights"


def another_label():
    return lambda path, shape: "rest" if path == "b" else "weights"


ALIKE = {"a local function": a_label(), "one of the module": lambda path: {"a": "rest", "b": "weights"}[path],
         "a tree": {"a": "rest", "b": "weights"}}  # fmt: skip


def divided_by(label):
    return fl.partition({"weights": fl.Adam(0.1), "rest": fl.SGD(0.1), "none": None}, label)


@pytest.mark.parametrize("then", ALIKE)
@pytest.mark.parametrize("now", ALIKE)
def test_a_state_goes_on_under_any_label_that_divides_the_leaves_alike(then, now, tmp_path):
    path, whole = tmp_path / "run", fl.descend(value_and_grad, a_tree(0), divided_by(ALIKE[then]), steps=5)
    fl.descend(value_and_grad, a_tree(0), divided_by(ALIKE[then]), steps=3, checkpoint=path)
    loaded, w = fl.load(path, label=ALIKE[now])
    fresh, bound = divided_by(ALIKE[now]), divided_by(ALIKE[now])
    bound.step(a_tree(0), a_tree(1))
    for other in (fresh, bound):
        other.load_state_dict(loaded.state_dict())
    for opt in (loaded, fresh, bound):
        v = copy.deepcopy(w)
        for _ in range(2):
            opt.step(v, value_and_grad(v)[1])
        assert same_bits(v, whole.params)
    again = fl.descend(value_and_grad, a_tree(0), divided_by(ALIKE[now]), steps=5, checkpoint=path)
    assert same_bits(again.params, whole.params)


def test_a_state_is_refused_under_a_label_that_divides_the_leaves_otherwise(tmp_path):
    path, w = tmp_path / "run", a_tree(0)
    opt = divided_by(a_label())
    opt.step(w, a_tree(1))
    opt.save(path)
    fl.descend(value_and_grad, a_tree(0), divided_by(a_label()), steps=2, checkpoint=tmp_path / "with parameters")
    for label, message in ((another_label(), "'a' to part 'weights', and in the state it is of part 'rest'"),
                           ({"a": "rest", "b": "none"}, "'b' to no part, and in the state it is of part 'weights'"),
                           (lambda path: "rest", "'b' to part 'rest', and in the state it is of part 'weights'")):
        loaded, bound, fresh = fl.load(path, label=label), divided_by(label), divided_by(label)
        v = a_tree(0)
        for act in (lambda file: fl.load(file, label=label), fresh.load,  # noqa: B023
                    lambda file: fl.descend(value_and_grad, v, fresh, steps=3, checkpoint=file)):  # noqa: B023
            with pytest.raises(fl.CheckpointError, match=f"label of partition gives {message}"):
                act(tmp_path / "with parameters")
            assert (fresh.t, frozen(v)) == (0, frozen(a_tree(0)))
        for act in (lambda: loaded.step(v, a_tree(1)), lambda: loaded.rest(v), lambda: loaded.adapt(v)):  # noqa: B023
            before = everything_of(loaded)
            with pytest.raises(ValueError, match=f"label of partition gives {message}: give a label that divides"):
                act()
            assert (everything_of(loaded), frozen(v)) == (before, frozen(a_tree(0)))
        bound.step(v, a_tree(1))
        before = everything_of(bound)
        with pytest.raises(fl.CheckpointError, match=f"label of partition gives {message}"):
            bound.load(path)
        assert everything_of(bound) == before


def test_what_a_label_raises_while_a_file_is_loaded_comes_as_it_is(tmp_path):
    opt, w = divided_by(a_label()), a_tree(0)
    opt.step(w, a_tree(1))
    opt.save(tmp_path / "run", w)
    with pytest.raises(KeyError, match="'b'"):
        fl.load(tmp_path / "run", label={"a": "rest"}.__getitem__)


def test_a_leaf_that_was_left_alone_is_not_stepped_by_a_state_without_it(tmp_path):
    opt, w = fl.mask(is_a, fl.Adam(0.1)), a_tree(0)
    opt.step(w, a_tree(1))
    opt.save(tmp_path / "run")
    with pytest.raises(ValueError, match="by of mask gives 'b' to part 'stepped', and in the state it is of no part"):
        fl.load(tmp_path / "run", by=lambda path: True).step(w, a_tree(2))
    single = fl.mask(lambda path: True, fl.SGD())
    single.step(1.0, 1.0)
    other = fl.mask(lambda path: False, fl.SGD())
    other.load_state_dict(single.state_dict())
    with pytest.raises(ValueError, match="by of mask gives the parameter to no part"):
        other.step(1.0, 1.0)


def test_a_state_that_was_loaded_goes_on_with_further_leaves():
    opt, w, label = divided_by(a_label()), a_tree(0), a_label()
    opt.step(w, a_tree(1))
    loaded = divided_by(label)
    loaded.load_state_dict(opt.state_dict())
    loaded.adapt({**w, "c": np.ones(2)})
    v = loaded.step({**copy.deepcopy(w), "c": np.ones(2)}, {**a_tree(2), "c": np.ones(2)})
    opt.step(w, a_tree(2))
    assert same_bits({"a": v["a"], "b": v["b"]}, w)


def test_a_mask_by_a_function_is_loaded_with_that_function(tmp_path):
    opt, w = fl.mask(is_a, fl.Adam(0.1), nonfinite="skip"), a_tree(0)
    opt.step(w, a_tree(1))
    opt.save(tmp_path / "run", w)
    again, v = fl.load(tmp_path / "run", by=is_a)
    assert repr(again) == repr(opt) == "mask(is_a, Adam(lr=0.1, beta1=0.9, beta2=0.999, eps=1e-08), nonfinite='skip')"
    assert same_bits(again.step(v, a_tree(2)), opt.step(w, a_tree(2)))
    with pytest.raises(fl.CheckpointError, match=r"fl.load\(path, by=...\)"):
        fl.load(tmp_path / "run")


def is_a(path):
    return path == "a"


def test_what_descend_says_names_the_rate_of_the_parts():
    opt = fl.partition({"x": fl.SGD(0.0), "y": fl.Adam(0.0)}, {"a": "x", "b": "y"})
    assert "lower lr to go deeper" in fl.descend(value_and_grad, a_tree(0), opt, steps=9, patience=2).message


def test_the_race_tunes_the_rate_of_a_mask_and_the_rates_of_a_partition_together():
    need("sklearn")
    from fallline.race.contenders.contender import contenders

    keys = [c.tuned.keys for c in contenders([RECIPES["mask"](), "SGD", RECIPES["partition"]()])]
    assert keys == [("stepped.nadam.lr",), ("sgd.lr",), ("weights.nadam.lr", "rest.momentum.lr")]


def test_minimize_and_scipy_take_a_partition():
    from scipy.optimize import minimize

    opt = fl.partition({"x": fl.Adam(0.1), "y": fl.SGD(0.1)}, lambda path: "x" if path == "" else "y")
    fun = lambda x: ((x - 3) ** 2).sum()  # noqa: E731
    jac = lambda x: 2 * (x - 3)  # noqa: E731
    for result in (fl.minimize(fun, np.zeros(2), jac=jac, method=opt), minimize(fun, np.zeros(2), jac=jac, method=opt)):
        assert result.success
        assert np.allclose(result.x, 3, atol=1e-4)
    assert opt.t == 0


def test_a_file_of_a_partition_that_does_not_fit_is_refused_by_name(tmp_path):
    path, w = tmp_path / "run", a_tree(0)
    opt = fl.partition({"weights": fl.Nadam(halving), "rest": RECIPES["clipped"]()}, by_rank)
    opt.step(w, a_tree(1))
    opt.save(path, w)
    again, v = fl.load(path, label=by_rank, **{"weights.lr": halving})
    assert same_bits(again.step(v, a_tree(2)), opt.step(copy.deepcopy(w), a_tree(2)))
    other, before = RECIPES["partition"](), everything_of(RECIPES["partition"]())
    for call, message in (
        (lambda: fl.load(path), r"give it again, fl.load\(path, label=...\)"),
        (lambda: fl.load(path, label=by_rank), r"give it again, fl.load\(path, \*\*{'weights.lr': ...}\)"),
        (lambda: fl.Adam().load(path), "is of a partition or mask with the parts weights, rest, and Adam is n"),
        (lambda: RECIPES["mask"]().load(path), "The parts of the state must be those here: stepped, left"),
        (lambda: fl.partition({"weights": fl.Adam(), "rest": fl.SGD()}, by_rank).load(path), "Part 'weights'"),
    ):  # fmt: skip
        with pytest.raises(fl.CheckpointError, match=message):
            call()
    fl.Adam().save(path)
    with pytest.raises(fl.CheckpointError, match="not of a partition but of a single optimizer with the rules adam"):
        other.load(path)
    assert everything_of(other) == before
