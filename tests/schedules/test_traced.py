"""Schedules whose t is traced by JAX: the values of Python, in every transformation, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fallline as fl
from needed import need
from of_schedules import EXAMPLES, N, drawn_schedules
from support import drawn

S = fl.schedules
EPS = np.finfo(float).eps
TIMES = np.array([*range(N + 20), 2**24 + 1, 2**31 - 2, 2**31 - 1], np.int32)
MORE = {  # where a branch that is not taken has nothing to compute with, or what grows is beyond all numbers
    "cosine_restarts without growth": S.cosine_restarts(0.1, period=30, warmup=5),
    "exponential, growing": S.exponential(0.1, factor=3.0, end=2.0, warmup=3),
    "step, growing": S.step(0.1, every=7, factor=3.0, end=2.0),
    "one_cycle that only rises": S.one_cycle(0.1, steps=40, rise=40),
    "one_cycle that only falls": S.one_cycle(0.1, steps=40, rise=0),
    "one_cycle with its top between two steps": S.one_cycle(0.1, steps=40, rise=12.5),
    "piecewise of one piece": S.piecewise([0.1], []),
    "piecewise, far": S.piecewise([0.1, 0.2, 0.3], [50, 2**64]),
    "join, far": S.join([S.constant(0.1), S.cosine(0.1, steps=9), S.constant(0.3)], [50, 2**64]),
    "join in a join": S.join([EXAMPLES["join"], S.join([S.step(0.1, every=9), S.constant(0.2)], [20])], [100]),
}
HEARING = {"plateau": S.plateau(0.1), "join": S.join([S.constant(0.2), S.plateau(0.1)], [3])}
every_traced = pytest.mark.parametrize("name", [name for name in (EXAMPLES | MORE) if name not in HEARING or
                                                name == "join"])  # fmt: skip


@pytest.fixture
def jax():
    return need("jax")


def of_python(schedule, times=TIMES):
    return np.array([schedule(int(t)) for t in times])


def assert_near(found, expected):
    """To the last digits: quotients, powers and cosines of XLA may be rounded otherwise."""
    np.testing.assert_allclose(found, expected, rtol=4 * EPS, atol=2 * EPS * np.abs(expected).max())


@every_traced
def test_values_are_those_of_python_to_the_last_digits_of_float64(name, jax):
    schedule = (EXAMPLES | MORE)[name]
    expected = of_python(schedule)
    with jax.enable_x64(True):
        found = jax.jit(lambda t: [schedule(t[:, None]), jax.vmap(schedule)(t), jax.lax.map(schedule, t)])(TIMES)
    assert found[0].shape == (len(TIMES), 1)
    for each in found:
        assert each.dtype == np.float64
        assert_near(np.ravel(each), expected)
        if hasattr(schedule, "steps"):
            assert set(np.ravel(each)[schedule.steps <= TIMES]) == {schedule.end}


@every_traced
def test_without_x64_values_are_the_same_rounded_to_float32(name, jax):
    schedule = (EXAMPLES | MORE)[name]
    found = jax.jit(schedule)(TIMES)
    assert found.dtype == np.float32
    np.testing.assert_array_max_ulp(np.asarray(found), of_python(schedule).astype(np.float32), 1)


@every_traced
def test_nothing_on_the_way_is_nan_or_infinite(name, jax):
    with jax.debug_nans(True), jax.debug_infs(name not in ("exponential, growing", "step, growing")):
        jax.vmap((EXAMPLES | MORE)[name])(TIMES)


def growth_of_errors(schedule, b, c):
    """How many times larger the relative error of a power may be than that of its base, or of its exponent."""
    powers = {S.polynomial: lambda: schedule.power, S.exponential: lambda: math.log(max(c, 1e-300) / max(b, 1e-300))}
    return max(1.0, powers.get(type(schedule), float)())


@pytest.mark.slow
@drawn(8)
@given(drawn_schedules(longest=2**31), st.lists(st.integers(0, 2**31 - 1), min_size=4, max_size=4))
def test_values_of_any_schedule_are_those_of_python_near_its_borders_and_far_from_them(made, times):
    jax = need("jax")
    (_, b, c), schedules = made
    for schedule in schedules:
        borders = [0, schedule.warmup, getattr(schedule, "steps", 0), *getattr(schedule, "boundaries", ())]
        near = [border + d for border in borders for d in (-1, 0, 1)]
        at = np.resize(np.clip([*times, *near], 0, 2**31 - 1), 20).astype(np.int32)  # one shape, compiled once
        with jax.enable_x64(True):
            found = jax.vmap(schedule)(at)
        most = 8 * EPS * growth_of_errors(schedule, b, c)
        np.testing.assert_allclose(found, of_python(schedule, at), rtol=0, atol=most * c + 1e-300)


def test_a_loop_that_is_scanned_and_differentiated_is_that_of_python(jax):
    schedule = S.join([EXAMPLES["cosine"], S.step(0.1, every=3)], [190])

    def last(w):
        return jax.lax.scan(lambda w, t: (w - schedule(t) * w, schedule(t)), w, np.arange(200))

    expected = np.prod(1 - of_python(schedule, range(200)))
    with jax.enable_x64(True):
        (found, rates), slope = jax.jit(last)(3.0), jax.jit(jax.grad(lambda w: last(w)[0]))(3.0)
        by_both = jax.grad(lambda w, t: w * schedule(t), argnums=(0, 1), allow_int=True)(3.0, 25)
    np.testing.assert_allclose([float(found) / 3, slope], expected, rtol=1e-12)
    assert_near(rates, of_python(schedule, range(200)))
    assert float(by_both[0]) == schedule(25)


def test_a_known_t_of_jax_gives_a_float_as_ever(jax):
    for schedule in (EXAMPLES | HEARING).values():
        assert type(schedule(jax.numpy.int32(33))) is float
        assert schedule(jax.numpy.int32(33)) == schedule(33)


def test_what_is_below_0_counts_as_0(jax):
    for schedule in (EXAMPLES["cosine"], S.inverse_sqrt(0.1, timescale=2), EXAMPLES["join"]):
        assert jax.jit(schedule)(-5) == jax.jit(schedule)(0)


def test_functions_of_ones_own_in_a_join_get_the_counts_of_their_part_and_no_others(jax):
    seen = []

    def mine(t):
        seen.append(t)
        return rate / (10.0 - t)  # which is infinite at the first t behind its part

    rate = 2.0
    schedule = S.join([S.constant(0.5), mine, S.constant(0.25)], [5, 15])
    for dtype in (np.int32, np.int8):
        np.testing.assert_allclose(jax.jit(schedule)(np.arange(20, dtype=dtype)), of_python(schedule, range(20)))
        assert seen[0].dtype == dtype
        seen.clear()

    def of_rate(value, t):
        return S.join([S.constant(0.5), lambda t: value / (10.0 - t), S.constant(0.25)], [5, 15])(t)

    slopes = jax.vmap(jax.grad(of_rate), (None, 0))(2.0, np.arange(20))
    np.testing.assert_allclose(slopes, [1 / (15 - t) if 5 <= t < 15 else 0 for t in range(20)], rtol=1e-6)


REFUSED = {
    "a fraction": (S.cosine(0.1, steps=9), 1.5, TypeError,
                   r"^t of cosine must be a whole number ≥ 0, that of the completed steps\. Got \w*Tracer\(.*\)\."),
    "a truth": (S.join([S.constant(1.0)], []), True, TypeError, r"^t of join must be a whole number ≥ 0.*Tracer"),
    "steps beyond int64": (S.linear(0.1, steps=2**64), 1, ValueError,
                           r"^Steps of linear must be below 2\*\*63 for a t that JAX traces\. Got linear\(peak=0\.1, "),
    **{name: (schedule, 1, TypeError,
              rf"^t of {name} must be known, as it follows values that opt\.hear is told, which JAX cannot trace: use "
              r"optax\.contrib\.reduce_on_plateau, or step and hear outside of jit\. Got \w*Tracer\(.*\)\.")
       for name, schedule in HEARING.items()},
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_traced_is_refused_in_a_sentence(case, jax):
    schedule, t, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        jax.jit(schedule)(t)
