"""Arrays of the Array API standard: what its own strict reference refuses is not used, whatever the rule or chain."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fallline as fl
from closeness import DIFFERENCES, assert_within, floor
from needed import need
from support import COMPLEX, FULL, NAMES, RECIPES, WHOLE_LEAF, a_tree, frozen, normal

OTHERS = {
    "clip_norm": lambda **o: fl.chain(fl.clip_norm(0.5), fl.Adam(), fl.weight_decay(0.1), **o),
    "clip_value, l2": lambda **o: fl.chain(fl.clip_value(0.5), fl.l2(0.1), fl.Nadam(), fl.average(0.9), **o),
    "maximize": lambda **o: fl.chain(fl.maximize, fl.SGD(0.1), **o),
    "accumulate": lambda **o: fl.accumulate(2, fl.chain(fl.clip_norm(1.0), fl.Momentum(0.1), fl.average(0.9)), **o),
    **{name: make for name, make in RECIPES.items() if name not in fl.OPTIMIZERS},
}
MADE = {**{name: fl.OPTIMIZERS[name] for name in NAMES if name not in WHOLE_LEAF}, **OTHERS}


def strict(tree):
    """A tree in arrays of the standard's reference."""
    xp = need("array_api_strict")
    return {key: None if leaf is None else xp.asarray(leaf) for key, leaf in tree.items()}


def plain(tree):
    return {key: None if leaf is None else np.asarray(leaf) for key, leaf in tree.items()}


def is_strict(tree):
    return all(type(leaf).__module__.startswith("array_api_strict") for leaf in tree.values() if leaf is not None)


@pytest.mark.parametrize("dtype", FULL + COMPLEX, ids=str)
@pytest.mark.parametrize("made", MADE)
def test_arrays_of_the_standard_are_stepped_by_every_rule_and_chain_as_the_reference_engine_does(made, dtype):
    xp = need("array_api_strict")
    opt, other, updating = (MADE[made](engine=engine) for engine in ("eager", "reference", "auto"))
    w, v = a_tree(0, dtype), strict(a_tree(0, dtype))
    eps, of_differences = np.finfo(dtype).eps, MADE[made] in DIFFERENCES or made in OTHERS
    for k in range(1, 7):
        g = {**a_tree(k, dtype), **({"b": None} if k == 3 else {})}
        v = opt.step(v, strict(g))
        other.step(w, g)
        increments = updating.update(strict(g), params=v)
        assert is_strict(v)
        assert is_strict(increments)
        for key in w:
            assert v[key].dtype == xp.asarray(w[key]).dtype
            size = floor(None, w[key]) if not of_differences else float(np.abs(w[key]).max())
            assert_within("parameter", np.asarray(v[key]), w[key], eps, max(size, 1e-2))
    assert opt.engine.startswith("eager")
    assert updating.engine == "eager: arrays of array_api_strict"
    assert_goes_on_alike(opt, v, made)


def assert_goes_on_alike(opt, v, made):
    """All ways of copying, and of saving, go on with the same numbers; what is known of the optimizer can be asked."""
    loaded = MADE[made](engine="eager")
    loaded.load_state_dict(opt.state_dict())
    twins = [loaded, copy.deepcopy(opt), pickle.loads(pickle.dumps(opt)), opt]
    g = strict(a_tree(9, np.asarray(v["a"]).dtype))
    results = [plain(twin.step(v, g)) for twin in twins]
    assert all(np.array_equal(result[key], results[0][key]) for result in results for key in result)
    assert opt.rest(v).keys() == v.keys()
    if hasattr(opt, "averaged"):
        assert opt.averaged.keys() == v.keys()


def test_what_arrays_of_the_standard_may_not_be_is_refused_as_for_others(path):
    xp = need("array_api_strict")
    opt, w = fl.Adam(0.1), xp.ones(3)
    w = opt.step(w, xp.ones(3))
    for wrong, said in ((xp.ones(3, dtype=xp.int64), "must be float16.*Got int64"), (xp.ones(2), "must have the shape"),
                        (xp.asarray([1.0, xp.nan, 1.0]), "has 1 NaN"), (xp.astype(w, xp.complex64), "must be real")):
        with pytest.raises((TypeError, ValueError), match=said):
            opt.step(w, wrong)
    assert opt.t == 1
    increment, out = opt.update(xp.ones(3)), xp.zeros(3)
    assert opt.update(xp.ones(3), out=out) is out
    assert bool(xp.all(out < 0) & xp.all(increment < 0))
    opt.save(path, w)
    again, params = fl.load(path)
    assert np.array_equal(params, np.asarray(w))
    assert again.t == opt.t
    w = again.step(w, np.ones(3))  # a gradient of another library
    assert type(w) is type(increment)


def test_settings_may_be_arrays_of_the_standard():
    xp = need("array_api_strict")
    w = fl.SGD(xp.asarray([0.5, 0.25])).step(xp.zeros(2), xp.ones(2))
    assert np.asarray(w).tolist() == [-0.5, -0.25]
    assert fl.SGD(xp.asarray(0.5)).lr == 0.5


def test_numbers_of_any_size_are_stepped_with_the_standard():
    xp = need("array_api_strict")
    for k, size in enumerate((0.0, 1e-300, 1e150)):
        g = normal(np.random.default_rng(k), 5) * size
        for name in ("Adam", "LAMB", "Prodigy", "AdEMAMix"):
            found = fl.OPTIMIZERS[name](engine="eager").update(xp.asarray(g), params=xp.ones(5))
            wanted = fl.OPTIMIZERS[name](engine="reference").update(g, params=np.ones(5))
            np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-12)


