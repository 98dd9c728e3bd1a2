"""A state that waits for the first step, and leaves that come and go."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import fallline as fl
from of_state import COPIES
from support import (
    COUPLED,
    RECIPES,
    a_tree,
    assert_refused,
    every_engine,
    everything_of,
    halving,
    same_bits,
    stepped,
    walk,
)

# ---- a state that waits ----------------------------------------------------------------------------------------------


def test_a_state_that_waits_shows_itself_by_path():
    opt, _ = stepped()
    other = fl.Adam()
    other.load_state_dict(opt.state_dict())
    assert other.t == 4
    assert same_bits(dict(other.state), {slot: dict(tree) for slot, tree in opt.state.items()})
    with pytest.raises(ValueError, match="read-only"):
        other.state["m"]["a"][...] = 0
    assert "chosen at the first step" in other.engine
    single = fl.Momentum()
    single.step(np.ones(2), np.ones(2))
    alone = fl.Momentum()
    alone.load_state_dict(single.state_dict())
    assert same_bits(alone.state["velocity"], single.state["velocity"])


@pytest.mark.parametrize("way", COPIES)
def test_a_state_that_waits_is_copied_set_and_forgotten_like_any_other(way):
    opt, w = stepped()
    waiting = fl.Adam()
    waiting.load_state_dict(opt.state_dict())
    other = COPIES[way](waiting, fl.Adam())
    with pytest.raises(ValueError, match="eps of Adam only says where the state starts"):
        other.eps = 0.1
    other.t = 9
    twin = copy.deepcopy(opt)
    twin.t = 9
    assert everything_of(other) == everything_of(twin)
    assert everything_of(waiting) == everything_of(opt)
    assert (other.fresh().t, dict(other.fresh().state)) == (0, {})
    other.reset()
    assert (other.t, dict(other.state)) == (0, {})
    other.eps = 0.1
    walk(waiting, copy.deepcopy(w), range(4, 6))
    assert waiting.t == 6


def test_a_first_call_that_is_refused_or_skipped_leaves_the_state_waiting():
    opt, w = stepped(nonfinite="skip")
    other = fl.Adam(nonfinite="skip")
    other.load_state_dict(opt.state_dict())
    before = everything_of(other)
    v = copy.deepcopy(w)
    other.step(v, {"a": np.full(4, np.nan), "b": np.zeros((2, 3))})
    assert (other.skipped, same_bits(v, w)) == (1, True)
    with pytest.raises(ValueError, match="shape"):
        other.step(v, {"a": np.zeros(3), "b": np.zeros((2, 3))})
    other.load_state_dict(opt.state_dict())
    assert everything_of(other) == before
    assert same_bits(other.update(a_tree(4)), opt.update(a_tree(4)))
    assert everything_of(other) == everything_of(opt)


def test_the_state_of_one_that_never_stepped_sets_another_back_to_its_start():
    first = fl.Adam(0.5)
    opt, w = stepped()
    opt.load_state_dict(first.state_dict())
    assert (opt.t, dict(opt.state), opt.lr) == (0, {}, 0.5)
    walk(opt, w, range(2))
    assert opt.t == 2


# ---- leaves that come and go -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [
    name for name in RECIPES if name not in ("tree", "schedule", "partition", "mask", *COUPLED)])
@every_engine
def test_a_leaf_added_later_has_its_own_step_count_and_the_others_go_on(recipe, engine):
    opt, w = stepped(recipe, engine=engine)
    twin, u = copy.deepcopy(opt), copy.deepcopy(w)
    x = np.linspace(-1, 1, 3)
    alone, y = RECIPES[recipe](engine=engine), x.copy()
    opt.adapt({**w, "c": x})
    for seed in range(4, 8):
        g = a_tree(seed)
        opt.step({**w, "c": x}, {**g, "c": g["a"][:3]})
        twin.step(u, g)
        alone.step(y, g["a"][:3])
    assert same_bits(w, u)
    assert same_bits(x, y)
    assert (opt.t, opt.state_dict()["leaves"]["c"]["t"]) == (8, 4)
    other = RECIPES[recipe](engine=engine)
    other.load_state_dict(opt.state_dict())
    assert everything_of(other) == everything_of(opt)


def test_settings_by_leaf_are_given_in_their_new_form():
    opt, w = stepped("tree")
    opt.adapt({**w, "c": 1.0}, lr={"a": 0.1, "b": 0.2, "c": halving})
    assert opt.lr == {"a": 0.1, "b": 0.2, "c": halving}
    after = opt.step({**w, "c": 1.0}, {"a": None, "b": None, "c": 1.0})
    assert after["c"] == pytest.approx(1 - halving(4))  # a schedule goes by the optimizer's t


@every_engine
def test_a_leaf_left_out_is_forgotten_and_begins_anew_when_it_comes_back(engine):
    opt, w = stepped(engine=engine)
    b = opt.state_dict()["state"]["m"]["b"]
    opt.adapt({"b": w["b"]})
    assert list(opt.state["m"]) == ["b"]
    assert same_bits(opt.state["m"]["b"], b)
    opt.adapt(w)
    assert not opt.state["m"]["a"].any()
    assert {path: leaf["t"] for path, leaf in opt.state_dict()["leaves"].items()} == {"a": 0, "b": 3}


def test_a_state_that_waits_adapts_too():
    opt, w = stepped()
    other = fl.Adam()
    other.load_state_dict(opt.state_dict())
    other.adapt({**w, "head": 1.0})
    opt.adapt({**w, "head": 1.0})
    assert everything_of(other) == everything_of(opt)
    new = fl.Adam()
    new.adapt(w)
    assert new.t == 0


@pytest.mark.parametrize(("change", "hyper", "message"), [
    (lambda w: {**w, "a": np.ones(5)}, {}, r"of a is for float64 of shape \(4,\). The parameter is .*\(5,\)"),
    (lambda w: {**w, "a": np.ones(4, np.complex64)}, {}, "of a is for float64 .* The parameter is complex64"),
    (lambda w: {**w, "c": np.ones(4, int)}, {}, "'c' must be .* complex128. Got int64"),
    (lambda w: w, {"rate": 0.1}, "Adam has no hyper-parameter 'rate'"),
    (lambda w: w, {"lr": -0.1}, "lr of Adam must be ≥ 0"),
    (lambda w: w, {"lr": {"c": 0.1}}, "lr of Adam must have the structure"),
    (lambda w: w, {"eps": 0.1}, "eps of Adam only says where the state starts"),
])  # fmt: skip
def test_what_cannot_be_adapted_to_is_refused_by_name(change, hyper, message):
    opt, w = stepped()
    before = everything_of(opt)
    assert_refused(lambda: opt.adapt(change(w), **hyper), message, opt, w)
    assert everything_of(opt) == before


def test_a_tree_is_adapted_to_a_single_array_and_back():
    opt = fl.Adam()
    opt.step({"a": np.ones(2)}, {"a": np.ones(2)})
    opt.adapt(np.ones(2))
    assert opt.state["m"].tolist() == [0.0, 0.0]
    opt.step(np.ones(2), np.ones(2))
    opt.adapt({"a": np.ones(2)})
    assert opt.state["m"]["a"].tolist() == [0.0, 0.0]
