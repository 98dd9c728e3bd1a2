"""A call that raises has changed nothing, whatever was called before it, on the long way and on the short one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fallline as fl
from support import a_tree, every_engine, every_optimiser, frozen, memory_of, picture, same_bits
from test_refusals import BAD_GRADIENT_SHAPES, BAD_GRADIENTS, BAD_PARAMETERS, OTHER_PARAMETERS


class StopError(Exception):
    """What a schedule of the test raises."""


class Watched:
    """An optimizer that is also asked for what it must refuse, and its twin, which is not."""

    def __init__(self, name, engine, schedule):
        self.broken = False
        settings = {"lr": self.rate} if schedule and "lr" in fl.OPTIMIZERS[name]().hyper else {}
        self.opt = fl.OPTIMIZERS[name](engine=engine, **settings)
        self.twin = fl.OPTIMIZERS[name](engine=engine, **({"lr": self.twins_rate} if settings else {}))
        self.w, self.v = a_tree(0), a_tree(0)

    def rate(self, t):
        if self.broken == "raises":
            raise StopError
        return {"negative": -1.0, "NaN": np.nan, "text": "fast"}.get(self.broken, self.twins_rate(t))

    @staticmethod
    def twins_rate(t):
        return 0.1 / (1 + t)

    # good calls, which both get

    def step(self, seed):
        assert self.opt.step(self.w, a_tree(seed)) is self.w
        self.twin.step(self.v, a_tree(seed))

    def update(self, seed):
        ours, theirs = self.opt.update(a_tree(seed)), self.twin.update(a_tree(seed))
        assert same_bits(ours, theirs)

    def update_in_place(self, seed):
        ours, theirs = a_tree(seed), a_tree(seed)
        self.opt.update(ours, out=ours)
        self.twin.update(theirs, out=theirs)
        assert same_bits(ours, theirs)

    def step_without_one(self, seed):
        self.opt.step(self.w, a_tree(seed) | {"b": None})
        self.twin.step(self.v, a_tree(seed) | {"b": None})

    def move(self, seed):
        self.w, self.v = copy.deepcopy(self.w), copy.deepcopy(self.v)

    # calls that must be refused, which the twin does not get

    def refused(self, call, *brought):
        before, own = picture(self.opt, self.w), frozen(brought)
        with pytest.raises((TypeError, ValueError, StopError)):
            call()
        assert picture(self.opt, self.w) == before
        assert frozen(brought) == own

    def bad_parameters(self, seed):
        spoil = _pick(BAD_PARAMETERS, seed)[0]
        bad, g = spoil(copy.deepcopy(self.w)), a_tree(seed)
        self.refused(lambda: self.opt.step(bad, g), bad, g)

    def other_parameters(self, seed):
        if self.opt.t:
            bad, g = _pick(OTHER_PARAMETERS, seed)[0](copy.deepcopy(self.w)), a_tree(seed)
            self.refused(lambda: self.opt.step(bad, g), bad, g)

    def bad_gradients(self, seed):
        g = _pick({**BAD_GRADIENTS, **BAD_GRADIENT_SHAPES}, seed)[0](a_tree(seed))
        self.refused(lambda: self.opt.step(self.w, g), g)
        if self.opt.t:
            self.refused(lambda: self.opt.update(g), g)

    def bad_out(self, seed):
        if self.opt.t:
            good, shut = a_tree(seed), a_tree(seed + 1)
            shut["b"].flags.writeable = False
            wide = np.ones(7)
            for out in (shut, {"a": good["a"]}, {"a": wide[:4], "b": wide[1:].reshape(2, 3)},
                        a_tree(seed, np.float32)):  # fmt: skip
                self.refused(lambda out=out: self.opt.update(good, out=out), good, out)

    def bad_settings(self, seed):
        name = _pick(dict.fromkeys(self.opt.hyper), seed, key=True)
        for value in (-1.0, np.nan, "0.1", None, [1.0, 2.0, 3.0], np.ones(3), {"a": -1.0, "b": 1.0}):
            if self.opt.t or not isinstance(value, (list, np.ndarray)):  # what fits is known from the first step on
                held = self.opt.hyper[name]
                self.refused(lambda value=value: self.opt.hyper.__setitem__(name, value))
                assert self.opt.hyper[name] == held
        for t in (-1, 0.5, 2**63, "7", None):
            self.refused(lambda t=t: setattr(self.opt, "t", t))

    def bad_schedule(self, seed):
        if callable(self.opt.hyper.get("lr")):
            self.broken = ["raises", "negative", "NaN", "text"][seed % 4]
            g = a_tree(seed)
            self.refused(lambda: self.opt.step(self.w, g), g)
            if self.opt.t:
                self.refused(lambda: self.opt.update(g), g)
            self.broken = False

    def bad_state(self, seed):
        d = self.opt.state_dict()
        changes = [{"t": -1}, {"t": "7"}, {"format": 999}, {"rules": ["another"]}, {"state": None}, {"leaves": 7}]
        if d["state"] and self.opt.t:
            slot = next(iter(d["state"]))
            for path in ("a", "b"):
                array = d["state"][slot][path]
                changes += [{"state": {**d["state"], slot: {**d["state"][slot], path: wrong}}}
                            for wrong in (array[:1], array.astype(np.float32), None)]
        for change in changes:
            bad = {**d, **change}
            self.refused(lambda bad=bad: self.opt.load_state_dict(bad))


def _pick(table, seed, key=False):
    names = list(table)
    name = names[seed % len(names)]
    return name if key else table[name]


GOOD = ["step", "update", "update_in_place", "step_without_one", "move"]
BAD = ["bad_parameters", "other_parameters", "bad_gradients", "bad_out", "bad_settings", "bad_schedule", "bad_state"]


@every_optimiser
@every_engine
@pytest.mark.parametrize("schedule", [False, True], ids=["numbers", "schedule"])
def test_after_any_sequence_of_good_and_bad_calls_only_the_good_have_happened(name, engine, schedule):
    action = st.tuples(st.one_of(st.just("step"), st.sampled_from(GOOD), st.sampled_from(BAD)), st.integers(0, 2**16))

    @settings(max_examples=12, deadline=None)
    @given(st.lists(action, min_size=1, max_size=16))
    def check(actions):
        both = Watched(name, engine, schedule)
        for what, seed in actions:
            getattr(both, what)(seed)
            assert same_bits(both.w, both.v)
            assert memory_of(both.opt) == memory_of(both.twin)

    check()
