"""The values of schedules against those of torch, of optax and of the papers."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import fallline as fl
from needed import need
from of_schedules import N, values

S = fl.schedules


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


@pytest.mark.slow
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
