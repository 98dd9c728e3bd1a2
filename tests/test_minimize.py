"""`fl.minimize` and every optimizer as a SciPy method: SciPy's conventions, checked against SciPy itself."""

import math
import warnings
from collections import namedtuple
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
import scipy.optimize
from scipy.optimize import Bounds, rosen, rosen_der

import fallline as fl
from conftest import need
from fallline.minimize import Status

CENTRE = np.array([1.0, -2.0, 0.5])
START = np.array([3.0, 1.0, -1.0])


def bowl(x, centre=CENTRE):
    return float(((x - centre) ** 2).sum())


def bowl_der(x, centre=CENTRE):
    return 2 * (x - centre)


def bowl_both(x, centre=CENTRE):
    return bowl(x, centre), bowl_der(x, centre)


def steps(**options):
    """Options of so many steps that nothing else stops."""
    return {"gtol": 0.0, **options}


class Counted:
    """A function that counts its calls and keeps every x it was given, and a copy."""

    def __init__(self, function):
        self.function, self.kept, self.copies = function, [], []

    def __call__(self, x, *args):
        self.kept.append(x)
        self.copies.append(np.array(x))
        return self.function(x, *args)


def by_lbfgsb(fun, x0, args=(), **options):
    return scipy.optimize.minimize(fun, x0, args, method="L-BFGS-B", **options)


def by_bfgs(fun, x0, args=(), **options):
    return scipy.optimize.minimize(fun, x0, args, method="BFGS", **options)


def as_method(fun, x0, args=(), **options):
    return scipy.optimize.minimize(fun, x0, args, method=fl.Adam(lr=0.1), **options)


def by_fallline(fun, x0, args=(), **options):
    return fl.minimize(fun, x0, args, method=fl.Adam(lr=0.1), **options)


# SciPy's own solver first in each list: it says what the convention is.
SOLVERS = pytest.mark.parametrize("solve", [by_lbfgsb, as_method, by_fallline])
RETURNING_ALL = pytest.mark.parametrize("solve", [by_bfgs, as_method, by_fallline])


# ---- conventions shared with SciPy -----------------------------------------------------------------------------------


@SOLVERS
def test_the_result_has_scipys_fields(solve):
    result = solve(bowl, START, jac=bowl_der)
    assert isinstance(result, scipy.optimize.OptimizeResult)
    np.testing.assert_allclose(result.x, CENTRE, atol=1e-4)
    assert result.fun == bowl(result.x)
    np.testing.assert_array_equal(result.jac, bowl_der(result.x))
    assert result.success is True
    assert result.status == 0
    assert isinstance(result.message, str)
    assert result.nit > 0
    assert {"nfev", "njev"} <= result.keys()


@SOLVERS
@pytest.mark.parametrize("jac", [True, bowl_der, None])
def test_evaluations_are_counted(solve, jac):
    fun = Counted(bowl_both if jac is True else bowl)
    der = Counted(jac) if callable(jac) else jac
    result = solve(fun, START, jac=der)
    assert result.nfev == len(fun.kept)
    if callable(der):
        assert result.njev == len(der.kept)
    if jac is None:
        assert result.nfev == result.njev * (len(START) + 1)


@SOLVERS
def test_each_call_gets_an_x_of_its_own_that_nobody_changes_afterwards(solve):
    fun, der, seen = Counted(bowl), Counted(bowl_der), Counted(lambda x: None)
    result = solve(fun, START, jac=der, callback=seen)
    for counted in (fun, der, seen):
        for kept, copy in zip(counted.kept, counted.copies):
            np.testing.assert_array_equal(kept, copy)
    kept = [id(x) for x in fun.kept + der.kept]
    assert len(set(kept)) == len(kept)
    assert all(not np.shares_memory(result.x, x) for x in fun.kept + der.kept)


