"""Partitions and masks: each leaf gets the step of its own optimizer, to the bit, and a call steps all or none."""

from __future__ import annotations

import collections
import copy
import pickle
import re

import numpy as np
import pytest

import fallline as fl
from conftest import need
from fallline.errors import BusyOptimizer, FormulaError, NonFiniteGradient, TornOptimizer
from support import (
    RECIPES,
    a_tree,
    by_rank,
    every_engine,
    everything_of,
    frozen,
    halving,
    normal,
    picture,
    same_bits,
)


def leaves_of(seed, dtypes=("float64",)):
    """A tree of several levels, its leaves of these dtypes in turn."""
    rng = np.random.default_rng(seed)
    sizes = iter(range(10))
    make = lambda shape: normal(rng, shape, np.dtype(dtypes[next(sizes) % len(dtypes)]))  # noqa: E731
    return {"embed": make((5, 3)), "blocks": [make((3, 3)), make((3,)), make((2, 3))], "b": make((4,)),
            "scale": make(())}  # fmt: skip


def of_part(tree, label, part):
    """The leaves of a part by path, as an optimizer by itself would have them."""
    flat = {"b": tree["b"], **{f"blocks/{k}": leaf for k, leaf in enumerate(tree["blocks"])}, "embed": tree["embed"],
            "scale": tree["scale"]}  # fmt: skip
    return {path: leaf for path, leaf in flat.items() if label(path, np.shape(leaf)) == part}


def without(tree, seed):
    """At some steps a leaf has no gradient."""
    return {**tree, "b": None} if seed % 3 == 1 else tree


LABELS = {
    "by rank": (by_rank, by_rank),
    "by path": (lambda path: "weights" if path.startswith("blocks") else "rest",
                lambda path, shape: "weights" if path.startswith("blocks") else "rest"),
    "a tree": ({"embed": "rest", "blocks": ["weights", "rest", "weights"], "b": "weights", "scale": "rest"},
               lambda path, shape: "weights" if path in ("blocks/0", "blocks/2", "b") else "rest"),
    "upper levels": ({"embed": "rest", "blocks": "weights", "b": "rest", "scale": "rest"},
                     lambda path, shape: "weights" if path.startswith("blocks") else "rest"),
    "all to one": (lambda path: "rest", lambda path, shape: "rest"),
}  # fmt: skip
DTYPES = {"float64": ("float64",), "mixed": ("float32", "float64", "float16", "complex64")}


@pytest.mark.parametrize("way", ["step", "update", "out"])
@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize("label", LABELS)
@every_engine
def test_every_leaf_gets_the_step_of_an_optimizer_with_the_leaves_of_its_part_alone(label, dtypes, way, engine):
    given, named = LABELS[label]
    parts = {"weights": lambda **o: fl.Nadam(lr=halving, **o), "rest": RECIPES["clipped"]}
    opt = fl.partition({name: make() for name, make in parts.items()}, given, engine=engine)
    alone = {name: make(engine=engine) for name, make in parts.items()}
    w = leaves_of(0, DTYPES[dtypes])
    v = copy.deepcopy(w)
    for seed in range(1, 8):
        g = without(leaves_of(seed, DTYPES[dtypes]), seed)
        if way == "step":
            assert opt.step(w, g) is w
        else:
            out = None if way == "update" else copy.deepcopy(w)
            u = opt.update(g, params=w, out=out)
            assert out is None or u is out
        for part, single in alone.items():
            params, grads = of_part(v, named, part), of_part(g, by_params(named, v), part)
            if way == "step":
                single.step(params, grads)
            else:
                expected = single.update(grads, params=params)
                found = of_part(u, by_params(named, v), part)
                for path in expected:
                    if expected[path] is None:
                        assert found[path] is None or not found[path].any()
                    else:
                        assert same_bits(expected[path], found[path]), path
        assert same_bits(w, v)
    assert opt.t == 7
    assert [opt.parts[part].t for part in alone] == [7, 7]


def by_params(names, params):
    """A label for gradients, of which None has no shape: that of the parameters."""
    shapes = {path: np.shape(leaf) for path, leaf in of_part(params, lambda path, shape: "all", "all").items()}
    return lambda path, shape: names(path, shapes[path])


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in
                                    ("partition", "around a partition", "mask", "tree")])
@every_engine
def test_every_recipe_can_be_a_part_and_the_other_does_not_change_its_bits(recipe, engine):
    options = {"engine": engine}
    opt, w = fl.partition({"own": RECIPES[recipe](), "other": fl.SGD(0.1)}, by_first, **options), two_trees(0)
    alone, other, v = RECIPES[recipe](**options), fl.SGD(0.1, **options), two_trees(0)
    for seed in range(5):
        g = two_trees(seed)
        opt.step(w, g)
        alone.step({"a": v["a"], "b": v["b"]}, {"a": g["a"], "b": g["b"]})
        other.step(v["z"], g["z"])
        assert same_bits(w, v)
    assert {slot: frozen({"a": tree["a"], "b": tree["b"]}) if isinstance(tree, dict) else frozen(tree)
            for slot, tree in opt.state["own"].items()} == {slot: frozen(tree) for slot, tree in alone.state.items()}


