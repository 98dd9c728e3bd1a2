"""Bounds of both loops: every natural form means the same, and nothing outside them is ever evaluated."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from scipy.optimize import Bounds

import fallline as fl
from needed import need

START = {"W": np.array([[4.0, -4.0], [0.5, 0.25]]), "b": np.array([3.0])}
GOAL = {"W": np.array([[9.0, -9.0], [0.0, 0.25]]), "b": np.array([-9.0])}
UNIT = {"W": np.array([[1.0, 0.0], [0.0, 0.25]]), "b": np.array([0.0])}  # the goal within [0, 1]
FORMS = [
    (0, 1), [0.0, np.float32(1)], {"W": (0, 1), "b": (0, 1)}, {"W": (np.zeros((2, 2)), 1), "b": [(0, 1)]},
    {"W": [(0, 1)] * 4, "b": (0, 1)}, [(0, 1)] * 5, Bounds(0, 1), Bounds([0] * 5, [1] * 5), np.array([(0, 1)] * 5),
]  # fmt: skip


def value_and_grad(seen):
    def evaluated(w):
        seen.append({name: np.array(leaf, np.float64) for name, leaf in w.items()})
        grads = {name: (leaf - GOAL[name].astype(leaf.dtype)).astype(leaf.dtype) for name, leaf in w.items()}
        return float(sum((np.asarray(g, np.float64) ** 2).sum() for g in grads.values()) / 2), grads

    return evaluated


@pytest.mark.parametrize("bounds", FORMS, ids=str)
@pytest.mark.parametrize("loop", ["descend", "minimize"])
def test_every_natural_form_means_the_same_and_nothing_outside_is_evaluated(loop, bounds):
    seen = []
    if loop == "descend":
        w = fl.descend(value_and_grad(seen), START, fl.SGD(0.5), steps=60, bounds=bounds).params
    else:
        w = fl.minimize(value_and_grad(seen), START, jac=True, method=fl.SGD(0.5), bounds=bounds).x
    assert all(((leaf >= 0) & (leaf <= 1)).all() for point in seen for leaf in point.values())
    for name, leaf in UNIT.items():
        np.testing.assert_allclose(w[name], leaf, atol=1e-4)
    assert w["W"][0].tolist() == [1.0, 0.0]  # on the border, to the bit


def test_a_single_array_may_have_arrays_for_its_ends_or_pairs():
    def fun(x):
        return (x @ x) / 2, x

    for bounds in [(np.full(3, 1.0), np.full(3, 2.0)), [(1, 2)] * 3, (1, 2), (np.full(3, 1.0), 2)]:
        assert fl.descend(fun, np.full(3, 5.0), fl.SGD(0.5), steps=20, bounds=bounds).params.tolist() == [1.0] * 3
    pairs = fl.descend(fun, np.full(2, 5.0), fl.SGD(0.5), steps=20, bounds=(np.array([1, 2]), np.array([3, 4]))).params
    assert pairs.tolist() == [1.0, 3.0]  # as SciPy has them: a pair for each of two


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_borders_are_met_in_every_dtype(dtype):
    run = fl.descend(lambda w: (0.0, -np.ones_like(w)), np.zeros(3, dtype), fl.Adam(0.3), steps=9, bounds=(-0.1, 0.7))
    assert (run.params == dtype(0.7)).all()


def test_arrays_of_other_libraries_keep_within_them():
    for library in ("torch", "jax.numpy"):
        ones = need(library).ones(3)
        run = fl.descend(lambda w: (0.0, -w), ones, fl.SGD(0.5), steps=5, bounds=(0, 1.5))
        assert run.params.tolist() == [1.5] * 3


def test_a_run_with_bounds_that_was_cut_goes_on_to_the_bit(tmp_path):
    def of(steps, path):
        return fl.descend(value_and_grad([]), START, fl.Adam(0.3), steps=steps, bounds=(0, 1), checkpoint=path)

    of(7, tmp_path / "cut")
    once, twice = of(20, tmp_path / "whole"), of(20, tmp_path / "cut")
    assert all((once.params[name] == leaf).all() for name, leaf in twice.params.items())


@pytest.mark.parametrize(("bounds", "said"), [
    ((1, 0), "bounds of descend must have lower ≤ upper. Got \\(1.0, 0.0\\) at index 0 of W."),
    ({"W": (0, 1)}, "bounds of descend must be a pair"), ([(0, 1)] * 4, "a pair for each of the 5 parameters"),
    ({"W": (0, 1), "b": (np.zeros(3), 1)}, "must be a pair"), ("ab", "must be a pair"), ((0, np.nan), "lower ≤ upper"),
    (3, "must be a pair"), ((0, 1, 2), "must be a pair"), (Bounds([0, 0], [1, 1]), "must be a pair"),
])  # fmt: skip
def test_bounds_that_are_none_are_refused(bounds, said):
    with pytest.raises(ValueError, match=said):
        fl.descend(value_and_grad([]), START, fl.SGD(0.5), steps=1, bounds=bounds)