@SOLVERS
def test_a_function_may_overwrite_what_it_is_given(solve):
    def rude(function):
        def call(x):
            value = function(x)
            x[:] = math.nan
            return value

        return call

    callback = rude(lambda xk: None)
    result = solve(rude(bowl), START, jac=rude(bowl_der), callback=callback)
    np.testing.assert_array_equal(result.x, solve(bowl, START, jac=bowl_der).x)


@pytest.mark.parametrize("jac", [True, bowl_der])
def test_a_gradient_buffer_that_is_used_again_changes_no_result(jac):
    buffer = np.empty(3)

    def der(x):
        buffer[:] = bowl_der(x)
        return buffer

    fun = (lambda x: (bowl(x), der(x))) if jac is True else bowl
    result = fl.minimize(fun, START, jac=jac if jac is True else der, method=fl.SGD(lr=1.1), options={"maxiter": 5})
    np.testing.assert_array_equal(result.x, START)  # the best point was the first of six
    np.testing.assert_array_equal(result.jac, bowl_der(START))


@SOLVERS
@pytest.mark.parametrize("x0", [[3, 1, -1], [3.0, 1.0, -1.0], (3, 1, -1), START, START.astype(int)])
def test_x0_may_be_numbers_of_any_kind_and_is_never_changed(solve, x0):
    before = np.array(x0)
    result = solve(bowl, x0, jac=bowl_der)
    np.testing.assert_array_equal(x0, before)
    assert result.x.dtype == np.float64
    np.testing.assert_array_equal(result.x, solve(bowl, START, jac=bowl_der).x)


@SOLVERS
def test_a_single_number_becomes_an_array_of_one(solve):
    result = solve(lambda x: float((x[0] - 2) ** 2), 5, jac=lambda x: 2 * (x - 2))
    assert result.x.shape == (1,)
    np.testing.assert_allclose(result.x, [2.0], atol=1e-4)


@SOLVERS
@pytest.mark.parametrize("args", [(CENTRE + 1,), CENTRE + 1])
def test_args_reach_fun_and_jac(solve, args):
    np.testing.assert_allclose(solve(bowl, START, args, jac=bowl_der).x, CENTRE + 1, atol=1e-4)


@SOLVERS
@pytest.mark.parametrize("returned", [float, np.float64, lambda v: np.array([v])])
def test_fun_may_return_a_number_or_an_array_of_one(solve, returned):
    np.testing.assert_allclose(solve(lambda x: returned(bowl(x)), START, jac=bowl_der).x, CENTRE, atol=1e-4)


@SOLVERS
@pytest.mark.parametrize(
    "bounds", [[(2.0, None), (None, None), (None, -0.25)], Bounds([2.0, -np.inf, -np.inf], [np.inf, np.inf, -0.25])]
)
def test_bounds_hold_at_every_evaluation_and_the_solution_lies_in_the_corner(solve, bounds):
    fun = Counted(bowl)
    result = solve(fun, [-5.0, 1.0, 7.0], jac=bowl_der, bounds=bounds)
    np.testing.assert_allclose(result.x, [2.0, -2.0, -0.25], atol=1e-4)
    assert result.x[0] == 2.0
    assert result.x[2] == -0.25
    assert result.success
    x = np.array(fun.copies)
    assert (x[:, 0] >= 2.0).all()
    assert (x[:, 2] <= -0.25).all()
    np.testing.assert_array_equal(x[0], [2.0, 1.0, -0.25])


@SOLVERS
def test_bounds_of_one_pair_for_all_and_lower_above_upper(solve):
    np.testing.assert_allclose(solve(bowl, START, jac=bowl_der, bounds=Bounds(-1, 0.75)).x, [0.75, -1, 0.5], atol=1e-4)
    with pytest.raises(ValueError, match="lower"):
        solve(bowl, START, jac=bowl_der, bounds=[(0, 1), (1, 0), (0, 1)])
    with pytest.raises(ValueError, match="bounds"):
        solve(bowl, START, jac=bowl_der, bounds=[(0, 1), (0, 1)])


