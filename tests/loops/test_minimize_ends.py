"""How runs of `fl.minimize` end: what stops them, and what they say where they diverge."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest

import fallline as fl
from bowls import START, Counted, bowl, bowl_der, steps
from fallline._loops.search import Status

# ---- stopping --------------------------------------------------------------------------------------------------------


def history(result, fun=bowl):
    return result.allvecs, [fun(x) for x in result.allvecs]


def test_ftol_stops_at_the_first_relative_change_of_the_value_within_it():
    ftol = 1e-3
    result = fl.minimize(bowl, START, jac=bowl_der, method=fl.SGD(lr=0.05), options=steps(ftol=ftol, return_all=True))
    _, values = history(result)
    small = [abs(a - b) / max(abs(a), abs(b), 1) <= ftol for a, b in pairwise(values)]
    assert small == [False] * (len(small) - 1) + [True]
    assert result.success
    assert "no more than ftol (0.001)" in result.message


def test_xtol_stops_at_the_first_relative_step_within_it():
    xtol = 1e-3
    result = fl.minimize(bowl, START, jac=bowl_der, method=fl.SGD(lr=0.05), options=steps(xtol=xtol, return_all=True))
    x, _ = history(result)
    small = [abs(a - b).max() / max(abs(a).max(), abs(b).max(), 1) <= xtol for a, b in pairwise(x)]
    assert small == [False] * (len(small) - 1) + [True]
    assert result.success
    assert "no longer than xtol (0.001)" in result.message


def test_ftol_and_xtol_are_off_unless_given():
    flat = fl.minimize(lambda x: 0.0, START, jac=np.ones_like, method=fl.SGD(lr=0.0), options={"maxiter": 20})
    assert (flat.status, flat.nit) == (1, 20)


def test_gtol_is_the_max_norm_at_every_point():
    result = fl.minimize(bowl, START, jac=bowl_der, method=fl.SGD(lr=0.05), options={"gtol": 0.1, "return_all": True})
    norms = [np.abs(bowl_der(x)).max() for x in result.allvecs]
    assert [norm <= 0.1 for norm in norms] == [False] * (len(norms) - 1) + [True]


def test_the_message_has_the_numbers_and_the_remedy():
    result = fl.minimize(bowl, START, jac=bowl_der, method="sgd", options={"maxiter": 7})
    norm = np.abs(bowl_der(result.x_last)).max()
    assert result.message == f"stopped at maxiter (7) with gradient norm {norm:.3g}: raise lr or maxiter"
    assert "raise eps" in fl.minimize(bowl, START, jac=bowl_der, method="adadelta", options={"maxiter": 7}).message


def test_x_is_the_best_point_and_x_last_the_last():
    result = fl.minimize(bowl, START, jac=bowl_der, method=fl.SGD(lr=1.1), options={"maxiter": 5, "return_all": True})
    x, values = history(result)
    np.testing.assert_array_equal(result.x, START)
    assert result.fun == min(values)
    np.testing.assert_array_equal(result.x_last, x[-1])
    assert result.fun_last == values[-1] > result.fun
    assert result.status == 1
    assert result.message.startswith("stopped at maxiter (5) above the value at x0")
    assert result.message.endswith(": lower lr")


@pytest.mark.parametrize("status", Status)
def test_every_status_is_a_sentence_and_only_convergence_is_success(status):
    assert (status.code == 0) == status.value.startswith("converged")


# ---- divergence ------------------------------------------------------------------------------------------------------


def diverging(x):
    with np.errstate(over="ignore"):
        return (x**4).sum(), 4 * x**3


@pytest.mark.parametrize("nonfinite", ["raise", "skip", "propagate"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bounds", [None, [(0, None), (None, None), (None, 0)]])
def test_a_run_that_diverges_ends_with_a_status_and_the_best_finite_point(nonfinite, dtype, bounds):
    x0 = START.astype(dtype)
    method = fl.SGD(lr=1e9, nonfinite=nonfinite)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fl.minimize(diverging, x0, jac=True, method=method, bounds=bounds)
    assert (result.success, result.status) == (False, 2)
    assert result.message.startswith("diverged after ")
    assert "lower lr" in result.message
    assert not math.isfinite(result.fun_last)
    assert math.isfinite(result.fun)
    value, grad = diverging(result.x)
    assert (result.fun, result.jac.dtype) == (value, dtype)
    np.testing.assert_array_equal(result.jac, grad)
    assert result.fun <= diverging(x0)[0]
    assert result.nit < 10


def test_fun_is_not_called_where_x_is_not_finite():
    fun = Counted(lambda x: (0.0, np.full(3, 1e300)))
    result = fl.minimize(fun, START, jac=True, method=fl.SGD(lr=1e10))
    assert len(fun.kept) == result.nfev == 1
    assert result.status == 2
    assert "x is not finite" in result.message


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bounds", [None, [(0, 5)] * 3])
def test_a_gradient_that_is_not_finite_is_divergence(bad, bounds):
    def both(x):
        return bowl(x), bowl_der(x) if x[0] > 2.5 else np.array([bad, 1, 1])

    result = fl.minimize(both, START, jac=True, method=fl.SGD(lr=0.1), bounds=bounds)
    assert (result.success, result.status) == (False, 2)
    assert "the gradient is not finite" in result.message


@pytest.mark.parametrize("leaf", ["a", "b", "c"])
def test_a_gradient_that_is_not_finite_is_found_in_any_leaf(leaf):
    x0 = {"a": np.ones(2), "b": np.ones(2), "c": np.ones(2)}
    grad = {**x0, leaf: np.array([1.0, math.nan])}
    assert fl.minimize(lambda p: (1.0, grad), x0, jac=True).status == 3


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("jac", [bowl_der, None, True])
def test_a_start_that_is_not_finite_is_said_to_be(value, jac):
    result = fl.minimize(lambda x: (value, bowl_der(x)) if jac is True else value, START, jac=jac)
    assert (result.success, result.status, result.nit, result.nfev) == (False, 3, 0, 1)
    assert f"the value is {value} at x0" in result.message
    np.testing.assert_array_equal(result.x, START)
    assert fl.minimize(bowl, [1.0, math.nan, 0.0], jac=bowl_der).message.startswith("cannot start: x is not finite")


def test_an_overflow_in_python_arithmetic_is_divergence():
    result = fl.minimize(lambda x: float(x[0]) ** 4, [3.0], jac=lambda x: 4 * x**3, method=fl.SGD(lr=1.0))
    assert result.status == 2
    assert "OverflowError" in result.message
    np.testing.assert_array_equal(result.x, [3.0])


def test_an_infinity_beside_x_ends_finite_differences_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fl.minimize(lambda x: 1.0 if x[0] == 2.0 else math.inf, [2.0], jac="3-point")
    assert result.status == 3
    assert "gradient is not finite" in result.message


def test_warnings_of_the_callers_function_are_the_callers():
    def fun(x):
        return float((np.float64(1e308) * 10) - x[0]) if x[0] > 1 else float(x[0])

    with pytest.warns(RuntimeWarning, match="overflow"):
        fl.minimize(fun, [1.0])
