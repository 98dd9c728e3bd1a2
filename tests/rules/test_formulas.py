"""Every optimiser follows its published formula, step by step, over hundreds of random gradients."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import fallline as fl
from reference_formulas import DEFAULTS, TRANSCRIPTIONS
from reference_settings import ODD, SETTINGS
from reference_ten import TINY
from support import (
    GOOD_TO,
    NOT_OF_CONSTANTS,
    NUMBERS,
    SLOTS,
    WITH_PARAMETER,
    WITH_RATE,
    every_dtype,
    every_engine,
    every_optimiser,
    update,
)

TOLERANCE = {np.dtype("float64"): 1e-12, np.dtype("float32"): 1e-5}  # relative to the path walked so far
STEPS = 300
OF_BOWLS = ("Prodigy",)  # whose steps grow without end where the gradient does not grow with the distance
CONSTANT = 2  # the kind of coordinate with one gradient for ever


def gradients(dtype, steps=STEPS, seed=0):
    """Six kinds of coordinate at five scales: dense, sparse, constant, late, paused for a long time, never touched."""
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((steps, 6, 5))
    g[:, 1] *= rng.random((steps, 5)) < 0.05
    g[:, CONSTANT] = 0.7
    g[: steps // 2, 3] = 0
    g[20 : steps - 40, 4] = 0
    g[:, 5] = 0
    return (g * [1e-3, 1e-2, 1.0, 30.0, 1e3]).astype(dtype)


def assert_close_along_the_path(found, expected, increments, rel):
    path = np.cumsum(np.abs(increments), axis=0)
    excess = np.abs(found - expected) - rel * path
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    assert excess[worst] <= 0, f"at {worst}: {found[worst]!r}, should be {expected[worst]!r} (path {path[worst]:.3g})"


def assert_close_state(slot, found, expected, rel, tiny):
    """Accumulators have no cancellation, so each is held to its own size; what has signs to the largest so far."""
    size = np.maximum.accumulate(np.abs(expected), axis=0) if np.any(expected < 0) else np.abs(expected)
    excess = np.abs(found - expected) - rel * size - 2 * tiny * (expected != 0)
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    assert excess[worst] <= 0, f"{slot} at {worst}: {found[worst]!r}, should be {expected[worst]!r}"


def test_the_optimisers_are_the_ten_in_the_order_of_their_table_then_those_beyond_them():
    assert list(fl.OPTIMIZERS)[:10] == ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam",
                                        "AdaMax", "Nadam", "NadaMax"]
    for name, cls in fl.OPTIMIZERS.items():
        assert cls is getattr(fl, name)
        assert cls.__name__ == name
        assert issubclass(cls, fl.Optimizer)


@pytest.mark.needs("a transcription")
@every_optimiser
def test_hyper_parameters_have_the_names_and_defaults_of_the_table(name):
    opt = fl.OPTIMIZERS[name]()
    assert dict(opt.hyper) == DEFAULTS[name]
    for key, value in DEFAULTS[name].items():
        assert getattr(opt, key) == value
    shown = ", ".join(f"{key}={value!r}" for key, value in DEFAULTS[name].items())
    assert repr(opt) == f"{name}({shown})"


@pytest.mark.needs("a transcription")
@every_optimiser
def test_the_constructor_signature_lists_the_table_and_takes_only_lr_by_position(name):
    cls = fl.OPTIMIZERS[name]
    signature = inspect.signature(cls).parameters
    own = {key: p.default for key, p in signature.items() if key in DEFAULTS[name]}
    assert own == DEFAULTS[name]
    assert list(signature)[: len(own)] == list(DEFAULTS[name])
    if "lr" in own:
        assert cls(0.25).lr == 0.25
    with pytest.raises(TypeError):
        cls(0.25, 0.5) if "lr" in own else cls(0.25)


@pytest.mark.needs("a transcription", "slots like the leaf")
@every_optimiser
@every_engine
@every_dtype
@pytest.mark.parametrize("setting", list(SETTINGS))
def test_hundreds_of_random_steps_follow_the_formula(name, engine, dtype, setting):
    hyper, tiny, tolerance = SETTINGS[setting][name], TINY[dtype], max(TOLERANCE[dtype], GOOD_TO.get(name, 0))
    g = gradients(dtype)
    if name in NOT_OF_CONSTANTS:
        g[:, CONSTANT] = 0
    expected = TRANSCRIPTIONS[name](g[0].shape, tiny, **hyper)
    opt = fl.OPTIMIZERS[name](**hyper, engine=engine)
    w = np.zeros(g[0].shape, dtype)
    increments, walked, x = [], [], np.zeros(g[0].shape)
    states = {slot: ([], []) for slot in SLOTS[name]}
    for gradient in g:
        gradient = gradient + w if name in OF_BOWLS else gradient
        increments.append(expected.step(gradient.astype(np.float64), *([x] if name in WITH_PARAMETER else [])))
        x = x + increments[-1]
        w = opt.step(w, gradient)
        walked.append(w.astype(np.float64))
        for slot, (found, wanted) in states.items():
            assert opt.state[slot].dtype == dtype
            found.append(np.array(opt.state[slot], np.float64))
            wanted.append(getattr(expected, slot))
    assert opt.t == len(g)
    assert set(opt.state) == {*SLOTS[name], *NUMBERS.get(name, ())}
    assert w.dtype == dtype
    assert_close_along_the_path(np.array(walked), np.cumsum(increments, axis=0), np.array(increments), tolerance)
    for slot, (found, wanted) in states.items():
        assert_close_state(slot, np.array(found), np.array(wanted), tolerance, tiny)


@every_optimiser
@every_engine
@every_dtype
def test_update_returns_exactly_what_step_adds(name, engine, dtype):
    looking, stepping = (fl.OPTIMIZERS[name](**ODD[name], engine=engine) for _ in range(2))
    w = np.random.default_rng(1).standard_normal((6, 5)).astype(dtype)
    for g in gradients(dtype, steps=40):
        before = w.copy()
        increment = update(looking, g, w)
        assert increment.dtype == dtype
        assert increment.shape == g.shape
        assert stepping.step(w, g) is w
        np.testing.assert_array_equal(w, before + increment)


@pytest.mark.needs("a transcription", "a formula of coordinates")
@pytest.mark.parametrize("name", WITH_RATE)
@every_engine
def test_a_rate_that_changes_acts_where_the_formula_has_it(name, engine):
    """Inside the velocity for Momentum and Nesterov; a schedule sees the number of completed steps."""

    def rate(completed):
        return 0.01 / (1 + completed)

    scheduled = fl.OPTIMIZERS[name](rate, engine=engine)
    assigned = fl.OPTIMIZERS[name](engine=engine)
    expected = TRANSCRIPTIONS[name]((6, 5), TINY[np.dtype("float64")])
    for completed, g in enumerate(gradients("float64", steps=30)):
        expected.lr = assigned.lr = rate(completed)
        wanted = expected.step(g)
        for found in (update(scheduled, g), update(assigned, g)):
            np.testing.assert_allclose(found, wanted, rtol=GOOD_TO.get(name, 1e-11), atol=1e-18)


# ----------------------------------------------------------------------------------------------- Nesterov


def bowl(w):
    """The gradient of an elongated, slightly curved bowl."""
    return {"a": 3.0 * w["a"] + 0.1 * w["a"] ** 3, "b": [0.2 * w["b"][0] - 1.0]}


def a_start():
    rng = np.random.default_rng(2)
    return {"a": rng.standard_normal((3, 2)), "b": [rng.standard_normal(4)]}


def leaves(tree):
    return [tree["a"], tree["b"][0]]


@every_engine
def test_rest_takes_the_momentum_back_from_the_looked_ahead_point(engine):
    opt = fl.Nesterov(0.02, momentum=0.8, engine=engine)
    w = a_start()
    for _ in range(7):
        w = opt.step(w, bowl(w))
    kept = [leaf.copy() for leaf in leaves(w)]
    resting = opt.rest(w)
    for point, velocity, ahead, before in zip(
        leaves(resting), leaves(opt.state["velocity"]), leaves(w), kept, strict=True
    ):
        np.testing.assert_allclose(point, ahead - 0.8 * velocity, rtol=1e-15)
        assert not np.shares_memory(point, ahead)
        np.testing.assert_array_equal(ahead, before)


def test_before_the_first_step_nesterov_rests_where_it_stands():
    w = a_start()
    for found, wanted in zip(leaves(fl.Nesterov().rest(w)), leaves(w), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_before_the_first_step_momentum_looks_ahead_to_where_it_stands():
    w = a_start()
    for found, wanted in zip(leaves(fl.Momentum().lookahead(w)), leaves(w), strict=True):
        np.testing.assert_array_equal(found, wanted)


@every_engine
def test_an_ordinary_loop_with_nesterov_is_the_literal_procedure(engine):
    """Gradient at theta + momentum·velocity, velocity <- momentum·velocity - lr·g, theta <- theta + velocity."""
    lr, momentum = 0.02, 0.8
    opt = fl.Nesterov(lr, momentum=momentum, engine=engine)
    w, theta = a_start(), a_start()
    velocity = [np.zeros_like(leaf) for leaf in leaves(theta)]
    for _ in range(120):
        w = opt.step(w, bowl(w))
        ahead = [leaf + momentum * v for leaf, v in zip(leaves(theta), velocity, strict=True)]
        g = leaves(bowl({"a": ahead[0], "b": [ahead[1]]}))
        velocity = [momentum * v - lr * slope for v, slope in zip(velocity, g, strict=True)]
        theta = {"a": theta["a"] + velocity[0], "b": [theta["b"][0] + velocity[1]]}
        for found, wanted in zip(leaves(opt.rest(w)), leaves(theta), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13)


@every_engine
def test_momentum_with_lookahead_is_nesterov_at_rest(engine):
    nesterov = fl.Nesterov(0.02, momentum=0.8, engine=engine)
    literal = fl.Momentum(0.02, momentum=0.8, engine=engine)
    w, theta = a_start(), a_start()
    for _ in range(120):
        w = nesterov.step(w, bowl(w))
        kept = [leaf.copy() for leaf in leaves(theta)]
        ahead = literal.lookahead(theta)
        assert not np.shares_memory(ahead["a"], theta["a"])
        for leaf, before in zip(leaves(theta), kept, strict=True):
            np.testing.assert_array_equal(leaf, before)
        increment = literal.update(bowl(ahead))
        theta = {"a": theta["a"] + increment["a"], "b": [theta["b"][0] + increment["b"][0]]}
        for found, wanted in zip(leaves(nesterov.rest(w)), leaves(theta), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13)


def test_lookahead_is_the_point_plus_momentum_times_velocity():
    opt = fl.Momentum(0.5, momentum=0.8)
    w = opt.step(np.array([1.0, -2.0]), np.array([1.0, 2.0]))
    np.testing.assert_allclose(opt.lookahead(w), [0.5 - 0.8 * 0.5, -3.0 - 0.8 * 1.0], rtol=1e-15)


# -------------------------------------------------------------------- numbers that the documentation quotes


def after(opt, gradient, steps):
    """The distance moved in `steps` steps of one constant gradient, and the last step."""
    moved, last = 0.0, 0.0
    for _ in range(steps):
        last = float(opt.update(np.array([gradient]))[0])
        moved += last
    return moved, last


def test_rmsprop_takes_a_first_step_of_31_6_rates():
    assert after(fl.RMSProp(1e-3), 1.0, 1)[1] == pytest.approx(-31.6e-3, rel=1e-3)


def test_nadam_takes_a_first_step_of_1_9_rates():
    assert after(fl.Nadam(1e-3), 1.0, 1)[1] == pytest.approx(-1.9e-3, rel=1e-4)
    assert after(fl.NadaMax(1e-3), 1.0, 1)[1] == pytest.approx(-1.9e-3, rel=1e-12)


def test_nadam_moves_6_93_rates_in_five_unit_gradients():
    assert after(fl.Nadam(1e-3), 1.0, 5)[0] == pytest.approx(-0.00693, abs=5e-6)


def test_adam_takes_95_percent_of_its_first_step_at_a_gradient_of_a_hundredth():
    assert after(fl.Adam(1e-3), 1e-2, 1)[1] == pytest.approx(-0.95e-3, abs=0.005e-3)
    assert after(fl.Adam(1e-3, eps=0.0), 1e-2, 1)[1] == pytest.approx(-1e-3, rel=1e-12)


def test_adam_covers_0_8_percent_of_the_distance_at_a_gradient_of_a_millionth():
    assert after(fl.Adam(1e-3), 1e-6, 1000)[0] == pytest.approx(-0.008, abs=0.0005)
    assert after(fl.Adam(1e-3, eps=0.0), 1e-6, 1000)[0] == pytest.approx(-1.0, rel=1e-9)


@pytest.mark.parametrize(("step", "size"), [(1, 3.2e-3), (1000, 7.6e-5)])
def test_eps_acts_in_adam_like_a_gradient_of_the_quoted_size(step, size):
    """A constant gradient as large as the root of eps' share makes a step of lr / sqrt(2)."""
    assert after(fl.Adam(1e-3), size, step)[1] == pytest.approx(-1e-3 / 2**0.5, rel=0.01)