# ---- wherever arrays of any library may come -------------------------------------------------------------------------


def square(w):
    """A loss in the arrays' own library, as a 0-d array, and its gradient."""
    xp = w["a"].__array_namespace__()
    return sum(xp.sum(leaf * leaf) for leaf in w.values()), {key: 2 * leaf for key, leaf in w.items()}


def gradient_alone(w):
    return None, square(w)[1]


def averaging(**o):
    return fl.chain(fl.clip_norm(1.0), fl.Adam(0.1), fl.weight_decay(0.1), fl.average(0.9), **o)


def in_parts(**o):
    parts = {"x": fl.Momentum(fl.schedules.cosine(0.1, steps=9)), "y": fl.Adam(0.1), "z": None}
    return fl.chain(fl.clip_norm(1.0), fl.partition(parts, {"a": "x", "b": "y", "c": "z"}), fl.bounds(-0.5, 0.9), **o)


def bounds_of(as_array):
    return {"a": (as_array(np.full((2, 3), -0.25)), as_array(np.array(0.25))), "b": (-1.0, None), "c": (None, None)}


RUNS = {
    "plain": lambda path, a: {},
    "a target": lambda path, a: {"target": 1.0, "steps": 50},
    "patience": lambda path, a: {"patience": 2, "steps": 50},
    "gradients alone": lambda path, a: {"value_and_grad": gradient_alone},
    "bounds": lambda path, a: {"bounds": (-0.3, 0.3)},
    "bounds in arrays": lambda path, a: {"bounds": bounds_of(a)},
    "batches": lambda path, a: {"batches": [a(np.ones(2)), a(np.ones(2))],
                                "value_and_grad": lambda w, batch: square(w)},
    "a file": lambda path, a: {"checkpoint": path},
    "a schedule and rates by coordinate": lambda path, a: {"optimizer": lambda **o: fl.Adam(
        {"a": a(np.full((2, 3), 0.1)), "b": fl.schedules.cosine(0.1, steps=a(np.array(9))), "c": a(np.ones(()))}, **o)},
    "an average": lambda path, a: {"optimizer": averaging},
    "parts": lambda path, a: {"optimizer": in_parts, "bounds": (-1.0, 1.0)},
    "gathered": lambda path, a: {"optimizer": lambda **o: fl.accumulate(2, averaging(), **o)},
    "another point": lambda path, a: {"optimizer": lambda **o: fl.ScheduleFreeAdamW(0.1, **o)},
    "numbers that are not finite": lambda path, a: {"optimizer": lambda **o: fl.SGD(1e300, nonfinite="propagate", **o)},
}


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
@pytest.mark.parametrize("which", RUNS)
def test_runs_in_arrays_of_the_standard_are_those_in_arrays_of_numpy(which, path):
    def run(as_array, steps=6):
        given = {"value_and_grad": square, "optimizer": lambda **o: fl.Adam(0.1, **o), "steps": steps,
                 **RUNS[which](path, as_array)}
        opt = given.pop("optimizer")(engine="eager")
        w = {"a": as_array(np.full((2, 3), 0.5)), "b": as_array(np.linspace(-1, 1, 4)), "c": as_array(np.array(2.0))}
        result = fl.descend(given.pop("value_and_grad"), w, opt, progress=False, **given)
        points = [opt.rest(result.params), *([opt.averaged] if hasattr(opt, "averaged") else [])]
        return result, opt.state_dict(), points

    xp = need("array_api_strict")
    if which == "a file":
        run(xp.asarray, 3)
    (ours, state, others), (theirs, known, wanted) = run(xp.asarray), run(np.asarray, 6)
    assert is_strict(ours.params)
    assert (ours.status, ours.message, ours.t) == (theirs.status, theirs.message, theirs.t)
    assert np.array_equal(ours.values, theirs.values, equal_nan=True)
    for found, right in zip([ours.params, *others], [theirs.params, *wanted], strict=True):
        assert frozen(plain(found)) == frozen(plain(right))
    assert frozen(state) == frozen(known)


def test_an_accumulated_gradient_of_the_standard_may_be_absent_from_the_last_call():
    xp = need("array_api_strict")
    opt, w = fl.accumulate(2, fl.SGD(0.5)), {"a": xp.ones(2), "b": xp.ones(2)}
    w = opt.step(w, {"a": xp.ones(2), "b": None})
    w = opt.step(w, {"a": None, "b": xp.ones(2)})
    assert {key: value.tolist() for key, value in plain(w).items()} == {"a": [0.75, 0.75], "b": [0.75, 0.75]}


def test_arrays_of_the_standard_on_another_device_stay_there_and_are_saved(path):
    xp = need("array_api_strict")
    there = xp.Device("device1")

    def ones():
        return {"a": xp.ones(3, device=there)}

    opt, w = averaging(), ones()
    for _ in range(3):
        w = opt.step(w, ones())
    opt.save(path, w)
    again, params = fl.load(path)
    loaded = averaging()
    loaded.load_state_dict(opt.state_dict())
    here = again.step({"a": xp.asarray(params["a"])}, {"a": xp.ones(3)})
    for twin in (opt, loaded, copy.deepcopy(opt)):
        moved = twin.step({"a": w["a"] + 0.0}, ones())["a"]
        assert moved.device == there
        assert np.array_equal(np.from_dlpack(moved), np.asarray(here["a"]))
    run = fl.descend(lambda w: (xp.sum(w["a"] * w["a"]), {"a": 2 * w["a"]}), ones(), averaging(), steps=3,
                     bounds={"a": (np.zeros(3), 0.9)}, checkpoint=path.with_suffix(".run"), progress=False)
    assert run.params["a"].device == there
