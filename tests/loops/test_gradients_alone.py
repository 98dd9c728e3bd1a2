"""Runs on gradients alone, in both loops: nothing asks for a value, and what needs one says so."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fallline as fl

GOAL = np.array([1.0, -2.0, 0.5])


def jac(x):
    return x - GOAL


@pytest.mark.parametrize("arguments", [
    {"fun": None, "jac": jac}, {"fun": lambda x: (None, jac(x)), "jac": True},
], ids=["fun=None", "a value of None"])  # fmt: skip
def test_minimize_goes_by_the_gradient_and_returns_the_last_point(arguments):
    found = fl.minimize(x0=np.zeros(3), method=fl.SGD(0.5), options={"gtol": 1e-9}, **arguments)
    assert (found.success, found.njev) == (True, found.nit + 1)
    assert math.isnan(found.fun)
    assert math.isnan(found.fun_last)
    np.testing.assert_array_equal(found.x, found.x_last)
    np.testing.assert_allclose(found.x, GOAL, atol=1e-8)
    cut = fl.minimize(x0=np.zeros(3), method=fl.SGD(0.1), options={"maxiter": 3, "xtol": 1e-9}, **arguments)
    np.testing.assert_array_equal(cut.x, cut.x_last)
    assert cut.message.startswith("stopped at maxiter (3)")


def test_where_values_are_known_the_path_is_the_same():
    alone = fl.minimize(None, np.zeros(3), jac=jac, method=fl.Adam(0.1), options={"maxiter": 20})
    both = fl.minimize(lambda x: (jac(x) ** 2).sum() / 2, np.zeros(3), jac=jac, method=fl.Adam(0.1),
                       options={"maxiter": 20})  # fmt: skip
    np.testing.assert_array_equal(alone.x_last, both.x_last)
    assert (both.nfev, alone.nfev) == (21, 0)


def test_minimize_that_diverges_returns_the_last_finite_point():
    found = fl.minimize(None, np.ones(2), jac=lambda x: np.full(2, np.inf) if abs(x).max() > 8 else -x,
                        method=fl.SGD(1.0))  # fmt: skip
    assert (found.status, found.x.tolist()) == (2, [8.0, 8.0])
    assert "the gradient is not finite" in found.message


def test_descend_goes_by_the_gradient_and_its_values_are_nan(tmp_path):
    def run(steps, path):
        return fl.descend(lambda w: (None, jac(w)), np.zeros(3), fl.Adam(0.1), steps=steps, checkpoint=path)

    run(4, tmp_path / "cut")
    once, twice = run(9, tmp_path / "whole"), run(9, tmp_path / "cut")
    np.testing.assert_array_equal(once.params, twice.params)
    assert np.isnan(once.values).tolist() == [True] * 9
    assert once.status.name == "STEPS"


def test_descend_shows_a_callback_that_there_is_no_value_and_a_bar_goes_without():
    seen = []
    fl.descend(lambda w: (None, jac(w)), np.zeros(3), fl.SGD(0.1), steps=2, callback=lambda p: seen.append(p.value))
    assert seen == [None, None]
    pytest.importorskip("rich")
    fl.descend(lambda w: (None, jac(w)), np.zeros(3), fl.SGD(0.1), steps=2, progress=True)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: fl.minimize(None, [1.0], jac=lambda x: x, method="sgd", options={"ftol": 1e-3}), "ftol .* compares"),
    (lambda: fl.minimize(None, [1.0]), r"must be a function of x \(None where jac is a function, and gradients"),
    (lambda: fl.descend(lambda w: (None, w), [1.0], fl.SGD(), steps=2, target=0.0), "no value .None., but target and"),
    (lambda: fl.descend(lambda w: (None, w), [1.0], fl.SGD(), steps=2, patience=1), "no value .None., but target and"),
])  # fmt: skip
def test_what_is_about_values_says_that_there_are_none(call, said):
    with pytest.raises(TypeError, match=said):
        call()


def test_the_result_has_the_points_to_report_and_the_optimizer_that_was_stepped():
    method = fl.chain(fl.ScheduleFreeSGD(0.5), fl.average(0.5))
    found = fl.minimize(None, np.zeros(3), jac=jac, method=method, options={"maxiter": 5})
    assert (method.t, found.optimizer.t) == (0, 5)
    np.testing.assert_array_equal(found.rest, found.optimizer.rest(found.x_last))
    np.testing.assert_array_equal(found.averaged, found.optimizer.averaged)
    plain = fl.minimize(None, np.zeros(3), jac=jac, method=fl.SGD(0.5), options={"maxiter": 5})
    np.testing.assert_array_equal(plain.rest, plain.x_last)
    assert "averaged" not in plain
