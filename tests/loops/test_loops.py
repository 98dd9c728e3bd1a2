"""What `minimize`, SciPy's door to it and `descend` say of a run is true, whatever optimizer they are given.

Rules, wrappers, problems and criteria are drawn together; a wrapper joins by a row in WRAPPERS.
"""

from __future__ import annotations

import contextlib
import math
import re
from itertools import pairwise

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

import fallline as fl
from fallline.schedules import constant, cosine, linear, piecewise
from support import NAMES, RATE_STARTS, WITH_RATE, drawn, frozen

TREES = ["Muon", "Adafactor"]  # which step matrices otherwise, and whose steps here are those of vectors


def scheduled(schedule):
    """The rule at a rate by that schedule, if it has one that schedules may set."""
    return lambda opt: opt if type(opt).__name__ not in WITH_RATE else type(opt)(schedule)


WRAPPERS = {
    "accumulate(2)": lambda opt: fl.accumulate(2, opt),
    "accumulate(3)": lambda opt: fl.accumulate(3, opt),
    "maximize": lambda opt: fl.chain(fl.maximize(), opt),
    "clip_norm": lambda opt: fl.chain(fl.clip_norm(0.5), opt),
    "partition": lambda opt: fl.partition({"some": opt, "rest": fl.SGD(0.05)}, lambda path: "some"),
    "mask": lambda opt: fl.mask(lambda path: True, opt),
}
MODIFIERS = {"average": lambda opt: fl.chain(opt, fl.average(0.9))}
RATES = {
    "warmup": constant(0.1, warmup=5),
    "ends at 0": linear(0.1, steps=20),
    "cosine": cosine(0.1, steps=30),
    "comes and goes": piecewise([0.1, 0.0, 0.1, 0.0], boundaries=[3, 9, 15]),
    "0": 0.0,
    "small": 0.01,
    "large": 0.7,
    "much too large": 100.0,
}


def bowl(x):
    return float(((x - 1) ** 2).sum()), 2 * (x - 1)


def plateau(x):
    """Flat far from its minimum, and higher there."""
    near = math.exp(-float(x @ x))
    return 1 - near, 2 * x * near


def valley(x):
    scale = 10.0 ** -np.arange(x.size)
    return 1e6 + float(scale @ x**2), 2 * scale * x


def wave(x):
    return float(np.sin(3 * x).sum() + 0.1 * (x @ x)), 3 * np.cos(3 * x) + 0.2 * x


PROBLEMS = {problem.__name__: problem for problem in (bowl, plateau, valley, wave)}
BOUNDS = {
    "none": None, "wide": [(-9.0, 9.0)] * 2, "near": [(-0.5, 0.7), (0.2, 3.0)], "half": [(None, 0.4), (-2.0, None)]
}  # fmt: skip


def uphill(problem):
    return lambda x: tuple(-part for part in problem(x))


@st.composite
def methods(draw):
    """An optimizer, and whether it climbs."""
    name = draw(st.sampled_from([name for name in NAMES if name not in TREES]))
    rate = RATES[draw(st.sampled_from(list(RATES)))]
    fits = name in WITH_RATE or (name in RATE_STARTS and not callable(rate))
    opt = fl.OPTIMIZERS[name](**({"lr": rate} if fits else {}))
    if draw(st.booleans()) and not name.startswith("ScheduleFree"):
        opt = MODIFIERS["average"](opt)
    around = draw(st.sampled_from([[], *([name] for name in WRAPPERS), ["maximize", "accumulate(2)"],
                                   ["maximize", "mask"], ["clip_norm", "partition"], ["mask", "accumulate(3)"]]))
    for wrapper in around:
        opt = WRAPPERS[wrapper](opt)
    return opt, "maximize" in around


def clipped(x, bounds):
    low, high = np.array([[-np.inf if a is None else a, np.inf if b is None else b] for a, b in bounds]).T
    return np.clip(x, low, high)


def free_norm(x, grad, bounds, climbs):
    down = -grad if climbs else grad
    return np.abs(down if bounds is None else x - clipped(x - down, bounds)).max()


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

    with pytest.raises(ValueError, match=r"there is none where some parts climb and others descend: partition\("):
        fl.minimize(value_and_grad, start, jac=True, method=game)
    with pytest.raises(ValueError, match="of descend looks for the best value, and there is none where some parts"):
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


# ---- descend ---------------------------------------------------------------------------------------------------------


class CutError(Exception):
    """What a run of the tests is cut by."""


def expected_end(values, points, counts, climbs, target, patience, scheduled):
    """How many values a run has by the words of its docstring, and why it ends there."""
    best, waited, stood = None, 0, 0
    for n, value in enumerate(values):
        height = value if climbs else -value
        if target is not None and height >= (target if climbs else -target):
            return n + 1, "TARGET"
        moved, stepped = n == 0 or points[n] != points[n - 1], n == 0 or counts[n] != counts[n - 1]
        stood = 0 if moved else stood + stepped
        if best is None or height > best:
            best, waited = height, 0
        else:
            waited += moved
        at_rest = not scheduled and patience is not None and stood >= max(patience, 2)
        if patience is not None and (waited >= patience or at_rest):
            return n + 1, "PATIENCE"
    return len(values), "STEPS"


