"""Schedules in state dictionaries and files: they come back by themselves, or are refused."""

from __future__ import annotations

import copy
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fallline as fl
from fallline._state.file import read as read_file
from fallline._state.file import write as write_file
from fallline.schedules.data import from_data, from_text, to_data
from of_schedules import EXAMPLES, every_schedule
from places import DATA
from support import (
    a_tree,
    every_engine,
    everything_of,
    halving,
    same_bits,
)

S = fl.schedules


def walked(opt, w, steps=4):
    for t in range(steps):
        opt.step(w, a_tree(t))
    return w


@every_schedule
@every_engine
def test_a_file_is_enough_to_go_on_to_the_bit(schedule, engine, path):
    lr = {"a": schedule, "b": S.join([S.constant(0.1), S.join([schedule, schedule], [2])], [1])}
    opt = fl.Adam(lr=lr, beta1=S.linear(0.5, steps=10, end=0.9), engine=engine)
    w = walked(opt, a_tree(9))
    opt.save(path, w)
    again, v = fl.load(path)
    assert again.lr == lr
    assert repr(again) == repr(opt)
    assert everything_of(again) == everything_of(opt)
    before = path.read_bytes()
    again.save(path, v)
    assert path.read_bytes() == before
    other = opt.fresh()
    u = other.load(path)
    for each, x in ((opt, w), (again, v), (other, u)):
        walked(each, x)
        assert same_bits(x, w)


RESTORED = {
    "another parameter": (S.constant(0.1), S.constant(0.2)),
    "another schedule": (S.piecewise([0.1, 1e-300], [3]), S.linear(0.1, 10)),
    "in place of a number": (S.constant(0.1), 0.1),
    "a number": (0.1, S.constant(0.1)),
    "deep in a join": (S.join([S.constant(0.1), S.join([S.step(1, 2), S.constant(1)], [3])], [5]),
                       S.join([S.constant(0.1), S.step(1, 3)], [5])),
    "at a leaf": ({"a": 0.1, "b": S.step(1, 2)}, {"a": S.constant(0.1), "b": S.step(1, 3)}),
    "at each leaf": ({"a": S.constant(0.1), "b": S.step(1, 2)}, S.constant(0.1)),
    "beside a function": ({"a": halving, "b": S.step(1, 2)}, {"a": halving, "b": 0.1}),
}  # fmt: skip


@pytest.mark.parametrize("case", RESTORED)
def test_schedules_are_restored_like_numbers_whatever_was_here(case, path):
    saved, here = RESTORED[case]
    opt, w = fl.SGD(lr=saved), a_tree(0)
    walked(opt, w)
    opt.save(path)
    for load in (lambda other: other.load(path), lambda other: other.load_state_dict(opt.state_dict())):
        other, v = fl.SGD(lr=here), copy.deepcopy(w)
        load(other)
        assert other.lr == saved
        assert repr(other) == repr(opt)
        assert same_bits(walked(other, v), walked(copy.deepcopy(opt), copy.deepcopy(w)))


@every_schedule
def test_a_state_dictionary_has_a_schedule_in_words_that_say_it_whole(schedule):
    for lr in (schedule, S.join([schedule, S.join([S.constant(0.1), schedule], [2])], [7])):
        words = fl.SGD(lr=lr).state_dict()["hyper"]["sgd.lr"]
        assert (type(words), from_text(words)) == (str, lr)
        other = fl.SGD()
        other.load_state_dict(fl.SGD(lr=lr).state_dict())
        assert other.lr == lr


@pytest.mark.parametrize("text", [
    "constant", "constant(", "constant()", "constant(0.1)", "constant(value=0.1)", "constant(value=0.1, warmup=0) ",
    "constant(value=True, warmup=0)", "constant(value=-0.1, warmup=-1)", "constant(value=halving, warmup=0)",
    "constant(**{})", "constant(value=1/0, warmup=0)", "Schedule()", "join(schedules=(), boundaries=())",
    "join(schedules=(constant(value=0.1, warmup=0), f), boundaries=(1,))", "constant(value=__import__('os'), warmup=0)",
    "constant" + "(" * 5000, "constant(value=" + "-" * 5000 + "1, warmup=0)",
])  # fmt: skip
def test_words_that_say_no_schedule_whole_are_the_name_of_a_function(text):
    assert from_text(text) is None
    d = fl.SGD().state_dict()
    with pytest.raises(ValueError, match="A function cannot be saved"):
        fl.SGD().load_state_dict({**d, "hyper": {"sgd.lr": text}})