def by_first(path):
    return "other" if path == "z" else "own"


def two_trees(seed):
    return {**a_tree(seed), "z": a_tree(seed + 50)["a"]}


def test_a_part_knows_its_leaves_by_their_paths_in_the_whole_tree():
    seen = []
    rates = fl.by_path(lambda path: seen.append(path) or 0.1)
    opt = fl.partition({"weights": fl.SGD(rates), "rest": fl.SGD(0.1)}, by_rank)
    opt.step(leaves_of(0), leaves_of(1))
    assert seen == ["blocks/0", "blocks/2", "embed"]
    tree = {"embed": 0.5, "blocks": [0.25, 0.0, 1.0], "b": 7.0, "scale": 7.0}  # shaped like the whole: 7 is no one's
    opt = fl.partition({"weights": fl.SGD(tree), "rest": fl.SGD(0.0)}, by_rank)
    u = opt.update(leaves_of(1))
    assert same_bits(u["blocks"][0], -0.25 * leaves_of(1)["blocks"][0])
    assert same_bits(u["embed"], -0.5 * leaves_of(1)["embed"])


PARTIAL = {
    "dicts without leaves of others": {"l": {"b": 0.25}, "h": 0.5},
    "upper levels without leaves of others": {"l": 0.25, "h": 0.5},
    "anything for leaves of others": {"l": {"W": 7.0, "b": 0.25}, "h": 0.5, "z": 7.0},
    "a tree for one leaf of others": {"l": {"W": {"deep": 7.0}, "b": 0.25}, "h": 0.5},
    "by path within": {"l": {"b": fl.by_path(lambda path: {"b": 0.25}[path[-1]])}, "h": 0.5},
}  # fmt: skip


AROUND = {
    "nothing": (lambda tree: tree, lambda tree: tree),
    "another class of dicts": (collections.OrderedDict, collections.OrderedDict),
    "a list": (lambda tree: {"of": [tree, np.ones((1, 2))]}, lambda lr: {"of": [lr, 7.0]}),
    "a tuple": (lambda tree: (np.ones((1, 2)), tree), lambda lr: ({"any": 7.0}, lr)),
}  # fmt: skip


@pytest.mark.parametrize("case", PARTIAL)
@pytest.mark.parametrize("around", AROUND)
def test_a_tree_of_settings_of_a_part_may_leave_out_the_leaves_of_others(case, around):
    params, settings = AROUND[around]
    w = params({"l": {"W": np.ones((2, 2)), "b": np.ones(2)}, "h": np.ones(2), "z": {"W": [np.ones((1, 2))]}})
    lr = settings(PARTIAL[case])
    opt = fl.partition({"m": fl.SGD(1.0), "r": fl.SGD(lr)}, lambda path, shape: "m" if len(shape) == 2 else "r")
    for _ in range(2):
        steps = opt.update(w)
        found = steps["of"][0] if around == "a list" else steps[1] if around == "a tuple" else steps
        assert (found["l"]["b"].tolist(), found["h"].tolist()) == ([-0.25] * 2, [-0.5] * 2)
        opt.hyper["r.lr"] = lr


@pytest.mark.parametrize("lr", [{"l": {"b": 0.25}}, {"l": {"b": 0.25}, "h": 0.5, "x": 1.0}, {"l": [0.25], "h": 0.5},
                                {"l": {"b": {"deep": 0.25}}, "h": 0.5}, [0.25, 0.5]], ids=str)  # fmt: skip
def test_a_tree_of_settings_of_a_part_has_all_its_leaves_and_no_others(lr):
    w = {"l": {"W": np.ones((2, 2)), "b": np.ones(2)}, "h": np.ones(2)}
    opt = fl.mask(lambda path, shape: len(shape) == 1, fl.SGD(lr))
    with pytest.raises(ValueError, match=r"upper levels \('h', 'l/b'; leaves of other parts may have anything\)\. Got"):
        opt.step(w, w)
    with pytest.raises(ValueError, match=r"upper levels \('h', 'l/W', 'l/b'\)\. Got"):
        fl.SGD(lr).step(w, w)


def test_trees_of_settings_and_of_names_are_taken_by_key_whatever_the_order_of_their_dicts():
    ordered, ones = collections.OrderedDict, {"b": 1.0, "W": 1.0, "c": {"z": 1.0, "y": 1.0}}
    orders = [lambda tree: tree, ordered, lambda tree: ordered(sorted(tree.items())),
              lambda tree: ordered(reversed(tree.items())),
              lambda tree: {**tree, "c": ordered(sorted(tree["c"].items()))}]  # fmt: skip
    for of_params in orders:
        for of_settings in orders:
            w = of_params(ones)
            rates = of_settings({"b": 0.5, "W": 0.25, "c": {"z": 0.125, "y": 0.0}})
            names = of_settings({"b": "half", "W": "quarter", "c": {"z": "half", "y": "quarter"}})
            stepped = fl.SGD(rates).step(w, w)
            assert (stepped["b"], stepped["W"], stepped["c"]) == (0.5, 0.75, {"z": 0.875, "y": 1.0})
            stepped = fl.partition({"half": fl.SGD(0.5), "quarter": fl.SGD(0.25)}, names).step(w, w)
            assert (stepped["b"], stepped["W"], stepped["c"]) == (0.5, 0.75, {"z": 0.5, "y": 0.75})


