"""The seven mistakes found in published listings of the ten algorithms, excluded for every one there is."""

from __future__ import annotations

import pickle
import warnings
from itertools import pairwise

import numpy as np
import pytest

import fallline as fl
from reference_formulas import TRANSCRIPTIONS
from reference_ten import TINY
from support import (
    EPS_SLOTS,
    GOOD_TO,
    NAMES,
    SLOTS,
    STILL,
    WITH_BETAS,
    WITH_EPS_ZERO,
    WITH_POWERS_OF_T,
    WITH_STATE,
    WITHOUT_DECAY,
    every_dtype,
    every_engine,
    every_optimiser,
    update,
)

WITH_ROOT = [name for name in NAMES if set(SLOTS[name]) & {"v", "u", "s"}]
# Of which 1e20 is: AdaGrad and Adafactor's first step add its square as it is, Adan 0.01 of a larger one.
TOO_LARGE = ("AdaGrad", "Adafactor", "Adan")
AVERAGED_SQUARES = [name for name in NAMES if EPS_SLOTS[name] and name not in TOO_LARGE]


@pytest.fixture(autouse=True)
def floating_point_warnings_are_errors():
    """A formula at its edge must not even pass through a warning from NumPy."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def transcription(name, shape, dtype=np.float64, **hyper):
    return TRANSCRIPTIONS[name](shape, TINY[np.dtype(dtype)], **hyper)


# ------------------------------------------------------- 1. an accumulator assigned to a local name never moves


@pytest.mark.parametrize("name", WITH_STATE)
@every_engine
def test_every_slot_moves_at_every_step(name, engine):
    opt = fl.OPTIMIZERS[name](engine=engine)
    seen = []
    for size in (1.0, 2.0, 4.0, 8.0):
        update(opt, np.full(3, size))
        seen.append({slot: np.array(opt.state[slot]) for slot in SLOTS[name]})
    for before, now in pairwise(seen):
        for slot in set(SLOTS[name]) - STILL.get(name, set()):
            assert np.all(before[slot] != now[slot]), slot


# ------------------------------------------------- 2. a power of beta that never moves stops the steps for ever


def steps_of_unit_gradients(t):
    """Rules' t-th increments at lr 1 under g = 1 for ever, with nothing in the accumulators at the start: by hand."""
    look_ahead = (0.9 * (1 - 0.9**t) + 0.1) / (1 - 0.9**t)
    strayed = 0.001 * 0.81 * (0.999**t - 0.81**t) / (0.999 - 0.81)  # the sum of 0.999^(t-i)·0.81^i, weighted
    length = 1999 - 2 * t * 0.999**t / (1 - 0.999**t)
    return {
        "SGD": -1.0,
        "Momentum": -(1 - 0.9**t) / (1 - 0.9),
        "Nesterov": -0.9 * (1 - 0.9**t) / (1 - 0.9) - 1.0,
        "AdaGrad": -1 / t**0.5,
        "RMSProp": -1 / (1 - 0.999**t) ** 0.5,
        "Adam": -1.0,
        "AdaMax": -1.0,
        "Nadam": -look_ahead,
        "NadaMax": -look_ahead,
        "AdamW": -1.0,
        "NadamW": -look_ahead,
        "Lion": -1.0,
        "Rprop": -min(1.2 ** (t - 1), 50.0),
        "AMSGrad": -1.0,
        "AdaBelief": -(((1 - 0.999**t) / strayed) ** 0.5),
        "RAdam": -(((length - 4) * (length - 2) * 1999 / (1995 * 1997 * length)) ** 0.5) if length > 4 else -1.0,
        "AdEMAMix": -1.0 - 5 * (1 - 0.9999**t),
        "Adan": -1.0,
        "LARS": -(1 - 0.9**t) / (1 - 0.9),  # as everything here, of parameters that stay 0: Momentum's
        "LAMB": -1.0,
        "ScheduleFreeSGD": -1.1 + 0.1 / t,  # a t-th of the way to z = 1 - t, then 0.9·(1 - 1/t) - 1
        "ScheduleFreeAdamW": -1.1 + 0.1 / t,
        "Prodigy": -1e-6 * (1 - 0.9**t) / (1 - 0.999**t) ** 0.5,  # x0 is the minimum for all it knows: d stays d0
    }