@drawn(150)
@given(
    method=methods(),
    problem=st.sampled_from(list(PROBLEMS)),
    start=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    target=st.one_of(st.none(), st.sampled_from([-0.5, 0.1, 1e6])),
    patience=st.one_of(st.none(), st.integers(1, 6)),
    cut=st.integers(0, 40),
    batches=st.booleans(),
)
def test_descend_ends_where_it_says_and_again_after_a_cut(
    method, problem, start, target, patience, cut, batches, tmp_path_factory
):
    opt, climbs = method
    fun = uphill(PROBLEMS[problem]) if climbs else PROBLEMS[problem]
    noisy = {"batches": lambda t: math.sin(t)} if batches else {}

    def value_and_grad(w, *batch):
        value, grad = fun(w)
        return value + 0.1 * sum(batch), grad

    def run(opt, **options):
        with np.errstate(all="ignore"):
            return fl.descend(value_and_grad, np.array(start), opt, steps=40, progress=False, **noisy, **options)

    seen, walker = [], opt.fresh()
    whole = run(walker, callback=lambda point: seen.append((point.value, frozen(point.params), walker.t)))
    if whole.status.name == "DIVERGED":
        return
    end, why = expected_end(*zip(*seen), climbs, target, patience, any(map(callable, opt.hyper.values())))
    stopped = run(opt.fresh(), target=target, patience=patience)
    assert (len(stopped.values), stopped.status.name) == (end, why)
    assert frozen(stopped.values) == frozen(whole.values[:end])

    def cuts(point):
        if point.t >= cut:
            raise CutError

    file = tmp_path_factory.mktemp("run") / "run"
    options = {"target": target, "patience": patience, "checkpoint": file}
    with contextlib.suppress(CutError):
        run(opt.fresh(), callback=cuts, **options)
    again = run(opt.fresh(), **options)
    assert frozen([again.params, again.values]) == frozen([stopped.params, stopped.values])
    assert (again.status, again.message, again.t) == (stopped.status, stopped.message, stopped.t)


def made_longer(first, second, file, steps=10, callback=None):
    def value_and_grad(w):
        return bowl(w)

    fl.descend(value_and_grad, np.full(2, 3.0), first, steps=5, progress=False, checkpoint=file, callback=callback)
    return fl.descend(value_and_grad, np.full(2, 3.0), second, steps=steps, progress=False, checkpoint=file)


def own(t):
    return 0.1 / (1 + t)


SETTINGS = [
    (0.1, 0.5), (cosine(0.1, steps=5), cosine(0.1, steps=10)), (0.1, cosine(0.1, steps=10)),
    (cosine(0.1, steps=5), 0.1), (own, 0.1), (0.1, own), (own, lambda t: 0.3),
    (np.full(2, 0.1), np.full(2, 0.2)), (np.full(2, 0.1), 0.2),
]  # fmt: skip
KINDS = {
    "SGD": lambda lr: fl.SGD(lr),
    "chain": lambda lr: fl.chain(fl.clip_norm(3.0), fl.Momentum(lr), fl.weight_decay(0.1)),
    "partition": lambda lr: fl.partition({"all": fl.Momentum(lr), "none": fl.SGD()}, lambda path: "all"),
    "accumulate": lambda lr: fl.accumulate(2, fl.Momentum(lr)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pair", SETTINGS, ids=range(len(SETTINGS)))
def test_new_settings_count_when_a_run_is_made_longer(kind, pair, tmp_path):
    first, second = map(KINDS[kind], pair)
    found = made_longer(first, second, tmp_path / "run")
    # the same by hand: five steps, then the settings, then five more
    opt = KINDS[kind](pair[0])
    begun = fl.descend(bowl, np.full(2, 3.0), opt, steps=5, progress=False)
    opt.hyper["all.lr" if kind == "partition" else "lr"] = pair[1]
    expected = fl.descend(bowl, begun.params, opt, steps=5, progress=False)
    assert frozen([found.params, found.values[5:]]) == frozen([expected.params, expected.values])
    assert repr(second) == repr(opt)
    # and once more, as settings that were given before are none that are new
    again = KINDS[kind](pair[1])
    assert frozen(fl.descend(bowl, np.full(2, 3.0), again, steps=10, progress=False,
                             checkpoint=tmp_path / "run").params) == frozen(found.params)


def test_what_was_set_within_a_run_is_the_files(tmp_path):
    first = fl.SGD(0.1)

    def halve(point):
        if point.t == 2:
            first.lr = 0.05

    second = fl.SGD(0.1)
    made_longer(first, second, tmp_path / "run", callback=halve)
    assert second.lr == 0.05
    third = fl.SGD(0.2)
    made_longer(fl.SGD(0.1), third, tmp_path / "run", steps=12)
    assert third.lr == 0.2


def test_a_new_setting_that_only_starts_the_state_is_refused(tmp_path):
    with pytest.raises(fl.CheckpointError, match=r"adam\.eps can only be chosen at its start: give 1e-08, as before"):
        made_longer(fl.Adam(0.1), fl.Adam(0.1, eps=0.0), tmp_path / "run")
    with pytest.raises(fl.CheckpointError, match=r"accumulate\.n can only be chosen at its start: give 2\.0, as"):
        made_longer(fl.accumulate(2, fl.SGD()), fl.accumulate(4, fl.SGD()), tmp_path / "other")


# ---- SciPy's other doors ---------------------------------------------------------------------------------------------


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
