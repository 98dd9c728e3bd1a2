"""Whatever settings a rule accepts, parameters and state stay finite: with large gradients, small ones, and zeros after
anything. `python -m reliability finite` tries more settings, for 10⁵ steps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from reliability.finite import endure, settings, shared

import fallline as fl
from support import WITHOUT_DECAY, every_engine, every_optimiser


@pytest.mark.slow
@every_optimiser
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_settings_that_are_accepted_keep_everything_finite(name, dtype):
    cls = fl.OPTIMIZERS[name]
    slow = cls.rule.whole_leaf or "tree" in shared(cls)
    for given in itertools.islice(settings(cls.rule, 5), 2 if slow else 4):
        assert endure(cls, given, 300 if slow else 2500, dtype) == [], given


FORGETFUL = [  # v, or u, which fades sooner than m or what stands in its place
    ("Adam", {"beta2": 0.5}), ("Adam", {"beta2": 0.0}), ("Nadam", {"beta2": 0.0}), ("AdamW", {"beta2": 0.3}),
    ("NadamW", {"beta2": 0.0}), ("AdaMax", {"beta2": 0.5}), ("NadaMax", {"beta2": 0.0}), ("RAdam", {"beta2": 0.7}),
    ("AdEMAMix", {"beta2": 0.0}), ("Adan", {"beta3": 0.0}), ("Prodigy", {"beta2": 0.0}),
    ("Muon", {"adam_beta2": 0.0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given"), FORGETFUL)
@every_engine
def test_where_gradients_stop_steps_stay_bounded_though_the_second_moment_fades_before_the_first(name, given, engine):
    rate = {} if name == "Prodigy" else {"lr": 1.0}
    opt, w = fl.OPTIMIZERS[name](engine=engine, **given, **rate, **WITHOUT_DECAY[name]), np.zeros(2)
    for k in range(600):
        before = w.copy()
        opt.step(w, np.array([1.0, -10.0]) if k < 3 else np.zeros(2))
        assert np.abs(w - before).max() <= 2e7


@every_engine
def test_on_a_loss_that_falls_for_ever_prodigys_estimate_of_the_way_stays_finite(engine):
    """Or, where float32 cannot hold what is made of it, the step is refused."""
    opt, w = fl.Prodigy(engine=engine), np.ones(1)
    for _ in range(1500):
        opt.step(w, np.ones(1))
    assert np.isfinite(w).all()
    assert all(np.isfinite(array).all() for array in opt.state.values())
    opt, w = fl.Prodigy(engine=engine), np.ones(1, np.float32)
    with pytest.raises(ValueError, match="A setting of Prodigy, or a number of its state, is too large for float32"):
        any(opt.step(w, np.ones(1)) is None for _ in range(1500))
    assert np.isfinite(w).all()
    assert all(np.isfinite(array).all() for array in opt.state.values())


@pytest.mark.slow
def test_where_gradients_stop_ademamix_stays_within_a_bound():
    opt, w = fl.AdEMAMix(), np.zeros(1)
    for k in range(60_000):
        before = w.copy()
        opt.step(w, np.full(1, 1.0 if k < 1000 else 0.0))
        assert abs(w - before) <= 1.01e-3 * 1e6