def test_paths_that_could_be_taken_for_others_are_no_trouble():
    w = {"a/b": 1.0, "a": {"b": 2.0}, "0": 3.0, 0: [4.0, (5.0,)], "%": 6.0}
    names = {"a%2Fb": "x", "a/b": "y", "%30": "x", "0/0": "y", "0/1/0": "x", "%25": "y"}
    opt = fl.partition({"x": fl.SGD(1.0), "y": fl.SGD(0.5)}, names.__getitem__)
    assert opt.step(w, w) == {"a/b": 0.0, "a": {"b": 1.0}, "0": 0.0, 0: [2.0, (0.0,)], "%": 3.0}


def test_a_single_array_and_an_empty_tree_are_trees_too():
    opt, w = fl.partition({"x": fl.Adam(), "y": fl.SGD(1.0)}, lambda path: "y"), np.ones(3)
    assert opt.step(w, np.ones(3)) is w
    assert not w.any()
    assert fl.partition({"x": fl.Adam(), "y": fl.SGD(1.0)}, lambda path: "y").step({}, {}) == {}


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


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


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
    for wrong, message in ((fl.Adam().state_dict(), "that of no partition"), ({**good, "format": 999}, "format 999"),
                           ([], "Got a list"), ({**good, "skipped": -1}, "skipped")):
        with pytest.raises(ValueError, match=message):
            opt.load_state_dict(wrong)
        assert everything_of(opt) == before


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_an_interrupt_between_two_parts_leaves_a_torn_partition_that_says_so(steps, monkeypatch):
    from fallline._step.fast_step import FastStep

    opt, w = RECIPES["partition"](), a_tree(0)
    for _ in range(max(steps, 1)):
        opt.step(w, a_tree(1))
    saved, at_hand = opt.state_dict(), copy.deepcopy(w)
    if not steps:
        opt.reset()
    last = opt.parts["rest"]
    advance, perform, performed = type(last)._advance, FastStep.perform, []

    def interrupted(self, call):
        if self is last:
            raise KeyboardInterrupt
        return advance(self, call)

    def interrupted_shortly(self, *arrays):
        if performed:
            raise KeyboardInterrupt
        performed.append(self)
        return perform(self, *arrays)

    with monkeypatch.context() as patch:
        patch.setattr(fl.Optimizer, "_advance", interrupted)
        patch.setattr(FastStep, "perform", interrupted_shortly)
        with pytest.raises(KeyboardInterrupt):
            opt.step(w, a_tree(2))
    assert len(performed) == (steps == 4)
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


# ---- names and settings ----------------------------------------------------------------------------------------------


def test_a_setting_takes_effect_at_the_next_step_by_whichever_name():
    opt = RECIPES["partition"]()
    for name, value, found in (("weights.lr", 0.5, "nadam.lr"), ("rest.momentum.lr", 0.25, "rest.lr"),
                               ("max_norm", 2.0, "rest.clip_norm.max_norm"), ("beta1", 0.5, "weights.beta1"),
                               ("average.decay", 0.5, "decay")):  # fmt: skip
        if name == "weights.lr":
            found = "weights.nadam.lr"
        opt.hyper[name] = value
        assert opt.hyper[found] == value
    opt.decay, opt.parts["rest"].momentum = 0.75, 0.0
    assert opt.parts["rest"].decay == 0.75
    assert set(opt.hyper) == {"weights.lr", "beta1", "beta2", "eps", "max_norm", "rest.lr", "momentum", "decay"}
    assert dict(opt.hyper)["rest.lr"] == 0.25
    w = a_tree(0)
    opt.step(w, a_tree(1))
    alone, v = fl.chain(fl.clip_norm(2.0), fl.Momentum(0.25, momentum=0.0)), a_tree(0)
    alone.step(v["a"], a_tree(1)["a"])
    assert same_bits(w["a"], v["a"])
    with pytest.raises(AttributeError, match=r'opt.hyper\["weights.lr"\] or opt.hyper\["rest.lr"\]'):
        _ = opt.lr
    with pytest.raises(KeyError, match=r"no hyper-parameter 'rate'. Known: .*weights.lr"):
        opt.hyper["rate"] = 1.0
    with pytest.raises(ValueError, match="lr of Nadam must be ≥ 0"):
        opt.parts["weights"].lr = -1.0
    assert "parts" in dir(opt)