@SOLVERS
@pytest.mark.parametrize("jac", [bowl_der, None])
def test_a_coordinate_whose_bounds_meet_stays_there(solve, jac):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = solve(bowl, START, jac=jac, bounds=[(None, None), (0.25, 0.25), (None, None)])
    np.testing.assert_allclose(result.x, [1.0, 0.25, 0.5], atol=1e-4)
    assert result.success


@SOLVERS
def test_the_callback_gets_x_after_each_step(solve):
    seen = []
    result = solve(bowl, START, jac=bowl_der, callback=lambda xk: seen.append(xk))
    assert len(seen) == result.nit
    np.testing.assert_array_equal(seen[-1], result.get("x_last", result.x))


@SOLVERS
def test_the_callback_gets_an_intermediate_result_where_it_asks_for_one_by_name(solve):
    seen = []

    def callback(intermediate_result):
        assert isinstance(intermediate_result, scipy.optimize.OptimizeResult)
        assert intermediate_result.fun == bowl(intermediate_result.x)
        seen.append(intermediate_result)

    result = solve(bowl, START, jac=bowl_der, callback=callback)
    assert len(seen) == result.nit > 0


@SOLVERS
def test_a_callback_without_a_signature_is_called_with_x(solve):
    seen = []
    solve(bowl, START, jac=bowl_der, callback=seen.append)
    assert all(x.shape == (3,) for x in seen)


@SOLVERS
def test_stop_iteration_in_the_callback_stops_with_scipys_status(solve):
    def callback(xk):
        raise StopIteration

    result = solve(bowl, START, jac=bowl_der, callback=callback)
    assert (result.success, result.status, result.nit) == (False, 99, 1)
    assert "`callback` raised `StopIteration`" in result.message


@SOLVERS
def test_maxiter_ends_without_success(solve):
    result = solve(rosen, [-1.2, 1.0], jac=rosen_der, options={"maxiter": 3})
    assert (result.success, result.status, result.nit) == (False, 1, 3)


@SOLVERS
def test_a_start_at_the_minimum_takes_no_step(solve):
    result = solve(bowl, CENTRE, jac=bowl_der)
    assert (result.success, result.nit, result.nfev) == (True, 0, 1)


@SOLVERS
@pytest.mark.parametrize("jac", [None, False, "2-point", "3-point", "cs"])
def test_finite_differences_find_the_same_minimum(solve, jac):
    def fun(x):
        return ((x - CENTRE) ** 2).sum()  # may be complex

    result = solve(fun, START, jac=jac)
    np.testing.assert_allclose(result.x, CENTRE, atol=1e-4)
    np.testing.assert_allclose(result.jac, 0, atol=1e-4)


@SOLVERS
def test_finite_differences_stay_within_bounds(solve):
    def fun(x):
        assert (x >= 0).all()
        assert (x <= 1).all()
        return bowl(x)

    result = solve(fun, [0.0, 1.0, 0.5], bounds=[(0, 1)] * 3)
    np.testing.assert_allclose(result.x, [1.0, 0.0, 0.5], atol=1e-4)


@RETURNING_ALL
def test_return_all_keeps_every_x(solve):
    result = solve(bowl, START, jac=bowl_der, options={"return_all": True})
    assert len(result.allvecs) == result.nit + 1
    np.testing.assert_array_equal(result.allvecs[0], START)
    assert len({bowl(x) for x in result.allvecs}) > 1
    assert "allvecs" not in solve(bowl, START, jac=bowl_der)


@RETURNING_ALL
def test_disp_prints_a_summary(solve, capsys):
    result = solve(bowl, START, jac=bowl_der, options={"disp": True})
    assert capsys.readouterr().out.splitlines() == [
        result.message,
        f"         Current function value: {result.fun:f}",
        f"         Iterations: {result.nit}",
        f"         Function evaluations: {result.nfev}",
        f"         Gradient evaluations: {result.njev}",
    ]


