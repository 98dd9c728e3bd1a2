"""What `minimize` and SciPy's door to it say of a run is true, whatever optimizer they are given."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

import fallline as fl
from methods import BOUNDS, PROBLEMS, bowl, methods, plateau, uphill, wave
from support import NAMES, drawn, frozen


def clipped(x, bounds):
    low, high = np.array([[-np.inf if a is None else a, np.inf if b is None else b] for a, b in bounds]).T
    return np.clip(x, low, high)


def free_norm(x, grad, bounds, climbs):
    down = -grad if climbs else grad
    return np.abs(down if bounds is None else x - clipped(x - down, bounds)).max()


@pytest.mark.slow
@drawn(300)
@given(
    method=methods(),
    problem=st.sampled_from(list(PROBLEMS)),
    start=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    bounds=st.sampled_from(list(BOUNDS)),
    criteria=st.fixed_dictionaries({"gtol": st.sampled_from([0.0, 1e-6, 1e-2])}, optional={
        "ftol": st.sampled_from([0.0, 1e-12, 1e-4]), "xtol": st.sampled_from([0.0, 1e-12, 1e-4])}),
    maxiter=st.sampled_from([0, 1, 7, 60]),
)
def test_what_minimize_says_is_true_of_the_point_that_it_returns(method, problem, start, bounds, criteria, maxiter):
    opt, climbs = method
    fun = uphill(PROBLEMS[problem]) if climbs else PROBLEMS[problem]
    bounds = BOUNDS[bounds]
    options = {**criteria, "maxiter": maxiter, "return_all": True}
    with np.errstate(all="ignore"):
        result = fl.minimize(fun, np.array(start), jac=True, method=opt, bounds=bounds, options=options)
        value, grad = fun(result.x)
        path = [fun(x)[0] for x in result.allvecs]
    assert (result.fun, frozen(result.jac)) == (value, frozen(grad))
    assert frozen(result.x_last) == frozen(result.allvecs[-1])
    assert result.success == (result.status == 0) == result.message.startswith("converged")
    if bounds is not None:
        assert all(np.array_equal(x, clipped(x, bounds)) for x in result.allvecs if np.isfinite(x).all())
    finite = [v for v in path if math.isfinite(v)]
    best = max(finite) if climbs else min(finite)
    norm = free_norm(result.x, grad, bounds, climbs)
    said = re.search(r"gradient norm (is )?([-+.e0-9]+)( |:|;|,|$)", result.message)
    if said:
        np.testing.assert_allclose(float(said[2]), norm, rtol=1e-2, atol=1e-12)
    if not result.success:
        assert result.fun == best
        return
    assert abs(result.fun - best) <= 1e-6 * max(map(abs, finite))
    assert frozen(result.x) == frozen(result.x_last)
    if "within gtol" in result.message:
        assert norm <= criteria["gtol"] * (1 + 1e-9)
    else:  # there was a step, and it was the first so short, or of so little effect
        assert not np.array_equal(result.allvecs[-2], result.allvecs[-1])
        name = "ftol" if "ftol" in result.message else "xtol"
        assert measured(name, path, result.allvecs)[-1] <= criteria[name]


def measured(name, path, points):
    """The changes that ftol and xtol are about, step by step."""
    if name == "ftol":
        return [abs(b - a) / max(abs(a), abs(b), 1) for a, b in pairwise(path)]
    return [np.abs(b - a).max() / max(np.abs(a).max(), np.abs(b).max(), 1) for a, b in pairwise(points)]


@pytest.mark.slow
@drawn(40)
@given(method=methods(), start=st.tuples(st.floats(-2, 2), st.floats(-2, 2)), bounds=st.sampled_from(list(BOUNDS)))
def test_scipys_minimize_says_the_same(method, start, bounds):
    opt, climbs = method
    fun, options = uphill(wave) if climbs else wave, {"maxiter": 30, "xtol": 1e-6}
    with np.errstate(all="ignore"):
        ours = fl.minimize(fun, start, jac=True, method=opt, bounds=BOUNDS[bounds], options=options)
        theirs = scipy.optimize.minimize(fun, start, jac=True, method=opt, bounds=BOUNDS[bounds], options=options)
    for name in ("x", "fun", "jac", "nit", "success", "status", "message", "x_last", "fun_last"):
        assert frozen(ours[name]) == frozen(theirs[name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("failing", ["value", "gradient"])
@pytest.mark.parametrize("jac", ["one function", "two functions"])
def test_minimize_goes_on_past_what_its_optimizer_skips(name, failing, jac):
    calls = 0

    def flaky(x):
        nonlocal calls
        calls += 1
        value, grad = bowl(x)
        bad = calls % 7 in (1, 2, 3)
        return np.nan if bad and failing == "value" else value, grad * np.nan if bad and failing == "gradient" else grad

    method = fl.OPTIMIZERS[name](nonfinite="skip")
    separate = {"fun": lambda x: flaky(x)[0], "jac": lambda x: flaky(x)[1]}
    given_ = {"fun": flaky, "jac": True} if jac == "one function" else separate
    result = fl.minimize(x0=[3.0, -1.0], method=method, options={"maxiter": 40, "gtol": 0.0}, **given_)
    assert (result.status, result.nit) == (1, 40)
    assert math.isfinite(result.fun)
    assert method.t == method.skipped == 0  # it was copied


def test_a_point_that_never_is_finite_ends_a_run_of_an_optimizer_that_skips():
    calls = []

    def broken(x):
        calls.append(x)
        return 1.0, np.full(2, np.nan)

    result = fl.minimize(broken, [1.0, 2.0], jac=True, method=fl.SGD(nonfinite="skip"))
    assert (result.status, len(calls)) == (3, 5)
    assert result.message.startswith("cannot start: the gradient is not finite at x0")


def test_a_walk_that_comes_to_rest_above_its_best_point_has_not_converged():
    result = fl.minimize(plateau, [0.5], jac=True, method=fl.SGD(100.0))
    assert (result.success, result.status, result.x.tolist()) == (False, 1, [0.5])
    assert result.message == ("came to rest after 1 steps above the best value, where the gradient norm is 0.779: "
                              "lower lr")


def test_a_climb_returns_the_highest_point_and_says_so():
    climb = fl.chain(fl.maximize(), fl.SGD(0.1))
    result = fl.minimize(uphill(bowl), [3.0, 4.0], jac=True, method=climb)
    assert result.success
    np.testing.assert_allclose(result.x, 1, atol=1e-5)
    down = fl.minimize(uphill(bowl), [3.0, 4.0], jac=True, method=fl.chain(fl.maximize(), fl.SGD(1.1)),
                       options={"maxiter": 5})  # fmt: skip
    assert (down.x.tolist(), down.status) == ([3.0, 4.0], 1)
    assert down.message.startswith("stopped at maxiter (5) below the value at x0")
    run = fl.descend(uphill(bowl), np.array([3.0, 4.0]), climb.fresh(), steps=200, target=-0.1, progress=False)
    assert run.message == "reached the target -0.1 with value -0.0959231 after 11 steps: raise target to go on"
    stuck = fl.descend(uphill(bowl), np.ones(2), climb.fresh(), steps=200, patience=3, progress=False)
    assert stuck.message == "no value above -0 in the last 3 steps: lower lr to go higher, or raise patience"


@pytest.mark.parametrize("options", [{"target": 0.0}, {"patience": 3}])
def test_where_some_parts_climb_and_others_descend_there_is_no_best_value(options):
    game = fl.partition({"x": fl.SGD(), "y": fl.chain(fl.maximize(), fl.SGD())}, {"x": "x", "y": "y"})
    start = {"x": np.ones(2), "y": np.ones(2)}

    def value_and_grad(w):
        return float(w["x"] @ w["y"]), {"x": w["y"].copy(), "y": w["x"].copy()}

    with pytest.raises(ValueError, match=r"needs a best value, but some parts climb and others descend: partition\("):
        fl.minimize(value_and_grad, start, jac=True, method=game)
    with pytest.raises(ValueError, match="of descend needs a best value, but some parts climb and others"):
        fl.descend(value_and_grad, start, game, steps=3, progress=False, **options)
    assert fl.descend(value_and_grad, start, game, steps=3, progress=False).t == 3


@pytest.mark.parametrize("jac", [True, None])
@pytest.mark.parametrize("bounds", [None, [(None, 0.5), (None, None), (None, None)]])
def test_a_criterion_is_about_the_leaves_that_are_stepped(jac, bounds):
    """Those that a mask leaves alone are held, as coordinates are whose bounds meet."""
    def fun(x):
        value = float(((x["a"] - 1) ** 2).sum() + ((x["b"] - 7) ** 2).sum())
        return (value, {"a": 2 * (x["a"] - 1), "b": 2 * (x["b"] - 7)}) if jac else value

    for frozen_b in (fl.mask({"a": True, "b": False}, fl.SGD(0.1)),
                     fl.partition({"x": fl.SGD(0.1), "y": None}, {"a": "x", "b": "y"})):
        result = fl.minimize(fun, {"a": [3.0, 4.0], "b": [0.0]}, jac=jac, method=frozen_b, bounds=bounds)
        assert result.success
        assert result.x["b"].tolist() == [0.0]
        np.testing.assert_allclose(result.x["a"], [0.5 if bounds else 1.0, 1.0], atol=1e-5)


@pytest.mark.parametrize("call", [
    lambda opt: scipy.optimize.minimize_scalar(lambda x: x * x, method=opt),
    lambda opt: scipy.optimize.minimize_scalar(lambda x: x * x, bracket=(0, 1), method=opt),
    lambda opt: scipy.optimize.minimize_scalar(lambda x: x * x, bounds=(0, 1), method=opt, options={"maxiter": 3}),
    lambda opt: opt(),
    lambda opt: opt(np.ones(2)),
])  # fmt: skip
@pytest.mark.parametrize("make", [fl.SGD, lambda: fl.chain(fl.clip_norm(), fl.SGD()), fl.Adam])
def test_who_gives_no_start_is_told_where_one_is_given(call, make):
    with pytest.raises(TypeError, match=r"minimize_scalar has none: call scipy\.optimize\.minimize\(fun, x0, method="):
        call(make())
