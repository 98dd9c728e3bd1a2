"""`fl.minimize` and every optimizer as a SciPy method: SciPy's conventions, checked against SciPy itself."""

import math
import warnings

import numpy as np
import pytest
import scipy.optimize
from scipy.optimize import Bounds, rosen, rosen_der

import fallline as fl
from bowls import CENTRE, START, Counted, bowl, bowl_both, bowl_der


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
    rule = fl.OPTIMIZERS[name].rule
    named = name, name.lower(), name.upper(), fl.OPTIMIZERS[name]
    for method in (*named, fl.OPTIMIZERS[name](), optimizer, rule, rule()):
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