@RETURNING_ALL
def test_tol_is_gtol_unless_the_options_have_one(solve):
    weights = np.array([1.0, 3.0, 0.5])

    def fun(x):
        return float((weights * (x - CENTRE) ** 2).sum() + (x**4).sum())

    def der(x):
        return 2 * weights * (x - CENTRE) + 4 * x**3

    loose, tight = solve(fun, START, jac=der, tol=0.5), solve(fun, START, jac=der)
    assert 1e-5 < np.abs(der(loose.get("x_last", loose.x))).max() <= 0.5
    assert loose.nit < tight.nit
    assert solve(fun, START, jac=der, tol=0.5, options={"gtol": 1e-5}).nit == tight.nit


# ---- every optimizer is a method -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", fl.OPTIMIZERS)
@pytest.mark.parametrize("jac", [True, bowl_der, None])
def test_every_optimizer_is_a_scipy_method(name, jac):
    optimizer = fl.OPTIMIZERS[name](**({"eps": 1e-2} if name == "AdaDelta" else {"lr": 1e-2}))
    arguments = {
        "args": (CENTRE + 1,), "jac": jac, "tol": 1e-9, "bounds": [(0, 2.5), (None, None), (None, 1)],
        "options": {"maxiter": 60, "return_all": True},
    }  # fmt: skip
    fun = bowl_both if jac is True else bowl
    ours = fl.minimize(fun, START, method=optimizer, **arguments)
    scipys = scipy.optimize.minimize(fun, START, method=optimizer, **arguments)
    assert ours.keys() == scipys.keys()
    np.testing.assert_array_equal(ours.allvecs, scipys.allvecs)
    assert (ours.message, ours.nfev, ours.nit) == (scipys.message, scipys.nfev, scipys.nit)
    assert ours.nit == 60
    assert ours.fun < bowl(np.clip(START, [0, -9, -9], [2.5, 9, 1]), CENTRE + 1)
    assert optimizer.t == 0


@pytest.mark.parametrize("name", fl.OPTIMIZERS)
def test_the_path_is_that_of_the_optimizer(name):
    optimizer, x = fl.OPTIMIZERS[name](), START.copy()
    path = [x.copy()]
    for _ in range(10):
        x = optimizer.step(x, bowl_der(x))
        path.append(x.copy())
    for method in (name, name.lower(), name.upper(), fl.OPTIMIZERS[name], fl.OPTIMIZERS[name](), optimizer):
        result = fl.minimize(bowl, START, jac=bowl_der, method=method, options={"maxiter": 10, "return_all": True})
        np.testing.assert_array_equal(result.allvecs, path)
    assert optimizer.t == 10


def test_scipys_basin_hopping_takes_an_optimizer_as_its_local_method():
    def fun(x):
        return float(np.sum(x**2 + 3 * (1 - np.cos(3 * x))))

    kwargs = {"method": fl.Adam(lr=0.05), "jac": lambda x: 2 * x + 9 * np.sin(3 * x)}
    result = scipy.optimize.basinhopping(fun, [2.2, -2.2], niter=20, stepsize=2.0, minimizer_kwargs=kwargs, rng=1)
    np.testing.assert_allclose(result.x, 0, atol=1e-4)


def test_the_default_method_is_adam_at_a_rate_of_a_hundredth():
    options = {"maxiter": 10}
    expected = fl.minimize(bowl, START, jac=bowl_der, method=fl.Adam(lr=1e-2), options=options)
    np.testing.assert_array_equal(fl.minimize(bowl, START, jac=bowl_der, options=options).x, expected.x)


def test_rosenbrock_is_solved():
    result = fl.minimize(rosen, [-1.2, 1.0, 0.5], jac=rosen_der, method=fl.Adam(lr=0.02))
    assert result.success
    np.testing.assert_allclose(result.x, 1.0, atol=1e-4)


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


