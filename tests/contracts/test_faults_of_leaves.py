"""Faults that other optimiser libraries shipped, each excluded for every optimiser and both array engines: those of
leaves and trees (see test_faults_of_numbers.py)."""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl
from support import (
    OF_THE_TREE,
    SLOTS,
    SUBNORMAL_MOVES,
    WITH_POWERS_OF_T,
    WITHOUT_DECAY,
    a_tree,
    build,
    every_engine,
    every_optimiser,
    every_optimiser_or_precision,
    frozen,
    limits,
    normal,
    same_bits,
    state_dtype,
    update,
)


@every_optimiser_or_precision
@every_engine
def test_16_three_identical_parameters_take_the_steps_of_one(name, engine, dtype):
    single, triple = build(name, engine), build(name, engine)
    w = np.array([1.0, 2.0], dtype)
    three = [w.copy() for _ in range(3 if name not in OF_THE_TREE else 4)]  # the sum of four is exact
    for seed in range(12):
        g = normal(np.random.default_rng(seed), 2, dtype)
        single.step(w, g)
        triple.step(three, [g.copy() for _ in three])
        for leaf in three:
            assert same_bits(leaf, w)
    assert triple.t == single.t == 12


@every_optimiser_or_precision
@every_engine
def test_17_a_coordinate_without_a_gradient_keeps_its_bits_and_has_no_moments(name, engine, dtype):
    smallest = limits(dtype).tiny if name in SUBNORMAL_MOVES else limits(dtype).smallest_subnormal
    w = np.array([1.0, 0.1, 0.0, 3 * float(smallest), float(limits(dtype).max), 0.0], dtype)
    kept = w.copy()
    opt = build(name, engine, **WITHOUT_DECAY[name])
    for seed in range(60):
        g = np.zeros(6, dtype)
        g[5] = np.random.default_rng(seed).standard_normal()
        opt.step(w, g)
        assert same_bits(w[:5], kept[:5])
        for slot in set(SLOTS[name]) & {"velocity", "m", "m1", "m2", "u", "last"}:
            assert same_bits(opt.state[slot][:5], np.zeros(5, state_dtype(dtype))), slot
    assert w[5] != kept[5]


@every_optimiser_or_precision
@every_engine
def test_17_a_negative_zero_without_a_gradient_stays_negative(name, engine, dtype):
    w = np.array([-0.0, 1.0], dtype)
    opt = build(name, engine, **WITHOUT_DECAY[name])
    for _ in range(3):
        opt.step(w, np.array([0.0, 1.0], dtype))
        assert np.signbit(w.real[0])


# ================================================================================================= structure


@every_optimiser
@every_engine
def test_20_an_empty_parameter_holds_up_nobody(name, engine):
    opt, plain = build(name, engine), build(name, engine)
    full = [np.array([1.0, 2.0]), np.array([[3.0]])]

    def between_empty_ones(first, last):
        return [np.empty((0, 3)), first, np.empty(0), last, np.empty((2, 0))]

    mixed = between_empty_ones(*[leaf.copy() for leaf in full])
    for seed in range(3):
        g = [np.random.default_rng(seed).standard_normal(leaf.shape) for leaf in full]
        plain.step(full, g)
        opt.step(mixed, between_empty_ones(*g))
    assert [leaf.shape for leaf in mixed[::2]] == [(0, 3), (0,), (2, 0)]
    assert same_bits(mixed[1::2], full)


@every_optimiser_or_precision
@every_engine
def test_21_a_zero_dimensional_array_is_stepped_in_place(name, engine, dtype):
    opt, plain = build(name, engine), build(name, engine)
    w, flat = np.array(2.0, dtype), np.array([2.0], dtype)
    for size in (1.0, -3.0, 0.5):
        assert opt.step(w, np.array(size, dtype)) is w
        plain.step(flat, np.array([size], dtype))
        assert w.shape == ()
        assert same_bits(w.reshape(1), flat)
    increment = update(opt, np.array(1.0, dtype))
    assert np.shape(increment) == ()
    assert increment.dtype == dtype


