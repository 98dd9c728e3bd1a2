"""The state belongs to its optimiser alone: looked at and copied without loss and without sharing."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fallline as fl
from support import (
    SLOTS,
    STILL,
    WITH_EPS,
    a_tree,
    build,
    every_engine,
    every_optimiser,
    frozen,
    memory_of,
    same_bits,
    update,
)

COPIES = [copy.copy, copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))]


@every_optimiser
@every_engine
def test_the_view_of_the_state_is_read_only(name, engine):
    opt = build(name, engine)
    update(opt, a_tree(0))
    before = memory_of(opt)
    for slot in SLOTS[name]:
        with pytest.raises((ValueError, TypeError)):
            opt.state[slot]["a"][...] = 0
        with pytest.raises(TypeError):
            opt.state[slot] = 0
    assert memory_of(opt) == before


@every_optimiser
@every_engine
def test_the_view_of_the_state_is_live_and_a_copy_of_it_is_not(name, engine):
    opt = build(name, engine)
    update(opt, a_tree(0))
    live = {slot: opt.state[slot]["b"] for slot in SLOTS[name]}
    kept = {slot: copy.deepcopy(opt.state[slot]) for slot in SLOTS[name]}
    first = frozen(kept)
    for seed in range(1, 4):
        update(opt, {key: 2.0**seed * leaf for key, leaf in a_tree(seed).items()})
        for slot, array in live.items():
            assert same_bits(array, opt.state[slot]["b"])
    assert frozen(kept) == first
    moving = set(SLOTS[name]) - STILL.get(name, set())
    assert all(frozen(dict(opt.state[slot])) != first[slot] for slot in moving)


@every_optimiser
@every_engine
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_copy_goes_on_by_itself_where_the_original_stood(name, engine, steps):
    opt = build(name, engine, nonfinite="skip", **({"eps": 0.1} if name in WITH_EPS else {}))
    w = a_tree(100)
    for seed in range(steps):
        opt.step(w, a_tree(seed))
    before = memory_of(opt)
    copies = [(way(opt), copy.deepcopy(w)) for way in COPIES]
    for other, v in copies:
        assert type(other) is type(opt)
        assert repr(other) == repr(opt)
        assert memory_of(other) == before
        for seed in range(50, 54):
            other.step(v, a_tree(seed))
        assert memory_of(opt) == before
    for seed in range(50, 54):
        opt.step(w, a_tree(seed))
    for other, v in copies:
        assert same_bits(v, w)
        assert memory_of(other) == memory_of(opt)
        other.step(v, {"a": np.full(4, np.nan), "b": np.zeros((2, 3))})
        assert other.skipped == 1
        assert opt.skipped == 0


@every_optimiser
@every_engine
def test_a_copy_keeps_changed_settings_and_changes_its_own(name, engine):
    opt = build(name, engine)
    first = next(iter(opt.hyper))
    setattr(opt, first, 0.25)
    for way in COPIES:
        other = way(opt)
        assert getattr(other, first) == 0.25
        setattr(other, first, 0.5)
        assert getattr(opt, first) == 0.25


@every_optimiser
@every_engine
def test_fresh_has_the_settings_and_nothing_else(name, engine):
    opt = build(name, engine, nonfinite="skip", **({"eps": 0.1} if name in WITH_EPS else {}))
    update(opt, a_tree(0))
    other = opt.fresh()
    assert (repr(other), other.t, other.skipped) == (repr(opt), 0, 0)
    # it may even be used on quite another tree
    new = build(name, engine, **({"eps": 0.1} if name in WITH_EPS else {}))
    assert same_bits(update(other, np.ones(7)), update(new, np.ones(7)))
    update(other, np.full(7, np.nan))
    assert other.skipped == 1
    assert opt.t == 1


def test_a_slot_that_there_is_not_is_refused_with_those_that_there_are():
    opt = fl.chain(fl.Adam(), fl.average())
    with pytest.raises(KeyError, match="has no state yet: m starts with the first step"):
        opt.state["m"]
    for _ in range(2):
        with pytest.raises(KeyError, match=r"chain\(Adam, average\) has no state 'velocity'. Known: m, v, a\."):
            opt.state["velocity"]
        opt.step(np.ones(2), np.ones(2))
    with pytest.raises(KeyError, match=r"SGD has no state 'm'. Known: none"):
        fl.SGD().state["m"]
    assert (fl.Adam().state.get("m", 3), list(fl.Adam().state)) == (3, [])


@pytest.mark.parametrize("engine", ["reference", "native", "eager"])
def test_a_slot_that_starts_starts_at_the_parameter_is_nan_for_a_leaf_without_a_step(engine):
    opt = fl.chain(fl.SGD(0.5), fl.average(0.5), engine=engine)
    w = {"a": np.ones(2), "b": np.ones(2)}
    opt.step(w, {"a": np.ones(2), "b": None})
    assert opt.state["a"]["a"].tolist() == [0.75, 0.75]
    assert np.isnan(opt.state["a"]["b"]).all()
    opt.step(w, {"a": None, "b": np.ones(2)})
    assert opt.state["a"]["b"].tolist() == [0.75, 0.75]


@every_optimiser
@every_engine
def test_reset_forgets_everything_but_the_settings(name, engine):
    opt, new = build(name, engine), build(name, engine)
    update(opt, a_tree(0))
    opt.reset()
    assert opt.t == 0
    assert same_bits(update(opt, np.ones(7)), update(new, np.ones(7)))