# ---- trees, shapes, precision ----------------------------------------------------------------------------------------


def tree_fun(p):
    return float((p["W"] ** 2).sum() + (p["b"][0] - 1) ** 2 + ((p["b"][1] + 2) ** 2).sum())


def tree_der(p):
    return {"W": 2 * p["W"], "b": [2 * (p["b"][0] - 1), 2 * (p["b"][1] + 2)]}


def tree():
    return {"W": np.array([[1.0, -2.0], [0.5, 3.0]]), "b": [4.0, [1.0, -1.0]]}


@pytest.mark.parametrize("jac", [tree_der, None, True])
@pytest.mark.parametrize("bounds", [None, [(0.25, None)] + [(None, None)] * 4 + [(None, -1.5)] * 2])
def test_x0_may_be_a_tree(jac, bounds):
    x0 = tree()
    fun = (lambda p: (tree_fun(p), tree_der(p))) if jac is True else tree_fun
    result = fl.minimize(fun, x0, jac=jac, method=fl.Adam(lr=0.1), bounds=bounds)
    assert result.success
    np.testing.assert_allclose(result.x["W"], [[0.25 if bounds else 0, 0], [0, 0]], atol=1e-4)
    np.testing.assert_allclose(result.x["b"][0], 1, atol=1e-4)
    np.testing.assert_allclose(result.x["b"][1], [-2, -2], atol=1e-4)
    np.testing.assert_allclose(result.jac["b"][1], [0, 0], atol=1e-4)
    assert x0["b"] == [4.0, [1.0, -1.0]]
    np.testing.assert_array_equal(x0["W"], tree()["W"])


def test_settings_by_leaf_reach_the_leaves():
    method = fl.SGD(lr={"W": 0.1, "b": 0.0})
    result = fl.minimize(tree_fun, tree(), jac=tree_der, method=method, options={"maxiter": 1})
    np.testing.assert_allclose(result.x["W"], 0.8 * tree()["W"])
    assert result.x["b"][0] == 4.0


def test_a_namedtuple_of_numbers_is_a_tree():
    Point = namedtuple("Point", "x y")
    result = fl.minimize(lambda p: float((p.x - 1) ** 2 + (p.y + 1) ** 2), Point(0.0, 0), method=fl.Adam(lr=0.1))
    assert type(result.x) is Point
    assert (result.x.x, result.x.y) == (pytest.approx(1, abs=1e-4), pytest.approx(-1, abs=1e-4))


def test_a_list_of_unequal_lists_is_a_tree_of_arrays():
    result = fl.minimize(lambda p: float((p[0] ** 2).sum() + (p[1] ** 2).sum()), [[1, 2], [3]], method=fl.Adam(lr=0.1))
    assert [leaf.shape for leaf in result.x] == [(2,), (1,)]
    assert result.success


def test_arrays_keep_their_shape_and_floating_dtype():
    x0 = np.full((2, 3), 2, dtype=np.float32)
    result = fl.minimize(lambda x: np.float32((x * x).sum()), x0, jac=lambda x: 2 * x, method=fl.Adam(lr=0.1))
    assert (result.x.shape, result.x.dtype, result.jac.dtype) == ((2, 3), np.float32, np.float32)
    assert result.success
    nested = fl.minimize(lambda x: (x * x).sum(), [[1, 2], [3, 4]], jac=lambda x: 2 * x, method=fl.Adam(lr=0.1))
    assert nested.x.shape == (2, 2)


@pytest.mark.parametrize("jac", ["2-point", "3-point"])
def test_finite_differences_agree_with_the_gradient_in_each_leafs_precision(jac):
    x0 = {"a": np.array([0.3, 1.7], dtype=np.float32), "b": np.array([1.1, -0.4])}

    def fun(p):
        return float(np.sin(p["a"]).sum() + (p["b"] ** 3).sum())

    result = fl.minimize(fun, x0, jac=jac, options={"maxiter": 0})
    np.testing.assert_allclose(result.jac["a"], np.cos(x0["a"]), rtol=5e-3)
    np.testing.assert_allclose(result.jac["b"], 3 * x0["b"] ** 2, rtol=1e-6)


