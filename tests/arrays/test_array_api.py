"""Arrays of the Array API standard: what its own strict reference refuses is not used, whatever the rule or chain."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fallline as fl
from closeness import DIFFERENCES, assert_within, floor
from needed import need
from support import COMPLEX, FULL, NAMES, RECIPES, WHOLE_LEAF, a_tree, normal

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
