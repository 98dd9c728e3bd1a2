"""Settings and functions of a state: numbers are restored, functions must be those that were saved."""

from __future__ import annotations

import copy
import dataclasses
import functools

import numpy as np
import pytest

import fallline as fl
from fallline._state.fingerprint import described, fingerprint
from support import (
    a_tree,
    halving,
    same_bits,
    signed_average,
    walk,
)


def other_schedule(t):
    return 0.5**t


@dataclasses.dataclass(frozen=True)
class Decay:
    rate: float
    floors: tuple[float, ...] = (0.0,)

    def __call__(self, t):
        return self.rate / (1 + t)


def decay(t, rate):
    return rate / (1 + t)


@pytest.mark.parametrize("value", [0.25, {"a": 0.5, "b": 0.25}, {"a": np.full(4, 0.5), "b": 0.125}])
def test_settings_that_are_numbers_are_restored(value):
    opt, w = fl.Adam(lr=value), a_tree(100)
    walk(opt, w, range(2))
    other = fl.Adam()
    other.load_state_dict(opt.state_dict())
    assert same_bits(dict(other.hyper), dict(opt.hyper))
    if isinstance(value, dict):
        value["a"] = 7.0  # the caller's own
    v = copy.deepcopy(w)
    walk(opt, w, range(2, 5))
    walk(other, v, range(2, 5))
    assert same_bits(v, w)


FUNCTIONS = {
    "by name": (lambda: halving, lambda: other_schedule),
    "dataclass": (lambda: Decay(0.1), lambda: Decay(0.2)),
    "dataclass with a tuple": (lambda: Decay(0.1, (1.0,)), lambda: Decay(0.1, (2.0,))),
    "partial": (lambda: functools.partial(decay, rate=0.1), lambda: functools.partial(decay, rate=0.2)),
    "by path": (lambda: fl.by_path(len), lambda: fl.by_path(ord)),
    "in a tree": (lambda: {"a": halving, "b": 0.1}, lambda: {"a": 0.1, "b": halving}),
    "a number instead": (lambda: halving, lambda: 0.1),
    "instead of a number": (lambda: 0.1, lambda: halving),
}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_functions_must_be_those_that_were_saved(case):
    same, another = FUNCTIONS[case]
    opt, w = fl.SGD(lr=same()), a_tree(100)
    walk(opt, w, range(1))
    d = opt.state_dict()
    other = fl.SGD(lr=same())
    other.load_state_dict(d)
    assert same_bits(other.state_dict(), d)
    stranger = fl.SGD(lr=another())
    with pytest.raises(ValueError, match=r"lr of SGD was .* when it was saved, and is .* here. A function cannot be"):
        stranger.load_state_dict(d)
    assert stranger.t == 0


def test_a_schedule_goes_on_where_it_was():
    asked = []

    def schedule(t):
        asked.append(t)
        return 0.1

    opt = fl.SGD(lr=schedule)
    w = opt.step(opt.step(0.0, 1.0), 1.0)
    other = fl.SGD(lr=schedule)
    other.load_state_dict(opt.state_dict())
    other.step(w, 1.0)
    assert asked == [0, 1, 2]


def test_a_rule_is_known_by_what_it_computes():
    known = "4cfa77af6013cb8a0db6cea825e9b9b1"
    assert fingerprint(signed_average) == known  # for ever: files carry it
    same = fl.rule(lambda g, m=0.0, *, lr=0.5, beta=0.1: (-lr * np.sign(mean := beta * m + (1.0 - beta) * g), mean))
    assert fingerprint(same) == known
    variants = {
        "sign": lambda g, m=0, *, lr=1e-2, beta=0.9: (lr * fl.sign(beta * m + (1 - beta) * g), g),
        "start": lambda g, m=1, *, lr=1e-2, beta=0.9: (g, m),
        "constant": lambda g, m=0, *, lr=1e-2, beta=0.9: (2 * g, m),
        "other constant": lambda g, m=0, *, lr=1e-2, beta=0.9: (3 * g, m),
    }
    prints = [fingerprint(fl.rule(formula)) for formula in variants.values()]
    prints += [fingerprint(fl.before(lambda g, m=0, *, lr=1e-2, beta=0.9: (2 * g, m)))]
    assert len({known, *prints}) == len(prints) + 1


def test_the_description_of_a_function_says_what_can_be_told():
    assert described(Decay(0.5)) == "Decay(floors=(0.0), rate=0.5)"
    assert described(functools.partial(decay, rate=halving)) == "decay(rate=halving)"
    assert described(fl.by_path(functools.partial(max, 1, None))) == "by_path(max(1, None))"