@every_optimiser
@every_engine
def test_21_a_python_float_changes_only_in_what_is_returned(name, engine):
    opt, plain = build(name, engine), build(name, engine)
    w, flat = 2.0, np.array([2.0])
    tree = {"bias": 2.0, "kernel": np.array([2.0])}
    mixed = build(name, engine)
    for size in (1.0, -3.0, 0.5):
        w = opt.step(w, size)
        plain.step(flat, np.array([size]))
        returned = mixed.step(tree, {"bias": size, "kernel": np.array([size])})
        assert type(w) is float
        assert w == flat[0]
        assert type(returned["bias"]) is float
        assert returned["bias"] == returned["kernel"][0] == w
        assert returned["kernel"] is tree["kernel"]
        tree = returned
    assert isinstance(update(opt, 1.0), float)


@every_optimiser
@every_engine
def test_21_the_tree_that_was_passed_in_keeps_its_python_floats(name, engine):
    tree = {"bias": 2.0}
    build(name, engine).step(tree, {"bias": 1.0})
    assert tree == {"bias": 2.0}


@every_optimiser_or_precision
@every_engine
def test_24_the_type_of_a_setting_does_not_change_the_dtype(name, engine, dtype):
    for number in (np.float64, np.float32, float):
        opt = build(name, engine, **{key: number(value) for key, value in fl.OPTIMIZERS[name]().hyper.items()})
        w = opt.step(a_tree(0, dtype), a_tree(1, dtype))
        assert {leaf.dtype for leaf in w.values()} == {dtype}
        assert {leaf.dtype for leaf in update(opt, a_tree(2, dtype)).values()} == {dtype}
        for slot in SLOTS[name]:
            assert {leaf.dtype for leaf in opt.state[slot].values()} == {state_dtype(dtype)}


@every_optimiser
@every_engine
@pytest.mark.parametrize("other", [np.float64, np.float16, np.longdouble])
def test_24_a_gradient_of_another_float_precision_is_cast_to_the_parameters(name, engine, other):
    opt, plain = build(name, engine), build(name, engine)
    w, v = a_tree(0, np.float32), a_tree(0, np.float32)
    for seed in range(1, 4):
        g = a_tree(seed, other)
        opt.step(w, g)
        plain.step(v, {key: leaf.astype(np.float32) for key, leaf in g.items()})
    assert same_bits(w, v)


@every_optimiser
@every_engine
def test_26_a_parameter_may_be_replaced_by_another_array_of_its_kind(name, engine):
    opt, plain = build(name, engine), build(name, engine)
    w, v = a_tree(0), a_tree(0)
    old = []
    for seed in range(1, 5):
        old.append((w["a"], w["a"].copy()))
        w["a"] = w["a"].copy()
        opt.step(w, a_tree(seed))
        plain.step(v, a_tree(seed))
    assert same_bits(w, v)
    for array, bits in old:
        # every array but the newest was left behind with the value it had when it was replaced
        assert same_bits(array, bits)


@pytest.mark.needs("leaves alone")
@every_optimiser
@every_engine
def test_28_a_leaf_without_a_gradient_is_untouched_and_does_not_count_the_step(name, engine):
    opt, alone = build(name, engine), build(name, engine)
    w, v = a_tree(0), a_tree(0)["a"]
    for seed in range(1, 9):
        g = a_tree(seed)
        present = seed % 3 == 1
        if present:
            alone.step(v, g["a"])
        else:
            g["a"] = None
        before, state = frozen(w["a"]), [frozen(opt.state[slot]["a"]) for slot in SLOTS[name]] if seed > 1 else []
        opt.step(w, g)
        assert opt.t == seed
        assert same_bits(w["a"], v)
        if not present:
            assert frozen(w["a"]) == before
            assert [frozen(opt.state[slot]["a"]) for slot in SLOTS[name]] == state


@pytest.mark.parametrize("name", WITH_POWERS_OF_T)
@every_engine
def test_28_a_leaf_whose_first_gradient_comes_late_starts_its_own_count(name, engine):
    opt, fresh = build(name, engine), build(name, engine)
    w = a_tree(0)
    for seed in range(1, 6):
        opt.step(w, {"a": a_tree(seed)["a"], "b": None})
    g = a_tree(9)
    assert same_bits(update(opt, g)["b"], update(fresh, g)["b"])


@every_optimiser
@every_engine
def test_28_update_answers_none_where_there_is_no_gradient_or_an_increment_of_zero(name, engine):
    opt = build(name, engine)
    update(opt, a_tree(0))
    answer = update(opt, {"a": a_tree(1)["a"], "b": None}, a_tree(2))["b"]
    assert answer is None or not np.any(answer)
