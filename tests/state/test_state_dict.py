"""State as data: state_dict and load_state_dict, by leaf path; leaves added and left out."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fallline as fl
from fallline._arrays.trees import flatten, paths
from fallline._state import fields
from fallline._state.fingerprint import fingerprint
from needed import need
from of_state import COPIES, arrays_of, with_array, with_leaf, without
from support import (
    RECIPES,
    a_tree,
    assert_refused,
    every_engine,
    every_recipe,
    everything_of,
    frozen,
    halving,
    memory_of,
    same_bits,
    stepped,
    walk,
)


@pytest.mark.slow
@every_recipe
@every_engine
def test_a_run_cut_at_any_step_goes_on_to_the_bit(recipe, engine):
    whole, w = RECIPES[recipe](engine=engine), a_tree(100)
    for cut in range(5):
        twin, u = copy.deepcopy(whole), copy.deepcopy(w)
        walk(twin, u, range(cut, 6))
        before, after = everything_of(whole), everything_of(twin)
        for way in COPIES.values():
            other = way(whole, RECIPES[recipe](engine=engine))
            again = way(other, RECIPES[recipe](engine=engine))  # also of a state that still waits
            assert everything_of(other) == everything_of(again) == before
            for resumed in (other, again):
                x = copy.deepcopy(w)
                walk(resumed, x, range(cut, 6))
                assert same_bits(x, u)
                assert everything_of(resumed) == after
        walk(whole, w, [cut])


@every_recipe
@every_engine
def test_a_stepped_optimizer_takes_over_another_state_in_place(recipe, engine):
    opt, w = stepped(recipe, engine=engine)
    other, v = stepped(recipe, 7, engine=engine)
    live = dict(other.state)
    other.load_state_dict(opt.state_dict())
    v = copy.deepcopy(w)
    assert everything_of(other) == everything_of(opt)
    assert frozen(live) == memory_of(other)[1]
    walk(opt, w, range(4, 9))
    walk(other, v, range(4, 9))
    assert same_bits(v, w)
    assert everything_of(other) == everything_of(opt)


@every_recipe
def test_nothing_shares_memory_with_the_optimizer(recipe):
    opt, w = stepped(recipe)
    d = opt.state_dict()
    first = frozen(d)
    walk(opt, w, range(4, 8))
    assert frozen(d) == first
    for other in (RECIPES[recipe](), stepped(recipe)[0]):
        other.load_state_dict(d)
        walk(other, a_tree(100), range(4, 8))
        assert frozen(d) == first
        other.load_state_dict(d)
        before = everything_of(other)
        for array in arrays_of(d):
            array += 1
        assert everything_of(other) == before
        d = pickle.loads(pickle.dumps(other.state_dict()))
        first = frozen(d)


def test_a_copied_state_holds_the_short_steps_too():
    opt, w = fl.Adam(), np.ones(5)
    g = np.linspace(-1, 1, 5)
    for _ in range(6):
        opt.step(w, g)
    other, v = fl.Adam(), w.copy()
    other.load_state_dict(opt.state_dict())
    twin = pickle.loads(pickle.dumps(opt))
    for each, x in ((opt, w), (other, v), (twin, v.copy())):
        for _ in range(3):
            each.step(x, g)
        assert same_bits(x, w)
        assert everything_of(each) == everything_of(opt)


def test_it_is_plain_data_by_path():
    opt = fl.chain(fl.clip_value(1.0), fl.Adam(halving), signed_average_after)
    w = {"net": [np.ones(2, np.float32), 2.0]}
    opt.step(w, {"net": [np.ones(2, np.float32), 1.0]})
    opt.step(w, {"net": [None, 1.0]})
    d = opt.state_dict()
    assert list(d) == ["format", "rules", "t", "skipped", "hyper", "leaves", "state"]
    assert d["rules"] == {"clip_value": "built in", "adam": "built in",
                          "signed_average_after": fingerprint(signed_average_after)}
    assert (d["format"], d["t"], d["skipped"]) == (1, 2, 0)
    assert d["hyper"] == {"clip_value.limit": 1.0, "adam.lr": "halving", "adam.beta1": 0.9, "adam.beta2": 0.999,
                          "adam.eps": 1e-8, "signed_average_after.rate": 0.5}
    assert d["leaves"] == {"net/0": {"shape": (2,), "dtype": "float32", "t": 1},
                           "net/1": {"shape": (), "dtype": "float64", "t": 2}}
    assert {slot: [a.dtype.name for a in by_path.values()] for slot, by_path in d["state"].items()} == {
        slot: ["float32", "float64"] for slot in ("m", "v", "mean")}


@fl.after
def signed_average_after(d, mean=0, *, rate: fl.Fraction = 0.5):
    mean = rate * mean + (1 - rate) * d
    return mean, mean


def test_leaves_are_matched_by_path_and_not_by_order():
    opt, w = stepped()
    d = opt.state_dict()
    turned = {**d, "leaves": dict(reversed(d["leaves"].items())),
              "state": {slot: dict(reversed(arrays.items())) for slot, arrays in reversed(d["state"].items())}}
    for other in (fl.Adam(), stepped()[0]):
        other.load_state_dict(turned)
        v = copy.deepcopy(w)
        twin, u = copy.deepcopy(opt), copy.deepcopy(w)
        walk(other, v, range(4, 6))
        walk(twin, u, range(4, 6))
        assert same_bits(u, v)


BAD = {
    "a partition's": (lambda d: fl.mask(lambda path: True, fl.Adam()).state_dict(),
                      "is of a partition or mask with the parts stepped, left, and Adam is none: load it into"),
    "no dict": (lambda d: [1], "A state is a dict as state_dict.*Got a list"),
    "a missing key": (lambda d: without(d, "t"), "with the keys format.*Got the keys"),
    "an unknown key": (lambda d: {**d, "step": 1}, "A state is a dict"),
    "a later format": (lambda d: {**d, "format": 999}, "format 999; this version of fallline reads 1"),
    "another rule": (lambda d: fl.SGD().state_dict(), "its rules are sgd; those of Adam are adam"),
    "a rule that is none": (lambda d: {**d, "rules": 3}, "another optimizer"),
    "a rule of that name": (lambda d: {**d, "rules": {"adam": "0" * 32}}, "fingerprint 000.*'s own adam"),
    "t below 0": (lambda d: {**d, "t": -1}, "t of the state must be a whole number.*Got -1"),
    "t as truth": (lambda d: {**d, "t": True}, "t of the state must be a whole number.*Got True"),
    "t as float": (lambda d: {**d, "t": 4.0}, "t of the state must be"),
    "t beyond int64": (lambda d: {**d, "t": 2**63}, "t of the state must be"),
    "skipped": (lambda d: {**d, "skipped": None}, "skipped of the state"),
    "an unknown setting": (lambda d: {**d, "hyper": {**d["hyper"], "adam.rate": 1.0}}, "hyper of the state"),
    "a setting out of range": (lambda d: {**d, "hyper": {**d["hyper"], "adam.beta1": 1.0}}, r"beta1 of Adam must"),
    "a missing setting": (lambda d: {**d, "hyper": without(d["hyper"], "adam.eps")}, "lacks adam.eps"),
    "a function": (lambda d: {**d, "hyper": {**d["hyper"], "adam.lr": "halving"}}, "lr of Adam was 'halving' when"),
    "leaves that are none": (lambda d: {**d, "leaves": None}, "leaves and state"),
    "a missing leaf": (lambda d: {**d, "leaves": without(d["leaves"], "b")}, "leaves of m .*unexpected 'b'"),
    "a leaf without count": (lambda d: {**d, "leaves": {**d["leaves"], "a": {"shape": (4,)}}}, "The leaf 'a'"),
    "a count below 0": (lambda d: with_leaf(d, "a", t=-1), "The leaf 'a' .* a t, a whole number"),
    "a missing slot": (lambda d: {**d, "state": without(d["state"], "v")}, "state slots .*missing 'v'"),
    "an unknown slot": (lambda d: {**d, "state": {**d["state"], "u": d["state"]["v"]}}, "unexpected 'u'"),
    "a slot that is none": (lambda d: {**d, "state": {**d["state"], "v": 1}}, "state of v must be a dict"),
    "state without a leaf": (lambda d: {**d, "state": {**d["state"], "m": {"a": np.ones(4)}}}, "of m .*missing 'b'"),
    "a list": (lambda d: with_array(d, [0.0] * 4), "The state m of a must be a NumPy array of floats. Got list"),
    "objects": (lambda d: with_array(d, np.zeros(4, object)), "m of a must be .* of floats. Got an array of object"),
    "integers": (lambda d: with_array(d, np.zeros(4, int)), "m of a must be .* of floats. Got an array of int64"),
    "another shape": (lambda d: with_array(d, np.zeros((2, 2))), r"m of a must have the shape \(4,\).*\(2, 2\)"),
}  # fmt: skip
BAD_FOR_THE_PARAMETERS = {
    "another dtype": (lambda d: with_array(d, np.zeros(4, np.float32)), "m of a must be float64. Got float32"),
    "another byte order": (lambda d: with_array(d, np.zeros(4, ">f8")), "m of a must be float64. Got >f8"),
    "a leaf of another dtype": (lambda d: with_leaf(d, "a", dtype="float32"), "of a is for float32 .*is float64"),
    "a leaf of another shape": (
        lambda d: with_array(with_array(with_leaf(d, "a", shape=(2, 2)), np.zeros((2, 2))), np.zeros((2, 2)), "v"),
        r"of a is for float64 of shape \(2, 2\).*\(4,\)"),
    "another leaf": (lambda d: renamed(d, "a", "c"),
                     "leaves of the state .*missing 'a'; unexpected 'c'"),
    "no b": (lambda d: {**d, "leaves": without(d["leaves"], "b"),
                        "state": {s: without(by_path, "b") for s, by_path in d["state"].items()}},
             "leaves of the state .*missing 'b'"),
}  # fmt: skip


def renamed(d, old, new):
    return {**d, **{key: {slot: {new if path == old else path: x for path, x in by_path.items()}
                          for slot, by_path in d[key].items()} for key in ("state",)},
            "leaves": {new if path == old else path: leaf for path, leaf in d["leaves"].items()}}


@every_engine
@pytest.mark.parametrize("case", {**BAD, **BAD_FOR_THE_PARAMETERS})
def test_what_does_not_fit_is_refused_by_name_and_changes_nothing(case, engine):
    change, message = {**BAD, **BAD_FOR_THE_PARAMETERS}[case]
    opt, w = stepped(engine=engine)
    d = opt.state_dict()
    walk(opt, w, [4])
    before = everything_of(opt)
    assert_refused(lambda: opt.load_state_dict(change(d)), message, opt, w)
    assert everything_of(opt) == before
    fresh, v = fl.Adam(lr=0.25, engine=engine), copy.deepcopy(w)
    if case in BAD:
        before = everything_of(fresh)
        assert_refused(lambda: fresh.load_state_dict(change(d)), message, fresh, v)
        assert everything_of(fresh) == before
    else:  # can only be told once the parameters are there
        fresh.load_state_dict(change(d))
        before = everything_of(fresh)
        assert_refused(lambda: fresh.step(v, a_tree(4)), message, fresh, v)
        assert everything_of(fresh) == before
    fresh.load_state_dict(d)
    fresh.step(v, a_tree(4))
    assert fresh.t == 5


def test_a_setting_that_does_not_fit_the_leaves_changes_nothing():
    opt, w = stepped()
    d = {**opt.state_dict(), "hyper": {**opt.state_dict()["hyper"], "adam.lr": {"a": 0.1, "c": 0.2}}}
    before = everything_of(opt)
    assert_refused(lambda: opt.load_state_dict(d), "lr of Adam must have the structure of the parameters", opt, w)
    assert everything_of(opt) == before


@pytest.mark.parametrize("recipe", ["Adam", "partition"])
def test_a_field_that_came_later_starts_anew_from_an_older_state(recipe, path, monkeypatch):
    old, _ = stepped(recipe)
    data = old.state_dict()
    old.save(path)
    monkeypatch.setitem(fields.FIELDS, "flops", fields.Field(fields.count, 7, since=(now := fields.FORMAT + 1)))
    monkeypatch.setattr(fields, "FORMAT", now)
    new, again = RECIPES[recipe](), RECIPES[recipe]()
    new.load_state_dict(data)
    again.load(path)
    assert new._stepper.flops == again._stepper.flops == 7
    new._stepper.flops = 8
    d = new.state_dict()
    assert (d["format"], d["flops"]) == (now, 8)
    again.load_state_dict(d)
    again.save(path)
    assert again.fresh().load(path) is None
    new.reset()
    new.load(path)
    assert new._stepper.flops == 8
    for wrong, message in ((without(d, "flops"), "with the keys .*flops"), ({**d, "flops": -1}, "flops of the state"),
                           ({**d, "format": now + 1}, f"format {now + 1}; this version of fallline reads 1 ")):
        with pytest.raises(ValueError, match=message):
            new.load_state_dict(wrong)


# ---- other arrays ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_the_state_of_other_arrays_is_plain_numpy(library):
    xp = need("jax.numpy" if library == "jax" else "torch")
    like = lambda array: xp.asarray(np.asarray(array, np.float32))  # noqa: E731
    opt, w = fl.Adam(), like([1.0, -2.0, 3.0])
    for _ in range(3):
        w = opt.step(w, like([1.0, 2.0, 3.0]))
    d = opt.state_dict()
    assert {type(a) for a in arrays_of(d)} == {np.ndarray}
    first = frozen(d)
    for other in (fl.Adam(), copy.deepcopy(opt)):
        v = other.load_state_dict(d) or like(np.asarray(w).copy())
        v = other.step(v, like([1.0, 2.0, 3.0]))
        assert frozen(d) == first
    w = opt.step(w, like([1.0, 2.0, 3.0]))
    assert same_bits(np.asarray(v), np.asarray(w))
    assert everything_of(other) == everything_of(opt)


@pytest.mark.parametrize("recipe", ["Adam", "chain", "tree"])
def test_the_eager_engine_keeps_its_state_too(recipe):
    opt, w = stepped(recipe, engine="eager")
    for other in (RECIPES[recipe](engine="eager"), stepped(recipe, 6, engine="eager")[0]):
        other.load_state_dict(opt.state_dict())
        v, twin, u = copy.deepcopy(w), copy.deepcopy(opt), copy.deepcopy(w)
        walk(other, v, range(4, 7))
        walk(twin, u, range(4, 7))
        assert same_bits(v, u)
        assert everything_of(other) == everything_of(twin)


def test_jax_arrays_come_and_go():
    jnp = need("jax.numpy")
    opt, w = fl.Momentum(1.0), {"a": jnp.ones(2), "b": jnp.zeros(1)}
    w = opt.step(w, w)
    m = opt.state_dict()["state"]["velocity"]["a"]
    opt.adapt({"a": w["a"], "c": jnp.ones(3)})
    assert same_bits(opt.state_dict()["state"]["velocity"], {"a": m, "c": np.zeros(3, np.float32)})
    w = opt.step({"a": w["a"], "c": jnp.ones(3)}, {"a": None, "c": jnp.ones(3)})
    assert {path: leaf["t"] for path, leaf in opt.state_dict()["leaves"].items()} == {"a": 1, "c": 1}


# ---- names of leaves -------------------------------------------------------------------------------------------------


def test_no_two_leaves_share_a_name():
    tree = {"a/b": 1.0, "a": {"b": 2.0, "": 3.0}, 0: 4.0, "0": 5.0, "": 6.0, "%": 7.0, "%30": 8.0, -1: 9.0, "-1": 10.0,
            "a%2Fb": 11.0, "__metadata__": 12.0, True: 13.0, "True": 14.0, "list": [15.0, {"0": 16.0}], 0.5: 17.0}
    leaves, treedef = flatten(tree)
    names = dict(zip(paths(treedef), leaves))
    assert names == {
        "a%2Fb": 1.0, "a/b": 2.0, "a/%": 3.0, "0": 4.0, "%30": 5.0, "%": 6.0, "%25": 7.0, "%2530": 8.0, "-1": 9.0,
        "%2D1": 10.0, "a%252Fb": 11.0, "__metadata__": 12.0, "%bool:True": 13.0, "True": 14.0, "list/0": 15.0,
        "list/1/0": 16.0, "%float:0.5": 17.0}  # fmt: skip
    opt = fl.Momentum(1.0)
    opt.step(tree, treedef.unflatten(leaves))
    other = fl.Momentum()
    other.load_state_dict(opt.state_dict())
    assert same_bits(dict(other.state["velocity"]), {name: -np.array(x) for name, x in names.items()})


# ---- counts ----------------------------------------------------------------------------------------------------------


def test_the_last_step_that_can_be_counted_is_saved_and_set_back():
    opt = fl.SGD()
    opt.t = 2**63 - 1
    other = fl.SGD()
    other.load_state_dict(opt.state_dict())
    assert other.t == 2**63 - 1
    with pytest.raises(OverflowError, match="the last that it can count"):
        other.step(1.0, 1.0)
    other.t = 5
    other.step(1.0, 1.0)
    assert other.t == 6
