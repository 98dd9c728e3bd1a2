"""Partitions and masks: each leaf gets the step of its own optimizer, to the bit, and a call steps all or none."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

import fallline as fl
from bad_calls import read_only
from needed import need
from support import (
    RECIPES,
    a_tree,
    by_rank,
    every_engine,
    frozen,
    halving,
    normal,
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
    assert re.fullmatch("x: (native|reference): .*; y: eager: arrays of jax, by a compiled program", opt.engine)


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
