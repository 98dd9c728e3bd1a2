"""A call of a partition steps all of its parts or none, and no part does anything to another."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fallline as fl
from bad_calls import read_only
from fallline.errors import BusyOptimizer, NonFiniteGradient, TornOptimizer
from support import (
    RECIPES,
    a_tree,
    every_engine,
    everything_of,
    frozen,
    picture,
    same_bits,
)

# ---- all or nothing --------------------------------------------------------------------------------------------------


class StopError(Exception):
    pass


def stop(t):
    raise StopError


BAD = {  # of (parameters, gradients): what is wrong is in one part, be it the first or the last
    "a misshapen gradient": (lambda w, g, at: (w, {**g, at: np.ones(17)}), "must have the shape"),
    "a gradient of integers": (lambda w, g, at: (w, {**g, at: np.ones(w[at].shape, int)}), "must be float16"),
    "NaN": (lambda w, g, at: (w, {**g, at: g[at] * np.nan}), "not finite: [ab] has"),
    "read-only parameters": (lambda w, g, at: ({**w, at: read_only(w[at])}, g), "read-only"),
    "other parameters": (lambda w, g, at: ({**w, at: np.ones(17)}, g), "must have the shape"),
    "a leaf too many": (lambda w, g, at: (w, {**g, "c": 1.0}), "unexpected 'c'"),
    "a leaf too few": (lambda w, g, at: (w, {key: leaf for key, leaf in g.items() if key != at}), "missing '[ab]'"),
    "one array in two parts": (lambda w, g, at: (lambda x: ({"a": x[:4], "b": x[3:].reshape(2, 3)}, g))(np.ones(9)),
                               "overlap in memory"),
    "a list": (lambda w, g, at: (w, [1.0]), "same structure"),
    "None": (lambda w, g, at: (w, None), "Got None|same structure"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("at", ["a", "b"])
@every_engine
def test_what_one_part_refuses_changes_nothing_in_any(bad, at, engine):
    make, message = BAD[bad]
    for steps in (0, 2):
        opt, w = RECIPES["partition"](engine=engine), a_tree(0)
        for seed in range(steps):
            opt.step(w, a_tree(seed))
        before, twin, v = (picture(opt, w), everything_of(opt)), copy.deepcopy(opt), copy.deepcopy(w)
        params, grads = make(w, a_tree(7), at)
        if steps or bad not in ("other parameters",):
            with pytest.raises((TypeError, ValueError), match=message):
                opt.step(params, grads)
        assert (picture(opt, w), everything_of(opt)) == before
        opt.step(w, a_tree(9))
        twin.step(v, a_tree(9))
        assert same_bits(w, v)
        assert everything_of(opt) == everything_of(twin)


GOOD = {
    "step": lambda opt, w, g: opt.step(w, g),
    "step by the parameters": lambda opt, w, g: opt.step(w, w),
    "step without a leaf": lambda opt, w, g: opt.step(w, {**g, "b": None}),
    "update": lambda opt, w, g: opt.update(g, params=w),
    "update over the gradient": lambda opt, w, g: opt.update(g, params=w, out=g),
    "load what was": lambda opt, w, g: opt.load_state_dict(opt.state_dict()),
    "reset": lambda opt, w, g: opt.reset(),
    "set": lambda opt, w, g: opt.hyper.update(dict.fromkeys(list(opt.hyper)[:1], 0.25)),
}


@pytest.mark.parametrize("recipe", ["partition", "mask"])
@pytest.mark.parametrize("seed", range(8))
@every_engine
def test_after_any_sequence_of_good_and_bad_calls_only_the_good_have_happened(recipe, seed, engine):
    rng = np.random.default_rng(seed)
    opt, w = RECIPES[recipe](engine=engine), a_tree(0)
    opt.step(w, a_tree(1))
    twin, v = copy.deepcopy(opt), copy.deepcopy(w)
    refused = 0
    for n in range(30):
        if rng.random() < 0.5:
            call = GOOD[rng.choice(list(GOOD))]
            assert same_bits(call(opt, w, a_tree(n)), call(twin, v, a_tree(n)))
        else:
            at = "a" if recipe == "mask" else rng.choice(["a", "b"])
            params, grads = BAD[rng.choice(list(BAD))][0](w, a_tree(n), at)
            with pytest.raises((TypeError, ValueError)):
                opt.step(params, grads)
            refused += 1
        assert same_bits(w, v)
        assert everything_of(opt) == everything_of(twin)
    assert refused > 5


@every_engine
def test_a_gradient_that_is_not_finite_in_any_part_is_skipped_in_all(engine):
    opt, w = RECIPES["partition"](engine=engine, nonfinite="skip"), a_tree(0)
    opt.step(w, a_tree(1))
    before = everything_of(opt)["parts"], frozen(w)
    for at in "ab":
        bad = {**a_tree(2), at: a_tree(2)[at] * np.inf}
        assert opt.step(w, bad) is w
        u = opt.update(bad, params=w, out=copy.deepcopy(w))
        assert same_bits(u, {"a": np.full(4, -0.0), "b": np.full((2, 3), -0.0)})
        assert same_bits(opt.update(bad, params=w), u)
    assert (everything_of(opt)["parts"], frozen(w)) == before
    assert opt.skipped == 6
    bad = {"a": np.array([np.nan, 1, 1, 1]), "b": np.full((2, 3), np.inf)}
    with pytest.raises(NonFiniteGradient, match=r"a has 1 NaN; b has 6 infinite") as caught:
        RECIPES["partition"](engine=engine).step(w, bad)
    assert caught.value.paths == ("a", "b")


@every_engine
def test_a_schedule_that_raises_in_one_part_leaves_the_other_alone(engine):
    for rates in ((stop, 0.1), (0.1, stop)):
        opt, w = fl.partition(dict(zip("xy", map(fl.Momentum, rates))), {"a": "x", "b": "y"}, engine=engine), a_tree(0)
        before = everything_of(opt), frozen(w)
        with pytest.raises(StopError):
            opt.step(w, a_tree(1))
        assert (everything_of(opt), frozen(w)) == before


def test_a_state_that_does_not_fit_one_part_changes_nothing_in_any():
    opt, w = RECIPES["partition"](), a_tree(0)
    opt.step(w, a_tree(1))
    good, before = opt.state_dict(), everything_of(opt)
    for part in ("weights", "rest"):
        own = good["parts"][part]
        for wrong, message in (({**own, "t": -1}, "t of the state"), ({**own, "t": 2}, "different numbers of steps"),
                               ({**own, "rules": {"sgd": "built in"}}, "another optimizer"),
                               (None, "parts of the state"),
                               ({**own, "leaves": {}}, f"Part '{part}'"), (7, f"Part '{part}'")):
            with pytest.raises((TypeError, ValueError), match=message):
                opt.load_state_dict({**good, "parts": {**good["parts"], part: wrong}})
            assert everything_of(opt) == before
    for wrong, message in ((fl.Adam().state_dict(), "not of a partition"), ({**good, "format": 999}, "format 999"),
                           ([], "Got a list"), ({**good, "skipped": -1}, "skipped")):
        with pytest.raises(ValueError, match=message):
            opt.load_state_dict(wrong)
        assert everything_of(opt) == before


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_an_interrupt_between_two_parts_leaves_a_torn_partition_that_says_so(steps, monkeypatch):
    from fallline._step.calls.host import HostCall

    opt, w = RECIPES["partition"](engine="reference"), a_tree(0)
    for _ in range(max(steps, 1)):
        opt.step(w, a_tree(1))
    saved, at_hand = opt.state_dict(), copy.deepcopy(w)
    if not steps:
        opt.reset()
    last = opt.parts["rest"]
    run, begun = HostCall.run, []

    def interrupted(self):
        if self.group.chain is last._chain:
            raise KeyboardInterrupt
        begun.append(self)
        return run(self)

    with monkeypatch.context() as patch:
        patch.setattr(HostCall, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opt.step(w, a_tree(2))
    assert len(begun) == 1
    for refused in (lambda: opt.step(w, a_tree(2)), opt.state_dict, lambda: opt.rest(w), lambda: opt.averaged,
                    lambda: opt.adapt(w), lambda: setattr(opt, "t", 3)):
        with pytest.raises(TornOptimizer):
            refused()
    opt.load_state_dict(saved)
    twin = opt.fresh()
    twin.load_state_dict(saved)
    for each in (opt, twin):
        each.hyper["weights.lr"] = each.hyper["rest.lr"] = 0.5
    assert same_bits(opt.step(copy.deepcopy(at_hand), a_tree(2)), twin.step(at_hand, a_tree(2)))


# ---- what parts could do to each other -------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["reference", "native", "eager"])
def test_gradients_that_are_the_parameters_of_another_part_are_read_before_those_are_written(engine):
    opt = fl.partition({"x": fl.SGD(1.0), "y": fl.SGD(1.0)}, {"a": "x", "b": "y"}, engine=engine)
    for _ in range(3):
        w = {"a": np.array([1.0, 2.0]), "b": np.array([10.0, 20.0])}
        opt.step(w, {"a": w["b"], "b": w["a"]})
        assert same_bits(w, {"a": np.array([-9.0, -18.0]), "b": np.array([9.0, 18.0])})
        out = {"a": np.array([1.0, 2.0]), "b": np.array([10.0, 20.0])}
        opt.update({"a": out["b"], "b": out["a"]}, out=out)
        assert same_bits(out, {"a": np.array([-10.0, -20.0]), "b": np.array([-1.0, -2.0])})


def test_the_state_of_one_part_can_be_the_gradient_of_another():
    opt, twin = (fl.partition({"x": fl.Momentum(1.0), "y": fl.Momentum(1.0)}, {"a": "x", "b": "y"}) for _ in range(2))
    g = {"a": np.ones(3), "b": np.ones(3)}
    for each in (opt, twin):
        each.update(g)
    own = opt.state["x"]["velocity"]["a"]
    expected = twin.update({"a": g["a"], "b": own.copy()})
    assert same_bits(opt.update({"a": g["a"], "b": own}), expected)


def test_outputs_and_parameters_of_different_parts_must_not_share_memory():
    opt, w = RECIPES["partition"](), a_tree(0)
    shared = np.ones(9)
    out = {"a": np.ones(4), "b": shared[3:].reshape(2, 3)}
    with pytest.raises(ValueError, match=r"out 'b' and parameter 'a' overlap"):
        opt.update(a_tree(1), params={"a": shared[:4], "b": w["b"]}, out=out)


@every_engine
def test_a_schedule_is_asked_once_for_each_step_and_sets_another_parts_rate_for_the_next(engine):
    asked = []

    def rate(t):
        asked.append(t)
        for part in "xy":
            opt.parts[part].momentum = 0.5
        return 1.0

    for first in "xy":
        opt = fl.partition({"x": fl.Momentum(rate if first == "x" else 1.0, momentum=0.0),
                            "y": fl.Momentum(rate if first == "y" else 1.0, momentum=0.0)}, {"a": "x", "b": "y"},
                           engine=engine)  # fmt: skip
        ones = {"a": np.ones(2), "b": np.ones(2)}
        for expected in (-1.0, -1.5, -1.75):
            assert same_bits(opt.update(ones), {key: np.full(2, expected) for key in "ab"})
            opt.parts["x"].momentum = opt.parts["y"].momentum = 0.5
        assert asked == [0, 1, 2]
        asked.clear()


def test_a_schedule_must_not_step_or_reset_the_partition():
    for act in (lambda opt: opt.step(a_tree(0), a_tree(0)), lambda opt: opt.reset(), lambda opt: opt.parts["x"].reset(),
                lambda opt: setattr(opt, "t", 3)):
        opt = fl.partition({"x": fl.SGD(lambda t: act(opt) or 1.0), "y": fl.SGD()}, {"a": "x", "b": "y"})  # noqa: B023
        with pytest.raises(BusyOptimizer):
            opt.step(a_tree(0), a_tree(0))
        assert opt.t == 0


def test_a_schedule_of_one_part_that_resizes_an_array_of_another_leads_no_step_out_of_it():
    w = {"a": np.ones(100), "b": np.ones(100)}
    opt = fl.partition({"x": fl.SGD(0.5), "y": fl.SGD(lambda t: w["a"].resize(3, refcheck=False) or 0.5)},
                       {"a": "x", "b": "y"})
    with pytest.raises(ValueError, match="resized"):
        opt.step(w, {"a": np.ones(100), "b": np.ones(100)})
    assert same_bits(w["b"], np.ones(100))
    assert opt.t == 0


def test_a_part_can_be_looked_at_and_set_but_not_stepped():
    opt, w = RECIPES["partition"](), a_tree(0)
    opt.step(w, a_tree(1))
    part = opt.parts["weights"]
    for act in (lambda: part.step(w, w), lambda: part.update(w), part.reset, lambda: part.adapt(w),
                lambda: part.load_state_dict(part.state_dict()), lambda: setattr(part, "t", 3)):
        with pytest.raises(BusyOptimizer, match="part of a partition"):
            act()
    assert part.t == 1
    for whole, known in ((opt, "weights, rest"), (RECIPES["mask"](), "stepped")):
        with pytest.raises(KeyError, match=f"There is no part 'bias' that steps leaves. Known: {known}"):
            whole.parts["bias"]
    for free in (part.fresh(), copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        free.reset()
        free.step(a_tree(0), a_tree(1))
    with pytest.raises(TypeError):
        opt.parts["weights"] = fl.Adam()
