"""Schedules: values against torch's, optax's and the papers', what they are, in an optimizer and in its files."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import math
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fallline as fl
from conftest import need
from fallline._state.file import read as read_file
from fallline._state.file import write as write_file
from fallline.schedules.data import from_data, from_text, to_data
from support import (
    a_tree,
    build,
    every_engine,
    every_optimiser,
    everything_of,
    halving,
    memory_of,
    run_alone,
    same_bits,
)

S = fl.schedules
N = 240  # steps of the comparisons
SHAPES = [getattr(S, name) for name in S.__all__ if name not in ("Schedule", "plot")]
DATA = Path(__file__).parent / "data"

EXAMPLES = {
    "constant": S.constant(0.1, warmup=7),
    "piecewise": S.piecewise([0.3, 0.1, 0.2], [60, 180], warmup=20),
    "linear": S.linear(0.1, steps=200, warmup=20, end=0.01),
    "polynomial": S.polynomial(0.1, steps=200, warmup=20, end=0.01, power=1.7),
    "cosine": S.cosine(0.1, steps=200, warmup=20, end=0.01),
    "cosine_restarts": S.cosine_restarts(0.1, period=30, growth=2, warmup=11, end=0.01),
    "exponential": S.exponential(0.1, factor=0.9, every=4, warmup=9, end=0.001),
    "step": S.step(0.1, every=40, factor=0.3, warmup=13, end=0.002),
    "inverse_sqrt": S.inverse_sqrt(0.1, warmup=25),
    "one_cycle": S.one_cycle(0.1, steps=200, warmup=15),
    "warmup_stable_decay": S.warmup_stable_decay(0.1, steps=200, warmup=20, decay=60, end=0.01),
    "join": S.join([S.linear(0.01, steps=30, end=0.1), S.constant(0.1), S.cosine(0.1, steps=90)], [30, 120]),
}
every_schedule = pytest.mark.parametrize("schedule", EXAMPLES.values(), ids=EXAMPLES)


def values(schedule, n=N):
    return np.array([schedule(t) for t in range(n + 1)])


def test_every_schedule_has_an_example():
    assert {type(schedule) for schedule in EXAMPLES.values()} == set(SHAPES)


# ---- against torch and optax -----------------------------------------------------------------------------------------


def torch_values(make, lr, n=N):
    """The rates of a torch scheduler, step by step."""
    torch = need("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    found = []
    for _ in range(n + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():  # SequentialLR calls in a way that torch itself deprecates
            warnings.simplefilter("ignore")
            scheduler.step()
    return np.array(found)


def sequential(lrs, optimizer):
    return lrs.SequentialLR(optimizer, [
        lrs.LinearLR(optimizer, 0.01, 1.0, 40), lrs.ExponentialLR(optimizer, 0.97), lrs.ConstantLR(optimizer, 0.5, 30),
    ], [40, 100])  # fmt: skip


TORCH = {
    "ConstantLR is piecewise": (
        S.piecewise([0.1 / 3, 0.1], [50]), 0.1, lambda lrs, o: lrs.ConstantLR(o, 1 / 3, 50)),
    "LinearLR, up": (
        S.linear(0.025, steps=200, end=0.1), 0.1, lambda lrs, o: lrs.LinearLR(o, 0.25, 1.0, 200)),
    "LinearLR, down": (
        S.linear(0.1, steps=200, end=0.01), 0.1, lambda lrs, o: lrs.LinearLR(o, 1.0, 0.1, 200)),
    "PolynomialLR": (
        S.polynomial(0.1, steps=200, power=2.5), 0.1, lambda lrs, o: lrs.PolynomialLR(o, 200, 2.5)),
    "PolynomialLR, its default": (S.polynomial(0.1, steps=5), 0.1, lambda lrs, o: lrs.PolynomialLR(o)),
    "ExponentialLR": (S.exponential(0.1, factor=0.98), 0.1, lambda lrs, o: lrs.ExponentialLR(o, 0.98)),
    "StepLR": (S.step(0.1, every=30, factor=0.3), 0.1, lambda lrs, o: lrs.StepLR(o, 30, 0.3)),
    "StepLR, its default": (S.step(0.1, every=30), 0.1, lambda lrs, o: lrs.StepLR(o, 30)),
    "MultiStepLR": (
        S.piecewise([0.1, 0.05, 0.025], [30, 80]), 0.1, lambda lrs, o: lrs.MultiStepLR(o, [30, 80], 0.5)),
    "CosineAnnealingWarmRestarts": (
        S.cosine_restarts(0.1, period=60, end=0.01), 0.1,
        lambda lrs, o: lrs.CosineAnnealingWarmRestarts(o, 60, 1, 0.01)),
    "CosineAnnealingWarmRestarts, growing": (
        S.cosine_restarts(0.1, period=20, growth=3), 0.1, lambda lrs, o: lrs.CosineAnnealingWarmRestarts(o, 20, 3)),
    "SequentialLR": (
        S.join([S.linear(0.001, steps=40, end=0.1), S.exponential(0.1, factor=0.97), S.piecewise([0.05, 0.1], [30])],
               [40, 100]), 0.1, sequential),
}  # fmt: skip


@pytest.mark.parametrize("case", TORCH)
def test_values_are_those_of_torch(case):
    schedule, lr, make = TORCH[case]
    # torch multiplies from step to step, so that rounding errors add up
    np.testing.assert_allclose(values(schedule), torch_values(make, lr), rtol=1e-12, atol=1e-16)


def test_cosine_is_torchs_up_to_its_end_where_that_one_turns_back():
    theirs = torch_values(lambda lrs, o: lrs.CosineAnnealingLR(o, 200, 0.01), 0.1)
    ours = values(S.cosine(0.1, steps=200, end=0.01))
    np.testing.assert_allclose(ours[:201], theirs[:201], rtol=1e-12)
    assert (ours[200:] == 0.01).all()
    assert theirs[240] > 0.015


@pytest.mark.parametrize("total", [240, 10, 75, 101, 1234])
def test_one_cycle_is_torchs_whose_phases_are_a_step_shorter(total):
    theirs = torch_values(lambda lrs, o: lrs.OneCycleLR(o, 0.1, total), 0.1, total - 1)
    ours = values(S.one_cycle(0.1, steps=total - 1, rise=0.3 * total - 1), total - 1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-11)  # theirs cancels near the end, to 1e-12


def test_three_straight_lines_are_torchs_one_cycle_of_three_phases():
    theirs = torch_values(lambda lrs, o: lrs.OneCycleLR(o, 1.0, 241, pct_start=61 / 241, anneal_strategy="linear",
                                                        three_phase=True), 1.0)  # fmt: skip
    lines = [S.linear(0.04, steps=60, end=1.0), S.linear(1.0, steps=60, end=0.04), S.linear(0.04, steps=120, end=4e-6)]
    np.testing.assert_allclose(values(S.join(lines, [60, 120])), theirs, rtol=1e-11)


OPTAX = {
    "constant_schedule": (S.constant(0.1), lambda o: o.constant_schedule(0.1)),
    "warmup_constant_schedule": (S.constant(0.1, warmup=50), lambda o: o.warmup_constant_schedule(0.0, 0.1, 50)),
    "linear_schedule": (S.linear(0.1, steps=200, end=0.02), lambda o: o.linear_schedule(0.1, 0.02, 200)),
    "polynomial_schedule": (
        S.polynomial(0.1, steps=200, end=0.02, power=3), lambda o: o.polynomial_schedule(0.1, 0.02, 3.0, 200)),
    "piecewise_constant_schedule": (
        S.piecewise([0.1, 0.05, 0.1], [30, 80]), lambda o: o.piecewise_constant_schedule(0.1, {30: 0.5, 80: 2.0})),
    "exponential_decay": (
        S.exponential(0.1, factor=0.5, every=20, end=0.003),
        lambda o: o.exponential_decay(0.1, 20, 0.5, end_value=0.003)),
    "exponential_decay, growing": (
        S.exponential(0.1, factor=2.0, every=20, end=3.0), lambda o: o.exponential_decay(0.1, 20, 2.0, end_value=3.0)),
    "exponential_decay, a staircase": (
        S.step(0.1, every=20, factor=0.5), lambda o: o.exponential_decay(0.1, 20, 0.5, staircase=True)),
    "warmup_exponential_decay_schedule": (
        S.exponential(0.1, factor=0.5, every=20, warmup=30),
        lambda o: o.warmup_exponential_decay_schedule(0.0, 0.1, 30, 20, 0.5)),
    "cosine_decay_schedule": (S.cosine(0.1, steps=200, end=0.01), lambda o: o.cosine_decay_schedule(0.1, 200, 0.1)),
    "warmup_cosine_decay_schedule": (
        S.cosine(0.1, steps=200, warmup=50, end=0.01), lambda o: o.warmup_cosine_decay_schedule(0, 0.1, 50, 200, 0.01)),
    "sgdr_schedule": (
        S.join([S.cosine(0.1, steps=60, warmup=10), S.cosine(0.05, steps=120, warmup=5, end=0.01)], [60]),
        lambda o: o.sgdr_schedule([
            {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 10, "decay_steps": 60},
            {"init_value": 0.0, "peak_value": 0.05, "warmup_steps": 5, "decay_steps": 120, "end_value": 0.01}])),
    "sgdr_schedule with periods that grow": (
        S.cosine_restarts(0.1, period=40, growth=2, end=0.01),
        lambda o: o.sgdr_schedule([{"init_value": 0.1, "peak_value": 0.1, "warmup_steps": 0, "decay_steps": n,
                                    "end_value": 0.01} for n in (40, 80, 160)])),
    "cosine_onecycle_schedule": (S.one_cycle(0.1, steps=200), lambda o: o.cosine_onecycle_schedule(200, 0.1)),
    "cosine_onecycle_schedule, otherwise": (
        S.one_cycle(0.1, steps=200, start=0.02, rise=90, end=0.001),
        lambda o: o.cosine_onecycle_schedule(200, 0.1, 0.45, 5.0, 20.0)),
    "linear_onecycle_schedule": (
        S.join([S.linear(0.004, steps=60, end=0.1), S.linear(0.1, steps=110, end=0.004),
                S.linear(0.004, steps=30, end=4e-7)], [60, 170]),
        lambda o: o.linear_onecycle_schedule(200, 0.1)),
    "join_schedules": (
        S.join([S.constant(0.1), S.polynomial(0.2, steps=100, power=2.0), S.constant(0.3)], [50, 120]),
        lambda o: o.join_schedules(
            [o.constant_schedule(0.1), o.polynomial_schedule(0.2, 0.0, 2.0, 100), o.constant_schedule(0.3)],
            [50, 120])),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTAX)
def test_values_are_those_of_optax(case):
    schedule, make = OPTAX[case]
    theirs, jax = make(need("optax")), need("jax")
    for exact, error in ((True, 1e-15), (False, 3e-7)):  # float64, and float32 as ever
        with jax.enable_x64(exact):
            found = jax.jit(jax.vmap(lambda t: theirs(t) + 0.0 * t))(np.arange(N + 1))
        assert found.dtype == (np.float64 if exact else np.float32)
        np.testing.assert_allclose(values(schedule), found, rtol=10 * error, atol=error * values(schedule).max())


# ---- against the papers ----------------------------------------------------------------------------------------------


def test_inverse_sqrt_is_the_schedule_of_attention_is_all_you_need():
    d_model, warmup = 512, 40
    theirs = [d_model**-0.5 * min(n**-0.5, n * warmup**-1.5) for n in range(1, N + 1)]  # their step n, equation 3
    ours = values(S.inverse_sqrt((d_model * warmup) ** -0.5, warmup=warmup))
    np.testing.assert_allclose(ours[1:], theirs, rtol=1e-14)


@pytest.mark.parametrize(("warmup", "timescale"), [(40, None), (0, None), (40, 100)])
def test_inverse_sqrt_is_that_of_transformers(warmup, timescale):
    def theirs(t):  # _get_inverse_sqrt_schedule_lr_lambda
        if t < warmup:
            return t / max(1, warmup)
        scale = timescale or warmup or 10_000
        return 1.0 / math.sqrt((t + scale - warmup) / scale)

    given = {} if timescale is None else {"timescale": timescale}
    ours = values(S.inverse_sqrt(0.1, warmup=warmup, **given))
    np.testing.assert_allclose(ours, [0.1 * theirs(t) for t in range(N + 1)], rtol=1e-14)


def test_warmup_stable_decay_is_that_of_minicpm_and_of_transformers():
    W, T, end_of_run, eta, least = 20, 140, 200, 0.1, 0.01

    def theirs(s):  # Hu et al. 2024, section 4.2, f being a straight line
        if s < W:
            return s / W * eta
        if s < T:
            return eta
        return least + (eta - least) * max(0.0, (end_of_run - s) / (end_of_run - T))

    ours = values(S.warmup_stable_decay(eta, steps=end_of_run, warmup=W, decay=end_of_run - T, end=least))
    np.testing.assert_allclose(ours, [theirs(s) for s in range(N + 1)], rtol=1e-14)


def test_cosine_restarts_are_sgdrs():
    low, high, T_0, T_mult = 0.01, 0.1, 30, 2
    theirs, T_cur, T_i = [], 0, T_0
    for _ in range(N + 1):  # Loshchilov & Hutter 2017, equation 5, one update after the other
        theirs.append(low + 0.5 * (high - low) * (1 + math.cos(T_cur / T_i * math.pi)))
        T_cur += 1
        if T_cur == T_i:
            T_cur, T_i = 0, T_i * T_mult
    np.testing.assert_allclose(values(S.cosine_restarts(high, period=T_0, growth=T_mult, end=low)), theirs, rtol=1e-14)


# ---- every schedule --------------------------------------------------------------------------------------------------


@every_schedule
def test_warmup_rises_in_a_straight_line_from_0_to_exactly_the_value_that_is_due(schedule):
    warmup = schedule.warmup
    due = schedule(warmup)
    if warmup:
        assert schedule(0) == 0.0
        np.testing.assert_allclose(values(schedule, warmup), due * np.arange(warmup + 1) / warmup, rtol=1e-15)
        assert values(schedule, warmup).max() == due
    first = next((getattr(schedule, name) for name in ("start", "peak", "value") if hasattr(schedule, name)), due)
    assert due == first


@every_schedule
def test_what_has_an_end_is_exactly_there_at_its_last_step_and_stays(schedule):
    steps, end = getattr(schedule, "steps", None), getattr(schedule, "end", None)
    far = [2**24, 2**31 - 1, 2**53 + 1, 2**63 - 1, 2**63]
    if steps is not None:
        assert schedule(steps - 1) > end
        assert {schedule(t) for t in (steps, steps + 1, *far)} == {end}
    for t in far:
        assert type(schedule(t)) is float
        assert 0 <= schedule(t) <= 0.3
        assert schedule(np.array(t, np.uint64)) == schedule(t)


@every_schedule
def test_there_is_no_jump_but_where_one_is_meant(schedule):
    meant = {S.piecewise: {60, 180}, S.cosine_restarts: {41, 101, 221}, S.step: {53, 93}}
    jumps = {t for t in range(1, N) if abs(schedule(t) - schedule(t - 1)) > 0.02}
    assert jumps == meant.get(type(schedule), set())


@every_schedule
def test_it_prints_as_what_makes_it_and_compares_by_value(schedule):
    again = eval(repr(schedule), vars(S))
    for other in (again, copy.copy(schedule), copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert other == schedule
        assert hash(other) == hash(schedule)
        assert repr(other) == repr(schedule)
        assert type(other) is type(schedule)
        assert values(other).tobytes() == values(schedule).tobytes()
    assert all(schedule != other for other in EXAMPLES.values() if other is not schedule)
    with pytest.raises(AttributeError, match="cannot assign to field"):
        schedule.warmup = 3


def test_numbers_of_any_kind_are_taken_and_kept_as_pythons():
    schedule = S.cosine(np.float32(0.5), np.int64(100), warmup=1e1, end=np.array(0))
    assert repr(schedule) == "cosine(peak=0.5, steps=100, warmup=10, end=0.0)"
    assert schedule(np.int8(5)) == schedule(np.array(5)) == schedule(5) == 0.25
    assert S.piecewise(np.array([0.5, 0.25]), range(3, 4)) == S.piecewise([0.5, 0.25], (3,))
    assert schedule(need("torch").tensor(5)) == 0.25


REFUSED = {
    "S.cosine('fast', 10)": "peak of cosine must be a finite number. Got 'fast'.",
    "S.cosine(True, 10)": "peak of cosine must be a finite number. Got True.",
    "S.cosine(math.inf, 10)": "peak of cosine must be a finite number. Got inf.",
    "S.cosine(10**400, 10)": "peak of cosine must be a finite number. Got int.",
    "S.cosine(np.ones(2), 10)": "peak of cosine must be a finite number. Got array([1., 1.]).",
    "S.cosine(0.1, 0)": "steps of cosine must be a whole number ≥ 1. Got 0.",
    "S.cosine(0.1, 1.5)": "steps of cosine must be a whole number ≥ 1. Got 1.5.",
    "S.cosine(0.1, True)": "steps of cosine must be a whole number ≥ 1. Got True.",
    "S.cosine(0.1, None)": "steps of cosine must be a whole number ≥ 1. Got None.",
    "S.cosine(0.1, 10, warmup=-1)": "warmup of cosine must be a whole number ≥ 0. Got -1.",
    "S.cosine(0.1, 10, warmup=10)": "steps of cosine must be more than warmup, 10, which it includes. Got 10.",
    "S.polynomial(0.1, 10, power=0)": "power of polynomial must be a finite number > 0. Got 0.",
    "S.exponential(-0.1, 0.5)": "peak of exponential must be a finite number ≥ 0. Got -0.1.",
    "S.exponential(0.1, 0.5, end=0.2)":
        "end of exponential must be at most peak, 0.1, as factor is not over 1. Got 0.2.",
    "S.exponential(0.1, 2)":
        "end of exponential must be given, and at least peak, 0.1, as factor is over 1. Got 0.0.",
    "S.step(0.1, 30, 0.1)": "warmup of step must be a whole number ≥ 0. Got 0.1.",
    "S.one_cycle(0.1, 10, rise=11)": "rise of one_cycle must be at most 10, the steps after warmup. Got 11.",
    "S.one_cycle(0.1, 5, 8)": "steps of one_cycle must be more than warmup, 8, which it includes. Got 5.",
    "S.warmup_stable_decay(0.1, 10, 5, decay=6)":
        "decay of warmup_stable_decay must be at most 5, the steps after warmup. Got 6.",
    "S.piecewise(0.1, [3])": "values of piecewise must be a list or tuple. Got 0.1.",
    "S.piecewise([1, 'x'], [3])": "values[1] of piecewise must be a finite number. Got 'x'.",
    "S.piecewise([1, 2], [0])": "boundaries[0] of piecewise must be a whole number ≥ 1. Got 0.",
    "S.piecewise([1, 2], [3], warmup=3)": "boundaries[0] of piecewise must be more than warmup, 3. Got 3.",
    "S.piecewise([1, 2, 3], [3, 3])": "boundaries of piecewise must be rising. Got (3, 3).",
    "S.join([S.constant(1)], [3])":
        "schedules of join must be one more than boundaries. Got 1 schedules and 1 boundaries.",
    "S.join([0.1, S.constant(1)], [3])":
        "schedules[0] of join must be a schedule (for a number write constant(number)) or a function of the number of "
        "completed steps. Got 0.1.",
    "S.join([S.cosine], [])":
        "schedules[0] of join must be a schedule (for a number write constant(number)) or a function of the number of "
        "completed steps. Got the class cosine itself: make one, cosine(...).",
    "S.join([fl.SGD()], [])":
        "schedules[0] of join must be a schedule (for a number write constant(number)) or a function of the number of "
        "completed steps. Got SGD(lr=0.001).",
    "S.join([lambda: 1], [])":
        "schedules[0] of join, a schedule, must be a function of one argument, the number of completed steps. "
        "Got <lambda>().",
    "S.cosine(0.1, step=100)": "cosine has no parameter 'step'. Known: peak, steps, warmup, end. Did you mean steps?",
    "S.cosine()": "cosine needs peak and steps. Its parameters: peak, steps, warmup=0, end=0.0.",
    "S.cosine(steps=100)": "cosine needs peak. Its parameters: peak, steps, warmup=0, end=0.0.",
    "S.cosine(0.1, 100, peak=0.1)": "peak of cosine was given twice, by position and by name.",
    "S.cosine(0.1, 100, 0, 0.0, 2)":
        "cosine takes at most 4 parameters by position (peak, steps, warmup, end). Got 5.",
    "S.polynomial(0.1, 100, 0, 0.0, 2)":
        "polynomial takes at most 4 parameters by position (peak, steps, warmup, end), power by name. Got 5.",
    "S.warmup_stable_decay(0.1, 100)":
        "warmup_stable_decay needs decay. Its parameters: peak, steps, warmup=0, end=0.0, decay.",
    "S.join([S.constant(1)])": "join needs boundaries. Its parameters: schedules, boundaries.",
    "S.Schedule()": "Schedule is what all schedules are: make one by name, such as cosine(1e-3, steps=100).",
    "S.piecewise([1, 2], {3: 0.1})": "boundaries of piecewise must be a list or tuple. Got {3: 0.1}.",
    "S.inverse_sqrt(None)": "peak of inverse_sqrt must be a finite number. Got None.",
    "S.one_cycle(None, 10)": "peak of one_cycle must be a finite number. Got None.",
    "S.constant(1)(np.int64(-1))": "t of constant must be a whole number ≥ 0, that of the completed steps. Got -1.",
    "S.constant(1)(-1)": "t of constant must be a whole number ≥ 0, that of the completed steps. Got -1.",
    "S.constant(1)(0.5)": "t of constant must be a whole number ≥ 0, that of the completed steps. Got 0.5.",
    "S.constant(1)(np.arange(2))":
        "t of constant must be a whole number ≥ 0, that of the completed steps. Got array([0, 1]): for several write "
        "[schedule(t) for t in ...].",
}  # fmt: skip


@pytest.mark.parametrize("call", REFUSED)
def test_what_a_schedule_cannot_be_is_refused_in_a_sentence(call):
    with pytest.raises((TypeError, ValueError)) as caught:
        eval(call)
    assert str(caught.value) == REFUSED[call]


@pytest.mark.parametrize("make", SHAPES, ids=[make.__name__ for make in SHAPES])
def test_the_parameters_of_each_are_known_to_inspect_and_all_lacking_ones_are_named(make):
    parameters = inspect.signature(make).parameters
    assert list(parameters) == list(inspect.signature(make.__init__).parameters)[1:]
    needed = [p.name for p in parameters.values() if p.default is p.empty]
    with pytest.raises(TypeError) as caught:
        make()
    assert str(caught.value).startswith(f"{make.__name__} needs {' and '.join(needed)}. Its parameters: {needed[0]}")
    with pytest.raises(TypeError, match=f"{make.__name__} has no parameter 'rate'. Known: {', '.join(parameters)}"):
        make(rate=0.1)


def test_an_unknown_schedule_is_refused_with_the_known_ones():
    with pytest.raises(AttributeError, match=r"fallline.schedules has no 'cosine_decay'. Known: .*cosine, cosine_rest"):
        S.cosine_decay  # noqa: B018


@pytest.mark.parametrize("item", [S.cosine(0.1, steps=10), S.cosine], ids=["a schedule", "its class"])
def test_a_schedule_as_a_link_of_a_chain_is_told_where_it_goes(item):
    for links in ((fl.Adam(), item), (item, fl.Adam())):
        with pytest.raises(fl.FormulaError, match=r"A schedule is a setting of a rule: fallline.Adam\(lr=cosine\("):
            fl.chain(*links)


SHORTEST = {
    "constant": lambda: S.constant(0.1, warmup=1),
    "piecewise": lambda: S.piecewise([0.3, 0.1], [2], warmup=1),
    "linear": lambda: S.linear(0.1, steps=1, end=0.2),
    "polynomial": lambda: S.polynomial(0.1, steps=2, warmup=1, power=0.5),
    "cosine": lambda: S.cosine(0.1, steps=1, end=0.2),
    "cosine_restarts": lambda: S.cosine_restarts(0.1, period=1, growth=2, warmup=1, end=0.2),
    "exponential": lambda: S.exponential(0.1, factor=3, end=0.2),
    "step": lambda: S.step(0.1, every=1, factor=3, end=0.2),
    "inverse_sqrt": lambda: S.inverse_sqrt(0.1, warmup=1),
    "one_cycle": lambda: S.one_cycle(0.1, steps=2, warmup=1, rise=1),
    "warmup_stable_decay": lambda: S.warmup_stable_decay(0.1, steps=2, warmup=1, decay=1),
    "join": lambda: S.join([S.linear(0.1, steps=1), S.cosine(0.2, steps=1)], [1]),
}


@pytest.mark.parametrize("name", SHORTEST)
def test_the_shortest_of_each_has_finite_values_the_same_for_all_kinds_of_whole_numbers(name):
    schedule = SHORTEST[name]()
    assert type(schedule).__name__ == name
    for t in (0, 1, 2, 3, 100, 2**62, 2**63 - 1):
        value = schedule(t)
        assert type(value) is float
        assert math.isfinite(value)
        assert value == schedule(np.int64(t)) == schedule(np.uint64(t)) == schedule(np.array(t))
    assert from_data(to_data(schedule)) == eval(repr(schedule), vars(S)) == schedule


def test_a_function_of_ones_own_is_shown_by_its_name_and_long_lists_in_full():
    long = S.piecewise(range(31), range(1, 31))
    assert eval(repr(long), vars(S)) == long
    assert repr(S.join([lambda t: 0.1, halving], [3])) == "join(schedules=(<lambda>, halving), boundaries=(3,))"


levels = st.floats(0, 1e300)
lengths = st.integers(1, 2**64)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(0, 2**63))
def test_values_lie_between_those_that_were_given_at_any_step(data, t):
    a, b, c = sorted(data.draw(st.tuples(levels, levels, levels)))
    n, warmup, k = data.draw(lengths), data.draw(st.integers(0, 2**64)), data.draw(lengths)
    for schedule in (
        S.constant(b, warmup), S.linear(b, n + warmup, warmup, c), S.linear(c, n + warmup, warmup, b),
        S.polynomial(c, n + warmup, warmup, b, power=data.draw(st.floats(1e-3, 1e3))),
        S.cosine(c, n + warmup, warmup, b), S.cosine(b, n + warmup, warmup, c),
        S.cosine_restarts(c, n, warmup, b, growth=data.draw(st.integers(1, 10))),
        S.exponential(c, data.draw(st.floats(1e-300, 1)), warmup, b, every=n),
        S.exponential(b, data.draw(st.floats(1.0000001, 1e300)), warmup, c, every=n),
        S.step(c, n, warmup, b, factor=data.draw(st.floats(1e-300, 1))), S.inverse_sqrt(c, warmup, timescale=n),
        S.one_cycle(c, n + warmup, warmup, a, start=b), S.warmup_stable_decay(c, n + k + warmup, warmup, b, decay=k),
        S.piecewise([b, c, a], [warmup + n, warmup + n + k], warmup),
        S.join([S.linear(b, n, end=c), S.linear(c, k, end=b)], [n]),
    ):  # fmt: skip
        low = 0 if t < schedule.warmup or type(schedule) is S.inverse_sqrt else a
        assert low <= schedule(t) <= c
        if t >= schedule.warmup and not isinstance(schedule, (S.inverse_sqrt, S.piecewise, S.one_cycle)):
            assert b <= schedule(t)


@settings(max_examples=50, deadline=None)
@given(levels, levels, st.integers(0, 1000), st.integers(1, 10**6))
def test_warmup_ends_at_the_peak_and_the_descent_at_the_end_exactly(peak, end, warmup, length):
    for make in (S.linear, S.cosine, S.polynomial, functools.partial(S.warmup_stable_decay, decay=length)):
        schedule = make(peak, steps=warmup + length, warmup=warmup, end=end)
        assert (schedule(warmup), schedule(warmup + length)) == (peak, end)
        assert warmup == 0 or schedule(0) == 0.0
        level = make(peak, steps=warmup + length, warmup=warmup, end=peak)  # which not even a last bit may leave
        assert {level(warmup + s) for s in range(1, 20)} == {peak}
    rising = S.one_cycle(peak, warmup + length, warmup, end, rise=length)
    assert (rising(warmup), rising(warmup + length)) == (peak / 25, end)
    assert S.cosine_restarts(peak, length, warmup, end)(warmup + 7 * length) == peak
    assert S.inverse_sqrt(peak, warmup)(warmup) == peak


# ---- in an optimizer -------------------------------------------------------------------------------------------------


def settings_of(name):
    """Every hyper-parameter of an optimiser as a schedule that stays in its range."""
    return {key: S.linear(value, steps=5, end=1.0 if value > 1 else value / 2)
            for key, value in fl.OPTIMIZERS[name]().hyper.items()}  # fmt: skip


@every_optimiser
@every_engine
def test_any_hyper_parameter_of_any_rule_may_be_one(name, engine):
    schedules = settings_of(name)
    opt = build(name, engine, **schedules)
    same = build(name, "reference", **{key: (lambda t, f=f: f(t)) for key, f in schedules.items()})
    w, v = a_tree(0), a_tree(0)
    for t in range(9):
        opt.step(w, a_tree(t))
        same.step(v, a_tree(t))
        assert same_bits(w, v)
    assert memory_of(opt) == memory_of(same)
    assert dict(opt.hyper) == schedules


@pytest.mark.parametrize("engine", ["reference", "native", "eager"])
def test_trees_of_schedules_give_each_leaf_its_own(engine):
    first, second = S.cosine(0.1, steps=6, warmup=2), S.join([S.constant(0.2), S.step(0.1, every=2)], [3])
    both = [fl.SGD(lr={"a": first, "b": second}, engine=engine),
            fl.SGD(lr=fl.by_path({"a": first, "b": second}.__getitem__), engine=engine)]
    ones = {"a": np.ones(3), "b": np.ones(2)}
    for t in range(9):
        for opt in both:
            d = opt.update(ones)
            assert (d["a"] == -first(t)).all()
            assert (d["b"] == -second(t)).all()


@pytest.mark.parametrize("engine", ["reference", "native", "eager"])
def test_the_first_step_sees_t_0_and_a_run_goes_on_at_any_step(engine):
    schedule = S.cosine(0.1, steps=8, warmup=3, end=0.01)
    opt = fl.SGD(lr=schedule, engine=engine)
    rates = []
    for cut in range(10):
        other = fl.SGD(lr=schedule, engine=engine)
        other.load_state_dict(opt.state_dict())
        fresh = fl.SGD(lr=schedule, engine=engine)
        fresh.t = cut
        rates.append(-opt.update(1.0))
        assert -other.update(1.0) == -fresh.update(1.0) == rates[-1]
    assert rates == [schedule(t) for t in range(10)]
    assert rates[:4] == [0.0, 0.1 / 3, 0.1 * (2 / 3), 0.1]


@every_schedule
@every_engine
def test_the_last_steps_that_can_be_counted_are_taken(engine, schedule):
    opt, w = fl.Adam(lr=schedule, engine=engine), np.ones(3)
    opt.step(w, w)
    opt.t = 2**63 - 4
    for _ in range(3):
        opt.step(w, w)
    assert np.isfinite(w).all()


def test_a_schedule_is_shown_by_the_optimizer_and_asked_for_its_value():
    opt = fl.Adam(lr=S.cosine(0.001, steps=10_000, warmup=500))
    assert repr(opt).startswith("Adam(lr=cosine(peak=0.001, steps=10000, warmup=500, end=0.0), beta1=0.9")
    assert eval(repr(opt), vars(fl) | vars(S)).hyper == opt.hyper
    opt.t = 250
    assert opt.lr(opt.t) == 0.0005
    opt.lr = S.join([opt.lr, S.constant(0.25)], boundaries=[opt.t + 1])
    assert [opt.lr(t) for t in (250, 251, 1000)] == [0.0005, 0.25, 0.25]


def test_what_leaves_the_range_is_refused_at_that_step():
    opt = fl.SGD(lr=S.linear(1.0, steps=4, end=-1.0))
    for _ in range(3):
        opt.update(1.0)
    with pytest.raises(ValueError, match=r"lr of SGD must be ≥ 0.* Got -0.5 from its schedule at t=3"):
        opt.update(1.0)


# ---- in a checkpoint -------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def walked(opt, w, steps=4):
    for t in range(steps):
        opt.step(w, a_tree(t))
    return w


@every_schedule
@every_engine
def test_a_file_is_enough_to_go_on_to_the_bit(schedule, engine, path):
    lr = {"a": schedule, "b": S.join([S.constant(0.1), S.join([schedule, schedule], [2])], [1])}
    opt = fl.Adam(lr=lr, beta1=S.linear(0.5, steps=10, end=0.9), engine=engine)
    w = walked(opt, a_tree(9))
    opt.save(path, w)
    again, v = fl.load(path)
    assert again.lr == lr
    assert repr(again) == repr(opt)
    assert everything_of(again) == everything_of(opt)
    before = path.read_bytes()
    again.save(path, v)
    assert path.read_bytes() == before
    other = opt.fresh()
    u = other.load(path)
    for each, x in ((opt, w), (again, v), (other, u)):
        walked(each, x)
        assert same_bits(x, w)


RESTORED = {
    "another parameter": (S.constant(0.1), S.constant(0.2)),
    "another schedule": (S.piecewise([0.1, 1e-300], [3]), S.linear(0.1, 10)),
    "in place of a number": (S.constant(0.1), 0.1),
    "a number": (0.1, S.constant(0.1)),
    "deep in a join": (S.join([S.constant(0.1), S.join([S.step(1, 2), S.constant(1)], [3])], [5]),
                       S.join([S.constant(0.1), S.step(1, 3)], [5])),
    "at a leaf": ({"a": 0.1, "b": S.step(1, 2)}, {"a": S.constant(0.1), "b": S.step(1, 3)}),
    "at each leaf": ({"a": S.constant(0.1), "b": S.step(1, 2)}, S.constant(0.1)),
    "beside a function": ({"a": halving, "b": S.step(1, 2)}, {"a": halving, "b": 0.1}),
}  # fmt: skip


@pytest.mark.parametrize("case", RESTORED)
def test_schedules_are_restored_like_numbers_whatever_was_here(case, path):
    saved, here = RESTORED[case]
    opt, w = fl.SGD(lr=saved), a_tree(0)
    walked(opt, w)
    opt.save(path)
    for load in (lambda other: other.load(path), lambda other: other.load_state_dict(opt.state_dict())):
        other, v = fl.SGD(lr=here), copy.deepcopy(w)
        load(other)
        assert other.lr == saved
        assert repr(other) == repr(opt)
        assert same_bits(walked(other, v), walked(copy.deepcopy(opt), copy.deepcopy(w)))


@every_schedule
def test_a_state_dictionary_has_a_schedule_in_words_that_say_it_whole(schedule):
    for lr in (schedule, S.join([schedule, S.join([S.constant(0.1), schedule], [2])], [7])):
        words = fl.SGD(lr=lr).state_dict()["hyper"]["sgd.lr"]
        assert (type(words), from_text(words)) == (str, lr)
        other = fl.SGD()
        other.load_state_dict(fl.SGD(lr=lr).state_dict())
        assert other.lr == lr


@pytest.mark.parametrize("text", [
    "constant", "constant(", "constant()", "constant(0.1)", "constant(value=0.1)", "constant(value=0.1, warmup=0) ",
    "constant(value=True, warmup=0)", "constant(value=-0.1, warmup=-1)", "constant(value=halving, warmup=0)",
    "constant(**{})", "constant(value=1/0, warmup=0)", "Schedule()", "join(schedules=(), boundaries=())",
    "join(schedules=(constant(value=0.1, warmup=0), f), boundaries=(1,))", "constant(value=__import__('os'), warmup=0)",
    "constant" + "(" * 5000, "constant(value=" + "-" * 5000 + "1, warmup=0)",
])  # fmt: skip
def test_words_that_say_no_schedule_whole_are_the_name_of_a_function(text):
    assert from_text(text) is None
    d = fl.SGD().state_dict()
    with pytest.raises(ValueError, match="A function cannot be saved"):
        fl.SGD().load_state_dict({**d, "hyper": {"sgd.lr": text}})


OTHERS = {
    "a function": (S.constant(0.1), halving, r"constant\(.*\)", "'halving'"),
    "instead of a function": (halving, S.constant(0.1), "halving", r"constant\(.*\)"),
    "in a join": (S.join([S.constant(0.1), halving], [5]), S.join([S.constant(0.1), S.step(1, 3)], [5]),
                  r"join\(.*halving.*\)", r"join\(.*every=3.*\)"),
    "at a leaf": ({"a": S.constant(0.1), "b": S.step(1, 2)}, {"a": S.constant(0.1), "b": halving},
                  r"step\(.*every=2.*\)'? at 'b'", "'halving'"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_another_function_than_the_saved_one_is_refused_with_both_named(case, path):
    saved, here, theirs, ours = OTHERS[case]
    opt, other = fl.SGD(lr=saved), fl.SGD(lr=here)
    walked(opt, a_tree(0))
    opt.save(path)
    for load in (lambda: other.load(path), lambda: other.load_state_dict(opt.state_dict())):
        with pytest.raises(ValueError, match=rf"lr of SGD was '?{theirs}'?.* when it was saved, and is {ours} here\. .*"
                                             "A function cannot be saved: give SGD the lr that it had, load, and "
                                             "assign another afterwards"):
            load()
    assert (other.t, other.lr) == (0, here)


def test_a_schedule_that_is_restored_is_not_given_again(path):
    fl.SGD(lr=S.constant(0.1)).save(path)
    with pytest.raises(fl.CheckpointError, match=r"lr of SGD was constant\(value=0.1, warmup=0\) .* It is restored"):
        fl.load(path, lr=S.constant(0.1))


@pytest.mark.parametrize("lr", [S.join([S.constant(0.1), halving], [2]), {"a": S.constant(0.1), "b": halving}],
                         ids=["in a join", "in a tree"])  # fmt: skip
def test_functions_of_ones_own_among_them_are_given_again(lr, path):
    opt = fl.SGD(lr=lr)
    w = walked(opt, a_tree(0))
    opt.save(path, w)
    with pytest.raises(fl.CheckpointError, match=r"lr of SGD was .*halving.*Functions cannot be saved: give it again"):
        fl.load(path)
    again, v = fl.load(path, lr=lr)
    assert same_bits(walked(again, v), walked(opt, w))


def test_a_class_of_the_same_name_is_not_taken_for_fallline_s_own(path):
    class constant(S.constant):  # noqa: N801
        pass

    for qualname in (constant.__qualname__, "constant"):  # as it is here, or in a module
        constant.__qualname__ = qualname
        fl.SGD(lr=constant(0.1)).save(path)
        with pytest.raises(fl.CheckpointError, match="Functions cannot be saved"):
            fl.load(path)
        assert type(fl.load(path, lr=constant(0.1)).lr) is constant


def altered(path, change):
    """The file with its record of lr changed, and a digest that fits."""
    info, arrays = read_file(path)
    info["hyper"]["sgd.lr"] = change(info["hyper"]["sgd.lr"])
    write_file(path, info, arrays)


MALFORMED = {
    "an unknown name": ({"schedule": "cosines"}, "'cosines' is no schedule of fallline"),
    "a name from elsewhere": ({"schedule": "plot"}, "'plot' is no schedule"),
    "no name": ({"value": 0.1}, "is no schedule of fallline"),
    "a list as name": ({"schedule": ["constant"]}, "is no schedule of fallline"),
    "nothing but a name": ({"schedule": "constant"}, "constant has the parameters value, warmup. Got"),
    "a parameter too many": ({"schedule": "constant", "value": 1.0, "warmup": 0, "more": 1}, "has the parameters"),
    "a parameter that is null": ({"schedule": "inverse_sqrt", "peak": 1.0, "warmup": 0, "timescale": None},
                                 "has the parameters"),
    "a value out of range": ({"schedule": "constant", "value": 0.1, "warmup": -1}, "warmup of constant must be .*-1"),
    "text for a number": ({"schedule": "constant", "value": "0.1", "warmup": 0}, "value of constant must be a finite"),
    "a number where schedules go": ({"schedule": "join", "schedules": [0.1], "boundaries": []}, r"schedules\[0\] of"),
    "a bad one within a join": ({"schedule": "join", "schedules": [{"schedule": "join"}], "boundaries": []},
                                "join has the parameters"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_a_record_that_makes_no_sense_is_refused(case, path):
    data, message = MALFORMED[case]
    fl.SGD(lr=S.constant(0.1)).save(path)
    altered(path, lambda _: data)
    for load in (fl.load, fl.SGD(lr=S.constant(0.1)).load):
        with pytest.raises(fl.CheckpointError, match=message):
            load(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(S.__all__),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=8)
mutations = st.lists(st.tuples(st.integers(0, 30), json_values | st.sampled_from(
    [to_data(schedule) for schedule in EXAMPLES.values()])), min_size=1, max_size=4)  # fmt: skip


def mutated(data, place, value):
    """The data with the node of that number, in the order of reading, replaced."""
    count = iter(range(10_000))

    def walk(node):
        if next(count) == place:
            return value
        if isinstance(node, dict):
            return {key: walk(item) for key, item in node.items()}
        return list(map(walk, node)) if isinstance(node, list) else node

    return walk(data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(EXAMPLES.values())), mutations)
def test_any_record_is_a_schedule_that_can_be_called_or_is_refused(schedule, changes):
    data = to_data(schedule)
    for place, value in changes:
        data = mutated(data, place, value)
    try:
        found = from_data(data)
    except (TypeError, ValueError):
        return
    assert from_data(to_data(found)) == found
    for t in (0, 1, 100, 2**63):
        assert math.isfinite(found(t))


@pytest.mark.parametrize("file", sorted(DATA.glob("schedules-*.safetensors")), ids=lambda file: file.stem)
def test_files_of_every_format_are_read_for_ever(file):
    opt, w = fl.load(file)
    known = json.loads(file.with_suffix(".json").read_text())
    assert (opt.t, repr(opt)) == (3, known["repr"])
    w = opt.step(w, dict.fromkeys(w, 1.0))
    assert {name: x.hex() for name, x in w.items()} == known["next step"]


# ---- as a picture ----------------------------------------------------------------------------------------------------


@every_schedule
def test_a_plot_shows_the_values_at_every_step_there_is_to_see(schedule):
    figure = S.plot(schedule)
    (line,) = figure.data
    assert line.name == repr(schedule)
    assert list(line.y) == [schedule(t) for t in line.x]
    assert line.x[0] == 0
    steps = getattr(schedule, "steps", None)
    if steps is not None:
        assert list(line.x) == list(range(steps + 1))
    assert len(set(line.y)) > 1


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1e308), st.floats(0, 1e308), st.floats(1e-300, 1e300), st.integers(1, 2**63))
def test_anything_that_a_schedule_can_be_has_something_to_see(a, b, factor, every):
    low, high = sorted((a, b))
    first, last = (low, high) if factor > 1 else (high, low)
    for schedule in (S.exponential(first, factor, end=last, every=every), S.step(first, every, end=last, factor=factor),
                     S.cosine_restarts(a, every, growth=2), S.inverse_sqrt(a, every), S.piecewise([a], [])):
        assert schedule.warmup < schedule._extent() < 2**128


def test_several_are_drawn_together_under_the_names_they_are_given():
    a, b = S.cosine(1.0, steps=10**9, warmup=7), S.constant(0.5)
    assert [line.name for line in S.plot([a, b, halving]).data] == [repr(a), repr(b), "halving"]
    figure = S.plot({"net": {"W": a, "b": [b, 0.25]}, "a/b": halving}, steps=1e9)
    assert [line.name for line in figure.data] == ["net/W", "net/b/0", "net/b/1", "a/b"]
    assert {line.y[-1] for line in figure.data} == {0.0, 0.5, 0.25}
    assert all(1000 < len(line.x) < 3000 for line in figure.data)
    assert len({(line.line.color, line.line.dash) for line in S.plot([a] * 20).data}) == 20
    assert "plotly" in figure._repr_html_()


@pytest.mark.parametrize(("call", "message"), [
    (lambda: S.plot([]), "plot needs a schedule. Got none."),
    (lambda: S.plot(S.constant(1), steps=0), "steps of plot must be a whole number ≥ 1. Got 0."),
    (lambda: S.plot(fl.SGD()), r"plot takes a schedule.*such as opt.lr. Got SGD\(lr=0.001\)."),
    (lambda: S.plot("cosine"), "plot takes a schedule.*Got 'cosine'."),
    (lambda: S.plot(S.cosine), r"plot takes a schedule.*Got the class cosine itself: make one, cosine\(...\)"),
    (lambda: S.plot(True), "plot takes a schedule.*Got True"),
    (lambda: S.plot([math.nan]), "plot takes a schedule.*Got nan"),
    (lambda: S.plot(lambda: 1), r"plot takes functions of one argument, the number of.*Got <lambda>\(\)"),
    (lambda: S.plot(lambda t: [t]), r"plot takes functions that return numbers. Got \[0\] from <lambda> at t=0"),
    (lambda: S.plot(S.constant(1), halving), r"steps of plot must be .*Got halving: give several.*plot\(\[a, b\]\)"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_where_plotly_is_missing_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(ImportError, match=r'A plot of schedules needs plotly: pip install "fallline\[race\]"'):
        S.plot(S.constant(0.1))


def test_an_import_of_fallline_waits_for_no_schedules_and_shows_that_they_are_there():
    script = ("import sys, fallline as fl; fl.SGD().load_state_dict(fl.SGD(0.1).state_dict()); "
              "print(any('schedules' in m for m in sys.modules), 'schedules' in dir(fl), fl.schedules.constant(1)(0))")
    assert run_alone(script) == "False True 1.0\n"
