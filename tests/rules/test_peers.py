"""torch, optax and Keras take the same steps wherever a choice of their settings makes the definitions coincide.

All of them run in float64, with settings that float32 holds exactly, since Keras keeps its rate in float32. Where a
peer starts an accumulator at 0 and this library at eps, eps is set to 0 (or the peer's accumulator to eps).
"""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl
from peers import BETA1, BETA2, BETAS, EPS, LATE, LR, MOMENTUM, RHO, WALKS, filled, late

STEPS = 80

# Keras' torch back end hands tensors to NumPy in a way that NumPy 2 deprecates; that is between the two of them.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]


def start_adadelta_in_keras(optimizer):
    for variable in (*optimizer._accumulated_grads, *optimizer._accumulated_delta_vars):
        variable.assign(filled(variable.value, EPS))


def start_nadam_late_in_keras(optimizer):
    optimizer.iterations.assign(LATE)
    optimizer._u_product.assign(0.0)


# What coincides: our optimiser, the peer, the peer's optimiser, how the peer's state starts (where not as usual).
CASES = {
    "SGD is torch's": (
        lambda: fl.SGD(LR),
        "torch",
        lambda optim, w: optim.SGD(w, lr=LR),
    ),
    "SGD is optax'": (
        lambda: fl.SGD(LR),
        "optax",
        lambda optax: optax.sgd(LR),
    ),
    "SGD is Keras'": (
        lambda: fl.SGD(LR),
        "keras",
        lambda optimizers: optimizers.SGD(LR),
    ),
    "Momentum is torch's at a constant rate": (
        lambda: fl.Momentum(LR, momentum=MOMENTUM),
        "torch",
        lambda optim, w: optim.SGD(w, lr=LR, momentum=MOMENTUM),
    ),
    "Momentum is optax' at a constant rate": (
        lambda: fl.Momentum(LR, momentum=MOMENTUM),
        "optax",
        lambda optax: optax.sgd(LR, momentum=MOMENTUM),
    ),
    "Momentum is Keras'": (
        lambda: fl.Momentum(LR, momentum=MOMENTUM),
        "keras",
        lambda optimizers: optimizers.SGD(LR, momentum=MOMENTUM),
    ),
    "Nesterov at the looked-ahead point is torch's at a constant rate": (
        lambda: fl.Nesterov(LR, momentum=MOMENTUM),
        "torch",
        lambda optim, w: optim.SGD(w, lr=LR, momentum=MOMENTUM, nesterov=True),
    ),
    "Nesterov at the looked-ahead point is optax' at a constant rate": (
        lambda: fl.Nesterov(LR, momentum=MOMENTUM),
        "optax",
        lambda optax: optax.sgd(LR, momentum=MOMENTUM, nesterov=True),
    ),
    "Nesterov at the looked-ahead point is Keras'": (
        lambda: fl.Nesterov(LR, momentum=MOMENTUM),
        "keras",
        lambda optimizers: optimizers.SGD(LR, momentum=MOMENTUM, nesterov=True),
    ),
    "AdaGrad is torch's with eps as the start": (
        lambda: fl.AdaGrad(LR, eps=EPS),
        "torch",
        lambda optim, w: optim.Adagrad(w, lr=LR, initial_accumulator_value=EPS, eps=0),
    ),
    "AdaGrad is optax' with eps as the start": (
        lambda: fl.AdaGrad(LR, eps=EPS),
        "optax",
        lambda optax: optax.adagrad(LR, initial_accumulator_value=EPS, eps=0.0),
    ),
    "AdaGrad is Keras' with eps as the start": (
        lambda: fl.AdaGrad(LR, eps=EPS),
        "keras",
        lambda optimizers: optimizers.Adagrad(LR, initial_accumulator_value=EPS, epsilon=0.0),
    ),
    "RMSProp is torch's without eps": (
        lambda: fl.RMSProp(LR, rho=RHO, eps=0.0),
        "torch",
        lambda optim, w: optim.RMSprop(w, lr=LR, alpha=RHO, eps=0),
    ),
    "RMSProp is torch's with eps as the start": (
        lambda: fl.RMSProp(LR, rho=RHO, eps=EPS),
        "torch",
        lambda optim, w: optim.RMSprop(w, lr=LR, alpha=RHO, eps=0),
        lambda w: {"square_avg": filled(w, EPS)},
    ),
    "RMSProp is optax' with eps as the start": (
        lambda: fl.RMSProp(LR, rho=RHO, eps=EPS),
        "optax",
        lambda optax: optax.rmsprop(LR, decay=RHO, eps=0.0, initial_scale=EPS),
    ),
    "RMSProp is Keras' without eps": (
        lambda: fl.RMSProp(LR, rho=RHO, eps=0.0),
        "keras",
        lambda optimizers: optimizers.RMSprop(LR, rho=RHO, epsilon=0.0),
    ),
    "AdaDelta is torch's with eps as the start": (
        lambda: fl.AdaDelta(rho=RHO, eps=EPS),
        "torch",
        lambda optim, w: optim.Adadelta(w, lr=1.0, rho=RHO, eps=0),
        lambda w: {"square_avg": filled(w, EPS), "acc_delta": filled(w, EPS)},
    ),
    "AdaDelta is optax' with eps as the start": (
        lambda: fl.AdaDelta(rho=RHO, eps=EPS),
        "optax",
        lambda optax: optax.chain(optax.scale_by_adadelta(rho=RHO, eps=0.0), optax.scale(-1.0)),
        lambda state, w: state._replace(e_g=filled(w, EPS), e_x=filled(w, EPS)),
    ),
    "AdaDelta is Keras' with eps as the start": (
        lambda: fl.AdaDelta(rho=RHO, eps=EPS),
        "keras",
        lambda optimizers: optimizers.Adadelta(1.0, rho=RHO, epsilon=0.0),
        start_adadelta_in_keras,
    ),
    "Adam is torch's without eps": (
        lambda: fl.Adam(LR, **BETAS, eps=1e-30),
        "torch",
        lambda optim, w: optim.Adam(w, lr=LR, betas=(BETA1, BETA2), eps=0),
    ),
    "Adam is torch's with eps as the start": (
        lambda: fl.Adam(LR, **BETAS, eps=EPS),
        "torch",
        lambda optim, w: optim.Adam(w, lr=LR, betas=(BETA1, BETA2), eps=0),
        lambda w: {"exp_avg": filled(w, 0.0), "exp_avg_sq": filled(w, EPS)},
    ),
    "Adam is optax' without eps": (
        lambda: fl.Adam(LR, **BETAS, eps=1e-30),
        "optax",
        lambda optax: optax.adam(LR, b1=BETA1, b2=BETA2, eps=0.0),
    ),
    "Adam is optax' with eps as the start": (
        lambda: fl.Adam(LR, **BETAS, eps=EPS),
        "optax",
        lambda optax: optax.adam(LR, b1=BETA1, b2=BETA2, eps=0.0),
        lambda state, w: state._replace(nu=filled(w, EPS)),
    ),
    "Adam is Keras' without eps": (
        lambda: fl.Adam(LR, **BETAS, eps=1e-30),
        "keras",
        lambda optimizers: optimizers.Adam(LR, beta_1=BETA1, beta_2=BETA2, epsilon=0.0),
    ),
    "AdaMax is torch's": (
        lambda: fl.AdaMax(LR, **BETAS),
        "torch",
        lambda optim, w: optim.Adamax(w, lr=LR, betas=(BETA1, BETA2), eps=0),
    ),
    "AdaMax is optax'": (
        lambda: fl.AdaMax(LR, **BETAS),
        "optax",
        lambda optax: optax.adamax(LR, b1=BETA1, b2=BETA2, eps=0.0),
    ),
    "AdaMax is Keras'": (
        lambda: fl.AdaMax(LR, **BETAS),
        "keras",
        lambda optimizers: optimizers.Adamax(LR, beta_1=BETA1, beta_2=BETA2, epsilon=0.0),
    ),
    "Nadam is torch's once its schedule has faded": (
        lambda: late(fl.Nadam(LR, **BETAS, eps=0.0)),
        "torch",
        lambda optim, w: optim.NAdam(w, lr=LR, betas=(BETA1, BETA2), eps=0, momentum_decay=1.0),
        lambda w: {
            "step": filled(w.sum(), LATE),
            "mu_product": filled(w.sum(), 0.0),
            "exp_avg": filled(w, 0.0),
            "exp_avg_sq": filled(w, 0.0),
        },
    ),
    "Nadam is optax' once the correction has faded": (
        lambda: late(fl.Nadam(LR, **BETAS, eps=0.0)),
        "optax",
        lambda optax: optax.nadam(LR, b1=BETA1, b2=BETA2, eps=0.0),
        lambda state, w: state._replace(count=state.count + LATE),
    ),
    "Nadam is Keras' once its schedule has faded": (
        lambda: late(fl.Nadam(LR, **BETAS, eps=0.0)),
        "keras",
        lambda optimizers: optimizers.Nadam(LR, beta_1=BETA1, beta_2=BETA2, epsilon=0.0),
        start_nadam_late_in_keras,
    ),
    "Nadam without a first moment is torch's Adam": (
        lambda: fl.Nadam(LR, beta1=0.0, beta2=BETA2, eps=0.0),
        "torch",
        lambda optim, w: optim.Adam(w, lr=LR, betas=(0.0, BETA2), eps=0),
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_definitions_coincide(case):
    ours, peer, theirs, *start = CASES[case]
    rng = np.random.default_rng(0)
    w = rng.standard_normal((3, 4))
    g = rng.standard_normal((STEPS, 3, 4))
    g += np.copysign(1e-3, g)  # AdaMax and eps 0 divide by |g|: none is near 0
    opt = ours()
    mine = w.copy()
    for step, found in enumerate(WALKS[peer](theirs, w, g, *start)):
        mine = opt.step(mine, g[step])
        np.testing.assert_allclose(mine, found, rtol=0, atol=1e-11, err_msg=f"{case}, step {step + 1}")
    assert step == STEPS - 1
    assert np.min(np.abs(mine - w)) > 1e-4


QUOTED = {  # five unit gradients at rate 1e-3, as the documentation's table of dialects ends
    "torch": (lambda optim, w: optim.NAdam(w, lr=1e-3), -0.00405),
    "keras": (lambda optimizers: optimizers.Nadam(1e-3), -0.00396),
    "optax": (lambda optax: optax.nadam(1e-3), -0.00579),
}


@pytest.mark.parametrize("peer", list(QUOTED))
def test_nadam_means_as_many_things_as_the_documentation_says(peer):
    make, distance = QUOTED[peer]
    *_, found = WALKS[peer](make, np.zeros(1), np.ones((5, 1)))
    assert found[0] == pytest.approx(distance, abs=5e-6)
    opt, ours = fl.Nadam(1e-3), np.zeros(1)
    for _ in range(5):
        opt.step(ours, np.ones(1))
    assert abs(ours[0] - found[0]) > 1e-3
