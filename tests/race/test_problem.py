"""Problems of the race: their gradients, their seeds, their batches, and what is refused."""

import numpy as np
import pytest

import fallline as fl
from fallline.race import Problem
from fallline.race.contenders.contender import contenders, reported
from fallline.race.problems.gradient import check_gradient
from fallline.race.problems.named import PROBLEMS, problem_at
from fallline.race.problems.surfaces import SURFACES


def square(x):
    return float(x @ x), 2 * x


def test_every_problem_of_the_race_has_the_gradient_of_its_value():
    for name in PROBLEMS:
        for seed in (0, 1):
            check_gradient(problem_at(name, seed))


def test_every_surface_has_its_minima_where_it_says():
    for surface in SURFACES.values():
        for point in surface.minima:
            value, gradient = surface.value_and_grad(np.array(point, dtype=float))
            assert value < 1e-9
            assert np.abs(gradient).max() < 1e-3


def test_a_wrong_gradient_is_reported_with_what_differences_say():
    wrong = {
        "sign": lambda x: (float(x @ x), -2 * x),
        "factor": lambda x: (float(x @ x), 2.01 * x),
        "coordinate": lambda x: (float(x @ x), 2 * x * [1, 1, 0]),
    }
    for case, function in wrong.items():
        with pytest.raises(ValueError, match=r"does not match finite differences.*Correct value_and_grad"):
            check_gradient(Problem(np.array([1.0, -2.0, 3.0]), function, name=case))


def test_a_wrong_gradient_names_its_leaf():
    def value_and_grad(p):
        return float(p["a"] @ p["a"] + p["b"] @ p["b"]), {"a": 2 * p["a"], "b": 3 * p["b"]}

    with pytest.raises(ValueError, match='The gradient of "b" of mine'):
        check_gradient(Problem({"a": np.ones(2), "b": np.ones(2)}, value_and_grad, name="mine"))


def test_a_right_gradient_passes_at_any_scale_and_in_single_precision():
    for scale in (1e-6, 1.0, 1e6):
        for dtype in (np.float32, np.float64):
            start = np.array([1.0, -2.0], dtype) * dtype(scale)
            check_gradient(Problem(start, lambda x: (float(x @ x), 2 * x)))


def test_a_gradient_of_another_shape_or_a_value_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="structure and shapes"):
        check_gradient(Problem(np.ones(3), lambda x: (1.0, np.ones(2))))
    with pytest.raises(ValueError, match="must be finite at its start"):
        check_gradient(Problem(np.ones(3), lambda x: (np.inf, x)))


