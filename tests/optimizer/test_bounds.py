"""Bounds: parameters lie within them, on the border exactly, in every dtype and engine; nothing else changes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

import fallline as fl
from needed import need
from support import drawn, same_bits

DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
ENGINES = ["native", "reference"]
SMALL = ("LARS", "Prodigy")  # whose steps are too short to reach a border here
RULES = [name for name, cls in fl.OPTIMIZERS.items() if not name.startswith("ScheduleFree")]


def walked(opt, dtype, low, high, steps=12, shape=(5, 3)):
    rng = np.random.default_rng(0)
    w = {"a": rng.uniform(low, high, shape).astype(dtype), "b": rng.uniform(low, high, 7).astype(dtype)}
    places = []
    for _ in range(steps):
        w = opt.step(w, {name: rng.standard_normal(leaf.shape).astype(dtype) for name, leaf in w.items()})
        places.append({name: leaf.copy() for name, leaf in w.items()})
    return places


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RULES)
def test_every_coordinate_stays_within_and_comes_to_lie_on_the_border(name, dtype):
    low, high = -0.1, 0.7
    cls = fl.OPTIMIZERS[name]
    opt = fl.chain(cls(lr=0.9) if "lr" in cls().hyper else cls(eps=0.5), fl.bounds(low, high))
    places = walked(opt, dtype, low, high, steps=30)
    leaves = [leaf for place in places for leaf in place.values()]
    assert all(((leaf >= dtype(low)) & (leaf <= dtype(high))).all() for leaf in leaves)
    assert name in SMALL or all(any((leaf == dtype(end)).any() for leaf in leaves) for end in (low, high))


@drawn(100)
@given(st.floats(-1e300, 1e300), st.floats(0, 1e300), st.floats(-1e300, 1e300), st.sampled_from(ENGINES))
def test_the_border_is_met_to_the_bit_whatever_the_numbers(low, width, g, engine):
    high = low + width
    opt = fl.chain(fl.SGD(1.0), fl.bounds(low, high), engine=engine)
    w, x = np.full(3, low), low
    for _ in range(2):
        w = opt.step(w, np.full(3, g))
        x = min(max(x - g, low), high)
        assert (w == x).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_engines_agree_and_within_the_bounds_nothing_is_changed(dtype):
    makers = [lambda **o: fl.chain(fl.Adam(0.3), fl.bounds(-0.1, 0.7), fl.average(0.5), **o),
              lambda **o: fl.chain(fl.Adam(0.3), fl.average(0.5), **o)]  # fmt: skip
    native, reference = (walked(makers[0](engine=engine), dtype, -0.1, 0.7) for engine in ("native", "reference"))
    assert all(map(same_bits, native, reference))
    wide = fl.chain(fl.Adam(0.3), fl.bounds(), fl.average(0.5))
    assert all(map(same_bits, walked(wide, dtype, -0.1, 0.7), walked(makers[1](), dtype, -0.1, 0.7)))


def test_an_average_is_of_the_points_within():
    opt = fl.chain(fl.SGD(1.0), fl.bounds(0, 1), fl.average(0.5))
    opt.step(np.array([0.5]), np.array([-10.0]))
    assert opt.averaged == 0.75


def test_they_may_differ_by_leaf_by_coordinate_and_by_step():
    opt = fl.chain(fl.SGD(1.0), fl.bounds({"a": np.array([0.0, 1.0]), "b": -np.inf}, lambda t: 5.0 - t))
    w = {"a": np.array([2.0, 2.0]), "b": np.array([2.0])}
    down, up = {k: np.full_like(v, 9.0) for k, v in w.items()}, {k: np.full_like(v, -9.0) for k, v in w.items()}
    w = opt.step(w, down)
    assert (w["a"].tolist(), w["b"].tolist()) == ([0.0, 1.0], [-7.0])
    w = opt.step(opt.step(w, up), up)
    assert (w["a"].tolist(), w["b"].tolist()) == ([3.0, 3.0], [3.0])


def test_they_hold_around_parts_in_other_libraries_and_for_whole_leaves():
    parts = fl.chain(fl.partition({"a": fl.Adam(1.0), "b": fl.SGD(1.0)}, lambda path: path), fl.bounds(0, 1))
    w = parts.step({"a": np.ones(2), "b": np.ones(2)}, {"a": -np.ones(2), "b": np.full(2, 3.0)})
    assert {k: v.tolist() for k, v in w.items()} == {"a": [1.0, 1.0], "b": [0.0, 0.0]}
    assert fl.chain(fl.Muon(1.0), fl.bounds(0, 0.5)).step(np.ones((2, 2)), np.ones((2, 2))).max() == 0.5
    for library in ("torch", "jax.numpy"):
        ones = need(library).ones(3)
        assert fl.chain(fl.SGD(1.0), fl.bounds(0, 0.5)).step(ones, -ones).tolist() == [0.5] * 3


def test_they_go_along_in_files_and_change_at_once_when_set(tmp_path):
    opt = fl.chain(fl.SGD(1.0), fl.bounds(0))
    opt.save(tmp_path / "run")
    again = fl.load(tmp_path / "run")
    assert repr(again) == repr(opt) == "chain(SGD(lr=1.0), bounds(low=0.0, high=inf))"
    again.high = 2.0
    assert again.step(1.0, -5.0) == 2.0


def test_scipys_bounds_are_taken():
    bounds = scipy.optimize.Bounds([0, 1], [1, 2])
    assert repr(fl.bounds(bounds)) == repr(fl.bounds(np.array([0, 1]), np.array([1, 2])))


@pytest.mark.parametrize(("call", "kind", "said"), [
    (lambda: fl.bounds(2, 1), ValueError, "bounds must have low ≤ high in every coordinate. Got 2 and 1."),
    (lambda: fl.bounds(np.zeros(2), np.array([1, -1])), ValueError, "low ≤ high in every coordinate"),
    (lambda: fl.bounds(np.nan, 1), ValueError, r"low of bounds must be a number \(infinite: no bound\). Got nan."),
    (lambda: fl.bounds("a"), TypeError, r"low of bounds must be a number \(infinite: no bound\), a schedule"),
    (lambda: fl.chain(fl.SGD(), fl.bounds(0, 1)).update(np.ones(2), params=np.ones(2)), TypeError,
     r"update of chain\(SGD, bounds\) cannot keep parameters within bounds: x \+ \(high - x\) need not equal high."),
    (lambda: fl.chain(fl.partition({"a": fl.SGD()}, lambda path: "a"), fl.bounds(0, 1)).update(np.ones(2)), TypeError,
     "cannot keep parameters within bounds"),
    (lambda: fl.chain(fl.SGD(), fl.bounds(0, 1), fl.weight_decay()), fl.FormulaError,
     r"put bounds last, chain\(..., weight_decay, bounds\)"),
    (lambda: fl.chain(fl.ScheduleFreeSGD(), fl.bounds(0, 1)), fl.FormulaError, "take a rule without such a point"),
])  # fmt: skip
def test_what_cannot_be_is_refused(call, kind, said):
    with pytest.raises(kind, match=said):
        call()