def test_what_it_is_written_as_makes_it_again():
    tree = {"a": "x", "b": ["y", "x"]}
    for made, written in (
        (fl.partition({"x": fl.SGD(0.1), "y": None}, tree),
         "partition({'x': SGD(lr=0.1), 'y': None}, {'a': 'x', 'b': ['y', 'x']})"),
        (fl.partition({"x": fl.chain(fl.l2(0.1), fl.SGD(0.1))}, by_rank, engine="native"),
         "partition({'x': chain(l2(rate=0.1), SGD(lr=0.1))}, by_rank, engine='native')"),
        (fl.mask([True, False], fl.SGD, nonfinite="skip"), "mask([True, False], SGD(lr=0.001), nonfinite='skip')"),
    ):  # fmt: skip
        assert repr(made) == written
        assert repr(eval(written, {"by_rank": by_rank}, vars(fl))) == written


PARTS = {"x": fl.SGD(), "y": fl.Adam()}
WRONG = {
    "no parts": (lambda: fl.partition({}, by_rank), TypeError, r"dict of optimizers by name: partition\(.*Got"),
    "a list of parts": (lambda: fl.partition([fl.SGD()], by_rank), TypeError, "dict of optimizers by name"),
    "nothing to step": (lambda: fl.partition({"x": None}, by_rank), TypeError, "dict of optimizers by name"),
    "a name with a dot": (lambda: fl.partition({"a.b": fl.SGD()}, by_rank), ValueError, "text without"),
    "a name that is none": (lambda: fl.partition({3: fl.SGD()}, by_rank), ValueError, "text without"),
    "a modifier": (lambda: fl.partition({"x": fl.l2(0.1)}, by_rank), FormulaError,
                   r"l2 is a modifier: .* chain\(l2\(rate=fallline.by_path\(...\)\), ...\)"),
    "a masked modifier": (lambda: fl.mask(lambda path: True, fl.weight_decay(0.1)), FormulaError,
                          r"A mask is made of optimizers.*weight_decay\(rate=fallline.by_path\(...\)\)"),
    "a number": (lambda: fl.partition({"x": 0.1}, by_rank), FormulaError, "Got 0.1"),
    "a partition within": (lambda: fl.partition({"x": fl.partition(PARTS, by_rank)}, by_rank), FormulaError,
                           "cannot have a partition in it: one partition with all parts does the same"),
    "a function for a part": (lambda: fl.partition({"x": lambda g: g}, by_rank), FormulaError, "each a chain: part"),
    "nothing for a mask": (lambda: fl.mask(lambda path: True, None), TypeError, "an optimizer for the leaves that are"),
    "options of a part": (lambda: fl.partition({"x": fl.SGD(engine="native")}, by_rank), FormulaError,
                          r"engine='native' of SGD is for the whole partition: give it to partition\(...\)"),
    "an engine that is none": (lambda: fl.partition(PARTS, by_rank, engine="gpu"), ValueError, "engine of partition"),
    "one name for all": (lambda: fl.partition(PARTS, "x"), TypeError, "function of the leaf's path, or a tree"),
    "a label of no argument": (lambda: fl.partition(PARTS, lambda: "x"), TypeError, r"of path and shape, under that"),
    "a label whose shape has another name": (lambda: fl.partition(PARTS, lambda path, s: "x"), TypeError,
                                             r"of path and shape, under that name. Got .*\(path, s\)"),
    "a label of three": (lambda: fl.partition(PARTS, lambda path, shape, dtype: "x"), TypeError, "dtype"),
    "an unknown name in a tree": (lambda: fl.partition(PARTS, {"a": "x", "b": "z"}), ValueError,
                                  "must name the part of each leaf: 'x', 'y'. Got 'z' for b"),
    "an unknown name": (lambda: fl.partition(PARTS, lambda path: "z").step(a_tree(0), a_tree(0)), ValueError,
                        "must name the part of each leaf: 'x', 'y'. Got 'z' for a"),
    "a label of another structure": (lambda: fl.partition(PARTS, {"a": "x"}).step(a_tree(0), a_tree(0)), ValueError,
                                     r"structure of the parameters .*\('a', 'b'\)"),
    "a mask of names": (lambda: fl.mask(lambda path: "x", fl.SGD()).step(1.0, 1.0), TypeError, "must say True"),
    "a mask turned round": (lambda: fl.mask(fl.SGD(), lambda path: True), (TypeError, FormulaError), "Got"),
    "no parameters": (lambda: fl.partition({"x": fl.chain(fl.l2(0.1), fl.SGD()), "y": fl.SGD()}, lambda path: "y")
                      .update(a_tree(0)), TypeError, "needs the parameters"),
    "a first gradient of None": (lambda: fl.partition(PARTS, lambda path: "x").update({"a": None}), ValueError,
                                 "cannot know a leaf whose gradient is None"),
    "no average": (lambda: fl.partition(PARTS, by_rank).averaged, AttributeError, "keeps no average"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_partition_is_refused_with_what_to_write_instead(wrong):
    call, kind, message = WRONG[wrong]
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_optimizers_are_lent_and_left_alone():
    own = fl.Momentum(0.5)
    opt, w = fl.partition({"x": own, "y": own}, {"a": "x", "b": "y"}), a_tree(0)
    opt.step(w, a_tree(1))
    opt.parts["x"].lr = 0.1
    assert (own.t, own.lr, opt.parts["y"].lr) == (0, 0.5, 0.5)
    own.step(1.0, 1.0)


# ---- other arrays ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["torch", "jax"])
@pytest.mark.parametrize("way", ["step", "update"])
def test_leaves_of_other_libraries_are_stepped_as_by_separate_optimizers(library, way):
    module = need(library)
    make = (lambda a: module.tensor(a)) if library == "torch" else module.numpy.asarray
    tree = lambda seed: {k: make(a.astype(np.float32)) for k, a in a_tree(seed).items()}  # noqa: E731
    opt, w = fl.partition({"x": fl.Adam(0.1), "y": RECIPES["clipped"]()}, {"a": "x", "b": "y"}), tree(0)
    alone, v = {"a": fl.Adam(0.1), "b": RECIPES["clipped"]()}, tree(0)
    for seed in range(1, 5):
        g = tree(seed)
        if way == "step":
            same = opt.step(w, g)
            assert (same is w) == (library == "torch")
            w = same
            v = {key: single.step(v[key], g[key]) for key, single in alone.items()}
        else:
            w = opt.update(g, params=v)
            v = {key: single.update(g[key], params=v[key]) for key, single in alone.items()}
        assert all(type(w[k]) is type(v[k]) for k in v)
        assert all(same_bits(np.asarray(w[k]), np.asarray(v[k])) for k in v)
    assert ("jax" in opt.engine) == (library == "jax")


def test_parts_may_be_of_different_libraries():
    jax = need("jax")
    opt = fl.partition({"x": fl.SGD(1.0), "y": fl.SGD(1.0)}, {"a": "x", "b": "y"})
    w = opt.step({"a": np.ones(2), "b": jax.numpy.ones(2)}, {"a": np.ones(2), "b": jax.numpy.ones(2)})
    assert isinstance(w["b"], jax.Array)
    assert same_bits([np.asarray(w[key], np.float64) for key in "ab"], [np.zeros(2)] * 2)
    assert re.fullmatch("x: (native|reference): .*; y: eager: arrays of jax", opt.engine)


# ---- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["reference", "native", "eager"])
def test_masked_leaves_may_be_anything_and_keep_their_bits(engine):
    class Thing:
        pass

    thing, table = Thing(), np.arange(3)
    opt = fl.mask(lambda path: path == "w", RECIPES["clipped"](), engine=engine)
    w = {"w": np.ones(2), "nan": np.array([np.nan, -0.0]), "table": table, "thing": thing, "name": "text", "n": 7}
    alone, v, before = RECIPES["clipped"](engine=engine), {"w": np.ones(2)}, frozen([w["nan"], table])
    for g in (np.ones(2), None, np.full(2, 2.0)):
        grads = {"w": g, "nan": np.array([np.inf, np.nan]), "table": None, "thing": "no gradient", "name": 1.0}
        w = opt.step(w, {**grads, "n": None})
        alone.step(v, {"w": g})
        assert same_bits(w["w"], v["w"])
    assert w["thing"] is thing
    assert w["table"] is table
    assert frozen([w["nan"], table]) == before
    assert list(opt.state["stepped"]["a"]) == list(w)
    assert opt.state["stepped"]["a"]["nan"] is None
    assert (opt.lr, opt.t, opt.hyper["clip_norm.max_norm"]) == (0.01, 3, 0.5)
    assert opt.averaged["nan"] is None
    assert same_bits(opt.averaged["w"], alone.averaged["w"])


@pytest.mark.parametrize("engine", ["reference", "native", "eager"])
def test_the_increments_of_masked_leaves_are_minus_zero(engine):
    opt = fl.mask({"w": True, "b": False, "c": False, "d": False}, fl.SGD(1.0), engine=engine)
    g = {"w": np.ones(2), "b": np.array([np.nan, 1.0]), "c": 3.0, "d": np.ones(2, np.complex64)}
    zero = complex(-0.0, -0.0)
    zeros = {"w": np.full(2, -1.0), "b": np.full(2, -0.0), "c": -0.0, "d": np.full(2, zero, np.complex64)}
    assert same_bits(opt.update(g), zeros)
    out = {"w": np.ones(2), "b": np.ones(2), "c": np.ones(()), "d": np.ones(2, np.complex64)}
    assert opt.update(g, out=out)["b"] is out["b"]
    assert same_bits(out, {**zeros, "c": np.array(-0.0)})
    for wrong in (3.0, read_only(np.ones(2))):
        with pytest.raises(TypeError, match="out 'b' must be an array that can be written"):
            opt.update(g, out={**out, "b": wrong})
    assert opt.t == 2


def test_masked_leaves_must_not_share_memory_with_those_that_are_stepped():
    x = np.ones(4)
    opt = fl.mask({"a": True, "b": False}, fl.SGD(1.0))
    with pytest.raises(ValueError, match="parameter 'a' and parameter 'b' overlap in memory"):
        opt.step({"a": x[:3], "b": x[2:]}, {"a": np.ones(3), "b": None})
    assert x.all()
    opt.step({"a": x[:2], "b": x[2:]}, {"a": np.ones(2), "b": None})
    assert x.tolist() == [0, 0, 1, 1]


def test_a_mask_goes_around_what_gathers_gradients():
    opt, w = fl.mask({"a": True, "b": False}, fl.accumulate(2, fl.Adam(0.1))), a_tree(0)
    alone, v = fl.accumulate(2, fl.Adam(0.1)), a_tree(0)
    for seed in range(5):
        opt.step(w, a_tree(seed))
        alone.step(v["a"], a_tree(seed)["a"])
        assert (opt.t, opt.calls) == (alone.t, alone.calls)
    assert same_bits(w, v)


# ---- state -----------------------------------------------------------------------------------------------------------


def test_the_point_to_report_and_the_average_are_those_of_the_parts():
    opt = fl.partition({"x": fl.Nesterov(0.1), "y": RECIPES["clipped"](), "z": None}, {"a": "x", "b": "y", "c": "z"})
    w = {**a_tree(0), "c": np.ones(2)}
    nesterov, clipped, v = fl.Nesterov(0.1), RECIPES["clipped"](), a_tree(0)
    for seed in range(3):
        opt.step(w, {**a_tree(seed), "c": None})
        nesterov.step(v["a"], a_tree(seed)["a"])
        clipped.step(v["b"], a_tree(seed)["b"])
    at_rest = opt.rest(w)
    assert same_bits(at_rest, {"a": nesterov.rest(v["a"]), "b": v["b"], "c": np.ones(2)})
    assert not any(np.shares_memory(at_rest[key], w[key]) for key in w)
    assert same_bits(opt.averaged, {"a": None, "b": clipped.averaged, "c": None})


def test_leaves_come_and_go_and_each_part_keeps_the_state_of_its_own():
    opt, w = RECIPES["partition"](), a_tree(0)
    opt.step(w, a_tree(1))
    twin = copy.deepcopy(opt)
    opt.adapt({**w, "c": np.ones((1, 2))}, **{"rest.lr": 0.5})
    v = opt.step({**copy.deepcopy(w), "c": np.ones((1, 2))}, {**a_tree(2), "c": np.ones((1, 2))})
    twin.hyper["rest.lr"] = 0.5
    twin.step(w, a_tree(2))
    assert same_bits({"a": v["a"], "b": v["b"]}, w)
    assert opt.state_dict()["parts"]["weights"]["leaves"]["c"]["t"] == 1
    before = everything_of(opt)
    with pytest.raises(ValueError, match="float64 of shape"):
        opt.adapt({**v, "a": np.ones(7)})
    assert everything_of(opt) == before
    mask = fl.mask({"a": True, "b": False}, fl.Momentum(1.0))
    mask.step(w, a_tree(1))
    mask.adapt({**w, "c": 1.0}, by={"a": True, "b": False, "c": True})
    assert mask.step({**w, "c": 1.0}, {"a": None, "b": None, "c": 1.0})["c"] == 0.0


def test_copies_step_by_themselves_and_pickles_keep_their_parts_together():
    opt, w = RECIPES["partition"](), a_tree(0)
    opt.step(w, a_tree(1))
    for other in (copy.copy(opt), copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        v = copy.deepcopy(w)
        other.step(v, a_tree(2))
        assert (opt.t, other.t, other.parts["rest"].t) == (1, 2, 2)
        other.parts["rest"].lr = 0.5
        with pytest.raises(BusyOptimizer):
            other.parts["rest"].reset()
        other.reset()
        assert (other.t, other.parts["rest"].t, opt.hyper["rest.lr"]) == (0, 0, 0.01)
    opt.t = 5
    assert [part.t for part in opt.parts.values()] == [5, 5]


def test_t_is_set_to_as_many_calls_for_all_parts():
    opt = fl.partition({"x": fl.SGD(1.0), "y": fl.accumulate(2, fl.SGD(1.0)), "z": fl.accumulate(3, fl.SGD(1.0))},
                       {"a": "x", "b": "y", "c": "z"})  # fmt: skip
    ones = dict.fromkeys("abc", 1.0)
    opt.t = 6
    assert [(part.t, part.calls) for part in opt.parts.values()] == [(6, 6), (3, 6), (2, 6)]
    opt.reset()
    for calls in range(9):
        before = everything_of(opt)
        opt.t = opt.t  # which changes nothing
        assert everything_of(opt) == before
        assert [part.calls for part in opt.parts.values()] == [opt.t] * 3 == [calls] * 3
        opt.step(ones, ones)
    opt.t = 2**63 - 1
    assert [part.t for part in opt.parts.values()] == [2**63 - 1, 2**62 - 1, 2**63 // 3]
    around = fl.accumulate(2, fl.partition({"x": fl.SGD(), "y": fl.SGD()}, {"a": "x", "b": "y"}))
    around.step({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0})
    around.t = 5
    assert [(part.t, part.calls) for part in around.parts.values()] == [(5, 11)] * 2


def value_and_grad(w, batch=None):
    return float(sum((leaf**2).sum() for leaf in w.values())), {key: 2 * leaf for key, leaf in w.items()}


@pytest.mark.parametrize("recipe", ["partition", "mask"])
def test_a_run_of_descend_cut_at_any_step_goes_on_with_the_same_bits(recipe, tmp_path):
    whole = fl.descend(value_and_grad, a_tree(0), RECIPES[recipe](), steps=6)
    for cut in range(7):
        path = tmp_path / f"{cut}.safetensors"
        fl.descend(value_and_grad, a_tree(0), RECIPES[recipe](), steps=cut, checkpoint=path)
        again = fl.descend(value_and_grad, a_tree(0), RECIPES[recipe](), steps=6, checkpoint=path)
        assert same_bits(again.params, whole.params)
        assert same_bits(again.values, whole.values)
        opt, w = fl.load(path, **({"label": by_rank} if recipe == "partition" else {}))
        assert repr(opt) == repr(RECIPES[recipe]())
        assert (opt.t, frozen(w)) == (6, frozen(whole.params))


def a_label():
    return lambda path, shape: "rest" if path == "a" else "weights"


def another_label():
    return lambda path, shape: "rest" if path == "b" else "weights"


ALIKE = {"a local function": a_label(), "one of the module": lambda path: {"a": "rest", "b": "weights"}[path],
         "a tree": {"a": "rest", "b": "weights"}}  # fmt: skip


def divided_by(label):
    return fl.partition({"weights": fl.Adam(0.1), "rest": fl.SGD(0.1), "none": None}, label)


@pytest.mark.parametrize("then", ALIKE)
@pytest.mark.parametrize("now", ALIKE)
def test_a_state_goes_on_under_any_label_that_divides_the_leaves_alike(then, now, tmp_path):
    path, whole = tmp_path / "run", fl.descend(value_and_grad, a_tree(0), divided_by(ALIKE[then]), steps=5)
    fl.descend(value_and_grad, a_tree(0), divided_by(ALIKE[then]), steps=3, checkpoint=path)
    loaded, w = fl.load(path, label=ALIKE[now])
    fresh, bound = divided_by(ALIKE[now]), divided_by(ALIKE[now])
    bound.step(a_tree(0), a_tree(1))
    for other in (fresh, bound):
        other.load_state_dict(loaded.state_dict())
    for opt in (loaded, fresh, bound):
        v = copy.deepcopy(w)
        for _ in range(2):
            opt.step(v, value_and_grad(v)[1])
        assert same_bits(v, whole.params)
    again = fl.descend(value_and_grad, a_tree(0), divided_by(ALIKE[now]), steps=5, checkpoint=path)
    assert same_bits(again.params, whole.params)


def test_a_state_is_refused_under_a_label_that_divides_the_leaves_otherwise(tmp_path):
    path, w = tmp_path / "run", a_tree(0)
    opt = divided_by(a_label())
    opt.step(w, a_tree(1))
    opt.save(path)
    fl.descend(value_and_grad, a_tree(0), divided_by(a_label()), steps=2, checkpoint=tmp_path / "with parameters")
    for label, message in ((another_label(), "'a' to part 'weights', and in the state it is of part 'rest'"),
                           ({"a": "rest", "b": "none"}, "'b' to no part, and in the state it is of part 'weights'"),
                           (lambda path: "rest", "'b' to part 'rest', and in the state it is of part 'weights'")):
        loaded, bound, fresh = fl.load(path, label=label), divided_by(label), divided_by(label)
        v = a_tree(0)
        for act in (lambda file: fl.load(file, label=label), fresh.load,  # noqa: B023
                    lambda file: fl.descend(value_and_grad, v, fresh, steps=3, checkpoint=file)):  # noqa: B023
            with pytest.raises(fl.CheckpointError, match=f"label of partition gives {message}"):
                act(tmp_path / "with parameters")
            assert (fresh.t, frozen(v)) == (0, frozen(a_tree(0)))
        for act in (lambda: loaded.step(v, a_tree(1)), lambda: loaded.rest(v), lambda: loaded.adapt(v)):  # noqa: B023
            before = everything_of(loaded)
            with pytest.raises(ValueError, match=f"label of partition gives {message}: give a label that divides"):
                act()
            assert (everything_of(loaded), frozen(v)) == (before, frozen(a_tree(0)))
        bound.step(v, a_tree(1))
        before = everything_of(bound)
        with pytest.raises(fl.CheckpointError, match=f"label of partition gives {message}"):
            bound.load(path)
        assert everything_of(bound) == before


def test_what_a_label_raises_while_a_file_is_loaded_comes_as_it_is(tmp_path):
    opt, w = divided_by(a_label()), a_tree(0)
    opt.step(w, a_tree(1))
    opt.save(tmp_path / "run", w)
    with pytest.raises(KeyError, match="'b'"):
        fl.load(tmp_path / "run", label={"a": "rest"}.__getitem__)


def test_a_leaf_that_was_left_alone_is_not_stepped_by_a_state_without_it(tmp_path):
    opt, w = fl.mask(is_a, fl.Adam(0.1)), a_tree(0)
    opt.step(w, a_tree(1))
    opt.save(tmp_path / "run")
    with pytest.raises(ValueError, match="by of mask gives 'b' to part 'stepped', and in the state it is of no part"):
        fl.load(tmp_path / "run", by=lambda path: True).step(w, a_tree(2))
    single = fl.mask(lambda path: True, fl.SGD())
    single.step(1.0, 1.0)
    other = fl.mask(lambda path: False, fl.SGD())
    other.load_state_dict(single.state_dict())
    with pytest.raises(ValueError, match="by of mask gives the parameter to no part"):
        other.step(1.0, 1.0)


def test_a_state_that_was_loaded_goes_on_with_further_leaves():
    opt, w, label = divided_by(a_label()), a_tree(0), a_label()
    opt.step(w, a_tree(1))
    loaded = divided_by(label)
    loaded.load_state_dict(opt.state_dict())
    loaded.adapt({**w, "c": np.ones(2)})
    v = loaded.step({**copy.deepcopy(w), "c": np.ones(2)}, {**a_tree(2), "c": np.ones(2)})
    opt.step(w, a_tree(2))
    assert same_bits({"a": v["a"], "b": v["b"]}, w)


def test_a_mask_by_a_function_is_loaded_with_that_function(tmp_path):
    opt, w = fl.mask(is_a, fl.Adam(0.1), nonfinite="skip"), a_tree(0)
    opt.step(w, a_tree(1))
    opt.save(tmp_path / "run", w)
    again, v = fl.load(tmp_path / "run", by=is_a)
    assert repr(again) == repr(opt) == "mask(is_a, Adam(lr=0.1, beta1=0.9, beta2=0.999, eps=1e-08), nonfinite='skip')"
    assert same_bits(again.step(v, a_tree(2)), opt.step(w, a_tree(2)))
    with pytest.raises(fl.CheckpointError, match=r"fl.load\(path, by=...\)"):
        fl.load(tmp_path / "run")


def is_a(path):
    return path == "a"


def test_what_descend_says_names_the_rate_of_the_parts():
    opt = fl.partition({"x": fl.SGD(0.0), "y": fl.Adam(0.0)}, {"a": "x", "b": "y"})
    assert "lower lr to go deeper" in fl.descend(value_and_grad, a_tree(0), opt, steps=9, patience=2).message


def test_the_race_tunes_the_rate_of_a_mask_and_the_rates_of_a_partition_together():
    need("sklearn")
    from fallline.race.contender import contenders

    keys = [c.tuned.keys for c in contenders([RECIPES["mask"](), "SGD", RECIPES["partition"]()])]
    assert keys == [("stepped.nadam.lr",), ("sgd.lr",), ("weights.nadam.lr", "rest.momentum.lr")]


def test_minimize_and_scipy_take_a_partition():
    from scipy.optimize import minimize

    opt = fl.partition({"x": fl.Adam(0.1), "y": fl.SGD(0.1)}, lambda path: "x" if path == "" else "y")
    fun = lambda x: ((x - 3) ** 2).sum()  # noqa: E731
    jac = lambda x: 2 * (x - 3)  # noqa: E731
    for result in (fl.minimize(fun, np.zeros(2), jac=jac, method=opt), minimize(fun, np.zeros(2), jac=jac, method=opt)):
        assert result.success
        assert np.allclose(result.x, 3, atol=1e-4)
    assert opt.t == 0


def test_a_file_of_a_partition_that_does_not_fit_is_refused_by_name(tmp_path):
    path, w = tmp_path / "run", a_tree(0)
    opt = fl.partition({"weights": fl.Nadam(halving), "rest": RECIPES["clipped"]()}, by_rank)
    opt.step(w, a_tree(1))
    opt.save(path, w)
    again, v = fl.load(path, label=by_rank, **{"weights.lr": halving})
    assert same_bits(again.step(v, a_tree(2)), opt.step(copy.deepcopy(w), a_tree(2)))
    other, before = RECIPES["partition"](), everything_of(RECIPES["partition"]())
    for call, message in (
        (lambda: fl.load(path), r"give it again, fl.load\(path, label=...\)"),
        (lambda: fl.load(path, label=by_rank), r"give it again, fl.load\(path, \*\*{'weights.lr': ...}\)"),
        (lambda: fl.Adam().load(path), "that of a partition or mask with the parts weights, rest, and Adam is n"),
        (lambda: RECIPES["mask"]().load(path), "The parts of the state must be those here: stepped, left"),
        (lambda: fl.partition({"weights": fl.Adam(), "rest": fl.SGD()}, by_rank).load(path), "Part 'weights'"),
    ):  # fmt: skip
        with pytest.raises(fl.CheckpointError, match=message):
            call()
    fl.Adam().save(path)
    with pytest.raises(fl.CheckpointError, match="no partition but of an optimizer by itself, of the rules adam"):
        other.load(path)
    assert everything_of(other) == before
