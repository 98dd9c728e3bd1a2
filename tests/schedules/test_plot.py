"""Schedules as a picture."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fallline as fl
from of_schedules import every_schedule
from support import (
    halving,
)

S = fl.schedules


@every_schedule
def test_a_plot_shows_the_values_at_every_step_there_is_to_see(schedule):
    figure = S.plot(schedule)
    (line,) = figure.data
    assert line.name == repr(schedule)
    assert list(line.y) == [schedule(t) for t in line.x]
    assert line.x[0] == 0
    steps = getattr(schedule, "steps", None)
    if steps is not None:
        assert list(line.x) == list(range(steps + 1))
    assert len(set(line.y)) > 1


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1e308), st.floats(0, 1e308), st.floats(1e-300, 1e300), st.integers(1, 2**63))
def test_anything_that_a_schedule_can_be_has_something_to_see(a, b, factor, every):
    low, high = sorted((a, b))
    first, last = (low, high) if factor > 1 else (high, low)
    for schedule in (S.exponential(first, factor, end=last, every=every), S.step(first, every, end=last, factor=factor),
                     S.cosine_restarts(a, every, growth=2), S.inverse_sqrt(a, every), S.piecewise([a], [])):
        assert schedule.warmup < schedule._extent() < 2**128


def test_several_are_drawn_together_under_the_names_they_are_given():
    a, b = S.cosine(1.0, steps=10**9, warmup=7), S.constant(0.5)
    assert [line.name for line in S.plot([a, b, halving]).data] == [repr(a), repr(b), "halving"]
    figure = S.plot({"net": {"W": a, "b": [b, 0.25]}, "a/b": halving}, steps=1e9)
    assert [line.name for line in figure.data] == ["net/W", "net/b/0", "net/b/1", "a/b"]
    assert {line.y[-1] for line in figure.data} == {0.0, 0.5, 0.25}
    assert all(1000 < len(line.x) < 3000 for line in figure.data)
    assert len({(line.line.color, line.line.dash) for line in S.plot([a] * 20).data}) == 20
    assert "plotly" in figure._repr_html_()


@pytest.mark.parametrize(("call", "message"), [
    (lambda: S.plot([]), "plot needs a schedule. Got none."),
    (lambda: S.plot(S.constant(1), steps=0), "steps of plot must be a whole number ≥ 1. Got 0."),
    (lambda: S.plot(fl.SGD()), r"plot takes a schedule.*such as opt.lr. Got SGD\(lr=0.001\)."),
    (lambda: S.plot("cosine"), "plot takes a schedule.*Got 'cosine'."),
    (lambda: S.plot(S.cosine), r"plot takes a schedule.*Got the class cosine itself: make one, cosine\(...\)"),
    (lambda: S.plot(True), "plot takes a schedule.*Got True"),
    (lambda: S.plot([math.nan]), "plot takes a schedule.*Got nan"),
    (lambda: S.plot(lambda: 1), r"plot takes functions of one argument, the number of.*Got <lambda>\(\)"),
    (lambda: S.plot(lambda t: [t]), r"plot takes functions that return numbers. Got \[0\] from <lambda> at t=0"),
    (lambda: S.plot(S.constant(1), halving), r"steps of plot must be .*Got halving: give several.*plot\(\[a, b\]\)"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_where_plotly_is_missing_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(ImportError, match=r'A plot of schedules needs plotly: pip install "fallline\[race\]"'):
        S.plot(S.constant(0.1))