OTHERS = {
    "a function": (S.constant(0.1), halving, r"constant\(.*\)", "'halving'"),
    "instead of a function": (halving, S.constant(0.1), "halving", r"constant\(.*\)"),
    "in a join": (S.join([S.constant(0.1), halving], [5]), S.join([S.constant(0.1), S.step(1, 3)], [5]),
                  r"join\(.*halving.*\)", r"join\(.*every=3.*\)"),
    "at a leaf": ({"a": S.constant(0.1), "b": S.step(1, 2)}, {"a": S.constant(0.1), "b": halving},
                  r"step\(.*every=2.*\)'? at 'b'", "'halving'"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_another_function_than_the_saved_one_is_refused_with_both_named(case, path):
    saved, here, theirs, ours = OTHERS[case]
    opt, other = fl.SGD(lr=saved), fl.SGD(lr=here)
    walked(opt, a_tree(0))
    opt.save(path)
    for load in (lambda: other.load(path), lambda: other.load_state_dict(opt.state_dict())):
        with pytest.raises(ValueError, match=rf"lr of SGD was '?{theirs}'?.* when it was saved, and is {ours} here\. .*"
                                             "A function cannot be saved: give SGD the lr that it had, load, and "
                                             "assign another afterwards"):
            load()
    assert (other.t, other.lr) == (0, here)


def test_a_schedule_that_is_restored_is_not_given_again(path):
    fl.SGD(lr=S.constant(0.1)).save(path)
    with pytest.raises(fl.CheckpointError, match=r"lr of SGD was constant\(value=0.1, warmup=0\) .* It is restored"):
        fl.load(path, lr=S.constant(0.1))


@pytest.mark.parametrize("lr", [S.join([S.constant(0.1), halving], [2]), {"a": S.constant(0.1), "b": halving}],
                         ids=["in a join", "in a tree"])  # fmt: skip
def test_functions_of_ones_own_among_them_are_given_again(lr, path):
    opt = fl.SGD(lr=lr)
    w = walked(opt, a_tree(0))
    opt.save(path, w)
    with pytest.raises(fl.CheckpointError, match=r"lr of SGD was .*halving.*Functions cannot be saved: give it again"):
        fl.load(path)
    again, v = fl.load(path, lr=lr)
    assert same_bits(walked(again, v), walked(opt, w))


def test_a_class_of_the_same_name_is_not_taken_for_fallline_s_own(path):
    class constant(S.constant):  # noqa: N801
        pass

    for qualname in (constant.__qualname__, "constant"):  # as it is here, or in a module
        constant.__qualname__ = qualname
        fl.SGD(lr=constant(0.1)).save(path)
        with pytest.raises(fl.CheckpointError, match="Functions cannot be saved"):
            fl.load(path)
        assert type(fl.load(path, lr=constant(0.1)).lr) is constant


def altered(path, change):
    """The file with its record of lr changed, and a digest that fits."""
    info, arrays = read_file(path)
    info["hyper"]["sgd.lr"] = change(info["hyper"]["sgd.lr"])
    write_file(path, info, arrays)


MALFORMED = {
    "an unknown name": ({"schedule": "cosines"}, "'cosines' is no schedule of fallline"),
    "a name from elsewhere": ({"schedule": "plot"}, "'plot' is no schedule"),
    "no name": ({"value": 0.1}, "is no schedule of fallline"),
    "a list as name": ({"schedule": ["constant"]}, "is no schedule of fallline"),
    "nothing but a name": ({"schedule": "constant"}, "constant has the parameters value, warmup. Got"),
    "a parameter too many": ({"schedule": "constant", "value": 1.0, "warmup": 0, "more": 1}, "has the parameters"),
    "a parameter that is null": ({"schedule": "inverse_sqrt", "peak": 1.0, "warmup": 0, "timescale": None},
                                 "has the parameters"),
    "a value out of range": ({"schedule": "constant", "value": 0.1, "warmup": -1}, "warmup of constant must be .*-1"),
    "text for a number": ({"schedule": "constant", "value": "0.1", "warmup": 0}, "value of constant must be a finite"),
    "a number where schedules go": ({"schedule": "join", "schedules": [0.1], "boundaries": []}, r"schedules\[0\] of"),
    "a bad one within a join": ({"schedule": "join", "schedules": [{"schedule": "join"}], "boundaries": []},
                                "join has the parameters"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_a_record_that_makes_no_sense_is_refused(case, path):
    data, message = MALFORMED[case]
    fl.SGD(lr=S.constant(0.1)).save(path)
    altered(path, lambda _: data)
    for load in (fl.load, fl.SGD(lr=S.constant(0.1)).load):
        with pytest.raises(fl.CheckpointError, match=message):
            load(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(S.__all__),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=8)
mutations = st.lists(st.tuples(st.integers(0, 30), json_values | st.sampled_from(
    [to_data(schedule) for schedule in EXAMPLES.values()])), min_size=1, max_size=4)  # fmt: skip


def mutated(data, place, value):
    """The data with the node of that number, in the order of reading, replaced."""
    count = iter(range(10_000))

    def walk(node):
        if next(count) == place:
            return value
        if isinstance(node, dict):
            return {key: walk(item) for key, item in node.items()}
        return list(map(walk, node)) if isinstance(node, list) else node

    return walk(data)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(EXAMPLES.values())), mutations)
def test_any_record_is_a_schedule_that_can_be_called_or_is_refused(schedule, changes):
    data = to_data(schedule)
    for place, value in changes:
        data = mutated(data, place, value)
    try:
        found = from_data(data)
    except (TypeError, ValueError):
        return
    assert from_data(to_data(found)) == found
    for t in (0, 1, 100, 2**63):
        assert math.isfinite(found(t))


@pytest.mark.parametrize("file", sorted(DATA.glob("schedules-*.safetensors")), ids=lambda file: file.stem)
def test_files_of_every_format_are_read_for_ever(file):
    opt, w = fl.load(file)
    known = json.loads(file.with_suffix(".json").read_text())
    assert (opt.t, repr(opt)) == (3, known["repr"])
    w = opt.step(w, dict.fromkeys(w, 1.0))
    assert {name: x.hex() for name, x in w.items()} == known["next step"]
