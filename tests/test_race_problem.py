"""Problems of the race: their gradients, their seeds, their batches, and what is refused."""

import numpy as np
import pytest

import fallline as fl
from fallline.race import Problem
from fallline.race.contender import contenders
from fallline.race.load import PROBLEMS, problem_at
from fallline.race.problem import check_gradient
from fallline.race.surfaces import SURFACES


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
    from fallline.race.digits import data

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
    assert [(c.tuned, c.value(0.03)) for c in found] == [
        ("lr", 0.03),
        ("eps", 0.0009),
        ("pace", 0.03),
        ("lr", 0.03),
    ]
    for contender in found:
        optimizer = contender.optimizer(0.03)
        assert optimizer.hyper[contender.key] == contender.value(0.03)
        assert optimizer.t == 0
    assert found[3].default == 0.5


def test_optimisers_of_one_class_are_told_apart_by_their_settings():
    found = contenders([fl.Adam(beta1=0.8), fl.Adam(beta1=0.95), "sgd"])
    assert found[2].name == "SGD"
    assert "beta1=0.8" in found[0].name
    assert "beta1=0.95" in found[1].name
    with pytest.raises(ValueError, match=r"SGD.* twice"):
        contenders(["SGD", fl.SGD])