@pytest.mark.parametrize("library", ["numpy", "torch", "jax.numpy"])
def test_finite_differences_suit_the_precision_that_fun_computes_in(library):
    xp = need(library) if library != "numpy" else np

    def fun(x):
        return (xp.asarray(x, dtype=xp.float32) ** 2).sum()

    result = fl.minimize(fun, [1.0, -2.0], options={"maxiter": 0})
    np.testing.assert_allclose(result.jac, [2, -4], rtol=5e-3)


@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_x0_fun_and_jac_may_come_from_another_library(library):
    xp = need(library)
    x0 = xp.asarray([1.0, -2.0], dtype=xp.float32)
    result = fl.minimize(
        lambda x: (xp.asarray(x) ** 2).sum(), x0, jac=lambda x: 2 * xp.asarray(x), method=fl.Adam(lr=0.1)
    )
    assert result.success
    assert (type(result.x), result.x.dtype, type(result.jac)) == (np.ndarray, np.float32, np.ndarray)
    np.testing.assert_array_equal(np.asarray(x0), [1.0, -2.0])


def test_finite_diff_rel_step_is_passed_on():
    x0 = np.array([2.0, 4.0, 8.0])
    for rel_step in (1e-3, [1e-3, 1e-2, 1e-1]):
        fun = Counted(bowl)
        fl.minimize(fun, x0, options={"maxiter": 0, "finite_diff_rel_step": rel_step})
        moved = [(x - x0)[k] for k, x in enumerate(fun.copies[1:])]
        np.testing.assert_allclose(moved, np.multiply(rel_step, x0), rtol=1e-9)
        fixed = Counted(bowl)
        fl.minimize(
            fixed, x0, bounds=[(0, 9), (4, 4), (0, 9)], options={"maxiter": 0, "finite_diff_rel_step": rel_step}
        )
        np.testing.assert_array_equal(fixed.copies, [fun.copies[k] for k in (0, 1, 3)])


def test_an_empty_x0_is_solved_already():
    result = fl.minimize(lambda x: 1.0, [], jac=lambda x: x)
    assert (result.success, result.nit, result.fun) == (True, 0, 1.0)


# ---- what is refused -------------------------------------------------------------------------------------------------

