"""The optimisers beyond the ten: the steps of their authors' packages and of torch, optax and Keras where definitions
coincide, and what notes quote.

All run in float64 over 80 steps. Where a peer adds ε at every step and this library starts the accumulator at it, it is
0 there and too small to be seen here.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import fallline as fl
from needed import need
from peers import BETA1, BETA2, BETAS, LATE, LR, WALKS, filled, late
from reference_formulas import TRANSCRIPTIONS
from support import every_dtype, every_engine, same_bits

DECAY = 2.0**-4
NONE = {"eps": 1e-30}  # a start that no step shows
STEPS = 80

# Keras' torch back end hands tensors to NumPy in a way that NumPy 2 deprecates; that is between the two of them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def late_in_torch(w):
    return {"step": filled(w.sum(), LATE), "mu_product": filled(w.sum(), 0.0), "exp_avg": filled(w, 0.0),
            "exp_avg_sq": filled(w, 0.0)}  # fmt: skip


def training(optimizer):
    """One of Schedule-Free's authors, which has to be told."""
    optimizer.train()
    return optimizer


def warmed(optax, beta3=0.99, alpha=4.0, alpha_steps=50, beta3_steps=70):
    """optax' AdEMAMix with the schedulers of the paper, of which it has none; they count from 0."""
    import jax.numpy as jnp

    def scheduled_alpha(done):
        return jnp.minimum((done.astype(float) + 1) * alpha / alpha_steps, alpha)

    def scheduled_beta3(done):
        start, end, part = math.log(BETA1), math.log(beta3), (done.astype(float) + 1) / beta3_steps
        return jnp.minimum(jnp.exp(start * end / ((1 - part) * end + part * start)), beta3)

    return optax.contrib.ademamix(LR, b1=BETA1, b2=BETA2, b3=scheduled_beta3, alpha=scheduled_alpha, eps=0.0,
                                  weight_decay=DECAY)  # fmt: skip