@pytest.mark.parametrize("name", steps_of_unit_gradients(1))
@every_engine
def test_a_constant_gradient_gives_the_steps_worked_out_by_hand(name, engine):
    hyper = {"eps": 0.0} if name in WITH_EPS_ZERO else {}
    opt = fl.OPTIMIZERS[name](1.0, **hyper, engine=engine)
    found = np.array([update(opt, np.ones(2)) for _ in range(200)])
    expected = np.array([[steps_of_unit_gradients(t)[name]] for t in range(1, 201)])
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=GOOD_TO.get(name, 1e-11))


@every_engine
def test_adadelta_never_stops_under_a_constant_gradient(engine):
    opt = fl.AdaDelta(rho=0.9, eps=1e-4, engine=engine)
    expected = transcription("AdaDelta", (2,), rho=0.9, eps=1e-4)
    for _ in range(200):
        found = update(opt, np.ones(2))
        np.testing.assert_allclose(found, expected.step(np.ones(2)), rtol=1e-11)
        assert np.all(found < 0)


# ------------------------------------------------ 3. an accumulator that starts at 0 and a gradient that is 0


@every_optimiser
@every_engine
@every_dtype
def test_a_zero_gradient_at_the_start_moves_nothing_and_leaves_finite_state(name, engine, dtype):
    opt = fl.OPTIMIZERS[name](engine=engine, **WITHOUT_DECAY[name])
    w = np.array([0.0, 1.0, -2.5, 1e30, 1e-30], dtype)
    kept = w.copy()
    for _ in range(3):
        opt.step(w, np.zeros(5, dtype))
        np.testing.assert_array_equal(w, kept)
        for slot in SLOTS[name]:
            assert np.all(np.isfinite(opt.state[slot])), slot


@pytest.mark.needs("a transcription")
@every_optimiser
@every_engine
@every_dtype
def test_a_gradient_after_zeros_is_followed_normally(name, engine, dtype):
    opt, expected = fl.OPTIMIZERS[name](engine=engine), transcription(name, (4,), dtype)
    for k in range(12):
        g = np.zeros(4) if k < 5 else np.array([0.0, 1.0, -0.25, 3.0])
        found, wanted = update(opt, g.astype(dtype)), expected.step(g)
        np.testing.assert_allclose(found, wanted, rtol=1e-5 if dtype == np.float32 else GOOD_TO.get(name, 1e-12))
        assert found[0] == 0


# --------------------------------------------------------------- 4. a division by the root of an accumulator at 0


@every_dtype
def test_root_of_nothing_is_the_root_of_the_smallest_normal_number(dtype):
    tiny = np.finfo(dtype).tiny
    v = np.array([0.0, -0.0, tiny / 4, tiny, 4.0], dtype)
    found = fl.root(v)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.sqrt(np.array([tiny, tiny, tiny, tiny, 4.0], dtype)))
    assert np.all(np.isfinite(np.zeros(5, dtype) / found))


def test_root_takes_plain_numbers():
    assert fl.root(9.0) == 3.0
    assert fl.root(0.0) == np.sqrt(np.finfo(np.float64).tiny)