REFUSED = [
    ({"method": "adm"}, ValueError, "Unknown method 'adm' of minimize. Known methods: SGD, Momentum, Nesterov"),
    ({"method": 3}, TypeError, "method of minimize must be an optimizer such as fallline.Adam(lr=1e-2)"),
    ({"options": {"maxiters": 3}}, ValueError, "Unknown option 'maxiters' of minimize. Known options: maxiter, gtol"),
    ({"options": {"maxiter": 1e4}}, TypeError, "maxiter of minimize must be a whole number ≥ 0. Got 10000.0"),
    ({"options": {"maxiter": -1}}, ValueError, "maxiter of minimize must be a whole number ≥ 0. Got -1"),
    ({"options": {"gtol": "x"}}, TypeError, "gtol of minimize must be a number ≥ 0"),
    ({"options": {"ftol": -1}}, ValueError, "ftol of minimize must be a number ≥ 0. Got -1"),
    ({"tol": math.nan}, ValueError, "gtol of minimize must be a number ≥ 0. Got nan"),
    ({"constraints": {"type": "eq", "fun": bowl}}, ValueError, "minimize takes no constraints"),
    ({"hess": np.eye}, ValueError, "minimize takes no hess:"),
    ({"hessp": np.eye}, ValueError, "minimize takes no hessp"),
    ({"bounds": [(0, 1), (3, 2), (0, 1)]}, ValueError, "lower ≤ upper. Got (3.0, 2.0) at index 1"),
    ({"bounds": [(0, 1), (0, math.nan), (0, 1)]}, ValueError, "lower ≤ upper. Got (0.0, nan) at index 1"),
    ({"bounds": (0, 1)}, ValueError, "a (lower, upper) pair for each of the 3 parameters"),
    ({"bounds": [(0, 1)]}, ValueError, "a (lower, upper) pair for each of the 3 parameters"),
    ({"jac": "4-point"}, ValueError, "one of 2-point, 3-point, cs. Got '4-point'"),
    ({"jac": lambda x: x[:2]}, ValueError, "gradient from jac of minimize must have shape (3,), like x. Got (2,)"),
    ({"jac": lambda x: x[:, None]}, ValueError, "Got (3, 1)"),
    ({"jac": lambda x: x * 1j}, TypeError, "must be real numbers"),
    ({"jac": lambda x: None}, TypeError, "must be real numbers. Got NoneType"),
    ({"jac": True}, TypeError, "fun of minimize with jac=True must return (value, gradient). Got float"),
    ({"fun": lambda x: x}, ValueError, "fun of minimize must return one real number. Got ndarray of shape (3,)"),
    ({"fun": lambda x: None}, TypeError, "fun of minimize must return one real number. Got NoneType"),
    ({"fun": lambda x: 1j}, TypeError, "fun of minimize must return one real number. Got complex"),
    ({"fun": 3}, TypeError, "fun of minimize must be a function of x. Got int"),
    ({"x0": [1j]}, TypeError, "x0 of minimize must be real, as SciPy's minimisers have it: pass the real and the"),
    ({"x0": np.ones(3, np.complex64)}, TypeError, "(z.real, z.imag). Got complex64"),
    ({"x0": np.ones(3, ml_dtypes.bfloat16)}, TypeError, "convert it, x0.astype(np.float64). Got bfloat16"),
    ({"x0": np.ones(3, np.longdouble)}, TypeError, "must be float16, float32 or float64, which SciPy's"),
    ({"x0": None}, TypeError, "x0 of minimize must be real numbers or a tree of arrays of them. Got None"),
    ({"x0": {}}, TypeError, "Got {}"),
    ({"options": ["maxiter"]}, TypeError, "options of minimize must be a dict. Got list"),
    ({"x0": "abc"}, TypeError, "x0 of minimize must be real numbers"),
    ({"x0": np.ma.array([1.0, 2.0], mask=[0, 1])}, TypeError, "Got MaskedArray"),
    ({"x0": {"a": np.array([True])}}, TypeError, "of dtype bool"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED, ids=lambda case: str(case)[:24])
def test_bad_arguments_are_refused_in_one_sentence(change, error, message):
    arguments = {"fun": bowl, "x0": START, "jac": bowl_der, **change}
    if "fun" in change:
        arguments["jac"] = None
    with pytest.raises(error) as caught:
        fl.minimize(**arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"maxfun": 3}}, "Unknown option 'maxfun' of minimize. Known options: maxiter"),
        ({"constraints": {"type": "eq", "fun": bowl}}, "minimize takes no constraints"),
        ({"hess": lambda x: np.eye(3)}, "minimize takes no hess:"),
    ],
)
def test_a_scipy_method_refuses_the_same(change, message):
    with pytest.raises(ValueError, match=message):
        scipy.optimize.minimize(bowl, START, jac=bowl_der, method=fl.Adam(), **change)


@pytest.mark.parametrize("empty", [(), [], {}, None])
def test_no_constraints_are_fine(empty):
    assert fl.minimize(bowl, CENTRE, jac=bowl_der, constraints=empty).success


def test_a_gradient_that_is_another_tree_is_refused():
    with pytest.raises(ValueError, match="gradient from jac of minimize must be a tree of the same structure as x0"):
        fl.minimize(tree_fun, tree(), jac=lambda p: {"W": p["W"]})