def test_what_is_no_problem_is_refused():
    for arguments, message in (
        ({"value_and_grad": 3}, "value_and_grad of Problem must be a function"),
        ({"value_and_grad": square, "evaluate": 3}, "evaluate of Problem must be a function"),
        ({"value_and_grad": square, "batches": 3}, "batches of Problem must be a sequence"),
        ({"value_and_grad": square, "batches": []}, "must not be empty"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            Problem(np.ones(2), **arguments)


def test_the_seed_alone_determines_the_start_and_the_batches_of_the_digits():
    first, again, other = problem_at("digits", 3), problem_at("digits", 3), problem_at("digits", 4)
    assert np.array_equal(first.params, again.params)
    assert not np.array_equal(first.params, other.params)
    for step in (0, 44, 45, 100, 7):
        for part in (0, 1):
            assert np.array_equal(first.batches(step)[part], again.batches(step)[part])
    assert not np.array_equal(first.batches(0)[0], other.batches(0)[0])


def test_an_epoch_of_the_digits_shows_every_training_image_once():
    problem = problem_at("digits", 0)
    shown = np.concatenate([problem.batches(step)[0] for step in range(45)])
    assert shown.shape == (1437, 64)
    assert len(problem.batches(0)[0]) == 32
    from fallline.race.problems.digits import data

    assert np.array_equal(np.sort(shown.sum(axis=1)), np.sort(data()[0].sum(axis=1)))


def test_a_sequence_of_batches_is_gone_through_once_each_epoch_in_an_order_of_the_seed():
    problem = Problem(np.ones(1), lambda x, b: (0.0, x), batches=list(range(10)))
    order = problem.batch_order(seed=1)
    epochs = [[order(10 * epoch + i) for i in range(10)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert [order(i) for i in range(10)] == epochs[0]
    assert [problem.batch_order(seed=2)(i) for i in range(10)] != epochs[0]


def test_the_loss_without_evaluate_is_the_value_or_its_mean_over_the_batches():
    assert Problem(np.ones(2), square).loss(np.array([1.0, 2.0])) == 5
    batched = Problem(np.ones(1), lambda x, b: (float(b * x[0]), np.array([b])), batches=[1.0, 2.0, 6.0])
    assert batched.loss(np.ones(1)) == 3
    with pytest.raises(TypeError, match="needs evaluate="):
        Problem(np.ones(1), lambda x, b: (0.0, x), batches=lambda step: step).loss(np.ones(1))


def test_the_tuned_hyper_parameter_follows_from_the_rule():
    @fl.rule
    def crawl(g, *, decay: fl.Fraction = 0.5, pace: fl.Positive = 0.1):
        return -pace * (1 - decay) * g

    found = contenders(["Adam", fl.AdaDelta, crawl, fl.chain(fl.l2(0.1), fl.SGD(0.5))])
    assert [(c.tuned.name, c.tuned.value(0.03)) for c in found] == [
        ("lr", 0.03),
        ("eps", 0.0009),
        ("pace", 0.03),
        ("lr", 0.03),
    ]
    for contender in found:
        optimizer = contender.optimizer(0.03)
        assert [optimizer.hyper[key] for key in contender.tuned.keys] == [contender.tuned.value(0.03)]
        assert optimizer.t == 0
    assert found[3].tuned.default == 0.5


def test_what_is_more_than_one_number_is_multiplied_so_that_its_shape_and_zeros_stay():
    falling = fl.schedules.cosine(0.1, 20)
    by_path = fl.by_path({"W": falling, "b": 0.5}.get)
    parts = fl.partition({"matrices": fl.Muon(0.5), "rest": fl.AdamW(falling)}, lambda path: "rest")
    each = fl.partition({"a": fl.Adam(0.25), "b": fl.AdaDelta(eps=0.5)}, lambda path: "a")
    cases = [
        (fl.Adam(falling), "lr ×", {"lr": lambda lr: (lr(5), 4 * falling(5))}),
        (fl.Adam({"W": 0.25, "b": 0.0}), "lr ×", {"lr": lambda lr: (lr, {"W": 1.0, "b": 0.0})}),
        (fl.Adam(np.array([0.0, 0.5])), "lr ×", {"lr": lambda lr: (lr.tolist(), [0.0, 2.0])}),
        (fl.Adam(by_path), "lr ×", {"lr": lambda lr: (lr.function("W")(5), 4 * falling(5))}),
        (fl.Adam(by_path), "lr ×", {"lr": lambda lr: (lr.function("b"), 2.0)}),
        (fl.AdaDelta(eps=fl.by_path(lambda path: 0.5)), "eps ×", {"eps": lambda eps: (eps.function(""), 8.0)}),
        (parts, "lr ×", {"matrices.lr": lambda lr: (lr, 2.0), "rest.lr": lambda lr: (lr(5), 4 * falling(5))}),
        (each, "lr and eps ×", {"a.lr": lambda lr: (lr, 1.0), "b.adadelta.eps": lambda eps: (eps, 8.0)}),
        (fl.chain(fl.clip_norm(1.0), parts), "lr ×", {"matrices.lr": lambda lr: (lr, 2.0)}),
        (fl.accumulate(2, parts), "lr ×", {"matrices.lr": lambda lr: (lr, 2.0)}),
    ]
    for given, name, read in cases:
        (found,) = contenders([given])
        assert (found.tuned.name, found.tuned.default) == (name, 1.0)
        assert found.tuned.grid().rates == [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
        optimizer = found.optimizer(4.0)
        for key, seen in read.items():
            value, expected = seen(optimizer.hyper[key])
            assert value == expected, (name, key)
        assert repr(found.optimizer(None)) == repr(given)


def test_one_optimizer_of_several_leaves_with_one_rate_is_tuned_by_it():
    (masked,) = contenders([fl.mask(lambda path: True, fl.AdamW(0.5))])
    assert (masked.tuned.name, masked.tuned.default, masked.optimizer(0.25).lr) == ("lr", 0.5, 0.25)


def test_on_surfaces_no_weight_decay_acts_whosever_it_is():
    parts = {"matrices": fl.Muon(), "rest": fl.chain(fl.l2(0.1), fl.AdamW())}
    outside = fl.chain(fl.l2(0.1), fl.l2(0.2), fl.partition(parts, lambda path: "rest"), fl.weight_decay(0.3))
    (found,) = contenders([outside])
    before, after = outside.hyper, found.without_decay(1.0).hyper
    decays = [name for name in before if name.endswith(("rate", "weight_decay"))]
    assert len(decays) == 6
    assert all(before[name] > 0 for name in decays)
    assert [after[name] for name in decays] == [0.0] * 6


def test_the_point_to_report_is_the_average_or_where_the_rule_rests_or_the_parameters_themselves():
    cases = [
        (fl.Adam(0.1), lambda opt, w: w),
        (fl.ScheduleFreeSGD(0.1), lambda opt, w: opt.rest(w)),
        (fl.chain(fl.Adam(0.1), fl.average(0.5)), lambda opt, w: opt.averaged),
        (fl.chain(fl.Nesterov(0.1), fl.average(0.5)), lambda opt, w: opt.averaged),
        (fl.partition({"a": fl.Nesterov(0.1), "b": fl.SGD(0.1)}, lambda p: p), lambda opt, w: opt.rest(w)),
    ]
    for opt, expected in cases:
        w = {"a": np.ones(2), "b": np.ones(2)}
        assert all(np.array_equal(reported(opt, w)[k], w[k]) for k in w)
        for _ in range(3):
            w = opt.step(w, w)
        assert all(np.array_equal(reported(opt, w)[k], expected(opt, w)[k]) for k in w), opt
    assert reported(fl.Adam(), w) is w


def test_a_leaf_without_an_average_is_reported_as_it_rests():
    opt = fl.partition({"a": fl.chain(fl.SGD(0.1), fl.average(0.5)), "b": fl.Nesterov(0.1)}, lambda path: path)
    w = {"a": np.ones(2), "b": np.ones(2)}
    for _ in range(3):
        w = opt.step(w, w)
    found = reported(opt, w)
    assert np.array_equal(found["a"], opt.averaged["a"])
    assert np.array_equal(found["b"], opt.rest(w)["b"])


def test_what_must_be_a_fraction_or_whole_is_not_tuned_and_an_optimizer_of_such_alone_is_refused():
    @fl.rule
    def fading(g, *, decay: fl.Fraction = 0.5):
        return -(1 - decay) * g

    @fl.rule
    def fixed(g):
        return -0.1 * g

    for given in (fading, fixed, fl.partition({"a": fading, "b": fixed}, lambda path: "a")):
        with pytest.raises(ValueError, match=r"has no hyper-parameter to tune.*give its rule a rate"):
            contenders([given])
    (found,) = contenders([fl.partition({"a": fading, "b": fl.SGD(0.5)}, lambda path: "a")])
    assert (found.tuned.name, found.optimizer(0.25).hyper["lr"]) == ("lr", 0.25)


def test_optimisers_of_one_class_are_told_apart_by_their_settings():
    found = contenders([fl.Adam(beta1=0.8), fl.Adam(beta1=0.95), "sgd"])
    assert [contender.name for contender in found] == ["Adam(beta1=0.8)", "Adam(beta1=0.95)", "SGD"]
    found = contenders([fl.Adam(fl.schedules.constant(0.1)), fl.Adam(0.1)])
    assert [contender.name for contender in found] == ["Adam(lr=constant)", "Adam"]
    found = contenders([fl.Adam(fl.schedules.cosine(0.1, 20)), fl.Adam(fl.schedules.cosine(0.1, 30))])
    assert ["steps=20" in found[0].name, "steps=30" in found[1].name] == [True, True]
    found = contenders([fl.SGD(0.1), fl.SGD(0.2)])
    assert [contender.name for contender in found] == ["SGD(lr=0.1)", "SGD(lr=0.2)"]
    with pytest.raises(ValueError, match=r"SGD.* twice"):
        contenders(["SGD", fl.SGD])


def test_optimisers_in_a_dict_race_under_its_keys_and_claims_are_of_those_under_their_own():
    found = contenders({"low": fl.SGD(0.1), "high": "sgd", "Adam": fl.SGD, "Lion": fl.Lion})
    assert [contender.name for contender in found] == ["low", "high", "Adam", "Lion"]
    assert [contender.usual for contender in found] == [False, False, False, True]
    assert [contender.optimizer(0.5).lr for contender in found] == [0.5] * 4
