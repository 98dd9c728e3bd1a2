"""Settings as `repr` shows them: in one line, functions by name, and nothing that grows with the arrays."""

from __future__ import annotations

import functools
from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import fallline as fl
from fallline._messages.values import brief, shown
from needed import need
from support import halving

Pair = namedtuple("Pair", "W b")


class Unprintable(np.ndarray):
    def __repr__(self):
        raise AssertionError("it was printed")


class Rate:
    def at(self, t):
        return 0.5

    def __call__(self, t):
        return 0.5


def inner():
    def nested(t):
        return 0.5
    return nested


LARGE = np.ones((1000, 1000)).view(Unprintable)
SHOWN = [
    (0.1, "0.1"),
    ("two  spaces at 0x12", "'two  spaces at 0x12'"),
    (lambda t: 0.1, "<lambda>"),
    (halving, "halving"),
    (inner(), "nested"),
    (abs, "abs"),
    (Rate().at, "Rate.at"),
    (Rate(), f"<{__name__}.Rate object>"),
    (functools.partial(halving, t=3), "halving(t=3)"),
    (functools.partial(max, 2, lambda t: 0), "max(2, <lambda>)"),
    (fl.by_path(lambda path: 0.1), "by_path(<lambda>)"),
    (fl.by_path(inner()), "by_path(nested)"),
    (np.array([0.5, 0.25]), "array([0.5 , 0.25])"),
    (np.ones((2, 2)), "array([[1., 1.], [1., 1.]])"),
    (LARGE, "<Unprintable of shape (1000, 1000)>"),
    ({"W": LARGE, "b": (0.1,), "c": [abs, (1, 2)]},
     "{'W': <Unprintable of shape (1000, 1000)>, 'b': (0.1,), 'c': [abs, (1, 2)]}"),
    (OrderedDict(a=abs), "{'a': abs}"),
    (Pair(0.1, abs), "Pair(W=0.1, b=abs)"),
    ([], "[]"),
    ((), "()"),
    (10**5000, "<int>"),
    (list(range(12)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]"),
    ([1] * 14, "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, ... 2 more]"),
]


@pytest.mark.parametrize(("value", "text"), SHOWN, ids=[text[:30] for _, text in SHOWN])
def test_a_value_is_shown_in_one_line_without_addresses(value, text):
    assert shown(value) == text
    assert brief(value) == (text if len(text) <= 60 else type(value).__name__)


def test_arrays_of_other_libraries_are_shown_by_their_shape_too():
    assert shown(need("torch").ones(3, 4)) == "<Tensor of shape (3, 4)>"
    assert shown(need("jax").numpy.ones((3, 4))) == "<ArrayImpl of shape (3, 4)>"


def test_no_more_of_a_long_list_is_looked_at_than_is_shown():
    class Item:
        def __repr__(self):
            asked.append(self)
            return "item"

    asked = []
    assert shown([Item()] * 100_000).endswith("item, ... 99988 more]")
    assert len(asked) == 12


def test_an_optimizer_with_large_settings_has_a_short_repr():
    lr = {"W": LARGE, "b": lambda t: 0.1}
    text = "lr={'W': <Unprintable of shape (1000, 1000)>, 'b': <lambda>}"
    assert repr(fl.SGD(lr)) == f"SGD({text})"
    assert repr(fl.SGD(lr).hyper) == text.replace("lr=", "{'lr': ") + "}"
    assert repr(fl.rules.sgd(lr=lr)) == f"sgd({text})"
    chained = fl.chain(fl.clip_value(halving), fl.SGD(dict.fromkeys(map(str, range(1000)), 0.1)))
    assert repr(chained).startswith("chain(clip_value(limit=halving), SGD(lr={'0': 0.1, '1': 0.1, ")
    assert repr(chained).endswith("'11': 0.1, ... 988 more}))")
    assert repr(fl.mask(lambda path: True, fl.SGD(halving))) == "mask(<lambda>, SGD(lr=halving))"
    label = functools.partial(max, default="a")
    assert repr(fl.partition({"a": fl.SGD()}, label)) == "partition({'a': SGD(lr=0.001)}, max(default='a'))"
    assert repr(fl.partition({"a": fl.SGD()}, ["a"] * 1000)).endswith("'a', ... 988 more])")


@pytest.mark.parametrize("call", [
    lambda: fl.descend(lambda w: (0.0, w), LARGE, LARGE, steps=3),
    lambda: fl.descend(lambda w: (0.0, w), LARGE, fl.SGD(), steps=LARGE),
    lambda: fl.minimize(lambda x: x @ x, [1.0], method=LARGE),
    lambda: fl.minimize(lambda x: x @ x, [1.0], bounds=LARGE),
    lambda: fl.SGD().step(10**5000, 1.0),
    lambda: fl.chain(fl.SGD(), LARGE),
    lambda: fl.chain(fl.SGD(), [LARGE] * 100_000),
    lambda: fl.by_path(LARGE),
    lambda: fl.SGD({"W": [0.1] * 1000, "b": 1.0}).step({"W": 1.0, "b": 1.0}, {"W": 1.0, "b": 1.0}),
])  # fmt: skip
def test_no_message_shows_all_of_what_is_large(call):
    with pytest.raises((TypeError, ValueError), match="Got ") as caught:
        call()
    assert len(str(caught.value)) < 300


def test_the_view_of_the_hyper_parameters_shows_all_of_them():
    adan = fl.chain(fl.clip_norm(1.0), fl.Muon(), fl.weight_decay(0.1), fl.average(0.9))
    assert eval(repr(adan.hyper)) == dict(adan.hyper)


def test_a_count_is_a_whole_number_wherever_it_is_shown(tmp_path):
    opt = fl.accumulate(1_234_567, fl.SGD(0.5))
    assert repr(opt) == "accumulate(1234567, SGD(lr=0.5))"
    for n in (opt.n, opt.hyper["n"], opt.hyper["accumulate.n"], dict(opt.hyper)["n"]):
        assert type(n) is int
        assert n == 1_234_567
    opt.n = np.float32(4)
    assert repr(opt.hyper) == "{'n': 4, 'weight': 1.0, 'lr': 0.5}"
    parts = fl.partition({"a": opt, "b": fl.SGD()}, lambda path: "a")
    assert (type(parts.n), repr(parts.hyper["a.n"])) == (int, "4")
    for t in range(6):
        opt.step(np.ones(2), np.full(2, float(t)))
    opt.save(tmp_path / "run")
    again = fl.load(tmp_path / "run")
    other = fl.accumulate(4, fl.SGD(0.5))
    other.load_state_dict(opt.state_dict())
    for each in (again, other):
        assert (each.n, type(each.n), each.t, each.calls) == (4, int, 1, 6)