@pytest.mark.needs("a transcription")
@pytest.mark.parametrize("name", WITH_EPS_ZERO)
@every_engine
@every_dtype
def test_with_eps_zero_an_untouched_coordinate_never_moves_and_the_others_do(name, engine, dtype):
    opt, expected = fl.OPTIMIZERS[name](eps=0.0, engine=engine), transcription(name, (3,), dtype, eps=0.0)
    for g in ([0.0, 0.0, 1.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0, -1.0, 1.0]):
        found, wanted = update(opt, np.array(g, dtype)), expected.step(np.array(g))
        assert found[0] == 0
        np.testing.assert_allclose(found, wanted, rtol=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.needs("a transcription")
@pytest.mark.parametrize("name", WITH_ROOT)
@every_engine
@every_dtype
def test_gradients_whose_square_underflows_give_finite_steps_downhill(name, engine, dtype):
    hyper = {"eps": 0.0} if name in WITH_EPS_ZERO else {}
    opt = fl.OPTIMIZERS[name](**hyper, engine=engine)
    expected = transcription(name, (4,), dtype, **hyper)
    size = np.array([1e-21, 1e-25, 1e-30, 1e-35] if dtype == np.float32 else [1e-160, 1e-170, 1e-200, 1e-300])
    for sign in (1, 1, -1, 1, 1):
        g = (sign * size).astype(dtype)
        found, wanted = update(opt, g), expected.step(g.astype(np.float64))
        assert np.all(np.isfinite(found))
        np.testing.assert_allclose(found, wanted, rtol=2e-5 if dtype == np.float32 else 1e-12)


# ------------------------------------------------------------------ 5. betas in the precision of the parameters


@every_optimiser
@every_engine
def test_float32_takes_the_same_first_steps_as_float64_to_a_millionth(name, engine):
    g = np.array([1.0, -0.5, 2.0, -4.0])  # exact in float32
    low, high = fl.OPTIMIZERS[name](engine=engine), fl.OPTIMIZERS[name](engine=engine)
    for _ in range(3):
        np.testing.assert_allclose(update(low, g.astype(np.float32)), update(high, g), rtol=1e-6)


@every_optimiser
@every_engine
def test_a_beta_that_float32_rounds_to_one_still_corrects_exactly(name, engine):
    """beta = 1 - 2**-30 is 1 in float32, and 1 - beta**t computed there would be 0."""
    near_one = 1 - 2.0**-30
    hyper = {key: near_one for key in fl.OPTIMIZERS[name]().hyper if key in ("rho", "beta2")}
    hyper |= {"eps": 0.0} if name in WITH_EPS_ZERO else {}
    low, high = fl.OPTIMIZERS[name](**hyper, engine=engine), fl.OPTIMIZERS[name](**hyper, engine=engine)
    for g in ([1.0, -0.5], [1.0, 2.0], [-1.0, 0.25]):
        found = update(low, np.array(g, np.float32))
        assert np.all(np.isfinite(found))
        np.testing.assert_allclose(found, update(high, np.array(g)), rtol=1e-5)


# ------------------------------------------------------------------------------------- 6. the square overflows


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TOO_LARGE])
@every_engine
def test_a_gradient_of_1e20_steps_in_float32_as_in_float64(name, engine):
    low, high = fl.OPTIMIZERS[name](engine=engine), fl.OPTIMIZERS[name](engine=engine)
    for size in (1e20, 1.0, -1e20, 3.0):
        g = np.array([size, 2 * size], np.float32)
        found, wanted = update(low, g), update(high, g.astype(np.float64))
        assert np.all(np.isfinite(found))
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        for slot in SLOTS[name]:
            assert np.all(np.isfinite(low.state[slot])), slot


@pytest.mark.parametrize("name", AVERAGED_SQUARES)
@every_engine
def test_a_huge_gradient_does_not_freeze_a_coordinate_for_ever(name, engine):
    opt = fl.OPTIMIZERS[name](engine=engine)
    update(opt, np.array([1e20], np.float32))
    before = update(opt, np.array([1e20], np.float32))
    assert before[0] < 0
    assert all(np.isfinite(opt.state[slot][0]) for slot in EPS_SLOTS[name])


# --------------------------------------------------------------------- 7. the power of beta as a running product


@every_optimiser
@every_engine
def test_a_restored_optimiser_takes_the_steps_of_the_one_that_went_on(name, engine):
    rng = np.random.default_rng(0)
    kept = fl.OPTIMIZERS[name](engine=engine)
    for g in rng.standard_normal((9, 5)):
        update(kept, g)
    restored = pickle.loads(pickle.dumps(kept))
    assert restored.t == kept.t == 9
    for g in rng.standard_normal((5, 5)):
        np.testing.assert_array_equal(update(restored, g), update(kept, g))


@pytest.mark.needs("a transcription")
@pytest.mark.parametrize("name", WITH_BETAS)
@every_engine
@pytest.mark.parametrize("t", [1, 7, 1000, 10**6])
def test_the_correction_follows_an_assigned_step_count(name, engine, t):
    hyper = {"beta1": 0.9, "beta2": 0.999}
    opt, expected = fl.OPTIMIZERS[name](**hyper, engine=engine), transcription(name, (2,), **hyper)
    g = np.array([1.0, -3.0])
    update(opt, g)
    expected.step(g)
    opt.t = expected.t = t
    for _ in range(3):
        np.testing.assert_allclose(update(opt, g), expected.step(g), rtol=1e-11)
    assert opt.t == t + 3
    assert type(opt.t) is int


@pytest.mark.parametrize("name", WITH_POWERS_OF_T)
@every_engine
def test_reset_starts_the_correction_anew(name, engine):
    opt = fl.OPTIMIZERS[name](engine=engine)
    first = update(opt, np.array([2.0, -1.0]))
    for _ in range(20):
        update(opt, np.array([0.5, 3.0]))
    opt.reset()
    assert opt.t == 0
    np.testing.assert_array_equal(update(opt, np.array([2.0, -1.0])), first)
