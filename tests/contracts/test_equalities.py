"""Equalities that mathematics promises hold to the bit: averages of equal numbers, settings that do nothing.

An equality joins by a row in TWINS.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fallline as fl
from support import NAMES, WITH_RATE, a_tree, drawn, every_engine, normal, same_bits

FLOATS = [np.float16, np.float32, np.float64]
DECAYS = [0.0, 1e-3, 0.25, 0.49999, 0.5, 0.75, 0.9, 0.999, 0.99999, 1 - 1e-9, 1 - 2.0**-53]


@pytest.mark.slow
@drawn(100)
@given(st.data(), st.sampled_from(FLOATS), st.sampled_from(DECAYS), st.sampled_from(["native", "reference", "eager"]))
def test_an_average_of_equal_numbers_is_that_number(data, dtype, decay, engine):
    limit = float(np.finfo(dtype).max) / 4
    numbers = {"min_value": -limit, "max_value": limit, "allow_subnormal": False}  # of which state has none
    w = data.draw(hnp.arrays(dtype, 17, elements=numbers))
    opt = fl.chain(fl.SGD(0.0), fl.average(decay), engine=engine)
    start, g = w.copy(), np.ones_like(w)
    for _ in range(30):
        opt.step(w, g)
    assert np.array_equal(w, start)
    assert np.array_equal(opt.averaged, start)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("decay", DECAYS)
@every_engine
def test_an_average_stays_on_a_parameter_that_has_come_to_rest_with_it(dtype, decay, engine):
    """However many steps: none is an ulp off, and many make no walk."""
    rng = np.random.default_rng(0)
    opt, w = fl.chain(fl.SGD(0.1), fl.average(decay), engine=engine), normal(rng, 200, dtype)
    for _ in range(1000):
        opt.step(w, np.zeros_like(w))
    assert np.array_equal(opt.averaged, w)


@pytest.mark.parametrize("name", NAMES)
@every_engine
def test_an_average_without_a_memory_is_the_parameter(name, engine):
    if name.startswith("ScheduleFree"):
        return  # whose own average takes its place
    opt, w = fl.chain(fl.OPTIMIZERS[name](), fl.average(0.0), engine=engine), a_tree(0)
    for seed in range(8):
        opt.step(w, a_tree(seed))
        assert same_bits(opt.averaged, w)


def alike(optimizer):
    return fl.partition({"x": optimizer, "y": optimizer.fresh()}, {"a": "x", "b": "y"})


SMALL = 1e9  # a limit that no gradient here reaches
RULES = {name: fl.OPTIMIZERS[name] for name in NAMES if not name.startswith("ScheduleFree")}
TWINS = {
    **{f"{name}, {what}": (make, twin) for name, cls in RULES.items() for what, make, twin in (
        ("a limit beyond", lambda cls=cls: fl.chain(fl.clip_value(SMALL), cls()), cls),
        ("a norm beyond", lambda cls=cls: fl.chain(fl.clip_norm(SMALL), cls()), cls),
        ("l2 of 0", lambda cls=cls: fl.chain(fl.l2(0.0), cls()), cls),
        ("two changes of sign", lambda cls=cls: fl.chain(fl.maximize(), fl.maximize(), cls()), cls),
        ("an average beside it", lambda cls=cls: fl.chain(cls(), fl.average(0.9)), cls),
        ("one gradient at a time", lambda cls=cls: fl.accumulate(1, cls()), cls),
        ("a mask of all", lambda cls=cls: fl.mask(lambda path: True, cls()), cls),
        *([] if name == "Prodigy" else [("parts alike", lambda cls=cls: alike(cls()), cls)]),  # which has one d for all
        *([("decay of 0", lambda cls=cls: fl.chain(cls(), fl.weight_decay(0.0)), cls)] if name in WITH_RATE else []),
    )},
    "AdamW without decay": (lambda: fl.AdamW(0.1, weight_decay=0.0), lambda: fl.Adam(0.1)),
    "NadamW without decay": (lambda: fl.NadamW(0.1, weight_decay=0.0), lambda: fl.Nadam(0.1)),
    "Momentum without momentum": (lambda: fl.Momentum(0.1, momentum=0.0), lambda: fl.SGD(0.1)),
    "Nesterov without momentum": (lambda: fl.Nesterov(0.1, momentum=0.0), lambda: fl.SGD(0.1)),
    "Nadam without memory": (lambda: fl.Nadam(0.1, beta1=0.0), lambda: fl.Adam(0.1, beta1=0.0)),
    "NadaMax without memory": (lambda: fl.NadaMax(0.1, beta1=0.0), lambda: fl.AdaMax(0.1, beta1=0.0)),
    "a schedule of one number": (lambda: fl.Adam(lambda t: 0.1), lambda: fl.Adam(0.1)),
    "a constant schedule": (lambda: fl.Adam(fl.schedules.constant(0.1)), lambda: fl.Adam(0.1)),
    "a number for each leaf": (lambda: fl.Adam({"a": 0.1, "b": 0.1}), lambda: fl.Adam(0.1)),
    "a number for each coordinate": (lambda: fl.Adam({"a": np.full(4, 0.1), "b": 0.1}), lambda: fl.Adam(0.1)),
    "a number by path": (lambda: fl.Adam(fl.by_path(lambda path: 0.1)), lambda: fl.Adam(0.1)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("pair", TWINS)
def test_what_says_the_same_steps_the_same(pair):
    make, twin = TWINS[pair]
    opt, other, w = make(), twin(), a_tree(0, np.float32)
    v = copy.deepcopy(w)
    for seed in range(12):
        g = a_tree(seed, np.float32)
        g["a"][0] = 0.0
        opt.step(w, g)
        other.step(v, copy.deepcopy(g))
    assert same_bits(w, v)
