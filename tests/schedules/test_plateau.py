"""The schedule that hears values: torch's rates, in loops and by hand, in copies, states and files."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fallline as fl
from fallline.schedules import constant, join, plateau
from fallline.schedules.data import from_data, from_text, to_data
from needed import need
from support import drawn, everything_of

INF = math.inf


def rates(opt, values, step=lambda: None):
    """The rate behind each value."""
    found = []
    for value in values:
        step()
        opt.hear(value)
        found.append(opt.lr(opt.t))
    return found


@drawn(150)
@given(
    values=st.lists(st.sampled_from([3.0, 2.0, 1.9999, 1.99, 1.0, 0.5, 0.0, INF, math.nan]), max_size=40),
    factor=st.sampled_from([0.1, 0.5]),
    patience=st.integers(0, 3),
    threshold=st.sampled_from([0.0, 1e-4, 0.1]),
    cooldown=st.integers(0, 3),
    end=st.sampled_from([0.0, 1e-3]),
    climbs=st.booleans(),
)
def test_rates_are_those_of_torch(values, factor, patience, threshold, cooldown, end, climbs):
    torch = need("torch")
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        theirs, "min", factor, patience, threshold, cooldown=cooldown, min_lr=end, eps=0.0)
    schedule = plateau(0.1, factor, patience, threshold, cooldown, end=end)
    opt = fl.chain(fl.maximize, fl.SGD(schedule)) if climbs else fl.SGD(schedule)
    expected = []
    for value in values:
        scheduler.step(value)
        expected.append(theirs.param_groups[0]["lr"])
    np.testing.assert_allclose(rates(opt, [-value if climbs else value for value in values]), expected, rtol=1e-12)


def test_a_value_below_0_is_better_only_by_the_threshold():
    opt = fl.SGD(plateau(1.0, 0.5, patience=0, threshold=0.1))
    assert rates(opt, [-1.0, -1.05, -1.11, -1.2, -2.0]) == [1.0, 0.5, 0.5, 0.25, 0.25]  # torch takes -0.95 for better


def test_the_mean_of_a_window_counts_as_one_and_what_is_not_finite_is_left_out_of_it():
    opt = fl.SGD(plateau(1.0, 0.5, patience=0, window=2))
    assert rates(opt, [1.0, 3.0, 0.0, 3.0, 2.0, 1.0]) == [1.0, 1.0, 1.0, 1.0, 1.0, 0.5]
    assert rates(opt, [1.5, math.nan, math.nan, INF, 1e308, 1e308]) == [0.5, 0.25, 0.25, 0.125, 0.125, 0.0625]
    assert all(map(math.isfinite, opt.lr.heard))


def test_it_rises_first_and_stays_between_its_values():
    opt = fl.SGD(plateau(1.0, 0.1, patience=0, warmup=4, end=0.02))
    assert [opt.lr(t) for t in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates(opt, [1.0] * 5)[-1] == 0.02 * opt.t / 4
    opt.t = 9
    assert opt.lr(opt.t) == 0.02


@pytest.mark.parametrize("make", [
    lambda lr: fl.SGD(lr), lambda lr: fl.SGD({"a": lr, "b": 0.5}), lambda lr: fl.SGD(join([constant(1.0), lr], [1])),
    lambda lr: fl.partition({"a": fl.SGD(lr), "b": fl.SGD(1.0)}, {"a": "a", "b": "b"}),
    lambda lr: fl.chain(fl.clip_norm(9.0), fl.mask({"a": True, "b": True}, fl.Adam(lr))),
    lambda lr: fl.accumulate(2, fl.SGD(lr)),
])  # fmt: skip
def test_every_optimizer_hears_and_what_it_heard_goes_along_with_it(make, path):
    def walk(opt, values):
        for value in values:
            opt.step(w, {"a": np.ones(2), "b": np.ones(2)})
            opt.hear(value)

    lr = plateau(1.0, 0.5, patience=1)
    opt, w = make(lr), {"a": np.zeros(2), "b": np.zeros(2)}
    walk(opt, [2.0, 2.0])
    loaded, dicted = make(lr), make(lr)
    opt.save(path)
    loaded.load(path)
    dicted.load_state_dict(opt.state_dict())
    others = [copy.deepcopy(opt), pickle.loads(pickle.dumps(opt)), loaded, dicted]
    walk(opt, [2.0, 2.0, 2.0])
    expected = everything_of(opt)
    assert "heard=(1.0," in repr(opt) or "heard=(2.0," in repr(opt)
    for other in others:
        assert "heard=(0.0," in repr(other)  # which has not heard the last three
        walk(other, [2.0, 2.0, 2.0])
        assert everything_of(other) == expected
    for other in (opt.fresh(), make(lr)):
        assert "heard=()" in repr(other)
    opt.reset()
    assert "heard=()" in repr(opt)
    assert lr.heard == ()  # the caller's own


@pytest.mark.parametrize("loop", ["descend", "minimize"])
def test_loops_tell_it_their_values_and_go_on_from_a_file(loop, tmp_path):
    class CutError(Exception):
        pass

    def run(lr, file=None, at=None):
        calls = []

        def evaluate(w):
            calls.append(1)
            if len(calls) == at:
                raise CutError
            return float(np.abs(w).sum()), np.sign(w)

        opt = fl.SGD(lr)
        columns = {"lr": lambda point: (opt if loop == "descend" else seen[-1]).lr(point.t)}
        if loop == "descend":
            found = fl.descend(evaluate, np.ones(2), opt, steps=30, checkpoint=file, progress=False, columns=columns)
            return found.params.tolist(), found.history["lr"].tolist(), opt
        found = fl.minimize(evaluate, np.ones(2), jac=True, method=opt, options={"maxiter": 30}, checkpoint=file)
        return found.x_last.tolist(), found.history["value"].tolist(), found.optimizer

    seen = []
    lr = plateau(0.3, 0.5, patience=1)
    *expected, opt = run(lr)
    assert opt.lr.heard[0] >= 3  # reductions
    by_hand, w = fl.SGD(lr), np.ones(2)
    for _ in range(30):
        value = float(np.abs(w).sum())
        by_hand.step(w, np.sign(w))
        by_hand.hear(value)
    assert (w.tolist(), by_hand.lr) == (expected[0], opt.lr)
    for at in (1, 7, 20):
        with pytest.raises(CutError):
            run(lr, tmp_path / f"{at}", at)
        *found, again = run(lr, tmp_path / f"{at}")
        assert (found, again.lr) == (expected, opt.lr)


def test_an_optimizer_made_of_another_has_heard_nothing_and_a_schedule_given_with_what_it_heard_has():
    opt = fl.SGD(plateau(1.0, patience=0))
    opt.hear(1.0)
    for made in (fl.chain(opt), fl.accumulate(2, opt), fl.chain(fl.clip_norm(1.0), opt), opt.fresh(),
                 fl.partition({"x": opt}, lambda path: "x").parts["x"]):
        assert made.lr.heard == ()
    assert opt.lr.heard != ()
    assert fl.SGD(opt.lr).lr == opt.lr
    assert fl.SGD(opt.lr).lr is not opt.lr
    opt.hear(10**400)  # infinite
    assert opt.lr.heard[0] == 1.0


REFUSED = {
    "opt.hear(1.0)": (ValueError, "SGD has no schedule that hears values: give it one, such as"),
    "hearing.hear('low')": (TypeError, "The value that SGD hears must be a real number. Got str"),
    "hearing.hear(np.ones(2))": (TypeError, "The value that SGD hears must be a real number. Got ndarray of shape"),
    "plateau(0.1, factor=1.0)": (ValueError, "factor of plateau must be a number between 0 and 1. Got 1.0"),
    "plateau(0.1, heard=(1, 2))": (ValueError, "heard of plateau must be what a state has of it"),
    "join([plateau(0.1), abs], [5])": (TypeError, "schedules of join cannot be functions of one's own beside a"),
    "fl.SGD(fl.by_path(lambda path: plateau(0.1))).step(1.0, 1.0)": (TypeError, "by path cannot be a schedule"),
    "fl.descend(lambda w: (None, w), 1.0, hearing, steps=3)": (TypeError, "hears values, but there are none"),
    "fl.minimize(None, 1.0, jac=lambda w: w, method=hearing)": (TypeError, "give minimize a function that returns"),
}  # fmt: skip


@pytest.mark.parametrize("code", REFUSED)
def test_what_cannot_be_heard_is_refused_in_one_sentence(code):
    error, message = REFUSED[code]
    scope = {"fl": fl, "np": np, "plateau": plateau, "join": join, "opt": fl.SGD(), "hearing": fl.SGD(plateau(0.1))}
    with pytest.raises(error, match=message):
        eval(code, scope)
    assert scope["hearing"].lr.heard == ()


@drawn(100)
@given(values=st.lists(st.floats(), max_size=12), window=st.integers(1, 3), patience=st.integers(0, 2))
def test_whatever_it_heard_is_in_its_text_and_its_data(values, window, patience):
    opt = fl.SGD(plateau(0.1, window=window, patience=patience))
    rates(opt, values)
    assert from_text(repr(opt.lr)) == opt.lr
    assert from_data(to_data(opt.lr)) == opt.lr
