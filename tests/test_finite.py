"""Whatever settings a rule accepts, parameters and state stay finite: with large gradients, small ones, and zeros after
anything. `python -m reliability finite` tries more settings, for 10⁵ steps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from reliability.finite import ALONE, endure, settings

import fallline as fl
from support import every_engine, every_optimiser, same_bits


@every_optimiser
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_settings_that_are_accepted_keep_everything_finite(name, dtype):
    cls = fl.OPTIMIZERS[name]
    for given in itertools.islice(settings(cls.rule, 5), 2 if name in ALONE else 5):
        assert endure(cls, given, 300 if name in ALONE else 3000, dtype) == [], given


ENDLESS = [
    ("Adam", 0.9, 0.5), ("Adam", 0.9, 0.0), ("Adam", 0.5, 0.2), ("Nadam", 0.9, 0.8), ("AdamW", 0.99, 0.9),
    ("NadamW", 0.9, 0.0), ("LAMB", 0.9, 0.0), ("Prodigy", 0.9, 0.0), ("AdaMax", 0.9, 0.5), ("NadaMax", 0.9, 0.89),
    ("RAdam", 0.9, 0.7),
]  # fmt: skip
LASTING = [
    ("Adam", 0.9, 0.81), ("Adam", 0.0, 0.0), ("Nadam", 0.7, 0.49), ("AdaMax", 0.9, 0.9), ("RAdam", 0.9, 0.5),
    ("AMSGrad", 0.9, 0.0), ("AdEMAMix", 0.9999, 0.5), ("AdaBelief", 0.9, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "beta1", "beta2"), ENDLESS)
def test_betas_with_which_steps_grow_without_end_are_refused_wherever_they_are_said(name, beta1, beta2):
    cls = fl.OPTIMIZERS[name]
    refused = rf"beta2 ≥ beta1.* must hold in (?i:{name}): .* grow without end .*Got beta1={beta1}, beta2={beta2}"
    w, g = {"a": np.ones(2), "b": np.ones(2)}, {"a": np.ones(2), "b": np.ones(2)}
    opt, chain = cls(beta1=beta1), fl.chain(fl.clip_norm(), cls(beta1=beta1), fl.average())
    parts = fl.partition({"x": cls(), "y": cls(beta1=beta1)}, {"a": "x", "b": "y"})
    by_leaf = cls(beta1=beta1, beta2={"a": 0.999, "b": beta2})

    def refuses(call):
        with pytest.raises(ValueError, match=refused):
            call()

    refuses(lambda: cls(beta1=beta1, beta2=beta2))
    refuses(lambda: fl.Optimizer(cls.rule, beta1=beta1, beta2=beta2))
    refuses(lambda: fl.chain(cls.rule(beta1=beta1, beta2=beta2)))
    refuses(lambda: fl.Optimizer(cls.rule(beta2=beta2), beta1=beta1))
    refuses(lambda: by_leaf.step(w, g)) if name != "Prodigy" else None  # whose leaves have one beta for all
    for _ in range(2):  # before the first step, and after it
        for own in (opt, chain, parts):
            key = "y.beta2" if own is parts else "beta2"
            refuses(lambda own=own, key=key: own.hyper.__setitem__(key, beta2))
            assert own.hyper[key] == cls().beta2
            own.step(w, g)
    refuses(lambda: opt.adapt(w, beta2=beta2))


@pytest.mark.parametrize(("name", "beta1", "beta2"), ENDLESS)
@every_engine
def test_a_schedule_that_comes_to_such_betas_is_refused_at_that_step_and_nothing_changes(name, beta1, beta2, engine):
    opt = fl.OPTIMIZERS[name](beta1=beta1, beta2=lambda t: 0.999 if t < 4 else beta2, engine=engine)
    w = np.ones(3)
    for _ in range(4):
        opt.step(w, np.ones(3))
    before = w.copy()
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"must hold in {name}: .*Got beta1={beta1}, beta2={beta2} at t=4\."):
            opt.step(w, np.ones(3))
        assert same_bits(w, before)
        assert opt.t == 4


@pytest.mark.parametrize(("name", "beta1", "beta2"), LASTING)
def test_betas_at_the_edge_and_those_of_rules_that_are_bounded_otherwise_are_accepted(name, beta1, beta2):
    opt, w = fl.OPTIMIZERS[name](beta1=beta1, beta2=beta2), np.ones(2)
    for k in range(2000):
        opt.step(w, np.full(2, 1.0 if k < 5 else 0.0))
    assert np.isfinite(w).all()


@pytest.mark.parametrize("engine", ["reference", "native", "eager"])
def test_a_number_of_the_state_that_has_no_end_is_refused_and_nothing_changes(engine):
    """A loss that falls for ever: Prodigy's estimate of how far the minimum is never stops growing."""
    opt, w = fl.Prodigy(engine=engine), np.ones(1)
    while opt.t < 259:
        opt.step(w, np.ones(1))
    before = w.copy()
    with pytest.raises(ValueError, match=r"The step would make r of Prodigy, a number of its state, inf: sums of its"):
        opt.step(w, np.ones(1))
    assert same_bits(w, before)
    assert opt.t == 259
    assert all(np.isfinite(array).all() for array in opt.state.values())


def test_where_gradients_stop_ademamix_stays_within_a_bound():
    opt, w = fl.AdEMAMix(), np.zeros(1)
    for k in range(60_000):
        before = w.copy()
        opt.step(w, np.full(1, 1.0 if k < 1000 else 0.0))
        assert abs(w - before) <= 1.01e-3 * 1e6