def test_momentum_tends_to_ten_rates_under_a_constant_gradient():
    assert after(fl.Momentum(1e-3, momentum=0.9), 2.0, 400)[1] == pytest.approx(-2e-3 / (1 - 0.9), rel=1e-12)


def test_rmsprop_unrolls_to_a_geometric_sum_plus_a_fading_eps():
    opt = fl.RMSProp(rho=0.9, eps=0.1)
    g = np.random.default_rng(3).standard_normal(25)
    for gradient in g:
        opt.update(np.array([gradient]))
    weights = 0.1 * 0.9 ** np.arange(24, -1, -1)
    assert float(opt.state["v"][0]) == pytest.approx(weights @ g**2 + 0.9**25 * 0.1, rel=1e-12)


def test_adamax_keeps_the_largest_discounted_gradient():
    opt = fl.AdaMax(beta2=0.9)
    g = np.random.default_rng(4).standard_normal(25)
    for gradient in g:
        opt.update(np.array([gradient]))
    assert float(opt.state["u"][0]) == pytest.approx(np.max(0.9 ** np.arange(24, -1, -1) * np.abs(g)), rel=1e-12)


def rms_steps(opt, at, width=400):
    rng = np.random.default_rng(5)
    found = {}
    for step in range(1, max(at) + 1):
        increment = opt.update(rng.standard_normal(width))
        if step in at:
            found[step] = float(np.sqrt(np.mean(increment**2)))
    return found


def test_adadelta_fades_as_quoted_when_it_forgets_fast():
    found = rms_steps(fl.AdaDelta(rho=0.95, eps=1e-6), at=(1000, 10_000))
    assert found[1000] == pytest.approx(6e-4, rel=0.15)
    assert 0.3e-11 < found[10_000] < 3e-11


def test_adadelta_hardly_fades_with_its_defaults():
    found = rms_steps(fl.AdaDelta(), at=(500, 3000))
    assert found[500] == pytest.approx(3.1e-3, rel=0.1)
    assert found[3000] == pytest.approx(3.1e-3, rel=0.1)


def test_adadelta_steps_are_proportional_to_the_root_of_eps():
    small, large = fl.AdaDelta(rho=0.9, eps=1e-10), fl.AdaDelta(rho=0.9, eps=4e-10)
    for g in np.random.default_rng(6).standard_normal((50, 8)) + 3.0:
        np.testing.assert_allclose(2 * small.update(g), large.update(g), rtol=1e-8)


def test_adagrad_slows_as_the_root_of_time():
    assert after(fl.AdaGrad(1e-3), 1.0, 400)[1] == pytest.approx(-1e-3 / 400**0.5, rel=1e-8)