# What coincides: our optimiser, the peer, the peer's optimiser, how the peer's state starts (where not as usual).
CASES = {
    "AdamW is torch's": (
        lambda: fl.AdamW(LR, **BETAS, **NONE, weight_decay=DECAY),
        "torch",
        lambda optim, w: optim.AdamW(w, lr=LR, betas=(BETA1, BETA2), eps=0, weight_decay=DECAY),
    ),
    "AdamW is optax'": (
        lambda: fl.AdamW(LR, **BETAS, **NONE, weight_decay=DECAY),
        "optax",
        lambda optax: optax.adamw(LR, b1=BETA1, b2=BETA2, eps=0.0, weight_decay=DECAY),
    ),
    "AdamW is Keras'": (
        lambda: fl.AdamW(LR, **BETAS, **NONE, weight_decay=DECAY),
        "keras",
        lambda optimizers: optimizers.AdamW(LR, weight_decay=DECAY, beta_1=BETA1, beta_2=BETA2, epsilon=0.0),
    ),
    "NadamW is torch's once its schedule has faded": (
        lambda: late(fl.NadamW(LR, **BETAS, eps=0.0, weight_decay=DECAY)),
        "torch",
        lambda optim, w: optim.NAdam(w, lr=LR, betas=(BETA1, BETA2), eps=0, momentum_decay=1.0, weight_decay=DECAY,
                                     decoupled_weight_decay=True),
        late_in_torch,
    ),
    "NadamW is optax' once the correction has faded": (
        lambda: late(fl.NadamW(LR, **BETAS, eps=0.0, weight_decay=DECAY)),
        "optax",
        lambda optax: optax.nadamw(LR, b1=BETA1, b2=BETA2, eps=0.0, weight_decay=DECAY),
        lambda state, w: state._replace(count=state.count + LATE),
    ),
    "Lion is optax'": (
        lambda: fl.Lion(LR, **BETAS, weight_decay=DECAY),
        "optax",
        lambda optax: optax.lion(LR, b1=BETA1, b2=BETA2, weight_decay=DECAY),
    ),
    "Lion is Keras'": (
        lambda: fl.Lion(LR, **BETAS),
        "keras",
        lambda optimizers: optimizers.Lion(LR, beta_1=BETA1, beta_2=BETA2),
    ),
    "Rprop is torch's": (
        lambda: fl.Rprop(LR, eta_minus=0.25, eta_plus=1.5, min_rate=LR / 4, max_rate=4 * LR),
        "torch",
        lambda optim, w: optim.Rprop(w, lr=LR, etas=(0.25, 1.5), step_sizes=(LR / 4, 4 * LR)),
    ),
    "AMSGrad is torch's": (
        lambda: fl.AMSGrad(LR, **BETAS, **NONE),
        "torch",
        lambda optim, w: optim.Adam(w, lr=LR, betas=(BETA1, BETA2), eps=0, amsgrad=True),
    ),
    "AMSGrad is Keras'": (
        lambda: fl.AMSGrad(LR, **BETAS, **NONE),
        "keras",
        lambda optimizers: optimizers.Adam(LR, beta_1=BETA1, beta_2=BETA2, epsilon=0.0, amsgrad=True),
    ),
    "AMSGrad is optax' once the correction has faded": (
        lambda: late(fl.AMSGrad(LR, **BETAS, eps=0.0), 10**6),
        "optax",
        lambda optax: optax.amsgrad(LR, b1=BETA1, b2=BETA2, eps=0.0),
        lambda state, w: state._replace(count=state.count + 10**6),
    ),
    "AdaBelief is optax'": (
        lambda: fl.AdaBelief(LR, **BETAS, **NONE),
        "optax",
        lambda optax: optax.adabelief(LR, b1=BETA1, b2=BETA2, eps=0.0, eps_root=0.0),
    ),
    "RAdam is optax' with the threshold of the paper": (
        lambda: fl.RAdam(LR, **BETAS, **NONE),
        "optax",
        lambda optax: optax.radam(LR, b1=BETA1, b2=BETA2, eps=0.0, threshold=4.0),
    ),
    "RAdam is torch's where ρ never is between the thresholds": (  # 1, 2.2, 2.5 and less than 4 for ever
        lambda: fl.RAdam(LR, beta1=BETA1, beta2=0.5, eps=1e-30),
        "torch",
        lambda optim, w: optim.RAdam(w, lr=LR, betas=(BETA1, 0.5), eps=0),
    ),
    "RAdam is torch's past the thresholds": (
        lambda: late(fl.RAdam(LR, **BETAS, eps=0.0)),
        "torch",
        lambda optim, w: optim.RAdam(w, lr=LR, betas=(BETA1, BETA2), eps=0),
        lambda w: {"step": filled(w.sum(), LATE), "exp_avg": filled(w, 0.0), "exp_avg_sq": filled(w, 0.0)},
    ),
    "AdEMAMix is optax'": (
        lambda: fl.AdEMAMix(LR, **BETAS, **NONE, beta3=0.99, alpha=4.0, weight_decay=DECAY),
        "optax",
        lambda optax: optax.contrib.ademamix(LR, b1=BETA1, b2=BETA2, b3=0.99, alpha=4.0, eps=0.0, weight_decay=DECAY),
    ),
    "AdEMAMix with warm-ups is optax' with the paper's schedulers": (
        lambda: fl.AdEMAMix(LR, **BETAS, **NONE, beta3=0.99, alpha=4.0, alpha_warmup=50, beta3_warmup=70,
                            weight_decay=DECAY),
        "optax",
        warmed,
    ),
    "LAMB without decay is Keras'": (
        lambda: fl.LAMB(LR, **BETAS, **NONE),
        "keras",
        lambda optimizers: optimizers.Lamb(LR, beta_1=BETA1, beta_2=BETA2, epsilon=0.0),
    ),
    "Prodigy is its authors'": (
        lambda: fl.Prodigy(**BETAS, **NONE, d0=1e-3, d_coef=2.0, weight_decay=DECAY),
        "torch",
        lambda _, w: need("prodigyopt").Prodigy(w, betas=(BETA1, BETA2), **NONE, d0=1e-3, d_coef=2.0,
                                                weight_decay=DECAY),
    ),
    "Schedule-Free SGD behind l2 is its authors' with weight_decay": (
        lambda: fl.chain(fl.l2(DECAY), fl.ScheduleFreeSGD(LR, beta=0.75)),
        "torch",
        lambda _, w: training(need("schedulefree").SGDScheduleFree(w, LR, momentum=0.75, weight_decay=DECAY)),
    ),
    "Schedule-Free AdamW is its authors', with a warm-up": (
        lambda: fl.ScheduleFreeAdamW(lambda done: LR*min((done + 1)/16, 1), **BETAS, **NONE, weight_decay=DECAY),
        "torch",
        lambda _, w: training(need("schedulefree").AdamWScheduleFree(w, LR, (BETA1, BETA2), **NONE,
                                                                     weight_decay=DECAY, warmup_steps=16)),
    ),
    "Adan is pytorch_optimizer's": (
        lambda: fl.Adan(LR, **NONE, weight_decay=DECAY),
        "torch",
        lambda _, w: need("pytorch_optimizer").Adan(w, lr=LR, **NONE, weight_decay=DECAY, weight_decouple=False),
    ),
    "LARS with decay is pytorch_optimizer's": (
        lambda: fl.LARS(1.0, weight_decay=DECAY),
        "torch",
        lambda _, w: need("pytorch_optimizer").LARS(w, lr=1.0, weight_decay=DECAY),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", list(CASES))
def test_the_definitions_coincide(case):
    ours, peer, theirs, *start = CASES[case]
    rng = np.random.default_rng(0)
    w, g = rng.standard_normal((3, 4)), rng.standard_normal((STEPS, 3, 4))
    opt, mine = ours(), w.copy()
    for step, found in enumerate(WALKS[peer](theirs, w, g, *start)):
        mine = opt.step(mine, g[step])
        np.testing.assert_allclose(mine, found, rtol=0, atol=1e-11, err_msg=f"{case}, step {step + 1}")
    assert step == STEPS - 1
    assert np.min(np.abs(mine - w)) > 1e-4


# --------------------------------------------------------------------------- compositions, to the bit


COMPOSED = {
    "AdamW": (fl.AdamW, fl.Adam),
    "NadamW": (fl.NadamW, fl.Nadam),
}


@pytest.mark.parametrize("name", COMPOSED)
@every_engine
@every_dtype
def test_a_decaying_rule_is_the_chain_of_the_rule_and_the_decay_to_the_bit(name, engine, dtype):
    whole, part = COMPOSED[name]
    rates = {"lr": lambda done: 0.1 / (1 + done), "beta1": 0.8, "beta2": 0.95, "eps": 0.01}
    opt = whole(**rates, weight_decay=0.3, engine=engine)
    chain = fl.chain(part(**rates), fl.weight_decay(0.3), engine=engine)
    rng = np.random.default_rng(1)
    w = rng.standard_normal(300).astype(dtype)
    v = w.copy()
    for _ in range(60):
        g = (rng.standard_normal(300) * (rng.random(300) < 0.7)).astype(dtype)
        assert same_bits(opt.update(g, params=w), chain.update(g, params=v))
        opt.step(w, g)
        chain.step(v, g)
        assert same_bits(w, v)


def test_without_decay_adamw_and_nadamw_take_the_steps_of_adam_and_nadam():
    for whole, part in COMPOSED.values():
        opt, plain, w, v = whole(0.1, weight_decay=0.0), part(0.1), np.ones(5), np.ones(5)
        for g in np.random.default_rng(2).standard_normal((60, 5)):
            assert same_bits(opt.step(w, g), plain.step(v, g))


# ------------------------------------------------------------------------------- what each note says


def last_of(opt, gradient, steps):
    for _ in range(steps):
        d = opt.update(np.array([gradient]))
    return float(d[0])


@pytest.mark.parametrize("beta2", [0.5, 0.6, 0.9, 0.99, 0.999])
def test_radam_rectifies_from_the_step_on_at_which_rho_exceeds_the_4_of_the_paper(beta2):
    opt, momenta = fl.RAdam(1.0, beta1=0.0, beta2=beta2, eps=0.0), []
    for t in range(1, 61):
        rectified = float(opt.update(np.array([100.0]))[0]) > -99
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * t * beta2**t / (1 - beta2**t)
        assert rectified == (length > 4), t
        momenta.append(not rectified)
    assert sum(momenta) == (60 if beta2 <= 0.6 else {0.9: 4, 0.99: 4, 0.999: 4}[beta2])


def test_radam_parts_from_torch_by_one_step_at_the_usual_settings():
    *_, theirs = WALKS["torch"](lambda optim, w: optim.RAdam(w, lr=1.0, betas=(0.0, 0.999), eps=0), np.zeros(1),
                                np.full((5, 1), 100.0))  # fmt: skip
    opt, w = fl.RAdam(1.0, beta1=0.0, eps=0.0), np.zeros(1)
    for _ in range(4):
        opt.step(w, np.full(1, 100.0))
    assert w[0] == -400.0
    assert theirs[0] == -500.0
    assert -1 < opt.update(np.full(1, 100.0))[0] < 0


@pytest.mark.parametrize("rule", ["amsgrad", "adam"])
def test_amsgrad_never_forgets_a_large_gradient(rule):
    opt = {"amsgrad": fl.AMSGrad, "adam": fl.Adam}[rule](1.0, beta1=0.0, beta2=0.9, eps=0.0)
    opt.update(np.array([100.0]))
    size = -last_of(opt, 1.0, 300)
    assert size == pytest.approx(1.0 if rule == "adam" else (1 / 1000) ** 0.5, rel=1e-3)


def test_the_eps_of_amsgrad_does_not_fade():
    assert fl.AMSGrad().eps == 1e-8
    assert last_of(fl.AMSGrad(1.0), 1e-4, 20_000) == pytest.approx(-1.0, rel=1e-3)
    assert last_of(fl.AMSGrad(1.0), 1e-6, 20_000) == pytest.approx(-0.01, rel=1e-3)
    assert last_of(fl.AMSGrad(1.0, eps=0.0), 1e-6, 10) == pytest.approx(-1.0, rel=1e-9)


def test_adabelief_steps_further_and_further_under_a_constant_gradient():
    opt = fl.AdaBelief(1.0)
    early = last_of(opt, 1.0, 1000)
    late_steps = [last_of(opt, 1.0, 1000) * (1 - 0.999 ** (1000 * k)) ** -0.5 for k in (2, 3)]
    assert late_steps[1] / late_steps[0] == pytest.approx(0.999**-500, rel=1e-6)
    assert pytest.approx(1.6, abs=0.06) == 0.999**-500
    assert early < -1


def test_lion_steps_by_its_rate_and_rests_where_past_and_gradient_are_0():
    opt = fl.Lion(0.25)
    assert opt.update(np.array([1e-30, -1e30, 0.0]), params=np.ones(3)).tolist() == [-0.25, 0.25, 0.0]
    assert opt.update(np.array([0.0, 0.0, 0.0]), params=np.ones(3)).tolist() == [-0.25, 0.25, 0.0]


def test_rprop_grows_while_signs_agree_and_stays_once_where_they_turn():
    opt = fl.Rprop(1.0, max_rate=1.5, min_rate=0.5)
    found = [float(opt.update(np.array([g]))[0]) for g in (3.0, 0.1, 9.0, -1e-200, -1e-200, -1.0, 0.0, 0.0, -2.0)]
    assert found == pytest.approx([-1.0, -1.2, -1.44, 0.0, 0.72, 0.864, 0.0, 0.0, 0.864])
    assert fl.Rprop(1.0, max_rate=1.5).update(np.array([0.0]))[0] == 0


def test_rprop_keeps_its_rates_within_their_limits():
    opt = fl.Rprop(1.0, max_rate=1.5, min_rate=0.25)
    for _ in range(10):
        opt.update(np.ones(1))
    assert opt.state["rate"][0] == 1.5
    for k in range(20):
        opt.update(np.array([(-1.0) ** (k // 2)]))
    assert opt.state["rate"][0] == 0.25


def test_lr_of_rprop_is_where_its_rates_start_and_is_refused_after_that():
    opt = fl.Rprop(0.5)
    opt.lr = 0.25
    opt.update(np.ones(2))
    assert opt.state["rate"].tolist() == [0.25, 0.25]
    with pytest.raises(ValueError, match=r"lr.*reset"):
        opt.lr = 1.0


@every_engine
def test_ademamix_warms_up_as_its_paper_prints_it(engine):
    hyper = {"lr": 0.1, "beta3": 0.999, "alpha": 8.0, "alpha_warmup": 30.0, "beta3_warmup": 45.5, "weight_decay": 0.1}
    opt, expected = fl.AdEMAMix(**hyper, engine=engine), TRANSCRIPTIONS["AdEMAMix"]((4,), 2.0**-1022, **hyper)
    x = np.ones(4)
    for g in np.random.default_rng(3).standard_normal((60, 4)):
        np.testing.assert_allclose(opt.update(g, params=x), expected.step(g, x), rtol=1e-12)
        np.testing.assert_allclose(opt.state["m2"], expected.m2, rtol=1e-12)


def test_ademamix_warms_its_memory_linearly_in_the_half_life():
    opt = fl.AdEMAMix(beta3=0.999, beta3_warmup=100)
    for t in range(1, 121):
        before = np.array(opt.state["m2"]) if t > 1 else 0.0
        opt.update(np.zeros(1) if t > 1 else np.ones(1), params=np.zeros(1))
        if t > 1:
            half_life = math.log(0.5) / math.log(float((opt.state["m2"] / before)[0]))
            start, end = math.log(0.5) / math.log(0.9), math.log(0.5) / math.log(0.999)
            assert half_life == pytest.approx(start + (end - start) * min(t / 100, 1), rel=1e-9)


@pytest.mark.parametrize("hyper", [{"beta1": 0.0}, {"beta3": 0.0}, {"beta1": 0.95, "beta3": 0.5}, {"beta1": 0.9999}])
@every_engine
def test_no_setting_of_ademamix_makes_its_warm_up_nan(hyper, engine):
    opt = fl.AdEMAMix(**hyper, beta3_warmup=20, alpha_warmup=0.5, engine=engine)
    for _ in range(60):
        d = opt.update(np.array([1.0, -2.0]), params=np.zeros(2))
        assert d[0] < 0 < d[1]
        assert np.isfinite(opt.state["m2"]).all()


def test_what_moves_the_parameter_alone_is_refused_behind_a_rule_that_keeps_other_points():
    for optimizer, remedy in ((fl.ScheduleFreeSGD(), "let it act on the gradient, as l2 does"),
                              (fl.ScheduleFreeAdamW(), r"use its own, ScheduleFreeAdamW\(weight_decay=\.\.\.\)")):
        with pytest.raises(fl.FormulaError, match=f"weight_decay moves .*, and not the point z .*: {remedy}"):
            fl.chain(optimizer, fl.weight_decay(0.1))
        assert fl.chain(fl.l2(0.1), optimizer, fl.average(0.5)).step(1.0, 1.0) < 1.0
