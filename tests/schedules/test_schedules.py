"""Schedules: values against torch's, optax's and the papers', what they are, in an optimizer and in its files."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fallline as fl
from fallline.schedules.data import from_data, to_data
from needed import need
from of_schedules import EXAMPLES, SHAPES, N, drawn_schedules, every_schedule, levels, values
from support import (
    halving,
    run_alone,
)

S = fl.schedules


def test_every_schedule_has_an_example():
    assert {type(schedule) for schedule in EXAMPLES.values()} == set(SHAPES)


@every_schedule
def test_warmup_rises_in_a_straight_line_from_0_to_exactly_the_value_that_is_due(schedule):
    warmup = schedule.warmup
    due = schedule(warmup)
    if warmup:
        assert schedule(0) == 0.0
        np.testing.assert_allclose(values(schedule, warmup), due * np.arange(warmup + 1) / warmup, rtol=1e-15)
        assert values(schedule, warmup).max() == due
    first = next((getattr(schedule, name) for name in ("start", "peak", "value") if hasattr(schedule, name)), due)
    assert due == first


@every_schedule
def test_what_has_an_end_is_exactly_there_at_its_last_step_and_stays(schedule):
    steps, end = getattr(schedule, "steps", None), getattr(schedule, "end", None)
    far = [2**24, 2**31 - 1, 2**53 + 1, 2**63 - 1, 2**63]
    if steps is not None:
        assert schedule(steps - 1) > end
        assert {schedule(t) for t in (steps, steps + 1, *far)} == {end}
    for t in far:
        assert type(schedule(t)) is float
        assert 0 <= schedule(t) <= (1 if type(schedule) is S.mean_since else 0.3)  # that is a weight
        assert schedule(np.array(t, np.uint64)) == schedule(t)


@every_schedule
def test_there_is_no_jump_but_where_one_is_meant(schedule):
    meant = {S.piecewise: {60, 180}, S.cosine_restarts: {41, 101, 221}, S.step: {53, 93},
             S.mean_since: {31, 32, 33, 34, 35, 36}}
    jumps = {t for t in range(1, N) if abs(schedule(t) - schedule(t - 1)) > 0.02}
    assert jumps == meant.get(type(schedule), set())


@every_schedule
def test_it_prints_as_what_makes_it_and_compares_by_value(schedule):
    again = eval(repr(schedule), vars(S))
    for other in (again, copy.copy(schedule), copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert other == schedule
        assert hash(other) == hash(schedule)
        assert repr(other) == repr(schedule)
        assert type(other) is type(schedule)
        assert values(other).tobytes() == values(schedule).tobytes()
    assert all(schedule != other for other in EXAMPLES.values() if other is not schedule)
    with pytest.raises(AttributeError, match="cannot assign to field"):
        schedule.warmup = 3


def test_numbers_of_any_kind_are_taken_and_kept_as_pythons():
    schedule = S.cosine(np.float32(0.5), np.int64(100), warmup=1e1, end=np.array(0))
    assert repr(schedule) == "cosine(peak=0.5, steps=100, warmup=10, end=0.0)"
    assert schedule(np.int8(5)) == schedule(np.array(5)) == schedule(5) == 0.25
    assert S.piecewise(np.array([0.5, 0.25]), range(3, 4)) == S.piecewise([0.5, 0.25], (3,))
    assert schedule(need("torch").tensor(5)) == 0.25


REFUSED = {
    "S.cosine('fast', 10)": "peak of cosine must be a finite number. Got 'fast'.",
    "S.cosine(True, 10)": "peak of cosine must be a finite number. Got True.",
    "S.cosine(math.inf, 10)": "peak of cosine must be a finite number. Got inf.",
    "S.cosine(10**400, 10)": "peak of cosine must be a finite number. Got int.",
    "S.cosine(np.ones(2), 10)": "peak of cosine must be a finite number. Got array([1., 1.]).",
    "S.cosine(0.1, 0)": "steps of cosine must be a whole number ≥ 1. Got 0.",
    "S.cosine(0.1, 1.5)": "steps of cosine must be a whole number ≥ 1. Got 1.5.",
    "S.cosine(0.1, True)": "steps of cosine must be a whole number ≥ 1. Got True.",
    "S.cosine(0.1, None)": "steps of cosine must be a whole number ≥ 1. Got None.",
    "S.cosine(0.1, 10, warmup=-1)": "warmup of cosine must be a whole number ≥ 0. Got -1.",
    "S.cosine(0.1, 10, warmup=10)": "steps of cosine must be more than warmup, 10, which it includes. Got 10.",
    "S.polynomial(0.1, 10, power=0)": "power of polynomial must be a finite number > 0. Got 0.",
    "S.exponential(-0.1, 0.5)": "peak of exponential must be a finite number ≥ 0. Got -0.1.",
    "S.exponential(0.1, 0.5, end=0.2)":
        "end of exponential must be at most peak, 0.1, as factor is not over 1. Got 0.2.",
    "S.exponential(0.1, 2)":
        "end of exponential must be given, and at least peak, 0.1, as factor is over 1. Got 0.0.",
    "S.step(0.1, 30, 0.1)": "warmup of step must be a whole number ≥ 0. Got 0.1.",
    "S.one_cycle(0.1, 10, rise=11)": "rise of one_cycle must be at most 10, the steps after warmup. Got 11.",
    "S.one_cycle(0.1, 5, 8)": "steps of one_cycle must be more than warmup, 8, which it includes. Got 5.",
    "S.warmup_stable_decay(0.1, 10, 5, decay=6)":
        "decay of warmup_stable_decay must be at most 5, the steps after warmup. Got 6.",
    "S.piecewise(0.1, [3])": "values of piecewise must be a list or tuple. Got 0.1.",
    "S.piecewise([1, 'x'], [3])": "values[1] of piecewise must be a finite number. Got 'x'.",
    "S.piecewise([1, 2], [0])": "boundaries[0] of piecewise must be a whole number ≥ 1. Got 0.",
    "S.piecewise([1, 2], [3], warmup=3)": "boundaries[0] of piecewise must be more than warmup, 3. Got 3.",
    "S.piecewise([1, 2, 3], [3, 3])": "boundaries of piecewise must be rising. Got (3, 3).",
    "S.join([S.constant(1)], [3])":
        "schedules of join must be one more than boundaries. Got 1 schedules and 1 boundaries.",
    "S.join([0.1, S.constant(1)], [3])":
        "schedules[0] of join must be a schedule (for a number write constant(number)) or a function of the number of "
        "completed steps. Got 0.1.",
    "S.join([S.cosine], [])":
        "schedules[0] of join must be a schedule (for a number write constant(number)) or a function of the number of "
        "completed steps. Got the class cosine itself: make one, cosine(...).",
    "S.join([fl.SGD()], [])":
        "schedules[0] of join must be a schedule (for a number write constant(number)) or a function of the number of "
        "completed steps. Got SGD(lr=0.001).",
    "S.join([lambda: 1], [])":
        "schedules[0] of join, a schedule, must be a function of one argument, the number of completed steps. "
        "Got <lambda>().",
    "S.cosine(0.1, step=100)": "cosine has no parameter 'step'. Known: peak, steps, warmup, end. Did you mean steps?",
    "S.cosine()": "cosine needs peak and steps. Its parameters: peak, steps, warmup=0, end=0.0.",
    "S.cosine(steps=100)": "cosine needs peak. Its parameters: peak, steps, warmup=0, end=0.0.",
    "S.cosine(0.1, 100, peak=0.1)": "peak of cosine was given twice, by position and by name.",
    "S.cosine(0.1, 100, 0, 0.0, 2)":
        "cosine takes at most 4 parameters by position (peak, steps, warmup, end). Got 5.",
    "S.polynomial(0.1, 100, 0, 0.0, 2)":
        "polynomial takes at most 4 parameters by position (peak, steps, warmup, end), power by name. Got 5.",
    "S.warmup_stable_decay(0.1, 100)":
        "warmup_stable_decay needs decay. Its parameters: peak, steps, warmup=0, end=0.0, decay.",
    "S.join([S.constant(1)])": "join needs boundaries. Its parameters: schedules, boundaries.",
    "S.Schedule()": "Schedule is what all schedules are: make one by name, such as cosine(1e-3, steps=100).",
    "S.piecewise([1, 2], {3: 0.1})": "boundaries of piecewise must be a list or tuple. Got {3: 0.1}.",
    "S.inverse_sqrt(None)": "peak of inverse_sqrt must be a finite number. Got None.",
    "S.one_cycle(None, 10)": "peak of one_cycle must be a finite number. Got None.",
    "S.constant(1)(np.int64(-1))": "t of constant must be a whole number ≥ 0, that of the completed steps. Got -1.",
    "S.constant(1)(-1)": "t of constant must be a whole number ≥ 0, that of the completed steps. Got -1.",
    "S.constant(1)(0.5)": "t of constant must be a whole number ≥ 0, that of the completed steps. Got 0.5.",
    "S.constant(1)(np.arange(2))":
        "t of constant must be a whole number ≥ 0, that of the completed steps. Got array([0, 1]): for several write "
        "[schedule(t) for t in ...].",
}  # fmt: skip


@pytest.mark.parametrize("call", REFUSED)
def test_what_a_schedule_cannot_be_is_refused_in_a_sentence(call):
    with pytest.raises((TypeError, ValueError)) as caught:
        eval(call)
    assert str(caught.value) == REFUSED[call]


@pytest.mark.parametrize("make", SHAPES, ids=[make.__name__ for make in SHAPES])
def test_the_parameters_of_each_are_known_to_inspect_and_all_lacking_ones_are_named(make):
    parameters = inspect.signature(make).parameters
    assert list(parameters) == list(inspect.signature(make.__init__).parameters)[1:]
    needed = [p.name for p in parameters.values() if p.default is p.empty]
    with pytest.raises(TypeError) as caught:
        make()
    assert str(caught.value).startswith(f"{make.__name__} needs {' and '.join(needed)}. Its parameters: {needed[0]}")
    with pytest.raises(TypeError, match=f"{make.__name__} has no parameter 'rate'. Known: {', '.join(parameters)}"):
        make(rate=0.1)


def test_an_unknown_schedule_is_refused_with_the_known_ones():
    with pytest.raises(AttributeError, match=r"fallline.schedules has no 'cosine_decay'. Known: .*cosine, cosine_rest"):
        S.cosine_decay  # noqa: B018


@pytest.mark.parametrize("item", [S.cosine(0.1, steps=10), S.cosine], ids=["a schedule", "its class"])
def test_a_schedule_as_a_link_of_a_chain_is_told_where_it_goes(item):
    for links in ((fl.Adam(), item), (item, fl.Adam())):
        with pytest.raises(fl.FormulaError, match=r"A schedule is a setting of a rule: fallline.Adam\(lr=cosine\("):
            fl.chain(*links)


SHORTEST = {
    "constant": lambda: S.constant(0.1, warmup=1),
    "piecewise": lambda: S.piecewise([0.3, 0.1], [2], warmup=1),
    "linear": lambda: S.linear(0.1, steps=1, end=0.2),
    "polynomial": lambda: S.polynomial(0.1, steps=2, warmup=1, power=0.5),
    "cosine": lambda: S.cosine(0.1, steps=1, end=0.2),
    "cosine_restarts": lambda: S.cosine_restarts(0.1, period=1, growth=2, warmup=1, end=0.2),
    "exponential": lambda: S.exponential(0.1, factor=3, end=0.2),
    "step": lambda: S.step(0.1, every=1, factor=3, end=0.2),
    "inverse_sqrt": lambda: S.inverse_sqrt(0.1, warmup=1),
    "one_cycle": lambda: S.one_cycle(0.1, steps=2, warmup=1, rise=1),
    "warmup_stable_decay": lambda: S.warmup_stable_decay(0.1, steps=2, warmup=1, decay=1),
    "join": lambda: S.join([S.linear(0.1, steps=1), S.cosine(0.2, steps=1)], [1]),
}


@pytest.mark.parametrize("name", SHORTEST)
def test_the_shortest_of_each_has_finite_values_the_same_for_all_kinds_of_whole_numbers(name):
    schedule = SHORTEST[name]()
    assert type(schedule).__name__ == name
    for t in (0, 1, 2, 3, 100, 2**62, 2**63 - 1):
        value = schedule(t)
        assert type(value) is float
        assert math.isfinite(value)
        assert value == schedule(np.int64(t)) == schedule(np.uint64(t)) == schedule(np.array(t))
    assert from_data(to_data(schedule)) == eval(repr(schedule), vars(S)) == schedule


def test_a_function_of_ones_own_is_shown_by_its_name_and_long_lists_in_full():
    long = S.piecewise(range(31), range(1, 31))
    assert eval(repr(long), vars(S)) == long
    assert repr(S.join([lambda t: 0.1, halving], [3])) == "join(schedules=(<lambda>, halving), boundaries=(3,))"


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(drawn_schedules(longest=2**64), st.integers(0, 2**63))
def test_values_lie_between_those_that_were_given_at_any_step(drawn, t):
    (a, b, c), schedules = drawn
    for schedule in schedules:
        low = 0 if t < schedule.warmup or type(schedule) is S.inverse_sqrt else a
        assert low <= schedule(t) <= c
        if t >= schedule.warmup and not isinstance(schedule, (S.inverse_sqrt, S.piecewise, S.one_cycle)):
            assert b <= schedule(t)


@settings(max_examples=50, deadline=None)
@given(levels, levels, st.integers(0, 1000), st.integers(1, 10**6))
def test_warmup_ends_at_the_peak_and_the_descent_at_the_end_exactly(peak, end, warmup, length):
    for make in (S.linear, S.cosine, S.polynomial, functools.partial(S.warmup_stable_decay, decay=length)):
        schedule = make(peak, steps=warmup + length, warmup=warmup, end=end)
        assert (schedule(warmup), schedule(warmup + length)) == (peak, end)
        assert warmup == 0 or schedule(0) == 0.0
        level = make(peak, steps=warmup + length, warmup=warmup, end=peak)  # which not even a last bit may leave
        assert {level(warmup + s) for s in range(1, 20)} == {peak}
    rising = S.one_cycle(peak, warmup + length, warmup, end, rise=length)
    assert (rising(warmup), rising(warmup + length)) == (peak / 25, end)
    assert S.cosine_restarts(peak, length, warmup, end)(warmup + 7 * length) == peak
    assert S.inverse_sqrt(peak, warmup)(warmup) == peak


def test_an_import_of_fallline_waits_for_no_schedules_and_shows_that_they_are_there():
    script = ("import sys, fallline as fl; fl.SGD().load_state_dict(fl.SGD(0.1).state_dict()); "
              "print(any('schedules' in m for m in sys.modules), 'schedules' in dir(fl), fl.schedules.constant(1)(0))")
    assert run_alone(script) == "False True 1.0\n"
