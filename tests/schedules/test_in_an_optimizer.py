"""Schedules as settings of an optimizer."""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl
from of_schedules import every_schedule
from support import (
    a_tree,
    build,
    every_engine,
    every_optimiser,
    memory_of,
    same_bits,
)

S = fl.schedules


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
