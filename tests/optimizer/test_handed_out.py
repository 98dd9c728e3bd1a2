"""What an optimizer hands out: it cannot be written without effect, and is otherwise what it is made of."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from collections import OrderedDict, deque, namedtuple

import numpy as np
import optree
import pytest

import fallline as fl
from needed import need
from support import same_bits

Pair = namedtuple("Pair", "w b")

SETTINGS = {
    "a dict": lambda: {"b": 0.2, "a": 0.1},
    "a list": lambda: [0.1, 0.2],
    "nested": lambda: {"layer": [{"w": 0.1}, {"w": 0.2, "b": 0.3}], "z": (0.1, [0.2])},
    "a namedtuple": lambda: Pair([0.1], {"b": 0.2}),
    "an ordered dict": lambda: OrderedDict(z=0.1, a=[0.2]),
    "schedules": lambda: {"a": fl.schedules.cosine(1e-3, steps=10), "b": [abs]},
    "per coordinate": lambda: {"a": np.array([0.1, 0.2]), "b": [np.array([0.5])]},
}


def containers(tree):
    if isinstance(tree, (dict, list, tuple, deque)):
        yield tree
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from containers(item)


def leaves(tree):
    return optree.tree_leaves(tree)


WRITES = [
    lambda c: c.__setitem__(next(iter(c)) if isinstance(c, dict) else 0, 0.5),
    lambda c: c.__delitem__(next(iter(c)) if isinstance(c, dict) else 0),
    lambda c: c.update(a=1.0), lambda c: c.setdefault("new", 1.0), lambda c: c.popitem(), lambda c: c.__ior__({"a": 1}),
    lambda c: c.append(1.0), lambda c: c.extend([1.0]), lambda c: c.insert(0, 1.0), lambda c: c.remove(c[0]),
    lambda c: c.__iadd__([1.0]), lambda c: c.__imul__(2), lambda c: c.sort(), lambda c: c.reverse(),
    lambda c: c.pop(), lambda c: c.clear(),
]  # fmt: skip


def assert_sealed(tree):
    """No container of it, and no array, can be written; and it says what to do instead."""
    before = repr(tree)
    for container in containers(tree):
        for write in WRITES:
            with pytest.raises((TypeError, AttributeError)) as caught:
                write(container)
            assert isinstance(container, tuple) or "has no attribute" in str(caught.value) or (
                "Assign a whole value, opt.lr = {...}" in str(caught.value))
    for leaf in leaves(tree):
        if isinstance(leaf, np.ndarray) and leaf.size:
            with pytest.raises(ValueError, match="read-only"):
                leaf[...] = 7.0
    assert repr(tree) == before


def handed_out(setting):
    """Each way in which an optimizer gives a setting."""
    opt = fl.chain(fl.clip_value(1.0), fl.SGD(setting()))
    parts = fl.partition({"one": fl.Momentum(setting()), "two": fl.SGD()}, lambda path: "one")
    yield opt.lr
    yield opt.hyper["lr"]
    yield opt.hyper["sgd.lr"]
    yield dict(opt.hyper)["lr"]
    yield parts.hyper["one.lr"]
    yield parts.parts["one"].lr
    yield fl.mask(lambda path: True, fl.SGD(setting())).lr
    yield opt.fresh().lr


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_tree_of_settings_that_is_handed_out_cannot_be_written(setting):
    for tree in handed_out(SETTINGS[setting]):
        assert_sealed(tree)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_tree_of_settings_that_is_handed_out_is_otherwise_what_was_given(setting):
    given = SETTINGS[setting]()
    plain = {"numbers": "per" not in setting and setting != "schedules"}["numbers"]
    for tree in handed_out(SETTINGS[setting]):
        assert same_bits(leaves(tree), leaves(given))
        assert optree.tree_paths(tree) == optree.tree_paths(given)
        assert isinstance(tree, type(given))
        assert repr(fl.SGD(tree)) == repr(fl.SGD(given))
        assert not plain or (tree == given and json.dumps(tree) == json.dumps(given) and repr(tree) == repr(given))
        for twin in (copy.copy(tree), copy.deepcopy(tree), pickle.loads(pickle.dumps(tree))):
            assert same_bits(leaves(twin), leaves(given))
            assert not isinstance(twin, (dict, list)) or twin.clear() is None


def test_jax_walks_what_is_handed_out_as_what_it_is_made_of():
    jax = need("jax")
    given = SETTINGS["nested"]()
    lr = fl.SGD(given).lr
    assert jax.tree.leaves(lr) == jax.tree.leaves(given)
    assert jax.tree_util.tree_leaves_with_path(lr) == jax.tree_util.tree_leaves_with_path(given)
    assert jax.tree.map(lambda rate: 2 * rate, lr) == jax.tree.map(lambda rate: 2 * rate, given)


@pytest.mark.parametrize("make", [dict, OrderedDict, lambda w: [w["b"], w["a"]], lambda w: (w["b"], [w["a"]]),
                                  lambda w: deque(w.values()), lambda w: {"layer": w}])
def test_the_state_is_trees_like_the_parameters_whose_arrays_cannot_be_written(make):
    """They are plain ones: JAX and others map over them and the parameters together."""
    w = make({"b": np.ones(2), "a": np.zeros(1)})
    for opt in (fl.Adam(), fl.chain(fl.Adam(), fl.average(0.9))):
        opt.step(w, w)
        for tree in opt.state.values():
            assert optree.tree_structure(tree) == optree.tree_structure(w)
            for array in leaves(tree):
                with pytest.raises(ValueError, match="read-only"):
                    array[...] = 0.0
        with pytest.raises(TypeError):
            opt.state["m"] = w


def test_no_part_and_no_slot_of_a_part_can_be_replaced():
    w = {"W": np.ones((2, 2)), "b": np.ones(2)}
    opt = fl.partition({"matrices": fl.Momentum(), "rest": fl.Adam()},
                       lambda path, shape: "matrices" if len(shape) == 2 else "rest")
    opt.step(w, w)
    with pytest.raises(TypeError):
        opt.state["rest"]["m"] = w
    with pytest.raises(TypeError):
        opt.parts["rest"] = fl.SGD()
    with pytest.raises(KeyError, match="no part 'none'"):
        opt.state["none"]


@pytest.mark.parametrize("given", [{"b": 0.2, "a": 0.1}, OrderedDict(z=0.1), [0.1]], ids=str)
def test_a_copy_of_what_is_handed_out_is_a_plain_one(given):
    lr = fl.SGD(given).lr
    assert type(lr.copy()) is type(given)
    assert lr.copy() == given
    if isinstance(given, dict):
        assert type(lr | {"c": 1.0}) is type(given)
        assert (lr | {"c": 1.0})["c"] == 1.0


def test_assigning_the_whole_takes_effect():
    opt, w = fl.SGD({"a": 0.1}), {"a": np.ones(1)}
    opt.lr = {**opt.lr, "a": 0.5}
    opt.step(w, {"a": np.ones(1)})
    opt.hyper["lr"] = {**opt.lr, "a": 0.25}
    opt.step(w, {"a": np.ones(1)})
    assert w["a"].tolist() == [0.25]


def test_what_is_documented_as_a_copy_may_be_written():
    opt, w = fl.chain(fl.Adam({"a": 0.1}), fl.average(0.9)), {"a": np.ones(1)}
    opt.step(w, w)
    d, mean = opt.state_dict(), opt.averaged
    d["hyper"]["adam.lr"]["a"] = 0.5
    d["state"]["m"]["a"][:] = 3.0
    mean["a"][:] = 9.0
    assert (opt.lr["a"], opt.averaged["a"][0] != 9.0) == (0.1, True)
    opt.load_state_dict(d)
    assert (opt.lr["a"], opt.state["m"]["a"][0]) == (0.5, 3.0)


def test_an_optimizer_steps_a_state_that_was_handed_out():
    w = {"a": np.ones(2), "b": [np.ones(1)]}
    opt = fl.Momentum(1.0)
    opt.step(w, w)
    g = opt.state["velocity"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fl.SGD(1.0).update({"a": g["a"], "b": g["b"]})["b"][0].tolist() == (-g["b"][0]).tolist()
        opt.step(w, g)
    assert opt.t == 2
